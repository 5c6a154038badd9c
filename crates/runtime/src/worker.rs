//! State whose work blocks (a database), owned by one worker.
//!
//! In a node the worker is a thread; in simulation it is a task on the node's runtime, so that its work takes place
//! at a point of the seed's order. Jobs queue up to a bound and are answered exactly once; a panic in a job stops
//! the node, because nobody can say what state it left behind.

use tokio::sync::{mpsc, oneshot};

use crate::{Env, OnPanic};

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// The worker has ended: the node is stopping, or a job panicked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerGone;

/// A handle to the state. Cloning gives another handle to the same worker.
#[derive(Debug)]
pub struct Worker<S> {
    jobs: mpsc::Sender<Job<S>>,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone() }
    }
}

impl<S: Send + 'static> Worker<S> {
    /// Starts a worker that owns `state`; at most `queue` jobs wait. It ends, and drops the state, when the last
    /// handle is dropped; [`Scope::close`](crate::Scope::close) waits for that.
    pub fn start(env: &Env, name: &'static str, queue: usize, mut state: S) -> Self {
        let (jobs, mut inbox) = mpsc::channel::<Job<S>>(queue);
        if env.inline_workers {
            env.scope.spawn_to_end(name, OnPanic::StopNode, async move {
                while let Some(job) = inbox.recv().await {
                    job(&mut state);
                }
            });
        } else {
            env.scope.thread(name, move || {
                while let Some(job) = inbox.blocking_recv() {
                    job(&mut state);
                }
            });
        }
        Self { jobs }
    }

    /// Runs `job` on the state after the jobs before it. Dropping the future does not stop a job that was queued.
    pub async fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, WorkerGone> {
        let (answer, answered) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| {
            // A caller that went away does not need its answer.
            let _ = answer.send(job(state));
        });
        self.jobs.send(job).await.map_err(|_| WorkerGone)?;
        answered.await.map_err(|_| WorkerGone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_observe::Trace;
    use std::time::Duration;

    #[tokio::test]
    async fn jobs_run_in_order_on_a_thread_and_inline() {
        for env in [Env::system(), Env::simulated(1, 0, 0, 0, Trace::off())] {
            let worker = Worker::start(&env, "test", 4, Vec::new());
            for n in 0..10 {
                worker.call(move |list: &mut Vec<i32>| list.push(n)).await.unwrap();
            }
            assert_eq!(worker.call(|list| list.clone()).await.unwrap(), (0..10).collect::<Vec<_>>());
            drop(worker);
            env.scope.close(Duration::from_secs(5)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_panicking_job_stops_the_node_and_answers_its_caller() {
        for env in [Env::system(), Env::simulated(1, 0, 0, 0, Trace::off())] {
            let worker = Worker::start(&env, "test", 4, ());
            assert_eq!(worker.call(|()| panic!("job")).await, Err::<(), _>(WorkerGone));
            env.scope.cancelled().await;
            assert!(env.scope.stop_cause().unwrap().contains("test"));
        }
    }
}

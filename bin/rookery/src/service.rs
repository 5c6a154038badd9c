//! One node with everything around it, from the lock to the clean stop.
//!
//! Order of starting: lock, metrics address, control socket, node, then the two servers. What can fail for a reason
//! that the user can mend fails before the node starts. Order of stopping: everything at once, by the scope; the
//! lock goes last.

use std::sync::Arc;

use rookery_runtime::Env;

use crate::config::Config;
use crate::exit::Report;
use crate::front::Front;
use crate::lock::DirLock;
use crate::node::{Machinery, Node};
use crate::signals::{Signals, stop};
use crate::{control, http};

/// Threads for tasks: one keeps peers moving while the other verifies a batch. Blocking work has its own.
const WORKERS: usize = 2;

/// A runtime for one command.
pub fn runtime() -> Result<tokio::runtime::Runtime, Report> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("rookery")
        .enable_all()
        .build()
        .map_err(|error| Report::io(crate::exit::Exit::Failed, "cannot start threads", &error))
}

/// A running node and its surroundings.
pub struct Service {
    /// The node.
    pub node: Arc<dyn Node>,
    /// Its surroundings.
    pub env: Env,
    /// What may end it from outside.
    pub signals: Signals,
    _lock: DirLock,
}

impl Service {
    /// Starts a node as configured.
    pub async fn start(machinery: &dyn Machinery, config: Config) -> Result<Self, Report> {
        let env = Env::system();
        let mut signals = Signals::listen(env.clock)?;
        let dir = config.chain_dir();
        let lock = DirLock::acquire(&dir)?;
        let metrics = match config.metrics {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let socket = control::server::bind(&dir)?;
        let started = tokio::select! {
            biased;
            name = signals.next() => Err(name),
            started = machinery.start(&env, &config) => Ok(started),
        };
        let node = match started {
            Ok(Ok(node)) => node,
            Ok(Err(report)) => {
                // What had started before the failure must not outlive it; the report is the cause to tell.
                let _ = stop(&env.scope, &mut signals).await;
                return Err(report);
            }
            Err(signal) => {
                stop(&env.scope, &mut signals).await?;
                return Err(Report::new(
                    crate::exit::Exit::Clean,
                    format!("{signal} before the node was up"),
                ));
            }
        };
        let front = Front { node: Arc::clone(&node), env: env.clone(), config: Arc::new(config) };
        if let Some(listener) = metrics {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(target: "rookery", "metrics and health on http://{address}");
            }
            http::serve(listener, front.clone());
        }
        control::server::serve(socket, front);
        Ok(Self { node, env, signals, _lock: lock })
    }

    /// Stops the node cleanly.
    pub async fn stop(mut self) -> Result<(), Report> {
        stop(&self.env.scope, &mut self.signals).await
    }
}

//! quinn's tasks and timers, in the node's scope and on its clock.
//!
//! quinn runs a task for each endpoint and for each connection. They must outlive the sessions for a moment when the node stops,
//! because it is they who say goodbye; and they must not outlive the node. So they are not dropped when the scope is cancelled:
//! the endpoint's keeper waits a little for the connections to end by themselves, closes those that do not, waits for that to be
//! said, and then lets every task go.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use quinn::{AsyncTimer, AsyncUdpSocket, Endpoint, Runtime, TokioRuntime, VarInt};
use rookery_runtime::{Clock, Env, OnPanic, Scope};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::turns::{Shaking, Turns};

/// Time for sessions to end their connections in order, and again for the rest to be closed. Both fit into the five seconds in
/// which a node stops, with the writers' two.
const GOODBYE: Duration = Duration::from_secs(1);

/// Makes quinn's surroundings.
pub(super) struct Driver {
    runtime: Arc<InScope>,
}

impl Driver {
    pub fn new(env: &Env) -> Self {
        let turns = Arc::new(Turns::new(Handle::current().metrics().num_workers(), env.clock));
        let gone = CancellationToken::new();
        // Its own scope would be cancelled with the node's: only spawning through it matters here.
        let runtime = InScope { scope: env.scope.clone(), clock: env.clock, turns, gone };
        Self { runtime: Arc::new(runtime) }
    }

    pub fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.runtime) as Arc<dyn Runtime>
    }

    /// The turns of those who shake hands.
    #[cfg(test)]
    pub fn turns(&self) -> &Turns {
        &self.runtime.turns
    }

    /// Cancelled when the endpoints have said goodbye.
    pub fn gone(&self) -> CancellationToken {
        self.runtime.gone.clone()
    }

    /// Ends an endpoint when the node stops.
    pub fn keep(&self, env: &Env, endpoint: Endpoint) {
        let (clock, scope, gone) = (env.clock, env.scope.clone(), self.runtime.gone.clone());
        env.scope.spawn_to_end("quic endpoint", OnPanic::StopNode, async move {
            scope.cancelled().await;
            endpoint.set_server_config(None);
            if clock.timeout(GOODBYE, endpoint.wait_idle()).await.is_none() {
                endpoint.close(VarInt::from_u32(0), b"this node is stopping");
                // Whoever has not heard it by then finds out by its idle deadline.
                let _ = clock.timeout(GOODBYE, endpoint.wait_idle()).await;
            }
            gone.cancel();
        });
    }
}

/// quinn's runtime: the node's.
struct InScope {
    scope: Scope,
    clock: Clock,
    turns: Arc<Turns>,
    gone: CancellationToken,
}

impl fmt::Debug for InScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InScope")
    }
}

impl InScope {
    fn until_gone(&self, future: impl Future<Output = ()> + Send + 'static) {
        let gone = self.gone.clone();
        self.scope.spawn_to_end("quic", OnPanic::StopNode, async move {
            tokio::select! {
                biased;
                () = gone.cancelled() => {}
                () = future => {}
            }
        });
    }
}

impl Runtime for InScope {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        let turns = Arc::clone(&self.turns);
        match Shaking::made() {
            Some(shaking) => self.until_gone(turns.drive(shaking, future)),
            None => self.until_gone(future),
        }
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        self.clock.now().into_std()
    }
}

//! What the control socket and HTTP share: the running node, its process, and a deadline for its answers.

use std::sync::Arc;
use std::time::Duration;

use rookery_runtime::Env;

use crate::config::Config;
use crate::node::Node;
use crate::node::view::{NodeStatus, Status};
use crate::usage::Usage;

/// A view that takes longer means that one of the node's owners does not turn. Views are reads of memory: a tenth of
/// this would be slow already.
pub const VIEW_WITHIN: Duration = Duration::from_secs(2);

/// A running node with its surroundings. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    /// The node.
    pub node: Arc<dyn Node>,
    /// Its surroundings.
    pub env: Env,
    /// Its configuration.
    pub config: Arc<Config>,
}

impl Front {
    /// A view, or `None` when the node does not answer in time.
    pub async fn view<T>(&self, view: impl Future<Output = T>) -> Option<T> {
        self.env.clock.timeout(VIEW_WITHIN, view).await
    }

    /// The node's status with that of its process.
    pub fn status(&self, node: NodeStatus) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.env.clock.elapsed().as_secs(),
            data_dir: self.config.chain_dir().to_string_lossy().into_owned(),
            usage: Usage::now(),
            node,
        }
    }
}

//! Handshake nodes behind the front's seam.
//!
//! | file | what it holds |
//! |---|---|
//! | `node` | a node as the front sees it, and how one is started from a configuration |
//! | `views` | from what the engine and the header sync tell to what is shown |
//! | `demo` | a network of nodes in this process |
//! | `probe` | one question to one peer, without a node |
//! | `simulate` | the simulation's scenarios |

mod demo;
mod node;
mod probe;
#[cfg(feature = "sim")]
mod simulate;
mod views;

use std::sync::Arc;

use rookery_runtime::{BoxFuture, Env};

use crate::config::Config;
use crate::exit::Report;
use crate::node::view::{ProbeAnswer, Scenario, Simulated};
use crate::node::{DemoNetwork, Machinery, Node, Probe};

/// The Handshake machinery.
#[derive(Debug, Clone, Copy)]
pub struct Plugged;

impl Machinery for Plugged {
    fn start<'a>(&'a self, env: &'a Env, config: &'a Config) -> BoxFuture<'a, Result<Arc<dyn Node>, Report>> {
        Box::pin(async move {
            let node = node::start(env, config).await?;
            Ok(Arc::new(node) as Arc<dyn Node>)
        })
    }

    fn demo<'a>(&'a self, env: &'a Env, headers: u32) -> BoxFuture<'a, Result<Box<dyn DemoNetwork>, Report>> {
        Box::pin(async move {
            let demo = demo::Demo::start(env, headers).await?;
            Ok(Box::new(demo) as Box<dyn DemoNetwork>)
        })
    }

    fn probe<'a>(&'a self, env: &'a Env, probe: &'a Probe) -> BoxFuture<'a, Result<ProbeAnswer, Report>> {
        Box::pin(probe::probe(env, probe))
    }

    #[cfg(feature = "sim")]
    fn scenarios(&self) -> Vec<Scenario> {
        simulate::scenarios()
    }

    #[cfg(feature = "sim")]
    fn simulate(&self, scenario: &str, seed: u64) -> Result<Simulated, Report> {
        simulate::run(scenario, seed)
    }

    #[cfg(not(feature = "sim"))]
    fn scenarios(&self) -> Vec<Scenario> {
        Vec::new()
    }

    #[cfg(not(feature = "sim"))]
    fn simulate(&self, _: &str, _: u64) -> Result<Simulated, Report> {
        Err(Report::usage("this build has no simulation").hint("build rookery with its default features"))
    }
}

//! Nodes behind the front's seam, one folder per kind of network.
//!
//! | module | what it holds |
//! |---|---|
//! | `handshake`, `overlay` | nodes of these networks as the front sees them |
//! | `engine` | what the engine of either tells: sessions, dials, arrivals, bans |
//! | `resolve` | names and addresses that users give |
//! | `simulate` | the simulation's scenarios |

mod engine;
mod handshake;
mod overlay;
mod resolve;
#[cfg(feature = "sim")]
mod simulate;

use std::sync::Arc;

use rookery_runtime::{BoxFuture, Env};

use crate::config::Config;
use crate::exit::Report;
use crate::node::view::{Identity, ProbeAnswer, Scenario, Simulated};
use crate::node::{DemoNetwork, Machinery, Node, Probe};

/// The machinery of every network.
#[derive(Debug, Clone, Copy)]
pub struct Plugged;

impl Machinery for Plugged {
    fn start<'a>(&'a self, env: &'a Env, config: &'a Config) -> BoxFuture<'a, Result<Arc<dyn Node>, Report>> {
        Box::pin(async move {
            Ok(match config.network.handshake() {
                Some(params) => Arc::new(handshake::start(env, config, params).await?) as Arc<dyn Node>,
                None => Arc::new(overlay::start(env, config).await?) as Arc<dyn Node>,
            })
        })
    }

    fn identity(&self, config: &Config) -> Result<Identity, Report> {
        overlay::identity(config)
    }

    fn demo<'a>(&'a self, env: &'a Env, headers: u32) -> BoxFuture<'a, Result<Box<dyn DemoNetwork>, Report>> {
        Box::pin(async move {
            let demo = handshake::Demo::start(env, headers).await?;
            Ok(Box::new(demo) as Box<dyn DemoNetwork>)
        })
    }

    fn meeting<'a>(
        &'a self,
        env: &'a Env,
        nodes: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<dyn Node>>, Report>> {
        Box::pin(overlay::meeting(env, nodes))
    }

    fn probe<'a>(&'a self, env: &'a Env, probe: &'a Probe) -> BoxFuture<'a, Result<ProbeAnswer, Report>> {
        Box::pin(handshake::probe(env, probe))
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

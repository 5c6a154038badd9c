//! `rookery run`: join and stay.

use crate::config::Config;
use crate::exit::Report;
use crate::node::Machinery;
use crate::progress::{Display, LINE_EVERY};
use crate::service::Service;

/// Runs a node until a signal or its own end.
pub async fn run(machinery: &dyn Machinery, config: Config) -> Result<(), Report> {
    let network = config.network;
    let dir = config.chain_dir();
    let mut service = Service::start(machinery, config).await?;
    tracing::info!(target: "rookery", "running on {network}, data in {}", dir.display());
    let clock = service.env.clock;
    let mut progress = service.node.progress();
    let mut display = Display::lines();
    let mut said = String::new();
    loop {
        let now = progress.borrow_and_update().clone();
        if !now.at_tip {
            display.show(clock.elapsed(), &now);
        } else if now.tip != said {
            tracing::info!(target: "rookery", height = now.height, peers = now.peers, "at the tip {}", now.tip);
            said = now.tip;
        }
        tokio::select! {
            biased;
            name = service.signals.next() => {
                tracing::info!(target: "rookery", "{name}: stopping");
                break;
            }
            () = service.env.scope.cancelled() => break,
            changed = progress.changed() => if changed.is_err() {
                break;
            },
            // While it does not advance, the lines go on: silence is what a hanging program does.
            () = clock.sleep(LINE_EVERY) => {}
        }
    }
    service.stop().await?;
    tracing::info!(target: "rookery", "stopped");
    Ok(())
}

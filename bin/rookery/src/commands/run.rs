//! `rookery run`: join and stay.

use std::sync::Arc;

use crate::config::Config;
use crate::exit::Report;
use crate::node::Machinery;
use crate::output::Output;
use crate::progress::{Display, LINE_EVERY};
use crate::service::Service;

/// Runs a node until a signal or its own end.
pub async fn run(machinery: &dyn Machinery, config: Config, out: Output) -> Result<(), Report> {
    let (network, dir) = (config.network, config.chain_dir());
    let topic = config.overlay.topic.clone();
    let mut service = Service::start(machinery, config).await?;
    tracing::info!(target: "rookery", "running on {network}, data in {}", dir.display());
    let node = Arc::clone(&service.node);
    let ended = match node.topics() {
        Some(topics) => super::talk::talk(&mut service, topics, &topic, out).await,
        None => {
            follow(&mut service).await;
            Ok(())
        }
    };
    service.stop().await?;
    ended?;
    tracing::info!(target: "rookery", "stopped");
    Ok(())
}

/// Says how far the chain is.
async fn follow(service: &mut Service) {
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
                return;
            }
            () = service.env.scope.cancelled() => return,
            changed = progress.changed() => if changed.is_err() {
                return;
            },
            // While it does not advance, the lines go on: silence is what a hanging program does.
            () = clock.sleep(LINE_EVERY) => {}
        }
    }
}

//! `rookery sync`: catch up, print a summary, exit.

use std::time::Duration;

use crate::config::Config;
use crate::exit::{Exit, Report};
use crate::node::Machinery;
use crate::node::view::{Progress, SyncSummary};
use crate::output::{Output, Paint, bytes, fields};
use crate::progress::Display;
use crate::service::Service;
use crate::usage::Usage;

/// Runs a node until it is at the tip of its peers, or nothing has advanced for `patience`.
pub async fn sync(
    machinery: &dyn Machinery,
    config: Config,
    patience: Duration,
    out: Output,
) -> Result<(), Report> {
    let network = config.network;
    let mut service = Service::start(machinery, config).await?;
    let clock = service.env.clock;
    let ended = follow(&mut service, patience).await;
    let last = service.node.progress().borrow().clone();
    // The summary counts what the stop costs too: an acknowledged header is a durable one.
    service.stop().await?;
    let usage = Usage::now();
    let summary = SyncSummary {
        network: network.name().to_owned(),
        height: last.height,
        tip: last.tip,
        headers: last.headers,
        seconds: clock.elapsed().as_secs_f64(),
        cpu_seconds: usage.cpu_seconds,
        peak_rss_bytes: usage.peak_rss_bytes,
        peers: last.peers,
        at_tip: ended.is_ok(),
    };
    out.value(&summary, show)?;
    ended
}

/// Waits for the tip.
async fn follow(service: &mut Service, patience: Duration) -> Result<(), Report> {
    let clock = service.env.clock;
    let mut progress = service.node.progress();
    let mut display = Display::new("headers");
    let mut mark = Mark::default();
    let mut deadline = clock.now() + patience;
    loop {
        let now = progress.borrow_and_update().clone();
        if now.at_tip {
            return Ok(());
        }
        display.show(clock.elapsed(), &now);
        if mark.advanced(&now) {
            deadline = clock.now() + patience;
        }
        tokio::select! {
            biased;
            name = service.signals.next() => return Err(gave_up(&now, &format!("{name} came"))),
            () = service.env.scope.cancelled() => return Err(gave_up(&now, "the node stopped")),
            changed = progress.changed() => if changed.is_err() {
                return Err(gave_up(&now, "the node stopped"));
            },
            () = clock.sleep_until(deadline) => {
                let why = format!("nothing advanced for {} s", patience.as_secs());
                return Err(gave_up(&now, &why));
            }
        }
    }
}

/// What counts as an advance: headers, or more peers than ever before. Peers that come and go do not.
#[derive(Debug, Default)]
struct Mark {
    headers: u64,
    peers: u32,
}

impl Mark {
    fn advanced(&mut self, now: &Progress) -> bool {
        let advanced = now.headers > self.headers || now.peers > self.peers;
        self.headers = self.headers.max(now.headers);
        self.peers = self.peers.max(now.peers);
        advanced
    }
}

fn gave_up(now: &Progress, why: &str) -> Report {
    let report = Report::new(
        Exit::NotAtTip,
        format!("not at the tip: {why} at height {} of {}", now.height, now.target),
    );
    report.hint(match now.peers {
        0 => "no peer is connected: name one with --connect HOST, or see why with --log debug",
        _ => "run it again to go on from here; --log debug shows what the peers do",
    })
}

fn show(summary: &SyncSummary, paint: &Paint) -> String {
    let state = if summary.at_tip { paint.good("at the tip") } else { paint.bad("not at the tip") };
    let rate = summary.headers as f64 / summary.seconds.max(f64::MIN_POSITIVE);
    fields(
        *paint,
        &[
            ("network", summary.network.clone()),
            ("state", format!("{state}, {} peers", summary.peers)),
            ("height", summary.height.to_string()),
            ("tip", summary.tip.clone()),
            ("headers", format!("{} in {:.2} s, {rate:.0}/s", summary.headers, summary.seconds)),
            ("cpu", format!("{:.2} s", summary.cpu_seconds)),
            ("memory", format!("{} at most", bytes(summary.peak_rss_bytes))),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_that_come_and_go_are_no_advance() {
        let mut mark = Mark::default();
        let at = |headers, peers| Progress { headers, peers, ..Progress::default() };
        assert!(mark.advanced(&at(0, 1)));
        assert!(!mark.advanced(&at(0, 0)));
        assert!(!mark.advanced(&at(0, 1)));
        assert!(mark.advanced(&at(1, 0)));
    }
}

//! `rookery demo`: a network of nodes in this process. One mines, one joins late, catches up and follows.

use std::time::Duration;

use rookery_runtime::Env;
use tokio::sync::watch;

use crate::config::layers::Origin;
use crate::config::{Config, Settled};
use crate::exit::{Exit, Report};
use crate::node::view::{DemoSummary, Progress};
use crate::node::{Machinery, Node};
use crate::output::{Output, Paint, bytes, fields};
use crate::progress::Display;
use crate::signals::{Signals, stop};
use crate::usage::Usage;

/// New blocks to follow before a demo that nobody watches ends.
const FOLLOW: u32 = 5;
/// On loopback something advances all the time; a minute without is a fault to report, not to wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration of the demo: quiet unless the user asked for a log, as the bars tell the story.
pub fn config(settled: &Settled) -> Config {
    let mut config = settled.config.clone();
    if settled.origin("log") == Some(&Origin::Default) {
        config.log = "warn".to_owned();
    }
    config
}

/// Plays the demo.
pub async fn demo(machinery: &dyn Machinery, headers: u32, out: Output) -> Result<(), Report> {
    let env = Env::system();
    let mut signals = Signals::listen(env.clock)?;
    let played = tokio::select! {
        biased;
        name = signals.next() => Err(Report::new(Exit::Clean, name)),
        played = play(machinery, &env, headers, out) => played,
    };
    stop(&env.scope, &mut signals).await?;
    let story = played?;
    let usage = Usage::now();
    let summary = DemoSummary {
        network: crate::network::Network::HandshakeRegtest.name().to_owned(),
        nodes: story.nodes,
        height: story.last.height,
        tip: story.last.tip,
        headers: story.headers,
        sync_seconds: story.sync_seconds,
        followed: story.followed,
        cpu_seconds: usage.cpu_seconds,
        peak_rss_bytes: usage.peak_rss_bytes,
    };
    out.value(&summary, show)
}

/// What happened.
struct Story {
    nodes: usize,
    headers: u64,
    sync_seconds: f64,
    followed: u32,
    last: Progress,
}

async fn play(machinery: &dyn Machinery, env: &Env, headers: u32, out: Output) -> Result<Story, Report> {
    let clock = env.clock;
    let mut network = machinery.demo(env, headers).await?;
    tell(out, &format!("{} nodes on loopback; one of them mines {headers} blocks\n", network.nodes()))?;
    reach(env, network.mining(), "mining", headers).await?;

    let joined = clock.now();
    let late = network.join().await?;
    tell(out, "a new node joins and knows nothing yet\n")?;
    let synced = reach(env, late.progress(), "syncing", headers).await?;
    let sync_seconds = clock.now().duration_since(joined).as_secs_f64();
    let rate = synced.headers as f64 / sync_seconds.max(f64::MIN_POSITIVE);
    tell(out, &format!("it verified {} headers in {sync_seconds:.2} s ({rate:.0}/s)\n", synced.headers))?;

    let stays = out.terminal && !out.json;
    if stays {
        tell(out, "it follows new blocks; Ctrl-C ends the demo\n")?;
    }
    let (followed, last) = follow(env, &*late, &synced, stays, out).await?;
    Ok(Story { nodes: network.nodes() + 1, headers: synced.headers, sync_seconds, followed, last })
}

/// Waits until a node has reached a height, with a bar.
async fn reach(
    env: &Env,
    mut progress: watch::Receiver<Progress>,
    title: &'static str,
    height: u32,
) -> Result<Progress, Report> {
    let mut display = Display::new(title);
    loop {
        let now = progress.borrow_and_update().clone();
        if now.height >= height {
            return Ok(now);
        }
        display.show(env.clock.elapsed(), &now);
        advance(env, &mut progress, title).await?;
    }
}

/// Counts new blocks: five, or for ever.
async fn follow(
    env: &Env,
    late: &dyn Node,
    synced: &Progress,
    stays: bool,
    out: Output,
) -> Result<(u32, Progress), Report> {
    let mut progress = late.progress();
    let mut seen = synced.height;
    loop {
        let now = progress.borrow_and_update().clone();
        if now.height > seen {
            seen = now.height;
            tell(out, &format!("block {}  {}\n", now.height, now.tip))?;
        }
        let followed = seen - synced.height;
        if !stays && followed >= FOLLOW {
            return Ok((followed, now));
        }
        advance(env, &mut progress, "following").await?;
    }
}

/// Waits for the next value.
async fn advance(env: &Env, progress: &mut watch::Receiver<Progress>, what: &str) -> Result<(), Report> {
    tokio::select! {
        biased;
        () = env.scope.cancelled() => Err(Report::bug(format!("the demo stopped while {what}"))),
        changed = env.clock.timeout(PATIENCE, progress.changed()) => match changed {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(Report::bug(format!("a node of the demo ended while {what}"))),
            None => Err(Report::bug(format!("nothing advanced for {} s while {what}", PATIENCE.as_secs()))),
        },
    }
}

/// Tells the story, unless a program listens.
fn tell(out: Output, text: &str) -> Result<(), Report> {
    if out.json { Ok(()) } else { out.text(text) }
}

fn show(summary: &DemoSummary, paint: &Paint) -> String {
    fields(
        *paint,
        &[
            ("nodes", summary.nodes.to_string()),
            ("height", summary.height.to_string()),
            ("tip", summary.tip.clone()),
            ("caught up", format!("{} headers in {:.2} s", summary.headers, summary.sync_seconds)),
            ("followed", format!("{} new blocks", summary.followed)),
            ("cpu", format!("{:.2} s, mining included", summary.cpu_seconds)),
            ("memory", format!("{} at most, all nodes together", bytes(summary.peak_rss_bytes))),
        ],
    )
}

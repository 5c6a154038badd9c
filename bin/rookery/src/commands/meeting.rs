//! `rookery demo --network overlay`: nodes that know one of them find each other, one publishes, all get it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rookery_runtime::{Env, Instant, OnPanic};
use tokio::sync::mpsc;

use crate::control::show::short;
use crate::exit::{Exit, Report};
use crate::node::view::MeetingSummary;
use crate::node::{Machinery, Node, Topics};
use crate::output::{Output, Paint, bytes, escaped, fields};
use crate::signals::{Signals, stop};
use crate::usage::Usage;

/// Nodes, the bootstrap node included: enough that most of them can only know each other by hearsay, and few enough to be
/// listed.
const NODES: usize = 6;
/// On loopback all of it takes seconds; a minute for one step is a fault to report, not to wait for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Under which they publish.
const TOPIC: &str = "demo";

/// Plays the demo.
pub(super) async fn meeting(machinery: &dyn Machinery, out: Output) -> Result<(), Report> {
    let env = Env::system();
    let mut signals = Signals::listen(env.clock)?;
    let played = tokio::select! {
        biased;
        name = signals.next() => Err(Report::new(Exit::Clean, name)),
        played = play(machinery, &env, out) => played,
    };
    stop(&env.scope, &mut signals).await?;
    let (connected, delivered) = played?;
    let usage = Usage::now();
    let summary = MeetingSummary {
        network: crate::network::Network::Overlay.name().to_owned(),
        nodes: NODES,
        connected_seconds: connected.as_secs_f64(),
        delivered: delivered.len(),
        delivered_ms: delivered.iter().max().map_or(0.0, milliseconds),
        cpu_seconds: usage.cpu_seconds,
        peak_rss_bytes: usage.peak_rss_bytes,
    };
    out.value(&summary, show)
}

/// How long it took until all were connected, and then until each had what was published.
async fn play(
    machinery: &dyn Machinery,
    env: &Env,
    out: Output,
) -> Result<(Duration, Vec<Duration>), Report> {
    let clock = env.clock;
    let began = clock.now();
    let nodes = machinery.meeting(env, NODES).await?;
    let mut names = Vec::new();
    for node in &nodes {
        let status = node.status().await;
        let id = status.overlay.map(|overlay| overlay.peer_id).unwrap_or_default();
        let at = status.listening.into_iter().next().unwrap_or_default();
        let role = if names.is_empty() { "the bootstrap node" } else { "knows the bootstrap node only" };
        tell(out, &format!("{:>7.3} s  {}  {at}  {role}\n", seconds(env, began), short(&id)))?;
        names.push(short(&id).to_owned());
    }
    for (node, name) in nodes.iter().zip(&names) {
        all_met(env, &**node, name).await?;
    }
    let connected = clock.now().duration_since(began);
    tell(
        out,
        &format!("{:>7.3} s  each is connected to all {} others\n", connected.as_secs_f64(), NODES - 1),
    )?;

    let (tell_got, mut got) = mpsc::channel(NODES);
    for (node, name) in nodes.iter().zip(&names).take(NODES - 1) {
        let (mut items, name) = (topics(node)?.subscribe(TOPIC).await?, name.clone());
        let (tell_got, clock) = (tell_got.clone(), env.clock);
        env.scope.spawn("demo subscriber", OnPanic::StopNode, async move {
            let item = items.recv().await;
            // There is room for every node.
            let _ = tell_got.try_send((name, item, clock.now()));
        });
    }
    let (publisher, name) = (topics(&nodes[NODES - 1])?, &names[NODES - 1]);
    let said = Bytes::from(format!("hello from {name}"));
    let published = clock.now();
    let refused = publisher.publish(TOPIC, said.clone()).await;
    refused.map_err(|why| Report::bug(format!("the demo cannot publish: {why}")))?;
    tell(out, &format!("{:>7.3} s  {name} publishes {:?}\n", seconds(env, began), escaped(&said)))?;
    let mut delivered = Vec::new();
    for _ in 1..NODES {
        let arrived = within(env, got.recv(), "the others wait for what was published").await?;
        let (name, item, at) = arrived.ok_or_else(|| Report::bug("a subscriber of the demo ended"))?;
        if item.map(|item| item.payload).as_ref() != Some(&said) {
            return Err(Report::bug(format!("{name} got something else than what was published")));
        }
        let took = at.duration_since(published);
        tell(
            out,
            &format!("{:>7.3} s  {name} has it, {:.1} ms later\n", seconds(env, began), milliseconds(&took)),
        )?;
        delivered.push(took);
    }
    Ok((connected, delivered))
}

/// Waits until a node is connected to all others.
async fn all_met(env: &Env, node: &dyn Node, name: &str) -> Result<(), Report> {
    let mut progress = node.progress();
    let all = progress.wait_for(|now| now.peers as usize >= NODES - 1);
    let met = within(env, all, &format!("{name} looks for the others")).await?;
    met.map(drop).map_err(|_| Report::bug(format!("{name} ended")))
}

/// Waits for something, but not for ever and not beyond the end of the nodes.
async fn within<T>(env: &Env, what: impl Future<Output = T>, step: &str) -> Result<T, Report> {
    tokio::select! {
        biased;
        () = env.scope.cancelled() => Err(Report::bug(format!("the demo stopped while {step}"))),
        done = env.clock.timeout(PATIENCE, what) => {
            done.ok_or_else(|| Report::bug(format!("nothing for {} s while {step}", PATIENCE.as_secs())))
        }
    }
}

fn topics(node: &Arc<dyn Node>) -> Result<&dyn Topics, Report> {
    node.topics().ok_or_else(|| Report::bug("a node of the demo has no topics"))
}

fn seconds(env: &Env, began: Instant) -> f64 {
    env.clock.now().duration_since(began).as_secs_f64()
}

fn milliseconds(took: &Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// Tells the story, unless a program listens.
fn tell(out: Output, text: &str) -> Result<(), Report> {
    if out.json { Ok(()) } else { out.text(text) }
}

fn show(summary: &MeetingSummary, paint: &Paint) -> String {
    fields(
        *paint,
        &[
            ("nodes", format!("{}, with ML-DSA-65 identities", summary.nodes)),
            ("connected", format!("each to all others after {:.2} s", summary.connected_seconds)),
            ("delivered", format!("to {} within {:.1} ms", summary.delivered, summary.delivered_ms)),
            ("cpu", format!("{:.2} s", summary.cpu_seconds)),
            ("memory", format!("{} at most, all nodes together", bytes(summary.peak_rss_bytes))),
        ],
    )
}

//! `rookery run` in the overlay: what others publish goes to stdout, the lines of stdin are published.
//!
//! ```text
//! stdin -> line -> publish            (a line that is too long is passed over, an empty one says nothing)
//! subscription -> one line on stdout  (escaped text, or a JSON object)
//! ```
//!
//! The end of stdin ends the publishing and not the node. It ends when it is asked to, or when nobody reads its stdout
//! any more.

use std::convert::Infallible;
use std::io::{ErrorKind, IsTerminal};
use std::pin::pin;

use bytes::Bytes;
use rookery_overlay::services::gossip::Delivery;
use rookery_overlay::wire::gossip::MAX_PAYLOAD;
use rookery_runtime::Instant;
use tokio::io::{AsyncWriteExt, BufReader, Stdin};
use tokio::sync::mpsc;

use super::lines::{Line, Lines};
use crate::exit::{Exit, Report};
use crate::node::Topics;
use crate::node::view::Progress;
use crate::output::{Output, escaped};
use crate::progress::LINE_EVERY;
use crate::service::Service;

/// Talks until a signal, the node's own end, or the end of whoever reads stdout. Without a topic it only stays.
pub(super) async fn talk(
    service: &mut Service,
    topics: &dyn Topics,
    topic: &str,
    out: Output,
) -> Result<(), Report> {
    let clock = service.env.clock;
    let (mut items, mut input) = (None, None);
    if !topic.is_empty() {
        items = Some(topics.subscribe(topic).await?);
        input = may_read_stdin().then(|| Lines::new(BufReader::new(tokio::io::stdin()), MAX_PAYLOAD));
        tracing::info!(target: "rookery", "subscribed to {topic}");
    }
    // Side by side, so that neither a reader of stdout that has stopped nor a flood of either holds up the rest.
    let mut printing = pin!(print_all(items, out));
    let mut publishing = pin!(publish_all(topics, topic, input));
    let mut progress = service.node.progress();
    let mut met = Met::new(clock.now());
    loop {
        tokio::select! {
            biased;
            name = service.signals.next() => {
                tracing::info!(target: "rookery", "{name}: stopping");
                return Ok(());
            }
            () = service.env.scope.cancelled() => return Ok(()),
            changed = progress.changed() => match changed {
                Ok(()) => met.look(&progress.borrow_and_update(), clock.now()),
                Err(_) => return Ok(()),
            },
            () = clock.sleep_until(met.again) => met.tell(clock.now()),
            ended = &mut printing => return ended,
            never = &mut publishing => match never {},
        }
    }
}

/// Whether a read of stdin is safe: a job in the background that reads from its terminal is stopped by the kernel.
fn may_read_stdin() -> bool {
    let stdin = std::io::stdin();
    !stdin.is_terminal()
        || rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Publishes the lines of an input. Goes on for ever, as the end of the input is not that of the node.
async fn publish_all(topics: &dyn Topics, topic: &str, input: Option<Lines<BufReader<Stdin>>>) -> Infallible {
    let Some(mut input) = input else { return std::future::pending().await };
    loop {
        let published = match input.next().await {
            Ok(Some(Line::Text(text))) if text.is_empty() => Ok(()),
            Ok(Some(Line::Text(text))) => topics.publish(topic, text).await,
            Ok(Some(Line::TooLong)) => Err(format!("the line has more than {MAX_PAYLOAD} bytes")),
            Ok(None) => return std::future::pending().await,
            Err(error) => {
                tracing::warn!(target: "rookery", %error, "cannot read stdin: nothing more is published from it");
                return std::future::pending().await;
            }
        };
        if let Err(why) = published {
            tracing::warn!(target: "rookery", "a line of stdin was not published: {why}");
        }
    }
}

/// Prints items until nobody reads them.
async fn print_all(items: Option<mpsc::Receiver<Delivery>>, out: Output) -> Result<(), Report> {
    let Some(mut items) = items else { return std::future::pending().await };
    // Written in the background: a terminal that is paused must not keep a signal from being heard.
    let mut stdout = tokio::io::stdout();
    while let Some(item) = items.recv().await {
        if item.missed > 0 {
            tracing::warn!(target: "rookery", "{} items were lost: stdout was not read fast enough", item.missed);
        }
        let line = if out.json { json(&item) } else { escaped(&item.payload) } + "\n";
        let written = async {
            stdout.write_all(line.as_bytes()).await?;
            stdout.flush().await
        };
        match written.await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                tracing::info!(target: "rookery", "nobody reads what is published any more: stopping");
                return Ok(());
            }
            Err(error) => return Err(Report::io(Exit::Failed, "cannot write to stdout", &error)),
        }
    }
    // Only the end of the node ends a subscription, and whoever waits for that has been told.
    std::future::pending().await
}

/// An item as a line for scripts. A payload that is no UTF-8 comes as `payload_hex`.
fn json(item: &Delivery) -> String {
    let mut line = serde_json::json!({ "topic": item.topic.as_str(), "id": item.id.to_string() });
    let (field, payload) = match std::str::from_utf8(&item.payload) {
        Ok(text) => ("payload", text.to_owned()),
        Err(_) => ("payload_hex", hex(&item.payload)),
    };
    line[field] = payload.into();
    if item.missed > 0 {
        line["missed"] = item.missed.into();
    }
    line.to_string()
}

fn hex(bytes: &Bytes) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Says who is there: the first peer and the loss of the last one at once, everything else every ten seconds.
struct Met {
    peers: u32,
    told: Option<u32>,
    again: Instant,
}

impl Met {
    fn new(now: Instant) -> Self {
        Self { peers: 0, told: None, again: now + LINE_EVERY }
    }

    fn look(&mut self, progress: &Progress, now: Instant) {
        self.peers = progress.peers;
        if (self.peers == 0) != (self.told.unwrap_or(0) == 0) {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        self.again = now + LINE_EVERY;
        match self.peers {
            0 => tracing::info!(
                target: "rookery",
                "no peer is connected; `rookery why --network overlay` says what that waits for"
            ),
            count if self.told == Some(count) => {}
            1 => tracing::info!(target: "rookery", "1 peer is connected"),
            count => tracing::info!(target: "rookery", "{count} peers are connected"),
        }
        self.told = Some(self.peers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rookery_base::Hash32;
    use rookery_overlay::wire::Topic;

    #[test]
    fn a_script_gets_text_as_text_and_anything_else_in_hex() {
        let item = |payload: &'static [u8], missed| Delivery {
            id: Hash32::ZERO,
            topic: Topic::new("chat").unwrap(),
            payload: Bytes::from_static(payload),
            missed,
        };
        let line = |item| serde_json::from_str::<serde_json::Value>(&json(&item)).unwrap();
        let text = line(item("h\u{f6}i\n".as_bytes(), 0));
        assert_eq!((&text["topic"], &text["payload"]), (&"chat".into(), &"h\u{f6}i\n".into()));
        assert!(text.get("missed").is_none() && text["id"].as_str().unwrap().len() == 64);
        let other = line(item(b"\xff\x00", 3));
        assert_eq!((&other["payload_hex"], &other["missed"]), (&"ff00".into(), &3.into()));
    }
}

//! Every metric of a node, in one place, so that the reference in docs/metrics.md is generated from it.
//!
//! Names follow Prometheus: base units, `_total` for counters. The doc comment of a field is its help text.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

macro_rules! labels {
    ($($name:ident { $($field:ident),+ } $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(#[allow(missing_docs, reason = "the field is the label's name")] pub $field: &'static str),+ }
    )*};
}

labels! {
    Why { why } "A reason from a closed set.";
    Way { direction } "`in` or `out`.";
    Message { kind, direction } "A message's name and `in` or `out`.";
    KindLabel { kind } "A message's name.";
    Stage { stage, why } "Where things are, and why they are there if there is a reason to tell.";
    Outcome { outcome } "How something ended, from a closed set.";
    RequestEnd { kind, end } "A request's message and how it ended.";
    LaneLabel { lane } "`control`, `answer` or `gossip`.";
    BoxLabel { mailbox } "A mailbox's name.";
}

/// 50 us to 30 s, for network and disk times.
const SECONDS: [f64; 12] = [0.00005, 0.0002, 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 30.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Counts of things that move from stage to stage, behind one lock: whoever reads them, a scrape included, sees sums
/// that are right at that instant. Cloning gives another handle to the same counts.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<BTreeMap<(&'static str, &'static str), u64>>>);

impl Standing {
    /// Changes counts together.
    pub fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<(&'static str, &'static str), u64>) -> T) -> T {
        change(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(&'static str, &'static str), u64>> {
        // Changes are additions and subtractions of numbers: a panic elsewhere cannot leave them half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Standing {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for ((stage, why), count) in &*self.lock() {
            let label = Stage { stage, why };
            encoder.encode_family(&label)?.encode_gauge(&i64::try_from(*count).unwrap_or(i64::MAX))?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

macro_rules! metrics {
    ($($field:ident: $ty:ty = $make:expr, $name:literal, $help:literal;)*) => {
        /// A node's metrics. Cheap to share behind an `Arc`.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $ty,)*
        }

        impl Default for Metrics {
            fn default() -> Self {
                let mut registry = Registry::with_prefix("rookery");
                $(let $field: $ty = $make; registry.register($name, $help, $field.clone());)*
                Self { registry, $($field),* }
            }
        }

        /// Name (without the `rookery_` prefix and the `_total` that counters end in) and help of every metric.
        pub const REFERENCE: &[(&str, &str)] = &[$(($name, $help)),*];
    };
}

metrics! {
    accept_total: Counter = Counter::default(), "accept", "Connections that arrived.";
    accept_refused: Family<Why, Counter> = Family::default(), "accept_refused", "Arrivals refused before a handshake, by reason.";
    arrivals: Standing = Standing::default(), "arrivals", "Connections that peers opened, by where they are: arrived is at every instant the sum of shaking, live, ended, refused, retried and ignored.";
    dials: Family<Outcome, Counter> = Family::default(), "dial", "Dials, by how they ended.";
    handshake_seconds: Family<Outcome, Histogram> = Family::new_with_constructor(seconds), "handshake_seconds", "Time from connection to an established or failed handshake.";
    handshakes: Family<Outcome, Counter> = Family::default(), "handshake", "Handshakes, by how they ended.";
    sessions: Family<Way, Gauge> = Family::default(), "sessions", "Established sessions.";
    disconnects: Family<Why, Counter> = Family::default(), "disconnect", "Sessions that ended, by cause.";
    frames: Family<Message, Counter> = Family::default(), "frames", "Messages, by kind and direction.";
    frame_bytes: Family<Message, Counter> = Family::default(), "frame_bytes", "Bytes of messages, by kind and direction.";
    throttled: Family<KindLabel, Counter> = Family::default(), "throttled", "Times that a peer's reading waited for its rate of a message.";
    dropped: Family<KindLabel, Counter> = Family::default(), "dropped", "Messages over their rate that were dropped.";
    parked_peers: Gauge = Gauge::default(), "parked_peers", "Peers whose reading waits for room further in.";
    pipe_step_seconds: Histogram = seconds(), "pipe_step_seconds", "Time one message took in its pipe.";
    reactor_step_seconds: Histogram = seconds(), "reactor_step_seconds", "Time one event took in a reactor.";
    mailbox_wait_seconds: Family<BoxLabel, Histogram> = Family::new_with_constructor(seconds), "mailbox_wait_seconds", "Time an event waited in a mailbox.";
    mailbox_depth: Family<BoxLabel, Gauge> = Family::default(), "mailbox_depth", "Events waiting in a mailbox.";
    mailbox_full: Family<BoxLabel, Counter> = Family::default(), "mailbox_full", "Events that a mailbox had no room for.";
    requests: Family<RequestEnd, Counter> = Family::default(), "request_end", "Requests, by how they ended.";
    request_seconds: Family<KindLabel, Histogram> = Family::new_with_constructor(seconds), "request_seconds", "Time from a request to its answer.";
    late_answers: Counter = Counter::default(), "late_answers", "Answers to requests that had ended, swallowed.";
    outbox_dropped: Family<LaneLabel, Counter> = Family::default(), "outbox_dropped", "Messages dropped because a peer's lane was full.";
    write_stalls: Counter = Counter::default(), "write_stall", "Peers closed because they did not read.";
    panics: Counter = Counter::default(), "panics", "Panics that supervision caught. Anything but 0 is a bug here.";
    header_height: Gauge = Gauge::default(), "header_height", "Height of the best header.";
    stored_height: Gauge = Gauge::default(), "stored_height", "Height of the last header that is durably stored.";
    target_height: Gauge = Gauge::default(), "target_height", "The best height that a connected peer has claimed.";
    headers_accepted: Counter = Counter::default(), "headers_accepted", "Headers that joined the tree.";
    headers_refused: Family<Why, Counter> = Family::default(), "headers_refused", "Headers that were refused, by reason.";
    reorgs: Counter = Counter::default(), "reorg", "Reorganisations.";
    reorg_depth: Gauge = Gauge::default(), "reorg_depth", "Depth of the last reorganisation in blocks.";
    store_commit_seconds: Histogram = seconds(), "store_commit_seconds", "Time of one durable commit.";
    budget_bytes: Gauge = Gauge::default(), "budget_bytes", "Bytes of messages held by this process.";
    known_addresses: Gauge = Gauge::default(), "known_addresses", "Addresses in the book.";
    udp_receive_buffer_bytes: Gauge = Gauge::default(), "udp_receive_buffer_bytes", "Receive buffer that the system granted to the UDP socket that was bound last, as it states it.";
    udp_ring_dropped: Counter = Counter::default(), "udp_ring_dropped", "Datagrams dropped because the memory that stands in for a small receive buffer was full.";
    quic_passed_over: Counter = Counter::default(), "quic_passed_over", "First packets of QUIC connections that were passed over, because another of the same flight had just been answered.";
    quic_rtt_seconds: Histogram = seconds(), "quic_rtt_seconds", "Smoothed round-trip time of QUIC connections, each at its end.";
    quic_sent_packets: Counter = Counter::default(), "quic_sent_packets", "Packets sent on QUIC connections that have ended.";
    quic_lost_packets: Counter = Counter::default(), "quic_lost_packets", "Packets lost on QUIC connections that have ended.";
    banned_addresses: Gauge = Gauge::default(), "banned_addresses", "Addresses that are refused.";
}

impl Metrics {
    /// Everything in the Prometheus text format.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String fails only if a metric's own encoder does, and then the page is short, not wrong.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_every_metric_and_ends_as_the_format_wants() {
        let metrics = Metrics::default();
        metrics.accept_refused.get_or_create(&Why { why: "full" }).inc();
        let text = metrics.text();
        assert!(text.contains("rookery_accept_refused_total{why=\"full\"} 1"), "{text}");
        assert!(text.ends_with("# EOF\n"));
        assert!(text.contains("rookery_header_height 0"), "{text}");
    }

    #[test]
    fn names_are_unique_and_explained() {
        for (i, (name, help)) in REFERENCE.iter().enumerate() {
            assert!(!help.is_empty() && REFERENCE[..i].iter().all(|(other, _)| other != name), "{name}");
        }
    }
}

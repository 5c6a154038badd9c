//! One record per engine event.
//!
//! The same records feed the simulation's auditor, which hashes them (two runs of a seed must give one hash), and a
//! node's JSON-lines trace. A record holds nothing that differs between two runs of a seed: no addresses of
//! memory, no wall clock.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What happened, where and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TraceEvent {
    /// Time since the node started.
    pub at: Duration,
    /// The node, in a world of many; 0 in a process of one.
    pub node: u32,
    /// What happened, from a closed set: `frame_in`, `session_open`, `request_end`, ...
    pub event: &'static str,
    /// The session's generation, or 0.
    pub peer: u64,
    /// The message kind, or 0.
    pub kind: u16,
    /// A length in bytes or a count, or 0.
    pub len: u64,
    /// What was decided, from a closed set.
    pub verdict: &'static str,
}

/// Takes trace records. Must not block and must not panic.
pub trait TraceSink: Send + Sync {
    /// Takes one record.
    fn record(&self, event: &TraceEvent);
}

/// A handle to a node's trace sink, or to none.
#[derive(Clone, Default)]
pub struct Trace {
    sink: Option<Arc<dyn TraceSink>>,
    node: u32,
}

impl Trace {
    /// A trace that goes to `sink`, its records marked with `node`.
    pub fn to(sink: Arc<dyn TraceSink>, node: u32) -> Self {
        Self { sink: Some(sink), node }
    }

    /// A trace that goes nowhere and costs one branch.
    pub const fn off() -> Self {
        Self { sink: None, node: 0 }
    }

    /// Whether anybody listens.
    pub const fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Records an event; its `node` is filled in here.
    pub fn record(&self, mut event: TraceEvent) {
        if let Some(sink) = &self.sink {
            event.node = self.node;
            sink.record(&event);
        }
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("node", &self.node).field("on", &self.is_on()).finish()
    }
}

/// Writes each record as one JSON line.
pub struct JsonLines<W> {
    out: Mutex<W>,
}

impl<W: std::io::Write + Send> JsonLines<W> {
    /// Writes to `out`.
    pub const fn new(out: W) -> Self {
        Self { out: Mutex::new(out) }
    }
}

impl<W: std::io::Write + Send> TraceSink for JsonLines<W> {
    fn record(&self, event: &TraceEvent) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A trace that cannot be written (full disk, closed pipe) must not stop the node.
        let _ = serde_json::to_writer(&mut *out, event).map(|()| out.write_all(b"\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_json_line_marked_with_its_node() {
        #[derive(Clone, Default)]
        struct Shared(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Shared {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let out = Shared::default();
        let trace = Trace::to(Arc::new(JsonLines::new(out.clone())), 7);
        trace.record(TraceEvent {
            at: Duration::from_millis(5),
            node: 0,
            event: "frame_in",
            peer: 3,
            kind: 11,
            len: 9,
            verdict: "ok",
        });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert!(text.ends_with('\n') && text.contains("\"node\":7") && text.contains("frame_in"), "{text}");
    }
}

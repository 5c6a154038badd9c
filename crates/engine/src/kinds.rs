//! What is known of a message kind before its payload is read, and the guard that applies it.

use std::sync::Arc;

use rookery_base::{Kind, PeerFault, PeerFaultKind};
use rookery_runtime::{Instant, TokenBucket};

use crate::{Caps, Head, Service};

/// What a message is to the exchange it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Stands alone.
    Notice,
    /// Opens a request; the bound is how many of this kind may be open towards one peer.
    Request(u16),
    /// Answers a request. Without an open request of the kind it answers, a body over `unasked` bytes is refused
    /// before it is read.
    Answer {
        /// The request's kind.
        to: Kind,
        /// The largest body that is read when nothing was asked.
        unasked: u32,
    },
}

/// What happens to a message over its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The peer's reading waits until the rate allows it: TCP and QUIC push back.
    Wait,
    /// It is read past and counted.
    Drop,
    /// The session ends.
    Close,
}

/// How often a peer may send a kind.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Lasting rate.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
    /// What happens above it.
    pub over: Over,
}

/// Lanes of a peer's outbox, most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaneName {
    /// Small messages that keep the session alive. Full: the peer is closed.
    Control,
    /// Answers to the peer's requests, and our requests. Full: the peer is closed.
    Answer,
    /// Announcements. Full: the oldest is dropped.
    Gossip,
}

impl LaneName {
    /// A stable label for metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Answer => "answer",
            Self::Gossip => "gossip",
        }
    }
}

/// A message kind, as its service declares it.
#[derive(Debug, Clone, Copy)]
pub struct KindSpec {
    /// Its number on the wire.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// The smallest body in bytes.
    pub min: u32,
    /// The largest body in bytes.
    pub max: u32,
    /// Its place in an exchange.
    pub role: Role,
    /// How often a peer may send it.
    pub rate: Rate,
    /// The lane we send it on.
    pub lane: LaneName,
    /// Capabilities that the session must have.
    pub needs: Caps,
}

/// Why a network's services do not fit together. Found at start, never while running.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two services declare one kind.
    #[error("message kind {kind} is declared by service {first} and by service {second}")]
    DuplicateKind {
        /// The kind.
        kind: u16,
        /// Who declared it first.
        first: &'static str,
        /// Who declared it again.
        second: &'static str,
    },
    /// A kind's bounds exclude each other.
    #[error("message {name} of service {service} has a least size over its largest")]
    Bounds {
        /// The message.
        name: &'static str,
        /// The service.
        service: &'static str,
    },
    /// An answer to a kind that no service declares as a request.
    #[error("message {name} of service {service} answers kind {to}, which is no request")]
    AnswersNothing {
        /// The message.
        name: &'static str,
        /// The service.
        service: &'static str,
        /// The kind it claims to answer.
        to: u16,
    },
}

/// All kinds of a network, by number.
#[derive(Debug, Clone)]
pub struct KindTable {
    /// Sorted by kind; with the index of the service.
    rows: Arc<[(KindSpec, usize)]>,
}

impl KindTable {
    /// The table of these services.
    ///
    /// # Errors
    /// When two services declare one kind, bounds are reversed, or an answer answers nothing.
    pub fn build(services: &[Arc<dyn Service>]) -> Result<Self, TableError> {
        let mut rows: Vec<(KindSpec, usize)> = Vec::new();
        for (index, service) in services.iter().enumerate() {
            for spec in service.kinds() {
                if spec.min > spec.max {
                    return Err(TableError::Bounds { name: spec.name, service: service.name() });
                }
                if let Some((_, first)) = rows.iter().find(|(other, _)| other.kind == spec.kind) {
                    return Err(TableError::DuplicateKind {
                        kind: spec.kind.0,
                        first: services[*first].name(),
                        second: service.name(),
                    });
                }
                rows.push((*spec, index));
            }
        }
        for (spec, index) in &rows {
            if let Role::Answer { to, .. } = spec.role
                && !rows.iter().any(|(other, _)| other.kind == to && matches!(other.role, Role::Request(_)))
            {
                return Err(TableError::AnswersNothing {
                    name: spec.name,
                    service: services[*index].name(),
                    to: to.0,
                });
            }
        }
        rows.sort_by_key(|(spec, _)| spec.kind);
        Ok(Self { rows: rows.into() })
    }

    /// The row of a kind: its place in the table, its declaration and its service's index.
    pub fn find(&self, kind: Kind) -> Option<(usize, &KindSpec, usize)> {
        let row = self.rows.binary_search_by_key(&kind, |(spec, _)| spec.kind).ok()?;
        Some((row, &self.rows[row].0, self.rows[row].1))
    }

    /// The declaration in a row.
    pub fn spec(&self, row: usize) -> &KindSpec {
        &self.rows[row].0
    }

    /// The service of a row.
    pub fn service(&self, row: usize) -> usize {
        self.rows[row].1
    }

    /// All declarations, by kind.
    pub fn specs(&self) -> impl Iterator<Item = &KindSpec> {
        self.rows.iter().map(|(spec, _)| spec)
    }
}

/// What the guard says of a head.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// Read the body; it is this row of the table.
    Pass(usize),
    /// Read past the body: nobody here wants this kind from this peer.
    Skip,
    /// Read past the body and count it: it is over its rate.
    Drop(&'static str),
    /// The peer is over its rate of this message; look again at this time.
    Wait(Instant, &'static str),
    /// The session ends.
    Refuse(PeerFault),
}

/// One peer's guard: sizes, capabilities and rates, before a payload is read.
#[derive(Debug)]
pub struct Guard {
    table: KindTable,
    caps: Caps,
    /// Which services run on this session.
    admitted: Vec<bool>,
    /// A bucket for each kind that this peer has sent; made when the first one comes, so that a quiet peer is small.
    buckets: Vec<(usize, TokenBucket)>,
}

impl Guard {
    /// A guard for a session with these capabilities and services.
    pub const fn new(table: KindTable, caps: Caps, admitted: Vec<bool>) -> Self {
        Self { table, caps, admitted, buckets: Vec::new() }
    }

    /// Judges a head. `open` tells whether a request of a kind is open. Takes a token only when the verdict is
    /// final, so that a wait can be asked again.
    pub fn check(
        &mut self,
        head: &Head,
        now: Instant,
        open: impl FnOnce(Kind) -> bool,
        unknown: impl FnOnce(Kind) -> crate::UnknownKind,
    ) -> Verdict {
        let Some((row, spec, service)) = self.table.find(head.kind) else {
            return match unknown(head.kind) {
                crate::UnknownKind::Skip(most) if head.body_len <= most => Verdict::Skip,
                _ => Verdict::Refuse(PeerFault::close(
                    PeerFaultKind::Malformed,
                    format!("message of unknown kind {} with {} bytes", head.kind.0, head.body_len),
                )),
            };
        };
        if let Some(fault) = size_fault(spec, head.body_len, open) {
            return Verdict::Refuse(fault);
        }
        if !self.admitted[service] || !self.caps.has(spec.needs) {
            return Verdict::Skip;
        }
        let spec = *spec;
        let bucket = match self.buckets.iter().position(|(r, _)| *r == row) {
            Some(at) => &mut self.buckets[at].1,
            None => {
                self.buckets.push((row, TokenBucket::new(spec.rate.per_second, spec.rate.burst, now)));
                &mut self.buckets.last_mut().expect("just pushed").1
            }
        };
        match (bucket.take(now), spec.rate.over) {
            (Ok(()), _) => Verdict::Pass(row),
            (Err(at), Over::Wait) => Verdict::Wait(at, spec.name),
            (Err(_), Over::Drop) => Verdict::Drop(spec.name),
            (Err(_), Over::Close) => Verdict::Refuse(PeerFault::close(
                PeerFaultKind::Flood,
                format!(
                    "more than {} {} at once and {} per second",
                    spec.rate.burst, spec.name, spec.rate.per_second
                ),
            )),
        }
    }
}

fn size_fault(spec: &KindSpec, len: usize, open: impl FnOnce(Kind) -> bool) -> Option<PeerFault> {
    let name = spec.name;
    if len > spec.max as usize {
        let detail = format!("{name} of {len} bytes, the most is {}", spec.max);
        return Some(PeerFault::close(PeerFaultKind::Oversize, detail));
    }
    if len < spec.min as usize {
        let detail = format!("{name} of {len} bytes, the least is {}", spec.min);
        return Some(PeerFault::close(PeerFaultKind::Malformed, detail));
    }
    match spec.role {
        Role::Answer { to, unasked } if len > unasked as usize && !open(to) => {
            let detail = format!("{name} of {len} bytes that nobody asked for, the most is {unasked}");
            Some(PeerFault::close(PeerFaultKind::Unsolicited, detail))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PeerFacts, PeerHandle, Pipe};

    struct Declares(&'static str, Vec<KindSpec>);

    impl Service for Declares {
        fn name(&self) -> &'static str {
            self.0
        }

        fn kinds(&self) -> &[KindSpec] {
            &self.1
        }

        fn pipe(&self, _facts: &PeerFacts, _handle: PeerHandle) -> Box<dyn Pipe> {
            unreachable!("no session is made")
        }
    }

    fn spec(kind: u16, (min, max): (u32, u32), role: Role) -> KindSpec {
        let rate = Rate { per_second: 1.0, burst: 1, over: Over::Wait };
        KindSpec {
            kind: Kind(kind),
            name: "k",
            min,
            max,
            role,
            rate,
            lane: LaneName::Answer,
            needs: Caps::NONE,
        }
    }

    fn build(services: Vec<Declares>) -> Result<KindTable, TableError> {
        let services: Vec<Arc<dyn Service>> =
            services.into_iter().map(|service| Arc::new(service) as Arc<dyn Service>).collect();
        KindTable::build(&services)
    }

    #[test]
    fn services_that_do_not_fit_together_are_refused_at_the_start() {
        let notice = spec(1, (0, 9), Role::Notice);
        let twice = build(vec![Declares("a", vec![notice]), Declares("b", vec![notice])]);
        assert_eq!(twice.unwrap_err(), TableError::DuplicateKind { kind: 1, first: "a", second: "b" });
        let reversed = build(vec![Declares("a", vec![spec(1, (9, 0), Role::Notice)])]);
        assert_eq!(reversed.unwrap_err(), TableError::Bounds { name: "k", service: "a" });
        let answer = spec(2, (0, 9), Role::Answer { to: Kind(1), unasked: 0 });
        let nothing = build(vec![Declares("a", vec![notice, answer])]);
        assert_eq!(nothing.unwrap_err(), TableError::AnswersNothing { name: "k", service: "a", to: 1 });
        let fits =
            build(vec![Declares("a", vec![spec(1, (0, 9), Role::Request(1))]), Declares("b", vec![answer])]);
        assert_eq!(fits.unwrap().find(Kind(2)).map(|(_, _, service)| service), Some(1));
    }
}

//! Whose fault a failure is, and why a session closed.
//!
//! Only a [`Fault::Peer`] may cost a peer reputation or its connection. What is ours is a [`Fault::Local`] and is
//! never blamed on the peer.

use std::borrow::Cow;
use std::fmt;

use crate::Generation;

/// What a peer did wrong: a closed set, so that it can label metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerFaultKind {
    /// Bytes that do not decode.
    Malformed,
    /// A declared length over the kind's cap.
    Oversize,
    /// Another network's magic.
    WrongNetwork,
    /// The handshake was not followed.
    BadHandshake,
    /// The connection's own handshake, below the network's, did not end in time.
    ConnectTimeout,
    /// A stage of the network's handshake did not come in time.
    HandshakeTimeout,
    /// The peer is this node.
    SelfConnection,
    /// An answer nobody asked for, or a message this side may not send.
    Unsolicited,
    /// Data that fails its rules: proof of work, links, bits.
    InvalidData,
    /// A chain against a checkpoint, or time rules broken.
    BadChain,
    /// More than its rate.
    Flood,
    /// Requests left without an answer.
    Stalled,
    /// Nothing heard within the idle deadline.
    Silent,
    /// Did not read what we sent.
    WriteStalled,
}

impl PeerFaultKind {
    /// A stable label for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Oversize => "oversize",
            Self::WrongNetwork => "wrong_network",
            Self::BadHandshake => "bad_handshake",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::SelfConnection => "self_connection",
            Self::Unsolicited => "unsolicited",
            Self::InvalidData => "invalid_data",
            Self::BadChain => "bad_chain",
            Self::Flood => "flood",
            Self::Stalled => "stalled",
            Self::Silent => "silent",
            Self::WriteStalled => "write_stalled",
        }
    }
}

/// What a fault costs the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Written to the ledger only.
    Note,
    /// Points towards the ban threshold (100); the connection stays until it is reached.
    Score(u32),
    /// The connection ends; the peer may come back.
    Close,
    /// The connection ends and the address is refused for the ban time.
    Ban,
}

/// A failure that the peer caused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFault {
    /// What kind.
    pub kind: PeerFaultKind,
    /// What it costs.
    pub weight: Weight,
    /// What was expected and what came.
    pub detail: Cow<'static, str>,
}

impl PeerFault {
    /// A fault that ends the connection.
    pub fn close(kind: PeerFaultKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, weight: Weight::Close, detail: detail.into() }
    }

    /// A fault that ends the connection and bans the address.
    pub fn ban(kind: PeerFaultKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, weight: Weight::Ban, detail: detail.into() }
    }

    /// A fault that is only recorded.
    pub fn note(kind: PeerFaultKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, weight: Weight::Note, detail: detail.into() }
    }

    /// A fault that adds points towards the ban threshold.
    pub fn score(points: u32, kind: PeerFaultKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, weight: Weight::Score(points), detail: detail.into() }
    }
}

impl From<crate::DecodeError> for PeerFault {
    fn from(error: crate::DecodeError) -> Self {
        let kind = match error {
            crate::DecodeError::OverCap { .. } => PeerFaultKind::Oversize,
            _ => PeerFaultKind::Malformed,
        };
        Self::close(kind, error.to_string())
    }
}

impl fmt::Display for PeerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.detail)
    }
}

/// A failure that is ours: full queues, a stopped store, an exhausted budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalFault {
    /// What failed here.
    pub detail: Cow<'static, str>,
}

impl LocalFault {
    /// A local failure.
    pub fn new(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: detail.into() }
    }
}

/// A failure, with its side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The peer caused it.
    Peer(PeerFault),
    /// We did.
    Local(LocalFault),
}

impl From<PeerFault> for Fault {
    fn from(fault: PeerFault) -> Self {
        Self::Peer(fault)
    }
}

impl From<LocalFault> for Fault {
    fn from(fault: LocalFault) -> Self {
        Self::Local(fault)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(fault) => write!(f, "peer: {fault}"),
            Self::Local(fault) => write!(f, "local: {}", fault.detail),
        }
    }
}

/// Why a peer was not let in although it did nothing wrong: a closed set, so that it can label metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Its address is banned.
    Banned,
    /// As many handshakes are under way as may be, and none of them has to go first.
    Handshakes,
    /// The handshakes under way hold as much memory as they may.
    HandshakeBytes,
    /// Handshakes have cost as much computing as they may for now.
    HandshakeCpu,
    /// Too many handshakes are under way from its address.
    HandshakesPerIp,
    /// Too many handshakes are under way from its address's prefix, or they have cost too much computing.
    HandshakesPerPrefix,
    /// Its handshake had to make room for another one: it was the oldest whose address was not proven, or took long.
    HandshakeEvicted,
    /// It could not be taken over from the system.
    AcceptError,
    /// All slots for its direction are taken, and it is not worth more than any that has one.
    Full,
    /// Too many sessions from its address.
    PerAddress,
    /// Too many sessions from its address group.
    PerGroup,
    /// So many sessions are closing that none can begin.
    Closing,
    /// Sessions are numbered, and no number is left.
    Generations,
    /// A service does not want it, for this reason.
    Unwanted(&'static str),
}

impl Refusal {
    /// A stable label for metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Handshakes => "handshakes",
            Self::HandshakeBytes => "handshake_bytes",
            Self::HandshakeCpu => "handshake_cpu",
            Self::HandshakesPerIp => "handshakes_per_ip",
            Self::HandshakesPerPrefix => "handshakes_per_prefix",
            Self::HandshakeEvicted => "handshake_evicted",
            Self::AcceptError => "accept_error",
            Self::Full => "full",
            Self::PerAddress => "per_address",
            Self::PerGroup => "per_group",
            Self::Closing => "closing",
            Self::Generations => "generations",
            Self::Unwanted(_) => "unwanted",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Banned => "this address is banned",
            Self::Handshakes => "too many handshakes are under way",
            Self::HandshakeBytes => "the handshakes under way hold too much memory",
            Self::HandshakeCpu => "handshakes have cost too much computing",
            Self::HandshakesPerIp => "too many handshakes from this address",
            Self::HandshakesPerPrefix => "too many handshakes from this address's prefix",
            Self::HandshakeEvicted => "the handshake made room for another one",
            Self::AcceptError => "the system could not hand the connection over",
            Self::Full => "all slots are taken",
            Self::PerAddress => "too many sessions from this address",
            Self::PerGroup => "too many sessions from this address group",
            Self::Closing => "too many sessions are closing",
            Self::Generations => "all generations are used up",
            Self::Unwanted(why) => why,
        })
    }
}

/// Why a session ended. The first cause wins and is what every waiter and report gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseCause {
    /// A fault, with its side.
    Fault(Fault),
    /// The peer closed its half in order.
    PeerClosed,
    /// The peer closed the connection and said why.
    ByPeer {
        /// The code of its network.
        code: u32,
        /// Its words.
        reason: Cow<'static, str>,
    },
    /// There was never a session: the peer was not let in.
    Refused(Refusal),
    /// The connection broke (reset, unreachable).
    Broken(Cow<'static, str>),
    /// Another session with the same identity won.
    Duplicate(Generation),
    /// Made room for a better session.
    Evicted,
    /// Asked for by the operator or by a service that no longer needs the peer.
    Dropped(Cow<'static, str>),
    /// The node is stopping.
    Shutdown,
    /// The peer's routine panicked; only this peer is cut.
    Panic,
}

impl CloseCause {
    /// A stable label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Fault(Fault::Peer(fault)) => fault.kind.label(),
            Self::Fault(Fault::Local(_)) => "local_fault",
            Self::PeerClosed => "peer_closed",
            Self::ByPeer { .. } => "closed_by_peer",
            Self::Refused(refusal) => refusal.label(),
            Self::Broken(_) => "broken",
            Self::Duplicate(_) => "duplicate",
            Self::Evicted => "evicted",
            Self::Dropped(_) => "dropped",
            Self::Shutdown => "shutdown",
            Self::Panic => "panic",
        }
    }
}

impl fmt::Display for CloseCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => fault.fmt(f),
            Self::ByPeer { code, reason } => {
                write!(f, "the peer closed the connection: {reason} (code {code})")
            }
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Broken(detail) => write!(f, "connection broke: {detail}"),
            Self::Duplicate(winner) => write!(f, "duplicate of session {winner}"),
            Self::Dropped(detail) => write!(f, "dropped: {detail}"),
            Self::PeerClosed => f.write_str("the peer closed the connection"),
            Self::Evicted => f.write_str("evicted for a better session"),
            Self::Shutdown => f.write_str("this node is stopping"),
            Self::Panic => f.write_str("a bug here: the peer's routine panicked"),
        }
    }
}

//! The header reactor's loop.

use std::sync::Arc;

use bytes::Bytes;
use rookery_base::{CloseCause, Generation, Hash32, Height, PeerFault, PeerFaultKind};
use rookery_engine::session::Pushed;
use rookery_engine::{Command, PeerHandle};
use rookery_observe::metrics::Why;
use rookery_runtime::{Env, FairMailbox, Instant};
use tokio::sync::{mpsc, watch};

use super::audit;
use super::commit::Committer;
use super::handle::{Ask, ChainStatus, HeadersConfig, Submitted};
use super::ingress::{HeadersMail, HeadersOrder};
use super::roster::{AnswerFacts, Outcome, Purpose, Roster};
use super::serve;
use super::start::{Opened, StoreArchive};
use super::time::PeerTime;
use crate::tree::{Batch, HeaderTree, Inserted, MAX_PENDING_BYTES, Refused, Unreadable};
use crate::{Chain, HeaderFacts, HeaderFault};

/// New headers up to this many are announced one by one. Of more only the last is, so that peers who had all that we
/// had learn that there is more to ask for.
const ANNOUNCE: usize = 8;
/// Points for an answer that does not link to anything: a peer that reorganised while it answered does it once.
const UNLINKED_POINTS: u32 = 34;

/// The owner of the tree.
pub(super) struct Reactor {
    pub env: Env,
    chain: Arc<dyn Chain>,
    pub tree: HeaderTree,
    archive: StoreArchive,
    pub roster: Roster,
    time: PeerTime,
    pub committer: Committer,
    mailbox: FairMailbox<HeadersMail>,
    asks: mpsc::Receiver<Ask>,
    config: HeadersConfig,
    accepted: u64,
    reorganisations: u64,
    last_depth: u32,
    published: Option<Published>,
}

/// What of the status changes, to publish it only then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Published {
    tip: Hash32,
    durable: Option<Height>,
    target: Option<Height>,
    peers: usize,
    asked: usize,
    settled: bool,
}

/// Where headers came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Peer(Generation),
    Ourselves,
}

impl Reactor {
    pub fn new(
        env: Env,
        chain: Arc<dyn Chain>,
        opened: Opened,
        committer: Committer,
        mailbox: FairMailbox<HeadersMail>,
        asks: mpsc::Receiver<Ask>,
        config: HeadersConfig,
    ) -> Self {
        env.metrics.header_height.set(i64::from(opened.tree.tip().height));
        Self {
            env,
            chain,
            tree: opened.tree,
            archive: opened.archive,
            roster: Roster::default(),
            time: PeerTime::default(),
            committer,
            mailbox,
            asks,
            config,
            accepted: 0,
            reorganisations: 0,
            last_depth: 0,
            published: None,
        }
    }

    /// Runs until the scope is cancelled, then commits what is pending.
    pub async fn run(mut self, status: watch::Sender<ChainStatus>) {
        let clock = self.env.clock;
        loop {
            let now = clock.now();
            if !self.full() {
                self.assign(now);
            }
            self.committer.work(&mut self.tree, now, self.roster.working() == 0);
            self.publish(&status);
            let (full, due) = (self.full(), self.due(now));
            tokio::select! {
                biased;
                () = self.env.scope.cancelled() => break,
                kept = self.committer.done() => {
                    if let Err(why) = self.committer.finish(kept, &mut self.tree, &mut self.archive) {
                        self.env.scope.stop_node(why);
                        return;
                    }
                }
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.answer(ask),
                    None => break,
                },
                mail = self.mailbox.recv(), if !full => {
                    self.mail(mail);
                    let step = clock.now().saturating_duration_since(now);
                    self.env.metrics.reactor_step_seconds.observe(step.as_secs_f64());
                }
                () = clock.sleep_until(due) => {}
            }
        }
        self.flush().await;
        self.publish(&status);
    }

    /// Commits what is pending, at the end.
    async fn flush(&mut self) {
        loop {
            self.committer.work(&mut self.tree, self.env.clock.now(), true);
            if self.committer.since().is_none() {
                return;
            }
            let kept = self.committer.done().await;
            if let Err(why) = self.committer.finish(kept, &mut self.tree, &mut self.archive) {
                self.env.scope.stop_node(why);
                return;
            }
        }
    }

    /// Too much waits for the store: nothing more is admitted.
    pub fn full(&self) -> bool {
        self.tree.pending_bytes() >= MAX_PENDING_BYTES
    }

    fn due(&self, now: Instant) -> Instant {
        let dues = [self.roster.due(now), self.committer.due()];
        dues.into_iter().flatten().min().unwrap_or(now + super::roster::PROBE)
    }

    fn assign(&mut self, now: Instant) {
        let height = self.tree.tip().height;
        while let Some((generation, purpose)) = self.roster.next(now, height) {
            let locator = match self.locator(generation) {
                Ok(locator) => locator,
                Err(error) => return self.env.scope.stop_node(error.to_string()),
            };
            let verdict = match purpose {
                Purpose::Primary => "primary",
                Purpose::Hedge => "hedge",
                Purpose::More => "more",
                Purpose::Probe => "probe",
            };
            if self.order(generation, HeadersOrder::Ask { locator }) {
                self.env.trace("ask", generation.0, 0, u64::from(height), verdict);
                self.roster.asked(generation, purpose, now, height);
            } else {
                self.roster.not_asked(generation, now);
            }
        }
    }

    /// What a peer is asked from: our main chain, or the other branch that it was giving us.
    fn locator(&self, generation: Generation) -> Result<Vec<Hash32>, Unreadable> {
        if let Some(branch) = self.roster.get(generation).and_then(|peer| peer.branch)
            && let Some(locator) = self.tree.branch_locator(&self.archive, &branch)?
        {
            return Ok(locator);
        }
        self.tree.locator(&self.archive)
    }

    fn order(&self, generation: Generation, order: HeadersOrder) -> bool {
        self.roster.get(generation).is_some_and(|peer| push(&peer.handle, order))
    }

    fn mail(&mut self, mail: HeadersMail) {
        let now = self.env.clock.now();
        match mail {
            HeadersMail::Up { peer, height, time_offset } => {
                self.time.add(peer.addr.ip(), time_offset);
                self.roster.up(peer, height);
            }
            HeadersMail::Gone(generation) => self.roster.gone(generation),
            HeadersMail::Batch { from, facts, raw, charge, asked } => {
                self.batch(from, &facts, &raw, asked, now);
                // The tree has its own copy of what it took, within its own bound.
                drop(charge);
            }
            HeadersMail::Unanswered { from, why } => {
                self.env.trace("unanswered", from.0, 0, 0, why);
                let outcome = self.roster.unanswered(from, self.tree.tip().height, now);
                self.follow(from, &outcome, "did not answer a request for headers");
            }
            HeadersMail::Announced { from, hash } => match self.tree.contains(&self.archive, &hash) {
                Ok(true) => {}
                Ok(false) => self.roster.claims(from, self.tree.tip().height.saturating_add(1)),
                Err(error) => self.env.scope.stop_node(error.to_string()),
            },
            HeadersMail::Locate { from, locator, stop } => self.serve(from, &locator, &stop),
        }
    }

    fn batch(&mut self, from: Generation, facts: &[HeaderFacts], raw: &[u8], asked: bool, now: Instant) {
        let inserted = self.insert(Source::Peer(from), facts, raw);
        let height = inserted.tip.height;
        let taken = inserted.new + inserted.known;
        let brought = taken.checked_sub(1).and_then(|last| facts.get(last));
        let last = brought.and_then(|last| self.tree.height_of(&self.archive, &last.hash).ok().flatten());
        if let Some(last) = last {
            self.roster.claims(from, last);
        }
        if asked {
            let full = facts.len() >= self.config.full && inserted.refused.is_none();
            let branch = brought.filter(|_| full && last.is_none()).map(|facts| facts.hash);
            // A side branch has no height on the main chain: its sender has more for us as long as messages are full.
            let last = last.unwrap_or(height);
            let answer = AnswerFacts { new: inserted.new, full, last, height, branch };
            let outcome = self.roster.answered(from, &answer, now);
            self.follow(from, &outcome, "answered with headers that we have");
        }
        if let Some((index, refused)) = inserted.refused {
            self.refused(from, index, &refused, asked, now);
        }
    }

    fn insert(&mut self, source: Source, facts: &[HeaderFacts], raw: &[u8]) -> Inserted {
        let now = self.time.now(self.env.clock.unix());
        let number = match source {
            Source::Peer(generation) => generation.0,
            Source::Ourselves => 0,
        };
        let batch = Batch { facts, raw, source: number };
        let inserted = self.tree.insert(&self.archive, &batch, now);
        self.accepted += inserted.new as u64;
        self.env.metrics.headers_accepted.inc_by(inserted.new as u64);
        let verdict = match &inserted.refused {
            Some((_, refused)) => label(refused),
            None if inserted.tip_changed => "tip",
            None => "kept",
        };
        self.env.trace("insert", number, 0, u64::from(inserted.tip.height), verdict);
        if let Some(reorganised) = inserted.reorganised {
            self.reorganisations += 1;
            self.last_depth = reorganised.disconnected;
            self.env.metrics.reorgs.inc();
            self.env.metrics.reorg_depth.set(i64::from(reorganised.disconnected));
            tracing::info!(
                fork = reorganised.fork,
                left = reorganised.disconnected,
                joined = reorganised.connected,
                "the chain was reorganised"
            );
        }
        if inserted.tip_changed {
            self.env.metrics.header_height.set(i64::from(inserted.tip.height));
            self.announce(source, &inserted);
        }
        inserted
    }

    fn refused(&mut self, from: Generation, index: usize, refused: &Refused, asked: bool, now: Instant) {
        let why = label(refused);
        self.env.metrics.headers_refused.get_or_create(&Why { why }).inc();
        let detail = format!("header {index} of its message: {refused}");
        let fault = match refused {
            // Nothing more is admitted until the store has caught up; then the peer is asked again.
            Refused::Full { .. } => return,
            Refused::Orphan { .. } if !asked => {
                // Announced from further on than we know: ask it from our locator.
                self.roster.claims(from, self.tree.tip().height.saturating_add(1));
                return;
            }
            Refused::Orphan { .. } => PeerFault::score(UNLINKED_POINTS, PeerFaultKind::InvalidData, detail),
            Refused::Fault(HeaderFault::TooNew { .. }) => PeerFault::note(PeerFaultKind::BadChain, detail),
            Refused::Unlinked { .. } => PeerFault::close(PeerFaultKind::InvalidData, detail),
            Refused::Fault(_) | Refused::BelowCheckpoint { .. } => {
                PeerFault::ban(PeerFaultKind::BadChain, detail)
            }
            Refused::Unreadable(error) => return self.env.scope.stop_node(error.to_string()),
            Refused::SideFull { .. } | Refused::TooHigh => {
                self.order(from, HeadersOrder::Note(format!("ours: {detail}")));
                let outcome = self.roster.rest(from, now);
                return self.follow(from, &outcome, "sends branches that lead nowhere");
            }
        };
        self.order(from, HeadersOrder::Fault(fault));
        let outcome = self.roster.rest(from, now);
        self.follow(from, &outcome, "sends headers that cannot be used");
    }

    fn follow(&mut self, from: Generation, outcome: &Outcome, why: &'static str) {
        match outcome {
            Outcome::Fine => {}
            Outcome::Rests => {
                self.order(from, HeadersOrder::Note(format!("rests: {why}")));
            }
            Outcome::Drop => {
                if let Some(peer) = self.roster.get(from) {
                    peer.handle.close(CloseCause::Dropped(format!("three times in a row: {why}").into()));
                }
            }
        }
    }

    /// Tells every other peer of a few new headers.
    fn announce(&self, source: Source, inserted: &Inserted) {
        let joined = inserted.reorganised.map_or(inserted.new, |reorganised| reorganised.connected as usize);
        let told = if joined > ANNOUNCE { 1 } else { joined };
        let first = inserted.tip.height + 1 - told.min(inserted.tip.height as usize) as Height;
        let Ok(raw) = serve::raw(&self.tree, &self.archive, first, inserted.tip.height) else { return };
        let hashes: Vec<Hash32> = self.chain.facts(&raw).iter().map(|facts| facts.hash).collect();
        for peer in self.roster.iter() {
            if source != Source::Peer(peer.handle.generation) {
                // A peer that does not keep up is told of a later one, or asks.
                let _ =
                    push(&peer.handle, HeadersOrder::Announce { raw: raw.clone(), hashes: hashes.clone() });
            }
        }
    }

    fn serve(&self, from: Generation, locator: &[Hash32], stop: &Hash32) {
        if !self.tree.synced(self.time.now(self.env.clock.unix())) {
            return;
        }
        match serve::answer(&self.tree, &self.archive, locator, stop, self.config.full) {
            Ok(Some(raw)) => {
                self.order(from, HeadersOrder::Serve { raw });
            }
            Ok(None) => {}
            Err(error) => self.env.scope.stop_node(error.to_string()),
        }
    }

    fn answer(&mut self, ask: Ask) {
        // Whoever asked may have gone.
        match ask {
            Ask::Submit(facts, raw, tell) => {
                let inserted = self.insert(Source::Ourselves, &facts, &raw);
                let refused = inserted.refused.map(|(index, refused)| format!("header {index}: {refused}"));
                let _ = tell.send(Submitted { new: inserted.new, refused });
            }
            Ask::Recent(count, tell) => {
                let last = self.tree.tip().height;
                let first = self.tree.raw_from().max((last + 1).saturating_sub(count as Height));
                let raw = serve::raw(&self.tree, &self.archive, first, last).unwrap_or_default();
                let _ = tell.send((first, raw));
            }
            Ask::Range(from, count, tell) => {
                let (first, tip) = (from.max(self.tree.base()), self.tree.tip().height);
                let last = tip.min(first.saturating_add(count as Height).saturating_sub(1));
                let range = match first <= last && count > 0 {
                    true => serve::raw(&self.tree, &self.archive, first, last).map_err(|e| e.to_string()),
                    false => Ok(Bytes::new()),
                };
                let _ = tell.send(range);
            }
            Ask::Audit(tell) => {
                let _ = tell.send(audit::audit(&self.roster, &self.tree, self.env.clock.now()));
            }
            Ask::Why(tell) => {
                let _ = tell.send(self.why());
            }
        }
    }

    pub fn status(&self) -> ChainStatus {
        let tip = self.tree.tip();
        ChainStatus {
            network: self.chain.name(),
            height: tip.height,
            tip: tip.hash.to_string(),
            tip_time: tip.time,
            work: format!("{:x}", tip.work),
            stored: self.committer.durable,
            target: self.roster.target(),
            peers: self.roster.len(),
            asked: self.roster.working(),
            settled: self.roster.all_settled(self.env.clock.now()),
            synced: self.tree.synced(self.time.now(self.env.clock.unix())),
            accepted: self.accepted,
            reorganisations: self.reorganisations,
            last_reorganisation_depth: self.last_depth,
        }
    }

    /// Publishes the status when anything in it has changed.
    fn publish(&mut self, status: &watch::Sender<ChainStatus>) {
        let target = self.roster.target();
        let key = Published {
            tip: self.tree.tip().hash,
            durable: self.committer.durable,
            target,
            peers: self.roster.len(),
            asked: self.roster.working(),
            settled: self.roster.all_settled(self.env.clock.now()),
        };
        if self.published.as_ref() != Some(&key) {
            self.env.metrics.target_height.set(target.map_or(0, i64::from));
            status.send_replace(self.status());
            self.published = Some(key);
        }
    }
}

fn push(handle: &PeerHandle, order: HeadersOrder) -> bool {
    handle.push(Command::new(order)) == Pushed::Accepted
}

/// A stable label for metrics and traces.
const fn label(refused: &Refused) -> &'static str {
    match refused {
        Refused::Full { .. } => "full",
        Refused::Orphan { .. } => "orphan",
        Refused::Unlinked { .. } => "unlinked",
        Refused::BelowCheckpoint { .. } => "below_checkpoint",
        Refused::SideFull { .. } => "side_full",
        Refused::TooHigh => "too_high",
        Refused::Unreadable(_) => "unreadable",
        Refused::Fault(fault) => match fault {
            HeaderFault::TooNew { .. } => "too_new",
            HeaderFault::TooOld { .. } => "too_old",
            HeaderFault::Bits { .. } => "bits",
            HeaderFault::Checkpoint { .. } => "checkpoint",
            _ => "rule",
        },
    }
}

//! Taking a batch: the known part is walked, the rest extends the tip or a branch.

use rookery_base::{Hash32, Height, Work};

use super::side::{Id, NewNode};
use super::window::{Recent, Run};
use super::{Archive, Batch, HeaderTree, Inserted, MAX_HEIGHT, Refused, Reorganised, Spot, Unreadable};
use crate::chain::{Ancestor, Ancestry, HeaderFacts};

/// The last ancestors of a branch, with what is added to it meanwhile.
struct Branch {
    first: Height,
    ancestors: Vec<Ancestor>,
}

impl Branch {
    fn work(&self) -> Work {
        self.ancestors.last().expect("a branch holds the parent at least").work
    }
}

impl Ancestry for Branch {
    fn height(&self) -> Height {
        self.first + self.ancestors.len() as Height - 1
    }

    fn at(&self, height: Height) -> Option<Ancestor> {
        self.ancestors.get(height.checked_sub(self.first)? as usize).copied()
    }
}

/// How far a batch was taken.
#[derive(Default)]
struct Progress {
    new: usize,
    known: usize,
    reorganised: Option<Reorganised>,
}

impl Progress {
    /// Index of the header that is looked at.
    const fn at(&self) -> usize {
        self.new + self.known
    }
}

impl HeaderTree {
    /// Inserts a run of headers, each the child of the one before. `now` is our adjusted time in seconds since 1970.
    ///
    /// # Panics
    ///
    /// If there are not as many raw headers as facts: the caller made one from the other.
    pub fn insert(&mut self, archive: &dyn Archive, batch: &Batch<'_>, now: u64) -> Inserted {
        assert_eq!(
            batch.raw.len(),
            batch.facts.len() * self.header_len,
            "one raw header for each header's facts"
        );
        let before = self.tip().hash;
        let mut progress = Progress::default();
        let outcome = self.take(archive, batch, now, &mut progress);
        let tip = self.tip();
        Inserted {
            new: progress.new,
            known: progress.known,
            refused: outcome.err().map(|refused| (progress.at(), refused)),
            tip_changed: tip.hash != before,
            reorganised: progress.reorganised,
            tip,
        }
    }

    fn take(
        &mut self,
        archive: &dyn Archive,
        batch: &Batch<'_>,
        now: u64,
        progress: &mut Progress,
    ) -> Result<(), Refused> {
        if batch.facts.is_empty() {
            return Ok(());
        }
        let pending = self.pending_bytes();
        let most = self.settings.pending_bytes;
        if pending >= most {
            return Err(Refused::Full { pending, most });
        }
        // Only after an archive that failed is there anything to follow yet.
        self.follow_best(archive, now, progress)?;
        let spot = self.walk_known(archive, batch.facts, progress)?;
        if spot == Spot::Main(self.tip_height()) {
            return self.extend_tip(batch, now, progress);
        }
        let outcome = self.extend_side(archive, batch, spot, now, progress);
        // Also when a header was refused: those before it may outweigh the main chain.
        self.follow_best(archive, now, progress)?;
        outcome
    }

    /// Changes to the branch with the most work, if it has more than the main chain.
    fn follow_best(
        &mut self,
        archive: &dyn Archive,
        now: u64,
        progress: &mut Progress,
    ) -> Result<(), Unreadable> {
        if let Some((work, id)) = self.side.best()
            && work > self.tip().work
        {
            progress.reorganised = Some(self.reorganise(archive, id, now)?);
        }
        Ok(())
    }

    /// Walks the known headers at the beginning of a batch. Gives the place of the parent of the first unknown one, or
    /// of the last header. A child of an unknown header is unknown: there are no known ones further on.
    fn walk_known(
        &self,
        archive: &dyn Archive,
        facts: &[HeaderFacts],
        progress: &mut Progress,
    ) -> Result<Spot, Refused> {
        let first = &facts[0];
        let tip = self.tip();
        let parent = if first.prev == tip.hash {
            // The tip's children would be the tip: nothing to look for.
            return Ok(Spot::Main(tip.height));
        } else if let Some(spot) = self.find(archive, &first.hash)? {
            progress.known = 1;
            spot
        } else {
            return self.find(archive, &first.prev)?.ok_or(Refused::Orphan { prev: first.prev });
        };

        let mut spot = parent;
        let mut stored = Vec::new();
        let mut stored_from = 0;
        for (header, before) in facts[1..].iter().zip(facts) {
            linked(header, before)?;
            let child = match spot {
                Spot::Main(height) if height < tip.height => {
                    let height = height + 1;
                    let hash = if height >= self.window.floor() {
                        self.window.get(height).map(|recent| recent.hash)
                    } else {
                        if stored.is_empty() {
                            let count =
                                (facts.len() - progress.known).min((self.window.floor() - height) as usize);
                            stored = archive.hashes(height, count)?;
                            stored_from = height;
                        }
                        stored.get((height - stored_from) as usize).copied()
                    };
                    (hash == Some(header.hash)).then_some(Spot::Main(height))
                }
                Spot::Main(_) | Spot::Side(_) => None,
            };
            match child.or_else(|| self.side.find(&header.hash).map(Spot::Side)) {
                Some(child) => spot = child,
                None => break,
            }
            progress.known += 1;
        }
        Ok(spot)
    }

    fn extend_tip(&mut self, batch: &Batch<'_>, now: u64, progress: &mut Progress) -> Result<(), Refused> {
        let chain = self.chain.clone();
        let mut last = *self.window.last();
        for (header, raw) in rest(batch, self.header_len, progress.at()) {
            if header.prev != last.hash {
                return Err(Refused::Unlinked { got: header.prev, expected: last.hash });
            }
            if self.tip_height() >= MAX_HEIGHT {
                return Err(Refused::TooHigh);
            }
            chain.place(header, &self.window, now)?;
            last = Recent::new(header, last.work.saturating_add(self.proof(header.bits)));
            self.index.insert(&header.hash, self.window.next());
            self.window.push(last, raw);
            progress.new += 1;
        }
        Ok(())
    }

    /// Adds what is left of a batch to the branch that ends at `parent`.
    fn extend_side(
        &mut self,
        archive: &dyn Archive,
        batch: &Batch<'_>,
        parent: Spot,
        now: u64,
        progress: &mut Progress,
    ) -> Result<(), Refused> {
        let first = progress.at();
        let Some(before) = batch.facts.get(first).map(|header| header.prev) else { return Ok(()) };
        let mut branch = self.allowed_branch(archive, parent)?;
        let mut end = (parent, before);
        for (header, raw) in rest(batch, self.header_len, first) {
            let id = self.add_to_branch(&mut branch, end, (header, raw), batch.source, now)?;
            end = (Spot::Side(id), header.hash);
            progress.new += 1;
        }
        Ok(())
    }

    fn add_to_branch(
        &mut self,
        branch: &mut Branch,
        (parent, before): (Spot, Hash32),
        (header, raw): (&HeaderFacts, &[u8]),
        source: u64,
        now: u64,
    ) -> Result<Id, Refused> {
        if header.prev != before {
            return Err(Refused::Unlinked { got: header.prev, expected: before });
        }
        if branch.height() >= MAX_HEIGHT {
            return Err(Refused::TooHigh);
        }
        self.chain.place(header, branch, now)?;
        let recent = Recent::new(header, branch.work().saturating_add(self.proof(header.bits)));
        let height = branch.height() + 1;
        let id = self
            .add_side(recent, raw, height, parent, source)
            .ok_or(Refused::SideFull { most: self.settings.side_headers })?;
        self.ledger.add_side(header.hash);
        branch.ancestors.push(recent.ancestor());
        Ok(id)
    }

    pub(super) fn add_side(
        &mut self,
        recent: Recent,
        raw: &[u8],
        height: Height,
        parent: Spot,
        source: u64,
    ) -> Option<Id> {
        let parent = match parent {
            Spot::Main(_) => None,
            Spot::Side(id) => Some(id),
        };
        self.side.add(&NewNode { recent, raw, height, parent, source })
    }

    /// The ancestors of a child of `parent`, unless its branch is one that cannot be right.
    fn allowed_branch(&self, archive: &dyn Archive, parent: Spot) -> Result<Branch, Refused> {
        if let Spot::Main(fork) = parent {
            let checkpoints = self.chain.checkpoints();
            let passed = checkpoints.partition_point(|known| known.0 <= self.tip_height());
            if let Some(&(checkpoint, _)) = checkpoints[..passed].last().filter(|known| fork < known.0) {
                return Err(Refused::BelowCheckpoint { fork, checkpoint });
            }
        }
        Ok(self.branch(archive, parent)?)
    }

    /// The end of the branch at `spot`, as far back as the rules look.
    fn branch(&self, archive: &dyn Archive, spot: Spot) -> Result<Branch, Unreadable> {
        let count = self.lookback() as usize;
        let mut ancestors = Vec::with_capacity(count);
        let mut fork = spot;
        while let Spot::Side(id) = fork
            && ancestors.len() < count
        {
            let node = self.side.node(id);
            ancestors.push(node.ancestor());
            fork = node.parent.map_or(Spot::Main(node.height - 1), Spot::Side);
        }
        let height = match spot {
            Spot::Main(height) => height,
            Spot::Side(id) => self.side.node(id).height,
        };
        if let Spot::Main(fork) = fork {
            let first = (fork + 1).saturating_sub((count - ancestors.len()) as Height).max(self.base);
            let floor = self.window.floor();
            ancestors.extend((first.max(floor)..=fork).rev().filter_map(|height| self.window.at(height)));
            if first < floor {
                let below = self.read_main(archive, first, fork.min(floor - 1))?;
                ancestors.extend(below.recent.iter().rev().map(Recent::ancestor));
            }
        }
        ancestors.reverse();
        Ok(Branch { first: height + 1 - ancestors.len() as Height, ancestors })
    }

    /// Main-chain headers from height `first` up to and including `last`, all of them below the window.
    pub(super) fn read_main(
        &self,
        archive: &dyn Archive,
        first: Height,
        last: Height,
    ) -> Result<Run, Unreadable> {
        let (anchor, mut work) = archive.work_anchor(first)?;
        let count = (last + 1).saturating_sub(anchor) as usize;
        let mut raw = archive.headers(anchor, count)?;
        if anchor > first || raw.len() != count * self.header_len {
            return Err(Unreadable(format!(
                "{} bytes from height {anchor}, expected {count} headers up to {last} that include {first}",
                raw.len()
            )));
        }
        let mut recent = Vec::with_capacity(count);
        for facts in self.chain.facts(&raw) {
            work = work.saturating_add(self.chain.proof(facts.bits));
            recent.push(Recent::new(&facts, work));
        }
        let before = (first - anchor) as usize;
        recent.drain(..before);
        raw.drain(..before * self.header_len);
        Ok(Run { recent, raw })
    }
}

/// What is left of a batch from index `at`.
fn rest<'a>(
    batch: &Batch<'a>,
    header_len: usize,
    at: usize,
) -> impl Iterator<Item = (&'a HeaderFacts, &'a [u8])> + use<'a> {
    batch.facts[at..].iter().zip(batch.raw[at * header_len..].chunks_exact(header_len))
}

fn linked(header: &HeaderFacts, before: &HeaderFacts) -> Result<(), Refused> {
    if header.prev == before.hash {
        return Ok(());
    }
    Err(Refused::Unlinked { got: header.prev, expected: before.hash })
}

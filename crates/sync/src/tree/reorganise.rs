//! Changing the main chain's branch.
//!
//! Everything that can fail (reading old ancestors) comes before the first change. The branch that is left becomes a
//! side branch if it lies in the window and finds room; else it is forgotten with all that hangs on it.

use rookery_base::Height;

use super::side::{Id, NewNode};
use super::window::{Run, Window};
use super::{Archive, HeaderTree, Reorganisation, Reorganised, Unreadable};

/// Headers that leave the main chain are accounted to nobody: no sender's flood counts them as its own.
const NO_SOURCE: u64 = u64::MAX;

impl HeaderTree {
    /// Makes the branch that ends in `winner` the main chain.
    pub(super) fn reorganise(
        &mut self,
        archive: &dyn Archive,
        winner: Id,
        now: u64,
    ) -> Result<Reorganised, Unreadable> {
        let fork = self.side.fork(winner);
        let lower = self.lower_window(archive, fork)?;
        let old = self.tip();
        let disconnected = old.height - fork;

        let in_window = fork + 1 >= self.window.floor();
        let left = if in_window {
            self.leave(fork)
        } else {
            self.index.truncate(fork);
            Run::default()
        };
        match lower {
            Some(window) => self.window = window,
            None => self.window.truncate(fork + 1),
        }

        let orphaned = self.side.roots_above(fork);
        let connected = self.connect(winner);
        self.keep_left(fork, &left, orphaned);

        let tip = self.tip();
        self.ledger.reorganised(Reorganisation {
            fork,
            old_tip: (old.height, old.hash),
            new_tip: (tip.height, tip.hash),
            time: now,
        });
        self.trim();
        Ok(Reorganised { fork, disconnected, connected })
    }

    /// The window up to the fork, if the present one does not reach down to what the rules read there.
    fn lower_window(&self, archive: &dyn Archive, fork: Height) -> Result<Option<Window>, Unreadable> {
        let first = (fork + 1).saturating_sub(self.lookback()).max(self.base);
        let floor = self.window.floor();
        if first >= floor {
            return Ok(None);
        }
        let mut window = Window::new(self.header_len, self.depth(), first);
        for (recent, raw) in self.read_main(archive, first, fork.min(floor - 1))?.iter(self.header_len) {
            window.push(*recent, raw);
        }
        for height in floor..=fork {
            if let (Some(recent), Some(raw)) = (self.window.get(height), self.window.raw(height)) {
                window.push(*recent, raw);
            }
        }
        Ok(Some(window))
    }

    /// Takes the headers above the fork out of the index, and copies them.
    fn leave(&mut self, fork: Height) -> Run {
        let mut left = Run::default();
        for height in fork + 1..self.window.next() {
            if let (Some(recent), Some(raw)) = (self.window.get(height), self.window.raw(height)) {
                self.index.remove(&recent.hash, height);
                left.recent.push(*recent);
                left.raw.extend_from_slice(raw);
            }
        }
        left
    }

    /// Puts the branch that ends in `winner` on top of the window. Its length.
    fn connect(&mut self, winner: Id) -> u32 {
        let branch = self.side.branch(winner);
        let Self { side, window, index, .. } = self;
        side.take(&branch, |node, raw| {
            index.insert(&node.recent.hash, node.height);
            window.push(node.recent, raw);
        });
        branch.len() as u32
    }

    /// Keeps the headers that were left as a side branch, with the branches (`orphaned`) that hung on them. If they
    /// cannot be kept, neither can those.
    fn keep_left(&mut self, fork: Height, left: &Run, orphaned: Vec<(Height, Id)>) {
        let room = !left.recent.is_empty() && self.side.make_room(left.recent.len());
        // Some may have had to go to make room.
        let orphaned: Vec<_> = orphaned.into_iter().filter(|root| self.side.is_root(*root)).collect();
        if !room {
            self.side.uproot(&orphaned);
            return;
        }
        let mut orphaned = orphaned.into_iter().peekable();
        let mut parent = None;
        for ((recent, raw), height) in left.iter(self.header_len).zip(fork + 1..) {
            let new = NewNode { recent: *recent, raw, height, parent, source: NO_SOURCE };
            let id = self.side.add(&new).expect("room was made");
            self.ledger.add_side(recent.hash);
            while let Some(root) = orphaned.next_if(|root| root.0 == height) {
                self.side.adopt(id, root);
            }
            parent = Some(id);
        }
    }
}

//! Headers for peers that ask, exactly as hsd gives them.
//!
//! | the peer asks from | it gets |
//! |---|---|
//! | a hash on our main chain | what follows it, up to `stop` or a full message |
//! | hashes that we do not have | what follows genesis |
//! | nothing, with a `stop` | that header, and what follows it; one of another branch alone |
//! | our tip | nothing at all |
//!
//! A chain that is not synced by its own rule serves nobody.

use bytes::Bytes;
use rookery_base::{Hash32, Height};

use super::start::StoreArchive;
use crate::tree::{Archive, HeaderTree, Unreadable};

/// The raw headers for an answer, or none when there is nothing to say. At most `most` headers.
pub(super) fn answer(
    tree: &HeaderTree,
    archive: &StoreArchive,
    locator: &[Hash32],
    stop: &Hash32,
    most: usize,
) -> Result<Option<Bytes>, Unreadable> {
    if locator.is_empty()
        && let Some(raw) = tree.branch_raw(stop)
    {
        return Ok(Some(Bytes::copy_from_slice(raw)));
    }
    let first = if locator.is_empty() {
        tree.height_of(archive, stop)?
    } else {
        tree.find_locator(archive, locator)?.map(|height| height + 1)
    };
    let tip = tree.tip().height;
    let Some(first) = first.filter(|first| *first <= tip) else { return Ok(None) };
    let mut last = tip.min(first.saturating_add(most as Height - 1));
    if let Some(stop) = tree.height_of(archive, stop)?
        && stop >= first
    {
        last = last.min(stop);
    }
    raw(tree, archive, first, last).map(Some)
}

/// Raw main-chain headers from `first` to `last`, from the store below the window and from memory above.
pub(super) fn raw(
    tree: &HeaderTree,
    archive: &StoreArchive,
    first: Height,
    last: Height,
) -> Result<Bytes, Unreadable> {
    let mut out = Vec::new();
    let memory = tree.raw_from();
    if first < memory {
        let count = (last.min(memory - 1) - first + 1) as usize;
        out = archive.headers(first, count)?;
    }
    for height in first.max(memory)..=last {
        match tree.raw_at(height) {
            Some(raw) => out.extend_from_slice(raw),
            None => return Err(Unreadable(format!("the header at height {height} is not in memory"))),
        }
    }
    Ok(out.into())
}

//! What all groups of a map share: what they hash with, and a count by which readers of many of
//! them see at once that nothing moved.

use std::sync::atomic::Ordering;

use crate::sync::{AtomicUsize, fence};

/// What all groups of a map share.
#[derive(Debug)]
pub(super) struct Ground {
    /// What they hash with.
    pub(super) key: u64,
    /// How often routes left a block, or a group gave its place to others: counted when readers can
    /// see where routes are from then on, and before anything is cleared.
    moves: AtomicUsize,
}

impl Ground {
    pub(super) fn new(key: u64) -> Self {
        Self { key, moves: AtomicUsize::new(0) }
    }

    /// For who locates something after it.
    #[inline(always)]
    pub(super) fn moves(&self) -> usize {
        self.moves.load(Ordering::Acquire)
    }

    /// For who has looked at something before it: if it is the same, nothing has moved meanwhile.
    #[inline(always)]
    pub(super) fn moves_again(&self) -> usize {
        fence(Ordering::Acquire);
        self.moves.load(Ordering::Relaxed)
    }

    /// Something moved.
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Ordering::Release);
    }

    /// The hash of a UID.
    #[inline]
    pub(super) fn hash(&self, uid: u64) -> u64 {
        super::hash(self.key, uid)
    }
}

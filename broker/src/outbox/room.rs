//! The space of one outbox, shared with those who want to put something into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::Cause;
use crate::pool::Pool;

/// See the module. Relaxed everywhere: it guards an amount, not other memory.
#[derive(Debug)]
pub struct Room {
    waiting: AtomicUsize,
    most: usize,
    // Up to where others may fill it: nothing while what waits is too old, more than `most` where
    // the outbox makes room for what comes.
    open: AtomicUsize,
    was_full: AtomicBool,
    // The last that found no place had none in the pool.
    is_short: AtomicBool,
    pool: Arc<Pool>,
}

impl Room {
    /// Space for `most` bytes, whatever others have.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Self::sharing(most, Pool::new(usize::MAX, 0, 1))
    }

    /// Space for `most` bytes, and never more than one link's share of the pool.
    #[must_use]
    pub fn sharing(most: usize, pool: Arc<Pool>) -> Arc<Self> {
        let (waiting, open) = (AtomicUsize::new(0), AtomicUsize::new(most));
        let (was_full, is_short) = Default::default();
        Arc::new(Self { waiting, most, open, was_full, is_short, pool })
    }

    /// Takes place for a frame of that many bytes, or says that there is none.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> bool {
        let fits = self.reserve_within(bytes, self.open.load(Ordering::Relaxed));
        if !fits {
            self.note_full_of(bytes);
        }
        fits
    }

    /// As [`Room::reserve`], where no more than `most` bytes may wait then.
    pub(super) fn reserve_within(&self, bytes: usize, most: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        let fits = after <= most.min(self.pool.share());
        if !fits {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.is_short.store(after <= most, Ordering::Relaxed);
        }
        fits
    }

    /// Takes place for `new` bytes and gives that for `old` back, or says that there is none.
    pub(super) fn exchange(&self, old: usize, new: usize) -> bool {
        let fits = new <= old || self.reserve_within(new - old, self.most);
        if fits && new < old {
            self.release(old - new);
        }
        fits
    }

    /// Bytes reserved.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes there may be.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes there may be now, with what all links together have left.
    #[must_use]
    pub fn bound(&self) -> usize {
        self.most.min(self.pool.share())
    }

    /// Whether anything is taken in at all: not while what waits is too old.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }

    pub(super) fn open_up_to(&self, bytes: usize) {
        self.open.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes found no place. That is this link's doing only if less waited they would have
    /// found it.
    pub(super) fn note_full_of(&self, bytes: usize) {
        if bytes <= self.most && self.waiting() > 0 {
            self.was_full.store(true, Ordering::Relaxed);
        }
    }

    /// Which bound it was that something found no place within.
    #[must_use]
    pub(crate) fn cause(&self) -> Cause {
        if self.is_short.load(Ordering::Relaxed) { Cause::Pool } else { Cause::Full }
    }

    /// Whether something found no place since the last call.
    pub(super) fn take_was_full(&self) -> bool {
        self.was_full.swap(false, Ordering::Relaxed)
    }

    /// Gives place back that was reserved for a frame that will not come.
    pub fn release(&self, bytes: usize) {
        let before = self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before}");
    }
}

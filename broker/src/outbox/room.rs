//! The space of one outbox, shared with those who want to put something into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// See the module. Relaxed everywhere: it guards an amount, not other memory.
#[derive(Debug)]
pub struct Room {
    waiting: AtomicUsize,
    most: usize,
    // Up to where others may fill it: nothing while what waits is too old, more than `most` where
    // the outbox makes room for what comes.
    open: AtomicUsize,
    was_full: AtomicBool,
}

impl Room {
    /// Space for `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        let (waiting, open) = (AtomicUsize::new(0), AtomicUsize::new(most));
        Arc::new(Self { waiting, most, open, was_full: AtomicBool::new(false) })
    }

    /// Takes place for a frame of that many bytes, or says that there is none.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> bool {
        let fits = self.reserve_within(bytes, self.open.load(Ordering::Relaxed));
        if !fits {
            self.note_full();
        }
        fits
    }

    /// As [`Room::reserve`], where no more than `most` bytes may wait then.
    pub(super) fn reserve_within(&self, bytes: usize, most: usize) -> bool {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= most;
        if !fits {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
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

    /// Whether anything is taken in at all: not while what waits is too old.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) != 0
    }

    pub(super) fn open_up_to(&self, bytes: usize) {
        self.open.store(bytes, Ordering::Relaxed);
    }

    /// Something found no place.
    pub(super) fn note_full(&self) {
        self.was_full.store(true, Ordering::Relaxed);
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

//! The memory that all links of a broker share, and how much of it one of them may still ask for.
//!
//! What a link holds beyond a little that each may have is charged to the pool, by the capacity of
//! its buffers: once in a turn of its shard, and only if it has changed. Nobody waits for the pool:
//! whoever would need more than its share is refused, or read less, by the rule of its own bound.
//!
//! A share is a part of what is *free*, so that the more is in use, the less one link may have, and
//! however many links stand still there is something left for those that do not (Choudhury and
//! Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998): with `n`
//! links at their share, one `(SHARE_PART + n)`-th of the pool is left for each of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One link's share is what is free, divided by this.
const SHARE_PART: usize = 8;

/// See the module. Relaxed everywhere: it guards an amount, not other memory.
#[derive(Debug)]
pub struct Pool {
    used: AtomicUsize,
    most: usize,
}

impl Pool {
    /// A pool of that many bytes.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), most })
    }

    /// Bytes charged. They may be more than there should be, by what one turn of each shard brings
    /// and by the growth of its buffers: these are terms of the sum in `memory.rs`.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes there should be at most.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Bytes that one link may have in one queue.
    #[inline]
    #[must_use]
    pub fn share(&self) -> usize {
        self.most.saturating_sub(self.used()) / SHARE_PART
    }

    /// Charges bytes that are there.
    pub(crate) fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are there no more.
    pub(crate) fn give(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "gave {bytes} of {before} back");
    }
}

/// What one holder is charged with; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    pool: Arc<Pool>,
    bytes: usize,
}

impl Charge {
    /// Of nothing yet.
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, bytes: 0 }
    }

    /// It holds so much now.
    #[inline]
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.pool.take(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.pool.give(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Charge {
    /// It holds so much more, which has been charged.
    pub(crate) fn adopt(&mut self, bytes: usize) {
        self.bytes += bytes;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_7_links_that_take_their_shares_leave_some_for_the_next() {
        let pool = Pool::new(1 << 30);
        let mut links = Vec::new();
        for count in 0..10_000 {
            let share = pool.share();
            assert!(share >= (1 << 30) / (SHARE_PART + count + 1), "link {count}: {share}");
            let mut charge = Charge::new(Arc::clone(&pool));
            charge.set(share.min(8 << 20));
            links.push(charge);
        }
        assert!(pool.used() <= pool.most());
        links.truncate(100);
        assert!(pool.share() > 8 << 20 >> 3, "what they gave back can be had again");
        links.clear();
        assert_eq!(pool.used(), 0);
    }
}

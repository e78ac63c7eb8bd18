//! The memory that all links of a broker share, and how much of it one of them may still ask for.
//!
//! What a link holds beyond a little that each may have is charged to a pool, by the capacity of
//! its buffers: once in a turn of its shard, and only if it has changed. Nobody waits for a pool:
//! whoever would need more than its share is refused, or read less, by the rule of its own bound.
//!
//! A part is dealt out evenly: so much each link may have in any case, however many others stand
//! still (promise 6). The rest is for whoever needs it, and a share is a part of what is *free* of
//! it, so that a few links never take all (Choudhury and Hahne, "Dynamic queue length thresholds
//! for shared-memory packet switches", 1998).
//!
//! There are two: messages that wait for links that do not read are never in the way of what others
//! bring. Receipts that wait for word of them are of what their producers bring.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One link's share is what is free of the common part, divided by this.
const SHARE_PART: usize = 8;

/// See the module. Relaxed everywhere: it guards an amount, not other memory.
#[derive(Debug)]
pub struct Pool {
    used: AtomicUsize,
    most: usize,
    /// What is not dealt out, and what each may have in any case.
    common: usize,
    least: usize,
}

/// The pools of a broker.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Messages that wait for links, and what these are to report on.
    pub waiting: Arc<Pool>,
    /// What links bring, and answers to it: read buffers, frames that are not whole, long messages,
    /// receipts that wait.
    pub brought: Arc<Pool>,
}

impl Pools {
    /// Three quarters for what waits, half of it dealt out; a quarter for what is brought, mostly
    /// common: one message may be large.
    #[must_use]
    pub fn new(most: usize, links: usize) -> Self {
        let (waiting, brought) = (most / 4 * 3, most / 4);
        Self {
            waiting: Pool::new(waiting, waiting / 2, links),
            brought: Pool::new(brought, brought / 8, links),
        }
    }

    /// Bytes charged to both.
    #[must_use]
    pub fn used(&self) -> usize {
        self.waiting.used() + self.brought.used()
    }
}

impl Pool {
    /// A pool of that many bytes, of which so many are dealt out among so many links.
    #[must_use]
    pub fn new(most: usize, dealt: usize, links: usize) -> Arc<Self> {
        let (used, common, least) = (AtomicUsize::new(0), most - dealt, dealt / links.max(1));
        Arc::new(Self { used, most, common, least })
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
        (self.common.saturating_sub(self.used()) / SHARE_PART).max(self.least)
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

/// The same for both pools.
#[derive(Debug)]
pub(crate) struct Charges {
    pub(crate) waiting: Charge,
    pub(crate) brought: Charge,
}

impl Charges {
    /// Of nothing yet.
    pub(crate) fn new(pools: &Pools) -> Self {
        let of = |pool: &Arc<Pool>| Charge::new(Arc::clone(pool));
        Self { waiting: of(&pools.waiting), brought: of(&pools.brought) }
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
        let pool = Pool::new(1 << 30, 1 << 29, 10_000);
        let mut links = Vec::new();
        for count in 0..10_000 {
            let share = pool.share();
            assert!(share >= (1 << 29) / 10_000, "link {count}: {share}");
            let mut charge = Charge::new(Arc::clone(&pool));
            charge.set(share.min(8 << 20));
            links.push(charge);
        }
        assert!(pool.used() <= pool.most());
        links.truncate(50);
        assert!(pool.share() > 8 << 20, "what they gave back can be had again");
        links.clear();
        assert_eq!(pool.used(), 0);
    }
}

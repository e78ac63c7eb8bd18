//! A shortage of memory of all connections' (`pool.rs`), and who has to go for it.

use std::collections::BinaryHeap;

use crate::pool::Pool;

/// Connections that are looked at in one go, and at most ended after all were.
pub(crate) const LOOKED_AT_ONCE: usize = 1 << 10;
const ENDED_AT_ONCE: usize = 64;

/// How long a connection may not get on, and a shortage last, before it has to go for one that has
/// lasted for less.
const GRACE_MS: u64 = 1000;

/// What a connection holds that does not get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stuck {
    /// Since when its socket has taken nothing, or a message of its client's is not whole.
    pub(crate) since_ms: u64,
    pub(crate) bytes: usize,
}

/// From when too much was held until there is [some room](Pool::has_room) again: one that came and
/// went with each message would never last.
#[derive(Debug)]
pub(crate) struct Shortage {
    since_ms: u64,
    pub(crate) sweep: Sweep,
    /// All were looked at, and nobody had to go.
    pub(crate) is_waiting: bool,
}

impl Shortage {
    /// It begins.
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { since_ms: now_ms, sweep: Sweep::default(), is_waiting: false }
    }

    /// Whether a connection may have to go that is stuck like this.
    pub(crate) fn may_end(&self, stuck: Stuck, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.since_ms.min(stuck.since_ms)) >= GRACE_MS
    }
}

/// A look at all connections, in as many parts as it takes; the keys are the caller's.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Where the next part begins.
    pub(crate) from: usize,
    /// Those that have been stuck for the longest, the youngest of them on top.
    oldest: BinaryHeap<(Stuck, usize)>,
}

impl Sweep {
    /// This connection is stuck.
    pub(crate) fn note(&mut self, stuck: Stuck, key: usize) {
        self.oldest.push((stuck, key));
        if self.oldest.len() > ENDED_AT_ONCE {
            self.oldest.pop();
        }
    }

    /// All were looked at: who is to go, and no more of them than it takes.
    pub(crate) fn chosen(self, pool: &Pool) -> impl Iterator<Item = usize> {
        let mut excess = pool.excess();
        let oldest = self.oldest.into_sorted_vec().into_iter();
        oldest.map_while(move |(stuck, key)| {
            let goes = (excess > 0).then_some(key);
            excess = excess.saturating_sub(stuck.bytes);
            goes
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn promise_6_the_oldest_go_and_no_more_than_it_takes() {
        let pool: Arc<Pool> = Pool::new(800, 4, Arc::default());
        pool.take(1000);
        let mut sweep = Sweep::default();
        for (key, since_ms) in [50, 10, 40, 20, 30].into_iter().enumerate() {
            sweep.note(Stuck { since_ms, bytes: 150 }, key);
        }
        // 300 are too many: what is above seven eighths.
        assert_eq!(sweep.chosen(&pool).collect::<Vec<_>>(), [1, 3]);
        let mut sweep = Sweep::default();
        for key in 0..1000 {
            sweep.note(Stuck { since_ms: 1000 - key as u64, bytes: 0 }, key);
        }
        let chosen: Vec<_> = sweep.chosen(&pool).collect();
        assert_eq!((chosen[0], chosen.len()), (999, ENDED_AT_ONCE));
    }
}

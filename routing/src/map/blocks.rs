//! The blocks of a map, by their numbers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::arena::Arena;
use super::block::Block;
use super::bucket::Bucket;
use crate::sync::size;

/// Buckets of the first block of a map: a tenant of a few users takes little.
const BUCKETS_MIN: usize = size(8, 2, 1);

/// Buckets of a block, once a map has more than a few. 16 KiB: what moves in a step lies in a
/// core's first cache meanwhile.
pub(super) const BUCKETS_MAX: usize = size(256, 4, 2);

/// Sizes of blocks below that; a map has one of each at most, with the lowest numbers.
const SMALL: usize = (BUCKETS_MAX / BUCKETS_MIN).ilog2() as usize;

/// Blocks that are made at once, as a power of two: 128 KiB, whose pages cost some 40 us.
const TOGETHER: u32 = 3;

/// The buckets of a block of full size.
#[derive(Debug)]
struct Large([Bucket; BUCKETS_MAX]);

impl Default for Large {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Bucket::default()))
    }
}

/// The blocks. They are only ever added.
#[derive(Debug)]
pub(super) struct Blocks {
    small: [OnceLock<Box<[Bucket]>>; SMALL],
    large: Arena<Large>,
    /// Large ones there are. Nothing hangs on its order, so that it is not modelled.
    number: AtomicU32,
}

impl Blocks {
    /// None.
    pub(super) fn new() -> Self {
        let small = [const { OnceLock::new() }; SMALL];
        let large = Arena::new(TOGETHER);
        Self { small, large, number: AtomicU32::new(0) }
    }

    /// The number of another one. In a map that was doubled so many times.
    pub(super) fn another(&self, doublings: usize) -> u32 {
        if let Some(small) = self.small.get(doublings) {
            let buckets = (0..BUCKETS_MIN << doublings).map(|_| Bucket::default());
            small.get_or_init(|| buckets.collect());
            return number(doublings);
        }
        let large = self.number.fetch_add(1, Ordering::Relaxed);
        self.large.make(large);
        number(SMALL) + self.large.way(large)
    }

    /// A block that there is.
    #[inline(always)]
    pub(super) fn at(&self, number: u32) -> Block<'_> {
        match number.checked_sub(SMALL as u32) {
            Some(way) => Block::of(&self.large.at(way).0),
            None => self.small(number),
        }
    }

    #[cold]
    fn small(&self, number: u32) -> Block<'_> {
        let small = self.small[number as usize].get();
        Block::of(small.expect("a group names blocks that there are"))
    }

    /// How many buckets the blocks of such a map have.
    pub(super) fn buckets_of(doublings: usize) -> usize {
        BUCKETS_MIN << doublings
    }

    /// The same again, while nobody changes them.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::new();
        let small = (0..SMALL).filter(|at| self.small[*at].get().is_some());
        let large = (0..self.number.load(Ordering::Relaxed)).map(|_| SMALL);
        for doublings in small.chain(large) {
            let number = copy.another(doublings);
            let both = copy.at(number).buckets().iter().zip(self.at(number).buckets());
            both.for_each(|(copy, bucket)| copy.be_like(bucket));
        }
        copy
    }

    /// How many buckets were made.
    #[cfg(all(test, not(loom)))]
    pub(super) fn buckets(&self) -> usize {
        let small = self.small.iter().filter_map(OnceLock::get).map(|small| small.len());
        small.sum::<usize>() + self.number.load(Ordering::Relaxed) as usize * BUCKETS_MAX
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).expect("there are few small ones")
}

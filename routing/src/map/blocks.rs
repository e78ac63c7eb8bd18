//! The blocks that groups have, each in memory of its own, and shared by a group and those that
//! take its place.

use std::sync::Arc;

use super::block::Block;
use super::bucket::Bucket;
use crate::sync::size;

/// Buckets of the first block of a map: a tenant of a few users takes little.
const BUCKETS_MIN: usize = size(8, 2, 1);

/// Buckets of a block, once a map has more than a few. 16 KiB: what moves in a step lies in a
/// core's first cache meanwhile.
pub(super) const BUCKETS_MAX: usize = size(256, 4, 2);

/// Sizes of blocks below that; a map has one of each at most, as the only block of its only group.
pub(super) const SMALL: usize = (BUCKETS_MAX / BUCKETS_MIN).ilog2() as usize;

/// A block of full size: readers know how large it is.
#[derive(Debug)]
pub(super) struct Large([Bucket; BUCKETS_MAX]);

/// A block.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    Large(Arc<Large>),
    Small(Arc<[Bucket]>),
}

impl Large {
    /// Its buckets.
    #[inline(always)]
    pub(super) fn block(&self) -> Block<'_> {
        Block::of(&self.0)
    }
}

impl Kept {
    /// Another one, for a map that was doubled so many times.
    pub(super) fn new(doublings: usize) -> Self {
        match doublings < SMALL {
            true => Self::Small((0..buckets_of(doublings)).map(|_| Bucket::default()).collect()),
            false => Self::Large(Arc::new(Large(std::array::from_fn(|_| Bucket::default())))),
        }
    }

    /// Its buckets.
    pub(super) fn block(&self) -> Block<'_> {
        match self {
            Self::Large(large) => large.block(),
            Self::Small(small) => Block::of(small),
        }
    }

    /// The same again, while nobody changes it. In a map that was doubled so many times.
    pub(super) fn copy(&self, doublings: usize) -> Self {
        let copy = Self::new(doublings);
        let both = copy.block().buckets().iter().zip(self.block().buckets());
        both.for_each(|(copy, bucket)| copy.be_like(bucket));
        copy
    }
}

/// How many buckets the blocks of such a map have.
pub(super) fn buckets_of(doublings: usize) -> usize {
    BUCKETS_MIN << doublings
}

//! Every choice of a run, from one seed.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// The generator of one run.
pub(crate) struct Chance(SmallRng);

impl Chance {
    /// The same seed makes the same choices.
    #[must_use]
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    /// A place in something of this length, which is not 0.
    pub(crate) fn place(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    /// A number of this range, both ends included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.random_range(least..=most)
    }

    /// As [`between`](Self::between), for sizes.
    pub(crate) fn size(&mut self, least: usize, most: usize) -> usize {
        self.0.random_range(least..=most)
    }

    /// `true` once in so many times.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.0.random_range(0..times) == 0
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0.random()
    }

    /// Any number but 0.
    pub(crate) fn id(&mut self) -> u64 {
        self.0.random_range(1..=u64::MAX)
    }

    /// Bytes that move at once: mostly many, now and then so few that frames are split.
    pub(crate) fn piece(&mut self) -> usize {
        match self.0.random_range(0..8) {
            0 => self.0.random_range(1..8),
            1 => self.0.random_range(8..200),
            _ => self.0.random_range(200..65_536),
        }
    }
}

//! Which hashes a group has, and which of its blocks has each: one word, so that readers see it
//! change in one step.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a number is taken out of a word by cutting off the rest"
)]

use crate::sync::size;

/// Blocks of a group at most. A group of as many becomes two; with half as many, one more is a
/// quarter.
pub(super) const BLOCKS_MAX: usize = size(8, 8, 2);

/// The part of a hash behind the group's own bits, which says where in the group it belongs.
const PLACE: u32 = 32;

/// A group's shape. No group has the same one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Hashes that begin with the lowest `depth` bits of it are the group's.
    prefix: u64,
    depth: u32,
    /// Blocks there are, but for the one that is being filled; none, if others took its place.
    blocks: u32,
    /// While another block is being filled: those before this one have given nothing yet, nor has
    /// it got what it is to have.
    growing: Option<u32>,
    /// How many times the one block of a small map was doubled.
    doublings: u32,
}

impl Shape {
    /// Of a map's first group.
    pub(super) fn first() -> Self {
        Self { prefix: 0, depth: 0, blocks: 1, growing: None, doublings: 0 }
    }

    /// As a word: five fields of 6, 4, 4, 4 and 46 bits.
    pub(super) fn word(self) -> u64 {
        let growing = self.growing.map_or(0, |at| at + 1);
        let numbers = self.depth | self.blocks << 6 | growing << 10 | self.doublings << 14;
        self.prefix << 18 | u64::from(numbers)
    }

    /// From a word.
    #[inline]
    pub(super) fn of(word: u64) -> Self {
        let number = |first: u32, bits: u32| (word >> first) as u32 & ((1 << bits) - 1);
        Self {
            prefix: word >> 18,
            depth: number(0, 6),
            blocks: number(6, 4),
            growing: number(10, 4).checked_sub(1),
            doublings: number(14, 4),
        }
    }

    /// Whether a hash is the group's.
    #[inline]
    pub(super) fn owns(self, hash: u64) -> bool {
        let begins = hash.checked_shr(u64::BITS - self.depth).unwrap_or(0);
        begins == self.prefix && self.blocks > 0
    }

    /// Which block has a hash of the group.
    #[inline]
    pub(super) fn block(self, hash: u64) -> usize {
        let place = hash << self.depth >> (u64::BITS - PLACE);
        let of = |blocks: u32| ((place * u64::from(blocks)) >> PLACE) as u32;
        let at = match self.growing {
            Some(given) if of(self.blocks + 1) > given => of(self.blocks + 1),
            _ => of(self.blocks),
        };
        at as usize
    }

    /// Whether that block has the hash, and the group.
    pub(super) fn owns_at(self, hash: u64, at: usize) -> bool {
        self.owns(hash) && self.block(hash) == at
    }

    /// Blocks there are, but for one that is being filled.
    pub(super) fn blocks(self) -> usize {
        self.blocks as usize
    }

    /// Blocks that may have routes.
    pub(super) fn blocks_in_use(self) -> usize {
        self.blocks() + usize::from(self.growing.is_some())
    }

    /// Whether another block is being filled.
    pub(super) fn is_growing(self) -> bool {
        self.growing.is_some()
    }

    /// Whether others took its place.
    pub(super) fn is_over(self) -> bool {
        self.blocks == 0
    }

    /// The next step towards one more block: which block gives to the one behind it, and the shape
    /// when it has.
    pub(super) fn step(self) -> (usize, Self) {
        let from = self.growing.unwrap_or(self.blocks) - 1;
        let next = match from {
            0 => Self { blocks: self.blocks + 1, growing: None, ..self },
            _ => Self { growing: Some(from), ..self },
        };
        (from as usize, next)
    }

    /// Those of the two groups that take the place of a full one.
    pub(super) fn halves(self) -> [Self; 2] {
        let (depth, blocks) = (self.depth + 1, self.blocks / 2);
        [0, 1].map(|bit| Self { prefix: self.prefix << 1 | bit, depth, blocks, ..self })
    }

    /// That of a group whose one block is twice as large.
    pub(super) fn doubled(self) -> Self {
        Self { doublings: self.doublings + 1, ..self }
    }

    /// That of a group whose place others have taken.
    pub(super) fn over(self) -> Self {
        Self { blocks: 0, growing: None, ..self }
    }

    /// How many bits of a hash name the group, and which they are.
    pub(super) fn range(self) -> (u64, u32) {
        (self.prefix, self.depth)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A hash at each 840th part of the range: a number that all numbers of blocks divide.
    fn places() -> impl Iterator<Item = u64> {
        (0..840u64).map(|part| ((u128::from(part) * 2 + 1) * (1 << 64) / 1680) as u64)
    }

    fn counts(shape: Shape) -> Vec<usize> {
        let mut counts = vec![0; BLOCKS_MAX];
        places().for_each(|hash| counts[shape.block(hash)] += 1);
        counts.retain(|count| *count > 0);
        counts
    }

    #[test]
    fn each_step_moves_hashes_of_one_block_to_the_one_behind_it_and_ends_in_equal_parts() {
        let mut shape = Shape::first();
        for blocks in 2..=BLOCKS_MAX {
            loop {
                let (from, next) = shape.step();
                let moved = places().filter(|hash| shape.block(*hash) != next.block(*hash));
                assert!(
                    moved
                        .map(|hash| (shape.block(hash), next.block(hash)))
                        .all(|(before, after)| (before, after) == (from, from + 1))
                );
                assert_eq!(Shape::of(next.word()), next);
                shape = next;
                if !shape.is_growing() {
                    break;
                }
            }
            assert_eq!(counts(shape), vec![840 / blocks; blocks]);
        }
        let [lower, upper] = shape.halves();
        for hash in places() {
            let (half, at) = if hash >> 63 == 0 { (lower, 0) } else { (upper, BLOCKS_MAX / 2) };
            assert!(half.owns(hash) && !shape.over().owns(hash));
            assert_eq!(half.block(hash) + at, shape.block(hash));
        }
    }
}

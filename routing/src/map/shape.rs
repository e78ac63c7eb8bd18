//! Which hashes a group has, and which of its blocks has each: one word, so that readers see it
//! change in one step.
//!
//! The bits of a hash behind those that name the group choose one of 256 cells, and a table says
//! which block has a cell, for each number of blocks. One more block takes from each other a share
//! that leaves all with as much, and few cells move for it: of those that have to leave a block, as
//! many as can go to where they are to be when the number has doubled. Then each half of the range
//! has blocks of its own, and the group can become two.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a number is taken out of a word by cutting off the rest"
)]

use super::blocks;
use crate::sync::size;

/// Blocks of a group at most. A group of as many becomes two; with half as many, one more is a
/// quarter.
pub(super) const BLOCKS_MAX: usize = size(8, 8, 2);

/// What a group's hashes are told apart by: the bits behind the group's own.
const CELL: u32 = 8;
const CELLS: usize = 1 << CELL;

/// Where fields of a word begin; the first is the depth, in the bits that a shift looks at. A row
/// begins where a cell ends, so that both together are a place in the table.
const ROW: u32 = CELL;
const DOUBLINGS: u32 = 15;
const PREFIX: u32 = 20;

/// The block of each cell, for each number of blocks, and for each of the steps towards one more:
/// a row for a shape, so that no reader has to ask whether it is growing.
static PLACES: [u8; CELLS * ROWS] = rows();

/// Rows of a number of blocks: while it stays as it is, and while so many have given nothing yet.
const STEPS: usize = BLOCKS_MAX + 1;
const ROWS: usize = 1 << (DOUBLINGS - ROW);

/// The row of a group that has one block of less than full size: its cells have none here.
const SMALL: u32 = ROWS as u32 - 1;

/// The block of all cells where there is none.
const NONE: u8 = u8::MAX;

/// A group's shape. No group has the same one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Hashes that begin with the lowest `depth` bits of it are the group's.
    prefix: u64,
    depth: u32,
    /// Blocks there are, but for the one that is being filled; none, if others took its place.
    blocks: u32,
    /// While another block is being filled: those before this one have given nothing yet.
    growing: Option<u32>,
    /// How many times the one block of a small map was doubled.
    doublings: u32,
}

/// Which block of full size has a hash of the group, whose shape is this word; no number of a block
/// if it has none, or none any more.
#[inline]
pub(super) fn block_of(word: u64, hash: u64) -> usize {
    // The depth is what is left of a word when it is taken for a number of bits to shift by.
    let cell = hash.wrapping_shl(word as u32) >> (u64::BITS - CELL);
    let row = word & ((ROWS as u64 - 1) << ROW);
    PLACES[(row | cell) as usize].into()
}

/// Whether a group of this shape has one block of less than full size.
#[inline]
pub(super) fn is_small(word: u64) -> bool {
    (word >> ROW) as u32 & (ROWS as u32 - 1) == SMALL
}

impl Shape {
    /// Of a map's first group.
    pub(super) fn first() -> Self {
        Self { prefix: 0, depth: 0, blocks: 1, growing: None, doublings: 0 }
    }

    /// As a word: the prefix in the highest bits, as in a hash; then what it is doubled, the row,
    /// and the depth, in 5, 7 and 8 bits.
    pub(super) fn word(self) -> u64 {
        let growing = self.growing.map_or(0, |at| at + 1);
        let row = match self.blocks {
            1 if growing == 0 && self.doublings() < blocks::SMALL => SMALL,
            blocks => blocks * STEPS as u32 + growing,
        };
        let numbers = self.depth | row << ROW | self.doublings << DOUBLINGS;
        self.prefix.checked_shl(u64::BITS - self.depth).unwrap_or(0) | u64::from(numbers)
    }

    /// From a word.
    #[inline]
    pub(super) fn of(word: u64) -> Self {
        let number = |first: u32, end: u32| (word >> first) as u32 & ((1 << (end - first)) - 1);
        let (depth, row) = (number(0, ROW), number(ROW, DOUBLINGS));
        let (blocks, growing) = match row {
            SMALL => (1, 0),
            row => (row / STEPS as u32, row % STEPS as u32),
        };
        Self {
            prefix: word.checked_shr(u64::BITS - depth).unwrap_or(0),
            depth,
            blocks,
            growing: growing.checked_sub(1),
            doublings: number(DOUBLINGS, PREFIX),
        }
    }

    /// Whether a hash is the group's.
    pub(super) fn owns(self, hash: u64) -> bool {
        // In two steps: of no bits, no bit counts.
        let differs = (self.word() ^ hash) >> 1 >> (u64::BITS - 1 - self.depth);
        differs == 0 && !self.is_over()
    }

    /// Which block has a hash of the group.
    pub(super) fn block(self, hash: u64) -> usize {
        match self.word() {
            word if is_small(word) => 0,
            word => block_of(word, hash),
        }
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

    /// How many times the first block of a small map was doubled.
    pub(super) fn doublings(self) -> usize {
        self.doublings as usize
    }

    /// When another block is there, and empty.
    pub(super) fn begun(self) -> Self {
        Self { growing: Some(self.blocks), ..self }
    }

    /// The next step towards filling it: which block gives to others, and the shape when it has.
    pub(super) fn step(self) -> (usize, Self) {
        let from = self.growing.expect("another block is there") - 1;
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

/// Which block of a full group is block `at` of one of the two that take its place.
pub(super) const fn heirloom(half: usize, at: usize) -> usize {
    match BLOCKS_MAX {
        2 => half,
        _ => (at & 1) << 2 | half << 1 | at >> 1,
    }
}

/// Where a cell is in a full group. Its lower bits say where it is in one with half of the blocks,
/// and so on: in one with half of them that is what the cell's two highest bits say, so that each
/// half of a full group is a group.
const fn last(cell: usize) -> usize {
    let (first, second, third) = (cell >> 7 & 1, cell >> 6 & 1, cell >> 5 & 1);
    match BLOCKS_MAX {
        2 => first,
        _ => third << 2 | first << 1 | second,
    }
}

const fn rows() -> [u8; CELLS * ROWS] {
    let places = places();
    let mut rows = [NONE; CELLS * ROWS];
    let mut blocks = 1;
    while blocks <= BLOCKS_MAX {
        let mut step = 0;
        while step == 0 || (step <= blocks + 1 && blocks < BLOCKS_MAX) {
            let row = (blocks * STEPS + step) * CELLS;
            let mut cell = 0;
            while cell < CELLS {
                let at = places[blocks - 1][cell];
                // Those from `step - 1` on have given.
                let has_given = step > 0 && at as usize >= step - 1;
                rows[row + cell] = if has_given { places[blocks][cell] } else { at };
                cell += 1;
            }
            step += 1;
        }
        blocks += 1;
    }
    rows
}

const fn places() -> [[u8; CELLS]; BLOCKS_MAX] {
    let mut places = [[0; CELLS]; BLOCKS_MAX];
    let mut blocks = 1;
    while blocks < BLOCKS_MAX {
        places[blocks] = one_more(places[blocks - 1], blocks);
        blocks += 1;
    }
    places
}

/// The block of each cell when there is another block, `new`.
const fn one_more(before: [u8; CELLS], new: usize) -> [u8; CELLS] {
    // Blocks below `homes` keep some of their cells as long as the number of blocks has not
    // doubled; the others go to the block that is to have them then, or wait for it elsewhere.
    let homes = 1 << new.ilog2();
    let mut cells = Cells { of: before, count: [0; BLOCKS_MAX], blocks: new + 1, homes };
    let mut cell = 0;
    while cell < CELLS {
        cells.count[before[cell] as usize] += 1;
        cell += 1;
    }
    cell = 0;
    while cell < CELLS {
        let (at, to) = (before[cell] as usize, last(cell) & (2 * homes - 1));
        if at >= homes && to == new {
            cells.give(cell, new);
        } else if at < homes && to != at && cells.is_over(at) {
            cells.give(cell, if to < new { to } else { new });
        }
        cell += 1;
    }
    cells.even_out()
}

/// Cells that are being given to blocks.
struct Cells {
    of: [u8; CELLS],
    /// How many each block has.
    count: [usize; BLOCKS_MAX],
    blocks: usize,
    homes: usize,
}

impl Cells {
    const fn give(&mut self, cell: usize, block: usize) {
        self.count[self.of[cell] as usize] -= 1;
        self.count[block] += 1;
        self.of[cell] = block as u8;
    }

    /// How many cells a block is to have.
    const fn share(&self, block: usize) -> usize {
        (block + 1) * CELLS / self.blocks - block * CELLS / self.blocks
    }

    const fn is_over(&self, block: usize) -> bool {
        self.count[block] > self.share(block)
    }

    /// Blocks that have too many cells give those that only wait there to blocks with too few.
    const fn even_out(mut self) -> [u8; CELLS] {
        let mut cell = 0;
        while cell < CELLS {
            let (at, to) = (self.of[cell] as usize, last(cell) & (2 * self.homes - 1));
            let mut with_room = self.blocks;
            while at >= self.homes && to != at && self.is_over(at) && with_room > self.homes {
                with_room -= 1;
                if self.count[with_room] < self.share(with_room) {
                    self.give(cell, with_room);
                    break;
                }
            }
            cell += 1;
        }
        self.of
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A hash of each cell.
    fn hashes() -> impl Iterator<Item = u64> {
        (0..CELLS as u64).map(|cell| cell << (u64::BITS - CELL))
    }

    #[test]
    fn each_step_moves_cells_of_one_block_and_ends_in_equal_shares() {
        let mut shape = Shape::first();
        for blocks in 2..=BLOCKS_MAX {
            let begun = shape.begun();
            assert!(hashes().all(|hash| shape.block(hash) == begun.block(hash)));
            shape = begun;
            while shape.is_growing() {
                let (from, next) = shape.step();
                let moved = hashes().filter(|hash| shape.block(*hash) != next.block(*hash));
                assert!(moved.map(|hash| shape.block(hash)).all(|before| before == from));
                assert_eq!(Shape::of(next.word()), next);
                shape = next;
            }
            let mut counts = vec![0; blocks];
            hashes().for_each(|hash| counts[shape.block(hash)] += 1);
            let even = CELLS / blocks..=CELLS.div_ceil(blocks);
            assert!(counts.iter().all(|count| even.contains(count)), "{counts:?}");
        }
        let halves = shape.halves();
        for hash in hashes() {
            let half = usize::from(hash >> 63 != 0);
            assert!(halves[half].owns(hash) && !halves[1 - half].owns(hash));
            assert!(!shape.over().owns(hash));
            assert_eq!(heirloom(half, halves[half].block(hash)), shape.block(hash));
        }
    }

    #[test]
    fn three_quarters_of_all_cells_move_while_a_group_doubles() {
        let moved =
            |of: &[[u8; CELLS]]| (0..CELLS).filter(|cell| of[0][*cell] != of[1][*cell]).count();
        let moves: Vec<usize> = places()[BLOCKS_MAX / 2 - 1..].windows(2).map(moved).collect();
        assert!(moves.iter().sum::<usize>() * 100 <= 80 * CELLS, "{moves:?}");
    }
}

//! Things by their numbers, in chunks that are made one by one and never move: no step is long, and
//! who reads takes no lock.

use std::sync::{Arc, OnceLock};

/// While there are few, a chunk holds so many parts of what is there: little is made in vain.
const PARTS: u32 = 8;

/// Tables of chunks; table k has 2^k of them.
const TABLES: usize = 20;

type Chunk<T> = OnceLock<Arc<[T]>>;

/// A `T` under each number.
#[derive(Debug)]
pub(super) struct Arena<T> {
    /// Numbers of a chunk at most, as a power of two.
    most: u32,
    tables: [OnceLock<Box<[Chunk<T>]>>; TABLES],
}

/// Where a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    chunk: usize,
    at: usize,
    /// Numbers of that chunk.
    size: usize,
}

/// Of a way: what is left for the place in a chunk.
const AT: u32 = 5;

impl<T: Default> Arena<T> {
    /// Nothing, for 2^`most` numbers of a chunk at most.
    pub(super) fn new(most: u32) -> Self {
        assert!(most <= AT, "a way has room for its places");
        Self { most, tables: [const { OnceLock::new() }; TABLES] }
    }

    /// The way to a number: what a reader needs, worked out once.
    pub(super) fn way(&self, number: u32) -> u32 {
        let Place { chunk, at, .. } = self.place(number);
        u32::try_from(chunk << AT | at).expect("fewer chunks than numbers")
    }

    /// What is under a number that was made.
    pub(super) fn at(&self, number: u32) -> &T {
        let Place { chunk, at, .. } = self.place(number);
        &self.chunk(chunk).get().expect("a number that was made")[at]
    }

    fn chunk(&self, chunk: usize) -> &Chunk<T> {
        let (table, place) = table(chunk);
        let chunks = || (0..1usize << table).map(|_| OnceLock::new()).collect();
        &self.tables[table].get_or_init(chunks)[place]
    }

    /// What readers find so many numbers by; knows of none yet.
    pub(super) fn known(&self, numbers: u32) -> Known<T> {
        Known((0..=self.place(numbers).chunk).map(|_| OnceLock::new()).collect())
    }

    /// Makes what is under a number, unless it is there.
    pub(super) fn make(&self, number: u32) -> &T {
        let Place { chunk, at, size } = self.place(number);
        let things = || (0..size).map(|_| T::default()).collect();
        &self.chunk(chunk).get_or_init(things)[at]
    }

    fn place(&self, number: u32) -> Place {
        let number = number + PARTS;
        let size = (number.ilog2() - PARTS.ilog2()).min(self.most);
        let chunk = PARTS * size + (number >> size) - PARTS;
        let at = number & ((1 << size) - 1);
        Place { chunk: chunk as usize, at: at as usize, size: 1 << size }
    }
}

/// The chunks of an arena in one row: one step less for who reads.
#[derive(Debug)]
pub(super) struct Known<T>(Box<[Chunk<T>]>);

impl<T: Default> Known<T> {
    /// From here on it has what is under numbers up to this one, which were made.
    pub(super) fn know(&self, arena: &Arena<T>, number: u32) {
        let last = arena.place(number).chunk;
        let unknown = (0..=last).rev().take_while(|chunk| self.0[*chunk].get().is_none());
        for chunk in unknown {
            let there = || Arc::clone(arena.chunk(chunk).get().expect("a number that was made"));
            self.0[chunk].get_or_init(there);
        }
    }

    /// For who looks many up.
    #[inline(always)]
    pub(super) fn reader(&self) -> Reader<'_, T> {
        Reader(&self.0)
    }

    /// What is there, on the way to a number that is known.
    #[inline(always)]
    pub(super) fn at(&self, way: u32) -> &T {
        self.reader().at(way)
    }
}

/// The same, held where a reader need not look for it.
#[derive(Debug)]
pub(super) struct Reader<'a, T>(&'a [Chunk<T>]);

impl<'a, T> Reader<'a, T> {
    /// What is there, on the way to a number that is known.
    #[inline(always)]
    pub(super) fn at(&self, way: u32) -> &'a T {
        let chunk = self.0[way as usize >> AT].get();
        let chunk = chunk.expect("who knows a way was told it when it was known");
        &chunk[way as usize & ((1 << AT) - 1)]
    }
}

/// The table of a chunk, and where it is there.
fn table(chunk: usize) -> (usize, usize) {
    let table = (chunk + 1).ilog2();
    (table as usize, chunk + 1 - (1 << table))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::ptr;

    use super::*;

    #[test]
    fn numbers_fill_chunk_after_chunk_each_an_eighth_of_what_is_there_or_of_the_size_given() {
        let arena = Arena::<u8>::new(4);
        let mut expected = Place { chunk: 0, at: 0, size: 1 };
        for number in 0..10_000 {
            let place = arena.place(number);
            if expected.at == expected.size {
                expected = Place { chunk: expected.chunk + 1, at: 0, size: place.size };
                let there = number as usize + 8;
                assert!(place.size * 8 <= there, "{number}");
                assert!(place.size == 16 || place.size * 16 > there, "{number}");
            }
            assert_eq!(place, expected, "{number}");
            expected.at += 1;
        }
    }

    #[test]
    fn what_is_under_a_number_stays_where_it_is() {
        let arena = Arena::<u64>::new(2);
        let first: Vec<*const u64> =
            (0..100).map(|number| ptr::from_ref(arena.make(number))).collect();
        let known = arena.known(100);
        [9, 50, 99].into_iter().for_each(|number| known.know(&arena, number));
        assert!((0..100).all(|number| ptr::eq(known.at(arena.way(number)), arena.at(number))));
        let there = |number| ptr::from_ref(arena.at(number));
        assert!((0..100).all(|number| there(number) == first[number as usize]));
        assert!((0..100).all(|number| ptr::eq(arena.make(number), first[number as usize])));
    }
}

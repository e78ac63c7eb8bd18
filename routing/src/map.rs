//! UID -> slots, for one namespace, shared by all shards: readers never wait, writers wait for
//! those of the same segment, and growth is one small step after the other.
//!
//! Extendible hashing (R. Fagin et al., *Extendible Hashing: A Fast Access Method for Dynamic
//! Files*, 1979): the highest bits of a UID's keyed hash choose a segment by a directory, the
//! lowest ones a bucket in it. A full segment is split; when only one place of the directory led
//! to it, the directory doubles first.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place is chosen by the highest bits of a hash"
)]

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;

mod bucket;
mod segment;

use segment::{Added, BUCKETS_MIN, Owned, Segment};

/// Chunks of the arena; chunk k has 2^k segments, so that none ever moves.
const CHUNKS: usize = 24;

/// Segments by their numbers. They are only ever added.
#[derive(Debug)]
struct Arena {
    chunks: [OnceLock<Box<[OnceLock<Segment>]>>; CHUNKS],
}

/// Which segment each highest bits of a hash belong to.
type Directory = Box<[AtomicU32]>;

/// The map.
#[derive(Debug)]
pub(crate) struct Map {
    key: u64,
    arena: Arena,
    directory: ArcSwap<Directory>,
    /// How many segments there are; held while one is added.
    segments: Mutex<u32>,
}

/// How far a sweep came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swept {
    pub(crate) looked_at: usize,
    /// Where to go on: segment and bucket; `None` at the end of the map.
    pub(crate) next: Option<(u32, usize)>,
}

/// The map for a batch of look-ups: the directory is asked for once.
pub(crate) struct View<'a> {
    map: &'a Map,
    directory: arc_swap::Guard<Arc<Directory>>,
}

impl Arena {
    fn place(number: u32) -> (usize, usize) {
        let chunk = (number + 1).ilog2();
        (chunk as usize, (number + 1 - (1 << chunk)) as usize)
    }

    #[inline]
    fn get(&self, number: u32) -> &Segment {
        let (chunk, at) = Self::place(number);
        let chunk = self.chunks[chunk].get().expect("a number in a directory has its segment");
        chunk[at].get().expect("a number in a directory has its segment")
    }

    fn set(&self, number: u32, segment: Segment) {
        let (chunk, at) = Self::place(number);
        let segments = || (0..1usize << chunk).map(|_| OnceLock::new()).collect();
        let set = self.chunks[chunk].get_or_init(segments)[at].set(segment);
        assert!(set.is_ok(), "a number is given once");
    }
}

/// Keyed and bijective, so that nobody can choose UIDs that lie in one place: two rounds of the
/// finaliser of SplitMix64 with the key between them.
#[inline]
pub(crate) fn hash(key: u64, uid: u64) -> u64 {
    let round = |mut x: u64| {
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    };
    round(round(uid ^ key).wrapping_add(key.rotate_left(32)))
}

impl Map {
    /// An empty map. `key` is to be drawn at random, so that nobody knows it.
    pub(crate) fn new(key: u64) -> Self {
        let arena = Arena { chunks: [const { OnceLock::new() }; CHUNKS] };
        arena.set(0, Segment::new(Owned { prefix: 0, depth: 0 }, BUCKETS_MIN));
        let directory: Directory = Box::new([AtomicU32::new(0)]);
        Self { key, arena, directory: ArcSwap::from_pointee(directory), segments: Mutex::new(1) }
    }

    /// What its hashes are keyed with.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// For a batch of look-ups.
    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        View { map: self, directory: self.directory.load() }
    }

    /// Adds a route; whether it is new.
    pub(crate) fn add(&self, uid: u64, slot: u16) -> bool {
        let hash = hash(self.key, uid);
        loop {
            let view = self.view();
            let segment = view.segment(hash);
            match segment.add(hash, uid, slot) {
                Added::New => return true,
                Added::Already => return false,
                Added::NotHere => {}
                Added::Full => self.grow(segment),
            }
        }
    }

    /// Takes a route away; whether it was there.
    pub(crate) fn remove(&self, uid: u64, slot: u16) -> bool {
        let hash = hash(self.key, uid);
        loop {
            let view = self.view();
            if let Some(removed) = view.segment(hash).remove(hash, uid, slot) {
                return removed;
            }
        }
    }

    fn grow(&self, segment: &Segment) {
        // Held to the end: the directory has one writer.
        let mut segments = self.segments.lock().expect("no invariant broke in an earlier call");
        let range = segment.range();
        let publish = |new: Segment| {
            let (number, owned) = (*segments, new.range());
            *segments += 1;
            self.arena.set(number, new);
            let mut directory = self.directory.load_full();
            if directory.len().ilog2() < owned.depth {
                directory = Arc::new(doubled(&directory));
                self.directory.store(Arc::clone(&directory));
            }
            let bits = directory.len().ilog2() - owned.depth;
            let first = (owned.prefix as usize) << bits;
            for place in &directory[first..first + (1 << bits)] {
                place.store(number, Ordering::Release);
            }
        };
        segment.grow(range, publish, |uid| hash(self.key, uid));
    }

    /// Takes away routes of dead slots in some buckets of a segment; tells `removed` the slot of
    /// each. What moves meanwhile moves into segments of higher numbers.
    pub(crate) fn sweep(
        &self,
        segment: u32,
        buckets: Range<usize>,
        is_dead: impl Fn(u16) -> bool,
        removed: impl FnMut(u16),
    ) -> Swept {
        let hash = |uid| hash(self.key, uid);
        let (start, end) = (buckets.start, buckets.end);
        let len = self.arena.get(segment).sweep(buckets, is_dead, hash, removed);
        let looked_at = end.min(len).saturating_sub(start);
        let next = match end < len {
            true => Some((segment, end)),
            false => (segment + 1 < self.segments()).then_some((segment + 1, 0)),
        };
        Swept { looked_at, next }
    }

    /// Every route, in no order.
    pub(crate) fn all(&self) -> Vec<(u64, u16)> {
        let owned = |segment: &Segment| {
            let range = segment.range();
            let all = segment.all().into_iter();
            all.filter(move |(uid, _)| range.owns(hash(self.key, *uid))).collect::<Vec<_>>()
        };
        (0..self.segments()).flat_map(|number| owned(self.arena.get(number))).collect()
    }

    /// The same again, while nobody changes it.
    pub(crate) fn copy(&self) -> Self {
        let segments = self.segments.lock().expect("no invariant broke in an earlier call");
        let arena = Arena { chunks: [const { OnceLock::new() }; CHUNKS] };
        for number in 0..*segments {
            arena.set(number, self.arena.get(number).copy());
        }
        let places = self.directory.load();
        let places = places.iter().map(|place| place.load(Ordering::Relaxed));
        let directory: Directory = places.map(AtomicU32::new).collect();
        let directory = ArcSwap::from_pointee(directory);
        Self { key: self.key, arena, directory, segments: Mutex::new(*segments) }
    }

    fn segments(&self) -> u32 {
        *self.segments.lock().expect("no invariant broke in an earlier call")
    }
}

fn doubled(directory: &Directory) -> Directory {
    let twice = directory.iter().flat_map(|place| [place.load(Ordering::Relaxed); 2]);
    twice.map(AtomicU32::new).collect()
}

impl View<'_> {
    #[inline]
    fn segment(&self, hash: u64) -> &Segment {
        let bits = self.directory.len().ilog2();
        let at = hash.checked_shr(u64::BITS - bits).unwrap_or(0) as usize;
        self.map.arena.get(self.directory[at].load(Ordering::Acquire))
    }

    /// Appends each slot of the UID, once, by its hash.
    #[inline]
    pub(crate) fn find(&self, uid: u64, hash: u64, slots: &mut Vec<u16>) {
        let before = slots.len();
        // Who reads two buckets may meet a route twice that was taken out and put back meanwhile.
        let mut told = |slot| {
            if !slots[before..].contains(&slot) {
                slots.push(slot);
            }
        };
        if self.segment(hash).find(hash, uid, &mut told) {
            return;
        }
        self.find_again(hash, uid, before, slots);
    }

    /// A split came between: the directory is asked for anew.
    #[cold]
    fn find_again(&self, hash: u64, uid: u64, before: usize, slots: &mut Vec<u16>) {
        loop {
            slots.truncate(before);
            let view = self.map.view();
            let mut told = |slot| {
                if !slots[before..].contains(&slot) {
                    slots.push(slot);
                }
            };
            if view.segment(hash).find(hash, uid, &mut told) {
                return;
            }
        }
    }

    /// Asks for the lines of these hashes, all at the same time.
    #[inline]
    pub(crate) fn touch(&self, hashes: impl Iterator<Item = u64>) -> u64 {
        hashes.fold(0, |sum, hash| sum ^ self.segment(hash).touch(hash))
    }
}

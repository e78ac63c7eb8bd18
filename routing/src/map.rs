//! UID -> slots, for one namespace, shared by all shards: readers never wait, writers wait for
//! those of the same group, and growth is one small step after the other.
//!
//! Extendible hashing (R. Fagin et al., *Extendible Hashing: A Fast Access Method for Dynamic
//! Files*, 1979): the highest bits of a UID's keyed hash choose a group by a directory, the next
//! ones a block in it, the lowest ones a bucket. A full group becomes two; when only one place of
//! the directory led to it, the directory doubles first.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place is chosen by the highest bits of a hash"
)]

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

mod block;
mod bucket;
mod group;
#[cfg(all(test, loom))]
mod orders;
mod shape;
#[cfg(all(test, not(loom)))]
mod tests;

use waybill_wire::digest::mix;

use crate::sync::{ArcSwap, AtomicU32, Guard, Mutex, spin_loop};
use group::{Added, Group};

/// Chunks of the arena; chunk k has 2^k groups, so that none ever moves.
const CHUNKS: usize = 24;

/// Groups by their numbers. They are only ever added.
#[derive(Debug, Default)]
struct Arena {
    chunks: [OnceLock<Box<[OnceLock<Group>]>>; CHUNKS],
}

/// Which group each highest bits of a hash belong to.
type Directory = Box<[AtomicU32]>;

/// The map.
#[derive(Debug)]
pub(crate) struct Map {
    key: u64,
    arena: Arena,
    directory: ArcSwap<Directory>,
    /// How many groups there are; held while one is added.
    groups: Mutex<u32>,
}

/// How far a sweep came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Swept {
    pub(crate) looked_at: usize,
    /// Where to go on: group and bucket; `None` at the end of the map.
    pub(crate) next: Option<(u32, usize)>,
}

/// The map for a batch of look-ups: the directory is asked for once.
pub(crate) struct View<'a> {
    map: &'a Map,
    directory: Guard<Arc<Directory>>,
}

impl Arena {
    fn place(number: u32) -> (usize, usize) {
        let chunk = (number + 1).ilog2();
        (chunk as usize, (number + 1 - (1 << chunk)) as usize)
    }

    #[inline]
    fn get(&self, number: u32) -> &Group {
        let (chunk, at) = Self::place(number);
        let chunk = self.chunks[chunk].get().expect("a number in a directory has its group");
        chunk[at].get().expect("a number in a directory has its group")
    }

    fn set(&self, number: u32, group: Group) {
        let (chunk, at) = Self::place(number);
        let groups = || (0..1usize << chunk).map(|_| OnceLock::new()).collect();
        let set = self.chunks[chunk].get_or_init(groups)[at].set(group);
        assert!(set.is_ok(), "a number is given once");
    }
}

/// Keyed and bijective, so that nobody can choose UIDs that lie in one place: two rounds of the
/// finaliser of SplitMix64 with the key between them.
#[inline]
pub(crate) fn hash(key: u64, uid: u64) -> u64 {
    mix(mix(uid ^ key).wrapping_add(key.rotate_left(32)))
}

impl Map {
    /// An empty map. `key` is to be drawn at random, so that nobody knows it.
    pub(crate) fn new(key: u64) -> Self {
        let arena = Arena::default();
        arena.set(0, Group::first());
        let directory: Directory = Box::new([AtomicU32::new(0)]);
        Self { key, arena, directory: ArcSwap::from_pointee(directory), groups: Mutex::new(1) }
    }

    /// What its hashes are keyed with.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    #[inline]
    fn hash(&self, uid: u64) -> u64 {
        hash(self.key, uid)
    }

    /// For a batch of look-ups.
    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        View { map: self, directory: self.directory.load() }
    }

    /// Adds a route; whether it is new.
    pub(crate) fn add(&self, uid: u64, slot: u16) -> bool {
        let hash = self.hash(uid);
        loop {
            let view = self.view();
            let group = view.group(hash);
            match group.add(hash, uid, slot, |uid| self.hash(uid)) {
                Added::New { is_full } => {
                    if is_full {
                        self.replace(group);
                    }
                    return true;
                }
                Added::Already => return false,
                Added::NotHere => spin_loop(),
            }
        }
    }

    /// Takes a route away; whether it was there.
    pub(crate) fn remove(&self, uid: u64, slot: u16) -> bool {
        let hash = self.hash(uid);
        loop {
            let view = self.view();
            let removed = view.group(hash).remove(hash, uid, slot, |uid| self.hash(uid));
            if let Some(removed) = removed {
                return removed;
            }
            spin_loop();
        }
    }

    fn replace(&self, group: &Group) {
        // Held to the end: the directory has one writer.
        let mut groups = self.groups.lock().expect("no invariant broke in an earlier call");
        let Some((new, writing)) = group.successors(|uid| self.hash(uid)) else { return };
        let first = *groups;
        for group in new {
            self.arena.set(*groups, group);
            *groups += 1;
        }
        let numbers = first..*groups;
        let held: Vec<_> = numbers.clone().map(|number| self.arena.get(number).hold()).collect();
        for number in numbers {
            let (prefix, depth) = self.arena.get(number).shape().range();
            self.lead(prefix, depth, number);
        }
        group.end(writing);
        drop(held);
    }

    /// The directory leads to a group for hashes that begin so. For who holds `groups`.
    fn lead(&self, prefix: u64, depth: u32, number: u32) {
        let mut directory = self.directory.load_full();
        if directory.len().ilog2() < depth {
            directory = Arc::new(doubled(&directory));
            self.directory.store(Arc::clone(&directory));
        }
        let bits = directory.len().ilog2() - depth;
        let first = usize::try_from(prefix << bits).expect("a place in memory");
        for place in &directory[first..first + (1 << bits)] {
            place.store(number, Ordering::Release);
        }
    }

    /// Takes away routes of dead slots in some buckets of a group; tells `removed` the slot of
    /// each. What moves meanwhile moves into groups of higher numbers, or later buckets.
    pub(crate) fn sweep(
        &self,
        group: u32,
        buckets: Range<usize>,
        is_dead: impl Fn(u16) -> bool,
        removed: impl FnMut(u16),
    ) -> Swept {
        let (start, end) = (buckets.start, buckets.end);
        let len = self.arena.get(group).sweep(buckets, is_dead, |uid| self.hash(uid), removed);
        let looked_at = end.min(len).saturating_sub(start);
        let next = match end < len {
            true => Some((group, end)),
            false => (group + 1 < self.groups()).then_some((group + 1, 0)),
        };
        Swept { looked_at, next }
    }

    /// Every route, in no order.
    pub(crate) fn all(&self) -> Vec<(u64, u16)> {
        (0..self.groups()).flat_map(|number| self.arena.get(number).all()).collect()
    }

    /// The same again, while nobody changes it.
    pub(crate) fn copy(&self) -> Self {
        let groups = self.groups.lock().expect("no invariant broke in an earlier call");
        let arena = Arena::default();
        (0..*groups).for_each(|number| arena.set(number, self.arena.get(number).copy()));
        let places = self.directory.load();
        let places = places.iter().map(|place| place.load(Ordering::Relaxed));
        let directory: Directory = places.map(AtomicU32::new).collect();
        let directory = ArcSwap::from_pointee(directory);
        Self { key: self.key, arena, directory, groups: Mutex::new(*groups) }
    }

    /// How many buckets there are.
    #[cfg(test)]
    fn buckets(&self) -> usize {
        (0..self.groups()).map(|number| self.arena.get(number).buckets()).sum()
    }

    fn groups(&self) -> u32 {
        *self.groups.lock().expect("no invariant broke in an earlier call")
    }
}

fn doubled(directory: &Directory) -> Directory {
    let twice = directory.iter().flat_map(|place| [place.load(Ordering::Relaxed); 2]);
    twice.map(AtomicU32::new).collect()
}

impl View<'_> {
    #[inline]
    fn group(&self, hash: u64) -> &Group {
        let bits = self.directory.len().ilog2();
        let at = hash.checked_shr(u64::BITS - bits).unwrap_or(0) as usize;
        self.map.arena.get(self.directory[at].load(Ordering::Acquire))
    }

    /// Asks for the lines of these hashes, all at the same time.
    #[inline]
    pub(crate) fn touch(&self, hashes: impl Iterator<Item = u64>) -> u64 {
        hashes.fold(0, |sum, hash| sum ^ self.group(hash).touch(hash))
    }

    /// Appends each slot of the UID, once, by its hash. `slots` is empty.
    #[inline]
    pub(crate) fn find(&self, uid: u64, hash: u64, slots: &mut Vec<u16>) {
        if !self.group(hash).find(hash, uid, |slot| tell_once(slots, slot)) {
            self.find_all(hash, uid, slots);
        }
    }

    /// There is more to look at, or something moved.
    #[cold]
    fn find_all(&self, hash: u64, uid: u64, slots: &mut Vec<u16>) {
        loop {
            slots.clear();
            // The directory is asked for anew: a group may have been replaced.
            let view = self.map.view();
            if view.group(hash).find(hash, uid, |slot| tell_once(slots, slot)) {
                return;
            }
            spin_loop();
        }
    }
}

/// Who reads two buckets may meet a route twice that was taken out and put back meanwhile.
#[inline]
fn tell_once(slots: &mut Vec<u16>, slot: u16) {
    if !slots.contains(&slot) {
        slots.push(slot);
    }
}

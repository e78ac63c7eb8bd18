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
use std::sync::Arc;
use std::sync::atomic::Ordering;

mod arena;
mod block;
mod blocks;
mod bucket;
mod ground;
mod group;
mod many;
#[cfg(all(test, loom))]
mod orders;
mod shape;
#[cfg(all(test, not(loom)))]
mod tests;

use waybill_wire::digest::mix;

use crate::sync::{ArcSwap, AtomicU32, Guard, Mutex, MutexGuard, own_value, size, spin_loop};
use crate::{Change, Op};
use arena::{Arena, Known};
use bucket::Glance;
use ground::Ground;
use group::{Added, Found, Group, Located, Writing};

/// Changes whose lines are asked for together: about as many as a core has under way at a time.
const TOGETHER: usize = 16;

/// Steps of growth that so many adds may take: groups have as many users, so that they grow at the
/// same time, and a batch would else meet five of them and more.
const STEPS: usize = 1;

/// Groups that are made at once, as a power of two.
const GROUPS_TOGETHER: u32 = size(5, 1, 0) as u32;

/// How to come to the group that each highest bits of a hash belong to.
#[derive(Debug)]
struct Directory {
    /// The way to each.
    places: Box<[AtomicU32]>,
    /// Those that it leads to.
    groups: Known<Group>,
}

/// The map.
#[derive(Debug)]
pub(crate) struct Map {
    ground: Ground,
    /// One under each number. They are only ever added.
    groups: Arena<Group>,
    directory: ArcSwap<Directory>,
    /// How many groups there are; held while one is added.
    number: Mutex<u32>,
}

/// The right to change a group that is being replaced, its successors and the directory.
struct Replacing<'a> {
    group: Writing<'a>,
    _successors: Vec<Writing<'a>>,
    /// The directory has one writer.
    _directory: MutexGuard<'a, u32>,
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

/// Keyed, so that nobody can choose UIDs that lie in one place: two products, each of which has its
/// halves folded into one another, the first by a factor that follows from the key.
#[inline]
pub(crate) fn hash(key: u64, uid: u64) -> u64 {
    // It is the same for all UIDs of a list, and worked out once.
    let factor = mix(key.wrapping_add(GOLDEN)) | 1;
    folded(folded(uid ^ key, factor) ^ key.rotate_left(32), GOLDEN)
}

/// The golden ratio's fraction, as of `SplitMix64`: an odd number without a pattern.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> u64::BITS) as u64
}

impl Map {
    /// An empty map. `key` is to be drawn at random, so that nobody knows it.
    pub(crate) fn new(key: u64) -> Self {
        let ground = Ground::new(key);
        let groups: Arena<Group> = Arena::new(GROUPS_TOGETHER);
        groups.make(0).begin(Group::first());
        let directory = Directory::new(Box::new([AtomicU32::new(groups.way(0))]), &groups, 1);
        let directory = ArcSwap::from_pointee(directory);
        Self { ground, groups, directory, number: Mutex::new(1) }
    }

    /// What its hashes are keyed with.
    pub(crate) fn key(&self) -> u64 {
        self.ground.key
    }

    #[inline]
    fn hash(&self, uid: u64) -> u64 {
        self.ground.hash(uid)
    }

    fn group(&self, number: u32) -> &Group {
        self.groups.at(number)
    }

    /// For a batch of look-ups.
    #[inline]
    pub(crate) fn view(&self) -> View<'_> {
        View { map: self, directory: self.directory.load() }
    }

    /// Applies changes of one slot in their order; how many routes came and went.
    pub(crate) fn apply(&self, slot: u16, changes: &[Change]) -> (usize, usize) {
        let (view, mut added, mut removed) = (self.view(), 0, 0);
        for together in changes.chunks(TOGETHER) {
            let mut hashes = [0; TOGETHER];
            for (hash, change) in hashes.iter_mut().zip(together) {
                *hash = self.hash(change.uid.0);
            }
            let groups = view.groups(&hashes[..together.len()]);
            for (hash, group) in hashes.iter().zip(groups).take(together.len()) {
                group.locate(*hash);
            }
            let mut steps = STEPS;
            for ((change, hash), group) in together.iter().zip(hashes).zip(groups) {
                let user = (change.uid.0, hash);
                match change.op {
                    Op::Add => added += usize::from(self.add(group, user, slot, &mut steps)),
                    Op::Remove => removed += usize::from(self.remove(group, user, slot)),
                }
            }
        }
        (added, removed)
    }

    /// Adds a route, to a group that had the hash a moment ago; whether it is new.
    #[inline]
    fn add(&self, group: &Group, user: (u64, u64), slot: u16, steps: &mut usize) -> bool {
        let mut new = self.add_here(group, user, slot, steps);
        loop {
            if let Some(new) = new {
                return new;
            }
            spin_loop();
            new = self.add_here(self.view().group(user.1), user, slot, steps);
        }
    }

    /// Whether it is new; `None`, if the hash belongs to another group.
    #[inline]
    fn add_here(
        &self,
        group: &Group,
        user: (u64, u64),
        slot: u16,
        steps: &mut usize,
    ) -> Option<bool> {
        match group.add(&self.ground, user, slot, steps) {
            Added::New { is_full } => {
                if is_full {
                    self.replace(group);
                }
                Some(true)
            }
            Added::Already => Some(false),
            Added::NotHere => None,
        }
    }

    /// Takes a route away; whether it was there.
    fn remove(&self, group: &Group, (uid, hash): (u64, u64), slot: u16) -> bool {
        let mut removed = group.remove(&self.ground, hash, uid, slot);
        loop {
            if let Some(removed) = removed {
                return removed;
            }
            spin_loop();
            removed = self.view().group(hash).remove(&self.ground, hash, uid, slot);
        }
    }

    fn replace(&self, group: &Group) {
        if let Some(Replacing { group: writing, _successors, _directory }) =
            self.begin_to_replace(group)
        {
            group.end(&self.ground, writing);
        }
    }

    /// Everybody is led to those that take a group's place, and waits there, and here, until it is
    /// over.
    fn begin_to_replace<'a>(&'a self, group: &'a Group) -> Option<Replacing<'a>> {
        let mut number = self.number.lock().expect("no invariant broke in an earlier call");
        let (heirs, writing) = group.successors(&self.ground)?;
        let first = *number;
        for heir in heirs {
            self.groups.make(*number).begin(heir);
            *number += 1;
        }
        let numbers = first..*number;
        let held = numbers.clone().map(|number| self.group(number).hold()).collect();
        for number in numbers {
            let (prefix, depth) = self.group(number).shape().range();
            self.lead(prefix, depth, number);
        }
        Some(Replacing { group: writing, _successors: held, _directory: number })
    }

    /// The directory leads to a group for hashes that begin so. For who holds `number`.
    fn lead(&self, prefix: u64, depth: u32, number: u32) {
        let mut directory = own_value(&self.directory);
        if directory.places.len().ilog2() < depth {
            let ways = directory.places.iter().map(|place| place.load(Ordering::Relaxed));
            let twice = ways.flat_map(|way| [way; 2]).map(AtomicU32::new).collect();
            directory = Arc::new(Directory::new(twice, &self.groups, number));
            self.directory.store(Arc::clone(&directory));
        }
        directory.groups.know(&self.groups, number);
        let bits = directory.places.len().ilog2() - depth;
        let first = usize::try_from(prefix << bits).expect("a place in memory");
        for place in &directory.places[first..first + (1 << bits)] {
            place.store(self.groups.way(number), Ordering::Release);
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
        // It may be another map by now than the one where a sweep began.
        if group >= self.groups() {
            return Swept { looked_at: 0, next: None };
        }
        let (start, end) = (buckets.start, buckets.end);
        let len = self.group(group).sweep(&self.ground, buckets, is_dead, removed);
        let looked_at = end.min(len).saturating_sub(start);
        let next = match end < len {
            true => Some((group, end)),
            false => (group + 1 < self.groups()).then_some((group + 1, 0)),
        };
        Swept { looked_at, next }
    }

    /// Every route, in no order.
    pub(crate) fn all(&self) -> Vec<(u64, u16)> {
        (0..self.groups()).flat_map(|number| self.group(number).all()).collect()
    }

    /// The same again, while nobody changes it.
    pub(crate) fn copy(&self) -> Self {
        let number = *self.number.lock().expect("no invariant broke in an earlier call");
        let ground = Ground::new(self.ground.key);
        let groups: Arena<Group> = Arena::new(GROUPS_TOGETHER);
        (0..number).for_each(|number| groups.make(number).begin(self.group(number).copy()));
        let directory = self.directory.load();
        let ways = directory.places.iter().map(|place| place.load(Ordering::Relaxed));
        let directory = Directory::new(ways.map(AtomicU32::new).collect(), &groups, number);
        let directory = ArcSwap::from_pointee(directory);
        Self { ground, groups, directory, number: Mutex::new(number) }
    }

    /// How many buckets there are.
    #[cfg(all(test, not(loom)))]
    fn buckets(&self) -> usize {
        (0..self.groups()).map(|number| self.group(number).buckets()).sum()
    }

    /// How many routes lie in another bucket than their home.
    #[cfg(all(test, not(loom)))]
    fn away(&self) -> u64 {
        (0..self.groups()).map(|number| self.group(number).away()).sum()
    }

    fn groups(&self) -> u32 {
        *self.number.lock().expect("no invariant broke in an earlier call")
    }
}

impl Directory {
    /// One with these places, which knows of so many groups.
    fn new(places: Box<[AtomicU32]>, arena: &Arena<Group>, number: u32) -> Self {
        // Each place has a group at most, each of which but the first came with another one when
        // one was replaced; those of a small map came alone.
        let most = 2 * (places.len() + blocks::SMALL);
        let groups = arena.known(u32::try_from(most).expect("a number of groups"));
        groups.know(arena, number - 1);
        Self { places, groups }
    }

    /// The group that has a hash.
    #[inline(always)]
    fn group(&self, hash: u64) -> &Group {
        // In two steps: of one place, no bit counts.
        let shift = u64::BITS - 1 - self.places.len().ilog2();
        let place = &self.places[(hash >> 1 >> shift) as usize];
        self.groups.at(place.load(Ordering::Acquire))
    }
}

impl View<'_> {
    #[inline(always)]
    fn group(&self, hash: u64) -> &Group {
        self.directory.group(hash)
    }

    /// The groups of some hashes, whose lines are asked for; one at least, `TOGETHER` at most.
    #[inline]
    fn groups(&self, hashes: &[u64]) -> [&Group; TOGETHER] {
        let mut groups = [self.group(hashes[0]); TOGETHER];
        for (group, hash) in groups.iter_mut().zip(hashes) {
            *group = self.group(*hash);
            group.ask();
        }
        groups
    }

    /// The slots of one user: nothing is asked for ahead.
    #[inline(always)]
    pub(crate) fn find_one<'a>(&self, user: (u64, u64), slots: &'a mut Vec<u16>) -> Slots<'a> {
        let located = self.group(user.1).locate(user.1);
        let home = located.glance(user.0);
        match home {
            Some(home) if home.is_lone() && located.holds() => Slots::One(home.slot()),
            home => self.slots((&located, home), user, slots),
        }
    }

    /// The slots of a user whose home is seen so.
    #[inline(always)]
    fn slots<'a>(
        &self,
        (located, home): (&Located<'_>, Option<Glance>),
        (uid, hash): (u64, u64),
        slots: &'a mut Vec<u16>,
    ) -> Slots<'a> {
        match located.find(hash, uid, home) {
            Found::Lone(slot) => Slots::One(slot),
            Found::Nobody => Slots::Some(&[]),
            Found::Unclear => Slots::Some(self.find_all(*located, (uid, hash), slots)),
        }
    }

    /// There is more to look at, or something moved.
    #[cold]
    fn find_all<'a>(
        &self,
        located: Located<'_>,
        (uid, hash): (u64, u64),
        slots: &'a mut Vec<u16>,
    ) -> &'a [u16] {
        slots.clear();
        let mut is_found = located.find_all(hash, uid, slots);
        while !is_found {
            spin_loop();
            slots.clear();
            // The directory is asked for anew: a group may have been replaced.
            let view = self.map.view();
            let located = view.group(hash).locate(hash);
            is_found = located.find_all(hash, uid, slots);
        }
        slots
    }
}

/// Slots of a user.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slots<'a> {
    /// What nearly all have.
    One(u16),
    /// Each once.
    Some(&'a [u16]),
}

impl Slots<'_> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u16] {
        match self {
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Some(slots) => slots,
        }
    }
}

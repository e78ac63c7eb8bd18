//! Buckets that belong to one range of hashes. A small segment is followed by one twice its size; a
//! large one is split in two: that is how a map grows without ever standing still.
//!
//! One writer at a time, by the lock; readers take none. What is to move is copied, the copy is
//! published, then this segment owns less, and only then what has moved is cleared. So a reader
//! that may have seen something cleared sees as well that the hash is not owned here any more, and
//! looks again.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a place is chosen by the lowest bits of a hash"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard};

use arc_swap::ArcSwapOption;

use super::bucket::{Bucket, ENTRIES};

/// Buckets of the first segment of a map: a tenant of a few users takes half a kilobyte.
pub(super) const BUCKETS_MIN: usize = 8;

/// Buckets of a segment that is split rather than followed by a larger one. 256 KiB: what is copied
/// then is done in less than a millisecond, and lies in a core's second cache meanwhile.
const BUCKETS_MAX: usize = 4_096;

/// Part of a segment's places that may be taken: beyond, too many routes would lie outside their
/// home.
const LOAD_MAX: f64 = 0.85;

/// Below this part a bucket without room is an accident, or a user on very many gateways, and no
/// reason to grow.
const LOAD_SPARSE: f64 = 0.4;

/// Users with more routes than their buckets take.
type Crowd = BTreeMap<u64, BTreeSet<u16>>;

/// Which hashes a segment holds: those that begin with the lowest `depth` bits of `prefix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) prefix: u64,
    pub(super) depth: u32,
}

/// A segment of a table.
#[derive(Debug)]
pub(super) struct Segment {
    buckets: Box<[Bucket]>,
    /// [`Owned`] as a word.
    range: AtomicU64,
    crowd: ArcSwapOption<Crowd>,
    /// How many routes its buckets have; held by who writes.
    routes: Mutex<usize>,
}

/// What became of a route that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is new.
    New,
    /// It was there.
    Already,
    /// The hash belongs to another segment now.
    NotHere,
    /// There is no room: the segment is to be split.
    Full,
}

impl Owned {
    /// Of a segment that another one has followed.
    const NOTHING: Self = Self { prefix: 1, depth: u64::BITS };

    fn word(self) -> u64 {
        self.prefix << 8 | u64::from(self.depth)
    }

    fn of(word: u64) -> Self {
        Self { prefix: word >> 8, depth: (word & 0xff) as u32 }
    }

    /// Whether a hash begins so.
    pub(super) fn owns(self, hash: u64) -> bool {
        match self.depth {
            0 => true,
            u64::BITS => false,
            depth => hash >> (u64::BITS - depth) == self.prefix,
        }
    }

    /// Its two halves.
    fn halves(self) -> [Self; 2] {
        [0, 1].map(|bit| Self { prefix: self.prefix << 1 | bit, depth: self.depth + 1 })
    }
}

impl Segment {
    /// An empty one. `buckets` is a power of two.
    pub(super) fn new(range: Owned, buckets: usize) -> Self {
        let buckets = (0..buckets).map(|_| Bucket::default()).collect();
        let (range, crowd) = (AtomicU64::new(range.word()), ArcSwapOption::empty());
        Self { buckets, range, crowd, routes: Mutex::new(0) }
    }

    /// What it owns. Only the writer may rely on it staying so.
    pub(super) fn range(&self) -> Owned {
        Owned::of(self.range.load(Ordering::Acquire))
    }

    /// Asks for the line where a hash's routes lie.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u64 {
        self.buckets[self.home(hash)].touch()
    }

    /// Tells `found` each slot of the UID; whether this segment owns the hash, else it was told
    /// nothing that counts.
    #[inline]
    pub(super) fn find(&self, hash: u64, uid: u64, mut found: impl FnMut(u16)) -> bool {
        let at = self.home(hash);
        let seen = self.buckets[at].see();
        seen.of(uid).for_each(&mut found);
        if seen.spilled() > 0 {
            self.next(at).see().of(uid).for_each(&mut found);
        }
        if seen.is_crowded()
            && let Some(crowd) = &*self.crowd.load()
        {
            crowd.get(&uid).into_iter().flatten().copied().for_each(&mut found);
        }
        fence(Ordering::Acquire);
        Owned::of(self.range.load(Ordering::Relaxed)).owns(hash)
    }

    /// Adds a route.
    pub(super) fn add(&self, hash: u64, uid: u64, slot: u16) -> Added {
        let mut routes = self.lock();
        if !self.range().owns(hash) {
            return Added::NotHere;
        }
        let mut there = false;
        self.find(hash, uid, |found| there |= found == slot);
        if there {
            return Added::Already;
        }
        let load = *routes as f64 / (self.buckets.len() * ENTRIES) as f64;
        if load < LOAD_MAX && self.put(hash, uid, slot) {
            *routes += 1;
            return Added::New;
        }
        if load >= LOAD_SPARSE {
            return Added::Full;
        }
        self.put_crowded(hash, uid, slot);
        Added::New
    }

    /// Takes a route away; whether it was there, or `None` if the hash belongs to another segment.
    pub(super) fn remove(&self, hash: u64, uid: u64, slot: u16) -> Option<bool> {
        let mut routes = self.lock();
        if !self.range().owns(hash) {
            return None;
        }
        if self.take(hash, uid, slot) {
            *routes -= 1;
            return Some(true);
        }
        Some(self.take_crowded(hash, uid, slot))
    }

    /// Makes room: `publish` puts a new segment where readers look, with half of this one's hashes
    /// or all of them. Does nothing if somebody else has done so since it owned `range`.
    pub(super) fn grow(
        &self,
        range: Owned,
        publish: impl FnOnce(Segment),
        hash: impl Fn(u64) -> u64,
    ) {
        let mut routes = self.lock();
        if self.range() != range {
            return;
        }
        let buckets = self.buckets.len();
        let [lower, upper] = range.halves();
        let (left, new) = match buckets < BUCKETS_MAX {
            true => (Owned::NOTHING, Self::new(range, 2 * buckets)),
            false => (lower, Self::new(upper, buckets)),
        };
        let owned = new.range();
        let moving: Vec<(u64, u16)> =
            self.all().into_iter().filter(|(uid, _)| owned.owns(hash(*uid))).collect();
        for &(uid, slot) in &moving {
            match new.put(hash(uid), uid, slot) {
                true => *new.lock() += 1,
                false => new.put_crowded(hash(uid), uid, slot),
            }
        }
        publish(new);
        self.range.store(left.word(), Ordering::Release);
        for &(uid, slot) in &moving {
            match self.take(hash(uid), uid, slot) {
                true => *routes -= 1,
                false => assert!(self.take_crowded(hash(uid), uid, slot), "it was seen above"),
            }
        }
    }

    /// Takes away the routes of dead slots in these buckets, and with the last ones those of the
    /// crowd; tells `removed` the slot of each. How many buckets there are.
    pub(super) fn sweep(
        &self,
        buckets: Range<usize>,
        is_dead: impl Fn(u16) -> bool,
        hash: impl Fn(u64) -> u64,
        mut removed: impl FnMut(u16),
    ) -> usize {
        let mut routes = self.lock();
        let len = self.buckets.len();
        for at in buckets.start.min(len)..buckets.end.min(len) {
            self.buckets[at].sweep(&is_dead, |uid, slot| {
                let home = self.home(hash(uid));
                // The line being changed is another: this one was read as a whole before.
                if home != at {
                    self.buckets[home].spill(false);
                }
                *routes -= 1;
                removed(slot);
            });
        }
        if buckets.end >= len {
            self.sweep_crowd(is_dead, removed);
        }
        len
    }

    fn sweep_crowd(&self, is_dead: impl Fn(u16) -> bool, mut removed: impl FnMut(u16)) {
        let crowded = self.crowd.load();
        let Some(crowd) = crowded.as_deref() else { return };
        if crowd.values().flatten().any(|slot| is_dead(*slot)) {
            self.change_crowd(|crowd| {
                crowd.retain(|_, slots| {
                    slots.retain(|slot| {
                        let dead = is_dead(*slot);
                        if dead {
                            removed(*slot);
                        }
                        !dead
                    });
                    !slots.is_empty()
                });
                true
            });
        }
    }

    /// The same again, while nobody changes it.
    pub(super) fn copy(&self) -> Self {
        let routes = self.lock();
        Self {
            buckets: self.buckets.iter().map(Bucket::copy).collect(),
            range: AtomicU64::new(self.range().word()),
            crowd: ArcSwapOption::new(self.crowd.load_full()),
            routes: Mutex::new(*routes),
        }
    }

    /// Every route in it, in no order. Of a segment that is being changed some may be missing.
    pub(super) fn all(&self) -> Vec<(u64, u16)> {
        let mut all: Vec<(u64, u16)> = Vec::new();
        for bucket in &self.buckets {
            all.extend(bucket.see().all());
        }
        if let Some(crowd) = &*self.crowd.load() {
            all.extend(
                crowd.iter().flat_map(|(uid, slots)| slots.iter().map(|slot| (*uid, *slot))),
            );
        }
        all
    }

    /// Into its bucket or the next one; whether there was room.
    fn put(&self, hash: u64, uid: u64, slot: u16) -> bool {
        let at = self.home(hash);
        if self.buckets[at].put(uid, slot) {
            return true;
        }
        let spilled = self.next(at).put(uid, slot);
        if spilled {
            self.buckets[at].spill(true);
        }
        spilled
    }

    /// Out of its bucket or the next one; whether it was there.
    fn take(&self, hash: u64, uid: u64, slot: u16) -> bool {
        let at = self.home(hash);
        if self.buckets[at].take(uid, slot) {
            return true;
        }
        let taken = self.buckets[at].see().spilled() > 0 && self.next(at).take(uid, slot);
        if taken {
            self.buckets[at].spill(false);
        }
        taken
    }

    fn put_crowded(&self, hash: u64, uid: u64, slot: u16) {
        self.buckets[self.home(hash)].crowd(true);
        self.change_crowd(|crowd| crowd.entry(uid).or_default().insert(slot));
    }

    /// Out of the crowd. A bucket stays marked: another of its users may be in there.
    fn take_crowded(&self, hash: u64, uid: u64, slot: u16) -> bool {
        let there = |crowd: &Crowd| crowd.get(&uid).is_some_and(|slots| slots.contains(&slot));
        let is_there = self.buckets[self.home(hash)].see().is_crowded()
            && self.crowd.load().as_deref().is_some_and(there);
        if is_there {
            self.change_crowd(|crowd| {
                let slots = crowd.get_mut(&uid).expect("it is there");
                slots.remove(&slot);
                if slots.is_empty() {
                    crowd.remove(&uid);
                }
                true
            });
        }
        is_there
    }

    /// A changed copy takes the crowd's place: there are few in it.
    fn change_crowd(&self, change: impl FnOnce(&mut Crowd) -> bool) {
        let mut crowd = self.crowd.load().as_deref().cloned().unwrap_or_default();
        change(&mut crowd);
        self.crowd.store((!crowd.is_empty()).then(|| Arc::new(crowd)));
    }

    /// The lowest bits of a hash choose the bucket; the highest ones choose the segment.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn next(&self, at: usize) -> &Bucket {
        &self.buckets[(at + 1) & (self.buckets.len() - 1)]
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.routes.lock().expect("no invariant broke in an earlier call")
    }
}

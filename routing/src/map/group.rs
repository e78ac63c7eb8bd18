//! A few blocks that share a range of hashes, and grow by one block at a time: so that a table is
//! never much larger than what is in it, and each step of growth is a small one.
//!
//! Each of `n` blocks has an n-th part of the range. Another block takes what the last one gives
//! it, then each gives to the one behind it, step by step, until each of `n + 1` has its part: the
//! idea of partial expansions (P.-A. Larson, *Dynamic Hash Tables*, 1988) and of B*-trees, that
//! shares which grow by less than double waste less. A full group becomes two, which share its
//! blocks out and copy nothing.
//!
//! One writer at a time, by the lock; readers take none. What is to move is copied, then `shape`
//! says where it is from now on, and only then what has moved is cleared. A reader looks at the
//! shape before and after: if it is another one, it looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::block::{Block, Put};
use super::bucket::ENTRIES;
use super::shape::{BLOCKS_MAX, Shape};
use crate::sync::{ArcSwapOption, AtomicU64, Mutex, MutexGuard, fence, own, size};

/// Buckets of the first block of a map: a tenant of a few users takes little.
const BUCKETS_MIN: usize = size(8, 2, 1);

/// Buckets of a block, once a map has more than a few. 16 KiB: what moves in a step lies in a
/// core's first cache meanwhile.
const BUCKETS_MAX: usize = size(256, 4, 2);

/// Part of the places that may be taken before another block is added: beyond, too many routes
/// would lie far from their home.
const LOAD_MAX: f64 = 0.85;

/// Users with more routes than their buckets take.
type Crowd = BTreeMap<u64, BTreeSet<u16>>;

/// A group of a table.
#[derive(Debug)]
pub(super) struct Group {
    /// [`Shape`] as a word.
    shape: AtomicU64,
    blocks: [OnceLock<Block>; BLOCKS_MAX],
    crowd: ArcSwapOption<Crowd>,
    /// How many routes each block has; held by who writes.
    routes: Mutex<[usize; BLOCKS_MAX]>,
}

/// The right to change a group.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    routes: MutexGuard<'a, [usize; BLOCKS_MAX]>,
}

/// What became of a route that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is new; whether the group has to be replaced by larger ones now.
    New { is_full: bool },
    /// It was there.
    Already,
    /// The hash belongs to another group now.
    NotHere,
}

impl Group {
    /// The first of a map.
    pub(super) fn first() -> Self {
        Self::of(Shape::first(), [Block::new(BUCKETS_MIN)])
    }

    fn of(shape: Shape, blocks: impl IntoIterator<Item = Block>) -> Self {
        let group = Self {
            shape: AtomicU64::new(shape.word()),
            blocks: [const { OnceLock::new() }; BLOCKS_MAX],
            crowd: ArcSwapOption::empty(),
            routes: Mutex::default(),
        };
        for (place, block) in group.blocks.iter().zip(blocks) {
            place.set(block).expect("each place is met once");
        }
        group
    }

    /// Where it keeps what, as a reader finds it.
    #[inline]
    fn seen_shape(&self) -> Shape {
        Shape::of(self.shape.load(Ordering::Acquire))
    }

    /// Where it keeps what, for who writes or keeps others from it.
    pub(super) fn shape(&self) -> Shape {
        Shape::of(own(&self.shape))
    }

    /// Asks for the line where a hash's routes lie.
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> u64 {
        let shape = self.seen_shape();
        if shape.owns(hash) { self.block(shape.block(hash)).touch(hash) } else { 0 }
    }

    /// Tells `found` each slot of the UID; whether this group owns the hash and nothing moved
    /// meanwhile, else it was told nothing that counts.
    #[inline]
    pub(super) fn find(&self, hash: u64, uid: u64, mut found: impl FnMut(u16)) -> bool {
        let shape = self.seen_shape();
        if !shape.owns(hash) {
            return false;
        }
        let home = self.block(shape.block(hash)).find(hash, uid, &mut found);
        if home.is_crowded()
            && let Some(crowd) = &*self.crowd.load()
        {
            crowd.get(&uid).into_iter().flatten().copied().for_each(&mut found);
        }
        fence(Ordering::Acquire);
        self.shape.load(Ordering::Relaxed) == shape.word()
    }

    /// Adds a route, and does a step of growth if one is due. `hash_of` is that of any UID.
    pub(super) fn add(
        &self,
        hash: u64,
        uid: u64,
        slot: u16,
        hash_of: impl Fn(u64) -> u64,
    ) -> Added {
        let mut routes = self.lock();
        let shape = self.shape();
        if !shape.owns(hash) {
            return Added::NotHere;
        }
        let at = shape.block(hash);
        if self.is_in_crowd(at, hash, uid, slot) {
            return Added::Already;
        }
        match self.block(at).put(hash, uid, slot) {
            Put::Already => return Added::Already,
            Put::New => routes[at] += 1,
            Put::NoRoom => self.put_crowded(at, hash, uid, slot),
        }
        let is_full = match shape.is_growing() || self.is_loaded(shape, &routes) {
            true if shape.is_growing() || self.has_place(shape) => {
                self.move_on(shape, &mut routes, hash_of);
                false
            }
            is_loaded => is_loaded,
        };
        Added::New { is_full }
    }

    /// Takes a route away; whether it was there, or `None` if the hash belongs to another group.
    pub(super) fn remove(
        &self,
        hash: u64,
        uid: u64,
        slot: u16,
        hash_of: impl Fn(u64) -> u64,
    ) -> Option<bool> {
        let mut routes = self.lock();
        let shape = self.shape();
        if !shape.owns(hash) {
            return None;
        }
        let at = shape.block(hash);
        if self.block(at).take(hash, uid, slot, &hash_of) {
            routes[at] -= 1;
            return Some(true);
        }
        Some(self.take_crowded(at, hash, uid, slot))
    }

    fn is_loaded(&self, shape: Shape, routes: &[usize; BLOCKS_MAX]) -> bool {
        let places = shape.blocks() * self.block(0).len() * ENTRIES;
        let taken: usize = routes[..shape.blocks()].iter().sum();
        taken as f64 >= LOAD_MAX * places as f64
    }

    /// Whether it grows by a block of its own, rather than be replaced.
    fn has_place(&self, shape: Shape) -> bool {
        self.block(0).len() == BUCKETS_MAX && shape.blocks() < BLOCKS_MAX
    }

    /// One step of growth: a block gives what the one behind it is to have.
    fn move_on(
        &self,
        shape: Shape,
        routes: &mut [usize; BLOCKS_MAX],
        hash_of: impl Fn(u64) -> u64,
    ) {
        let (from, next) = shape.step();
        let to = from + 1;
        let source = self.block(from);
        let target = self.blocks[to].get_or_init(|| Block::new(BUCKETS_MAX));
        let goes = |uid: u64| next.block(hash_of(uid)) == to;
        let moving = source.routes(0..source.len()).filter(|(uid, _)| goes(*uid));
        for (uid, slot) in moving {
            match target.put(hash_of(uid), uid, slot) {
                Put::New | Put::Already => routes[to] += 1,
                Put::NoRoom => self.put_crowded(to, hash_of(uid), uid, slot),
            }
        }
        if let Some(crowd) = &*self.crowd.load() {
            let crowded = crowd.keys().map(|uid| hash_of(*uid));
            crowded.filter(|hash| next.owns_at(*hash, to)).for_each(|hash| target.crowd(hash));
        }
        self.shape.store(next.word(), Ordering::Release);
        let all = 0..source.len();
        source.take_all(all, |uid, _| goes(uid), &hash_of, |_, _| routes[from] -= 1);
    }

    /// Those that are to take its place for good, if it is still full: two with half of the blocks
    /// each, or while a map is small one with a block of twice the size. Nobody writes to it until
    /// what is returned with them is given to [`Group::end`].
    pub(super) fn successors(
        &self,
        hash_of: impl Fn(u64) -> u64,
    ) -> Option<(Vec<Self>, Writing<'_>)> {
        let writing = self.hold();
        let (shape, routes) = (self.shape(), &writing.routes);
        let is_full = !shape.is_over() && !shape.is_growing() && self.is_loaded(shape, routes);
        if !is_full || self.has_place(shape) {
            return None;
        }
        let new = match shape.blocks() {
            BLOCKS_MAX => self.halves(shape, routes, hash_of),
            _ => vec![self.doubled(shape, hash_of)],
        };
        Some((new, writing))
    }

    /// Its successors have its place: whoever comes here is sent to them. Until then nobody may
    /// write to them either: their blocks may be the same, and a reader here would not notice that
    /// something moved.
    pub(super) fn end(&self, writing: Writing<'_>) {
        self.shape.store(self.shape().over().word(), Ordering::Release);
        drop(writing);
    }

    /// Nobody writes to it as long as this is kept.
    pub(super) fn hold(&self) -> Writing<'_> {
        Writing { routes: self.lock() }
    }

    fn halves(
        &self,
        shape: Shape,
        routes: &[usize; BLOCKS_MAX],
        hash_of: impl Fn(u64) -> u64,
    ) -> Vec<Self> {
        let half = BLOCKS_MAX / 2;
        let of = |(at, shape): (usize, Shape)| {
            let blocks = (at * half..(at + 1) * half).map(|at| self.block(at).clone());
            let group = Self::of(shape, blocks);
            group.lock()[..half].copy_from_slice(&routes[at * half..(at + 1) * half]);
            if let Some(crowd) = &*self.crowd.load() {
                let here = crowd.iter().filter(|(uid, _)| shape.owns(hash_of(**uid)));
                group.set_crowd(here.map(|(uid, slots)| (*uid, slots.clone())).collect());
            }
            group
        };
        (0..).zip(shape.halves()).map(of).collect()
    }

    fn doubled(&self, shape: Shape, hash_of: impl Fn(u64) -> u64) -> Self {
        let source = self.block(0);
        let group = Self::of(shape.doubled(), [Block::new(2 * source.len())]);
        let crowd = self.crowd.load().as_deref().cloned().unwrap_or_default();
        let crowded = crowd.iter().flat_map(|(uid, slots)| slots.iter().map(|slot| (*uid, *slot)));
        for (uid, slot) in source.routes(0..source.len()).chain(crowded) {
            match group.block(0).put(hash_of(uid), uid, slot) {
                Put::New | Put::Already => group.lock()[0] += 1,
                Put::NoRoom => group.put_crowded(0, hash_of(uid), uid, slot),
            }
        }
        group
    }

    /// Takes away the routes of dead slots in these buckets, counted over all blocks, and with the
    /// last ones those of the crowd; tells `removed` the slot of each. How many buckets there are.
    pub(super) fn sweep(
        &self,
        buckets: std::ops::Range<usize>,
        is_dead: impl Fn(u16) -> bool,
        hash_of: impl Fn(u64) -> u64,
        mut removed: impl FnMut(u16),
    ) -> usize {
        let mut routes = self.lock();
        let shape = self.shape();
        if shape.is_over() {
            return 0;
        }
        let len = self.block(0).len();
        for at in 0..shape.blocks_in_use() {
            let (start, end) = (at * len, (at + 1) * len);
            let here =
                buckets.start.clamp(start, end) - start..buckets.end.clamp(start, end) - start;
            self.block(at).take_all(
                here,
                |_, slot| is_dead(slot),
                &hash_of,
                |_, slot| {
                    routes[at] -= 1;
                    removed(slot);
                },
            );
        }
        let all = len * shape.blocks_in_use();
        if buckets.end >= all {
            self.sweep_crowd(is_dead, removed);
        }
        all
    }

    fn sweep_crowd(&self, is_dead: impl Fn(u16) -> bool, mut removed: impl FnMut(u16)) {
        let mut crowd = self.crowd.load().as_deref().cloned().unwrap_or_default();
        if !crowd.values().flatten().any(|slot| is_dead(*slot)) {
            return;
        }
        for slots in crowd.values_mut() {
            slots.extract_if(.., |slot| is_dead(*slot)).for_each(&mut removed);
        }
        crowd.retain(|_, slots| !slots.is_empty());
        self.set_crowd(crowd);
    }

    /// The same again, while nobody changes it.
    pub(super) fn copy(&self) -> Self {
        let routes = self.lock();
        let blocks = (0..self.shape().blocks_in_use()).map(|at| self.block(at).copy());
        let group = Self::of(self.shape(), blocks);
        *group.lock() = *routes;
        group.crowd.store(self.crowd.load_full());
        group
    }

    /// Every route in it, in no order.
    pub(super) fn all(&self) -> Vec<(u64, u16)> {
        let _nobody_writes = self.lock();
        let blocks = (0..self.shape().blocks_in_use()).map(|at| self.block(at));
        let mut all: Vec<_> = blocks.flat_map(|block| block.routes(0..block.len())).collect();
        if let Some(crowd) = &*self.crowd.load()
            && !self.shape().is_over()
        {
            all.extend(
                crowd.iter().flat_map(|(uid, slots)| slots.iter().map(|slot| (*uid, *slot))),
            );
        }
        all
    }

    /// How many buckets it has.
    #[cfg(test)]
    pub(super) fn buckets(&self) -> usize {
        self.shape().blocks_in_use() * self.block(0).len()
    }

    fn put_crowded(&self, at: usize, hash: u64, uid: u64, slot: u16) {
        self.block(at).crowd(hash);
        let mut crowd = self.crowd.load().as_deref().cloned().unwrap_or_default();
        crowd.entry(uid).or_default().insert(slot);
        self.set_crowd(crowd);
    }

    fn is_in_crowd(&self, at: usize, hash: u64, uid: u64, slot: u16) -> bool {
        let there = |crowd: &Crowd| crowd.get(&uid).is_some_and(|slots| slots.contains(&slot));
        self.block(at).is_crowded(hash) && self.crowd.load().as_deref().is_some_and(there)
    }

    /// Out of the crowd. A bucket stays marked: another of its users may be in there.
    fn take_crowded(&self, at: usize, hash: u64, uid: u64, slot: u16) -> bool {
        let is_there = self.is_in_crowd(at, hash, uid, slot);
        if is_there {
            let mut crowd = self.crowd.load().as_deref().cloned().unwrap_or_default();
            let slots = crowd.get_mut(&uid).expect("it is there");
            slots.remove(&slot);
            if slots.is_empty() {
                crowd.remove(&uid);
            }
            self.set_crowd(crowd);
        }
        is_there
    }

    /// A changed copy takes the crowd's place: there are few in it.
    fn set_crowd(&self, crowd: Crowd) {
        self.crowd.store((!crowd.is_empty()).then(|| Arc::new(crowd)));
    }

    #[inline]
    fn block(&self, at: usize) -> &Block {
        self.blocks[at].get().expect("a shape names blocks that are there")
    }

    fn lock(&self) -> MutexGuard<'_, [usize; BLOCKS_MAX]> {
        self.routes.lock().expect("no invariant broke in an earlier call")
    }
}

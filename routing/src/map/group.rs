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
//! shape before and after: if it is another one, it looks again. A reader of many users looks at
//! the map's count of moves in its place (`ground.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use super::block::{Block, Put};
use super::blocks::{BUCKETS_MAX, Kept, Large, buckets_of};
use super::bucket::{Bucket, ENTRIES, Glance};
use super::ground::Ground;
use super::shape::{self, BLOCKS_MAX, Shape, heirloom};
use crate::ahead;
use crate::sync::{ArcSwapOption, Mutex, MutexGuard, Own as _, Word64, fence, own_value};

/// Part of the places that may be taken before another block is added, in percent: beyond, too many
/// routes would lie far from their home.
const LOAD_MAX: usize = 85;

/// Users with more routes than their buckets take.
type Crowd = BTreeMap<u64, BTreeSet<u16>>;

/// How many routes each block has: at most six in each of 256 buckets.
type Routes = [u16; BLOCKS_MAX];

/// What who writes knows of a group.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    routes: Routes,
    /// A sweep stands in the middle of the blocks: nothing may move to where it has been. A walk
    /// that ends here leaves it so until the next one, or until two groups take its place.
    is_half_swept: bool,
}

/// A group of a table: first what readers need.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Group {
    /// [`Shape`] as a word; that of a group that is over until it begins.
    shape: Word64,
    /// Its blocks, each there before the shape says so. In the group itself, so that from the shape
    /// to a bucket there is one step.
    blocks: [OnceLock<Arc<Large>>; BLOCKS_MAX],
    /// The only one it has, while a map is small.
    small: OnceLock<Arc<[Bucket]>>,
    /// Held by who writes.
    tally: Mutex<Tally>,
    crowd: ArcSwapOption<Crowd>,
}

/// What a group is made of.
#[derive(Debug)]
pub(super) struct Heir {
    shape: Shape,
    blocks: Vec<Kept>,
    tally: Tally,
    crowd: Crowd,
}

/// Where the routes of a hash lie, unless its group has another shape by now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located<'a> {
    group: &'a Group,
    /// The group's shape.
    word: u64,
    /// None, if the hash belongs to another group, or the block is a small one; with the home.
    block: Option<(&'a Large, &'a Bucket)>,
}

/// What was found of a UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The one slot it has.
    Lone(u16),
    /// It has none.
    Nobody,
    /// It may have several, or something moved: it has to be looked for closely.
    Unclear,
}

/// The right to change a group.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    tally: MutexGuard<'a, Tally>,
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

impl Default for Group {
    fn default() -> Self {
        Self {
            shape: Word64::new(Shape::first().over().word()),
            blocks: [const { OnceLock::new() }; BLOCKS_MAX],
            small: OnceLock::new(),
            tally: Mutex::default(),
            crowd: ArcSwapOption::empty(),
        }
    }
}

impl Located<'_> {
    /// What the home of a UID has of it; nothing, if there is no block of full size.
    #[inline(always)]
    pub(super) fn glance(&self, uid: u64) -> Option<Glance> {
        self.block.map(|(_, home)| home.glance(uid))
    }

    /// What there is of a UID whose home is seen so.
    #[inline(always)]
    pub(super) fn find(&self, hash: u64, uid: u64, home: Option<Glance>) -> Found {
        let found = match (self.block, home) {
            (Some((block, _)), Some(home)) => block.block().find_one(hash, uid, home),
            _ => self.find_small(hash, uid),
        };
        if self.holds() { found } else { Found::Unclear }
    }

    /// What there is of a UID where there is no block of full size.
    #[inline(never)]
    fn find_small(&self, hash: u64, uid: u64) -> Found {
        let find = |block: Block<'_>| block.find_one(hash, uid, block.glance(hash, uid));
        self.small().map_or(Found::Unclear, find)
    }

    /// The only block, of less than full size.
    fn small(&self) -> Option<Block<'_>> {
        let small = self.group.small.get().filter(|_| shape::is_small(self.word));
        small.map(|small| Block::of(small))
    }

    fn block(&self) -> Option<Block<'_>> {
        self.block.map(|(block, _)| block.block()).or_else(|| self.small())
    }

    /// Appends each slot of the UID, once; whether that counts. `slots` is empty.
    pub(super) fn find_all(self, hash: u64, uid: u64, slots: &mut Vec<u16>) -> bool {
        let Some(block) = self.block() else { return false };
        // Who reads two buckets may meet a route twice that was taken out and put back meanwhile.
        let mut tell_once = |slot| {
            if !slots.contains(&slot) {
                slots.push(slot);
            }
        };
        let home = block.find(hash, uid, &mut tell_once);
        if home.is_crowded()
            && let Some(crowd) = &*self.group.crowd.load()
        {
            crowd.get(&uid).into_iter().flatten().copied().for_each(tell_once);
        }
        self.holds()
    }

    /// The most that looking for a hash here looks at: buckets, and the crowd.
    #[cfg(all(test, not(loom)))]
    pub(super) fn looks(self, hash: u64) -> usize {
        let block = self.block().expect("nothing moves meanwhile");
        let home = block.find(hash, u64::MAX, |_| {});
        1 + home.reach() + usize::from(home.is_crowded())
    }

    /// Whether nothing has moved since it was located.
    #[inline(always)]
    pub(super) fn holds(&self) -> bool {
        fence(Ordering::Acquire);
        self.group.shape.load(Ordering::Relaxed) == self.word
    }
}

impl Group {
    /// What the first group of a map is made of.
    pub(super) fn first() -> Heir {
        let shape = Shape::first();
        let blocks = vec![Kept::new(shape.doublings())];
        Heir { shape, blocks, tally: Tally::default(), crowd: Crowd::new() }
    }

    /// It is made of this. Nobody knows of it yet.
    pub(super) fn begin(&self, heir: Heir) {
        let Heir { shape, blocks, tally, crowd } = heir;
        blocks.into_iter().enumerate().for_each(|(at, block)| self.keep(at, block));
        *self.lock() = tally;
        if !crowd.is_empty() {
            self.set_crowd(crowd);
        }
        self.shape.store(shape.word(), Ordering::Release);
    }

    /// What the same again is made of, while nobody changes it.
    pub(super) fn copy(&self) -> Heir {
        let (shape, tally) = (self.shape(), *self.lock());
        let kept = (0..shape.blocks_in_use()).map(|at| self.kept(at));
        let blocks = kept.map(|kept| kept.copy(shape.doublings())).collect();
        Heir { shape, blocks, tally, crowd: self.crowd() }
    }

    /// Where it keeps what, for who writes or keeps others from it.
    pub(super) fn shape(&self) -> Shape {
        Shape::of(self.shape.own())
    }

    /// Asks for the line with what readers need.
    #[inline]
    pub(super) fn ask(&self) {
        ahead::ask(&self.shape);
    }

    /// The block of full size that has a hash, if one has that is the group's.
    #[inline(always)]
    pub(super) fn block_of(&self, hash: u64) -> Option<&Large> {
        self.block_by(self.shape.load(Ordering::Acquire), hash)
    }

    /// The same, as the word of a shape has it. Who was led here has a hash that is the group's, as
    /// long as it has any.
    #[inline(always)]
    fn block_by(&self, word: u64, hash: u64) -> Option<&Large> {
        let block = self.blocks.get(shape::block_of(word, hash)).and_then(OnceLock::get);
        block.map(|block| &**block)
    }

    /// Where the routes of a hash lie, whose line is asked for.
    #[inline]
    pub(super) fn locate(&self, hash: u64) -> Located<'_> {
        let word = self.shape.load(Ordering::Acquire);
        let block = self.block_by(word, hash).map(|block| (block, block.block().ask(hash)));
        Located { group: self, word, block }
    }

    /// Adds a route, and does a step of growth if one is due and `steps` says that it may; else it
    /// is for one of the next adds.
    #[inline]
    pub(super) fn add(
        &self,
        ground: &Ground,
        (uid, hash): (u64, u64),
        slot: u16,
        steps: &mut usize,
    ) -> Added {
        let mut tally = self.lock();
        let shape = self.shape();
        if !shape.owns(hash) {
            return Added::NotHere;
        }
        let at = shape.block(hash);
        let block = self.block(at);
        if self.is_in_crowd(block, hash, uid, slot) {
            return Added::Already;
        }
        match block.put(hash, uid, slot) {
            Put::Already => return Added::Already,
            Put::New => tally.routes[at] += 1,
            Put::NoRoom => self.put_crowded(block, hash, uid, slot),
        }
        let is_full = match shape.is_growing() || is_loaded(shape, &tally.routes) {
            true if shape.is_growing() || has_place(shape) => {
                if *steps > 0 {
                    *steps -= 1;
                    self.move_on(ground, shape, &mut tally);
                }
                false
            }
            is_loaded => is_loaded,
        };
        Added::New { is_full }
    }

    /// Takes a route away; whether it was there, or `None` if the hash belongs to another group.
    pub(super) fn remove(&self, ground: &Ground, hash: u64, uid: u64, slot: u16) -> Option<bool> {
        let mut tally = self.lock();
        let shape = self.shape();
        if !shape.owns(hash) {
            return None;
        }
        let at = shape.block(hash);
        let block = self.block(at);
        if block.take(hash, uid, slot, |uid| ground.hash(uid)) {
            tally.routes[at] -= 1;
            return Some(true);
        }
        Some(self.take_crowded(block, hash, uid, slot))
    }

    /// One step of growth: another block is made, or a block gives what others are to have, and
    /// pulls home who found no room there before.
    fn move_on(&self, ground: &Ground, shape: Shape, tally: &mut Tally) {
        if !shape.is_growing() {
            self.keep(shape.blocks(), Kept::new(shape.doublings()));
            self.shape.store(shape.begun().word(), Ordering::Release);
            return;
        }
        let (from, next) = shape.step();
        let (source, routes) = (self.block(from), &mut tally.routes);
        // A bit for each entry that goes, and for each that stays and is not at home.
        let (mut going, mut strays) = ([0_u8; BUCKETS_MAX], [0_u8; BUCKETS_MAX]);
        let both = going.iter_mut().zip(&mut strays);
        for (at, (bucket, (going, strays))) in source.buckets().iter().zip(both).enumerate() {
            for (entry, uid, slot) in bucket.own().entries() {
                let hash = ground.hash(uid);
                let to = next.block(hash);
                if to == from {
                    *strays |= u8::from(source.home(hash) != at) << entry;
                } else {
                    *going |= 1 << entry;
                    let target = self.block(to);
                    match target.put(hash, uid, slot) {
                        Put::New | Put::Already => routes[to] += 1,
                        Put::NoRoom => self.put_crowded(target, hash, uid, slot),
                    }
                }
            }
        }
        for uid in self.crowd.load().iter().flat_map(|crowd| crowd.keys()) {
            let hash = ground.hash(*uid);
            self.block(next.block(hash)).crowd(hash);
        }
        self.shape.store(next.word(), Ordering::Release);
        ground.moved();
        for (at, going) in going.into_iter().enumerate().filter(|(_, going)| *going != 0) {
            source.clear(at, going.into(), |uid| ground.hash(uid));
            routes[from] -= u16::try_from(going.count_ones()).expect("eight bits at most");
        }
        if !tally.is_half_swept {
            for (at, strays) in strays.into_iter().enumerate().filter(|(_, strays)| *strays != 0) {
                source.pull(at, strays.into(), |uid| ground.hash(uid));
            }
        }
    }

    /// What is to take its place for good, if it is still full: two with half of the blocks each,
    /// or while a map is small one with a block of twice the size. Nobody writes to it until what
    /// is returned with them is given to [`Group::end`].
    pub(super) fn successors(&self, ground: &Ground) -> Option<(Vec<Heir>, Writing<'_>)> {
        let writing = self.hold();
        let (shape, routes) = (self.shape(), &writing.tally.routes);
        let is_full = !shape.is_over() && !shape.is_growing() && is_loaded(shape, routes);
        if !is_full || has_place(shape) {
            return None;
        }
        let new = match shape.blocks() {
            BLOCKS_MAX => self.halves(ground, shape, routes),
            _ => vec![self.doubled(ground, shape)],
        };
        Some((new, writing))
    }

    /// Its successors have its place: whoever comes here is sent to them. Until then nobody may
    /// write to them either: their blocks may be the same, and a reader here would not notice that
    /// something moved.
    pub(super) fn end(&self, ground: &Ground, writing: Writing<'_>) {
        self.shape.store(self.shape().over().word(), Ordering::Release);
        ground.moved();
        drop(writing);
    }

    /// Nobody writes to it as long as this is kept.
    pub(super) fn hold(&self) -> Writing<'_> {
        Writing { tally: self.lock() }
    }

    fn halves(&self, ground: &Ground, shape: Shape, routes: &Routes) -> Vec<Heir> {
        let crowd = self.crowd();
        let of = |(half, shape): (usize, Shape)| {
            let from = (0..shape.blocks()).map(|at| heirloom(half, at));
            let blocks = from.clone().map(|at| self.kept(at)).collect();
            let here = crowd.iter().filter(|(uid, _)| shape.owns(ground.hash(**uid)));
            let crowd = here.map(|(uid, slots)| (*uid, slots.clone())).collect();
            let mut heir = Heir { shape, blocks, tally: Tally::default(), crowd };
            heir.tally.routes.iter_mut().zip(from).for_each(|(number, at)| *number = routes[at]);
            heir
        };
        (0..).zip(shape.halves()).map(of).collect()
    }

    fn doubled(&self, ground: &Ground, shape: Shape) -> Heir {
        let shape = shape.doubled();
        let kept = Kept::new(shape.doublings());
        let (source, target) = (self.block(0), kept.block());
        let (mut tally, mut left) = (Tally::default(), Crowd::new());
        let crowd = self.crowd();
        let crowded = crowd.iter().flat_map(|(uid, slots)| slots.iter().map(|slot| (*uid, *slot)));
        for (uid, slot) in source.routes().chain(crowded) {
            let hash = ground.hash(uid);
            match target.put(hash, uid, slot) {
                Put::New | Put::Already => tally.routes[0] += 1,
                Put::NoRoom => {
                    target.crowd(hash);
                    left.entry(uid).or_default().insert(slot);
                }
            }
        }
        Heir { shape, blocks: vec![kept], tally, crowd: left }
    }

    /// Takes away the routes of dead slots in these buckets, counted over all blocks, and with the
    /// last ones those of the crowd; tells `removed` the slot of each. How many buckets there are.
    pub(super) fn sweep(
        &self,
        ground: &Ground,
        buckets: Range<usize>,
        is_dead: impl Fn(u16) -> bool,
        mut removed: impl FnMut(u16),
    ) -> usize {
        let mut tally = self.lock();
        let shape = self.shape();
        if shape.is_over() {
            return 0;
        }
        let len = buckets_of(shape.doublings());
        for at in 0..shape.blocks_in_use() {
            let (start, end) = (at * len, (at + 1) * len);
            let here =
                buckets.start.clamp(start, end) - start..buckets.end.clamp(start, end) - start;
            let removed = |slot| {
                tally.routes[at] -= 1;
                removed(slot);
            };
            self.block(at).take_all(here, &is_dead, |uid| ground.hash(uid), removed);
        }
        let all = len * shape.blocks_in_use();
        tally.is_half_swept = buckets.end < all;
        if buckets.end >= all {
            self.sweep_crowd(is_dead, removed);
        }
        all
    }

    fn sweep_crowd(&self, is_dead: impl Fn(u16) -> bool, mut removed: impl FnMut(u16)) {
        let mut crowd = self.crowd();
        if !crowd.values().flatten().any(|slot| is_dead(*slot)) {
            return;
        }
        for slots in crowd.values_mut() {
            slots.extract_if(.., |slot| is_dead(*slot)).for_each(&mut removed);
        }
        crowd.retain(|_, slots| !slots.is_empty());
        self.set_crowd(crowd);
    }

    /// Every route in it, in no order.
    pub(super) fn all(&self) -> Vec<(u64, u16)> {
        let _nobody_writes = self.lock();
        let blocks = (0..self.shape().blocks_in_use()).map(|at| self.block(at));
        let mut all: Vec<_> = blocks.flat_map(Block::routes).collect();
        if !self.shape().is_over() {
            let crowd = self.crowd();
            all.extend(
                crowd.iter().flat_map(|(uid, slots)| slots.iter().map(|slot| (*uid, *slot))),
            );
        }
        all
    }

    fn put_crowded(&self, block: Block<'_>, hash: u64, uid: u64, slot: u16) {
        block.crowd(hash);
        let mut crowd = self.crowd();
        crowd.entry(uid).or_default().insert(slot);
        self.set_crowd(crowd);
    }

    fn is_in_crowd(&self, block: Block<'_>, hash: u64, uid: u64, slot: u16) -> bool {
        let there = |crowd: &Crowd| crowd.get(&uid).is_some_and(|slots| slots.contains(&slot));
        block.is_crowded(hash) && self.crowd.load().as_deref().is_some_and(there)
    }

    /// Out of the crowd. A bucket stays marked: another of its users may be in there.
    fn take_crowded(&self, block: Block<'_>, hash: u64, uid: u64, slot: u16) -> bool {
        let is_there = self.is_in_crowd(block, hash, uid, slot);
        if is_there {
            let mut crowd = self.crowd();
            let slots = crowd.get_mut(&uid).expect("it is there");
            slots.remove(&slot);
            if slots.is_empty() {
                crowd.remove(&uid);
            }
            self.set_crowd(crowd);
        }
        is_there
    }

    fn crowd(&self) -> Crowd {
        own_value(&self.crowd).as_deref().cloned().unwrap_or_default()
    }

    /// A changed copy takes the crowd's place: there are few in it.
    fn set_crowd(&self, crowd: Crowd) {
        self.crowd.store((!crowd.is_empty()).then(|| Arc::new(crowd)));
    }

    /// A block has its place. Each place is filled once.
    fn keep(&self, at: usize, block: Kept) {
        let is_kept = match block {
            Kept::Large(large) => self.blocks[at].set(large).is_ok(),
            Kept::Small(small) => self.small.set(small).is_ok(),
        };
        assert!(is_kept, "a group only ever takes blocks");
    }

    /// A block there is, to be shared.
    fn kept(&self, at: usize) -> Kept {
        match self.blocks[at].get() {
            Some(large) => Kept::Large(Arc::clone(large)),
            None => Kept::Small(Arc::clone(self.small.get().expect(THERE))),
        }
    }

    #[inline]
    fn block(&self, at: usize) -> Block<'_> {
        match self.blocks[at].get() {
            Some(large) => large.block(),
            None => Block::of(self.small.get().expect(THERE)),
        }
    }

    /// How many buckets it has that no other has.
    #[cfg(all(test, not(loom)))]
    pub(super) fn buckets(&self) -> usize {
        let small = self.small.get().map_or(0, |small| small.len());
        small + if small == 0 { self.shape().blocks_in_use() * BUCKETS_MAX } else { 0 }
    }

    /// How many routes lie in another bucket than their home; none, if others have its blocks.
    #[cfg(all(test, not(loom)))]
    pub(super) fn away(&self) -> u64 {
        let blocks = (0..self.shape().blocks_in_use()).map(|at| self.block(at));
        blocks
            .flat_map(Block::buckets)
            .map(|bucket| u64::from(bucket.own().state().spilled()))
            .sum()
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no invariant broke in an earlier call")
    }
}

const THERE: &str = "a shape speaks of blocks that there are";

fn is_loaded(shape: Shape, routes: &Routes) -> bool {
    let places = shape.blocks() * buckets_of(shape.doublings()) * ENTRIES;
    let taken: usize = routes[..shape.blocks()].iter().map(|routes| usize::from(*routes)).sum();
    taken * 100 >= LOAD_MAX * places
}

/// Whether it grows by a block of its own, rather than be replaced.
fn has_place(shape: Shape) -> bool {
    buckets_of(shape.doublings()) == BUCKETS_MAX && shape.blocks() < BLOCKS_MAX
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_readers_and_writers_need_is_in_three_lines() {
        assert_eq!(align_of::<Group>(), 64);
        assert!(std::mem::size_of::<Group>() <= 192);
    }
}

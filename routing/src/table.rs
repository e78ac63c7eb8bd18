//! The table behind [`Routes`](crate::Routes): slots, namespaces, and who holds a UID in each.
//!
//! Shared by all shards. Queries take no lock: they see the slots as a whole, by a view, and routes
//! one by one. Changes of one slot come one after the other. A route needs no generation, because
//! an index is free again only when nothing of its dead generation is left.

use std::collections::BTreeMap;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use waybill_wire::planted::{self, Bug};

use crate::slot::Step;
use crate::slots::{Slots, Standing};
use crate::spaces::{Held, Spaces};
use crate::sweep::{At, Stepped, Walk};
use crate::sync::{AtomicUsize, Mutex};
use crate::tags::TagIndex;
use crate::{
    Applied, Change, Counts, Limits, Namespace, Op, Slot, SlotError, SlotState, SweepProgress, Uid,
};

/// A table as a value: two with the same will answer alike for ever.
#[derive(PartialEq, Eq, Hash)]
pub(crate) struct Content {
    limits: Limits,
    key: u64,
    slots: Vec<Standing>,
    dead: Vec<u32>,
    routes: Vec<(Namespace, u64, u16)>,
    tags: Vec<(Namespace, String, u16)>,
    walk: Option<(Vec<u16>, At)>,
}

#[derive(Debug)]
pub(crate) struct Table {
    limits: Limits,
    key: u64,
    slots: Slots,
    tags: TagIndex,
    spaces: Spaces,
    /// In all slots, and adds that are under way.
    routes: AtomicUsize,
    walk: Mutex<Option<Walk>>,
}

impl Table {
    pub(crate) fn new(limits: Limits, key: u64) -> Self {
        Self {
            limits,
            key,
            slots: Slots::new(limits.slots),
            tags: TagIndex::new(key, limits.broker_tags),
            spaces: Spaces::new(key, limits.namespaces),
            routes: AtomicUsize::new(0),
            walk: Mutex::default(),
        }
    }

    /// The same again, while nobody changes anything.
    pub(crate) fn copy(&self) -> Self {
        let slots = self.slots.copy();
        let walk = self.walk.lock().expect("no invariant broke in an earlier call");
        let walk = walk.as_ref().map(|walk| walk.copy(&slots));
        Self {
            limits: self.limits,
            key: self.key,
            slots,
            tags: self.tags.copy(),
            spaces: self.spaces.copy(),
            routes: AtomicUsize::new(self.routes()),
            walk: Mutex::new(walk),
        }
    }

    /// What is in it, however it lies, and how far the sweep has come.
    pub(crate) fn content(&self) -> Content {
        let mut routes = Vec::with_capacity(self.routes());
        for (namespace, space) in self.spaces.all() {
            routes.extend(space.map.all().into_iter().map(|(uid, slot)| (namespace, uid, slot)));
        }
        routes.sort_unstable();
        let mut tags = self.tags.all();
        tags.sort_unstable();
        let walk = self.walk.lock().expect("no invariant broke in an earlier call");
        let walk = walk.as_ref().map(|walk| (walk.indices(), walk.at()));
        let (slots, dead) = self.slots.content();
        Content { limits: self.limits, key: self.key, slots, dead, routes, tags, walk }
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    pub(crate) fn tags(&self) -> &TagIndex {
        &self.tags
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    pub(crate) fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    pub(crate) fn apply(&self, slot: Slot, changes: &[Change]) -> Result<Applied, SlotError> {
        let holds = self.slots.holds(slot)?;
        let _one_at_a_time = holds.writing.lock().expect("no invariant broke in an earlier call");
        let state = self.slots.state(slot);
        if state == SlotState::Dead {
            return Err(SlotError::Dead);
        }
        if !state.takes_changes() {
            return Err(SlotError::Refused { state });
        }
        let spaces = self.spaces_of(changes)?;
        let adds = changes.iter().filter(|change| change.op == Op::Add).count();
        self.reserve(adds)?;
        let index = u16::try_from(slot.number()).expect("as many slots as a route can name");
        let mut applied = Applied::default();
        let parts = changes.chunk_by(|a, b| a.namespace == b.namespace);
        for (part, space) in parts.zip(spaces) {
            let Some(space) = space else { continue };
            let (added, removed) = space.map.apply(index, part);
            space.counted(index, added, removed);
            applied.added += added;
            applied.removed += removed;
        }
        holds.routes.fetch_add(applied.added, Ordering::AcqRel);
        holds.routes.fetch_sub(applied.removed, Ordering::AcqRel);
        self.routes.fetch_sub(adds - applied.added + applied.removed, Ordering::AcqRel);
        applied.unchanged = changes.len() - applied.added - applied.removed;
        Ok(applied)
    }

    /// Counts routes that are going to be added, if there may be so many.
    fn reserve(&self, adds: usize) -> Result<(), SlotError> {
        let limit = self.limits.routes;
        let fits = |routes: usize| (adds <= limit - routes.min(limit)).then_some(routes + adds);
        let reserved = self.routes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        reserved.map(|_| ()).map_err(|_| SlotError::RoutesFull { limit })
    }

    /// The namespace of each run of changes; none where nobody is, and nobody comes.
    fn spaces_of(&self, changes: &[Change]) -> Result<Vec<Option<Held<'_>>>, SlotError> {
        let parts = changes.chunk_by(|a, b| a.namespace == b.namespace);
        let spaces = parts.map(|part| match part.iter().any(|change| change.op == Op::Add) {
            true => self.spaces.hold(part[0].namespace).map(Some),
            false => Ok(self.spaces.hold_there(part[0].namespace)),
        });
        spaces.collect()
    }

    pub(crate) fn step(&self, slot: Slot, step: Step) -> Result<(), SlotError> {
        self.slots.step(slot, step)
    }

    /// At most one sweeps at a time; another one that comes meanwhile does nothing.
    pub(crate) fn sweep(&self, budget: usize) -> SweepProgress {
        let mut progress = SweepProgress::default();
        if planted::is(Bug::HalfSweptResume) {
            self.sweep_a_suspended();
        }
        match self.walk.try_lock() {
            Ok(walk) if walk.is_none() && !self.slots.has_dead() => return progress,
            Ok(mut walk) => self.sweep_on(&mut walk, budget, &mut progress),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Poisoned(_)) => panic!("an invariant broke in an earlier call"),
        }
        let counts = self.slots.counts();
        (progress.routes_left, progress.slots_left) = (counts.routes_dead, counts.slots_dead);
        progress
    }

    fn sweep_on(&self, walk: &mut Option<Walk>, budget: usize, progress: &mut SweepProgress) {
        if walk.is_none() {
            let dead = self.slots.dead();
            // Whoever had begun to change one when it died has to be done first.
            let quiet = dead.into_iter().filter(|(_, holds)| holds.writing.try_lock().is_ok());
            *walk = Some(Walk::new(quiet.collect()));
        }
        let walked = walk.as_mut().expect("it was begun above");
        let mut stepped = Stepped { budget, ..Stepped::default() };
        if !planted::is(Bug::ReusedSlot) {
            stepped = walked.step(&self.spaces, &self.tags, budget);
        }
        self.routes.fetch_sub(stepped.removed, Ordering::AcqRel);
        (progress.removed, progress.tags_removed) = (stepped.removed, stepped.tags_removed);
        if stepped.budget > 0 {
            let indices = walked.indices();
            progress.freed = indices.len();
            if !indices.is_empty() {
                self.slots.free(&indices);
            }
            *walk = None;
        }
    }

    /// A bug, planted to be found: what is only suspended is swept as well, so that a resume finds
    /// half of it.
    fn sweep_a_suspended(&self) {
        for (index, holds) in self.slots.suspended() {
            for (namespace, _) in self.spaces.all() {
                let Some(space) = self.spaces.hold_there(namespace) else { continue };
                let all = space.map.all().into_iter();
                let first = all.filter(|(_, slot)| *slot == index).min();
                let Some((uid, _)) = first else { continue };
                let remove = Change { op: Op::Remove, namespace, uid: Uid(uid) };
                if space.map.apply(index, &[remove]).1 > 0 {
                    space.counted(index, 0, 1);
                    holds.routes.fetch_sub(1, Ordering::AcqRel);
                    self.routes.fetch_sub(1, Ordering::AcqRel);
                    return;
                }
            }
        }
    }

    /// Panics unless slots, namespaces and routes say the same. Walks everything, and nobody may
    /// change anything meanwhile.
    pub(crate) fn invariants(&self) {
        let mut held: BTreeMap<u16, usize> = BTreeMap::new();
        assert_eq!(self.spaces.len(), self.spaces.all().len());
        for (_, space) in self.spaces.all() {
            assert!(space.routes() > 0, "somebody is in a namespace that is kept");
            let mut here: BTreeMap<u16, usize> = BTreeMap::new();
            let mut all = space.map.all();
            for (_, slot) in &all {
                *here.entry(*slot).or_default() += 1;
            }
            let routes = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), routes, "a route is there once");
            for (slot, count) in &here {
                assert_eq!(space.count(*slot), *count);
                *held.entry(*slot).or_default() += count;
            }
            assert!(here.keys().eq(space.inhabited().iter()));
        }
        assert_eq!(held.values().sum::<usize>(), self.routes());
        self.slots.invariants(&held, &self.tags.invariants());
    }

    pub(crate) fn routes(&self) -> usize {
        self.routes.load(Ordering::Acquire)
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts { routes: self.routes(), tags: self.tags.tags(), ..self.slots.counts() }
    }
}

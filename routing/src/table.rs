//! The table behind [`Routes`](crate::Routes): slots, what each holds, and who holds a UID.
//!
//! One owner, no lock. A route is (namespace, UID, slot index); it needs no generation, because an
//! index is free again only when nothing of its dead generation is left.
//!
//! Invariants: the directory holds exactly the union of what the slots hold; a free slot holds
//! nothing; `dead` lists the dead slots once each, in the order they died; `routes_dead` is what
//! they hold; no incarnation has two slots that are live or suspended.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use waybill_wire::planted::{self, Bug};

use crate::plan::PartSpan;
use crate::slot::Step;
use crate::{
    Applied, Change, Counts, Directory, Incarnation, Inserted, Limits, Namespace, Op, Removed,
    Slot, SlotError, SlotState, SweepProgress, Uid,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    limits: Limits,
    slots: Vec<Entry>,
    dead: VecDeque<u32>,
    directory: Directory,
    routes_dead: usize,
}

/// One slot index. `state` is `None` while it is free.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    /// Slots that died here: the generation of the one that is open, or of the next to open.
    generation: u64,
    incarnation: Incarnation,
    state: Option<SlotState>,
    /// What the slot registered, so that a sweep finds it without walking the directory.
    held: BTreeSet<(Namespace, Uid)>,
}

impl Table {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            dead: VecDeque::new(),
            directory: Directory::new(),
            routes_dead: 0,
        }
    }

    pub(crate) fn open(&mut self, incarnation: Incarnation) -> Result<Slot, SlotError> {
        let free = self.entries().find(|(_, entry)| entry.state.is_none());
        let (index, generation) = match free {
            Some((index, entry)) => (index, entry.generation),
            None => (self.grow()?, 0),
        };
        let entry = &mut self.slots[index as usize];
        let swept = entry.held.is_empty() || planted::is(Bug::ReusedSlot);
        assert!(swept, "an index is free only once it is swept");
        entry.incarnation = incarnation;
        entry.state = Some(SlotState::Filling);
        Ok(Slot::new(index, generation))
    }

    pub(crate) fn go_live(&mut self, slot: Slot, replaces: Option<Slot>) -> Result<(), SlotError> {
        let incarnation = self.entry(slot)?.incarnation;
        let state = self.state(slot).after(Step::GoLive)?;
        // One that died in the meantime is replaced already: what is asked for holds.
        let replaced = replaces.filter(|older| self.state(*older) != SlotState::Dead);
        if let Some(older) = replaced {
            if older == slot {
                return Err(SlotError::ReplacesItself);
            }
            if self.entry(older)?.incarnation != incarnation {
                return Err(SlotError::OtherIncarnation);
            }
        }
        match self.standing(incarnation) {
            Some(standing) if Some(standing) != replaced => {
                return Err(SlotError::NotReplaced { standing });
            }
            _ => {}
        }
        if let Some(older) = replaced {
            self.kill(older)?;
        }
        self.slots[slot.index()].state = Some(state);
        Ok(())
    }

    pub(crate) fn suspend(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.step(slot, Step::Suspend)
    }

    pub(crate) fn resume(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.step(slot, Step::Resume)
    }

    pub(crate) fn kill(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.step(slot, Step::Kill)?;
        let entry = &mut self.slots[slot.index()];
        entry.generation += 1;
        self.routes_dead += entry.held.len();
        self.dead.push_back(slot.number());
        Ok(())
    }

    pub(crate) fn apply(&mut self, slot: Slot, changes: &[Change]) -> Result<Applied, SlotError> {
        self.entry(slot)?;
        let state = self.state(slot);
        if !state.takes_changes() {
            return Err(SlotError::Refused { state });
        }
        let adds = changes.iter().filter(|change| change.op == Op::Add).count();
        if adds > self.limits.routes - self.directory.len() {
            return Err(SlotError::RoutesFull { limit: self.limits.routes });
        }
        let mut applied = Applied::default();
        for change in changes {
            match change.op {
                Op::Add => applied.added += usize::from(self.add(slot, change)),
                Op::Remove => applied.removed += usize::from(self.remove(slot, change)),
            }
        }
        applied.unchanged = changes.len() - applied.added - applied.removed;
        Ok(applied)
    }

    pub(crate) fn sweep(&mut self, budget: usize) -> SweepProgress {
        let mut progress = SweepProgress::default();
        if planted::is(Bug::HalfSweptResume) {
            self.sweep_a_suspended();
        }
        for _ in 0..budget {
            let Some(&index) = self.dead.front() else { break };
            let entry = &mut self.slots[index as usize];
            assert_eq!(entry.state, Some(SlotState::Dead), "only the dead are swept");
            if planted::is(Bug::ReusedSlot) {
                self.routes_dead -= entry.held.len();
                entry.state = None;
                self.dead.pop_front();
            } else if let Some((namespace, uid)) = entry.held.pop_first() {
                let removed = self.directory.remove(namespace, uid, index);
                assert_ne!(removed, Removed::Absent, "what a slot holds is in the directory");
                self.routes_dead -= 1;
                progress.removed += 1;
            } else {
                entry.state = None;
                self.dead.pop_front();
                progress.freed += 1;
            }
        }
        progress.routes_left = self.routes_dead;
        progress.slots_left = self.dead.len();
        progress
    }

    pub(crate) fn state(&self, slot: Slot) -> SlotState {
        self.entry(slot).ok().and_then(|entry| entry.state).unwrap_or(SlotState::Dead)
    }

    /// The incarnation's slot that is live or suspended.
    pub(crate) fn standing(&self, incarnation: Incarnation) -> Option<Slot> {
        self.entries().find_map(|(index, entry)| {
            let stands = matches!(entry.state, Some(SlotState::Live | SlotState::Suspended));
            let found = stands && entry.incarnation == incarnation;
            found.then(|| Slot::new(index, entry.generation))
        })
    }

    pub(crate) fn routes(&self) -> usize {
        self.directory.len()
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts {
            routes: self.directory.len(),
            routes_dead: self.routes_dead,
            ..Counts::default()
        };
        for entry in &self.slots {
            match entry.state {
                None => {}
                Some(SlotState::Filling) => counts.slots_filling += 1,
                Some(SlotState::Live) => counts.slots_live += 1,
                Some(SlotState::Suspended) => counts.slots_suspended += 1,
                Some(SlotState::Dead) => counts.slots_dead += 1,
            }
        }
        counts
    }

    /// Indices of the live slots that registered the UID.
    pub(crate) fn live_holders(
        &self,
        namespace: Namespace,
        uid: Uid,
    ) -> impl Iterator<Item = u32> + '_ {
        self.directory.members(namespace, uid).iter().copied().filter(|index| self.is_live(*index))
    }

    /// A whole part for every live slot.
    pub(crate) fn whole_live(&self) -> impl Iterator<Item = PartSpan> + '_ {
        let live = self.entries().filter(|(_, entry)| entry.state == Some(SlotState::Live));
        live.map(|(index, entry)| PartSpan { slot: Slot::new(index, entry.generation), uids: None })
    }

    /// A whole part for every live slot with a route in the namespace.
    pub(crate) fn whole_inhabited(
        &self,
        namespace: Namespace,
    ) -> impl Iterator<Item = PartSpan> + '_ {
        let live = self.directory.all(namespace).filter(|index| self.is_live(*index));
        live.map(|index| PartSpan { slot: self.handle(index), uids: None })
    }

    pub(crate) fn narrowed(&self, index: u32, uids: Range<usize>) -> PartSpan {
        assert!(!uids.is_empty(), "a gateway is involved only by a route");
        PartSpan { slot: self.handle(index), uids: Some(uids) }
    }

    /// Panics unless the invariants of this file hold. Walks everything.
    pub(crate) fn invariants(&self) {
        self.directory.invariants();
        let held: usize = self.slots.iter().map(|entry| entry.held.len()).sum();
        assert_eq!(held, self.directory.len());
        assert!(held <= self.limits.routes);
        assert!(self.slots.len() <= self.limits.slots as usize);
        let mut dead_routes = 0;
        for (index, entry) in self.entries() {
            for &(namespace, uid) in &entry.held {
                assert!(self.directory.members(namespace, uid).contains(&index));
            }
            let dead = entry.state == Some(SlotState::Dead);
            assert_eq!(self.dead.iter().filter(|dead| **dead == index).count(), usize::from(dead));
            match entry.state {
                None => assert!(entry.held.is_empty()),
                Some(SlotState::Dead) => dead_routes += entry.held.len(),
                Some(SlotState::Filling) => {}
                Some(SlotState::Live | SlotState::Suspended) => {
                    let standing = self.standing(entry.incarnation);
                    assert_eq!(standing, Some(self.handle(index)));
                }
            }
        }
        assert_eq!(dead_routes, self.routes_dead);
    }

    fn add(&mut self, slot: Slot, change: &Change) -> bool {
        let new = self.slots[slot.index()].held.insert((change.namespace, change.uid));
        let inserted = self.directory.insert(change.namespace, change.uid, slot.number());
        assert_eq!(new, inserted != Inserted::Already, "slot and directory agree");
        new
    }

    fn remove(&mut self, slot: Slot, change: &Change) -> bool {
        let held = self.slots[slot.index()].held.remove(&(change.namespace, change.uid));
        let removed = self.directory.remove(change.namespace, change.uid, slot.number());
        assert_eq!(held, removed != Removed::Absent, "slot and directory agree");
        held
    }

    /// A bug, planted to be found: what is only suspended is swept as well, so that a resume finds
    /// half of it.
    fn sweep_a_suspended(&mut self) {
        let is_kept = |entry: &Entry| entry.state == Some(SlotState::Suspended);
        let kept = self.slots.iter_mut().enumerate().filter(|(_, entry)| is_kept(entry));
        let found = kept.filter_map(|(index, entry)| Some((index, entry.held.pop_first()?))).next();
        if let Some((index, (namespace, uid))) = found {
            let index = u32::try_from(index).expect("slots are numbered by u32");
            self.directory.remove(namespace, uid, index);
        }
    }

    fn step(&mut self, slot: Slot, step: Step) -> Result<(), SlotError> {
        self.entry(slot)?;
        let state = self.state(slot).after(step)?;
        self.slots[slot.index()].state = Some(state);
        Ok(())
    }

    /// The entry a handle names, unless its generation is over or it is not from this table.
    fn entry(&self, slot: Slot) -> Result<&Entry, SlotError> {
        let entry = self.slots.get(slot.index()).ok_or(SlotError::Dead)?;
        let open = entry.generation == slot.generation() && entry.state.is_some();
        if open { Ok(entry) } else { Err(SlotError::Dead) }
    }

    fn grow(&mut self) -> Result<u32, SlotError> {
        let full = SlotError::SlotsFull { limit: self.limits.slots };
        let index = u32::try_from(self.slots.len()).map_err(|_| full)?;
        if index >= self.limits.slots {
            return Err(full);
        }
        self.slots.push(Entry {
            generation: 0,
            incarnation: Incarnation(0),
            state: None,
            held: BTreeSet::new(),
        });
        Ok(index)
    }

    fn entries(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..).zip(&self.slots)
    }

    fn is_live(&self, index: u32) -> bool {
        self.slots[index as usize].state == Some(SlotState::Live)
    }

    fn handle(&self, index: u32) -> Slot {
        Slot::new(index, self.slots[index as usize].generation)
    }
}

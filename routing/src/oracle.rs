//! The naive route table: the same meaning as [`Routes`](crate::Routes), by linear scans over lists
//! of tuples, so plain that it can be checked by reading. Tests and fuzzing compare with it.
//!
//! It shares the types of the interface and none of the code behind them.

pub mod selectors;
mod tags;

use waybill_wire::targets::UidRun;

use self::selectors::Tree;
use self::tags::Tags;
use crate::{
    Applied, Audience, Change, Counts, Incarnation, Limits, Mode, Namespace, Op, Part, Query,
    Routed, Slot, SlotError, SlotState, SweepProgress, TagChange, TagsApplied,
};

/// The naive table.
#[derive(Debug)]
pub struct Oracle {
    limits: Limits,
    /// Every slot ever opened, in order.
    slots: Vec<Record>,
    /// Every route held, swept ones gone.
    routes: Vec<(Slot, Namespace, u64)>,
    /// Dead and not swept, in order of death.
    dead: Vec<Slot>,
    /// Those of them that a sweep is under way for, and how many of their routes it removed: which
    /// ones is not known.
    walked: Vec<Slot>,
    gone: usize,
    tags: Tags,
}

#[derive(Debug)]
struct Record {
    slot: Slot,
    incarnation: Incarnation,
    state: SlotState,
}

/// The answer to one query, owned. `None` for a part that is whole.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Expected {
    /// Gateways in slot order with their UIDs.
    pub parts: Vec<(Slot, Option<Vec<u64>>)>,
    /// UIDs without a route to a live slot.
    pub offline: Vec<u64>,
    /// UIDs taken out by the except list, then those with a route to live slots that can have no
    /// match only.
    pub filtered: Vec<u64>,
    /// UIDs with a route to live slots of which one can have a match and another can't.
    pub filtered_in_part: Vec<u64>,
    /// Count of UIDs with a route to a live slot.
    pub reached: usize,
    /// Count of UIDs not looked up.
    pub unresolved: usize,
}

impl From<Routed<'_>> for Expected {
    fn from(routed: Routed<'_>) -> Self {
        let own = |(slot, part)| match part {
            Part::Uids(uids) => (slot, Some(uids.to_vec())),
            Part::Whole => (slot, None),
        };
        Self {
            parts: routed.parts().map(own).collect(),
            offline: routed.offline().to_vec(),
            filtered: routed.filtered().to_vec(),
            filtered_in_part: routed.filtered_in_part().to_vec(),
            reached: routed.reached(),
            unresolved: routed.unresolved(),
        }
    }
}

#[expect(missing_docs, reason = "each method means what its namesake in Routes means")]
impl Oracle {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            routes: Vec::new(),
            dead: Vec::new(),
            walked: Vec::new(),
            gone: 0,
            tags: Tags::default(),
        }
    }

    pub fn open(&mut self, incarnation: Incarnation) -> Result<Slot, SlotError> {
        for index in 0..self.limits.slots {
            let here = |slot: &Slot| slot.index() == index as usize;
            let used = self.slots.iter().any(|record| {
                here(&record.slot)
                    && (record.state != SlotState::Dead || self.dead.contains(&record.slot))
            });
            if !used {
                let past = self.slots.iter().filter(|record| here(&record.slot)).count();
                let slot = Slot::new(index, past as u64);
                let state = SlotState::Filling;
                self.slots.push(Record { slot, incarnation, state });
                return Ok(slot);
            }
        }
        Err(SlotError::SlotsFull { limit: self.limits.slots })
    }

    pub fn go_live(&mut self, slot: Slot, replaces: Option<Slot>) -> Result<(), SlotError> {
        self.require(slot, &[SlotState::Filling])?;
        let replaces = replaces.filter(|older| self.state(*older) != SlotState::Dead);
        if replaces == Some(slot) {
            return Err(SlotError::ReplacesItself);
        }
        let incarnation = self.incarnation(slot);
        if replaces.is_some_and(|older| self.incarnation(older) != incarnation) {
            return Err(SlotError::OtherIncarnation);
        }
        for record in &self.slots {
            let stands = matches!(record.state, SlotState::Live | SlotState::Suspended);
            let same = Some(record.incarnation) == incarnation;
            if stands && same && replaces != Some(record.slot) {
                return Err(SlotError::NotReplaced { standing: record.slot });
            }
        }
        if let Some(older) = replaces {
            self.kill(older)?;
        }
        self.become_state(slot, SlotState::Live);
        Ok(())
    }

    pub fn suspend(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.require(slot, &[SlotState::Live])?;
        self.become_state(slot, SlotState::Suspended);
        Ok(())
    }

    pub fn resume(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.require(slot, &[SlotState::Suspended])?;
        self.become_state(slot, SlotState::Live);
        Ok(())
    }

    pub fn kill(&mut self, slot: Slot) -> Result<(), SlotError> {
        self.require(slot, &[SlotState::Filling, SlotState::Live, SlotState::Suspended])?;
        self.become_state(slot, SlotState::Dead);
        self.dead.push(slot);
        Ok(())
    }

    pub fn apply(&mut self, slot: Slot, changes: &[Change]) -> Result<Applied, SlotError> {
        self.require(slot, &[SlotState::Filling, SlotState::Live, SlotState::Suspended])?;
        let adds = changes.iter().filter(|change| change.op == Op::Add).count();
        if self.routes.len() - self.gone + adds > self.limits.routes {
            return Err(SlotError::RoutesFull { limit: self.limits.routes });
        }
        let mut applied = Applied::default();
        for change in changes {
            let route = (slot, change.namespace, change.uid.0);
            let there = self.routes.contains(&route);
            if change.op == Op::Add && !there {
                self.routes.push(route);
                applied.added += 1;
            } else if change.op == Op::Remove && there {
                self.routes.retain(|held| *held != route);
                applied.removed += 1;
            } else {
                applied.unchanged += 1;
            }
        }
        Ok(applied)
    }

    pub fn agree_on_tags(&mut self, slot: Slot, agreed: bool) -> Result<(), SlotError> {
        self.not_dead(slot)?;
        self.tags.agree(slot, agreed);
        Ok(())
    }

    pub fn apply_tags(
        &mut self,
        slot: Slot,
        changes: &[TagChange<'_>],
    ) -> Result<TagsApplied, SlotError> {
        self.not_dead(slot)?;
        Ok(self.tags.apply(slot, changes, self.limits))
    }

    fn not_dead(&self, slot: Slot) -> Result<(), SlotError> {
        match self.state(slot) {
            SlotState::Dead => Err(SlotError::Dead),
            SlotState::Filling | SlotState::Live | SlotState::Suspended => Ok(()),
        }
    }

    /// Follows a sweep of the table, which goes through routes in an order of its own: what it told
    /// has to be possible. Slots are free when nothing is left of all that were dead when it began:
    /// in the same step, or at the latest in the next one.
    pub fn swept(&mut self, budget: usize, told: SweepProgress) {
        if self.walked.is_empty() {
            self.walked.clone_from(&self.dead);
        }
        let tags_before = self.tags.any(&self.walked);
        self.tags.swept(&self.walked, told.tags_removed);
        let before = self.gone;
        self.gone += told.removed;
        let held = self.routes.iter().filter(|route| self.walked.contains(&route.0)).count();
        assert!(self.gone <= held, "more was removed than the dead have");
        let done = self.gone == held && !self.tags.any(&self.walked);
        let was_done = before == held && !tags_before;
        let freed = done && (told.freed > 0 || was_done && budget > 0);
        assert_eq!(told.freed, if freed { self.walked.len() } else { 0 });
        if freed {
            let walked = std::mem::take(&mut self.walked);
            self.routes.retain(|route| !walked.contains(&route.0));
            self.dead.retain(|slot| !walked.contains(slot));
            self.gone = 0;
        }
        assert_eq!(told.routes_left, self.counts().routes_dead);
        assert_eq!(told.slots_left, self.dead.len());
    }

    #[must_use]
    pub fn resolve(&self, query: &Query<'_>) -> Expected {
        let mut expected = Expected::default();
        let direct = query.mode != Mode::Broadcast;
        let uids = match query.audience {
            Audience::Uids(uids) => distinct(uids),
            Audience::Everyone => Vec::new(),
        };
        let wanted: Vec<u64> = {
            let excepted = |uid: &u64| query.except.iter().any(|out| out == *uid);
            expected.filtered = uids.iter().copied().filter(excepted).collect();
            uids.iter().copied().filter(|uid| !excepted(uid)).collect()
        };
        let has = |slot, uid: u64| self.routes.contains(&(slot, query.namespace, uid));
        let live = self.live();
        let tree = query.selector.map(Tree::of);
        let may = |slot| match &tree {
            None => true,
            Some(_) if !direct => self.tags.agreed(slot),
            Some(tree) => self.tags.may(slot, query.namespace, tree),
        };
        let meant: Vec<Slot> = live.iter().copied().filter(|slot| may(*slot)).collect();
        for slot in &meant {
            match query.audience {
                Audience::Uids(_) if direct => {
                    let own: Vec<u64> =
                        wanted.iter().copied().filter(|uid| has(*slot, *uid)).collect();
                    if !own.is_empty() {
                        expected.parts.push((*slot, Some(own)));
                    }
                }
                Audience::Everyone if direct => {
                    let held = |route: &(Slot, Namespace, u64)| {
                        route.0 == *slot && route.1 == query.namespace
                    };
                    if self.routes.iter().any(held) {
                        expected.parts.push((*slot, None));
                    }
                }
                Audience::Uids(_) | Audience::Everyone => expected.parts.push((*slot, None)),
            }
        }
        if direct {
            let online = |uid: &u64| live.iter().any(|slot| has(*slot, *uid));
            let reached = |uid: &u64| meant.iter().any(|slot| has(*slot, *uid));
            expected.reached = wanted.iter().filter(|uid| reached(uid)).count();
            expected.offline = wanted.iter().copied().filter(|uid| !online(uid)).collect();
            let only_elsewhere = |uid: &u64| online(uid) && !reached(uid);
            expected.filtered.extend(wanted.iter().copied().filter(only_elsewhere));
            let not_meant = |slot: &Slot| !meant.contains(slot);
            let elsewhere =
                |uid: &u64| live.iter().filter(|it| not_meant(it)).any(|it| has(*it, *uid));
            let in_part = |uid: &u64| reached(uid) && elsewhere(uid);
            expected.filtered_in_part = wanted.iter().copied().filter(in_part).collect();
        } else {
            expected.unresolved = wanted.len();
        }
        expected
    }

    #[must_use]
    pub fn state(&self, slot: Slot) -> SlotState {
        let record = self.slots.iter().find(|record| record.slot == slot);
        record.map_or(SlotState::Dead, |record| record.state)
    }

    #[must_use]
    pub fn standing(&self, incarnation: Incarnation) -> Option<Slot> {
        let stands = |state| matches!(state, SlotState::Live | SlotState::Suspended);
        let mut found = self
            .slots
            .iter()
            .filter(|record| record.incarnation == incarnation && stands(record.state));
        found.next().map(|record| record.slot)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let in_state = |state| self.slots.iter().filter(|record| record.state == state).count();
        let is_dead = |slot| self.state(slot) == SlotState::Dead;
        Counts {
            routes: self.routes.len() - self.gone,
            routes_dead: self.routes.iter().filter(|route| is_dead(route.0)).count() - self.gone,
            slots_filling: in_state(SlotState::Filling),
            slots_live: in_state(SlotState::Live),
            slots_suspended: in_state(SlotState::Suspended),
            slots_dead: self.dead.len(),
            declared: self.tags.declared(|_| true),
            declared_dead: self.tags.declared(is_dead),
            unkept: self.tags.unkept(|slot| !is_dead(slot) || self.dead.contains(&slot)),
            tags: self.tags.different(),
        }
    }

    fn require(&self, slot: Slot, allowed: &[SlotState]) -> Result<(), SlotError> {
        let state = self.state(slot);
        if state == SlotState::Dead {
            Err(SlotError::Dead)
        } else if allowed.contains(&state) {
            Ok(())
        } else {
            Err(SlotError::Refused { state })
        }
    }

    fn incarnation(&self, slot: Slot) -> Option<Incarnation> {
        self.slots.iter().find(|record| record.slot == slot).map(|record| record.incarnation)
    }

    fn become_state(&mut self, slot: Slot, state: SlotState) {
        for record in self.slots.iter_mut().filter(|record| record.slot == slot) {
            record.state = state;
        }
    }

    fn live(&self) -> Vec<Slot> {
        let live = self.slots.iter().filter(|record| record.state == SlotState::Live);
        let mut slots: Vec<Slot> = live.map(|record| record.slot).collect();
        slots.sort_by_key(|slot| slot.index());
        slots
    }
}

fn distinct(uids: UidRun<'_>) -> Vec<u64> {
    let mut seen = Vec::new();
    for uid in uids.iter() {
        if !seen.contains(&uid) {
            seen.push(uid);
        }
    }
    seen
}

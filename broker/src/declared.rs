//! What a gateway has declared in one slot, and what others have been told of it.
//!
//! Two things follow from a registration besides its route: consumers hear of it (presence), and it
//! contends with other logins of its user. Both follow at once for a DELTA; for a snapshot of a
//! million users they follow in portions, by a walk through the set. `Upto` says how far one is.
//! Pure.
//!
//! Invariant: what consumers have been told to be here is `set` up to `told`, and `old`, but for
//! the differences in `gap`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waybill_routing::{Op, TagChange};
use waybill_wire::code::Event;
use waybill_wire::digest::{Digest, Registered};

use crate::told::Told;

/// How far a walk through a set has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Upto {
    Nothing,
    /// This one included.
    Here(Registered),
    #[default]
    All,
}

impl Upto {
    /// Whether the walk is past this registration, so that changes of it are told at once.
    pub(crate) fn is_past(self, registered: Registered) -> bool {
        match self {
            Self::Nothing => false,
            Self::Here(here) => registered <= here,
            Self::All => true,
        }
    }

    fn next_in(self, set: &BTreeSet<Registered>) -> Option<Registered> {
        use std::ops::Bound::{Excluded, Unbounded};
        match self {
            Self::Nothing => set.first().copied(),
            Self::Here(here) => set.range((Excluded(here), Unbounded)).next().copied(),
            Self::All => None,
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    set: BTreeSet<Registered>,
    /// Of registrations and tags.
    digest: Digest,
    /// How many tags: which, the route table knows.
    tags: usize,
    told: Upto,
    /// What consumers were told to be here by the slot that this one replaced.
    old: Told,
    /// `old` is still to come, from where the slot before was served; until when it is waited for.
    waits: Option<Duration>,
    /// What changed while nobody could be told, because the slot did not answer.
    gap: BTreeMap<Registered, Event>,
    entered: Upto,
}

impl Declared {
    pub(crate) fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Registrations that take up room, those that are only kept to be told of included.
    pub(crate) fn room(&self) -> usize {
        self.set.len() + self.old.len()
    }

    /// Whether nothing is registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub(crate) fn contains(&self, registered: Registered) -> bool {
        self.set.contains(&registered)
    }

    /// Registrations of one user.
    pub(crate) fn logins(&self, namespace: u32, uid: u64) -> impl Iterator<Item = Registered> {
        let first = Registered { namespace, uid, device_class: 0, login: 0 };
        // Where they end is seen on the way: to look for that end as well is as much again.
        let all = self.set.range(first..).copied();
        all.take_while(move |it| (it.namespace, it.uid) == (namespace, uid))
    }

    /// Whether it was not there.
    pub(crate) fn add(&mut self, registered: Registered) -> bool {
        let added = self.set.insert(registered);
        if added {
            self.digest.add(registered);
        }
        added
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, registered: Registered) -> bool {
        let removed = self.set.remove(&registered);
        if removed {
            self.digest.remove(registered);
        }
        removed
    }

    /// Takes changes of tags in, none of which contradicts what was declared (TAG-6).
    pub(crate) fn declare_tags(&mut self, changes: &[TagChange<'_>]) {
        for TagChange { op, namespace, tag } in changes {
            match op {
                Op::Add => {
                    self.digest.add_tag(namespace.0, tag);
                    self.tags += 1;
                }
                Op::Remove => {
                    self.digest.remove_tag(namespace.0, tag);
                    self.tags -= 1;
                }
            }
        }
    }

    /// Whether a tag is declared.
    pub(crate) fn has_tags(&self) -> bool {
        self.tags > 0
    }

    /// The slot is new and answers: its registrations are to be told of, but for those in `old`.
    /// `waits`: those come later, and are waited for until then.
    pub(crate) fn begin_telling(&mut self, old: Told, waits: Option<Duration>) {
        (self.old, self.waits, self.told) = (old, waits, Upto::Nothing);
    }

    /// What the slot before had told has come.
    pub(crate) fn old_came(&mut self, old: Told) {
        (self.old, self.waits) = (old, None);
    }

    /// Whether it is to come still.
    pub(crate) fn waits(&self) -> bool {
        self.waits.is_some()
    }

    /// What has not come by now will not: all is told as new.
    pub(crate) fn wait_until(&mut self, now: Duration) {
        self.waits = self.waits.filter(|end| *end > now);
    }

    /// Registrations that nothing more is told of.
    pub(crate) fn told_only(old: Told) -> Self {
        Self { old, ..Self::default() }
    }

    /// What consumers believe to be here, for the slot that replaces this one. Nothing is copied.
    pub(crate) fn into_told(self) -> Told {
        self.old.after(self.set, self.told)
    }

    /// A registration changed by a DELTA. The event to tell now, if one is due now.
    pub(crate) fn changed(
        &mut self,
        event: Event,
        registered: Registered,
        answers: bool,
    ) -> Option<Event> {
        if !self.told.is_past(registered) {
            return None;
        }
        if answers && self.gap.is_empty() {
            return Some(event);
        }
        // Two changes that cancel each other are none.
        match self.gap.remove(&registered) {
            Some(before) if before != event => {}
            _ => drop(self.gap.insert(registered, event)),
        }
        None
    }

    /// Whether there is something to tell that is not waited for.
    pub(crate) fn has_news(&self) -> bool {
        !self.gap.is_empty() || (self.told != Upto::All && !self.waits())
    }

    /// The next thing to tell, in at most `budget` steps, which it counts down; and registrations
    /// that take up no more room are added to `freed`.
    pub(crate) fn news(
        &mut self,
        budget: &mut usize,
        freed: &mut usize,
    ) -> Option<(Event, Registered)> {
        while *budget > 0 && self.has_news() {
            *budget -= 1;
            if let Some((registered, event)) = self.gap.pop_first() {
                return Some((event, registered));
            }
            if self.old.trim() {
                *freed += 1;
                continue;
            }
            let new = self.told.next_in(&self.set);
            let old = self.old.first();
            let Some(next) = [old, new].into_iter().flatten().min() else {
                self.told = Upto::All;
                break;
            };
            self.told = Upto::Here(next);
            if old == Some(next) {
                self.old.pop_first();
                *freed += 1;
            }
            match (old == Some(next), new == Some(next)) {
                (true, true) => {}
                (true, false) => return Some((Event::LOGOUT, next)),
                _ => return Some((Event::LOGIN, next)),
            }
        }
        None
    }

    /// The slot answers: from here on its logins contend with others.
    pub(crate) fn begin_entering(&mut self) {
        self.entered = Upto::Nothing;
    }

    /// Its logins contend no more.
    pub(crate) fn end_entering(&mut self) {
        self.entered = Upto::All;
    }

    /// Whether this registration contends, if it is here.
    pub(crate) fn has_entered(&self, registered: Registered) -> bool {
        self.entered.is_past(registered)
    }

    pub(crate) fn is_entering(&self) -> bool {
        self.entered != Upto::All
    }

    /// The next login to enter.
    pub(crate) fn enter(&mut self) -> Option<Registered> {
        let next = self.entered.next_in(&self.set);
        self.entered = next.map_or(Upto::All, Upto::Here);
        next
    }

    /// Takes one registration out for good, of a slot that is dead: what to say of it.
    pub(crate) fn bury_one(&mut self) -> Option<Option<(Event, Registered)>> {
        if let Some(registered) = self.set.pop_first() {
            let told = self.told.is_past(registered);
            return Some(told.then_some((Event::LOST, registered)));
        }
        if self.old.trim() {
            return Some(None);
        }
        self.old.pop_first().map(|registered| Some((Event::LOST, registered)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u64) -> Registered {
        Registered { namespace: 0, uid, device_class: 0, login: 0 }
    }

    fn with(uids: &[u64]) -> Declared {
        let mut declared = Declared::default();
        for &uid in uids {
            assert!(declared.add(of(uid)));
        }
        declared
    }

    fn news(declared: &mut Declared) -> Vec<(Event, u64)> {
        let (mut budget, mut freed) = (usize::MAX, 0);
        let mut all = Vec::new();
        while let Some((event, registered)) = declared.news(&mut budget, &mut freed) {
            all.push((event, registered.uid));
        }
        all
    }

    #[test]
    fn a_replaced_slot_is_compared_with_what_was_told_of_it() {
        let old = with(&[1, 2, 3]).into_told();
        let mut new = with(&[2, 4]);
        new.begin_telling(old, None);
        let expected = [(Event::LOGOUT, 1), (Event::LOGOUT, 3), (Event::LOGIN, 4)];
        assert_eq!(news(&mut new), expected);
        assert!(!new.has_news());
        assert_eq!(new.room(), 2);
    }

    #[test]
    fn a_change_beyond_the_walk_is_left_to_the_walk() {
        let mut it = with(&[1, 2, 3]);
        it.begin_telling(Told::default(), None);
        let (mut budget, mut freed) = (1, 0);
        assert_eq!(it.news(&mut budget, &mut freed), Some((Event::LOGIN, of(1))));
        it.remove(of(3));
        assert_eq!(it.changed(Event::LOGOUT, of(3), true), None);
        it.remove(of(1));
        assert_eq!(it.changed(Event::LOGOUT, of(1), true), Some(Event::LOGOUT));
        assert_eq!(news(&mut it), [(Event::LOGIN, 2)]);
    }

    #[test]
    fn what_was_told_passes_on_from_the_middle_of_a_walk() {
        let mut it = with(&[1, 2, 5]);
        it.begin_telling(with(&[2, 4]).into_told(), None);
        let (mut budget, mut freed) = (2, 0);
        assert_eq!(it.news(&mut budget, &mut freed), Some((Event::LOGIN, of(1))));
        assert_eq!(it.news(&mut budget, &mut freed), None);
        assert_eq!(freed, 1);
        let mut next = with(&[2, 4]);
        next.begin_telling(it.into_told(), None);
        assert_eq!(next.room(), 2 + 4);
        assert_eq!(news(&mut next), [(Event::LOGOUT, 1)]);
        assert_eq!(next.room(), 2);
    }

    #[test]
    fn changes_of_a_slot_that_does_not_answer_are_told_when_it_does() {
        let mut it = with(&[1]);
        it.remove(of(1));
        assert_eq!(it.changed(Event::LOGOUT, of(1), false), None);
        it.add(of(2));
        assert_eq!(it.changed(Event::LOGIN, of(2), false), None);
        it.remove(of(2));
        assert_eq!(it.changed(Event::LOGOUT, of(2), false), None);
        assert_eq!(news(&mut it), [(Event::LOGOUT, 1)]);
    }

    #[test]
    fn the_dead_are_told_of_once() {
        let mut it = with(&[1, 2]);
        it.begin_telling(with(&[3]).into_told(), None);
        let (mut budget, mut freed) = (1, 0);
        assert_eq!(it.news(&mut budget, &mut freed), Some((Event::LOGIN, of(1))));
        let buried: Vec<_> = std::iter::from_fn(|| it.bury_one()).collect();
        let lost = |uid| Some((Event::LOST, of(uid)));
        assert_eq!(buried, [lost(1), None, lost(3)]);
        assert_eq!(it.room(), 0);
    }

    #[test]
    fn logins_enter_one_by_one_and_begin_anew() {
        let mut it = with(&[1, 2, 3]);
        it.begin_entering();
        assert_eq!(it.enter(), Some(of(1)));
        assert_eq!(it.enter(), Some(of(2)));
        assert!(it.has_entered(of(2)) && !it.has_entered(of(3)) && it.is_entering());
        it.end_entering();
        assert!(!it.is_entering());
        it.begin_entering();
        assert_eq!(it.enter(), Some(of(1)));
    }
}

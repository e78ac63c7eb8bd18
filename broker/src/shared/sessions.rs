//! Sessions of gateways whose link has gone, for the time in which they may be resumed.
//!
//! Whoever takes a session out owns it: a link that goes on with it, a snapshot that replaces it,
//! or the shard that finds its window over. So there is never more than one, and a session that
//! has died is nowhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waybill_routing::{Slot, SlotState};
use waybill_wire::planted::{self, Bug};

use super::{Shared, UNPOISONED};
use crate::auth::Grant;
use crate::declared::Declared;
use crate::told::Told;

/// A suspended slot and everything declared in it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) session: u64,
    pub(crate) slot: Slot,
    pub(crate) incarnation: u64,
    pub(crate) grant: Grant,
    /// Last version applied.
    pub(crate) version: u64,
    pub(crate) declared: Box<Declared>,
    /// When its window is over.
    pub(crate) deadline: Duration,
}

/// The table. An incarnation has at most one suspended slot, and so one session here.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: BTreeMap<u64, Held>,
    by_incarnation: BTreeMap<u64, u64>,
    deadlines: BTreeSet<(Duration, u64)>,
}

impl Sessions {
    fn insert(&mut self, held: Held) -> Option<Held> {
        let before = self.by_incarnation.get(&held.incarnation).copied();
        let before = before.and_then(|session| self.remove(session));
        self.by_incarnation.insert(held.incarnation, held.session);
        self.deadlines.insert((held.deadline, held.session));
        self.by_id.insert(held.session, held);
        before
    }

    fn remove(&mut self, session: u64) -> Option<Held> {
        let held = self.by_id.remove(&session)?;
        self.by_incarnation.remove(&held.incarnation);
        self.deadlines.remove(&(held.deadline, session));
        Some(held)
    }

    /// The one whose window ends first, if that is at `by` or before.
    fn first(&mut self, by: Duration) -> Option<Held> {
        let (_, session) = self.deadlines.first().filter(|(end, _)| *end <= by).copied()?;
        self.remove(session)
    }
}

impl Shared {
    /// Keeps a session. The one of the same incarnation that was here, if there was: it is dead.
    #[must_use]
    pub(crate) fn hold(&self, held: Held) -> Option<Held> {
        self.held.lock().expect(UNPOISONED).insert(held)
    }

    /// Takes a session out for a link of this incarnation and credential, if it can be resumed: one
    /// with tags only where these are agreed on (TAG-8).
    pub(crate) fn claim(
        &self,
        session: u64,
        incarnation: u64,
        (grant, has_tags): (&Grant, bool),
        now: Duration,
    ) -> Option<Held> {
        let mut sessions = self.held.lock().expect(UNPOISONED);
        let held = sessions.by_id.get(&session)?;
        let same = held.incarnation == incarnation && held.grant.same_holder(grant);
        let fits = same && (has_tags || !held.declared.has_tags());
        let in_time = held.deadline > now;
        let suspended = self.routes.state(held.slot) == SlotState::Suspended;
        let lives = (in_time && suspended) || planted::is(Bug::ResumeAfterDeath);
        (fits && lives).then(|| sessions.remove(session)).flatten()
    }

    /// What consumers were told of the slot before has come for a session that is suspended. Back,
    /// if none waits for it.
    pub(crate) fn old_came(&self, incarnation: u64, old: Told) -> Option<Told> {
        let mut sessions = self.held.lock().expect(UNPOISONED);
        let session = sessions.by_incarnation.get(&incarnation).copied();
        let held = session.and_then(|session| sessions.by_id.get_mut(&session));
        let Some(held) = held.filter(|held| held.declared.waits()) else { return Some(old) };
        held.declared.old_came(old);
        None
    }

    /// Takes the session of an incarnation out, to replace or to bury it.
    pub(crate) fn held_by(&self, incarnation: u64) -> Option<Held> {
        let mut sessions = self.held.lock().expect(UNPOISONED);
        let session = sessions.by_incarnation.get(&incarnation).copied()?;
        sessions.remove(session)
    }

    /// Takes out a session whose window is over at `now`, if there is one.
    pub(crate) fn overdue(&self, now: Duration) -> Option<Held> {
        self.held.lock().expect(UNPOISONED).first(now)
    }

    /// Takes out the session whose window ends first.
    pub(crate) fn next_to_end(&self) -> Option<Held> {
        self.held.lock().expect(UNPOISONED).first(Duration::MAX)
    }

    /// Takes out this very session.
    pub(crate) fn take_held(&self, session: u64) -> Option<Held> {
        self.held.lock().expect(UNPOISONED).remove(session)
    }

    /// A bug, planted to be found: slots die and their sessions do not.
    pub(crate) fn outlive(&self, now: Duration) {
        let sessions = self.held.lock().expect(UNPOISONED);
        for held in sessions.by_id.values().filter(|held| held.deadline <= now) {
            let _ = self.routes.kill(held.slot);
        }
    }

    /// Whether nobody else's credential has a session of this incarnation here.
    pub(super) fn may_resume(&self, incarnation: u64, grant: &Grant) -> bool {
        let sessions = self.held.lock().expect(UNPOISONED);
        let session = sessions.by_incarnation.get(&incarnation);
        let held = session.and_then(|session| sessions.by_id.get(session));
        held.is_none_or(|held| held.grant.same_holder(grant))
    }

    /// Sessions that are kept.
    #[must_use]
    pub fn sessions_held(&self) -> usize {
        self.held.lock().expect(UNPOISONED).by_id.len()
    }
}

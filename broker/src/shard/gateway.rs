//! What a gateway declares: snapshot, deltas, barriers.
//!
//! Routes are by UID, registrations by (namespace, UID, device class, login number): a route
//! stands as long as one registration of its UID does (DIG-2), so the link remembers them all.

use waybill_routing::{Change, Incarnation, Namespace, Op as RouteOp, Slot, SlotError, Uid};
use waybill_wire::code::{ErrorCode, Event, Kind, Op};
use waybill_wire::digest::Registered;
use waybill_wire::frame::{Barrier, Delta, Frame, InEffect, Record, Records, Snapshot};
use waybill_wire::planted::{self, Bug};
use waybill_wire::session::Sequence;
use waybill_wire::session::registration::{Filled, Registration};

use super::link::{Fault, Part, RoleState, refused};
use super::receipts::Reports;
use super::resume::Claim;
use super::uplink::Uplinked;
use super::{Core, Links};
use crate::auth::Grant;
use crate::declared::Declared;
use crate::limits::LOGINS_PER_USER_MAX;
use crate::shared::Shared;
use crate::telemetry::count;
use crate::told::Told;

pub(super) struct GatewayState {
    pub(super) slot: Slot,
    pub(super) incarnation: u64,
    pub(super) session: u64,
    pub(super) grant: Grant,
    // It can resume, so its slot is kept when its link has gone.
    pub(super) resumes: bool,
    // Tags are agreed on with it.
    pub(super) has_tags: bool,
    pub(super) uplinks: Sequence,
    pub(super) uplinked: Uplinked,
    pub(super) reports: Reports,
    pub(super) registration: Registration,
    pub(super) declared: Box<Declared>,
    // The suspended session it goes on with, until it has: by RESUME, or by a snapshot instead.
    pub(super) claim: Option<Claim>,
    // A frame was applied in part: what is declared is not what the version says.
    pub(super) torn: bool,
    // What it declared has been in effect on this link: the last frame of the snapshot took
    // effect, or RESUME did. `registration` says so before that is tried.
    pub(super) answered: bool,
    // Logins of it have lost, of which it has not been told yet.
    pub(super) losing: bool,
    changes: Vec<Change>,
    effects: Vec<(Event, Registered)>,
    late: Vec<Change>,
}

impl GatewayState {
    pub(super) fn new(slot: Slot, incarnation: u64, session: u64, grant: Grant) -> Self {
        Self {
            slot,
            incarnation,
            session,
            grant,
            resumes: false,
            has_tags: false,
            uplinks: Sequence::default(),
            uplinked: Uplinked::default(),
            reports: Reports::default(),
            registration: Registration::default(),
            declared: Box::default(),
            claim: None,
            torn: false,
            answered: false,
            losing: false,
            changes: Vec::new(),
            effects: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Takes records in, in order, and leaves in `changes` what they mean for routes and in
    /// `effects` what they mean for others.
    fn declare(&mut self, shared: &Shared, kind: Kind, records: Records<'_>) -> Result<(), Fault> {
        self.changes.clear();
        self.effects.clear();
        if !records.iter().all(|record| self.grant.covers(record.namespace)) {
            let words = "this token does not allow a namespace that is registered here";
            return Err(refused(ErrorCode::NOT_PERMITTED, kind, words));
        }
        self.torn = true;
        for record in records.iter() {
            let op = if record.op == Op::ADD {
                self.add(shared, &record)
                    .map_err(|words| refused(ErrorCode::OVERLOADED, kind, words))?
            } else {
                self.remove(shared, &record)
            };
            self.changes.extend(op.map(|op| Change {
                op,
                namespace: Namespace(record.namespace),
                uid: Uid(record.uid),
            }));
        }
        leave_out_returns(&mut self.changes);
        self.torn = false;
        Ok(())
    }

    fn add(&mut self, shared: &Shared, record: &Record) -> Result<Option<RouteOp>, &'static str> {
        let registered = registered(record);
        let mut logins = 0;
        for login in self.declared.logins(record.namespace, record.uid) {
            if login == registered {
                return Ok(None);
            }
            logins += 1;
        }
        if logins >= LOGINS_PER_USER_MAX {
            return Err("a user has more logins at one gateway than this broker keeps: 256");
        }
        if !shared.reserve_registrations(1) {
            return Err("this broker holds as many registrations as routes_max allows");
        }
        self.declared.add(registered);
        if self.answered || self.registration.is_resuming() {
            self.effects.push((Event::LOGIN, registered));
        }
        Ok((logins == 0).then_some(RouteOp::Add))
    }

    fn remove(&mut self, shared: &Shared, record: &Record) -> Option<RouteOp> {
        let registered = registered(record);
        if !self.declared.remove(registered) {
            return None;
        }
        shared.release_registrations(1);
        self.effects.push((Event::LOGOUT, registered));
        let last = self.declared.logins(record.namespace, record.uid).next().is_none();
        last.then_some(RouteOp::Remove)
    }

    pub(super) fn in_effect(&self) -> Frame<'static> {
        let (version, digest) = (self.registration.version(), self.declared.digest());
        Frame::InEffect(InEffect { version, digest })
    }
}

impl Part {
    pub(super) fn gateway(&mut self) -> &mut GatewayState {
        match &mut self.role {
            RoleState::Gateway(gateway) => gateway,
            _ => unreachable!("the session passes registrations from gateways only"),
        }
    }

    /// The gateway of this incarnation, if the link is one's.
    pub(super) fn gateway_of(&mut self, incarnation: u64) -> Option<&mut GatewayState> {
        match &mut self.role {
            RoleState::Gateway(gateway) if gateway.incarnation == incarnation => Some(gateway),
            _ => None,
        }
    }
}

/// What a slot that went live took the place of.
#[derive(Default)]
struct Replaced {
    /// What consumers had been told of it.
    told: Told,
    /// That is with another link, and comes by mail.
    comes: bool,
}

impl Core {
    pub(super) fn snapshot(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        snapshot: &Snapshot<'_>,
    ) -> Result<(), Fault> {
        let gateway = part.gateway();
        let Snapshot { first, last, version, records } = *snapshot;
        let resuming = gateway.registration.is_resuming();
        let filled = gateway.registration.snapshot(first, last, version)?;
        if resuming {
            self.give_up_resuming(gateway)?;
        }
        // While it fills, nothing of it is in effect for others.
        gateway.declare(&self.shared, Kind::SNAPSHOT, records)?;
        self.apply(gateway, Kind::SNAPSHOT)?;
        if filled == Filled::Complete {
            let answer = gateway.in_effect();
            let replaced = self.go_live(gateway)?;
            self.follow_snapshot(part, replaced.told, replaced.comes);
            self.take_over(links, part);
            part.put(&answer);
            self.now_in_effect(links, part);
        }
        Ok(())
    }

    pub(super) fn delta(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        delta: &Delta<'_>,
    ) -> Result<(), Fault> {
        let gateway = part.gateway();
        gateway.registration.delta(delta.version)?;
        gateway.declare(&self.shared, Kind::DELTA, delta.records)?;
        if planted::is(Bug::LateUnregister) {
            hold_removals_back(gateway);
        }
        self.apply(gateway, Kind::DELTA)?;
        self.follow(links, part);
        Ok(())
    }

    /// Routes are shared by all shards and change in place, so what was applied is in effect on
    /// every one of them.
    pub(super) fn barrier(&mut self, part: &mut Part, barrier: &Barrier) -> Result<(), Fault> {
        let gateway = part.gateway();
        gateway.registration.barrier(barrier.version, barrier.digest, gateway.declared.digest())?;
        let answer = gateway.in_effect();
        part.put(&answer);
        Ok(())
    }

    fn apply(&mut self, gateway: &mut GatewayState, kind: Kind) -> Result<(), Fault> {
        count(&self.counters.registrations, gateway.changes.len() as u64);
        if planted::is(Bug::StaleDigest) && gateway.registration.is_resuming() {
            return Ok(());
        }
        let applied = self.shared.routes.apply(gateway.slot, &gateway.changes);
        gateway.torn = applied.is_err();
        applied.map(|_| ()).map_err(|error| match error {
            SlotError::RoutesFull { .. } => {
                let words = "this broker holds as many routes as routes_max allows";
                refused(ErrorCode::OVERLOADED, kind, words)
            }
            SlotError::NamespacesFull { .. } => {
                let words = "this broker has users in as many namespaces as it keeps";
                refused(ErrorCode::OVERLOADED, kind, words)
            }
            _ => superseded(kind),
        })
    }

    /// What a DELTA changed becomes known to others: consumers, and logins it displaces.
    fn follow(&mut self, links: &mut Links, part: &mut Part) {
        let wanted = self.presence_wanted();
        let gateway = part.gateway();
        let (incarnation, answers) = (gateway.incarnation, gateway.answered);
        let mut effects = std::mem::take(&mut gateway.effects);
        for &(event, registered) in &effects {
            let declared = &mut part.gateway().declared;
            let tells = wanted.then(|| declared.changed(event, registered, answers)).flatten();
            if let Some(event) = tells {
                self.presence(links, event, registered, incarnation);
            }
            if answers && part.gateway().declared.has_entered(registered) {
                self.contend(links, part, event, registered);
            }
        }
        effects.clear();
        part.gateway().effects = effects;
    }

    /// The snapshot is complete: its slot answers from here on, and what the gateway had before
    /// dies in the same step.
    fn go_live(&mut self, gateway: &mut GatewayState) -> Result<Replaced, Fault> {
        let (slot, incarnation) = (gateway.slot, gateway.incarnation);
        let routes = &self.shared.routes;
        let mut standing = routes.standing(Incarnation(incarnation));
        loop {
            // Its snapshot may end after that of a link which came later.
            if standing.is_some_and(|standing| self.shared.is_newer(standing, slot)) {
                return Err(superseded(Kind::SNAPSHOT));
            }
            match routes.go_live(slot, standing) {
                Ok(()) => {
                    // Before the logins of the new slot enter: one that has gone with the older
                    // slot must displace none. Its shard may be another, which hears of it later.
                    if let Some(older) = standing {
                        self.shared.leave_contest(older);
                    }
                    return Ok(self.replaced(gateway, standing));
                }
                // Another link of the same life got in between.
                Err(SlotError::NotReplaced { standing: newer }) => standing = Some(newer),
                Err(_) => return Err(superseded(Kind::SNAPSHOT)),
            }
        }
    }

    /// What a suspended slot had is here, with the link's own claim or in the table; what another
    /// had comes from its link, when that ends.
    fn replaced(&mut self, gateway: &mut GatewayState, older: Option<Slot>) -> Replaced {
        let incarnation = gateway.incarnation;
        let claimed = gateway.claim.take().and_then(Claim::into_given_up);
        let outlives = planted::is(Bug::ResumeAfterDeath);
        let held = if outlives { None } else { self.shared.held_by(incarnation) };
        let held = held.map(|held| (held.slot, held.declared));
        let mut replaced = Replaced { comes: older.is_some(), ..Replaced::default() };
        for (slot, declared) in [held, claimed].into_iter().flatten() {
            if Some(slot) != older {
                // Yet another link had replaced it.
                self.pass_on(incarnation, *declared);
                continue;
            }
            let comes = declared.waits();
            replaced = Replaced { told: declared.into_told(), comes };
        }
        replaced
    }
}

/// Who goes and comes within one frame was never away, for other shards neither (DEL-25). Going
/// and coming of one user take turns.
fn leave_out_returns(changes: &mut Vec<Change>) {
    let goes = |change: &Change| change.op == RouteOp::Remove;
    if !changes.iter().any(goes) || changes.iter().all(goes) {
        return;
    }
    changes.sort_by_key(|change| (change.namespace, change.uid));
    let same = |a: &Change, b: &Change| (a.namespace, a.uid) == (b.namespace, b.uid);
    let lasting = changes.chunk_by(same).filter(|of_one| of_one.len() % 2 == 1);
    *changes = lasting.map(|of_one| of_one[0]).collect();
}

/// A bug, planted to be found: who was removed stays until the next DELTA.
fn hold_removals_back(gateway: &mut GatewayState) {
    let late = std::mem::take(&mut gateway.late);
    let (removals, others) =
        std::mem::take(&mut gateway.changes).into_iter().partition(|it| it.op == RouteOp::Remove);
    gateway.late = removals;
    gateway.changes = late;
    gateway.changes.extend::<Vec<_>>(others);
}

pub(super) fn superseded(kind: Kind) -> Fault {
    refused(ErrorCode::SUPERSEDED, kind, "a newer link of this gateway took over")
}

fn registered(record: &Record) -> Registered {
    let Record { uid, login, namespace, device_class, .. } = *record;
    Registered { namespace, uid, device_class, login }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn del_25_who_goes_and_comes_in_one_frame_was_never_away() {
        let change = |op, uid| Change { op, namespace: Namespace(0), uid: Uid(uid) };
        let (add, remove) = (RouteOp::Add, RouteOp::Remove);
        let all = [(remove, 2), (add, 1), (add, 2), (remove, 3), (add, 3), (remove, 3), (add, 4)];
        let mut changes: Vec<Change> = all.map(|(op, uid)| change(op, uid)).into();
        leave_out_returns(&mut changes);
        assert_eq!(changes, [(add, 1), (remove, 3), (add, 4)].map(|(op, uid)| change(op, uid)));
        let mut only_new: Vec<Change> = [5, 3, 4].map(|uid| change(add, uid)).into();
        leave_out_returns(&mut only_new);
        assert_eq!(only_new.len(), 3);
    }
}

//! What a gateway declares: snapshot, deltas, barriers, and the end of its link.
//!
//! Routes are by UID, registrations by (namespace, UID, device class, login number): a route
//! stands as long as one registration of its UID does (DIG-2), so the link remembers them all.

use std::collections::HashMap;
use std::time::Duration;

use waybill_routing::{
    Change, Incarnation, Namespace, Op as RouteOp, Slot, SlotError, SlotState, Uid,
};
use waybill_wire::code::{ErrorCode, Kind, Op};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Barrier, Delta, Frame, InEffect, Record, Snapshot};
use waybill_wire::session::Sequence;
use waybill_wire::session::registration::{Filled, Registration};

use super::link::{Fault, Life, Part, RoleState, refused};
use super::receipts::Reports;
use super::uplink::Uplinked;
use super::{Core, Links};
use crate::auth::Grant;
use crate::io::{LinkId, Output};
use crate::limits::{LINGER_MS, LOGINS_PER_USER_MAX};
use crate::mail::{Mail, Successor};
use crate::shared::{Place, Shared};
use crate::telemetry::count;

pub(super) struct GatewayState {
    pub(super) slot: Slot,
    pub(super) incarnation: u64,
    pub(super) grant: Grant,
    pub(super) uplinks: Sequence,
    pub(super) uplinked: Uplinked,
    pub(super) reports: Reports,
    registration: Registration,
    digest: Digest,
    // (namespace, UID) to (device class, login number). Mostly one login, so a list it is.
    registered: HashMap<(u32, u64), Vec<(u8, u64)>>,
    // Registrations in `registered`.
    count: usize,
    changes: Vec<Change>,
}

impl GatewayState {
    pub(super) fn new(slot: Slot, incarnation: u64, grant: Grant) -> Self {
        Self {
            slot,
            incarnation,
            grant,
            uplinks: Sequence::default(),
            uplinked: Uplinked::default(),
            reports: Reports::default(),
            registration: Registration::default(),
            digest: Digest::default(),
            registered: HashMap::new(),
            count: 0,
            changes: Vec::new(),
        }
    }

    /// Takes records in, in order, and leaves in `changes` what they mean for routes.
    fn declare(
        &mut self,
        shared: &Shared,
        kind: Kind,
        records: impl Iterator<Item = Record>,
    ) -> Result<(), Fault> {
        self.changes.clear();
        for record in records {
            if !self.grant.covers(record.namespace) {
                let words = "this token does not allow a namespace that is registered here";
                return Err(refused(ErrorCode::NOT_PERMITTED, kind, words));
            }
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
        Ok(())
    }

    fn add(&mut self, shared: &Shared, record: &Record) -> Result<Option<RouteOp>, &'static str> {
        let logins = self.registered.entry((record.namespace, record.uid)).or_default();
        let login = (record.device_class, record.login);
        if logins.contains(&login) {
            return Ok(None);
        }
        if logins.len() >= LOGINS_PER_USER_MAX {
            return Err("a user has more logins at one gateway than this broker keeps: 256");
        }
        if !shared.reserve_registrations(1) {
            return Err("this broker holds as many registrations as routes_max allows");
        }
        logins.push(login);
        self.count += 1;
        self.digest.add(registered(record));
        Ok((logins.len() == 1).then_some(RouteOp::Add))
    }

    fn remove(&mut self, shared: &Shared, record: &Record) -> Option<RouteOp> {
        let key = (record.namespace, record.uid);
        let logins = self.registered.get_mut(&key)?;
        let login = (record.device_class, record.login);
        let at = logins.iter().position(|held| *held == login)?;
        logins.swap_remove(at);
        self.count -= 1;
        shared.release_registrations(1);
        self.digest.remove(registered(record));
        if !logins.is_empty() {
            return None;
        }
        self.registered.remove(&key);
        Some(RouteOp::Remove)
    }

    fn in_effect(&self) -> Frame<'static> {
        let (version, digest) = (self.registration.version(), self.digest.value());
        Frame::InEffect(InEffect { version, digest })
    }
}

impl Part {
    fn gateway(&mut self) -> &mut GatewayState {
        match &mut self.role {
            RoleState::Gateway(gateway) => gateway,
            _ => unreachable!("the session passes registrations from gateways only"),
        }
    }
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
        let filled = gateway.registration.snapshot(first, last, version)?;
        gateway.declare(&self.shared, Kind::SNAPSHOT, records.iter())?;
        self.apply(gateway, Kind::SNAPSHOT)?;
        if filled == Filled::Complete {
            let (slot, incarnation) = (gateway.slot, gateway.incarnation);
            let answer = gateway.in_effect();
            if let Some(older) = self.go_live(slot, incarnation)? {
                part.held = self.supersede_at(links, &older, part.id);
            }
            part.put(&answer);
        }
        Ok(())
    }

    pub(super) fn delta(&mut self, part: &mut Part, delta: &Delta<'_>) -> Result<(), Fault> {
        let gateway = part.gateway();
        gateway.registration.delta(delta.version)?;
        gateway.declare(&self.shared, Kind::DELTA, delta.records.iter())?;
        self.apply(gateway, Kind::DELTA)
    }

    /// Routes are shared by all shards and change in place, so what was applied is in effect on
    /// every one of them.
    pub(super) fn barrier(&mut self, part: &mut Part, barrier: &Barrier) -> Result<(), Fault> {
        let gateway = part.gateway();
        gateway.registration.barrier(barrier.version, barrier.digest, gateway.digest.value())?;
        let answer = gateway.in_effect();
        part.put(&answer);
        Ok(())
    }

    fn apply(&mut self, gateway: &mut GatewayState, kind: Kind) -> Result<(), Fault> {
        count(&self.counters.registrations, gateway.changes.len() as u64);
        let applied = self.shared.routes.apply(gateway.slot, &gateway.changes);
        applied.map(|_| ()).map_err(|error| match error {
            SlotError::RoutesFull { .. } => {
                let words = "this broker holds as many routes as routes_max allows";
                refused(ErrorCode::OVERLOADED, kind, words)
            }
            _ => superseded(kind),
        })
    }

    /// The snapshot is complete: its slot answers from here on, and what the gateway had before
    /// dies in the same step. The link that served it until now, if there is one.
    fn go_live(&self, slot: Slot, incarnation: u64) -> Result<Option<Place>, Fault> {
        let mut standing = self.shared.routes.standing(Incarnation(incarnation));
        loop {
            // Its snapshot may end after that of a link which came later.
            if standing.is_some_and(|standing| self.shared.is_newer(standing, slot)) {
                return Err(superseded(Kind::SNAPSHOT));
            }
            let older = standing.and_then(|older| self.shared.link_of(older));
            match self.shared.routes.go_live(slot, standing) {
                Ok(()) => return Ok(older),
                // Another link of the same life got in between.
                Err(SlotError::NotReplaced { standing: newer }) => standing = Some(newer),
                Err(_) => return Err(superseded(Kind::SNAPSHOT)),
            }
        }
    }

    /// Ends the older link once it is written out; whether the newer one has to wait for that.
    fn supersede_at(&mut self, links: &mut Links, older: &Place, newer: LinkId) -> bool {
        let successor = Successor { shard: self.id, link: newer };
        if older.shard == self.id {
            return self.supersede(links, older.link, successor);
        }
        let mail = Mail::Supersede { link: older.link, successor };
        self.outputs.push_back(Output::Mail { to: older.shard, mail });
        true
    }

    fn supersede(&mut self, links: &mut Links, older: LinkId, successor: Successor) -> bool {
        let Some(mut link) = links.remove(&older) else { return false };
        if link.part.life == Life::Open {
            self.dismiss(links, &mut link.part, superseded(Kind(0)), LINGER_MS);
        }
        let waits = link.part.life == Life::Closing;
        if waits {
            link.part.successor = Some(successor);
        }
        links.insert(older, link);
        waits
    }

    pub(super) fn supersede_mailed(
        &mut self,
        links: &mut Links,
        older: LinkId,
        successor: Successor,
    ) {
        if !self.supersede(links, older, successor) {
            self.release_at(links, successor);
        }
    }

    /// The link that is ending has nothing more to write: the one that took over may begin.
    pub(super) fn release_successor(&mut self, links: &mut Links, part: &mut Part) {
        if let Some(successor) = part.successor.take() {
            self.release_at(links, successor);
        }
    }

    fn release_at(&mut self, links: &mut Links, successor: Successor) {
        let Successor { shard, link } = successor;
        if shard == self.id {
            self.release(links, link);
        } else {
            self.outputs.push_back(Output::Mail { to: shard, mail: Mail::Release { link } });
        }
    }

    pub(super) fn release(&mut self, links: &mut Links, newer: LinkId) {
        if let Some(link) = links.get_mut(&newer) {
            link.part.held = false;
            self.touch(&mut link.part);
        }
    }

    /// A gateway's link ended: its users are offline at once (promise 8).
    pub(super) fn gateway_left(&mut self, gateway: &GatewayState) {
        let GatewayState { slot, incarnation, count, .. } = *gateway;
        self.shared.gateway_closed(slot, incarnation);
        self.shared.release_registrations(count);
        match self.shared.routes.state(slot) {
            SlotState::Live if self.shared.routes.suspend(slot).is_ok() => {
                let window = Duration::from_millis(self.shared.config.resume_window_ms.into());
                self.suspended.push_back((self.now + window, slot));
            }
            SlotState::Dead => {}
            // Its snapshot was not complete, or a newer link took over between the two calls.
            _ => drop(self.shared.routes.kill(slot)),
        }
    }
}

fn superseded(kind: Kind) -> Fault {
    refused(ErrorCode::SUPERSEDED, kind, "a newer link of this gateway took over")
}

fn registered(record: &Record) -> Registered {
    let Record { uid, login, namespace, device_class, .. } = *record;
    Registered { namespace, uid, device_class, login }
}

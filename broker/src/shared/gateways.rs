//! Which link serves which slot, and the credential that speaks for each life of a gateway.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use waybill_routing::Slot;

use super::sessions_open::Session;
use super::{Place, Shared, UNPOISONED};
use crate::auth::Grant;

/// A slot's link.
#[derive(Clone, Debug)]
struct GatewayPlace {
    slot: Slot,
    place: Place,
    grant: Grant,
    age: u64,
    session: u64,
}

#[derive(Debug, Default)]
pub(super) struct Gateways {
    by_slot: Vec<Option<GatewayPlace>>,
    // By the ids of sessions whose control link is open.
    pub(super) sessions: HashMap<u64, Session>,
    // The credential of each incarnation that is linked, and by how many links.
    by_incarnation: HashMap<u64, (Grant, usize)>,
    // How often the places changed.
    changes: u64,
}

impl Gateways {
    fn at(&self, slot: Slot) -> Option<&GatewayPlace> {
        self.by_slot.get(slot.index())?.as_ref().filter(|held| held.slot == slot)
    }

    /// Where messages for a slot go that this shard reads: its own link of that gateway, if there
    /// is one (LNK-5).
    fn seen_from(&self, slot: Slot, shard: Option<u16>) -> Option<GatewayPlace> {
        let found = self.at(slot)?;
        let session = self.sessions.get(&found.session);
        let own = session.and_then(|session| session.data_at(shard?));
        let place = own.map_or(&found.place, |own| &own.place);
        Some(GatewayPlace { place: place.clone(), ..found.clone() })
    }
}

/// What became of the search for a slot's link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    At(&'a Place),
    /// Its credential has no right to the namespace.
    NotAllowed,
    Gone,
}

/// One shard's copies of the places it has asked for, so that neither a lock nor a count that all
/// shards write is touched for each frame. A copy is good until any place changes.
#[derive(Debug, Default)]
pub(crate) struct Places {
    // Whose links come first; without one, only those that registrations came by count.
    shard: Option<u16>,
    by_slot: Vec<Option<(u64, GatewayPlace)>>,
}

impl Places {
    /// As this shard sees them.
    pub(crate) fn seen_from(shard: u16) -> Self {
        Self { shard: Some(shard), by_slot: Vec::new() }
    }

    /// The link that serves a slot, if that very slot still has one and its credential may see
    /// the namespace.
    pub(crate) fn of(&mut self, shared: &Shared, slot: Slot, namespace: u32) -> Found<'_> {
        // Acquire: what was changed before this number is seen by the look below.
        let changes = shared.gateway_changes.load(Ordering::Acquire);
        let index = slot.index();
        if self.by_slot.len() <= index {
            self.by_slot.resize_with(index + 1, || None);
        }
        let held = &mut self.by_slot[index];
        if !matches!(held, Some((at, held)) if *at == changes && held.slot == slot) {
            let gateways = shared.gateways.read().expect(UNPOISONED);
            let found = gateways.seen_from(slot, self.shard);
            *held = found.map(|found| (gateways.changes, found));
        }
        match held {
            Some((_, held)) if held.grant.covers(namespace) => Found::At(&held.place),
            Some(_) => Found::NotAllowed,
            None => Found::Gone,
        }
    }
}

impl Shared {
    /// Changes places, and makes the shards ask anew.
    pub(super) fn change_gateways(&self, change: impl FnOnce(&mut Gateways)) {
        let mut gateways = self.gateways.write().expect(UNPOISONED);
        change(&mut gateways);
        gateways.changes += 1;
        self.gateway_changes.store(gateways.changes, Ordering::Release);
    }

    /// Whether a credential may speak for this life of a gateway: no link does and no session is
    /// kept for it, or those of the same credential.
    pub(crate) fn may_be(&self, incarnation: u64, grant: &Grant) -> bool {
        let gateways = self.gateways.read().expect(UNPOISONED);
        let same = |held: &Grant| held.same_holder(grant);
        gateways.by_incarnation.get(&incarnation).is_none_or(|(held, _)| same(held))
            && self.may_resume(incarnation, grant)
    }

    /// A gateway's link is there, though its slot does not answer yet.
    pub(crate) fn gateway_opened(&self, slot: Slot, opened: Session) {
        let age = self.ages.fetch_add(1, Ordering::Relaxed);
        let Session { id, incarnation, place, grant, .. } = opened.clone();
        self.change_gateways(|gateways| {
            if gateways.by_slot.len() <= slot.index() {
                gateways.by_slot.resize(slot.index() + 1, None);
            }
            let held = GatewayPlace { slot, place, grant: grant.clone(), age, session: id };
            gateways.by_slot[slot.index()] = Some(held);
            gateways.by_incarnation.entry(incarnation).or_insert((grant, 0)).1 += 1;
            gateways.sessions.insert(id, opened);
        });
    }

    /// A link gives up the slot it was to resume and fills a fresh one. It stays as old as it is.
    pub(crate) fn gateway_moved(&self, from: Slot, to: Slot) {
        self.change_gateways(|gateways| {
            let most = gateways.by_slot.len().max(to.index() + 1);
            gateways.by_slot.resize(most, None);
            if gateways.at(from).is_some()
                && let Some(place) = gateways.by_slot[from.index()].take()
            {
                gateways.by_slot[to.index()] = Some(GatewayPlace { slot: to, ..place });
            }
        });
    }

    pub(crate) fn gateway_closed(&self, slot: Slot, incarnation: u64) {
        self.change_gateways(|gateways| {
            if let Some(entry) = gateways.by_slot.get_mut(slot.index())
                && entry.as_ref().is_some_and(|held| held.slot == slot)
            {
                *entry = None;
            }
            if let Some((_, links)) = gateways.by_incarnation.get_mut(&incarnation) {
                *links -= 1;
                if *links == 0 {
                    gateways.by_incarnation.remove(&incarnation);
                }
            }
        });
    }

    /// A fault, planted to be found: the next slot that has a link, or this one.
    pub(crate) fn beside(&self, slot: Slot) -> Slot {
        let gateways = self.gateways.read().expect(UNPOISONED);
        let (until, after) =
            gateways.by_slot.split_at(gateways.by_slot.len().min(slot.index() + 1));
        after.iter().chain(until).flatten().map(|held| held.slot).next().unwrap_or(slot)
    }

    /// The link of a slot that is being replaced.
    pub(crate) fn link_of(&self, slot: Slot) -> Option<Place> {
        self.gateways.read().expect(UNPOISONED).at(slot).map(|held| held.place.clone())
    }

    /// The link of a slot, and the holder of its credential.
    pub(crate) fn link_and_holder(&self, slot: Slot) -> Option<(Place, String)> {
        let gateways = self.gateways.read().expect(UNPOISONED);
        gateways.at(slot).map(|held| (held.place.clone(), held.grant.holder().into()))
    }

    /// Whether the link of one slot said HELLO after that of another. A slot without a link is
    /// older than any.
    pub(crate) fn is_newer(&self, slot: Slot, than: Slot) -> bool {
        let gateways = self.gateways.read().expect(UNPOISONED);
        let age = |slot| gateways.at(slot).map(|held| held.age);
        age(slot) > age(than)
    }

    /// Takes place for registrations, or says that there is none.
    pub(crate) fn reserve_registrations(&self, count: usize) -> bool {
        let before = self.registrations.fetch_add(count, Ordering::Relaxed);
        let fits = before.saturating_add(count) <= self.config.routes_max;
        if !fits {
            self.registrations.fetch_sub(count, Ordering::Relaxed);
        }
        fits
    }

    /// Registrations that are held, of links, of suspended sessions and of those being freed.
    #[must_use]
    pub fn registrations(&self) -> usize {
        self.registrations.load(Ordering::Relaxed)
    }

    pub(crate) fn release_registrations(&self, count: usize) {
        self.registrations.fetch_sub(count, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use waybill_routing::Incarnation;
    use waybill_wire::code::Role;

    use super::*;
    use crate::config::BrokerConfig;
    use crate::io::LinkId;
    use crate::outbox::Room;

    #[test]
    fn promise_8_a_copy_of_a_place_is_good_until_a_place_changes() {
        let shared = Shared::new(BrokerConfig::default(), 1, 1);
        let grant = shared.credentials.judge(b"", Role::GATEWAY).unwrap();
        let [first, second] = [1, 2].map(|it| shared.routes.open(Incarnation(it)).unwrap());
        let place = |link| {
            let (link, peer, room) = (LinkId(link), None, Room::new(1));
            Place { shard: 0, link, peer, room, tags: false, fragments: false }
        };
        let mut places = Places::default();
        let mut at = |slot| match places.of(&shared, slot, 0) {
            Found::At(place) => Some(place.link),
            Found::NotAllowed | Found::Gone => None,
        };
        assert_eq!(at(first), None);
        let session = |id, place, grant| Session {
            id,
            incarnation: 1,
            place,
            grant,
            capabilities: 0,
            data: Vec::new(),
        };
        shared.gateway_opened(first, session(1, place(7), grant.clone()));
        assert_eq!(at(first), Some(LinkId(7)));
        shared.gateway_moved(first, second);
        assert_eq!((at(first), at(second)), (None, Some(LinkId(7))));
        shared.gateway_opened(first, session(2, place(8), grant));
        assert_eq!((at(first), at(second)), (Some(LinkId(8)), Some(LinkId(7))));
        shared.gateway_closed(second, 1);
        assert_eq!((at(first), at(second)), (Some(LinkId(8)), None));
    }
}

//! What all shards see: the route table, which link serves a slot, which links consume.
//!
//! Locks here are held for a look-up or an insertion, never across a call into a shard.
//! Never: frames, outboxes' bytes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use waybill_routing::{Limits, Routes, Slot};
use waybill_wire::digest::mix;

use crate::auth::{Credentials, Grant};
use crate::config::BrokerConfig;
use crate::io::LinkId;
use crate::limits::{REFUSALS_MAX, STRANGERS_PART};
use crate::outbox::Room;

/// Where a link is, and the space of its outbox.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) shard: u16,
    pub(crate) link: LinkId,
    pub(crate) room: Arc<Room>,
}

impl Place {
    fn is(&self, shard: u16, link: LinkId) -> bool {
        self.shard == shard && self.link == link
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ConsumerPlace {
    pub(crate) place: Place,
    pub(crate) grant: Grant,
}

/// A slot's link.
#[derive(Clone, Debug)]
struct GatewayPlace {
    slot: Slot,
    place: Place,
    grant: Grant,
    age: u64,
}

#[derive(Debug, Default)]
struct Gateways {
    by_slot: Vec<Option<GatewayPlace>>,
    // The credential of each incarnation that is linked, and by how many links.
    by_incarnation: HashMap<u64, (Grant, usize)>,
}

impl Gateways {
    fn at(&self, slot: Slot) -> Option<&GatewayPlace> {
        self.by_slot.get(slot.index())?.as_ref().filter(|held| held.slot == slot)
    }
}

/// What became of the search for a slot's link.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    At(Place),
    /// Its credential has no right to the namespace.
    NotAllowed,
    Gone,
}

/// See the module.
pub struct Shared {
    /// Settings.
    pub config: BrokerConfig,
    /// Who may link.
    pub credentials: Credentials,
    /// Random number of this life of the broker.
    pub instance: u64,
    /// The route table.
    pub routes: Routes,
    gateways: RwLock<Gateways>,
    consumers: RwLock<Vec<ConsumerPlace>>,
    ages: AtomicU64,
    links: AtomicU32,
    refused: AtomicU32,
    producers: AtomicU32,
    registrations: AtomicUsize,
    sessions: AtomicU64,
}

const UNPOISONED: &str = "nothing panics while it holds this lock";

impl Shared {
    /// State of a broker with a validated configuration. `instance` must not be 0.
    #[must_use]
    pub fn new(config: BrokerConfig, instance: u64) -> Self {
        let limits = Limits { slots: config.gateways_max, routes: config.routes_max };
        Self {
            credentials: Credentials::new(&config),
            instance,
            routes: Routes::new(limits),
            gateways: RwLock::default(),
            consumers: RwLock::default(),
            ages: AtomicU64::new(0),
            links: AtomicU32::new(0),
            refused: AtomicU32::new(0),
            producers: AtomicU32::new(0),
            registrations: AtomicUsize::new(0),
            sessions: AtomicU64::new(0),
            config,
        }
    }

    /// A session id, not 0, not given before in this life of the broker.
    pub(crate) fn next_session(&self) -> u64 {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        self.instance.wrapping_add(number).max(1)
    }

    /// Counts a link in, or says that there are too many.
    pub(crate) fn link_opened(&self) -> bool {
        take_one(&self.links, self.config.links_max)
    }

    /// Whether there is no place for another link.
    pub(crate) fn is_full(&self) -> bool {
        self.links() >= self.config.links_max
    }

    /// Links without a HELLO that one shard may have.
    pub(crate) fn strangers_max(&self) -> usize {
        let of_each =
            self.config.links_max.div_ceil(STRANGERS_PART * u32::from(self.config.shards));
        of_each as usize
    }

    pub(crate) fn link_closed(&self) {
        self.links.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts a link in that is told why it is refused, or says that too many are being told.
    pub(crate) fn refusal_opened(&self) -> bool {
        take_one(&self.refused, REFUSALS_MAX)
    }

    pub(crate) fn refusal_closed(&self) {
        self.refused.fetch_sub(1, Ordering::Relaxed);
    }

    /// Links that are open.
    #[must_use]
    pub fn links(&self) -> u32 {
        self.links.load(Ordering::Relaxed)
    }

    /// Whether a credential may speak for this life of a gateway: no link does, or one that showed
    /// the same credential.
    pub(crate) fn may_be(&self, incarnation: u64, grant: &Grant) -> bool {
        let gateways = self.gateways.read().expect(UNPOISONED);
        gateways.by_incarnation.get(&incarnation).is_none_or(|(held, _)| held.same_holder(grant))
    }

    pub(crate) fn producer_opened(&self) {
        self.producers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn producer_closed(&self) {
        self.producers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether anybody is left who could publish.
    pub(crate) fn has_producers(&self) -> bool {
        self.producers.load(Ordering::Relaxed) > 0
    }

    /// A gateway's link is there, though its slot does not answer yet.
    pub(crate) fn gateway_opened(&self, slot: Slot, incarnation: u64, place: Place, grant: Grant) {
        let age = self.ages.fetch_add(1, Ordering::Relaxed);
        let mut gateways = self.gateways.write().expect(UNPOISONED);
        if gateways.by_slot.len() <= slot.index() {
            gateways.by_slot.resize(slot.index() + 1, None);
        }
        gateways.by_slot[slot.index()] =
            Some(GatewayPlace { slot, place, grant: grant.clone(), age });
        gateways.by_incarnation.entry(incarnation).or_insert((grant, 0)).1 += 1;
    }

    pub(crate) fn gateway_closed(&self, slot: Slot, incarnation: u64) {
        let mut gateways = self.gateways.write().expect(UNPOISONED);
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
    }

    /// The link that serves a slot, if that very slot still has one and its credential may see
    /// the namespace.
    pub(crate) fn gateway(&self, slot: Slot, namespace: u32) -> Found {
        let gateways = self.gateways.read().expect(UNPOISONED);
        match gateways.at(slot) {
            Some(held) if held.grant.covers(namespace) => Found::At(held.place.clone()),
            Some(_) => Found::NotAllowed,
            None => Found::Gone,
        }
    }

    /// The link of a slot that is being replaced.
    pub(crate) fn link_of(&self, slot: Slot) -> Option<Place> {
        self.gateways.read().expect(UNPOISONED).at(slot).map(|held| held.place.clone())
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

    pub(crate) fn release_registrations(&self, count: usize) {
        self.registrations.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn consumer_opened(&self, consumer: ConsumerPlace) {
        self.consumers.write().expect(UNPOISONED).push(consumer);
    }

    pub(crate) fn consumer_closed(&self, shard: u16, link: LinkId) {
        self.consumers.write().expect(UNPOISONED).retain(|it| !it.place.is(shard, link));
    }

    /// The consumer for one user's uplinks: the same as long as the set of consumers is, and
    /// neighbouring users spread over them.
    pub(crate) fn consumer(&self, namespace: u32, uid: u64) -> Option<Place> {
        let consumers = self.consumers.read().expect(UNPOISONED);
        let eligible = || consumers.iter().filter(|it| it.grant.covers(namespace));
        let count = eligible().count() as u64;
        let pick = mix(uid.wrapping_add(u64::from(namespace) << 32)).checked_rem(count)?;
        eligible().nth(usize::try_from(pick).ok()?).map(|it| it.place.clone())
    }
}

/// Counts one more, unless there are as many as there may be.
fn take_one(counter: &AtomicU32, most: u32) -> bool {
    let taken = counter.fetch_add(1, Ordering::Relaxed) < most;
    if !taken {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
    taken
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("instance", &self.instance).finish_non_exhaustive()
    }
}

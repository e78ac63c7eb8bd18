//! Which links consume, in which groups, and which of them gets what.
//!
//! One consumer of each group is picked by rendezvous hashing over the consumers' instances: every
//! broker picks the same of the same set, and a consumer that comes or goes moves no user but its
//! own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use waybill_routing::filter::Fields;
use waybill_wire::code::capability;
use waybill_wire::digest::mix;
use waybill_wire::filter::Expression;
use waybill_wire::limits::GROUPS_MAX;

use self::filters::Filters;

use super::{Place, Shared, UNPOISONED};
use crate::auth::Grant;
use crate::io::LinkId;

mod filters;

#[derive(Clone, Debug)]
pub(crate) struct ConsumerPlace {
    place: Place,
    grant: Grant,
    instance: u64,
    capabilities: u64,
    groups: Groups,
    filters: Filters,
}

/// Where a consumer takes part.
#[derive(Clone, Debug)]
enum Groups {
    /// In the group without a name, in every namespace: it knows nothing of groups.
    Nameless,
    /// In one group in each of these.
    Named(BTreeMap<u32, Arc<str>>),
}

/// What consumers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feed {
    Uplinks,
    Presence,
    Offline,
}

impl ConsumerPlace {
    pub(crate) fn new(place: Place, grant: Grant, instance: u64, capabilities: u64) -> Self {
        let groups = if capabilities & capability::GROUPS == 0 {
            Groups::Nameless
        } else {
            Groups::Named(BTreeMap::new())
        };
        Self { place, grant, instance, capabilities, groups, filters: Filters::default() }
    }

    fn wants(&self, feed: Feed) -> bool {
        let needs = match feed {
            Feed::Uplinks => return true,
            Feed::Presence => capability::PRESENCE,
            Feed::Offline => capability::OFFLINE,
        };
        self.capabilities & needs != 0
    }

    /// The group it is in in a namespace, of which the one without a name is empty.
    fn group(&self, namespace: u32) -> Option<&str> {
        match &self.groups {
            _ if !self.grant.covers(namespace) => None,
            Groups::Nameless => Some(""),
            Groups::Named(named) => named.get(&namespace).map(AsRef::as_ref),
        }
    }

    /// Ties, which only links of one instance have, are broken by where they are.
    fn weight(&self, key: u64) -> (u64, u16, LinkId) {
        (mix(self.instance ^ key), self.place.shard, self.place.link)
    }
}

impl Shared {
    pub(crate) fn consumer_opened(&self, consumer: ConsumerPlace) {
        let mut consumers = self.consumers.write().expect(UNPOISONED);
        consumers.push(consumer);
        self.count_wishes(&consumers);
    }

    /// How many there are, and how many terms their filters have together.
    pub(crate) fn consumers_load(&self) -> (usize, usize) {
        let load = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        (load(&self.consumers_open), load(&self.consumers_terms))
    }

    pub(crate) fn consumer_closed(&self, shard: u16, link: LinkId) {
        let mut consumers = self.consumers.write().expect(UNPOISONED);
        consumers.retain(|it| !it.place.is(shard, link));
        self.count_wishes(&consumers);
    }

    fn count_wishes(&self, consumers: &[ConsumerPlace]) {
        let any = |feed| consumers.iter().any(|it| it.wants(feed));
        // Relaxed: a hint, under whose shadow the list is looked at.
        self.presence_wanted.store(any(Feed::Presence), Ordering::Relaxed);
        self.offline_wanted.store(any(Feed::Offline), Ordering::Relaxed);
        self.consumers_open.store(consumers.len(), Ordering::Relaxed);
        self.count_terms(consumers);
    }

    fn count_terms(&self, consumers: &[ConsumerPlace]) {
        let terms = consumers.iter().map(|it| it.filters.terms()).sum();
        self.consumers_terms.store(terms, Ordering::Relaxed);
    }

    /// Whether any consumer wants a feed at all: without one nothing is prepared for it.
    pub(crate) fn is_wanted(&self, feed: Feed) -> bool {
        match feed {
            Feed::Uplinks => true,
            Feed::Presence => self.presence_wanted.load(Ordering::Relaxed),
            Feed::Offline => self.offline_wanted.load(Ordering::Relaxed),
        }
    }

    /// Puts a consumer into a group of a namespace, in the place of the one it was in there;
    /// `false` if it is in too many.
    pub(crate) fn consumer_joins(
        &self,
        shard: u16,
        link: LinkId,
        namespace: u32,
        name: &str,
    ) -> bool {
        let mut consumers = self.consumers.write().expect(UNPOISONED);
        let consumer = consumers.iter_mut().find(|it| it.place.is(shard, link));
        let Some(Groups::Named(named)) = consumer.map(|it| &mut it.groups) else { return true };
        let fits = named.len() < GROUPS_MAX || named.contains_key(&namespace);
        if fits {
            named.insert(namespace, name.into());
        }
        fits
    }

    /// Takes a consumer out of a group, if it is in that one.
    pub(crate) fn consumer_parts(&self, shard: u16, link: LinkId, namespace: u32, name: &str) {
        let mut consumers = self.consumers.write().expect(UNPOISONED);
        let consumer = consumers.iter_mut().find(|it| it.place.is(shard, link));
        if let Some(Groups::Named(named)) = consumer.map(|it| &mut it.groups)
            && named.get(&namespace).is_some_and(|held| **held == *name)
        {
            named.remove(&namespace);
        }
    }

    /// A consumer wants what this expression is true for, and no longer what the one with the same
    /// number was; or refuses with the limit that this would go beyond.
    pub(crate) fn consumer_filters(
        &self,
        (shard, link): (u16, LinkId),
        namespace: u32,
        number: u32,
        expression: Expression,
    ) -> Result<(), &'static str> {
        let mut consumers = self.consumers.write().expect(UNPOISONED);
        let consumer = consumers.iter_mut().find(|it| it.place.is(shard, link));
        consumer.map_or(Ok(()), |it| it.filters.install(namespace, number, expression))?;
        self.count_terms(&consumers);
        Ok(())
    }

    /// Takes a filter away, if it is there.
    pub(crate) fn consumer_unfilters(
        &self,
        (shard, link): (u16, LinkId),
        namespace: u32,
        number: u32,
    ) {
        let mut consumers = self.consumers.write().expect(UNPOISONED);
        if let Some(consumer) = consumers.iter_mut().find(|it| it.place.is(shard, link)) {
            consumer.filters.remove(namespace, number);
            self.count_terms(&consumers);
        }
    }

    /// The consumers that get something of one user: one of each group that has one who wants it,
    /// in the order of the groups' names.
    pub(crate) fn consumers_for(
        &self,
        feed: Feed,
        user: (u32, u64),
        fields: &Fields<'_>,
    ) -> Vec<Place> {
        self.consumers_staying(feed, user, fields, |_| false)
    }

    /// The same, but a consumer that the user `stays` with is picked in its group before any other:
    /// one that comes later must not be given what follows on something without an answer (promise
    /// 2).
    pub(crate) fn consumers_staying(
        &self,
        feed: Feed,
        (namespace, uid): (u32, u64),
        fields: &Fields<'_>,
        stays: impl Fn(&Place) -> bool,
    ) -> Vec<Place> {
        let key = mix(uid.wrapping_add(mix(namespace.into())));
        let consumers = self.consumers.read().expect(UNPOISONED);
        let mut picked: BTreeMap<&str, &ConsumerPlace> = BTreeMap::new();
        for consumer in consumers.iter().filter(|it| it.wants(feed)) {
            let Some(group) = consumer.group(namespace) else { continue };
            if !consumer.filters.want(namespace, fields) {
                continue;
            }
            let held = picked.entry(group).or_insert(consumer);
            let weight = |it: &ConsumerPlace| (stays(&it.place), it.weight(key));
            if weight(consumer) > weight(held) {
                *held = consumer;
            }
        }
        picked.into_values().map(|it| it.place.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use waybill_wire::code::Event;

    use super::*;
    use crate::config::BrokerConfig;
    use crate::outbox::Room;

    fn consumer(shared: &Shared, link: u64, instance: u64, capabilities: u64) -> ConsumerPlace {
        let grant = shared.credentials.judge(b"", waybill_wire::code::Role::CONSUMER).unwrap();
        let (link, peer, room) = (LinkId(link), None, Room::new(1));
        let place = Place { shard: 0, link, peer, room, tags: false, fragments: false };
        ConsumerPlace::new(place, grant, instance, capabilities)
    }

    fn picks(shared: &Shared, feed: Feed, namespace: u32, uid: u64) -> Vec<u64> {
        let fields = Fields::of_presence(Event::LOGIN, &uid, 0);
        shared.consumers_for(feed, (namespace, uid), &fields).iter().map(|it| it.link.0).collect()
    }

    fn shared() -> Shared {
        Shared::new(BrokerConfig::default(), 1, 1)
    }

    #[test]
    fn every_broker_picks_the_same_of_the_same_set_whatever_order_they_came_in() {
        let (one, other) = (shared(), shared());
        for instance in [11, 12, 13] {
            one.consumer_opened(consumer(&one, instance, instance, 0));
        }
        for instance in [13, 11, 12] {
            other.consumer_opened(consumer(&other, instance, instance, 0));
        }
        let mut counts = BTreeMap::<u64, usize>::new();
        for uid in 0..3_000 {
            let picked = picks(&one, Feed::Uplinks, 7, uid);
            assert_eq!(picked, picks(&other, Feed::Uplinks, 7, uid));
            *counts.entry(picked[0]).or_default() += 1;
        }
        assert!(counts.values().all(|count| (850..1_150).contains(count)), "{counts:?}");
        // Whoever goes takes no other's users along.
        let before: Vec<_> = (0..3_000).map(|uid| picks(&one, Feed::Uplinks, 7, uid)[0]).collect();
        one.consumer_closed(0, LinkId(12));
        for (uid, before) in (0..3_000).zip(before) {
            let now = picks(&one, Feed::Uplinks, 7, uid)[0];
            assert!(now == before || before == 12, "{uid} moved from {before} to {now}");
        }
    }

    #[test]
    fn promise_2_a_user_stays_with_the_consumer_that_owes_an_answer() {
        let shared = shared();
        shared.consumer_opened(consumer(&shared, 1, 1, 0));
        shared.consumer_opened(consumer(&shared, 2, 2, 0));
        let staying = |uid, link| {
            let stays = |place: &Place| place.is(0, LinkId(link));
            let fields = Fields::of_presence(Event::LOGIN, &uid, 0);
            shared.consumers_staying(Feed::Uplinks, (7, uid), &fields, stays)[0].link.0
        };
        assert!((0..100).all(|uid| staying(uid, 1) == 1 && staying(uid, 2) == 2));
        // With one that has gone nobody stays.
        assert!((0..100).all(|uid| [staying(uid, 3)][..] == picks(&shared, Feed::Uplinks, 7, uid)));
    }

    #[test]
    fn each_group_gets_one_and_a_link_without_a_group_gets_nothing() {
        let shared = shared();
        shared.consumer_opened(consumer(&shared, 1, 1, 0));
        for link in 2..=4 {
            shared.consumer_opened(consumer(&shared, link, link, capability::GROUPS));
        }
        assert_eq!(picks(&shared, Feed::Uplinks, 0, 9), [1]);
        for link in [2, 3] {
            assert!(shared.consumer_joins(0, LinkId(link), 0, "orders"));
        }
        assert!(shared.consumer_joins(0, LinkId(4), 0, "audit"));
        let picked = picks(&shared, Feed::Uplinks, 0, 9);
        assert_eq!((picked.len(), picked[0], picked[1]), (3, 1, 4));
        assert!([2, 3].contains(&picked[2]));
        assert_eq!(picks(&shared, Feed::Uplinks, 1, 9), [1], "groups are a namespace's");
        // Joining another moves it, and leaving one it is not in does nothing.
        assert!(shared.consumer_joins(0, LinkId(4), 0, "orders"));
        shared.consumer_parts(0, LinkId(4), 0, "audit");
        assert_eq!(picks(&shared, Feed::Uplinks, 0, 9).len(), 2);
        (2..=4).for_each(|link| shared.consumer_parts(0, LinkId(link), 0, "orders"));
        assert_eq!(picks(&shared, Feed::Uplinks, 0, 9), [1]);
    }

    #[test]
    fn promise_7_a_link_is_in_so_many_groups_and_no_more() {
        let shared = shared();
        shared.consumer_opened(consumer(&shared, 1, 1, capability::GROUPS));
        for namespace in 0..64 {
            assert!(shared.consumer_joins(0, LinkId(1), namespace, "orders"));
        }
        assert!(!shared.consumer_joins(0, LinkId(1), 64, "orders"));
        assert!(shared.consumer_joins(0, LinkId(1), 63, "audit"), "a move takes no more");
    }

    #[test]
    fn a_feed_goes_to_those_that_offer_it() {
        let shared = shared();
        shared.consumer_opened(consumer(&shared, 1, 1, 0));
        assert!(!shared.is_wanted(Feed::Presence) && !shared.is_wanted(Feed::Offline));
        shared.consumer_opened(consumer(&shared, 2, 2, capability::PRESENCE));
        shared.consumer_opened(consumer(&shared, 3, 3, capability::OFFLINE));
        assert_eq!(picks(&shared, Feed::Presence, 0, 9), [2]);
        assert_eq!(picks(&shared, Feed::Offline, 0, 9), [3]);
        shared.consumer_closed(0, LinkId(3));
        assert!(shared.is_wanted(Feed::Presence) && !shared.is_wanted(Feed::Offline));
    }

    #[test]
    fn flt_6_of_a_group_one_is_picked_that_wants_the_frame() {
        let shared = shared();
        for link in 1..=3 {
            shared.consumer_opened(consumer(&shared, link, link, capability::GROUPS));
            let group = if link == 3 { "audit" } else { "orders" };
            assert!(shared.consumer_joins(0, LinkId(link), 7, group));
        }
        let filter = |link, number, text| {
            let expression = waybill_wire::filter::parse(text).unwrap();
            shared.consumer_filters((0, LinkId(link)), 7, number, expression).unwrap();
        };
        filter(1, 1, "uid=0..9");
        filter(1, 2, "uid=20");
        filter(2, 1, "uid=10..19");
        filter(3, 1, "uid=5");
        let picked = |uid| picks(&shared, Feed::Uplinks, 7, uid);
        assert_eq!([0, 5, 10, 20, 21].map(picked), [vec![1], vec![3, 1], vec![2], vec![1], vec![]]);
        // In its place there is another one, and without any it wants all.
        filter(1, 1, "uid=21");
        shared.consumer_unfilters((0, LinkId(3)), 7, 1);
        shared.consumer_unfilters((0, LinkId(3)), 7, 9);
        assert_eq!([0, 5, 21].map(picked), [vec![3], vec![3], vec![3, 1]]);
    }
}

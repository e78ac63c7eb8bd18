//! What must be true of the feeds of consumers: logins and logouts, and messages for users who were
//! offline.
//!
//! Each group hears of everything in its namespaces, through whichever member a broker picks. So
//! that something *must* be told is said only where the links of all members to one broker, and of
//! the gateway, were undisturbed to the end.

use std::collections::{BTreeMap, BTreeSet};

use waybill_client::{OfflineMessage, PresenceEvent};
use waybill_wire::code::Event;

use super::{Message, Oracle, Part, Verdict, number_of};
use crate::scenario::{Groups, SECOND};

/// Time a gateway has to see that a client has gone.
const NOTICED: u64 = 12 * SECOND;

/// Time within which a broker finds a link dead and the links after it take its place.
const BURIED: u64 = 6 * SECOND;

/// Consumers and what they were told.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    /// By consumer and broker: since when the link is undisturbed.
    links: BTreeMap<(usize, usize), u64>,
    /// Group, what, registration by the number of its user and its gateway's incarnation.
    presence: BTreeSet<(usize, Event, usize, u64)>,
    /// By group and message.
    offline: BTreeMap<(usize, u64), BTreeSet<u64>>,
}

/// Who consumes, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Consumers {
    /// How many there are.
    pub(crate) count: usize,
    /// Their groups.
    pub(crate) groups: Groups,
    /// Whether they are told of logins and of who was offline.
    pub(crate) feeds: bool,
}

impl Consumers {
    fn group_of(self, consumer: usize) -> usize {
        if self.groups == Groups::Own { consumer } else { 0 }
    }

    fn groups(self) -> usize {
        if self.groups == Groups::Own { self.count } else { self.count.min(1) }
    }

    fn serves(self, namespace: u32) -> bool {
        namespace == 0 || self.groups != Groups::OneNamespace
    }
}

impl Oracle {
    /// A consumer's link is there.
    pub(crate) fn consumer_linked(&mut self, consumer: usize, broker: usize) {
        // Until then a link that it had before, and that the broker does not know to be dead, may
        // be picked in its place.
        let since = self.now + BURIED;
        self.feeds.links.insert((consumer, broker), since);
    }

    /// Something was done to it, or it went.
    pub(crate) fn consumer_unsure(&mut self, consumer: usize, broker: usize) {
        self.feeds.links.remove(&(consumer, broker));
    }

    /// Every member of the group had an undisturbed link to the broker from then on.
    fn group_hears(&self, of: Consumers, group: usize, broker: usize, since: u64) -> bool {
        let mut members = (0..of.count).filter(|consumer| of.group_of(*consumer) == group);
        members.all(|consumer| {
            self.feeds.links.get(&(consumer, broker)).is_some_and(|sure| *sure <= since)
        })
    }

    /// Nothing comes from a namespace that the consumer is in no group of.
    pub(crate) fn of_its_namespace(of: Consumers, namespace: u32) {
        assert!(of.serves(namespace), "promise 1: namespace {namespace} is none of its group's");
    }

    /// A consumer was told that a user came or went.
    pub(crate) fn presence(&mut self, of: Consumers, consumer: usize, event: &PresenceEvent) {
        Self::of_its_namespace(of, event.namespace);
        let who = (event.namespace, event.uid);
        let user = usize::try_from(event.login).expect("logins are numbers of users");
        let real =
            |it: &super::Stay| it.user == user && it.who == who && it.incarnation == event.gateway;
        assert!(self.stays.iter().any(real), "presence: of nobody who was there: {event:?}");
        let told = (of.group_of(consumer), event.event, user, event.gateway);
        self.feeds.presence.insert(told);
    }

    /// A consumer was given a message for users who were offline.
    pub(crate) fn offline(&mut self, of: Consumers, consumer: usize, message: &OfflineMessage) {
        Self::of_its_namespace(of, message.namespace);
        let number = number_of(&message.payload);
        assert_eq!(message.payload, self.payload_of(number), "the payload is opaque: {number}");
        let published = self.message(number);
        for uid in &message.uids {
            let asked = published.is_for((message.namespace, *uid));
            assert!(asked, "promise 1: offline feed: {uid} was not asked for: {published:?}");
        }
        let told = self.feeds.offline.entry((of.group_of(consumer), number)).or_default();
        told.extend(&message.uids);
    }

    /// What feeds have told, when all is over.
    ///
    /// # Panics
    ///
    /// Something is missing, or was told and is not true.
    pub(crate) fn judge_feeds(&self, of: Consumers) {
        if !of.feeds || self.tight || self.feeds_dropped {
            return;
        }
        for group in 0..of.groups() {
            (0..self.stays.len()).for_each(|stay| self.judge_presence(of, group, stay));
            for (number, message) in self.messages.iter().enumerate() {
                self.judge_offline(of, group, number as u64, message);
            }
        }
    }

    fn judge_presence(&self, of: Consumers, group: usize, place: usize) {
        let stay = &self.stays[place];
        let same = |it: &super::Stay| it.user == stay.user && it.incarnation == stay.incarnation;
        // The only one of its registration at this gateway: what is told is told of it.
        if !of.serves(stay.who.0) || self.stays.iter().filter(|it| same(it)).count() > 1 {
            return;
        }
        for (&broker, &(_, since)) in &stay.known {
            let link = self.links.get(&(stay.gateway, broker)).and_then(|spans| spans.last());
            let linked = link.is_some_and(|it| it.to.is_none() && it.from <= stay.at);
            let ready = stay.brokers_ready.contains(&broker);
            let hears = self.group_hears(of, group, broker, stay.at);
            if !(linked && ready && hears && since.is_some()) {
                continue;
            }
            let told =
                |event| self.feeds.presence.contains(&(group, event, stay.user, stay.incarnation));
            let words = (group, broker, stay);
            assert!(told(Event::LOGIN), "presence: no login: {words:?}");
            let over = stay.gone_at.is_some_and(|at| at + NOTICED < self.now);
            assert!(!over || told(Event::LOGOUT), "presence: no logout: {words:?}");
        }
    }

    fn judge_offline(&self, of: Consumers, group: usize, number: u64, message: &Message) {
        let once: Option<Vec<_>> = message.parts.iter().map(Part::once).collect();
        let Some(once) = once else { return };
        let Some((_, Verdict { receipt: Some(receipt) })) = &message.settled else { return };
        let comparable = message.receipted && message.list && !receipt.in_doubt;
        if !comparable || !of.serves(message.namespace) {
            return;
        }
        let nobody = BTreeSet::new();
        let told = self.feeds.offline.get(&(group, number)).unwrap_or(&nobody);
        let offline: BTreeSet<u64> = receipt.offline.iter().copied().collect();
        let words = (group, &once, number, message);
        if let Some(uid) = told.difference(&offline).next() {
            panic!("offline feed: {uid} was not: {words:?}");
        }
        // What gateways report is not in the feed.
        if message.delivered {
            return;
        }
        let brokers = once.iter().map(|(_, broker)| *broker);
        let hears = brokers.map(|broker| self.group_hears(of, group, broker, message.at));
        let hears: Vec<bool> = hears.collect();
        for uid in offline.difference(told) {
            let heard = message.place(*uid).is_some_and(|part| hears[part]);
            assert!(!heard, "offline feed: {uid} is missing: {words:?}");
        }
    }
}

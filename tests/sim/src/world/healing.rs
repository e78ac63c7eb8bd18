//! The end of a run: faults stop, everybody comes back, and what must be true then is checked.

use std::collections::{BTreeMap, BTreeSet};

use waybill_client::Publish;

use super::users::User;
use super::{Actor, Event, World};
use crate::scenario::SECOND;

/// Time the cluster has to heal: silence found out, back-off, a snapshot, a login.
const HEAL: u64 = 25 * SECOND;

/// Time the last messages have.
const LAST: u64 = 4 * SECOND;

impl World {
    pub(super) fn heal(&mut self) {
        self.note(|_| "faults stop".into());
        self.healing = true;
        for actor in self.actors() {
            self.resume(actor);
            self.restart(actor);
        }
        for user in 0..self.users.len() {
            self.users[user].displaced = false;
            self.soon(SECOND, Event::User { user });
        }
        self.run_for(HEAL);
        self.all_is_well();
        let online = self.online();
        self.last_round(&online);
        if self.scenario.tags {
            self.last_tags(&online);
        }
        self.check_bounds();
        self.ledgers_agree();
    }

    fn actors(&self) -> Vec<Actor> {
        let brokers = (0..self.brokers.len()).map(Actor::Broker);
        let gateways = (0..self.gateways.len()).map(Actor::Gateway);
        let producers = (0..self.producers.len()).map(Actor::Producer);
        let consumers = (0..self.consumers.len()).map(Actor::Consumer);
        brokers.chain(gateways).chain(producers).chain(consumers).collect()
    }

    /// Whether it wants to be online, and no other login of the same user that does has to win.
    pub(super) fn may_stay(&self, user: &User) -> bool {
        !user.away && !self.users.iter().any(|other| user.yields_to(other, self.scenario.logins))
    }

    fn all_is_well(&self) {
        for user in &self.users {
            let ready = |at: &&usize| self.sockets[**at].open && self.sockets[**at].ready;
            let online = user.sockets.iter().filter(ready).count();
            let due = usize::from(self.may_stay(user));
            assert_eq!(online, due, "liveness: {:?} online", user.who());
        }
        for (number, gateway) in self.gateways.iter().enumerate() {
            let up = gateway.sim.stats().links_up;
            let all = self.brokers.len() as u64;
            assert_eq!(up, all, "liveness: links of gateway {number}");
        }
        (0..self.brokers.len()).for_each(|broker| self.nothing_is_left(broker));
        self.oracle.all_settled();
    }

    /// By namespace, those who are to be online when all is well.
    fn online(&self) -> BTreeMap<u32, BTreeSet<u64>> {
        let mut online: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for user in self.users.iter().filter(|it| !it.away) {
            let (namespace, uid) = user.who();
            online.entry(namespace).or_default().insert(uid);
        }
        online
    }

    /// Through each broker one message for everybody there is and some there are not.
    fn last_round(&mut self, online: &BTreeMap<u32, BTreeSet<u64>>) {
        let mut last = Vec::new();
        for broker in 0..self.brokers.len() {
            self.add_producer(Some(broker));
            for namespace in 0..2 {
                let all: Vec<u64> = (1..=self.scenario.uids + 2).collect();
                let publish = Publish::to(all).namespace(namespace);
                let number = self.publish(self.producers.len() - 1, publish, None);
                last.push((number, broker, namespace));
            }
        }
        self.run_for(LAST);
        let nobody = BTreeSet::new();
        for (number, broker, namespace) in last {
            let here = online.get(&namespace).unwrap_or(&nobody);
            self.oracle.last_reached(number, broker, here);
            for user in self.users.iter().filter(|it| it.who().0 == namespace) {
                let copies = user.sockets.iter().filter(|at| self.oracle.has(**at, number));
                let copies = copies.count();
                let due = usize::from(self.may_stay(user));
                assert_eq!(copies, due, "liveness: {:?} and last message {number}", user.who());
            }
        }
    }

    /// What brokers say was read is what gateways read, as far as nobody was killed with what it
    /// knew.
    fn ledgers_agree(&self) {
        let brokers = self.brokers.iter().map(|it| &it.process);
        if brokers.chain(self.gateways.iter().map(|it| &it.process)).any(|it| it.killed) {
            return;
        }
        let read = self.gateways.iter().map(|it| it.read_before + it.sim.stats().frames_in());
        let read: u64 = read.sum();
        let (mut least, mut most) = (0, 0);
        for broker in 0..self.brokers.len() {
            let said = self.read_by_gateways(broker);
            (least, most) = (least + said[0], most + said[1]);
        }
        let agree = (least..=most).contains(&read);
        assert!(agree, "promise 5: gateways read {read}, brokers say {least} to {most}");
    }

    /// Promises 5 and 7, at a moment like any other.
    pub(super) fn check_bounds(&self) {
        for gateway in &self.gateways {
            let stats = gateway.sim.stats();
            assert_eq!(stats.balances(), Ok(()), "promise 5: {stats:?}");
        }
        for broker in 0..self.brokers.len() {
            self.broker_tables(broker);
            let ledger = self.ledger(broker);
            if let Err(words) = ledger.balances() {
                panic!("promise 5: broker {broker}: {words}");
            }
            // Nonsense, or silence. What a stranger says may be cut off before it can be seen to be
            // nonsense, and a link that something was done to need not fall silent: no equality.
            let (faulted, suspects) = (ledger.links_faulted, self.brokers[broker].suspects);
            assert!(
                faulted <= suspects,
                "promise 10: {faulted} links faulted, {suspects} suspects"
            );
        }
    }
}

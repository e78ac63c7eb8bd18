//! Random lives of a small cluster in the simulator, against a naive model of who is where.
//!
//! Every choice follows from the seed in the name of a failure: put it into `SEEDS` to replay it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_broker::BrokerConfig;
use waybill_wire::code::Op;
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Net};
use crate::talk::{Delivery, Gateway, Producer};

const SEEDS: Range<u64> = 0..400;
const STEPS: usize = 60;
const USERS: u64 = 12;

/// What should be true of one gateway.
struct Expected {
    gateway: Gateway,
    users: BTreeSet<u64>,
    deliveries: Vec<(u64, u64, Vec<u64>)>,
}

struct World {
    net: Net,
    random: SmallRng,
    gateways: BTreeMap<u64, Expected>,
    producers: Vec<(u64, Producer, u64)>,
    incarnations: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let shards = random.random_range(1..4);
        let mut net = Net::start(Backend::Sim(shards, seed), BrokerConfig::default());
        let producers =
            (0..2).map(|it| (100 + it, Producer::link(&mut net, 100 + it), 0)).collect();
        Self { net, random, gateways: BTreeMap::new(), producers, incarnations: 0 }
    }

    fn some_users(&mut self) -> Vec<u64> {
        let count = self.random.random_range(0..8);
        (0..count).map(|_| self.random.random_range(0..USERS)).collect()
    }

    fn some_gateway(&mut self) -> Option<u64> {
        let at = self.random.random_range(0..self.gateways.len().max(1));
        self.gateways.keys().nth(at).copied()
    }

    fn step(&mut self) {
        match self.random.random_range(0..12) {
            0 | 1 if self.gateways.len() < 5 => self.gateway_comes(),
            0 | 1 => self.gateway_goes(),
            2 | 3 => self.gateway_changes(),
            4 => self.gateway_links_again(),
            5 => self.garbage(),
            6 => self.net.advance(Duration::from_millis(300)),
            7 => self.everyone(),
            _ => self.publish(),
        }
    }

    fn gateway_comes(&mut self) {
        self.incarnations += 1;
        let users = self.some_users().into_iter().collect::<BTreeSet<_>>();
        let list: Vec<u64> = users.iter().copied().collect();
        let gateway = Gateway::link(&mut self.net, self.incarnations, &list);
        let expected = Expected { gateway, users, deliveries: Vec::new() };
        self.gateways.insert(self.incarnations, expected);
    }

    /// Ends politely or with a reset.
    fn gateway_goes(&mut self) {
        let Some(number) = self.some_gateway() else { return };
        let mut gone = self.gateways.remove(&number).unwrap();
        self.check(&mut gone);
        if self.random.random() {
            self.net.close(gone.gateway.line);
        } else {
            self.net.reset(gone.gateway.line);
        }
    }

    fn gateway_changes(&mut self) {
        let Some(number) = self.some_gateway() else { return };
        let users = self.some_users();
        if users.is_empty() {
            return;
        }
        let mut it = self.gateways.remove(&number).unwrap();
        self.check(&mut it);
        if self.random.random() {
            it.users.extend(&users);
            it.gateway.change(&mut self.net, Op::ADD, &users);
        } else {
            it.users.retain(|uid| !users.contains(uid));
            it.gateway.change(&mut self.net, Op::REMOVE, &users);
        }
        self.gateways.insert(number, it);
    }

    /// The same life of a gateway takes a new link, with another set of users.
    fn gateway_links_again(&mut self) {
        let Some(number) = self.some_gateway() else { return };
        let mut older = self.gateways.remove(&number).unwrap();
        self.check(&mut older);
        let users = self.some_users().into_iter().collect::<BTreeSet<_>>();
        let list: Vec<u64> = users.iter().copied().collect();
        let gateway = Gateway::link(&mut self.net, number, &list);
        let expected = Expected { gateway, users, deliveries: Vec::new() };
        self.gateways.insert(number, expected);
    }

    fn garbage(&mut self) {
        let line = self.net.connect();
        let bytes: Vec<u8> =
            (0..self.random.random_range(1..300)).map(|_| self.random.random()).collect();
        self.net.send(line, &bytes);
        if self.random.random() {
            self.net.reset(line);
        } else {
            self.net.close(line);
        }
    }

    fn publish(&mut self) {
        let targets = self.some_users();
        if targets.is_empty() {
            return;
        }
        let except = if self.random.random() { self.some_users() } else { Vec::new() };
        let at = self.random.random_range(0..self.producers.len());
        let (instance, producer, sequence) = &mut self.producers[at];
        *sequence += 1;
        let head = MessageHead { except: (&except).into(), ..MessageHead::default() };
        let receipt = producer.publish_with(&mut self.net, head, &targets, b"x");
        let mut distinct = Vec::new();
        for uid in targets {
            if !distinct.contains(&uid) {
                distinct.push(uid);
            }
        }
        let (filtered, wanted): (Vec<u64>, Vec<u64>) =
            distinct.into_iter().partition(|uid| except.contains(uid));
        let (mut sent, mut gateways) = (BTreeSet::<u64>::new(), 0);
        for expected in self.gateways.values_mut() {
            let mine: Vec<u64> =
                wanted.iter().copied().filter(|uid| expected.users.contains(uid)).collect();
            if !mine.is_empty() {
                sent.extend(&mine);
                gateways += 1;
                expected.deliveries.push((*instance, *sequence, mine));
            }
        }
        let offline: Vec<u64> = wanted.into_iter().filter(|uid| !sent.contains(uid)).collect();
        assert_eq!((receipt.offline, receipt.filtered), (offline, filtered));
        assert_eq!((receipt.sent as usize, receipt.gateways), (sent.len(), gateways));
    }

    fn everyone(&mut self) {
        let (instance, producer, sequence) = &mut self.producers[0];
        *sequence += 1;
        let head = MessageHead { everyone: true, ..MessageHead::default() };
        producer.publish_with(&mut self.net, head, &[], b"x");
        for expected in self.gateways.values_mut().filter(|it| !it.users.is_empty()) {
            expected.deliveries.push((*instance, *sequence, Vec::new()));
        }
    }

    /// Everything that should have come has come, in order, and nothing else (promises 1, 2, 3).
    fn check(&mut self, expected: &mut Expected) {
        for (instance, sequence, targets) in expected.deliveries.drain(..) {
            let Delivery { origin, sequence: came, targets: mine, .. } =
                expected.gateway.delivery(&mut self.net);
            assert_eq!((origin, came, mine), (Some(instance), sequence, targets));
        }
    }

    fn finish(mut self) {
        for (_, mut expected) in std::mem::take(&mut self.gateways) {
            self.check(&mut expected);
            self.net.close(expected.gateway.line);
        }
        self.net.finish();
    }
}

#[test]
fn promises_1_2_3_5_and_8_hold_in_random_lives() {
    for seed in SEEDS {
        let life = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            world.finish();
        });
        assert!(life.is_ok(), "seed {seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_life() {
    let life = |seed| {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        (world.net.ledger(), world.random.random::<u64>())
    };
    for seed in 0..20 {
        assert_eq!(life(seed), life(seed), "seed {seed}");
    }
}

//! Exclusive logins: who is told to go, by which link, and what consumers hear of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use waybill_broker::limits::{CONTROL_BYTES_MAX, FOLLOW_STEPS, TICK_MS};
use waybill_broker::{BrokerConfig, LoginPolicy, LoginsConfig};
use waybill_wire::Frame;
use waybill_wire::code::{Event, Op, Role, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Barrier, Delta, Displaced, Record, Resume, Snapshot};
use waybill_wire::limits::RECORDS_MAX;

use crate::support::{Backend, Line, Net, backends, everywhere};
use crate::talk::{Producer, encode, fence, hello_in_session, in_effect, link_offering};

/// Namespaces with these policies.
const ALL: u32 = 0;
const ONE: u32 = 1;
const ONE_PER_CLASS: u32 = 2;

fn config() -> BrokerConfig {
    let of = |namespace, policy| LoginsConfig { namespace, policy };
    BrokerConfig {
        logins: vec![of(ONE, LoginPolicy::One), of(ONE_PER_CLASS, LoginPolicy::OnePerDeviceClass)],
        // Ends in no test, however slow the machine.
        resume_window_ms: 600_000,
        keepalive_ms: 0,
        ..BrokerConfig::default()
    }
}

fn login(namespace: u32, uid: u64, device_class: u8, login: u64) -> Registered {
    Registered { namespace, uid, device_class, login }
}

fn records<'a>(op: Op, of: impl IntoIterator<Item = &'a Registered>) -> Vec<Record> {
    let record = |it: &Registered| {
        let Registered { namespace, uid, device_class, login } = *it;
        Record { uid, login, namespace, op, device_class }
    };
    of.into_iter().map(record).collect()
}

/// A gateway's link, and what it has declared.
struct Host {
    line: Line,
    session: u64,
    version: u64,
    declared: BTreeSet<Registered>,
}

impl Host {
    fn hello(net: &mut Net, incarnation: u64, session: u64) -> Self {
        let line = net.connect();
        net.send(line, &hello_in_session(Role::GATEWAY, incarnation, session, capability::RESUME));
        let frame = net.frame(line).expect("WELCOME");
        let Ok(Frame::Welcome(welcome)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert_eq!(welcome.resumed, session != 0);
        Self { line, session: welcome.session, version: 1, declared: BTreeSet::new() }
    }

    /// Links with these logins.
    fn link(net: &mut Net, incarnation: u64, logins: &[Registered]) -> Self {
        let mut host = Self::hello(net, incarnation, 0);
        host.snapshot(net, logins);
        host.in_effect(net);
        host
    }

    fn snapshot(&mut self, net: &mut Net, logins: &[Registered]) {
        self.declared = logins.iter().copied().collect();
        let records = records(Op::ADD, logins);
        let frames = records.chunks(RECORDS_MAX).count().max(1);
        for at in 0..frames {
            let some = records.chunks(RECORDS_MAX).nth(at).unwrap_or_default();
            let (first, last) = (at == 0, at + 1 == frames);
            let snapshot = Snapshot { first, last, version: 1, records: some.into() };
            net.send(self.line, &encode(&Frame::Snapshot(snapshot)));
        }
    }

    /// Its link has ended; another one goes on with the session.
    fn resume(self, net: &mut Net, incarnation: u64) -> Self {
        let host = Self::hello(net, incarnation, self.session);
        let frame = net.frame(host.line).expect("RESUMED");
        assert!(matches!(Frame::decode(&frame), Ok(Frame::Resumed(_))), "{frame:02x?}");
        let (session, version, digest) = (self.session, self.version, self.digest());
        net.send(host.line, &encode(&Frame::Resume(Resume { session, version, digest })));
        let host = Self { declared: self.declared, version, ..host };
        host.in_effect(net);
        host
    }

    /// Sends a DELTA and a BARRIER, and waits for nothing.
    fn change(&mut self, net: &mut Net, op: Op, logins: &[Registered]) {
        for login in logins {
            if op == Op::ADD {
                self.declared.insert(*login)
            } else {
                self.declared.remove(login)
            };
        }
        self.version += 1;
        let (version, records) = (self.version, records(op, logins));
        net.send(self.line, &encode(&Frame::Delta(Delta { version, records: (&records).into() })));
        let barrier = Barrier { version, digest: self.digest() };
        net.send(self.line, &encode(&Frame::Barrier(barrier)));
    }

    fn add(&mut self, net: &mut Net, logins: &[Registered]) {
        self.change(net, Op::ADD, logins);
        self.in_effect(net);
    }

    fn remove(&mut self, net: &mut Net, logins: &[Registered]) {
        self.change(net, Op::REMOVE, logins);
        self.in_effect(net);
    }

    fn digest(&self) -> u64 {
        self.declared.iter().copied().collect::<Digest>().value()
    }

    fn in_effect(&self, net: &mut Net) {
        in_effect(net, self.line, self.version, self.digest());
    }

    /// The next thing it hears is that this login lost.
    fn loses(&self, net: &mut Net, lost: Registered, winner: u64) {
        let Registered { namespace, uid, device_class, login } = lost;
        let expected = Displaced { device_class, namespace, uid, login, winner };
        let frame = net.frame(self.line).expect("DISPLACED");
        assert_eq!(Frame::decode(&frame), Ok(Frame::Displaced(expected)));
    }

    /// Nothing has come. On sockets what is on its way between shards might come later still: there
    /// only what is wrong often is found.
    fn hears_nothing(&self, net: &mut Net) {
        net.pass_time();
        fence(net, self.line);
    }
}

fn presence(net: &mut Net, consumer: Line) -> (Event, Registered, u64) {
    let frame = net.frame(consumer).expect("PRESENCE");
    let Ok(Frame::Presence(it)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
    (it.event, login(it.namespace, it.uid, it.device_class, it.login), it.gateway)
}

/// What consumers hear of each registration, in its order.
fn heard(net: &mut Net, consumer: Line, count: usize) -> BTreeMap<(Registered, u64), Vec<Event>> {
    let mut all = BTreeMap::<_, Vec<_>>::new();
    for _ in 0..count {
        let (event, registered, gateway) = presence(net, consumer);
        all.entry((registered, gateway)).or_default().push(event);
    }
    all
}

#[test]
fn promise_8_of_one_user_the_highest_login_stands_and_the_other_is_routed_to_until_it_goes() {
    // LOG-2, LOG-4.
    everywhere(&config(), |net| {
        let (low, high) = (login(ONE, 7, 1, 5), login(ONE, 7, 2, 9));
        let mut loser = Host::link(net, 1, &[low]);
        let winner = Host::link(net, 2, &[high]);
        loser.loses(net, low, 9);
        let mut producer = Producer::link(net, 3);
        let head = || waybill_wire::message::MessageHead { namespace: ONE, ..Default::default() };
        assert_eq!(producer.publish_with(net, head(), &[7], b"both").gateways, 2);
        for host in [&loser, &winner] {
            let frame = net.frame(host.line).expect("DELIVER");
            assert!(matches!(Frame::decode(&frame), Ok(Frame::Deliver(_))), "{frame:02x?}");
        }
        loser.remove(net, &[low]);
        assert_eq!(producer.publish_with(net, head(), &[7], b"one").gateways, 1);
        // It comes back, and is told again.
        loser.change(net, Op::ADD, &[low]);
        loser.loses(net, low, 9);
        loser.in_effect(net);
    });
}

#[test]
fn promise_8_each_device_class_has_its_own_winner_where_the_policy_says_so() {
    everywhere(&config(), |net| {
        let (low, other) = (login(ONE_PER_CLASS, 7, 1, 5), login(ONE_PER_CLASS, 7, 2, 5));
        let older = Host::link(net, 1, &[low, other]);
        let mut newer = Host::link(net, 2, &[]);
        newer.add(net, &[login(ONE_PER_CLASS, 7, 1, 6), login(ONE_PER_CLASS, 8, 2, 9)]);
        older.loses(net, low, 6);
        older.hears_nothing(net);
        newer.hears_nothing(net);
    });
}

#[test]
fn promise_8_a_tie_and_a_namespace_without_a_policy_displace_nobody() {
    everywhere(&config(), |net| {
        let logins = [login(ALL, 7, 1, 5), login(ONE, 7, 1, 5), login(ONE_PER_CLASS, 7, 1, 5)];
        let older = Host::link(net, 1, &logins);
        let newer = Host::link(net, 2, &[login(ALL, 7, 1, 6), logins[1], logins[2]]);
        older.hears_nothing(net);
        newer.hears_nothing(net);
    });
}

#[test]
fn promise_8_a_newcomer_that_loses_hears_so_before_its_registration_is_confirmed() {
    // So its gateway never calls it ready (LOG-3).
    everywhere(&config(), |net| {
        let (low, high) = (login(ONE, 7, 2, 5), login(ONE, 7, 1, 9));
        let standing = Host::link(net, 1, &[high]);
        let mut newer = Host::link(net, 2, &[]);
        newer.change(net, Op::ADD, &[low]);
        newer.loses(net, low, 9);
        newer.in_effect(net);
        // Of a snapshot they lose as it comes into effect.
        let third = Host::link(net, 3, &[login(ONE, 7, 3, 8)]);
        third.loses(net, login(ONE, 7, 3, 8), 9);
        standing.hears_nothing(net);
        newer.hears_nothing(net);
        // At one gateway they contend as well.
        newer.add(net, &[login(ONE, 7, 2, 10)]);
        standing.loses(net, high, 10);
        newer.hears_nothing(net);
    });
}

#[test]
fn promise_8_logins_of_a_suspended_slot_contend_when_it_is_back() {
    everywhere(&config(), |net| {
        let (loses, wins) = (login(ONE, 7, 1, 5), login(ONE, 8, 1, 9));
        let away = Host::link(net, 1, &[loses, wins]);
        let mut here = Host::link(net, 2, &[]);
        net.close(away.line);
        let standing = [login(ONE, 7, 1, 6), login(ONE, 8, 1, 6)];
        here.add(net, &standing);
        here.hears_nothing(net);
        let back = away.resume(net, 1);
        back.loses(net, loses, 6);
        here.loses(net, standing[1], 9);
        // Again, with what it left in the contest before.
        net.close(back.line);
        here.remove(net, &standing);
        here.add(net, &[login(ONE, 7, 1, 3), login(ONE, 8, 1, 10)]);
        here.hears_nothing(net);
        let back = back.resume(net, 1);
        back.loses(net, wins, 10);
        here.loses(net, login(ONE, 7, 1, 3), 5);
    });
}

#[test]
fn promise_8_a_login_that_went_with_the_older_link_displaces_none_of_the_newer_one() {
    // The older link may be with another shard, which hears of the newer one later.
    let takeover = |net: &mut Net| {
        let (gone, elsewhere) = (login(ONE, 7, 1, 9), login(ONE, 8, 1, 9));
        let older = Host::link(net, 1, &[gone, elsewhere]);
        let mut other = Host::link(net, 2, &[]);
        let newer = Host::link(net, 1, &[login(ONE, 7, 1, 4)]);
        newer.hears_nothing(net);
        other.add(net, &[login(ONE, 8, 1, 2)]);
        other.add(net, &[login(ONE, 7, 1, 4)]);
        for host in [other, newer] {
            host.hears_nothing(net);
        }
        net.close(older.line);
    };
    everywhere(&config(), takeover);
    for seed in 0..40 {
        takeover(&mut Net::start(Backend::Sim(3, seed), config()));
    }
}

#[test]
fn promise_6_any_number_of_logins_may_lose_at_once_and_each_gateway_is_told_as_it_reads() {
    // LOG-7: those who wait wait among the logins, not on the link, which lives.
    let sockets = |it: &Backend| matches!(it, Backend::Tokio(3) | Backend::Uring(3));
    let sockets = backends().into_iter().filter(sockets);
    for backend in sockets.chain([Backend::Sim(1, 1), Backend::Sim(3, 2)]) {
        eprintln!("on {backend:?}");
        // A socket takes much by itself, and its time is real.
        let simulated = matches!(backend, Backend::Sim(..));
        let users = if simulated { CONTROL_BYTES_MAX as u64 / 39 } else { 8_000 };
        let net = &mut Net::start(backend, config());
        let all =
            |number| -> Vec<_> { (1..=users).map(|uid| login(ONE, uid, 1, number)).collect() };
        let lowest = Host::link(net, 1, &all(1));
        let mut highest = Host::link(net, 2, &[]);
        let back = Host::link(net, 3, &all(5));
        // Neither reads while they lose: one to the others, one to those that came meanwhile.
        for host in [&lowest, &back] {
            net.stall(host.line, true);
        }
        for some in all(9).chunks(RECORDS_MAX) {
            highest.add(net, some);
        }
        if simulated {
            net.advance(Duration::from_millis(users * TICK_MS / FOLLOW_STEPS as u64 + TICK_MS));
        }
        for host in [&lowest, &back] {
            net.stall(host.line, false);
            let mut told = BTreeMap::new();
            while (told.len() as u64) < users {
                let frame = net.frame(host.line).expect("the link lives");
                let Ok(Frame::Displaced(it)) = Frame::decode(&frame) else {
                    panic!("{frame:02x?}")
                };
                assert!(it.winner > it.login, "{it:?}");
                let times: &mut u32 = told.entry(it.uid).or_default();
                *times += 1;
            }
            assert!(told.values().all(|times| *times == 1), "each is told once");
            host.hears_nothing(net);
        }
        highest.hears_nothing(net);
    }
}

#[test]
fn promise_8_consumers_hear_of_logins_that_are_displaced_before_they_go() {
    // PRS-2.
    everywhere(&config(), |net| {
        let consumer = link_offering(net, Role::CONSUMER, 9, capability::PRESENCE);
        let (low, high) = (login(ONE, 7, 1, 5), login(ONE, 7, 2, 9));
        let mut loser = Host::link(net, 1, &[low]);
        let winner = Host::link(net, 2, &[high]);
        loser.loses(net, low, 9);
        loser.remove(net, &[low]);
        let expected = BTreeMap::from([
            ((low, 1), vec![Event::LOGIN, Event::DISPLACED, Event::LOGOUT]),
            ((high, 2), vec![Event::LOGIN]),
        ]);
        assert_eq!(heard(net, consumer, 4), expected);
        winner.hears_nothing(net);
    });
}

#[test]
fn promise_8_a_takeover_is_told_as_what_differs_whichever_shards_the_links_are_with() {
    // PRS-2: what the older link's shard had told comes to the newer one's by mail.
    let takeover = |net: &mut Net| {
        let consumer = link_offering(net, Role::CONSUMER, 9, capability::PRESENCE);
        let of = |uid| login(ALL, uid, 0, 0);
        let older = Host::link(net, 1, &[of(1), of(2), of(3)]);
        assert_eq!(heard(net, consumer, 3).len(), 3);
        let mut newer = Host::link(net, 1, &[of(2), of(3), of(4)]);
        // Perhaps before that mail has come.
        newer.remove(net, &[of(2)]);
        newer.add(net, &[of(5)]);
        let expected = BTreeMap::from([
            ((of(1), 1), vec![Event::LOGOUT]),
            ((of(2), 1), vec![Event::LOGOUT]),
            ((of(4), 1), vec![Event::LOGIN]),
            ((of(5), 1), vec![Event::LOGIN]),
        ]);
        assert_eq!(heard(net, consumer, 4), expected);
        // And no more of it: the next to come is the next to happen.
        newer.remove(net, &[of(3)]);
        assert_eq!(presence(net, consumer), (Event::LOGOUT, of(3), 1));
        net.close(older.line);
    };
    everywhere(&config(), takeover);
    for seed in 0..40 {
        takeover(&mut Net::start(Backend::Sim(3, seed), config()));
    }
}

#[test]
fn promise_8_takeovers_that_overlap_end_with_what_the_last_one_declares() {
    for seed in 0..60 {
        let net = &mut Net::start(Backend::Sim(3, seed), config());
        let consumer = link_offering(net, Role::CONSUMER, 9, capability::PRESENCE);
        let of = |uid| login(ALL, uid, 0, 0);
        let first = Host::link(net, 1, &[of(1), of(2), of(3)]);
        let mut hosts = vec![first];
        for _ in 0..3 {
            hosts.push(Host::hello(net, 1, 0));
        }
        // None waits for the one before.
        hosts[1].snapshot(net, &[of(2), of(4)]);
        hosts[2].snapshot(net, &[of(1), of(4), of(5)]);
        hosts[3].snapshot(net, &[of(2), of(5), of(6)]);
        hosts[3].in_effect(net);
        if seed % 2 == 1 {
            // What it waits for finds it suspended, or resumed by another link.
            let last = hosts.pop().unwrap();
            net.cut(last.line);
            net.run(usize::try_from(seed).unwrap());
            net.reset(last.line);
            hosts.push(last.resume(net, 1));
        }
        net.advance(Duration::from_secs(2));
        let mut believed = BTreeMap::<u64, i32>::new();
        while let Some(frame) = net.arrived(consumer) {
            // The other kind is a PING that asks whether all this was read.
            let Ok(Frame::Presence(it)) = Frame::decode(&frame) else { continue };
            assert_ne!(it.event, Event::LOST, "seed {seed}: another took its place");
            *believed.entry(it.uid).or_default() += if it.event == Event::LOGIN { 1 } else { -1 };
            assert!([0, 1].contains(&believed[&it.uid]), "seed {seed}: {it:?} comes out of order");
        }
        believed.retain(|_, count| *count != 0);
        assert_eq!(believed, BTreeMap::from([(2, 1), (5, 1), (6, 1)]), "seed {seed}");
    }
}

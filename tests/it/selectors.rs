//! Selectors, tags and modes at a broker whose gateways come, go, resume and declare anew: whatever
//! happens, a message reaches exactly the connections that a naive model names.

use std::collections::BTreeSet;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_broker::BrokerConfig;
use waybill_wire::code::{ErrorCode, Fate, Kind, Level, Op, Role, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{
    Barrier, Delta, FateSet, Frame, Record, Report, Resume, Snapshot, TagDelta, TagRecord,
};
use waybill_wire::limits::GATEWAY_TAGS_MAX;
use waybill_wire::message::{Message, MessageHead};
use waybill_wire::{Selector, selector};

use crate::support::{Line, Net, everywhere};
use crate::talk::{Producer, Receipt, encode, fence, hello_in_session};

use model::{Connection, NAMESPACES, Sent, TAGS, UIDS, Users, Word, is_open};

mod model;

const GATEWAYS: u64 = 4;
/// Of a gateway, about.
const CONNECTIONS: usize = 5;
const STEPS: usize = 120;
const PRODUCER: u64 = 7;

/// A gateway: what it has and its link.
struct Gateway {
    users: Users,
    incarnation: u64,
    line: Line,
    session: u64,
    version: u64,
    /// The broker is to tell that it does not keep all of its tags, as of this version (TAG-11).
    told: Option<u64>,
}

/// The next frame. A message that `auto` chose the way of, and nobody asks after, may go where
/// nobody gets it: only the one that is wanted is looked at.
fn next(net: &mut Net, line: Line, wanted: u64) -> Option<Vec<u8>> {
    loop {
        let frame = net.frame(line)?;
        match Frame::decode(&frame) {
            Ok(Frame::Deliver(message)) if is_open(message.mode, message.level) => {
                if message.sequence == wanted {
                    return Some(frame);
                }
            }
            _ => return Some(frame),
        }
    }
}

fn in_effect(net: &mut Net, line: Line, version: u64, digest: u64) {
    let frame = next(net, line, 0).expect("IN_EFFECT");
    match Frame::decode(&frame) {
        Ok(Frame::InEffect(it)) => assert_eq!((it.version, it.digest), (version, digest)),
        other => panic!("no IN_EFFECT: {other:?}"),
    }
}

fn records(users: impl IntoIterator<Item = (u32, u64)>, op: Op) -> Vec<Record> {
    let record = |(namespace, uid)| Record { uid, login: 0, namespace, op, device_class: 0 };
    users.into_iter().map(record).collect()
}

fn tag_records(tags: impl IntoIterator<Item = (u32, usize)>, op: Op) -> Vec<TagRecord<'static>> {
    let record = |(namespace, tag): (u32, usize)| TagRecord { namespace, op, tag: TAGS[tag] };
    tags.into_iter().map(record).collect()
}

impl Gateway {
    fn new(net: &mut Net, incarnation: u64, tags_max: usize) -> Self {
        // One of them does not agree on tags.
        let users = Users::new(incarnation > 1, tags_max);
        let line = net.connect();
        let mut gateway = Self { users, incarnation, line, session: 0, version: 0, told: None };
        gateway.hello(net, line, 0);
        gateway
    }

    /// Whether the session goes on.
    fn hello(&mut self, net: &mut Net, line: Line, session: u64) -> bool {
        let tags = if self.users.tagged { capability::TAGS } else { 0 };
        let capabilities = capability::RESUME | capability::REPORTS | tags;
        net.send(line, &hello_in_session(Role::GATEWAY, self.incarnation, session, capabilities));
        let frame = net.frame(line).expect("WELCOME");
        let Ok(Frame::Welcome(welcome)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
        assert_eq!(welcome.capabilities, capabilities);
        (self.line, self.session) = (line, welcome.session);
        welcome.resumed
    }

    fn digest(&self) -> u64 {
        let of = |&(namespace, uid)| Registered { namespace, uid, device_class: 0, login: 0 };
        let mut digest: Digest = self.users.registered.iter().map(of).collect();
        for &(namespace, tag) in &self.users.declared {
            digest.add_tag(namespace, TAGS[tag]);
        }
        digest.value()
    }

    /// Sends what has changed. Users that are gone, and tags that nobody has any more, may stay
    /// declared for a while.
    fn deltas(&mut self, net: &mut Net, random: &mut SmallRng) {
        let (users, tags) = (self.users.users(), self.users.tags());
        let mut gone = &self.users.registered - &users;
        gone.retain(|_| random.random_bool(0.6));
        let mut changes = records(&users - &self.users.registered, Op::ADD);
        changes.extend(records(gone.clone(), Op::REMOVE));
        let (new, mut unused) = (&tags - &self.users.declared, &self.users.declared - &tags);
        unused.retain(|_| random.random_bool(0.5));
        self.users.registered.extend(users);
        self.users.registered.retain(|user| !gone.contains(user));
        let tags_first = random.random_bool(0.5);
        for tags in [tags_first, !tags_first] {
            if tags && self.users.tagged && !(new.is_empty() && unused.is_empty()) {
                self.version += 1;
                self.declare(net, &new, &unused);
            } else if !tags && !changes.is_empty() {
                self.version += 1;
                let delta = Delta { version: self.version, records: (&changes).into() };
                net.send(self.line, &encode(&Frame::Delta(delta)));
            }
        }
    }

    /// One TAG_DELTA of the version that is current.
    fn declare(
        &mut self,
        net: &mut Net,
        adds: &BTreeSet<(u32, usize)>,
        removes: &BTreeSet<(u32, usize)>,
    ) {
        let mut records = tag_records(adds.iter().copied(), Op::ADD);
        records.extend(tag_records(removes.iter().copied(), Op::REMOVE));
        if self.users.declare(adds, removes) {
            self.told = Some(self.version);
        }
        let delta = TagDelta { version: self.version, tag_records: (&records).into() };
        net.send(self.line, &encode(&Frame::TagDelta(delta)));
    }

    /// What was declared is in effect; before that it is told of what is not kept.
    fn in_effect(&mut self, net: &mut Net) {
        if let Some(version) = self.told.take() {
            let frame = next(net, self.line, 0).expect("an ERROR");
            let Ok(Frame::Error(error)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
            assert_eq!((error.code, error.fatal), (ErrorCode::GATEWAY_TAGS, false));
            assert_eq!((error.ref_kind, error.reference), (Kind::TAG_DELTA, version));
        }
        in_effect(net, self.line, self.version, self.digest());
    }

    fn change(&mut self, net: &mut Net, random: &mut SmallRng) {
        self.deltas(net, random);
        let barrier = Barrier { version: self.version, digest: self.digest() };
        net.send(self.line, &encode(&Frame::Barrier(barrier)));
        self.in_effect(net);
    }

    /// All of a snapshot but its end.
    fn begin_snapshot(&mut self, net: &mut Net) {
        self.version += 1;
        self.users.registered = self.users.users();
        self.users.begin_anew();
        let records = records(self.users.registered.iter().copied(), Op::ADD);
        let version = self.version;
        let first = Snapshot { first: true, last: false, version, records: (&records).into() };
        net.send(self.line, &encode(&Frame::Snapshot(first)));
        if self.users.tagged {
            for tag in self.users.tags() {
                self.declare(net, &BTreeSet::from([tag]), &BTreeSet::new());
            }
        }
    }

    fn end_snapshot(&mut self, net: &mut Net) {
        let version = self.version;
        let last = Snapshot { last: true, version, ..Snapshot::default() };
        net.send(self.line, &encode(&Frame::Snapshot(last)));
        self.in_effect(net);
        self.users.live = true;
    }

    fn leave(&mut self, net: &mut Net) {
        net.close(self.line);
        self.users.live = false;
    }

    /// Another link goes on with what the last one left, or declares anew (RES-4).
    fn come_back(&mut self, net: &mut Net, random: &mut SmallRng) {
        let line = net.connect();
        // One without registrations is not kept.
        let kept = !self.users.registered.is_empty();
        assert_eq!(self.hello(net, line, self.session), kept);
        if kept {
            let frame = net.frame(line).expect("RESUMED");
            let Ok(Frame::Resumed(it)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
            assert_eq!((it.version, it.digest), (self.version, self.digest()), "TAG-8");
        }
        if !kept || random.random_bool(0.3) {
            self.begin_snapshot(net);
            return self.end_snapshot(net);
        }
        self.deltas(net, random);
        let (session, version, digest) = (self.session, self.version, self.digest());
        net.send(line, &encode(&Frame::Resume(Resume { session, version, digest })));
        self.in_effect(net);
        self.users.live = true;
    }
}

/// A connection comes, goes, or another one comes in its place.
fn churn(users: &mut Users, random: &mut SmallRng) {
    for _ in 0..random.random_range(1..4) {
        let many = users.connections.len() > CONNECTIONS;
        if !users.connections.is_empty() && (many || random.random_bool(0.5)) {
            let gone = random.random_range(0..users.connections.len());
            users.connections.swap_remove(gone);
        }
        let tags = (0..TAGS.len()).filter(|_| random.random_bool(0.25)).collect();
        let (namespace, uid) = (random.random_range(NAMESPACES), random.random_range(UIDS));
        users.connections.push(Connection { namespace, uid, tags });
    }
}

struct World<'a> {
    net: &'a mut Net,
    random: SmallRng,
    gateways: Vec<Gateway>,
    producer: Producer,
}

impl World<'_> {
    fn step(&mut self) {
        let at = self.random.random_range(0..self.gateways.len());
        let Self { net, random, gateways, .. } = self;
        let gateway = &mut gateways[at];
        match random.random_range(0..10) {
            0..6 => return self.publish(),
            _ if !gateway.users.live => {
                churn(&mut gateway.users, random);
                gateway.come_back(net, random);
            }
            6 | 7 => {
                churn(&mut gateway.users, random);
                gateway.change(net, random);
            }
            8 => gateway.leave(net),
            _ => return self.resync(at),
        }
        self.publish();
    }

    /// A newer link declares all of it anew while the older one serves: nobody is hidden meanwhile
    /// (TAG-5, promise 8).
    fn resync(&mut self, at: usize) {
        let older = self.gateways[at].line;
        let line = self.net.connect();
        let before = self.gateways[at].users.clone();
        assert!(!self.gateways[at].hello(self.net, line, 0));
        churn(&mut self.gateways[at].users, &mut self.random);
        self.gateways[at].begin_snapshot(self.net);
        let after = std::mem::replace(&mut self.gateways[at].users, before);
        self.gateways[at].line = older;
        self.publish();
        (self.gateways[at].users, self.gateways[at].line) = (after, line);
        self.gateways[at].end_snapshot(self.net);
        let frame = next(self.net, older, 0).expect("an ERROR");
        match Frame::decode(&frame) {
            Ok(Frame::Error(error)) => assert_eq!(error.code, ErrorCode::SUPERSEDED),
            other => panic!("no ERROR: {other:?}"),
        }
        assert_eq!(self.net.frame(older), None);
    }

    fn publish(&mut self) {
        let sent = Sent::any(&mut self.random);
        let text = sent.selector.as_ref().map(model::Tree::text);
        let bytes =
            text.as_ref().map(|text| selector::parse(text).expect("it follows the grammar"));
        let head = MessageHead {
            everyone: sent.uids.is_none() && bytes.is_none(),
            namespace: sent.namespace,
            selector: bytes.as_ref().map(|bytes| Selector::check(bytes).unwrap()),
            except: (&sent.except).into(),
            mode: sent.mode,
            level: sent.level,
            ..MessageHead::default()
        };
        let uids = sent.uids.clone().unwrap_or_default();
        self.producer.send_with(self.net, head, &uids, b"x");
        let sequence = self.producer.sequence;
        if sent.level == Level::NONE {
            // What happens to gateways next is not before it.
            fence(self.net, self.producer.line);
        } else {
            let receipt = self.producer.receipt(self.net);
            self.check_routed(&sent, &receipt);
        }
        let mut gateways = std::mem::take(&mut self.gateways);
        for gateway in &mut gateways {
            let gets = if sent.is_open() {
                gateway.users.must_get(&sent)
            } else {
                gateway.users.gets(&sent)
            };
            if gets {
                self.take(gateway, &sent, sequence, bytes.as_deref());
            }
        }
        self.gateways = gateways;
        if sent.level == Level::DELIVERED {
            let receipt = self.producer.receipt(self.net);
            self.check_delivered(&sent, &receipt);
        }
    }

    /// The gateway gets its DELIVER, serves its connections and reports.
    fn take(&mut self, gateway: &Gateway, sent: &Sent, sequence: u64, selector: Option<&[u8]>) {
        let frame = next(self.net, gateway.line, sequence).expect("a DELIVER");
        let Ok(Frame::Deliver(message)) = Frame::decode(&frame) else {
            panic!("no DELIVER: {:?}", Kind(frame[1]))
        };
        assert_eq!((message.sequence, message.namespace), (sequence, sent.namespace));
        assert_eq!(message.selector.map(|it| it.bytes().to_vec()).as_deref(), selector);
        let users = &gateway.users;
        if sent.is_open() {
            // By either mode, its users are asked for.
            let listed: Vec<u64> = message.targets.iter().collect();
            let meant = users.audience(sent);
            assert!(sent.uids.is_none() || meant.iter().all(|(uid, _)| listed.contains(uid)));
        } else {
            let targets: Vec<u64> = message.targets.iter().collect();
            assert_eq!(targets, users.part(sent), "{sent:?}");
        }
        if sent.level == Level::DELIVERED {
            self.report(gateway, sent, &message);
        }
    }

    fn report(&mut self, gateway: &Gateway, sent: &Sent, message: &Message<'_>) {
        let users = &gateway.users;
        let of = |wanted: Word| -> Vec<u64> {
            let mut seen = BTreeSet::new();
            let targets = message.targets.iter().filter(|uid| seen.insert(*uid));
            targets.filter(|uid| users.word(sent, *uid) == wanted).collect()
        };
        let [offline, filtered, reached] = [Word::Offline, Word::Filtered, Word::Reached].map(of);
        let (sequence, stage) = (message.sequence, Level::DELIVERED);
        let mut report = Report { stage, sequence, origin: PRODUCER, ..Report::default() };
        let sets = [(Fate::OFFLINE, &offline), (Fate::FILTERED, &filtered)];
        let sets: Vec<FateSet<'_>> = sets
            .into_iter()
            .filter(|(_, uids)| !uids.is_empty())
            .map(|(fate, uids)| FateSet { fate, cause: ErrorCode(0), uids: uids.into() })
            .collect();
        if sent.uids.is_none() {
            (report.reached, report.filtered) = users.counts(sent);
        } else {
            let [offline, filtered, reached] =
                [offline.len(), filtered.len(), reached.len()].map(|it| u32::try_from(it).unwrap());
            (report.offline, report.filtered, report.reached) = (offline, filtered, reached);
            report.fate_sets = (&sets).into();
        }
        self.net.send(gateway.line, &encode(&Frame::Report(report)));
    }

    fn users(&self) -> Vec<&Users> {
        self.gateways.iter().map(|gateway| &gateway.users).collect()
    }

    fn check_routed(&self, sent: &Sent, receipt: &Receipt) {
        let users = self.users();
        let gateways = users.iter().filter(|users| users.gets(sent)).count();
        let fates = sent.listed().into_iter().map(|uid| (uid, model::routed(&users, sent, uid)));
        let fates: Vec<_> = fates.collect();
        let unknown = fates.iter().filter(|(_, word)| word.is_none()).count();
        assert_eq!((receipt.code, receipt.gateways as usize), (ErrorCode(0), gateways), "{sent:?}");
        assert_eq!(receipt.unknown as usize, unknown);
        let fates: Vec<_> =
            fates.into_iter().filter_map(|(uid, word)| Some((uid, word?))).collect();
        check_fates(sent, receipt, &fates);
    }

    fn check_delivered(&self, sent: &Sent, receipt: &Receipt) {
        let users = self.users();
        if sent.uids.is_none() {
            let gets = users.iter().filter(|users| users.gets(sent));
            let reached: u32 = gets.map(|users| users.counts(sent).0).sum();
            assert_eq!((receipt.sent, receipt.unknown), (reached, 0), "SEL-8: {sent:?}");
            return;
        }
        let fates = sent.listed().into_iter().map(|uid| (uid, model::delivered(&users, sent, uid)));
        assert_eq!(receipt.unknown, 0);
        check_fates(sent, receipt, &fates.collect::<Vec<_>>());
    }
}

/// Sets are in the order of the PUBLISH.
fn check_fates(sent: &Sent, receipt: &Receipt, fates: &[(u64, Word)]) {
    let of = |wanted| -> Vec<u64> {
        fates.iter().filter(|(_, word)| *word == wanted).map(|(uid, _)| *uid).collect()
    };
    assert_eq!(receipt.offline, of(Word::Offline), "{sent:?}");
    assert_eq!(receipt.filtered, of(Word::Filtered), "{sent:?}");
    assert_eq!(receipt.sent as usize, of(Word::Reached).len(), "{sent:?}");
    assert!(receipt.dropped.is_empty());
}

/// Lives of gateways at a broker that keeps so many tags of each, on every backend.
fn live(tags_max: usize, seed: u64) {
    let config = BrokerConfig {
        keepalive_ms: 0,
        resume_window_ms: 60_000,
        report_timeout_ms: 60_000,
        gateway_tags_max: tags_max,
        ..BrokerConfig::default()
    };
    let run = std::cell::Cell::new(seed);
    everywhere(&config, |net| {
        run.set(run.get() + 1);
        let random = SmallRng::seed_from_u64(run.get());
        let gateways = 1..=GATEWAYS;
        let gateways = gateways.map(|number| Gateway::new(net, number, tags_max)).collect();
        let producer = Producer::link(net, PRODUCER);
        let mut world = World { net, random, gateways, producer };
        for gateway in &mut world.gateways {
            churn(&mut gateway.users, &mut world.random);
            gateway.begin_snapshot(world.net);
            gateway.end_snapshot(world.net);
        }
        (0..STEPS).for_each(|_| world.step());
    });
}

#[test]
fn promises_1_and_8_a_selector_reaches_exactly_its_audience_whatever_gateways_do() {
    live(GATEWAY_TAGS_MAX, 0);
}

#[test]
fn tag_10_and_tag_11_of_tags_that_are_not_kept_a_gateway_is_told_once_and_misses_nothing() {
    live(8, 100);
}

//! A message that asks for much is served in parts, and others between them (SEC-24), and so is
//! what gateways declare and what dead ones left: one shard by hand, turn by turn, so that what
//! each turn does can be counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_broker::io::{Input, LinkId, Output, joined};
use waybill_broker::limits::{CHORES_MS, CHORES_PER_TICK, LINK_STEPS, SWEEP_STEPS, TICK_MS};
use waybill_broker::shard::Shard;
use waybill_broker::shared::Shared;
use waybill_wire::Frame;
use waybill_wire::code::{Fate, Kind, Level, Mode, Op, Role, capability};
use waybill_wire::deframe::Deframer;
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{
    Barrier, Delta, FateSet, Filter, Ping, Record, Report, Snapshot, Tag, TagChange,
};
use waybill_wire::message::MessageHead;
use waybill_wire::selector::{self, Selector};
use waybill_wire::targets::Uids;

use crate::batches::{Pace, Script, play};
use crate::support::Backend;
use crate::talk::{encode, hello_offering};

/// Steps of a turn.
const STEPS: usize = 3_000;

/// A frame of 40 UIDs is 104 steps.
const FRAMES_PER_TURN: usize = STEPS / 104 + 1;

const GATEWAYS: u64 = 30;
const USERS: u64 = 40;

const PRODUCER: LinkId = LinkId(100);
const OTHER: LinkId = LinkId(101);

/// One shard whose writes are done at once.
struct Site {
    shard: Shard,
    shared: Arc<Shared>,
    /// Frames that were written.
    written: BTreeMap<LinkId, Vec<Vec<u8>>>,
    /// Buffers of reads that are ordered.
    reads: BTreeMap<LinkId, Vec<u8>>,
    closed: Vec<LinkId>,
    now: Duration,
}

impl Site {
    /// Every gateway has all users; two producers are linked.
    fn new() -> Self {
        let config = BrokerConfig { ready_quiet_ms: 0, keepalive_ms: 0, ..BrokerConfig::default() };
        let shared = Arc::new(Shared::new(config, 1, 2));
        let mut shard = Shard::new(0, Arc::clone(&shared));
        shard.set_turn(STEPS);
        let (written, reads) = (BTreeMap::new(), BTreeMap::new());
        let (closed, now) = (Vec::new(), Duration::ZERO);
        let mut site = Self { shard, shared, written, reads, closed, now };
        for gateway in 1..=GATEWAYS {
            site.gateway(LinkId(gateway), gateway, 1);
        }
        for link in [PRODUCER, OTHER] {
            site.link(link, Role::PRODUCER, link.0);
        }
        site.written.clear();
        site
    }

    fn link(&mut self, link: LinkId, role: Role, instance: u64) {
        self.input(Input::Accepted { link, peer: None });
        let offered = capability::REPORTS | capability::TAGS;
        self.bytes(link, &hello_offering(role, instance, b"", offered));
    }

    fn gateway(&mut self, link: LinkId, incarnation: u64, version: u64) {
        self.link(link, Role::GATEWAY, incarnation);
        let record = |uid| Record { uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
        let records: Vec<Record> = (0..USERS).map(record).collect();
        let snapshot = Snapshot { first: true, last: true, version, records: (&records).into() };
        self.bytes(link, &encode(&Frame::Snapshot(snapshot)));
    }

    fn bytes(&mut self, link: LinkId, bytes: &[u8]) {
        let mut data = self.reads.remove(&link).expect("it is read");
        data.extend_from_slice(bytes);
        self.input(Input::Bytes { link, data });
    }

    /// One turn with this input, without what is left of others.
    fn input(&mut self, input: Input) {
        self.at(self.now, input);
    }

    /// The same at this time, and time goes on from there.
    fn at(&mut self, now: Duration, input: Input) {
        self.now = now;
        self.shard.handle(now, input);
        self.carry_out();
    }

    /// A turn that finds little to do.
    fn pinged(&mut self, now_ms: u64) {
        let mut data = self.reads.remove(&PRODUCER).expect("it is read");
        data.extend(encode(&Frame::Ping(Ping { token: 1 })));
        self.at(Duration::from_millis(now_ms), Input::Bytes { link: PRODUCER, data });
    }

    /// One turn of what is left.
    fn go_on(&mut self) {
        self.shard.go_on(self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        self.shard.flush(self.now);
        let mut wrote = Vec::new();
        while let Some(output) = self.shard.output() {
            match output {
                Output::Read { link, buffer } => {
                    assert!(self.reads.insert(link, buffer).is_none());
                }
                Output::Write { link, data, pieces } => {
                    let data = joined(data, &pieces);
                    let (mut deframer, mut rest) = (Deframer::new(), &data[..]);
                    let written = self.written.entry(link).or_default();
                    while let Some(raw) = deframer.whole(rest) {
                        written.push(raw.bytes().to_vec());
                        rest = &rest[raw.bytes().len()..];
                    }
                    wrote.push(Input::Wrote { link, data });
                }
                Output::Close { link } => self.closed.push(link),
                _ => {}
            }
        }
        wrote.into_iter().for_each(|wrote| self.input(wrote));
    }

    /// What has been written since the last time, of this kind: to whom, in the order of links.
    fn taken(&mut self, kind: Kind) -> Vec<(LinkId, Vec<u8>)> {
        let mut taken = Vec::new();
        for (link, frames) in &mut self.written {
            taken.extend(frames.extract_if(.., |frame| frame[1] == kind.0).map(|it| (*link, it)));
        }
        taken
    }

    /// Whether what it sent is not served to the end.
    fn is_waiting(&self, link: LinkId) -> bool {
        !self.reads.contains_key(&link)
    }

    /// Does what is left: DELIVERs of each turn.
    fn finish(&mut self) -> Vec<Vec<(LinkId, Vec<u8>)>> {
        let mut turns = Vec::new();
        while self.shard.has_more() {
            self.go_on();
            turns.push(self.taken(Kind::DELIVER));
        }
        turns
    }
}

fn publish(head: MessageHead<'_>, uids: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    head.encode_publish(uids, b"payload", &mut out).unwrap();
    out
}

/// To all users, with a receipt of this level.
fn to_all(sequence: u64, level: Level) -> Vec<u8> {
    let uids: Vec<u64> = (0..USERS).collect();
    publish(MessageHead { sequence, level, ..MessageHead::default() }, &uids)
}

fn targets(frame: &[u8]) -> (u64, Vec<u64>) {
    let Ok(Frame::Deliver(message)) = Frame::decode(frame) else { panic!("{frame:02x?}") };
    (message.sequence, message.targets.iter().collect())
}

#[test]
fn sec_24_another_link_is_served_in_every_turn_of_a_long_message() {
    let mut site = Site::new();
    site.bytes(PRODUCER, &to_all(1, Level::ROUTED));
    assert!(site.shard.has_more());
    let (mut turns, mut frames) = (0, Vec::new());
    while site.shard.has_more() {
        assert!(!site.reads.contains_key(&PRODUCER), "it is slowed by what it asked for");
        // What came meanwhile is answered in the turn in which it came.
        site.bytes(OTHER, &encode(&Frame::Ping(Ping { token: turns })));
        assert_eq!(site.taken(Kind::PONG).len(), 1, "turn {turns}");
        site.go_on();
        let delivered = site.taken(Kind::DELIVER);
        assert!(delivered.len() <= FRAMES_PER_TURN, "{} in turn {turns}", delivered.len());
        frames.extend(delivered);
        turns += 1;
    }
    // 40 look-ups of 4 steps, and 16 for each of 29 gateways, then 30 frames of 104.
    assert!(turns >= 7, "{turns}");
    let links: Vec<u64> = frames.iter().map(|(link, _)| link.0).collect();
    assert_eq!(links, (1..=GATEWAYS).collect::<Vec<_>>(), "each gateway once");
    let all: Vec<u64> = (0..USERS).collect();
    assert!(frames.iter().all(|(_, frame)| targets(frame) == (1, all.clone())));
    let receipts = site.taken(Kind::RECEIPT);
    let [(PRODUCER, receipt)] = &receipts[..] else { panic!("{receipts:?}") };
    let Ok(Frame::Receipt(receipt)) = Frame::decode(receipt) else { panic!("{receipt:?}") };
    assert_eq!((receipt.sent, receipt.offline, receipt.gateways, receipt.last), (40, 0, 30, true));
    assert!(site.reads.contains_key(&PRODUCER));
}

#[test]
fn sec_24_nothing_overtakes_a_long_message() {
    let mut site = Site::new();
    let whole = [
        to_all(1, Level::NONE),
        publish(MessageHead { sequence: 2, ..MessageHead::default() }, &[7]),
        to_all(3, Level::NONE),
        publish(MessageHead { sequence: 4, everyone: true, ..MessageHead::default() }, &[]),
        encode(&Frame::Ping(Ping { token: 9 })),
    ]
    .concat();
    // The last frame of the read is not whole; it comes when the read has been served.
    let (read, last) = whole.split_at(whole.len() - 3);
    site.bytes(PRODUCER, read);
    let mut of_gateway = Vec::new();
    for turn in site.finish() {
        // One for everyone is 64 steps, and another 64 for each user that is looked up.
        assert!(turn.len() <= STEPS / 64 + 1);
        let own = turn.iter().filter(|(link, _)| *link == LinkId(5));
        of_gateway.extend(own.map(|(_, frame)| targets(frame).0));
    }
    assert_eq!(of_gateway, [1, 2, 3, 4], "promise 2");
    site.bytes(PRODUCER, last);
    assert_eq!(site.taken(Kind::PONG).len(), 1);
}

/// Each of eight producers has messages that take most of a turn: none waits for those of others
/// to be served.
#[test]
fn sec_24_dear_messages_of_many_links_take_turns() {
    let mut site = Site::new();
    let links: Vec<LinkId> = (100..108).map(LinkId).collect();
    for link in &links[2..] {
        site.link(*link, Role::PRODUCER, link.0);
    }
    site.written.clear();
    let head = MessageHead { level: Level::ROUTED, ..MessageHead::default() };
    let message = |sequence| publish(MessageHead { sequence, ..head }, &[7]);
    let all = (1..=20).map(message).collect::<Vec<_>>().concat();
    links.iter().for_each(|link| site.bytes(*link, &all));
    site.written.clear();
    let mut waited = BTreeMap::new();
    while site.shard.has_more() {
        site.go_on();
        let answered: Vec<LinkId> = site.taken(Kind::RECEIPT).iter().map(|it| it.0).collect();
        for link in &links {
            let waited = waited.entry(*link).or_insert(0);
            *waited = if answered.contains(link) { 0 } else { *waited + 1 };
            // Each takes 2,448 of 3,000 steps, and four or five links have a turn.
            let is_served = *waited <= 2 || !site.is_waiting(*link);
            assert!(is_served, "{link:?} has waited for {waited} turns");
        }
    }
}

/// What a tag asks for is not looked up at once because no turn of a test is as long as real ones.
#[test]
fn sec_24_a_long_tag_is_looked_up_in_parts_in_turns_of_the_real_length() {
    let mut site = Site::new();
    site.shard.set_turn(LINK_STEPS);
    let uids: Vec<u64> = (0..4_096).collect();
    let changes = [TagChange { op: Op::ADD, tag: "vip" }];
    let (uids, changes) = (uids.as_slice().into(), changes.as_slice().into());
    let tag = Tag { namespace: 0, sequence: 1, origin: 0, uids, changes };
    site.bytes(PRODUCER, &encode(&Frame::Tag(tag)));
    assert!(site.shard.has_more() && site.taken(Kind::TAG).is_empty());
    site.finish();
    assert_eq!(site.taken(Kind::TAG).len() as u64, GATEWAYS);
}

/// Each is for one user at gateways that have none of its 20 tags.
#[test]
fn sec_24_terms_of_selectors_are_work() {
    let mut site = Site::new();
    let tags: Vec<String> = (0..20).map(|tag| format!("tag:{tag}")).collect();
    let selector = selector::parse(&tags.join(" | ")).unwrap();
    let selector = Selector::check(&selector).ok();
    let head = MessageHead { level: Level::ROUTED, selector, ..MessageHead::default() };
    let message = |sequence| publish(MessageHead { sequence, ..head }, &[7]);
    site.bytes(PRODUCER, &(1..=12).map(message).collect::<Vec<_>>().concat());
    let mut receipts = vec![site.taken(Kind::RECEIPT).len()];
    while site.shard.has_more() {
        site.go_on();
        receipts.push(site.taken(Kind::RECEIPT).len());
    }
    // A term is 64 steps.
    assert!(receipts.iter().all(|number| *number <= STEPS / (20 * 64)), "{receipts:?}");
    assert_eq!(receipts.iter().sum::<usize>(), 12);
}

/// Each is for one user who is offline, of which a consumer is told if its last term says so.
#[test]
fn sec_24_filters_of_consumers_are_work() {
    let mut site = Site::new();
    let consumer = LinkId(200);
    site.input(Input::Accepted { link: consumer, peer: None });
    let offered = capability::OFFLINE | capability::FILTERS;
    site.bytes(consumer, &hello_offering(Role::CONSUMER, 9, b"", offered));
    let terms: Vec<String> = (1_000..1_060).map(|uid| format!("uid={uid}")).collect();
    let expression = &terms.join(" | ");
    let filter = Filter { op: Op::ADD, filter: 1, namespace: 0, expression };
    site.bytes(consumer, &encode(&Frame::Filter(filter)));
    for (level, uids) in
        [(Level::NONE, vec![1_059]), (Level::ROUTED, vec![1_059]), (Level::NONE, vec![1_059, 500])]
    {
        let first = 100 * uids.len() as u64 + 40 * u64::from(level.0) + 1;
        let head = MessageHead { level, ..MessageHead::default() };
        let message = |sequence| publish(MessageHead { sequence, ..head }, &uids);
        site.bytes(PRODUCER, &(first..first + 40).map(message).collect::<Vec<_>>().concat());
        let mut told = vec![site.taken(Kind::OFFLINE).len()];
        while site.shard.has_more() {
            site.go_on();
            told.push(site.taken(Kind::OFFLINE).len());
        }
        // A test is 2 steps.
        assert!(told.iter().all(|number| *number <= STEPS / (60 * 2) + 1), "{told:?}");
        assert_eq!(told.iter().sum::<usize>(), 40);
    }
}

#[test]
fn sec_24_links_with_long_messages_take_turns() {
    let mut site = Site::new();
    site.bytes(PRODUCER, &to_all(1, Level::ROUTED));
    site.bytes(OTHER, &to_all(1, Level::ROUTED));
    let mut ended = Vec::new();
    let mut turns = 0;
    while site.shard.has_more() {
        site.go_on();
        turns += 1;
        ended.extend(site.taken(Kind::RECEIPT).into_iter().map(|(link, _)| (link, turns)));
    }
    let [(PRODUCER, first), (OTHER, second)] = ended[..] else { panic!("{ended:?}") };
    assert_eq!(first, second, "the second has not waited for the first");
}

#[test]
fn sec_24_a_link_that_fails_meanwhile_has_said_what_it_said() {
    let mut site = Site::new();
    site.bytes(PRODUCER, &to_all(1, Level::DELIVERED));
    site.go_on();
    site.input(Input::Failed { link: PRODUCER });
    let frames: usize = site.finish().iter().map(Vec::len).sum();
    assert_eq!(frames as u64, GATEWAYS);
    let ledger = waybill_broker::Ledger::of([site.shard.counters().as_ref()]);
    assert_eq!((ledger.publishes, ledger.receipts_producer_gone), (1, 1));
    ledger.balances().unwrap();
}

#[test]
fn sec_24_a_gateway_may_report_before_the_last_has_its_frame() {
    let mut site = Site::new();
    site.bytes(PRODUCER, &to_all(1, Level::DELIVERED));
    let mut receipts = Vec::new();
    while site.shard.has_more() {
        site.go_on();
        for (link, _) in site.taken(Kind::DELIVER) {
            let uids = [3];
            let offline =
                [FateSet { fate: Fate::OFFLINE, uids: Uids::Slice(&uids), ..FateSet::default() }];
            let report = Report {
                stage: Level::DELIVERED,
                origin: PRODUCER.0,
                sequence: 1,
                reached: 39,
                offline: 1,
                fate_sets: (&offline).into(),
                ..Report::default()
            };
            site.bytes(link, &encode(&Frame::Report(report)));
        }
        receipts.extend(site.taken(Kind::RECEIPT));
    }
    receipts.extend(site.taken(Kind::RECEIPT));
    let [(_, routed), (_, delivered)] = &receipts[..] else { panic!("{receipts:?}") };
    for (frame, stage, sent) in [(routed, Level::ROUTED, 40), (delivered, Level::DELIVERED, 39)] {
        let Ok(Frame::Receipt(receipt)) = Frame::decode(frame) else { panic!("{frame:02x?}") };
        assert_eq!((receipt.stage, receipt.sent, receipt.gateways), (stage, sent, 30));
    }
}

/// A slot that takes the place of another while a message is on its way to it.
#[test]
fn promise_8_a_resync_between_two_turns_hides_nobody() {
    for turns in 0..12 {
        let mut site = Site::new();
        site.bytes(PRODUCER, &to_all(1, Level::ROUTED));
        for _ in 0..turns {
            site.go_on();
        }
        let mut frames = site.taken(Kind::DELIVER);
        // The last gateway again, by another link: its snapshot replaces the slot.
        site.gateway(LinkId(300), GATEWAYS, 1);
        frames.extend(site.taken(Kind::DELIVER));
        frames.extend(site.finish().concat());
        let receipts = site.taken(Kind::RECEIPT);
        let [(_, receipt)] = &receipts[..] else { panic!("{receipts:?}") };
        let Ok(Frame::Receipt(receipt)) = Frame::decode(receipt) else { panic!("{receipt:?}") };
        let found = (receipt.sent, receipt.offline, receipt.gateways);
        assert_eq!(found, (40, 0, 30), "after {turns} turns");
        let of_it = frames.iter().filter(|(link, _)| [GATEWAYS, 300].contains(&link.0));
        assert_eq!((frames.len() as u64, of_it.count()), (GATEWAYS, 1), "after {turns} turns");
    }
}

#[test]
fn sec_24_a_tag_takes_turns_as_well_and_is_answered_once() {
    let mut site = Site::new();
    let uids: Vec<u64> = (0..USERS).collect();
    let changes = [TagChange { op: Op::ADD, tag: "vip" }];
    let (uids, changes) = (uids.as_slice().into(), changes.as_slice().into());
    let tag = Tag { namespace: 0, sequence: 1, origin: 0, uids, changes };
    let after = publish(MessageHead { sequence: 2, ..MessageHead::default() }, &[7]);
    site.bytes(PRODUCER, &[encode(&Frame::Tag(tag)), after].concat());
    let (mut tags, mut turns, mut receipts) = (Vec::new(), 0, Vec::new());
    while site.shard.has_more() {
        site.bytes(OTHER, &encode(&Frame::Ping(Ping { token: turns })));
        assert_eq!(site.taken(Kind::PONG).len(), 1, "turn {turns}");
        site.go_on();
        let told = site.taken(Kind::TAG);
        assert!(told.len() <= FRAMES_PER_TURN, "{} in turn {turns}", told.len());
        for (link, _) in &told {
            let (stage, origin, sequence) = (Level::DELIVERED, PRODUCER.0, 1);
            let report = Report { stage, origin, sequence, reached: 40, ..Report::default() };
            site.bytes(*link, &encode(&Frame::Report(report)));
        }
        tags.extend(told);
        receipts.extend(site.taken(Kind::RECEIPT));
        turns += 1;
    }
    receipts.extend(site.taken(Kind::RECEIPT));
    assert!(turns >= 7, "{turns}");
    let links: Vec<u64> = tags.iter().map(|(link, _)| link.0).collect();
    assert_eq!(links, (1..=GATEWAYS).collect::<Vec<_>>(), "each gateway once");
    let [(PRODUCER, receipt)] = &receipts[..] else { panic!("{receipts:?}") };
    let Ok(Frame::Receipt(receipt)) = Frame::decode(receipt) else { panic!("{receipt:?}") };
    assert_eq!((receipt.sent, receipt.gateways, receipt.last), (40, 30, true));
    assert_eq!(site.taken(Kind::DELIVER).len() as u64, GATEWAYS, "what came behind it");
}

#[test]
fn sec_24_what_takes_several_turns_comes_to_the_same() {
    for seed in 0..6 {
        let script = Script::new(seed, 1);
        for pace in [Pace::Together, Pace::OneByOne] {
            // The simulator's odd seeds have few steps in a turn.
            let at_once = play(Backend::Sim(1, 0), true, &script, pace);
            let in_turns = play(Backend::Sim(1, 1), true, &script, pace);
            assert_eq!(at_once, in_turns, "script {seed}");
        }
    }
}

#[test]
fn sec_24_a_mode_that_looks_nobody_up_takes_turns_as_well() {
    let mut site = Site::new();
    let uids: Vec<u64> = (0..USERS).collect();
    let (mode, level) = (Mode::BROADCAST, Level::ROUTED);
    let head = MessageHead { sequence: 1, mode, level, ..MessageHead::default() };
    let mut long = Vec::new();
    head.encode_publish(&uids, &[0; 4096], &mut long).unwrap();
    site.bytes(PRODUCER, &long);
    let turns = site.finish();
    // 24 steps for a frame and 138 for its bytes.
    assert!(turns.len() > 1 && turns.iter().all(|turn| turn.len() <= STEPS / 162 + 1));
    assert_eq!(turns.iter().map(Vec::len).sum::<usize>() as u64, GATEWAYS);
    assert!(site.shared.routes.counts().slots_live > 0 && site.closed.is_empty());
}

/// As many DELTAs of three users each, in one read, and the question whether all are in effect:
/// 52 steps each, where a gateway's link has 50 in a turn.
fn deltas(first: u64, count: u64) -> Vec<u8> {
    let of = |uid| Record { uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
    let (mut frames, mut digest) = (Vec::new(), Digest::default());
    (0..USERS).for_each(|uid| digest.add(registered(uid)));
    for at in 0..count {
        let uids = first + 3 * at..first + 3 * at + 3;
        uids.clone().for_each(|uid| digest.add(registered(uid)));
        let records: Vec<Record> = uids.map(of).collect();
        let delta = Delta { version: 2 + at, records: (&records).into() };
        frames.extend(encode(&Frame::Delta(delta)));
    }
    let barrier = Barrier { version: 1 + count, digest: digest.value() };
    frames.extend(encode(&Frame::Barrier(barrier)));
    frames
}

fn registered(uid: u64) -> Registered {
    Registered { namespace: 0, uid, device_class: 0, login: 0 }
}

#[test]
fn sec_24_what_a_gateway_declares_delays_neither_messages_nor_other_gateways() {
    let mut site = Site::new();
    let (large, small) = (LinkId(1), LinkId(2));
    site.bytes(large, &deltas(1_000, 40));
    site.bytes(small, &deltas(5_000, 3));
    let (mut turns, mut in_effect) = (0, Vec::new());
    while site.shard.has_more() {
        assert!(!site.reads.contains_key(&large), "it is not read before it is served");
        turns += 1;
        let one = publish(MessageHead { sequence: turns, ..MessageHead::default() }, &[7]);
        site.bytes(PRODUCER, &one);
        assert_eq!(site.taken(Kind::DELIVER).len() as u64, GATEWAYS, "turn {turns}");
        site.go_on();
        let more = site.shared.routes.counts().routes as u64 - GATEWAYS * USERS;
        assert!(more <= 3 * (2 + 2 * turns), "{more} users after {turns} turns");
        let told = site.taken(Kind::IN_EFFECT);
        in_effect.extend(told.into_iter().map(|(link, _)| (link, turns)));
    }
    let [(first, early), (second, late)] = in_effect[..] else { panic!("{in_effect:?}") };
    assert_eq!((first, second), (small, large));
    assert!(early <= 4 && (35..=41).contains(&late), "{early} {late}");
    assert!(site.reads.contains_key(&large) && site.closed.is_empty());
}

#[test]
fn promise_8_users_of_a_gateway_that_fails_are_offline_whatever_it_had_said() {
    let mut site = Site::new();
    site.bytes(LinkId(1), &deltas(1_000, 40));
    assert!(site.shard.has_more());
    site.input(Input::Failed { link: LinkId(1) });
    let head = MessageHead { sequence: 1, level: Level::ROUTED, ..MessageHead::default() };
    site.bytes(PRODUCER, &publish(head, &[7, 1_000]));
    let receipts = site.taken(Kind::RECEIPT);
    let [(_, receipt)] = &receipts[..] else { panic!("{receipts:?}") };
    let Ok(Frame::Receipt(receipt)) = Frame::decode(receipt) else { panic!("{receipt:?}") };
    assert_eq!((receipt.sent, receipt.offline, receipt.gateways), (1, 1, 29));
    assert_eq!(site.taken(Kind::DELIVER).len() as u64, GATEWAYS - 1);
    assert_eq!(site.shared.routes.counts().slots_live as u64, GATEWAYS - 1);
}

#[test]
fn what_the_dead_left_is_swept_between_turns_and_never_more_at_once() {
    let mut site = Site::new();
    let (link, last) = (LinkId(400), 10);
    site.link(link, Role::GATEWAY, link.0);
    for part in 0..=last {
        let uids = 10_000 * (1 + part)..10_000 * (1 + part) + 4_096;
        let of = |uid| Record { uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
        let records: Vec<Record> = uids.map(of).collect();
        let (first, last, records) = (part == 0, part == last, (&records).into());
        let snapshot = Snapshot { first, last, version: 1, records };
        site.bytes(link, &encode(&Frame::Snapshot(snapshot)));
    }
    while site.shard.has_more() {
        site.go_on();
    }
    let dead = |site: &Site| site.shared.routes.counts().routes_dead;
    site.input(Input::Failed { link });
    let all = dead(&site);
    assert_eq!(all, 11 * 4_096, "it has not offered to resume");
    site.at(Duration::from_millis(TICK_MS), Input::Tick);
    // Every portion but the first is due when its time has come, and not before.
    let portion = SWEEP_STEPS / CHORES_PER_TICK;
    let (mut now, mut before, mut portions) = (TICK_MS, dead(&site), 1);
    assert!(before < all && all - before <= 6 * portion, "{before} of {all}");
    while before > 0 {
        site.pinged(now);
        assert!(!site.shard.has_more(), "at {now} ms");
        now += CHORES_MS;
        site.pinged(now);
        assert!(site.shard.has_more(), "at {now} ms");
        site.go_on();
        let after = dead(&site);
        assert!(before - after <= 6 * portion, "{after} of {before} at {now} ms");
        (before, portions) = (after, portions + 1);
    }
    assert!(portions > 3, "{portions}");
}

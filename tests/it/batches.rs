//! What came in one read is served together, and does what it would do one by one: a script from a
//! seed is sent as one piece, frame by frame, and so that no frame lies whole in a read, and all of
//! these must come to the same, byte for byte.

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use waybill_broker::{BrokerConfig, IoEvents, Ledger, TokenConfig};
use waybill_wire::Frame;
use waybill_wire::code::{Class, ErrorCode, Kind, Level, Mode, Op, Role, capability};
use waybill_wire::frame::{Ping, Pong, Record, Snapshot};
use waybill_wire::message::MessageHead;
use waybill_wire::targets::Uids;

use crate::support::{Backend, Line, Net, backends};
use crate::talk::{encode, hello_offering};

/// Scripts for each backend.
const SEEDS: u64 = 12;

/// Frames of a script.
const FRAMES: usize = 150;

/// Users 0 to 15 are at the first gateway, 8 to 23 at the second, 20 to 31 at the third: some are
/// at two, and those above at none.
const HELD: [std::ops::Range<u64>; 3] = [0..16, 8..24, 20..32];
const USERS: u64 = 40;

/// More than an outbox takes, so that such a message is refused whatever waits there.
const TOO_LARGE: usize = 300_000;

/// Ends what a line is asked for.
const FENCE: u32 = 4_711;

fn config(ready: bool) -> BrokerConfig {
    let token = |role: &str, namespaces| TokenConfig {
        name: role.into(),
        token: role.into(),
        roles: vec![role.into()],
        namespaces,
    };
    BrokerConfig {
        tokens: vec![
            token("producer", Some(vec![0, 2])),
            token("gateway", Some(vec![0])),
            token("consumer", None),
        ],
        outbox_bytes_max: 262_144,
        gateways_expected: if ready { 0 } else { 9 },
        ready_quiet_ms: if ready { 0 } else { 600_000 },
        ready_max_ms: 3_600_000,
        report_timeout_ms: 600_000,
        keepalive_ms: 0,
        ..BrokerConfig::default()
    }
}

/// What a producer sends, and how many PUBLISHes of it are taken in.
pub(crate) struct Script {
    frames: Vec<Vec<u8>>,
    publishes: u64,
}

impl Script {
    /// For a broker of so many shards: where there are several, receipts of stage `delivered` come
    /// when other shards have answered, so that their places among the others are not given.
    pub(crate) fn new(seed: u64, shards: u16) -> Self {
        let random = &mut SmallRng::seed_from_u64(seed);
        let levels: &[Level] = match shards {
            1 => &[Level::NONE, Level::ROUTED, Level::DELIVERED],
            _ => &[Level::NONE, Level::ROUTED],
        };
        let publish = |random: &mut SmallRng, sequence| publish(random, sequence, levels);
        let mut script = Self { frames: Vec::new(), publishes: 0 };
        let bad = random.random_range(0..2 * FRAMES);
        let mut sequence = 0;
        for at in 0..FRAMES {
            if at == bad {
                script.end_badly(random, publish);
                // Nothing that comes after it has an effect.
                script.frames.push(publish(random, sequence + 1));
                break;
            }
            if random.random_range(0..20) == 0 {
                script.frames.push(encode(&Frame::Ping(Ping { token: 1 })));
                continue;
            }
            if random.random_range(0..60) == 0 {
                let burst = to_everyone(random, sequence);
                sequence += burst.len() as u64;
                script.publishes += burst.len() as u64;
                script.frames.extend(burst);
                continue;
            }
            sequence += random.random_range(1..3);
            let is_plain = random.random_range(0..3) == 0;
            let frame = if is_plain { plain(random, sequence) } else { publish(random, sequence) };
            script.frames.push(frame);
            script.publishes += 1;
        }
        script
    }

    fn end_badly(
        &mut self,
        random: &mut SmallRng,
        publish: impl Fn(&mut SmallRng, u64) -> Vec<u8>,
    ) {
        let bad = match random.random_range(0..4) {
            // The sequence is not above the last.
            0 => {
                let head =
                    MessageHead { sequence: 1_000, everyone: true, ..MessageHead::default() };
                let again = if random.random() {
                    self.frames.push(plain(random, 1_000));
                    plain(random, 1_000)
                } else {
                    self.frames.push(publish(random, 1_000));
                    written(head, &[], b"again")
                };
                self.publishes += 1;
                again
            }
            1 => {
                let mut bytes = publish(random, 1_000);
                bytes[14] = 1;
                bytes
            }
            2 => vec![1, 0x7f, 4, 0, 0, 0, 0, 0],
            _ => encode(&Frame::Pong(Pong { token: 3 })).into_iter().chain([9; 16]).collect(),
        };
        self.frames.push(bad);
    }
}

fn written(head: MessageHead<'_>, targets: &[u64], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    head.encode_publish(targets, payload, &mut out).expect("the test makes a valid PUBLISH");
    out
}

/// Messages that follow each other and go to every gateway as they are, so that outboxes share
/// them; now and then one among them that cannot be shared.
pub(crate) fn to_everyone(random: &mut SmallRng, before: u64) -> Vec<Vec<u8>> {
    let mode = [Mode::DIRECT, Mode::AUTO, Mode::BROADCAST][random.random_range(0..3)];
    let count = random.random_range(2..40);
    let message = |at| {
        let conflate = (random.random_range(0..10) == 0).then_some(before + at);
        let sequence = before + at;
        let head =
            MessageHead { sequence, everyone: true, mode, conflate, ..MessageHead::default() };
        written(head, &[], &vec![b'e'; random.random_range(0..800)])
    };
    (1..=count).map(message).collect()
}

/// What a producer sends most: to one user, and nothing is asked for.
fn plain(random: &mut SmallRng, sequence: u64) -> Vec<u8> {
    let namespace = [0, 0, 0, 0, 0, 0, 1, 2][random.random_range(0..8)];
    let head = MessageHead { sequence, namespace, ..MessageHead::default() };
    let size =
        if random.random_range(0..30) == 0 { TOO_LARGE } else { random.random_range(0..300) };
    written(head, &[random.random_range(0..USERS)], &vec![b'p'; size])
}

fn publish(random: &mut SmallRng, sequence: u64, levels: &[Level]) -> Vec<u8> {
    let one_in = |random: &mut SmallRng, many: u32| random.random_range(0..many) == 0;
    let some = |random: &mut SmallRng, most: usize| -> Vec<u64> {
        let count = random.random_range(0..=most);
        (0..count).map(|_| random.random_range(0..USERS)).collect()
    };
    let everyone = one_in(random, 12);
    let most = if one_in(random, 10) { 200 } else { 3 };
    let mut targets = some(random, most);
    if everyone {
        targets.clear();
    } else if targets.is_empty() {
        targets.push(random.random_range(0..USERS));
    }
    let except = if one_in(random, 4) { some(random, 4) } else { Vec::new() };
    let labels = ["order.paid"];
    let head = MessageHead {
        sequence,
        everyone,
        resend: one_in(random, 15),
        mode: [Mode::DIRECT, Mode::AUTO, Mode::AUTO, Mode::BROADCAST][random.random_range(0..4)],
        level: levels[random.random_range(0..levels.len())],
        // The producer may not publish to 1, and no gateway may see 2.
        namespace: [0, 0, 0, 0, 0, 0, 1, 2][random.random_range(0..8)],
        // Does not run, and is refused.
        class: if one_in(random, 15) && !everyone { Class::STORED } else { Class::LIVE },
        labels: if one_in(random, 4) { (&labels).into() } else { Default::default() },
        except: Uids::Slice(&except),
        ..MessageHead::default()
    };
    let size = if one_in(random, 60) { TOO_LARGE } else { random.random_range(0..300) };
    written(head, &targets, &vec![b'x'; size])
}

/// What came of a script: what each line got, and what was counted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    producer: Vec<Vec<u8>>,
    gateways: Vec<Vec<Vec<u8>>>,
    consumer: Vec<Vec<u8>>,
    ledger: Ledger,
}

pub(crate) fn linked(net: &mut Net, role: Role, instance: u64, capabilities: u64) -> Line {
    let line = net.connect();
    let credential = role.name().unwrap().as_bytes();
    net.send(line, &hello_offering(role, instance, credential, capabilities));
    let welcome = net.frame(line).expect("WELCOME");
    assert!(matches!(Frame::decode(&welcome), Ok(Frame::Welcome(_))));
    line
}

fn gateway(net: &mut Net, at: usize) -> Line {
    // The last one offers reports and never makes one.
    let capabilities = if at + 1 == HELD.len() { capability::REPORTS } else { 0 };
    let line = linked(net, Role::GATEWAY, at as u64 + 1, capabilities);
    let record = |uid| Record { uid, login: 0, namespace: 0, op: Op::ADD, device_class: 0 };
    let records: Vec<Record> = HELD[at].clone().map(record).collect();
    let snapshot = Snapshot { first: true, last: true, version: 1, records: (&records).into() };
    net.send(line, &encode(&Frame::Snapshot(snapshot)));
    until_fence(net, line);
    line
}

/// What a line gets before the answer to a PING of now, or its end; without other PONGs.
pub(crate) fn until_fence(net: &mut Net, line: Line) -> Vec<Vec<u8>> {
    net.send(line, &encode(&Frame::Ping(Ping { token: FENCE })));
    let mut frames = Vec::new();
    while let Some(frame) = net.frame(line) {
        match Frame::decode(&frame) {
            Ok(Frame::Pong(Pong { token: FENCE })) => break,
            Ok(Frame::Pong(_)) => {}
            _ => frames.push(frame),
        }
    }
    frames
}

/// How the frames of a script are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    Together,
    /// What one leads to has come before the next one is sent.
    OneByOne,
    /// The same, and the broker reads each in two pieces. In the simulator only.
    InHalves,
}

/// Plays a script.
pub(crate) fn play(backend: Backend, ready: bool, script: &Script, pace: Pace) -> Outcome {
    let mut net = Net::start(backend, config(ready));
    let gateways: Vec<Line> = (0..HELD.len()).map(|at| gateway(&mut net, at)).collect();
    let consumer = linked(&mut net, Role::CONSUMER, 90, capability::OFFLINE);
    until_fence(&mut net, consumer);
    let line = linked(&mut net, Role::PRODUCER, 7, 0);
    until_fence(&mut net, line);
    let mut producer = Vec::new();
    if pace == Pace::Together {
        net.send(line, &script.frames.concat());
        producer = until_fence(&mut net, line);
    } else {
        for frame in &script.frames {
            let half = if pace == Pace::InHalves { frame.len() / 2 } else { 0 };
            if half > 0 {
                net.send(line, &frame[..half]);
                net.settle();
            }
            net.send(line, &frame[half..]);
            producer.extend(until_fence(&mut net, line));
            // Or an outbox would fill up here and not there.
            net.until(nothing_waits);
        }
    }
    net.until(|ledger| ledger.publishes == script.publishes && nothing_waits(ledger));
    let consumer = until_fence(&mut net, consumer);
    let gateways = gateways.iter().map(|line| until_fence(&mut net, *line)).collect();
    let mut ledger = net.ledger();
    // These two depend on when something was asked, and are one.
    ledger.gateways.delivered += ledger.gateways.unconfirmed;
    ledger.gateways.unconfirmed = 0;
    ledger.consumers.delivered += ledger.consumers.unconfirmed;
    ledger.consumers.unconfirmed = 0;
    ledger.io = IoEvents::default();
    Outcome { producer, gateways, consumer, ledger }
}

fn nothing_waits(ledger: &Ledger) -> bool {
    let [gateways, consumers] = [&ledger.gateways, &ledger.consumers];
    let waiting = [gateways, consumers].map(|it| it.waiting + it.between_shards);
    waiting == [0, 0]
}

fn check(ready: bool) {
    for backend in backends() {
        for seed in 0..SEEDS {
            eprintln!("on {backend:?}, script {seed}");
            let script = Script::new(seed, backend.shards());
            let together = play(backend, ready, &script, Pace::Together);
            assert_eq!(together, play(backend, ready, &script, Pace::OneByOne));
            if matches!(backend, Backend::Sim(..)) {
                assert_eq!(together, play(backend, ready, &script, Pace::InHalves));
            }
            assert_eq!(together.ledger.publishes, script.publishes);
            assert!(ready || together.ledger.publishes_refused == script.publishes);
        }
    }
}

#[test]
fn promise_2_a_batch_of_publishes_does_what_they_would_do_one_by_one() {
    check(true);
}

#[test]
fn promise_8_a_broker_that_is_not_ready_refuses_each_of_a_batch() {
    check(false);
}

/// The scripts are no use if they leave something out.
#[test]
fn the_scripts_bring_every_outcome() {
    let (mut sum, mut codes, mut told_offline) = (Ledger::default(), Vec::new(), 0);
    for seed in 0..SEEDS {
        let script = Script::new(seed, 1);
        let Outcome { producer, consumer, ledger, .. } =
            play(Backend::Sim(1, seed), true, &script, Pace::Together);
        told_offline += consumer.len();
        sum.publishes_refused += ledger.publishes_refused;
        sum.targets_offline += ledger.targets_offline;
        sum.targets_filtered += ledger.targets_filtered;
        sum.targets_dropped += ledger.targets_dropped;
        sum.targets_unresolved += ledger.targets_unresolved;
        sum.links_faulted += ledger.links_faulted;
        sum.receipts_pending += ledger.receipts_pending + ledger.receipts_producer_gone;
        for frame in producer {
            match Frame::decode(&frame) {
                Ok(Frame::Receipt(receipt)) => codes.push(receipt.code),
                Ok(Frame::Error(error)) => codes.push(error.code),
                other => panic!("{other:?}, {:?}", Kind(frame[1])),
            }
        }
    }
    for code in [
        ErrorCode(0),
        ErrorCode::NOT_PERMITTED,
        ErrorCode::NOT_SUPPORTED,
        ErrorCode::SEQUENCE_ORDER,
    ] {
        assert!(codes.contains(&code), "{code:?}");
    }
    for (name, count) in [
        ("refused", sum.publishes_refused),
        ("offline", sum.targets_offline),
        ("filtered", sum.targets_filtered),
        ("dropped", sum.targets_dropped),
        ("unresolved", sum.targets_unresolved),
        ("faulted", sum.links_faulted),
        ("pending", sum.receipts_pending),
        ("told offline", told_offline as u64),
    ] {
        assert!(count > 0, "{name}");
    }
}

//! The same input, replayed in the same order on every backend, makes the same frames in the same
//! order on every link, byte for byte, whatever the number of shards.
//!
//! A script follows from its seed. What one step leads to has come, and was taken, before the next
//! one is sent: what may come in any order is no difference. So what may overtake, replace or be
//! divided by other messages (`differential/alone.rs`) is a step of its own.

mod alone;

use std::ops::Range;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Level, Mode, Op, Role, capability};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Barrier, Delta, Record, Snapshot, UplinkAck};
use waybill_wire::message::{MessageHead, Sender};
use waybill_wire::targets::Uids;

use crate::batches::{to_everyone, until_fence};
use crate::support::{Backend, Line, Net, backends};
use crate::talk::{encode, link, link_offering};

const SEEDS: u64 = 6;
const STEPS: usize = 40;
const USERS: u64 = 40;
const GATEWAYS: usize = 3;
const PRODUCERS: usize = 2;

/// Bytes of payloads of which several come together, at most: none goes in pieces, whose places
/// among other messages follow from when each write happens.
const TOGETHER_BYTES: usize = 60_000;

/// What waits for a link in one step fits in here, whatever it is.
const OUTBOX_BYTES: usize = 16 << 20;

enum Step {
    /// A producer sends these, cut into pieces that have nothing to do with frames.
    Publish { producer: usize, frames: Vec<Vec<u8>>, piece: usize },
    /// The producer that may send pieces sends one message, in frames of any length.
    Alone { frames: Vec<Vec<u8>> },
    /// A gateway's users come and go.
    Change { gateway: usize, records: Vec<Record> },
    /// A gateway sends what its user says.
    Uplink { gateway: usize, bytes: usize },
    /// The consumer answers all it was asked.
    Answer { code: ErrorCode },
    /// A gateway ends its link and comes back with these users, as another life.
    Return { gateway: usize, records: Vec<Record> },
}

fn records(random: &mut SmallRng, op: Option<Op>) -> Vec<Record> {
    let count = random.random_range(1..12);
    let record = |_| {
        let uid = random.random_range(0..USERS);
        let any = if random.random_range(0..3) == 0 { Op::REMOVE } else { Op::ADD };
        Record { uid, login: 0, namespace: 0, op: op.unwrap_or(any), device_class: 0 }
    };
    let mut records: Vec<Record> = (0..count).map(record).collect();
    records.sort_by_key(|record| record.uid);
    records.dedup_by_key(|record| record.uid);
    records
}

fn some(random: &mut SmallRng, number: Range<usize>) -> Vec<u64> {
    let count = random.random_range(number);
    (0..count).map(|_| random.random_range(0..USERS)).collect()
}

fn payload(random: &mut SmallRng, bytes: Range<usize>) -> Vec<u8> {
    (0..=u8::MAX).cycle().take(random.random_range(bytes)).collect()
}

fn publish(random: &mut SmallRng, sequence: u64) -> Vec<u8> {
    let everyone = random.random_range(0..10) == 0;
    let targets = if everyone { Vec::new() } else { some(random, 1..7) };
    let except = if random.random_range(0..4) == 0 { some(random, 1..5) } else { Vec::new() };
    let head = MessageHead {
        sequence,
        everyone,
        mode: [Mode::DIRECT, Mode::AUTO, Mode::BROADCAST][random.random_range(0..3)],
        level: [Level::NONE, Level::ROUTED][random.random_range(0..2)],
        namespace: u32::from(random.random_range(0..8) == 0),
        except: Uids::Slice(&except),
        ..MessageHead::default()
    };
    // Now and then more than a read takes, and some of these more than a write.
    let most = if random.random_range(0..4) == 0 { TOGETHER_BYTES } else { 400 };
    let payload = payload(random, 0..most);
    let mut out = Vec::new();
    head.encode_publish(&targets, &payload, &mut out).expect("the test makes a valid PUBLISH");
    out
}

fn script(seed: u64) -> Vec<Step> {
    let random = &mut SmallRng::seed_from_u64(seed);
    let (mut sequences, mut alone) = ([0; PRODUCERS], 0);
    let step = |_| match random.random_range(0..14) {
        0..5 => {
            let producer = random.random_range(0..PRODUCERS);
            let frame = |random: &mut SmallRng| {
                sequences[producer] += 1;
                publish(random, sequences[producer])
            };
            let count = random.random_range(1..20);
            let mut frame = frame;
            let mut frames: Vec<Vec<u8>> = (0..count).map(|_| frame(random)).collect();
            if random.random_range(0..3) == 0 {
                let burst = to_everyone(random, sequences[producer]);
                sequences[producer] += burst.len() as u64;
                frames.extend(burst);
            }
            Step::Publish { producer, frames, piece: random.random_range(1..100_000) }
        }
        5 | 6 => Step::Change {
            gateway: random.random_range(0..GATEWAYS),
            records: records(random, None),
        },
        7 => Step::Uplink {
            gateway: random.random_range(0..GATEWAYS),
            bytes: random.random_range(0..100_000),
        },
        8 => Step::Answer {
            code: [ErrorCode(0), ErrorCode::NOT_PERMITTED][random.random_range(0..2)],
        },
        9..13 => {
            alone += 1;
            Step::Alone { frames: alone::message(random, alone) }
        }
        _ => Step::Return {
            gateway: random.random_range(0..GATEWAYS),
            records: records(random, Some(Op::ADD)),
        },
    };
    (0..STEPS).map(step).collect()
}

struct Gateway {
    life: u64,
    line: Line,
    version: u64,
    declared: std::collections::BTreeSet<Registered>,
    sequence: u64,
}

impl Gateway {
    fn note(&mut self, records: &[Record]) {
        for Record { uid, op, .. } in records {
            let registered = Registered { namespace: 0, uid: *uid, device_class: 0, login: 0 };
            if *op == Op::ADD {
                self.declared.insert(registered);
            } else {
                self.declared.remove(&registered);
            }
        }
    }

    fn barrier(&self) -> Vec<u8> {
        let digest = self.declared.iter().copied().collect::<Digest>().value();
        encode(&Frame::Barrier(Barrier { version: self.version, digest }))
    }
}

/// Every line of a replay, in the order of its links, with the frames it got.
type Told = Vec<Vec<Vec<u8>>>;

struct Replay {
    net: Net,
    told: Told,
    producers: Vec<Line>,
    alone: Line,
    consumer: Line,
    gateways: Vec<Gateway>,
    lives: u64,
    // Uplinks that the consumer has not answered: of which life, and their numbers.
    owed: Vec<(u64, u64)>,
}

impl Replay {
    fn new(backend: Backend) -> Self {
        let config = BrokerConfig {
            keepalive_ms: 0,
            outbox_bytes_max: OUTBOX_BYTES,
            uplink_timeout_ms: 3_600_000,
            ..BrokerConfig::default()
        };
        let mut net = Net::start(backend, config);
        let consumer = link(&mut net, Role::CONSUMER, 90);
        let producers = (0..PRODUCERS as u64).map(|at| link(&mut net, Role::PRODUCER, 70 + at));
        let producers = producers.collect();
        let alone = link_offering(&mut net, Role::PRODUCER, 80, capability::FRAGMENTS);
        let mut replay = Self {
            net,
            told: vec![Vec::new(); 2 + PRODUCERS],
            producers,
            alone,
            consumer,
            gateways: Vec::new(),
            lives: 0,
            owed: Vec::new(),
        };
        for _ in 0..GATEWAYS {
            let gateway = replay.gateway(&[]);
            replay.gateways.push(gateway);
        }
        replay
    }

    /// A new life of a gateway with these users.
    fn gateway(&mut self, records: &[Record]) -> Gateway {
        self.lives += 1;
        let capabilities = if self.lives.is_multiple_of(2) { capability::FRAGMENTS } else { 0 };
        let line = link_offering(&mut self.net, Role::GATEWAY, self.lives, capabilities);
        self.told.push(Vec::new());
        let (life, declared) = (self.lives, Default::default());
        let mut gateway = Gateway { life, line, version: 1, declared, sequence: 0 };
        gateway.note(records);
        let snapshot = Snapshot { first: true, last: true, version: 1, records: records.into() };
        self.net.send(line, &encode(&Frame::Snapshot(snapshot)));
        gateway
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish { producer, frames, piece } => {
                for piece in frames.concat().chunks(*piece) {
                    self.net.send(self.producers[*producer], piece);
                }
            }
            Step::Alone { frames } => {
                frames.iter().for_each(|frame| self.net.send(self.alone, frame));
            }
            Step::Change { gateway, records } => {
                let gateway = &mut self.gateways[*gateway];
                gateway.version += 1;
                gateway.note(records);
                let delta = Delta { version: gateway.version, records: records.into() };
                self.net.send(gateway.line, &encode(&Frame::Delta(delta)));
                self.net.send(gateway.line, &gateway.barrier());
            }
            Step::Uplink { gateway, bytes } => {
                let gateway = &mut self.gateways[*gateway];
                gateway.sequence += 1;
                let sender = Some(Sender { uid: 1, connection: 5 });
                let sequence = gateway.sequence;
                let head = MessageHead { sequence, sender, ..MessageHead::default() };
                let mut out = Vec::new();
                head.encode_uplink(&vec![7; *bytes], &mut out).unwrap();
                self.net.send(gateway.line, &out);
                self.owed.push((gateway.life, sequence));
            }
            Step::Answer { code } => {
                for (origin, sequence) in std::mem::take(&mut self.owed) {
                    let ack = UplinkAck { code: *code, sequence, origin };
                    self.net.send(self.consumer, &encode(&Frame::UplinkAck(ack)));
                }
            }
            Step::Return { gateway, records } => {
                self.net.close(self.gateways[*gateway].line);
                let again = self.gateway(records);
                self.gateways[*gateway] = again;
            }
        }
        self.take();
    }

    /// Takes what the step has led to: first what its sender is told when all of it was served.
    fn take(&mut self) {
        let mut lines = self.producers.clone();
        lines.extend([self.alone, self.consumer]);
        lines.extend(self.gateways.iter().map(|gateway| gateway.line));
        // The first time until all was read, the second what came of it.
        for _ in 0..2 {
            for &line in &lines {
                let frames = until_fence(&mut self.net, line);
                let frames = frames.into_iter().map(alone::without_time_passed);
                self.told[line.number()].extend(frames);
            }
            let lives = |life: &u64| self.gateways.iter().any(|gateway| gateway.life == *life);
            let owed = self.owed.iter().filter(|(life, _)| lives(life)).count() as u64;
            self.net.until(|ledger| {
                let frames = [&ledger.gateways, &ledger.consumers];
                frames.iter().all(|it| it.waiting + it.between_shards == 0)
                    && ledger.uplinks_pending == owed
            });
        }
    }
}

fn replayed(backend: Backend, script: &[Step]) -> Told {
    let mut replay = Replay::new(backend);
    replay.take();
    for step in script {
        replay.step(step);
    }
    replay.told
}

#[test]
fn every_backend_makes_the_same_frames_of_the_same_input() {
    let (mut frames, mut pieces) = (0, 0);
    for seed in 0..SEEDS {
        let script = script(seed);
        let expected = replayed(Backend::Sim(1, seed), &script);
        let is_piece = |frame: &&Vec<u8>| matches!(Frame::decode(frame), Ok(Frame::Fragment(_)));
        frames += expected.iter().flatten().count();
        pieces += expected.iter().flatten().filter(is_piece).count();
        for backend in backends() {
            eprintln!("seed {seed} on {backend:?}");
            let told = replayed(backend, &script);
            for (line, (told, expected)) in told.iter().zip(&expected).enumerate() {
                let same = told.iter().zip(expected).take_while(|(one, other)| one == other);
                let same = same.count();
                let next = |frames: &[Vec<u8>]| {
                    frames
                        .get(same)
                        .map(|it| format!("{:?}", Frame::decode(it).map(|it| it.kind())))
                };
                assert!(
                    told == expected,
                    "seed {seed} on {backend:?}: line {line} differs after {same} frames: \
                     {:?} for {:?}, {} for {} in all",
                    next(told),
                    next(expected),
                    told.len(),
                    expected.len()
                );
            }
            assert_eq!(told.len(), expected.len());
        }
    }
    assert!(frames > 1_000 && pieces > 100, "{frames} frames, {pieces} pieces say little");
}

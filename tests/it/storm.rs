//! Lives in which nothing waits for anything: many frames in flight, links that stall, break, come
//! again and leave, a broker that is told to stop in the middle of it.
//!
//! Every choice follows from the seed in the name of a failure: put it into `SEEDS` to replay it.
//! Between two actions the simulator does a random number of things; what has arrived then goes to
//! the oracle, which is all that judges.

mod gateways;
mod oracle;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use waybill_broker::{BrokerConfig, Ledger, TokenConfig};
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Level, Mode, Role};
use waybill_wire::frame::{Drain, Ping, Pong, UplinkAck};
use waybill_wire::message::MessageHead;

use crate::support::{Backend, Line, Net};
use crate::talk::{Receipt, encode, hello_with};
use gateways::Gateway;
use oracle::{Oracle, Published, Question};

const SEEDS: Range<u64> = 0..300;
const STEPS: usize = 110;
const DRAIN_STEPS: usize = 20;
const DRAIN_MS: u32 = 2_000;
const TICK_MS: u64 = 100;
const USERS: u64 = 10;

/// Tokens, and the namespaces they allow.
const TOKENS: [(&str, &[u32]); 3] = [("one", &[1]), ("two", &[2]), ("both", &[1, 2])];

/// The token most links have, so that most messages reach somebody.
const BOTH: usize = 2;

fn config() -> BrokerConfig {
    let token = |(name, namespaces): (&str, &[u32])| TokenConfig {
        name: name.into(),
        token: name.into(),
        roles: ["producer", "gateway", "consumer"].map(String::from).into(),
        namespaces: Some(namespaces.into()),
    };
    BrokerConfig {
        tokens: TOKENS.map(token).into(),
        keepalive_ms: 0,
        outbox_bytes_max: 256 << 10,
        drain_ms: DRAIN_MS,
        ..BrokerConfig::default()
    }
}

struct Producer {
    line: Line,
    token: usize,
    instance: u64,
}

struct Consumer {
    line: Line,
    owed: Vec<Question>,
}

struct World {
    net: Net,
    random: SmallRng,
    oracle: Oracle,
    now_ms: u64,
    gateways: Vec<Gateway>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    // Every link that may still bring something, and whether its last frame has come.
    open: Vec<(Line, bool)>,
    stalled: Vec<Line>,
    // The last sequence of each producer instance, and of each incarnation's uplinks.
    sequences: BTreeMap<u64, u64>,
    incarnations: u64,
    draining: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let shards = random.random_range(1..4);
        let mut world = Self {
            net: Net::start(Backend::Sim(shards, seed), config()),
            random,
            oracle: Oracle::default(),
            now_ms: 0,
            gateways: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            open: Vec::new(),
            stalled: Vec::new(),
            sequences: BTreeMap::new(),
            incarnations: 0,
            draining: false,
        };
        for _ in 0..2 {
            world.producer_comes();
            world.gateway_comes();
            world.consumer_comes();
        }
        world
    }

    fn below(&mut self, end: usize) -> usize {
        self.random.random_range(0..end)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.random.random_range(0..count) == 0
    }

    fn some_users(&mut self, most: usize) -> Vec<u64> {
        let count = self.random.random_range(1..=most);
        (0..count).map(|_| self.random.random_range(0..USERS)).collect()
    }

    fn some_token(&mut self) -> usize {
        if self.one_in(2) { BOTH } else { self.below(TOKENS.len()) }
    }

    fn some_namespace(&mut self, token: usize) -> u32 {
        let allowed = TOKENS[token].1;
        if self.one_in(20) {
            1 + u32::from(self.one_in(2))
        } else {
            allowed[self.below(allowed.len())]
        }
    }

    fn next_sequence(&mut self, of: u64) -> u64 {
        let last = self.sequences.entry(of).or_default();
        *last += 1;
        *last
    }

    fn step(&mut self) {
        match self.below(31) {
            0 => self.gateway_comes(),
            1 | 2 => self.gateway_links_again(),
            3 => self.gateway_goes(),
            4..=6 => self.gateway_changes(),
            7 | 8 => self.snapshots_go_on(),
            9 | 10 => self.uplinks(),
            11 => self.consumer_comes(),
            12 => self.consumer_goes(),
            13 | 14 => self.consumer_answers(),
            15 => self.producer_comes(),
            16 => self.producer_goes(),
            17..=19 => self.stalls(),
            20 => self.time_passes(),
            21 => self.resends(),
            22 => self.consumer_comes(),
            _ => self.publishes(),
        }
        let things = if self.one_in(6) { 300 } else { self.below(30) };
        self.net.run(things);
        self.look();
    }

    /// A step in which nobody goes and no link is taken over.
    fn calm_step(&mut self) {
        match self.below(10) {
            0 => self.gateway_comes(),
            1 => self.gateway_changes(),
            2 => self.snapshots_go_on(),
            3 => self.uplinks(),
            4 => self.consumer_comes(),
            5 => self.consumer_answers(),
            6 => self.stalls(),
            _ => self.publishes(),
        }
        let things = self.below(30);
        self.net.run(things);
        self.look();
    }

    /// The producers leave a broker that is to stop, everybody reads, and consumers answer.
    fn ends_calmly(mut self) -> Ledger {
        self.drain();
        self.producers_leave();
        self.everybody_reads();
        for _ in 0..u64::from(DRAIN_MS) / TICK_MS - 1 {
            let things = self.below(50);
            self.net.run(things);
            self.look();
            self.consumers_answer_all();
            self.now_ms += TICK_MS;
            self.net.advance(Duration::from_millis(TICK_MS));
        }
        self.look();
        assert!(self.open.is_empty(), "ended before its time is over: {:?}", self.open);
        let ledger = self.net.ledger();
        self.oracle.nothing_lost(&ledger);
        self.oracle.judge(&ledger);
        self.net.finish();
        ledger
    }

    fn connect(&mut self, role: Role, instance: u64, token: usize) -> Line {
        let line = self.net.connect();
        self.net.send(line, &hello_with(role, instance, TOKENS[token].0.as_bytes()));
        self.open.push((line, false));
        line
    }

    /// Ends politely or with a reset, and waits for neither.
    fn goes(&mut self, line: Line) {
        self.oracle.disturbs(line);
        if self.one_in(2) {
            self.net.leave(line);
        } else {
            self.net.cut(line);
        }
    }

    fn consumer_comes(&mut self) {
        if self.consumers.len() < 3 {
            let token = self.some_token();
            let line = self.connect(Role::CONSUMER, 1_000, token);
            self.oracle.consumes(line, TOKENS[token].1);
            self.consumers.push(Consumer { line, owed: Vec::new() });
        }
    }

    /// Asks for no more, or goes with what it owes.
    fn consumer_goes(&mut self) {
        if self.consumers.is_empty() {
            return;
        }
        let at = self.below(self.consumers.len());
        let line = self.consumers[at].line;
        if self.one_in(2) {
            let asks = [
                encode(&Frame::Drain(Drain { deadline_ms: 1_000 })),
                encode(&Frame::Ping(Ping { token: 7 })),
            ];
            self.net.send(line, &asks.concat());
        } else {
            self.consumers.remove(at);
            self.goes(line);
        }
    }

    /// Some of what it owes in any order, some of it twice, and something nobody asked.
    fn consumer_answers(&mut self) {
        let at = self.below(self.consumers.len().max(1));
        for _ in 0..self.below(8) {
            let Some(owed) = self.consumers.get(at).map(|it| it.owed.len()) else { return };
            let stray = owed == 0 || self.one_in(8);
            let question = if stray {
                (self.incarnations, self.random.random_range(0..20))
            } else {
                let which = self.below(owed);
                let question = self.consumers[at].owed[which];
                if !self.one_in(4) {
                    self.consumers[at].owed.remove(which);
                }
                question
            };
            let code = if self.one_in(3) { 450 + self.below(9) } else { 0 };
            self.acknowledge(at, question, ErrorCode(u16::try_from(code).unwrap()));
        }
    }

    fn acknowledge(&mut self, at: usize, (origin, sequence): Question, code: ErrorCode) {
        let line = self.consumers[at].line;
        self.oracle.answers(line, (origin, sequence), code);
        let ack = UplinkAck { code, sequence, origin };
        self.net.send(line, &encode(&Frame::UplinkAck(ack)));
    }

    fn producer_comes(&mut self) {
        if self.producers.len() < 3 {
            let token = self.some_token();
            // Some come back as whom they were.
            let instance = 500 + self.random.random_range(0..4);
            let line = self.connect(Role::PRODUCER, instance, token);
            self.producers.push(Producer { line, token, instance });
        }
    }

    fn producer_goes(&mut self) {
        if self.producers.len() > 1 {
            let at = self.below(self.producers.len());
            let line = self.producers.remove(at).line;
            self.goes(line);
        }
    }

    fn publishes(&mut self) {
        for _ in 0..self.random.random_range(1..6) {
            if self.producers.is_empty() {
                return;
            }
            let at = self.below(self.producers.len());
            let Producer { line, token, instance } = self.producers[at];
            let sequence = self.next_sequence(instance);
            let everyone = self.one_in(8);
            let receipted = !self.one_in(5);
            let bytes = if self.one_in(8) { 90_000 } else { 20 };
            let mode = match self.below(6) {
                0 => Mode::BROADCAST,
                1 => Mode::AUTO,
                _ => Mode::DIRECT,
            };
            let ttl_ms = if self.one_in(4) { self.random.random_range(1..500) } else { 0 };
            let message = Published {
                line,
                instance,
                sequence,
                namespace: self.some_namespace(token),
                targets: if everyone { Vec::new() } else { self.some_users(8) },
                except: if self.one_in(3) { self.some_users(3) } else { Vec::new() },
                everyone,
                mode,
                receipted,
                ttl_ms,
                payload: vec![0; bytes],
                ..Published::default()
            };
            self.sends(token, message);
        }
    }

    fn sends(&mut self, token: usize, mut message: Published) {
        let number = self.oracle.published.len() as u64;
        message.payload[..8].copy_from_slice(&number.to_le_bytes());
        message.sent = self.oracle.moment();
        message.sent_ms = self.now_ms;
        message.permitted = TOKENS[token].1.contains(&message.namespace);
        let head = MessageHead {
            resend: message.resend,
            everyone: message.everyone,
            mode: message.mode,
            level: if message.receipted { Level::ROUTED } else { Level::NONE },
            sequence: message.sequence,
            namespace: message.namespace,
            ttl_ms: message.ttl_ms,
            except: (&message.except).into(),
            ..MessageHead::default()
        };
        let mut out = Vec::new();
        head.encode_publish(&message.targets, &message.payload, &mut out).unwrap();
        self.net.send(message.line, &out);
        self.oracle.publish(message);
    }

    /// What has no receipt yet, again, on any link of the same instance.
    fn resends(&mut self) {
        let unknown = self.oracle.published.iter().filter(|it| it.receipt.is_none());
        let again: Vec<Published> = unknown.cloned().collect();
        for old in again.into_iter().rev().take(3) {
            let Some(by) = self.producers.iter().find(|it| it.instance == old.instance) else {
                continue;
            };
            let (line, token) = (by.line, by.token);
            let message = Published { line, resend: true, frames: 0, ..old };
            self.sends(token, Published { reached: BTreeSet::new(), ..message });
        }
    }

    fn stalls(&mut self) {
        if !self.open.is_empty() {
            let at = self.below(self.open.len());
            let (line, _) = self.open[at];
            if let Some(at) = self.stalled.iter().position(|it| *it == line) {
                self.stalled.swap_remove(at);
                self.net.stall(line, false);
            } else if self.stalled.len() < 3 {
                self.stalled.push(line);
                self.net.stall(line, true);
            } else {
                let line = self.stalled.swap_remove(0);
                self.net.stall(line, false);
            }
        }
    }

    fn time_passes(&mut self) {
        let ms = self.random.random_range(1..400);
        self.now_ms += ms;
        self.net.advance(Duration::from_millis(ms));
    }

    /// Gives what has arrived to the oracle.
    fn look(&mut self) {
        assert_eq!(self.net.balances(), Ok(()), "promise 5, at every moment");
        let mut open = std::mem::take(&mut self.open);
        for (line, done) in &mut open {
            while let Some(frame) = self.net.arrived(*line) {
                assert!(!*done, "a frame after a fatal ERROR: {frame:02x?}");
                *done = self.frame(*line, &frame);
            }
        }
        open.retain(|(line, _)| {
            let ended = self.net.ended(*line);
            if ended {
                self.oracle.ended(*line);
                self.gateways.retain(|it| it.line != *line);
                self.producers.retain(|it| it.line != *line);
                self.consumers.retain(|it| it.line != *line);
            }
            !ended
        });
        self.open = open;
    }

    /// Whether it is the link's last.
    fn frame(&mut self, line: Line, frame: &[u8]) -> bool {
        match Frame::decode(frame).expect("the broker sends what it should") {
            Frame::Welcome(_) => self.oracle.welcomed(line),
            Frame::Receipt(receipt) => self.oracle.receipt(line, Receipt::of(&receipt)),
            Frame::InEffect(it) => self.oracle.in_effect(line, it.version, it.digest),
            Frame::Deliver(message) => self.oracle.deliver(line, &message, self.now_ms),
            Frame::UplinkAck(ack) => self.oracle.answer(line, ack),
            Frame::Uplink(message) => {
                let question = self.oracle.uplink(line, &message);
                let consumer = self.consumers.iter_mut().find(|it| it.line == line);
                consumer.into_iter().for_each(|it| it.owed.push(question));
            }
            Frame::Pong(_) => self.oracle.consumer_drained(line),
            Frame::Ping(Ping { token }) => {
                self.net.send(line, &encode(&Frame::Pong(Pong { token })));
            }
            Frame::State(_) | Frame::Drain(_) => assert!(self.draining),
            Frame::Error(error) if error.fatal && error.code == ErrorCode::SUPERSEDED => {
                self.oracle.superseded(line);
                return true;
            }
            Frame::Error(error) => {
                let stops = error.fatal && error.code == ErrorCode::SHUTTING_DOWN;
                assert!(stops && self.draining, "{error:?}");
                return true;
            }
            other => panic!("nobody asked for {other:?}"),
        }
        false
    }

    fn everybody_reads(&mut self) {
        for line in std::mem::take(&mut self.stalled) {
            self.net.stall(line, false);
        }
    }

    fn consumers_answer_all(&mut self) {
        for at in 0..self.consumers.len() {
            for question in std::mem::take(&mut self.consumers[at].owed) {
                self.acknowledge(at, question, ErrorCode(0));
            }
        }
    }

    /// Everybody reads, nobody asks, and the consumers answer all they owe and go.
    fn rests(&mut self) {
        self.everybody_reads();
        self.net.settle();
        self.look();
        self.consumers_answer_all();
        for consumer in std::mem::take(&mut self.consumers) {
            self.oracle.disturbs(consumer.line);
            self.net.leave(consumer.line);
        }
        self.net.settle();
        self.look();
        self.oracle.at_rest();
    }

    fn drain(&mut self) {
        self.draining = true;
        self.oracle.drains();
        self.net.drain();
    }

    fn producers_leave(&mut self) {
        for producer in std::mem::take(&mut self.producers) {
            self.net.leave(producer.line);
        }
    }

    fn ends(mut self) -> Ledger {
        if self.one_in(2) {
            self.rests();
        }
        self.drain();
        (0..DRAIN_STEPS).for_each(|_| self.step());
        self.producers_leave();
        self.net.stopped();
        self.now_ms += 1_000_000;
        self.look();
        assert!(self.open.is_empty(), "the broker has ended: {:?}", self.open);
        let ledger = self.net.ledger();
        self.oracle.judge(&ledger);
        self.net.finish();
        ledger
    }
}

fn storm(seed: u64) -> Ledger {
    let mut world = World::new(seed);
    (0..STEPS).for_each(|_| world.step());
    world.ends()
}

fn in_all_lives(life: impl Fn(u64) -> Ledger + std::panic::RefUnwindSafe) -> Vec<Ledger> {
    let (mut ledgers, mut failed) = (Vec::new(), Vec::new());
    for seed in SEEDS {
        match std::panic::catch_unwind(|| life(seed)) {
            Ok(ledger) => ledgers.push(ledger),
            Err(_) => failed.push(seed),
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
    ledgers
}

#[test]
fn promises_1_2_3_5_and_8_hold_in_a_storm() {
    let ledgers = in_all_lives(storm);
    // Where nothing was ever lost, nothing was in flight.
    let causes: [fn(&Ledger) -> u64; 6] = [
        |it| it.gateways.expired,
        |it| it.gateways.lost + it.consumers.lost,
        |it| it.gateways.in_doubt + it.consumers.in_doubt,
        |it| it.gateways.dropped_outbox_full,
        |it| it.gateways.dropped_no_link,
        |it| it.uplinks_refused,
    ];
    for (at, cause) in causes.iter().enumerate() {
        assert!(ledgers.iter().any(|ledger| cause(ledger) > 0), "cause {at} never came up");
    }
}

#[test]
fn promise_5_a_broker_that_stops_loses_nothing_of_what_it_took() {
    in_all_lives(|seed| {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.calm_step());
        world.ends_calmly()
    });
}

#[test]
fn the_same_seed_is_the_same_storm() {
    for seed in 0..10 {
        assert_eq!(storm(seed), storm(seed), "seed {seed}");
    }
}

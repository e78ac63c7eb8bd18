//! Backends: producers and consumers with their real machines.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use waybill_client::sim::{self, ConsumerUplink, ProducerNews};
use waybill_client::{ErrorCode, Mode, Publish, ReceiptLevel};
use waybill_wire::{Deframer, Frame};

use super::ends::Owner;
use super::gateways::options;
use super::{Event, Process, Work, World};
use crate::oracle::{Message, Oracle, Verdict};
use crate::scenario::{MS, SECOND};

/// One producer.
pub(super) struct Producer {
    pub(super) process: Process,
    pub(super) sim: sim::Producer,
    pub(super) end: usize,
    brokers: Vec<usize>,
    /// What it writes is read along: which link a message took is known to nobody else.
    tap: Deframer,
    broker: usize,
    pipe: usize,
}

/// One consumer, with a link to every broker.
pub(super) struct Consumer {
    pub(super) process: Process,
    pub(super) links: Vec<sim::Consumer>,
    pub(super) ends: Vec<usize>,
    owed: Vec<(usize, ConsumerUplink)>,
    /// Until then its application takes nothing.
    busy_until: u64,
    /// Uplinks it has seen, and its answers: one that comes again gets the same.
    seen: BTreeMap<(u64, u64), Option<ErrorCode>>,
}

impl Producer {
    pub(super) fn linked(&mut self, broker: usize, pipe: usize) {
        (self.broker, self.pipe, self.tap) = (broker, pipe, Deframer::new());
    }

    pub(super) fn tap(&mut self, mut bytes: &[u8], oracle: &mut Oracle) {
        loop {
            let step = self.tap.next(bytes).expect("a producer writes frames");
            bytes = &bytes[step.consumed..];
            let Some(raw) = step.frame else { return };
            if let Ok(Frame::Publish(message)) = raw.decode() {
                oracle.transmitted(message.payload, self.pipe, self.broker, message.resend);
            }
        }
    }
}

impl World {
    pub(super) fn add_producer(&mut self, only: Option<usize>) {
        let process = Process::new(&mut self.chance, self.scenario.skewed);
        let mut brokers: Vec<usize> = (0..self.brokers.len()).collect();
        let first = only.unwrap_or_else(|| self.chance.place(brokers.len()));
        brokers.rotate_left(first);
        if only.is_some() {
            brokers.truncate(1);
        }
        let sim = sim::Producer::new(&options(brokers.iter().copied()), self.chance.id());
        let end = self.add_end(Owner::Producer(self.producers.len()));
        let (tap, broker, pipe) = (Deframer::new(), 0, 0);
        self.producers.push(Producer { process, sim, end, brokers, tap, broker, pipe });
    }

    /// Another life of a producer that was killed.
    pub(super) fn producer_again(&mut self, at: usize) {
        let instance = self.chance.id();
        let producer = &mut self.producers[at];
        producer.process.alive = true;
        producer.process.life += 1;
        producer.sim = sim::Producer::new(&options(producer.brokers.iter().copied()), instance);
        let end = producer.end;
        self.end_again(end);
    }

    pub(super) fn publishes(&mut self) {
        let at = self.chance.place(self.producers.len());
        if !self.producers[at].process.runs() {
            return;
        }
        for _ in 0..self.chance.between(1, 3) {
            let namespace = u32::from(self.chance.one_in(2));
            let everyone = self.chance.one_in(8);
            let mut targets = self.some_uids(self.scenario.uids + 2);
            if targets.is_empty() {
                targets.push(1);
            }
            let except = if self.chance.one_in(4) { self.some_uids(3) } else { Vec::new() };
            let publish = if everyone { Publish::everyone() } else { Publish::to(targets) };
            let level = match self.chance.below(5) {
                0 => ReceiptLevel::None,
                1 | 2 => ReceiptLevel::Delivered,
                _ => ReceiptLevel::Routed,
            };
            let mode = match self.chance.below(6) {
                0 => Mode::BROADCAST,
                1 if level != ReceiptLevel::None => Mode::AUTO,
                _ => Mode::DIRECT,
            };
            let mut publish = publish.namespace(namespace).except(except).mode(mode).level(level);
            if self.chance.one_in(6) {
                let ttl = self.chance.between(1, 500);
                publish = publish.ttl(Duration::from_millis(ttl));
            }
            self.publish(at, publish);
        }
    }

    fn some_uids(&mut self, most: u64) -> Vec<u64> {
        let count = self.chance.below(1 + most);
        (0..count).map(|_| 1 + self.chance.below(self.scenario.uids + 1)).collect()
    }

    pub(super) fn publish(&mut self, at: usize, mut publish: Publish) -> u64 {
        let padding = self.chance.below(self.scenario.payload);
        let number = self.oracle.published(Message::new(&publish, at, padding));
        publish.payload = self.oracle.payload_of(number).into();
        debug_assert!(publish.check().is_ok());
        self.note(|_| format!("producer {at} publishes {number}: {publish:?}"));
        let producer = &mut self.producers[at];
        let now = self.origin + Duration::from_micros(producer.process.local(self.now));
        producer.sim.publish(now, number, publish);
        self.work.push_back(Work::End(producer.end));
        number
    }

    pub(super) fn producer_news(&mut self, at: usize) {
        while let Some(news) = self.producers[at].sim.poll() {
            if let ProducerNews::Settled { publish, outcome } = news {
                self.note(|_| format!("producer {at} is told of {publish}: {outcome:?}"));
                self.oracle.settled(publish, Verdict::new(outcome));
            }
        }
    }

    fn consumer_links(&mut self) -> Vec<sim::Consumer> {
        let instance = self.chance.id();
        let brokers = 0..self.brokers.len();
        brokers.map(|at| sim::Consumer::new(&options([at]), instance)).collect()
    }

    pub(super) fn add_consumer(&mut self) {
        let process = Process::new(&mut self.chance, self.scenario.skewed);
        let links = self.consumer_links();
        let at = self.consumers.len();
        let ends = (0..links.len()).map(|broker| self.add_end(Owner::Consumer(at, broker)));
        let ends = ends.collect();
        self.consumers.push(Consumer {
            process,
            links,
            ends,
            owed: Vec::new(),
            busy_until: 0,
            seen: BTreeMap::new(),
        });
        self.soon(SECOND, Event::Answers { consumer: at });
    }

    /// Another life of a consumer that was killed.
    pub(super) fn consumer_again(&mut self, at: usize) {
        let links = self.consumer_links();
        let consumer = &mut self.consumers[at];
        consumer.process.alive = true;
        consumer.process.life += 1;
        consumer.links = links;
        consumer.owed.clear();
        consumer.seen.clear();
        for end in consumer.ends.clone() {
            self.end_again(end);
        }
    }

    pub(super) fn consumer_news(&mut self, at: usize, broker: usize) {
        if self.consumers[at].busy_until > self.now && !self.healing {
            return self.consumers[at].links[broker].hold();
        }
        while let Some(uplink) = self.consumers[at].links[broker].poll() {
            let life = (at, self.consumers[at].process.life);
            let key = (uplink.origin, uplink.sequence);
            if let Entry::Vacant(fresh) = self.consumers[at].seen.entry(key) {
                fresh.insert(None);
                self.oracle.handed(life, &uplink.payload, (uplink.namespace, uplink.uid));
            }
            self.consumers[at].owed.push((broker, uplink));
        }
    }

    /// A consumer answers some of what it owes.
    pub(super) fn consumer_answers(&mut self, at: usize) {
        self.soon(200 * MS, Event::Answers { consumer: at });
        if !self.consumers[at].process.runs() {
            return;
        }
        if self.chance.one_in(30) {
            self.consumers[at].busy_until = self.now + self.chance.below(8 * SECOND);
        }
        for end in self.consumers[at].ends.clone() {
            self.work.push_back(Work::End(end));
        }
        let now = self.instant(&self.consumers[at].process);
        while !self.consumers[at].owed.is_empty() && (self.healing || !self.chance.one_in(3)) {
            let place = self.chance.place(self.consumers[at].owed.len());
            let (broker, uplink) = self.consumers[at].owed.remove(place);
            let key = (uplink.origin, uplink.sequence);
            let refuses = self.chance.one_in(6);
            let fresh = if refuses { ErrorCode::NOT_PERMITTED } else { ErrorCode(0) };
            let before = self.consumers[at].seen.get(&key).copied().flatten();
            let code = before.unwrap_or(fresh);
            self.consumers[at].seen.insert(key, Some(code));
            self.oracle.consumer_answers(&uplink.payload, code);
            self.consumers[at].links[broker].answer(now, &uplink, code);
            self.work.push_back(Work::End(self.consumers[at].ends[broker]));
        }
    }
}

//! Backends: producers and consumers with their real machines.

use std::time::Duration;

use waybill_client::sim::{self, ProducerNews};
use waybill_client::{
    ConsumerConfig, ConsumerEvent, ErrorCode, Group, Mode, Options, Publish, ReceiptLevel,
    UplinkMessage,
};
use waybill_wire::code::Priority;
use waybill_wire::limits::TARGETS_MAX;
use waybill_wire::{Deframer, Frame};

use super::ends::Owner;
use super::gateways::options;
use super::{Event, Process, Work, World, tagging};
use crate::oracle::{Consumers, Message, Oracle, Verdict};
use crate::scenario::{Groups, MS, SECOND, Scenario};
use crate::wish::Wish;

/// UIDs from here on are nobody's.
pub(super) const STRANGERS: u64 = 1 << 20;

/// Payloads longer than the first go in pieces of the second, which holds a message's number.
const CUT: (usize, usize) = (30, 20);

/// Payloads below which large ones are: several pieces for brokers.
pub(super) const LARGE: u64 = 200 << 10;

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
    pub(super) sim: sim::Consumer,
    pub(super) ends: Vec<usize>,
    /// What its application has in its hands.
    owed: Vec<UplinkMessage>,
    /// Until then its application takes nothing.
    busy_until: u64,
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
            match raw.decode() {
                Ok(Frame::Publish(message)) => {
                    oracle.transmitted(&message, self.pipe, self.broker);
                }
                Ok(Frame::Tag(tag)) => {
                    oracle.tags_transmitted(tagging::number_of(&tag), self.broker);
                }
                _ => {}
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
        let id = self.chance.id();
        let sim = self.producer_machine(&options(brokers.iter().copied()), id);
        let end = self.add_end(Owner::Producer(self.producers.len()));
        let (tap, broker, pipe) = (Deframer::new(), 0, 0);
        self.producers.push(Producer { process, sim, end, brokers, tap, broker, pipe });
    }

    fn producer_machine(&self, options: &Options, instance: u64) -> sim::Producer {
        match self.scenario.cuts {
            true => sim::Producer::cutting(options, instance, CUT),
            false => sim::Producer::new(options, instance),
        }
    }

    /// Another life of a producer that was killed.
    pub(super) fn producer_again(&mut self, at: usize) {
        let instance = self.chance.id();
        let options = options(self.producers[at].brokers.iter().copied());
        let sim = self.producer_machine(&options, instance);
        let producer = &mut self.producers[at];
        producer.process.alive = true;
        producer.process.life += 1;
        producer.sim = sim;
        let end = producer.end;
        self.end_again(end);
    }

    pub(super) fn publishes(&mut self) {
        let at = self.chance.place(self.producers.len());
        if !self.producers[at].process.runs() {
            return;
        }
        if self.scenario.bursts && self.chance.one_in(4) {
            return self.bursts(at);
        }
        for _ in 0..self.chance.between(1, 3) {
            let namespace = u32::from(self.chance.one_in(2));
            let everyone = self.chance.one_in(8);
            let mut targets = self.some_uids(self.scenario.uids + 2);
            if targets.is_empty() {
                targets.push(1);
            }
            if self.scenario.long_lists && self.chance.one_in(40) {
                targets = self.among_strangers(targets);
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
                1 => Mode::AUTO,
                _ => Mode::DIRECT,
            };
            let mut publish = publish.namespace(namespace).except(except).mode(mode).level(level);
            if self.chance.one_in(6) {
                let ttl = self.chance.between(1, 500);
                publish = publish.ttl(Duration::from_millis(ttl));
            }
            if self.chance.one_in(3) {
                let priorities = [Priority::HIGH, Priority::NORMAL, Priority::BULK];
                publish = publish.priority(priorities[self.chance.place(3)]);
            }
            if self.scenario.conflates && self.chance.one_in(3) {
                publish = publish.conflate(self.chance.below(3));
            }
            let asks = self.scenario.tags && self.chance.one_in(3);
            let wish = asks.then(|| Wish::any(&mut self.chance, 2));
            self.publish(at, publish, wish);
        }
    }

    /// Many messages at once for few, most with a key or little time: more than sockets hold, so
    /// that they meet each other in outboxes.
    fn bursts(&mut self, at: usize) {
        let namespace = u32::from(self.chance.one_in(2));
        let uids: Vec<u64> = (0..self.chance.between(1, 3))
            .map(|_| 1 + self.chance.below(self.scenario.uids))
            .collect();
        for _ in 0..self.chance.between(10, 60) {
            let uid = uids[self.chance.place(uids.len())];
            let level = [ReceiptLevel::None, ReceiptLevel::Routed, ReceiptLevel::Delivered]
                [self.chance.place(3)];
            let mut publish = Publish::to(vec![uid]).namespace(namespace).level(level);
            if self.chance.one_in(2) {
                publish = publish.ttl(Duration::from_millis(self.chance.between(1, 10)));
            }
            if self.scenario.conflates && !self.chance.one_in(3) {
                publish = publish.conflate(self.chance.below(3));
            }
            self.publish(at, publish, None);
        }
    }

    pub(super) fn some_uids(&mut self, most: u64) -> Vec<u64> {
        let count = self.chance.below(1 + most);
        (0..count).map(|_| 1 + self.chance.below(self.scenario.uids + 1)).collect()
    }

    /// These UIDs, each once, somewhere in a list of several parts whose others nobody has.
    fn among_strangers(&mut self, mut uids: Vec<u64>) -> Vec<u64> {
        uids.sort();
        uids.dedup();
        let strangers = self.chance.between(TARGETS_MAX as u64, 2 * TARGETS_MAX as u64);
        let mut list: Vec<u64> = (0..strangers).map(|place| STRANGERS + place).collect();
        for uid in uids {
            let place = self.chance.place(list.len());
            list.push(uid);
            let last = list.len() - 1;
            list.swap(place, last);
        }
        list
    }

    /// Publishes for those of its users of whom `wish` is true.
    pub(super) fn publish(&mut self, at: usize, mut publish: Publish, wish: Option<Wish>) -> u64 {
        if let Some(wish) = &wish {
            publish = publish.selector(wish.to_string().parse().expect("a selector"));
        }
        // The last ones come at once, and two that are large are more than may wait for a user.
        let is_large = self.scenario.large && !self.healing && self.chance.one_in(25);
        let payload = if is_large { LARGE } else { self.scenario.payload };
        let padding = self.chance.below(payload);
        let number = self.oracle.published(Message::new(&publish, wish, at, padding));
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
                match tagging::is_change(publish) {
                    Some(number) => self.oracle.tags_settled(number, Verdict::new(outcome)),
                    None => self.oracle.settled(publish, Verdict::new(outcome)),
                }
            }
        }
    }

    fn consumer_parts(&mut self, at: usize) -> sim::Consumer {
        let instance = self.chance.id();
        let few = self.scenario.consumer_takes;
        let limited = |at| Options { max_in_flight: few, ..options([at]) };
        let options: Vec<Options> = (0..self.brokers.len()).map(limited).collect();
        let Scenario { groups, feeds, .. } = self.scenario;
        let group = |namespace, name: String| Group { namespace, name };
        let groups = match groups {
            Groups::Nameless => Vec::new(),
            Groups::Own => (0..2).map(|namespace| group(namespace, at.to_string())).collect(),
            Groups::OneNamespace => vec![group(0, "all".into())],
        };
        let config =
            ConsumerConfig { groups, presence: feeds, offline: feeds, ..Default::default() };
        sim::Consumer::new(&options, &config, instance)
    }

    pub(super) fn consumers_are(&self) -> Consumers {
        let Scenario { groups, feeds, consumers: count, .. } = self.scenario;
        Consumers { count, groups, feeds }
    }

    pub(super) fn add_consumer(&mut self) {
        let process = Process::new(&mut self.chance, self.scenario.skewed);
        let at = self.consumers.len();
        let sim = self.consumer_parts(at);
        let ends = (0..self.brokers.len()).map(|link| self.add_end(Owner::Consumer(at, link)));
        let ends = ends.collect();
        self.consumers.push(Consumer { process, sim, ends, owed: Vec::new(), busy_until: 0 });
        self.soon(SECOND, Event::Answers { consumer: at });
    }

    /// Another life of a consumer that was killed.
    pub(super) fn consumer_again(&mut self, at: usize) {
        let sim = self.consumer_parts(at);
        let consumer = &mut self.consumers[at];
        consumer.process.alive = true;
        consumer.process.life += 1;
        consumer.sim = sim;
        consumer.owed.clear();
        for end in consumer.ends.clone() {
            self.end_again(end);
        }
    }

    /// What a link has brought goes to the application, unless that takes nothing.
    pub(super) fn consumer_news(&mut self, at: usize, link: usize) {
        let now = self.instant(&self.consumers[at].process);
        if self.consumers[at].sim.turn(now, link) {
            self.work.push_back(Work::End(self.consumers[at].ends[link]));
        }
        if self.consumers[at].busy_until > self.now && !self.healing {
            return;
        }
        let life = (at, self.consumers[at].process.life);
        let of = self.consumers_are();
        while let Some(event) = self.consumers[at].sim.poll() {
            self.note(|_| format!("consumer {life:?} by link {link}: {event:?}"));
            match event {
                ConsumerEvent::Uplink(uplink) => {
                    Oracle::of_its_namespace(of, uplink.namespace);
                    let who = (uplink.namespace, uplink.uid);
                    self.oracle.handed(life, &uplink.payload, who);
                    self.consumers[at].owed.push(uplink);
                }
                ConsumerEvent::Presence(event) => self.oracle.presence(of, at, &event),
                ConsumerEvent::Offline(message) => self.oracle.offline(of, at, &message),
                _ => {}
            }
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
        while !self.consumers[at].owed.is_empty() && (self.healing || !self.chance.one_in(3)) {
            let place = self.chance.place(self.consumers[at].owed.len());
            let mut uplink = self.consumers[at].owed.remove(place);
            if self.chance.one_in(6) {
                self.oracle.consumer_answers(&uplink.payload, ErrorCode::NOT_PERMITTED);
                uplink.refuse(ErrorCode::NOT_PERMITTED);
            } else {
                self.oracle.consumer_answers(&uplink.payload, ErrorCode(0));
                uplink.accept();
            }
        }
        for link in 0..self.consumers[at].ends.len() {
            self.consumer_news(at, link);
            self.work.push_back(Work::End(self.consumers[at].ends[link]));
        }
    }
}

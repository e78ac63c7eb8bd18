//! The outside record: what was published, what arrived where and when, and what was answered.
//!
//! Made by this program's own clients, from nothing but what they sent and saw. Wrong recipients
//! are seen at once; everything else is judged at the end.

use std::collections::BTreeMap;
use std::sync::Mutex;

use waybill_client::Receipt;

use crate::clock::{Clock, Micros};

/// Who a message is for.
#[derive(Clone, Debug)]
pub(crate) enum To {
    /// These, sorted.
    Uids(Vec<u64>),
    Everyone,
}

/// What became of a publish, as its producer was told.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Open,
    Receipt(Receipt),
    /// Refused or never sent: an error of the client.
    Failed(String),
}

/// A connection of a user that the message reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) life: u32,
    pub(crate) at: Micros,
}

/// One publish.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) namespace: u32,
    pub(crate) to: To,
    /// Sorted.
    pub(crate) except: Vec<u64>,
    pub(crate) producer: u16,
    /// The producer's link when it was sent.
    pub(crate) link: u32,
    pub(crate) sent_at: Micros,
    pub(crate) settled_at: Option<Micros>,
    /// The producer's link was the same from sending to settling.
    pub(crate) one_link: bool,
    pub(crate) outcome: Outcome,
    pub(crate) arrivals: Vec<Arrival>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// We left.
    Left,
    /// The gateway closed it with this code.
    Code(u16),
    /// It broke.
    Broken,
    /// It never came to *ready*.
    Failed,
}

/// One connection of one user, from its first byte to its end.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) user: u32,
    pub(crate) device: u32,
    pub(crate) gateway: usize,
    /// Which life of the gateway process.
    pub(crate) gateway_life: u32,
    pub(crate) ready_at: Option<Micros>,
    pub(crate) ended: Option<(Micros, Ending)>,
    /// Messages that arrived.
    pub(crate) arrivals: u64,
}

/// What became of an uplink, as its sender was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// None: the connection ended first, or it is still awaited.
    Open,
    Sent,
    Refused(String),
}

/// One message from a user.
#[derive(Clone, Debug)]
pub(crate) struct Uplink {
    pub(crate) life: u32,
    pub(crate) sent_at: Micros,
    pub(crate) answer: Answer,
    /// When the consumer got it, each time.
    pub(crate) received: Vec<Micros>,
}

/// What broke a promise.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    /// Which promise, in few words.
    pub(crate) what: &'static str,
    /// Message, user, times.
    pub(crate) details: String,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) messages: Vec<Message>,
    pub(crate) lives: Vec<Life>,
    pub(crate) uplinks: Vec<Uplink>,
    pub(crate) violations: Violations,
    /// Times from the end of a connection to the next *ready* of the same device.
    pub(crate) reconnects: Vec<Micros>,
    /// When lives of processes, by name and number, were ended by `kill -9`.
    pub(crate) kills: BTreeMap<(String, u32), Micros>,
}

/// Violations: all are counted, the first of each kind are kept.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) kept: Vec<Violation>,
}

impl Violations {
    const KEPT_MAX: u64 = 20;

    pub(crate) fn add(&mut self, what: &'static str, details: impl FnOnce() -> String) {
        let count = self.counts.entry(what).or_default();
        *count += 1;
        if *count <= Self::KEPT_MAX {
            self.kept.push(Violation { what, details: details() });
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

impl Record {
    /// Whether a connection that stands waits for the answer to an uplink.
    pub(crate) fn awaits_answers(&self) -> bool {
        let stands = |uplink: &Uplink| self.lives[uplink.life as usize].ended.is_none();
        self.uplinks.iter().any(|uplink| uplink.answer == Answer::Open && stands(uplink))
    }
}

impl Message {
    /// Whether a user is in its audience.
    pub(crate) fn is_for(&self, namespace: u32, uid: u64) -> bool {
        let listed = match &self.to {
            To::Uids(uids) => uids.binary_search(&uid).is_ok(),
            To::Everyone => true,
        };
        listed && self.namespace == namespace && self.except.binary_search(&uid).is_err()
    }
}

impl Life {
    /// Whether it was up at that time.
    pub(crate) fn is_ready_at(&self, at: Micros) -> bool {
        let begun = self.ready_at.is_some_and(|ready| ready <= at);
        begun && self.ended.is_none_or(|(end, _)| end > at)
    }

    /// Whether it ended between these times.
    pub(crate) fn ended_within(&self, from: Micros, to: Micros) -> bool {
        self.ended.is_some_and(|(end, _)| (from..=to).contains(&end))
    }
}

/// The record, as many tasks write it.
#[derive(Debug)]
pub(crate) struct Shared {
    record: Mutex<Record>,
    pub(crate) clock: Clock,
}

impl Shared {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { record: Mutex::default(), clock }
    }

    /// Looks at or changes the record.
    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut Record) -> T) -> T {
        use_it(&mut self.record.lock().expect("no panic under the lock"))
    }

    /// A publish is about to be sent; its number.
    pub(crate) fn publish(&self, message: Message) -> usize {
        self.with(|record| {
            record.messages.push(message);
            record.messages.len() - 1
        })
    }

    /// What became of it.
    pub(crate) fn settle(&self, number: usize, link: u32, outcome: Outcome) {
        let now = self.clock.now();
        self.with(|record| {
            let message = &mut record.messages[number];
            message.settled_at = Some(now);
            message.one_link = message.link == link;
            message.outcome = outcome;
        });
    }

    /// A message reached a user.
    pub(crate) fn arrive(&self, life: u32, (namespace, uid): (u32, u64), number: Option<usize>) {
        let at = self.clock.now();
        self.with(|record| {
            let seen = &mut record.lives[life as usize];
            seen.arrivals += 1;
            let gateway = seen.gateway;
            let Some(message) = number.and_then(|number| record.messages.get_mut(number)) else {
                let details = || format!("user {namespace}/{uid} at {at} us on gateway {gateway}");
                record.violations.add("a message that nobody sent", details);
                return;
            };
            let number = number.unwrap_or_default();
            let details =
                || format!("message {number}, user {namespace}/{uid}, gateway {gateway}, {at} us");
            if !message.is_for(namespace, uid) {
                record.violations.add("wrong recipient", details);
            }
            message.arrivals.push(Arrival { life, at });
        });
    }
}

//! The producer's half of a link, without socket and clock: publishes in, frames out, receipts in,
//! outcomes out.
//!
//! ```text
//!  handle_command --> queue --transmit--> flight    --RECEIPT-->  outcome
//!                                    \--> unwritten --written-->  outcome     (level none)
//!                                         both      --down----->  in doubt    (PUB-5)
//! ```
//!
//! The queue outlives a link; what was transmitted does not. A list above `targets_max` stays one
//! job whose parts are cut as they are transmitted. Invariant: a job exists as long as it is in the
//! queue or has a part in `flight` or `unwritten`; sequences in `flight` rise.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use slab::Slab;
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::error::Violation;
use waybill_wire::frame::Receipt as WireReceipt;
use waybill_wire::limits::{PAYLOAD_BYTES_MAX, TARGETS_MAX};

use super::encode::{Part, encode};
use crate::error::{InvalidPublish, PublishError};
use crate::link::{LinkError, Welcomed};
use crate::machine::{Ending, Machine, WRITE_BYTES, unexpected};
use crate::publish::{Publish, ReceiptLevel};
use crate::receipt::Receipt;

/// What became of a publish.
pub(crate) type Outcome = Result<Receipt, PublishError>;

/// A publish and where its outcome goes; `R` is a channel in the driver and a number in tests.
#[derive(Debug)]
pub(crate) struct Order<R> {
    pub(crate) publish: Publish,
    pub(crate) reply: R,
}

/// What the machine tells.
#[derive(Debug)]
pub(crate) enum ProducerEvent<R> {
    /// The outcome of a publish.
    Settled { reply: R, outcome: Outcome },
    /// The broker refused a publish of level none, whose outcome was told when it was written.
    Refused { sequence: u64, code: ErrorCode },
}

/// A publish that is not settled.
#[derive(Debug)]
struct Job<R> {
    order: Order<R>,
    queued_at: Instant,
    receipt: Receipt,
    /// Parts transmitted so far, of `parts`.
    sent: u32,
    parts: u32,
    /// Parts answered, of `sent`.
    answered: u32,
    /// Parts refused as a whole, of `answered`, and the first cause.
    refused: u32,
    cause: ErrorCode,
}

/// A transmitted part.
#[derive(Debug)]
struct Flight {
    sequence: u64,
    job: usize,
    /// Its share of the job's targets.
    targets: Range<usize>,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct ProducerMachine<R> {
    instance: u64,
    sequence: u64,
    jobs: Slab<Job<R>>,
    queue: VecDeque<usize>,
    flight: VecDeque<Flight>,
    unwritten: Vec<Flight>,
    events: VecDeque<ProducerEvent<R>>,
    in_flight_max: usize,
    /// Parts of this link that may wait for a receipt: `in_flight_max`, or the broker's credit.
    window: usize,
    /// Largest payload the broker of this link takes.
    payload_max: usize,
    /// Nothing new goes out on this link.
    drained: bool,
    /// Set once the link has failed for good.
    failed: Option<LinkError>,
}

impl<R> ProducerMachine<R> {
    pub(crate) fn new(instance: u64, in_flight_max: usize) -> Self {
        Self {
            instance,
            sequence: 0,
            jobs: Slab::new(),
            queue: VecDeque::new(),
            flight: VecDeque::new(),
            unwritten: Vec::new(),
            events: VecDeque::new(),
            in_flight_max,
            window: in_flight_max,
            payload_max: PAYLOAD_BYTES_MAX,
            drained: false,
            failed: None,
        }
    }

    fn enqueue(&mut self, now: Instant, order: Order<R>) {
        let parts = order.publish.targets().map_or(1, |uids| uids.len().div_ceil(TARGETS_MAX));
        let id = self.jobs.insert(Job {
            order,
            queued_at: now,
            receipt: Receipt::new(self.instance, 0),
            sent: 0,
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
            answered: 0,
            refused: 0,
            cause: ErrorCode(0),
        });
        self.queue.push_back(id);
    }

    /// Transmits parts of the job at the head of the queue as long as there is room, and says
    /// whether the job is through.
    fn transmit_job(&mut self, now: Instant, id: usize, out: &mut Vec<u8>) -> bool {
        let job = &mut self.jobs[id];
        let Some(ttl_ms) = job.ttl_left(now) else {
            return self.give_up(id, ErrorCode::EXPIRED);
        };
        let bytes = job.order.publish.payload.len();
        if bytes > self.payload_max && job.sent > 0 {
            return self.give_up(id, ErrorCode::PAYLOAD_SIZE);
        }
        if bytes > self.payload_max {
            let invalid = InvalidPublish::Payload { bytes, max: self.payload_max };
            let job = self.jobs.remove(id);
            let outcome = Err(PublishError::Invalid(invalid));
            self.events.push_back(ProducerEvent::Settled { reply: job.order.reply, outcome });
            return true;
        }
        while job.sent < job.parts {
            let waits = job.order.publish.level != ReceiptLevel::None;
            if out.len() >= WRITE_BYTES || (waits && self.flight.len() >= self.window) {
                return false;
            }
            let targets = job.part();
            self.sequence += 1;
            let sequence = self.sequence;
            if job.sent == 0 {
                job.receipt = Receipt::new(self.instance, sequence);
            }
            let list = (job.parts > 1).then_some((job.receipt.sequence, job.sent, job.parts));
            let publish = &job.order.publish;
            let part = Part { sequence, ttl_ms, targets: targets.clone(), list };
            if let Err(error) = encode(publish, &part, out) {
                // `Publish::check` passed, so this is a rule it does not know.
                tracing::error!(%error, "a checked publish cannot be encoded");
                return self.give_up(id, error.code);
            }
            job.sent += 1;
            let flight = Flight { sequence, job: id, targets };
            match publish.level {
                ReceiptLevel::None => self.unwritten.push(flight),
                ReceiptLevel::Routed | ReceiptLevel::Delivered => self.flight.push_back(flight),
            }
        }
        // The targets stay, to be named if the link dies; the payload is not needed any more.
        job.order.publish.payload = bytes::Bytes::new();
        true
    }

    /// The parts not transmitted yet count as refused for `code`. The job is through.
    fn give_up(&mut self, id: usize, code: ErrorCode) -> bool {
        let job = &mut self.jobs[id];
        while job.sent < job.parts {
            let targets = job.part();
            job.sent += 1;
            job.refuse(targets, code);
        }
        self.settle(id);
        true
    }

    /// Tells the outcome if every part is answered.
    fn settle(&mut self, id: usize) {
        let job = &self.jobs[id];
        debug_assert!(job.refused <= job.answered && job.answered <= job.sent);
        if job.answered < job.parts {
            return;
        }
        let job = self.jobs.remove(id);
        let outcome = match job.refused == job.parts {
            true => Err(PublishError::Refused { code: job.cause }),
            false => Ok(job.receipt),
        };
        self.events.push_back(ProducerEvent::Settled { reply: job.order.reply, outcome });
    }

    /// Settles `flight` by `answer`.
    fn answer(&mut self, flight: Flight, answer: impl FnOnce(&mut Job<R>, Range<usize>)) {
        let Flight { job: id, targets, .. } = flight;
        answer(&mut self.jobs[id], targets);
        self.settle(id);
    }

    fn handle_receipt(&mut self, receipt: &WireReceipt<'_>) -> Result<(), Violation> {
        let sequence = receipt.sequence;
        if !receipt.last {
            return Ok(());
        }
        let Ok(at) = self.flight.binary_search_by_key(&sequence, |flight| flight.sequence) else {
            if receipt.code == ErrorCode(0) || sequence > self.sequence {
                let words = "receipt for no publish that waits for one";
                return Err(unexpected(Kind::RECEIPT, sequence, words));
            }
            self.events.push_back(ProducerEvent::Refused { sequence, code: receipt.code });
            return Ok(());
        };
        if let Some(flight) = self.flight.remove(at) {
            self.answer(flight, |job, targets| match receipt.code {
                ErrorCode(0) => job.accept(receipt),
                code => job.refuse(targets, code),
            });
        }
        Ok(())
    }

    /// Everything of the last link that has no answer is in doubt ([PUB-5]).
    fn doubt_all(&mut self) {
        let flights: Vec<Flight> = self.flight.drain(..).chain(self.unwritten.drain(..)).collect();
        for flight in flights {
            self.answer(flight, Job::doubt);
        }
    }

    fn fail_queued(&mut self) {
        while let Some(id) = self.queue.pop_front() {
            if self.jobs[id].sent > 0 {
                // Some parts went out: their receipts are worth more than an error.
                self.give_up(id, ErrorCode::SHUTTING_DOWN);
                continue;
            }
            let job = self.jobs.remove(id);
            let outcome = Err(PublishError::Closed(self.failed.clone()));
            self.events.push_back(ProducerEvent::Settled { reply: job.order.reply, outcome });
        }
    }
}

impl<R> Machine for ProducerMachine<R> {
    type Command = Vec<Order<R>>;
    type Event = ProducerEvent<R>;

    const IS_SERVED: bool = false;

    fn handle_command(&mut self, now: Instant, orders: Vec<Order<R>>) {
        orders.into_iter().for_each(|order| self.enqueue(now, order));
        if self.failed.is_some() {
            self.fail_queued();
        }
    }

    /// Always: the handle counts publishes and bytes before it sends any.
    fn wants_commands(&self) -> bool {
        true
    }

    fn handle_open(&mut self, _now: Instant, welcomed: &Welcomed) {
        debug_assert!(self.flight.is_empty() && self.unwritten.is_empty());
        self.drained = false;
        self.payload_max = welcomed.payload_max as usize;
        self.window = match welcomed.credit {
            0 => self.in_flight_max,
            credit => self.in_flight_max.min(credit as usize),
        };
    }

    fn handle_frame(
        &mut self,
        _now: Instant,
        frame: &Frame<'_>,
        _bytes: &[u8],
    ) -> Result<(), Violation> {
        match frame {
            Frame::Receipt(receipt) => self.handle_receipt(receipt),
            other => Err(unexpected(other.kind(), 0, "not a frame for a producer")),
        }
    }

    fn handle_drain(&mut self) {
        self.drained = true;
    }

    fn handle_written(&mut self) {
        for flight in std::mem::take(&mut self.unwritten) {
            self.answer(flight, |job, _| job.answered += 1);
        }
    }

    fn handle_down(&mut self, _now: Instant, ending: &Ending) {
        self.doubt_all();
        if let Ending::Final(error) = ending {
            self.failed = Some(error.clone());
            self.fail_queued();
        }
    }

    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) {
        while !self.drained
            && out.len() < WRITE_BYTES
            && let Some(&id) = self.queue.front()
            && self.transmit_job(now, id, out)
        {
            self.queue.pop_front();
        }
    }

    fn poll_event(&mut self) -> Option<ProducerEvent<R>> {
        self.events.pop_front()
    }

    fn is_settled(&self) -> bool {
        let queued = !self.drained && !self.queue.is_empty();
        !queued && self.flight.is_empty() && self.unwritten.is_empty()
    }
}

impl<R> Job<R> {
    /// The next part's share of the targets.
    fn part(&self) -> Range<usize> {
        let count = self.order.publish.targets().map_or(0, <[u64]>::len);
        let start = self.sent as usize * TARGETS_MAX;
        start..(start + TARGETS_MAX).min(count)
    }

    /// `ttl_ms` that is left after the wait in the queue, or `None` if nothing is. 0 = no limit.
    fn ttl_left(&self, now: Instant) -> Option<u32> {
        let Some(ttl) = self.order.publish.ttl else { return Some(0) };
        let waited = now.saturating_duration_since(self.queued_at);
        let left = ttl.checked_sub(waited).filter(|left| *left >= Duration::from_millis(1))?;
        Some(u32::try_from(left.as_millis()).unwrap_or(u32::MAX))
    }

    fn targets(&self, part: Range<usize>) -> &[u64] {
        self.order.publish.targets().and_then(|uids| uids.get(part)).unwrap_or_default()
    }

    fn accept(&mut self, receipt: &WireReceipt<'_>) {
        self.answered += 1;
        self.receipt.add(receipt);
    }

    fn refuse(&mut self, part: Range<usize>, code: ErrorCode) {
        self.answered += 1;
        self.refused += 1;
        if self.refused == 1 {
            self.cause = code;
        }
        if self.parts > 1 {
            let uids = self.targets(part).to_vec();
            self.receipt.dropped(code, uids.into_iter());
        }
    }

    fn doubt(&mut self, part: Range<usize>) {
        self.answered += 1;
        let uids = self.targets(part).to_vec();
        self.receipt.doubt(&uids);
    }
}

//! The producer's half of a link, without socket and clock: publishes in, frames out, receipts in,
//! outcomes out.
//!
//! ```text
//!  handle_command --> queue --transmit--> flight    --final RECEIPT-->  outcome
//!                                    \--> unwritten --written-->        outcome     (level none)
//!       again  --transmit, RESEND-->       flight
//!       again  <--down, not_ready, overloaded--  flight, unwritten
//!       again  --time is up-->       in doubt    (PUB-5)
//! ```
//!
//! Changes of tags go the same way as publishes of level delivered, but for what [`Request`] says.
//! A large payload goes out in pieces with others between them (`cut.rs`). A list above
//! `targets_max` stays one job whose parts are cut as they are transmitted. Invariant:
//! a job exists as long as it is in the queue or has a part in `again`, `flight` or `unwritten`;
//! sequences in `flight` rise.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;
use waybill_wire::Frame;
use waybill_wire::code::{BrokerState, ErrorCode, Kind, capability};
use waybill_wire::error::Violation;
use waybill_wire::frame::{ErrorFrame, Receipt as WireReceipt};
use waybill_wire::limits::{MESSAGE_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::cut::{Cut, Cuts};
use super::encode::Part;
use super::job::{Flight, Job, Reply};
use super::request::Request;
use super::resend::Again;
use super::window::AWAITED_BYTES_MAX;
use crate::error::{InvalidPublish, Obstacle, PublishError};
use crate::link::{LinkError, Welcomed};
use crate::machine::{Ending, Machine, WRITE_BYTES, Wishes, unexpected};
use crate::publish::ReceiptLevel;
use crate::receipt::Receipt;
use crate::wall::Wall;

/// What became of a publish.
pub(crate) type Outcome = Result<Receipt, PublishError>;

/// A request and where its outcome goes; `R` is a channel in the driver and a number in tests.
#[derive(Debug)]
pub(crate) struct Order<R> {
    pub(crate) request: Request,
    pub(crate) reply: R,
    /// For the time at which a traced one is transmitted; not looked at otherwise.
    pub(crate) wall: Option<Wall>,
}

/// What the machine tells.
#[derive(Debug)]
pub(crate) enum ProducerEvent<R> {
    /// The outcome of a publish.
    Settled { reply: R, outcome: Outcome },
    /// The broker refused a publish of level none, whose outcome was told when it was written.
    Refused { sequence: u64, code: ErrorCode },
}

/// What the machine is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Parts that may wait for a receipt.
    pub(crate) in_flight_max: usize,
    /// What was in flight when a link died is sent again for so long.
    pub(crate) resend_within: Duration,
    /// What could not be sent for so long fails.
    pub(crate) publish_timeout: Duration,
}

/// After so long a broker that had no room for another receipt is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// The machine.
#[derive(Debug)]
pub(crate) struct ProducerMachine<R> {
    instance: u64,
    bounds: Bounds,
    sequence: u64,
    pub(super) jobs: Slab<Job<R>>,
    pub(super) queue: VecDeque<usize>,
    again: Again,
    flight: VecDeque<Flight>,
    /// Weight of those in `flight` at level delivered.
    awaited: usize,
    /// Until then nothing of level delivered goes out: the broker had no room for another.
    held_until: Option<Instant>,
    unwritten: Vec<Flight>,
    pub(super) cuts: Cuts,
    events: VecDeque<ProducerEvent<R>>,
    /// Parts of this link that may wait for a receipt: `in_flight_max`, or the broker's credit.
    window: usize,
    /// Largest payload the broker of this link takes, and in one frame.
    pub(super) message_max: usize,
    pub(super) payload_max: usize,
    /// Why nothing goes out now, if nothing does.
    obstacle: Option<Obstacle>,
    /// Broker of this link, while there is one.
    broker: Option<Arc<str>>,
    /// Set once the link has failed for good.
    failed: Option<LinkError>,
}

impl<R: Reply> ProducerMachine<R> {
    pub(crate) fn new(instance: u64, bounds: Bounds) -> Self {
        Self {
            instance,
            bounds,
            sequence: 0,
            jobs: Slab::new(),
            queue: VecDeque::new(),
            again: Again::default(),
            flight: VecDeque::new(),
            awaited: 0,
            held_until: None,
            unwritten: Vec::new(),
            cuts: Cuts::default(),
            events: VecDeque::new(),
            window: bounds.in_flight_max,
            message_max: PAYLOAD_BYTES_MAX,
            payload_max: PAYLOAD_BYTES_MAX,
            obstacle: Some(Obstacle::Connecting),
            broker: None,
            failed: None,
        }
    }

    /// The same, that cuts payloads longer than the first into pieces of the second.
    #[cfg(feature = "sim")]
    pub(crate) fn cutting(self, whole_bytes_max: usize, piece_bytes: usize) -> Self {
        Self { cuts: Cuts::of(whole_bytes_max, piece_bytes), ..self }
    }

    fn enqueue(&mut self, now: Instant, order: Order<R>) {
        let id = self.jobs.insert(Job::new(now, self.instance, order));
        self.queue.push_back(id);
    }

    /// Whether a part at this level has to wait for receipts of others.
    fn is_held(&self, level: ReceiptLevel) -> bool {
        let full = self.flight.len() >= self.window;
        match level {
            ReceiptLevel::None => false,
            ReceiptLevel::Routed => full,
            ReceiptLevel::Delivered => {
                full || self.awaited >= AWAITED_BYTES_MAX || self.held_until.is_some()
            }
        }
    }

    /// What went out is remembered until it is answered, or only written; of a payload that is cut,
    /// the rest is to follow.
    fn fly(&mut self, level: ReceiptLevel, flight: Flight, cut: Option<(usize, bool)>) {
        let mut flight = Some(flight);
        if let Some((at, resend)) = cut
            && let Some((job, sequence)) = flight.as_ref().map(|it| (it.job, it.sequence))
            && let Some((payload, priority)) = self.jobs[job].order.request.payload()
        {
            let payload = payload.clone();
            let flight = if level == ReceiptLevel::None { flight.take() } else { None };
            self.cuts.push(Cut { sequence, priority, payload, at, resend, flight, passed: 0 });
        }
        let Some(flight) = flight else { return };
        if level == ReceiptLevel::None {
            return self.unwritten.push(flight);
        }
        if level == ReceiptLevel::Delivered {
            self.awaited += flight.weight();
        }
        let sequence = flight.sequence;
        let at = self.flight.partition_point(|other| other.sequence < sequence);
        self.flight.insert(at, flight);
    }

    fn land(&mut self, at: usize) -> Option<Flight> {
        let flight = self.flight.remove(at)?;
        if self.jobs[flight.job].level() == ReceiptLevel::Delivered {
            self.awaited -= flight.weight();
        }
        Some(flight)
    }

    /// Transmits what has to go again as long as there is room, and says whether all of it went.
    fn transmit_again(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        while let Some(flight) = self.again.front() {
            let job = &self.jobs[flight.job];
            let level = job.level();
            // No copy begins while the one before it has not ended.
            let is_open = self.cuts.resends() || self.cuts.has(flight.sequence);
            if out.len() >= WRITE_BYTES || self.is_held(level) || is_open || self.is_blocked(job) {
                return false;
            }
            let request = &job.order.request;
            let mut sequence = flight.sequence;
            let first = self.first_of(request.payload_bytes());
            let encoded = match job.ttl_left(now) {
                None => Err(ErrorCode::EXPIRED),
                _ if request.payload_bytes() > self.message_max => Err(ErrorCode::PAYLOAD_SIZE),
                Some(ttl_ms) => {
                    if !request.keeps_its_sequence() {
                        self.sequence += 1;
                        sequence = self.sequence;
                    }
                    let targets = flight.targets.clone();
                    let list = job.list(&targets);
                    let part = Part { sequence, resend: true, ttl_ms, targets, list, first };
                    request.encode(&part, out).map_err(|error| error.code)
                }
            };
            let Some(mut flight) = self.again.pop() else { return true };
            match encoded {
                Ok(()) => {
                    let job = &mut self.jobs[flight.job];
                    job.moved_at = now;
                    job.unrouted(&mut flight);
                    flight.sequence = sequence;
                    flight.sent_us = job.sent_us(now);
                    self.fly(level, flight, first.map(|first| (first, true)));
                }
                Err(code) => self.give_up_flight(flight, code),
            }
        }
        true
    }

    /// It is not sent again: in doubt if a copy may have arrived, else refused for `code`.
    fn give_up_flight(&mut self, flight: Flight, code: ErrorCode) {
        let in_doubt = flight.doubt_until.is_some();
        self.answer(flight, |job, flight| match in_doubt {
            true => job.doubt(flight),
            false => job.refuse(flight.targets, code),
        });
    }

    /// Transmits parts of the job at the head of the queue as long as there is room, and says
    /// whether the job is through.
    pub(super) fn transmit_job(&mut self, now: Instant, id: usize, out: &mut Vec<u8>) -> bool {
        let job = &self.jobs[id];
        let (level, parts) = (job.level(), job.parts);
        let Some(ttl_ms) = job.ttl_left(now) else {
            return self.give_up(id, ErrorCode::EXPIRED);
        };
        let bytes = job.order.request.payload_bytes();
        if bytes > self.message_max && job.sent > 0 {
            return self.give_up(id, ErrorCode::PAYLOAD_SIZE);
        }
        if bytes > self.message_max {
            let invalid = InvalidPublish::Payload { bytes, max: self.message_max };
            self.fail(id, PublishError::Invalid(invalid));
            return true;
        }
        while self.jobs[id].sent < parts {
            let is_blocked = self.is_blocked(&self.jobs[id]);
            if out.len() >= WRITE_BYTES || self.is_held(level) || is_blocked {
                return false;
            }
            let first = self.first_of(bytes);
            self.sequence += 1;
            let sequence = self.sequence;
            let job = &mut self.jobs[id];
            let targets = job.part();
            if job.sent == 0 {
                job.receipt.sequence = sequence;
            }
            let list = job.list(&targets);
            let of = targets.clone();
            let part = Part { sequence, resend: false, ttl_ms, targets: of, list, first };
            if let Err(error) = job.order.request.encode(&part, out) {
                // It was checked, so this is a rule that the check does not know.
                tracing::error!(%error, "a checked request cannot be encoded");
                return self.give_up(id, error.code);
            }
            job.sent += 1;
            job.moved_at = now;
            let sent_us = job.sent_us(now);
            let (routed, doubt_until) = (None, None);
            let flight = Flight { sequence, job: id, targets, routed, doubt_until, sent_us };
            self.fly(level, flight, first.map(|first| (first, false)));
        }
        true
    }

    /// Nothing of the job was sent, or ever will be.
    fn fail(&mut self, id: usize, error: PublishError) {
        let reply = self.jobs.remove(id).order.reply;
        self.events.push_back(ProducerEvent::Settled { reply, outcome: Err(error) });
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
        let (reply, outcome) = self.jobs.remove(id).into_outcome();
        self.events.push_back(ProducerEvent::Settled { reply, outcome });
    }

    /// Settles `flight` by `answer`.
    fn answer(&mut self, flight: Flight, answer: impl FnOnce(&mut Job<R>, Flight)) {
        let id = flight.job;
        answer(&mut self.jobs[id], flight);
        self.settle(id);
    }

    fn handle_receipt(&mut self, now: Instant, receipt: &WireReceipt<'_>) -> Result<(), Violation> {
        let sequence = receipt.sequence;
        let Ok(at) = self.flight.binary_search_by_key(&sequence, |flight| flight.sequence) else {
            if receipt.last && (receipt.code == ErrorCode(0) || sequence > self.sequence) {
                let words = "receipt for no publish that waits for one";
                return Err(unexpected(Kind::RECEIPT, sequence, words));
            }
            if receipt.code != ErrorCode(0) {
                self.events.push_back(ProducerEvent::Refused { sequence, code: receipt.code });
            }
            return Ok(());
        };
        if !receipt.last {
            let flight = &mut self.flight[at];
            self.jobs[flight.job].routed(flight, receipt);
            return Ok(());
        }
        if let Some(flight) = self.land(at) {
            let level = self.jobs[flight.job].level();
            match receipt.code {
                ErrorCode(0) => {
                    let resent = flight.doubt_until.is_some();
                    self.answer(flight, |job, it| job.accept(receipt, resent, it.sent_us));
                }
                ErrorCode::NOT_READY => {
                    self.is_not_ready();
                    self.put_back(flight);
                }
                ErrorCode::OVERLOADED if level == ReceiptLevel::Delivered => {
                    self.held_until = Some(now + ASK_AGAIN);
                    self.put_back(flight);
                }
                code => self.give_up_flight(flight, code),
            }
        }
        Ok(())
    }

    /// The broker is not ready after all, unless it has said already that it leaves.
    fn is_not_ready(&mut self) {
        if !matches!(self.obstacle, Some(Obstacle::Draining { .. })) {
            let broker = self.broker.clone().unwrap_or_else(|| "".into());
            self.obstacle = Some(Obstacle::NotReady { broker, gateways_missing: 0 });
        }
    }

    /// What was refused and may go later goes again, here or elsewhere.
    fn put_back(&mut self, flight: Flight) {
        let patience = self.jobs[flight.job].queued_at + self.bounds.publish_timeout;
        self.again.push(flight.doubt_until.unwrap_or(patience), flight);
    }

    /// Nothing of the last link will be answered any more ([PUB-5]): it goes again, or is in doubt.
    fn lose_all(&mut self, now: Instant) {
        self.awaited = 0;
        self.held_until = None;
        let flights = std::mem::take(&mut self.flight);
        let unwritten = std::mem::take(&mut self.unwritten).into_iter().chain(self.cuts.lose());
        for mut flight in flights.into_iter().chain(unwritten.collect::<Vec<_>>()) {
            let until = *flight.doubt_until.get_or_insert(now + self.bounds.resend_within);
            match until > now {
                true => self.again.push(until, flight),
                false => self.answer(flight, Job::doubt),
            }
        }
    }

    /// It is over: what waits for a link waits in vain.
    fn fail_waiting(&mut self) {
        for flight in self.again.drain().collect::<Vec<_>>() {
            self.give_up_flight(flight, ErrorCode::SHUTTING_DOWN);
        }
        while let Some(id) = self.queue.pop_front() {
            if self.jobs[id].sent > 0 {
                // Some parts went out: their receipts are worth more than an error.
                self.give_up(id, ErrorCode::SHUTTING_DOWN);
            } else {
                self.fail(id, PublishError::Closed(self.failed.clone()));
            }
        }
    }

    /// When the publish at the head of the queue has waited too long to be sent.
    fn head_deadline(&self) -> Option<Instant> {
        // Behind a list of which parts go out there may be one that has waited longer.
        let heads = self.queue.iter().take(2);
        let since = heads.map(|id| match &self.jobs[*id] {
            job if job.sent == 0 => job.queued_at,
            job => job.moved_at,
        });
        since.min().map(|since| since + self.bounds.publish_timeout)
    }

    fn fail_overdue(&mut self, now: Instant) {
        let obstacle = match (&self.obstacle, &self.broker) {
            (Some(obstacle), _) => obstacle.clone(),
            (None, Some(broker)) => {
                Obstacle::Busy { broker: Arc::clone(broker), unanswered: self.flight.len() }
            }
            (None, None) => Obstacle::Connecting,
        };
        for flight in self.again.expired(now) {
            if flight.doubt_until.is_none() {
                self.jobs[flight.job].obstacle = Some(obstacle.clone());
            }
            self.give_up_flight(flight, ErrorCode::NOT_READY);
        }
        while self.head_deadline().is_some_and(|at| at <= now) {
            let late = |id: &usize| {
                let job = &self.jobs[*id];
                let since = if job.sent == 0 { job.queued_at } else { job.moved_at };
                since + self.bounds.publish_timeout <= now
            };
            let Some(at) = self.queue.iter().take(2).position(late) else { return };
            let Some(id) = self.queue.remove(at) else { return };
            if self.jobs[id].sent == 0 {
                self.fail(id, PublishError::TimedOut(obstacle.clone()));
            } else {
                self.jobs[id].obstacle = Some(obstacle.clone());
                self.give_up(id, ErrorCode::NOT_READY);
            }
        }
    }
}

impl<R: Reply> Machine for ProducerMachine<R> {
    type Command = Vec<Order<R>>;
    type Event = ProducerEvent<R>;

    const IS_SERVED: bool = false;

    fn handle_command(&mut self, now: Instant, orders: Vec<Order<R>>) {
        orders.into_iter().for_each(|order| self.enqueue(now, order));
        if self.failed.is_some() {
            self.fail_waiting();
        }
    }

    /// Always: the handle counts publishes and bytes before it sends any.
    fn wants_commands(&self) -> bool {
        true
    }

    fn hello(&self) -> Wishes {
        let capabilities = capability::TRACE | capability::FRAGMENTS;
        Wishes { capabilities, ..Wishes::default() }
    }

    fn handle_open(&mut self, _now: Instant, welcomed: &Welcomed) {
        debug_assert!(self.flight.is_empty() && self.unwritten.is_empty());
        self.broker = Some(Arc::clone(&welcomed.address));
        self.obstacle = None;
        self.payload_max = welcomed.payload_max as usize;
        let cuts = welcomed.capabilities & capability::FRAGMENTS != 0;
        self.message_max = if cuts { MESSAGE_BYTES_MAX } else { self.payload_max };
        self.window = match welcomed.credit {
            0 => self.bounds.in_flight_max,
            credit => self.bounds.in_flight_max.min(credit as usize),
        };
        self.handle_state(welcomed.state, 0);
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        _bytes: &[u8],
    ) -> Result<(), Violation> {
        match frame {
            Frame::Receipt(receipt) => self.handle_receipt(now, receipt),
            other => Err(unexpected(other.kind(), 0, "not a frame for a producer")),
        }
    }

    /// A TAG that the broker does not run is answered so, and by no receipt (TAG-12).
    fn handle_refusal(&mut self, error: &ErrorFrame<'_>) {
        let flights = &self.flight;
        let Ok(at) = flights.binary_search_by_key(&error.reference, |flight| flight.sequence)
        else {
            return;
        };
        let request = &self.jobs[flights[at].job].order.request;
        if error.ref_kind == Kind::TAG
            && matches!(request, Request::Tags(_))
            && let Some(flight) = self.land(at)
        {
            self.give_up_flight(flight, error.code);
        }
    }

    fn handle_state(&mut self, state: BrokerState, gateways_missing: u32) {
        let Some(broker) = self.broker.clone() else { return };
        self.obstacle = match state {
            BrokerState::READY => None,
            BrokerState::DRAINING => Some(Obstacle::Draining { broker }),
            _ => Some(Obstacle::NotReady { broker, gateways_missing }),
        };
    }

    fn handle_drain(&mut self) {
        self.handle_state(BrokerState::DRAINING, 0);
    }

    fn handle_written(&mut self) {
        for flight in std::mem::take(&mut self.unwritten) {
            self.answer(flight, |job, _| job.written());
        }
    }

    fn handle_down(&mut self, now: Instant, ending: &Ending) {
        self.broker = None;
        self.lose_all(now);
        match ending {
            Ending::Retry { reason, .. } => self.obstacle = Some(Obstacle::Down(reason.clone())),
            Ending::Final(error) => {
                self.failed = Some(error.clone());
                self.fail_waiting();
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.again.deadline(), self.head_deadline(), self.held_until];
        deadlines.into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.held_until = self.held_until.filter(|until| *until > now);
        self.fail_overdue(now);
    }

    /// A broker that takes no publishes is left once nothing waits for its answer.
    fn wants_another(&self) -> bool {
        let waits = matches!(self.obstacle, Some(Obstacle::NotReady { .. }));
        let is_idle = self.unwritten.is_empty() && self.cuts.is_empty();
        self.broker.is_some() && waits && self.flight.is_empty() && is_idle
    }

    /// In each write there is room for a piece of what is cut, which is finished even where nothing
    /// new may begin (SES-11).
    fn transmit(&mut self, now: Instant, out: &mut Vec<u8>) {
        loop {
            if self.obstacle.is_none() && self.transmit_again(now, out) {
                self.transmit_new(now, out);
            }
            let written = self.cuts.transmit(self.payload_max, out);
            self.unwritten.extend(written);
            if out.len() >= WRITE_BYTES || self.cuts.is_empty() {
                return;
            }
        }
    }

    fn poll_event(&mut self) -> Option<ProducerEvent<R>> {
        self.events.pop_front()
    }

    /// What waits for another broker does not keep the link to one that drains.
    fn is_settled(&self) -> bool {
        let leaving = matches!(self.obstacle, Some(Obstacle::Draining { .. }));
        let nothing_waits = self.queue.is_empty() && self.again.is_empty();
        let nothing_flies = self.flight.is_empty() && self.unwritten.is_empty();
        (leaving || nothing_waits) && nothing_flies && self.cuts.is_empty()
    }
}

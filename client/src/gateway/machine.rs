//! The gateway's half of a link, without socket and clock.
//!
//! ```text
//!  open --> SNAPSHOT ... LAST  --> IN_EFFECT --> InEffect { ticket }
//!           \--> DELTA ... BARRIER --> IN_EFFECT --> InEffect { ticket }   over and over
//! ```
//!
//! Changes that come while a frame waits to be written go into the next one together. A ticket is
//! in effect when the broker has confirmed a version that was made after the ticket's changes;
//! since every link starts with a snapshot of the whole set, that holds across links too.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use waybill_wire::Frame;
use waybill_wire::code::{BrokerState, ErrorCode, Kind};
use waybill_wire::error::{Breach, Violation};
use waybill_wire::frame::Record;
use waybill_wire::message::{MessageHead, Sender};

use super::declared::{Batch, Declared};
use super::{Delivery, GatewayCommand, GatewayEvent, Uplink, encode};
use crate::link::{LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine, WRITE_BYTES, unexpected};

/// Versions whose confirmation may be awaited at once. While that many are, changes gather for the
/// next one; it bounds what a broker that confirms nothing can make us remember.
const MARKS_MAX: usize = 64;

/// A version whose IN_EFFECT is awaited.
#[derive(Clone, Copy, Debug)]
struct Mark {
    version: u64,
    digest: u64,
    /// Every change up to this ticket is in the version.
    ticket: u64,
}

/// The pure half of a [`GatewayLink`](super::GatewayLink): commands and frames in, frames and
/// events out. The caller keeps the polling order: after each `handle_*`, drain [`transmit`] and
/// [`poll_event`].
///
/// [`transmit`]: Self::transmit
/// [`poll_event`]: Self::poll_event
#[derive(Debug)]
pub struct GatewayMachine {
    declared: Declared,
    /// Highest ticket taken over.
    ticket: u64,
    /// Tickets up to here were in the set when this link's snapshot began.
    ticket_at_start: u64,
    version: u64,
    /// Last version put into `marks` on this link; `marked <= version`.
    marked: u64,
    marks: VecDeque<Mark>,
    open: bool,
    /// Reused for each frame.
    records: Vec<Record>,
    uplinks: VecDeque<Uplink>,
    /// Bytes of `uplinks`.
    uplink_bytes: usize,
    /// Sequences of uplinks that were transmitted and have no answer.
    unanswered: BTreeSet<u64>,
    events: VecDeque<GatewayEvent>,
    in_flight_max: usize,
    uplink_bytes_max: usize,
}

impl GatewayMachine {
    /// A machine that has declared nothing. At most `in_flight_max` uplinks wait for an answer and
    /// about `uplink_bytes_max` bytes of them wait to be transmitted.
    #[must_use]
    pub fn new(in_flight_max: usize, uplink_bytes_max: usize) -> Self {
        Self {
            declared: Declared::default(),
            ticket: 0,
            ticket_at_start: 0,
            version: 0,
            marked: 0,
            marks: VecDeque::new(),
            open: false,
            records: Vec::new(),
            uplinks: VecDeque::new(),
            uplink_bytes: 0,
            unanswered: BTreeSet::new(),
            events: VecDeque::new(),
            in_flight_max,
            uplink_bytes_max,
        }
    }

    /// Takes a command over, whatever the state of the link.
    pub fn handle_command(&mut self, command: GatewayCommand) {
        match command {
            GatewayCommand::Change { ticket, changes } => {
                changes.into_iter().for_each(|change| self.declared.apply(change));
                self.ticket = self.ticket.max(ticket);
                self.confirm_unchanged();
            }
            GatewayCommand::Uplink(uplink) => self.handle_uplink(uplink),
            GatewayCommand::Abandon { sequence } => self.abandon(sequence),
        }
    }

    fn handle_uplink(&mut self, uplink: Uplink) {
        let full = self.uplinks.len() + self.unanswered.len() >= self.in_flight_max
            || self.uplink_bytes >= self.uplink_bytes_max;
        let code = match (self.open, full) {
            (false, _) => ErrorCode::NO_CONSUMER,
            (true, true) => ErrorCode::OVERLOADED,
            (true, false) => {
                self.uplink_bytes += uplink.pending_bytes();
                self.uplinks.push_back(uplink);
                return;
            }
        };
        self.events.push_back(GatewayEvent::UplinkAck { sequence: uplink.sequence, code });
    }

    fn abandon(&mut self, sequence: u64) {
        if self.unanswered.remove(&sequence) {
            return;
        }
        if let Some(at) = self.uplinks.iter().position(|uplink| uplink.sequence == sequence)
            && let Some(uplink) = self.uplinks.remove(at)
        {
            self.uplink_bytes -= uplink.pending_bytes();
        }
    }

    /// A ticket whose changes changed nothing needs no frame of its own.
    fn confirm_unchanged(&mut self) {
        if !self.open || !self.declared.is_told() || self.marked < self.version {
            return;
        }
        match self.marks.back_mut() {
            Some(mark) => mark.ticket = self.ticket,
            None => self.events.push_back(GatewayEvent::InEffect { ticket: self.ticket }),
        }
    }

    /// The broker said WELCOME: a new session, which knows nothing.
    pub fn handle_open(&mut self, welcomed: &Welcomed) {
        debug_assert!(self.marks.is_empty() && self.unanswered.is_empty());
        self.open = true;
        self.version = 1;
        self.marked = 0;
        self.ticket_at_start = self.ticket;
        self.declared.start();
        self.events.push_back(GatewayEvent::Up(welcomed.clone()));
    }

    /// The broker's state changed.
    pub fn handle_state(&mut self, state: BrokerState, gateways_missing: u32) {
        self.events.push_back(GatewayEvent::BrokerState { state, gateways_missing });
    }

    /// A frame that is not the session's own; `bytes` is the whole of it.
    ///
    /// # Errors
    ///
    /// The broker broke the contract: the link has to end with this violation's code.
    pub fn handle_frame(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Result<(), Violation> {
        match frame {
            Frame::Deliver(message) => {
                let header_bytes = bytes.len() - message.payload.len();
                let delivery = Delivery::new(Bytes::copy_from_slice(bytes), header_bytes);
                self.events.push_back(GatewayEvent::Delivery(delivery));
                Ok(())
            }
            Frame::UplinkAck(ack) => {
                self.handle_uplink_ack(ack.sequence, ack.code);
                Ok(())
            }
            Frame::InEffect(effect) => self.handle_in_effect(effect.version, effect.digest),
            other => Err(unexpected(other.kind(), 0, "not a frame for a gateway")),
        }
    }

    /// An answer nobody waits for is nobody's fault ([UP-3]): a consumer may give it after the link
    /// its uplink came by was lost, or after the gateway stopped waiting.
    fn handle_uplink_ack(&mut self, sequence: u64, code: ErrorCode) {
        if self.unanswered.remove(&sequence) {
            self.events.push_back(GatewayEvent::UplinkAck { sequence, code });
        } else {
            tracing::debug!(sequence, code = code.0, "answer to no uplink that waits for one");
        }
    }

    fn handle_in_effect(&mut self, version: u64, digest: u64) -> Result<(), Violation> {
        let kind = Kind::IN_EFFECT;
        let Some(mark) = self.marks.pop_front() else {
            return Err(unexpected(kind, version, "no version waits to be in effect"));
        };
        if version != mark.version {
            let what = Breach::Due("version", version, mark.version);
            return Err(Violation { code: ErrorCode::VERSION_GAP, kind, reference: version, what });
        }
        if digest != mark.digest {
            let what = Breach::Words("the broker's digest is not that of what was declared");
            let code = ErrorCode::DIGEST_MISMATCH;
            return Err(Violation { code, kind, reference: version, what });
        }
        self.events.push_back(GatewayEvent::InEffect { ticket: mark.ticket });
        Ok(())
    }

    /// The link is gone. Uplinks without an answer are answered here: `consumer_lost` if they were
    /// transmitted, since their fate is unknown, `no_consumer` if not.
    pub fn handle_down(&mut self) {
        self.open = false;
        self.marks.clear();
        self.uplink_bytes = 0;
        let lost = std::mem::take(&mut self.unanswered).into_iter();
        let lost = lost.map(|sequence| (sequence, ErrorCode::CONSUMER_LOST));
        let unsent = self.uplinks.drain(..).map(|up| (up.sequence, ErrorCode::NO_CONSUMER));
        let answers = lost.chain(unsent);
        self.events
            .extend(answers.map(|(sequence, code)| GatewayEvent::UplinkAck { sequence, code }));
    }

    /// Appends frames to `out` until it has 64 KiB or nothing is left to say. Only while open.
    pub fn transmit(&mut self, out: &mut Vec<u8>) {
        self.transmit_changes(out);
        while out.len() < WRITE_BYTES
            && let Some(uplink) = self.uplinks.pop_front()
        {
            self.uplink_bytes -= uplink.pending_bytes();
            self.transmit_uplink(&uplink, out);
        }
    }

    fn transmit_changes(&mut self, out: &mut Vec<u8>) {
        while out.len() < WRITE_BYTES && self.marks.len() < MARKS_MAX {
            let mut records = std::mem::take(&mut self.records);
            let batch = self.declared.next_batch(&mut records);
            match batch {
                Some(Batch::Snapshot { first, last }) => {
                    encode::snapshot(self.version, first, last, &records, out);
                    if last {
                        // Changes the cursor had passed are not in it; they are told right after.
                        let told = self.declared.is_told();
                        self.mark(if told { self.ticket } else { self.ticket_at_start });
                    }
                }
                Some(Batch::Delta) => {
                    self.version += 1;
                    encode::delta(self.version, &records, out);
                }
                None if self.marked < self.version => {
                    self.mark(self.ticket);
                    encode::barrier(self.version, self.declared.digest(), out);
                }
                None => {}
            }
            self.records = records;
            if batch.is_none() {
                return;
            }
        }
    }

    /// The broker will confirm the present version, of its own accord or after a BARRIER.
    fn mark(&mut self, ticket: u64) {
        let (version, digest) = (self.version, self.declared.digest());
        self.marked = version;
        self.marks.push_back(Mark { version, digest, ticket });
    }

    fn transmit_uplink(&mut self, uplink: &Uplink, out: &mut Vec<u8>) {
        let labels: Vec<&str> = uplink.labels.iter().map(String::as_str).collect();
        let head = MessageHead {
            sequence: uplink.sequence,
            namespace: uplink.namespace,
            sender: Some(Sender { uid: uplink.uid, connection: uplink.connection }),
            content: uplink.content,
            labels: (&labels).into(),
            ..MessageHead::default()
        };
        let sequence = uplink.sequence;
        match head.encode_uplink(&uplink.payload, out) {
            Ok(()) => {
                self.unanswered.insert(sequence);
            }
            Err(error) => {
                // Its sender's fault, not the link's: labels or payload above a limit.
                tracing::debug!(%error, "uplink refused");
                self.events.push_back(GatewayEvent::UplinkAck { sequence, code: error.code });
            }
        }
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }
}

impl Machine for GatewayMachine {
    type Command = GatewayCommand;
    type Event = GatewayEvent;

    const IS_SERVED: bool = true;

    fn handle_command(&mut self, _now: Instant, command: GatewayCommand) {
        Self::handle_command(self, command);
    }

    /// Changes are folded into the set at once and uplinks beyond the bound are answered at once,
    /// so a command never has to wait; the events it makes have a bound of their own.
    fn wants_commands(&self) -> bool {
        self.events.len() < self.in_flight_max
    }

    fn handle_open(&mut self, welcomed: &Welcomed) {
        Self::handle_open(self, welcomed);
    }

    fn handle_frame(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Result<(), Violation> {
        Self::handle_frame(self, frame, bytes)
    }

    fn handle_state(&mut self, state: BrokerState, gateways_missing: u32) {
        Self::handle_state(self, state, gateways_missing);
    }

    fn handle_drain(&mut self) {
        Self::handle_state(self, BrokerState::DRAINING, 0);
    }

    fn handle_down(&mut self, ending: &Ending) {
        Self::handle_down(self);
        match ending.clone() {
            Ending::Retry { reason, retry_in } => {
                self.events.push_back(GatewayEvent::Down { reason, retry_in });
            }
            // Its owner closed it and needs no telling: the stream ends.
            Ending::Final(error) if error.kind == LinkErrorKind::Closed => {}
            Ending::Final(error) => self.events.push_back(GatewayEvent::Failed(error)),
        }
    }

    fn transmit(&mut self, _now: Instant, out: &mut Vec<u8>) {
        Self::transmit(self, out);
    }

    fn poll_event(&mut self) -> Option<GatewayEvent> {
        Self::poll_event(self)
    }

    /// A gateway leaves with its users at once or not at all; only uplinks have an answer to wait
    /// for.
    fn is_settled(&self) -> bool {
        self.uplinks.is_empty() && self.unanswered.is_empty()
    }
}

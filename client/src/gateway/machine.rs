//! The gateway's half of a link, without socket and clock.
//!
//! ```text
//!  open --> SNAPSHOT ... LAST  --> IN_EFFECT --> InEffect { ticket }
//!           \--> DELTA ... BARRIER --> IN_EFFECT --> InEffect { ticket }   over and over
//!
//!  open, resumed --> RESUMED --> DELTA ... RESUME --> IN_EFFECT     if that version is remembered
//!                           \--> SNAPSHOT ...                       if not
//! ```
//!
//! Where tags are agreed on, TAG_DELTAs go among them, in the same count of versions.
//!
//! Changes that come while a frame waits to be written go into the next one together. A ticket is
//! in effect when the broker has confirmed a version that was made after the ticket's changes;
//! since every link starts with a snapshot of the whole set, that holds across links too.

use std::collections::VecDeque;
use std::time::Instant;

use waybill_wire::Frame;
use waybill_wire::code::{BrokerState, ErrorCode, Kind, capability};
use waybill_wire::error::{Breach, Violation};
use waybill_wire::frame::{self, ErrorFrame};

use super::declared::{Batch, Declared, Records};
use super::history::History;
use super::inbox::{Inbox, Taken};
use super::reports::Reports;
use super::uplinks::{Answer, Uplinks};
use super::{GatewayCommand, GatewayEvent, Registration, Uplink, encode};
use crate::link::{LinkError, LinkErrorKind, Welcomed};
use crate::machine::{Ending, Machine, WRITE_BYTES, Wishes, unexpected};

/// Versions whose confirmation may be awaited at once. While that many are, changes gather for the
/// next one; it bounds what a broker that confirms nothing can make us remember.
const MARKS_MAX: usize = 64;

/// How this link declares registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Telling {
    /// Snapshot, then deltas.
    #[default]
    Afresh,
    /// The broker goes on with the session and has not said from where.
    Asking,
    /// What it misses, then RESUME.
    Resuming,
    /// Nothing more: SUSPEND was said.
    Suspended,
}

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
    telling: Telling,
    history: History,
    /// The session of the last link.
    session: u64,
    /// Whether this link's broker keeps sessions.
    resumable: bool,
    /// Whether links offer to declare tags, and whether this one agreed on it.
    offers_tags: bool,
    /// Whether links offer to have data links beside them.
    offers_links: bool,
    agreed_on_tags: bool,
    /// Whether this link went on with the session of the one before.
    resumed: bool,
    /// Whether anything is in effect by this link.
    in_effect: bool,
    /// End of the last link that had anything in effect.
    down_since: Option<Instant>,
    /// Since when the link that ends now has been silent.
    silent_since: Option<Instant>,
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
    records: Records,
    uplinks: Uplinks,
    reports: Reports,
    /// This link, counted from 1.
    link: u64,
    /// SUSPEND is to be said, with this window.
    suspend: Option<u32>,
    inbox: Inbox,
    events: VecDeque<GatewayEvent>,
    in_flight_max: usize,
    pending_bytes_max: usize,
}

impl GatewayMachine {
    /// A machine of this incarnation that has declared nothing. At most `in_flight_max` uplinks
    /// wait for an answer and about `pending_bytes_max` bytes of them wait to be transmitted;
    /// beyond as many bytes of reports no command is taken.
    #[must_use]
    pub fn new(incarnation: u64, in_flight_max: usize, pending_bytes_max: usize) -> Self {
        Self {
            declared: Declared::default(),
            telling: Telling::default(),
            history: History::default(),
            session: 0,
            resumable: false,
            offers_tags: false,
            offers_links: false,
            agreed_on_tags: false,
            resumed: false,
            in_effect: false,
            down_since: None,
            silent_since: None,
            ticket: 0,
            ticket_at_start: 0,
            version: 0,
            marked: 0,
            marks: VecDeque::new(),
            open: false,
            records: Records::default(),
            uplinks: Uplinks::new(in_flight_max, pending_bytes_max),
            reports: Reports::new(incarnation),
            link: 0,
            suspend: None,
            inbox: Inbox::default(),
            events: VecDeque::new(),
            in_flight_max,
            pending_bytes_max,
        }
    }

    /// The same, whose links offer to declare tags, or do not.
    #[must_use]
    pub fn offering_tags(self, offers_tags: bool) -> Self {
        Self { offers_tags, ..self }
    }

    /// The same, whose links offer to have data links beside them, or do not.
    #[must_use]
    pub fn offering_links(self, offers_links: bool) -> Self {
        Self { offers_links, ..self }
    }

    /// Takes a command over, whatever the state of the link.
    pub fn handle_command(&mut self, command: GatewayCommand) {
        match command {
            GatewayCommand::Change { ticket, changes, tags } => {
                changes.into_iter().for_each(|change| self.declared.apply(change));
                tags.into_iter().for_each(|update| self.declared.apply_tag(update));
                self.ticket = self.ticket.max(ticket);
                self.confirm_unchanged();
            }
            GatewayCommand::Uplink(uplink) => self.handle_uplink(uplink),
            GatewayCommand::Abandon { sequence } => self.uplinks.abandon(sequence),
            GatewayCommand::Report(report) => self.reports.push(report),
            GatewayCommand::Suspend { window_ms } => self.handle_suspend(window_ms),
        }
    }

    fn handle_uplink(&mut self, uplink: Uplink) {
        let taken = match self.open {
            true => self.uplinks.push(uplink),
            false => Err((uplink.sequence, ErrorCode::NO_CONSUMER)),
        };
        if let Err(answer) = taken {
            self.events.push_back(answered(answer));
        }
    }

    /// Before its snapshot has ended a session is not worth keeping.
    fn handle_suspend(&mut self, window_ms: u32) {
        let live = self.telling == Telling::Afresh && self.declared.is_past_snapshot();
        if self.open && live {
            self.suspend = Some(window_ms);
        }
    }

    /// A ticket whose changes changed nothing needs no frame of its own.
    fn confirm_unchanged(&mut self) {
        let told = self.telling == Telling::Afresh && self.declared.is_told();
        if !self.open || !told || self.marked < self.version {
            return;
        }
        match self.marks.back_mut() {
            Some(mark) => mark.ticket = self.ticket,
            None => self.events.push_back(GatewayEvent::InEffect { ticket: self.ticket }),
        }
    }

    /// What HELLO asks for.
    #[must_use]
    pub(crate) fn wishes(&self) -> Wishes {
        let session = if self.history.is_useful() { self.session } else { 0 };
        let tags = if self.offers_tags { capability::TAGS } else { 0 };
        let links = if self.offers_links { capability::LINKS } else { 0 };
        let always =
            capability::RESUME | capability::REPORTS | capability::TRACE | capability::FRAGMENTS;
        Wishes { capabilities: always | tags | links, session, data: None }
    }

    /// The broker said WELCOME: a new session, which knows nothing, or that of the last link.
    pub fn handle_open(&mut self, _now: Instant, welcomed: &Welcomed) {
        debug_assert!(self.marks.is_empty() && self.uplinks.is_empty());
        self.link += 1;
        self.open = true;
        self.session = welcomed.session;
        self.resumable = welcomed.capabilities & capability::RESUME != 0;
        self.reports.open(self.link, welcomed.capabilities & capability::TRACE != 0);
        self.agreed_on_tags = self.offers_tags && welcomed.capabilities & capability::TAGS != 0;
        self.resumed = welcomed.resumed;
        if welcomed.resumed {
            self.telling = Telling::Asking;
        } else {
            self.tell_afresh(1);
        }
        self.events.push_back(GatewayEvent::Up(welcomed.clone()));
    }

    /// A snapshot fills a fresh slot.
    fn tell_afresh(&mut self, version: u64) {
        self.telling = Telling::Afresh;
        self.version = version;
        self.marked = 0;
        self.ticket_at_start = self.ticket;
        self.declared.start(self.agreed_on_tags);
        self.history.restart();
    }

    fn handle_resumed(&mut self, version: u64, digest: u64) -> Result<(), Violation> {
        if self.telling != Telling::Asking {
            let words = "nothing is being resumed, or it was said before";
            return Err(unexpected(Kind::RESUMED, version, words));
        }
        let tags = self.agreed_on_tags;
        if self.declared.rewind(&mut self.history, version, digest, tags) {
            self.telling = Telling::Resuming;
            self.version = version;
        } else {
            self.resumed = false;
            self.tell_afresh(version.saturating_add(1));
        }
        Ok(())
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
    pub fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        match self.inbox.take(now, frame, bytes, self.link)? {
            Taken::Event(event) => {
                self.events.push_back(event);
                return Ok(());
            }
            Taken::Piece => return Ok(()),
            Taken::Nothing => {}
        }
        match frame {
            Frame::UplinkAck(ack) => {
                self.handle_uplink_ack(ack.sequence, ack.code);
                Ok(())
            }
            Frame::InEffect(effect) => self.handle_in_effect(now, effect.version, effect.digest),
            Frame::Resumed(resumed) => self.handle_resumed(resumed.version, resumed.digest),
            Frame::Displaced(displaced) => {
                self.events.push_back(told(displaced));
                Ok(())
            }
            other => Err(unexpected(other.kind(), 0, "not a frame for a gateway")),
        }
    }

    /// An answer nobody waits for is nobody's fault ([UP-3]): a consumer may give it after the link
    /// its uplink came by was lost, or after the gateway stopped waiting.
    fn handle_uplink_ack(&mut self, sequence: u64, code: ErrorCode) {
        if self.uplinks.answered(sequence) {
            self.events.push_back(GatewayEvent::UplinkAck { sequence, code });
        } else {
            tracing::debug!(sequence, code = code.0, "answer to no uplink that waits for one");
        }
    }

    fn handle_in_effect(
        &mut self,
        now: Instant,
        version: u64,
        digest: u64,
    ) -> Result<(), Violation> {
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
        if self.resumable {
            self.history.confirmed(version, digest);
        }
        self.in_effect = true;
        if let Some(since) = self.down_since.take() {
            let (gap, resumed) = (now.saturating_duration_since(since), self.resumed);
            self.events.push_back(GatewayEvent::Restored { gap, resumed });
        }
        self.events.push_back(GatewayEvent::InEffect { ticket: mark.ticket });
        Ok(())
    }

    /// The link, which is about to be told as gone, has been silent since then: what is in effect
    /// ended with the last byte that was heard.
    pub fn handle_silence(&mut self, since: Instant) {
        self.silent_since = Some(since);
    }

    /// The link is gone. Uplinks without an answer are given back as lost.
    pub fn handle_down(&mut self, now: Instant) {
        let since = self.silent_since.take().unwrap_or(now);
        if std::mem::take(&mut self.in_effect) {
            self.down_since = Some(since);
        }
        self.open = false;
        self.inbox.clear();
        self.marks.clear();
        self.reports.close();
        self.suspend = None;
        self.events.extend(self.uplinks.give_up().map(lost));
    }

    /// Appends frames to `out` until it has 64 KiB or nothing is left to say. Only while open.
    pub fn transmit(&mut self, out: &mut Vec<u8>) {
        self.transmit_changes(out);
        if out.len() < WRITE_BYTES
            && let Some(window_ms) = self.suspend.take()
        {
            encode::suspend(window_ms, out);
            self.telling = Telling::Suspended;
        }
        self.reports.transmit(out);
        self.uplinks.transmit(out, |answer| self.events.push_back(answered(answer)));
    }

    fn transmit_changes(&mut self, out: &mut Vec<u8>) {
        if matches!(self.telling, Telling::Asking | Telling::Suspended) {
            return;
        }
        while out.len() < WRITE_BYTES && self.marks.len() < MARKS_MAX {
            let mut records = std::mem::take(&mut self.records);
            let batch = self.declared.next_batch(&mut records);
            match &batch {
                Some(batch) => self.transmit_batch(batch, &records, out),
                None => self.transmit_mark(out),
            }
            self.records = records;
            if batch.is_none() {
                return;
            }
        }
    }

    fn transmit_batch(&mut self, batch: &Batch, records: &Records, out: &mut Vec<u8>) {
        let Records { registrations, tags } = records;
        match *batch {
            Batch::Snapshot { first, last } => {
                encode::snapshot(self.version, first, last, registrations, out);
                if last {
                    if self.resumable {
                        self.history.snapshot(self.version, self.declared.digest());
                    }
                    // Changes the cursor had passed are not in it; they are told right after.
                    let told = self.declared.is_told();
                    self.mark(if told { self.ticket } else { self.ticket_at_start });
                }
            }
            Batch::SnapshotTags => encode::tag_delta(self.version, tags, out),
            Batch::Delta => {
                self.version += 1;
                encode::delta(self.version, registrations, out);
                if self.resumable {
                    self.history.delta(self.version, self.declared.digest(), registrations);
                }
            }
            Batch::TagDelta => {
                self.version += 1;
                encode::tag_delta(self.version, tags, out);
                if self.resumable {
                    self.history.tag_delta(self.version, self.declared.digest(), tags);
                }
            }
        }
    }

    /// All is told: what asks the broker to confirm it, unless it was asked.
    fn transmit_mark(&mut self, out: &mut Vec<u8>) {
        if self.telling == Telling::Resuming {
            self.telling = Telling::Afresh;
            self.mark(self.ticket);
            encode::resume(self.session, self.version, self.declared.digest(), out);
        } else if self.marked < self.version {
            self.mark(self.ticket);
            encode::barrier(self.version, self.declared.digest(), out);
        }
    }

    /// The broker will confirm the present version, of its own accord or because it is asked to.
    fn mark(&mut self, ticket: u64) {
        let (version, digest) = (self.version, self.declared.digest());
        self.marked = version;
        self.marks.push_back(Mark { version, digest, ticket });
    }

    /// The next event, in order.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }
}

/// Whether broker and gateway disagree on what was declared: then only a snapshot mends it.
fn is_at_odds(reason: &LinkError) -> bool {
    match reason.kind {
        LinkErrorKind::Violated(_) => true,
        LinkErrorKind::Refused(code) => matches!(
            code,
            ErrorCode::DIGEST_MISMATCH | ErrorCode::VERSION_GAP | ErrorCode::UNEXPECTED_FRAME
        ),
        _ => false,
    }
}

fn answered((sequence, code): Answer) -> GatewayEvent {
    GatewayEvent::UplinkAck { sequence, code }
}

fn lost((sequence, transmitted): (u64, bool)) -> GatewayEvent {
    GatewayEvent::UplinkLost { sequence, transmitted }
}

fn told(displaced: &frame::Displaced) -> GatewayEvent {
    let frame::Displaced { device_class, namespace, uid, login, winner } = *displaced;
    let registration = Registration { namespace, uid, device_class, login };
    GatewayEvent::Displaced { registration, winner }
}

impl Machine for GatewayMachine {
    type Command = GatewayCommand;
    type Event = GatewayEvent;

    const IS_SERVED: bool = true;

    fn handle_command(&mut self, _now: Instant, command: GatewayCommand) {
        Self::handle_command(self, command);
    }

    /// Changes are folded into the set at once and uplinks beyond the bound are answered at once,
    /// so those never have to wait; the events they make and the reports have a bound.
    fn wants_commands(&self) -> bool {
        self.events.len() < self.in_flight_max && self.reports.bytes() < self.pending_bytes_max
    }

    fn hello(&self) -> Wishes {
        self.wishes()
    }

    fn handle_open(&mut self, now: Instant, welcomed: &Welcomed) {
        Self::handle_open(self, now, welcomed);
    }

    fn handle_frame(
        &mut self,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        Self::handle_frame(self, now, frame, bytes)
    }

    fn handle_state(&mut self, state: BrokerState, gateways_missing: u32) {
        Self::handle_state(self, state, gateways_missing);
    }

    fn handle_drain(&mut self) {
        Self::handle_state(self, BrokerState::DRAINING, 0);
    }

    /// TAG-11: the broker does without some of the tags, and sends more instead.
    fn handle_refusal(&mut self, error: &ErrorFrame<'_>) {
        if matches!(error.code, ErrorCode::GATEWAY_TAGS | ErrorCode::BROKER_TAGS) {
            let ErrorFrame { code, reference, .. } = *error;
            self.events.push_back(GatewayEvent::TagsNotKept { code, version: reference });
        }
        // LNK-7: it is told before what comes instead.
        if error.code == ErrorCode::DATA_LINK_LOST {
            self.events.push_back(GatewayEvent::DataLinkLost { number: error.reference });
        }
    }

    fn handle_silence(&mut self, since: Instant) {
        Self::handle_silence(self, since);
    }

    fn handle_down(&mut self, now: Instant, ending: &Ending) {
        Self::handle_down(self, now);
        if let Ending::Retry { reason, .. } = ending
            && is_at_odds(reason)
        {
            self.history.restart();
        }
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
        self.uplinks.is_empty() && self.reports.is_empty() && self.suspend.is_none()
    }
}

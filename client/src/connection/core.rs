//! A link's logic without socket, clock and chance: bytes and times in, bytes, events, a deadline
//! and the end with its reason out.
//!
//! ```text
//!  (no link) --open--> Greeting --WELCOME--> Open --owner closes | broker drains--> Leaving
//!      ^                   \-----------------\--fatal ERROR, silence, transport ends--/ |
//!      \--down-------------------------------------------------------------------------/
//! ```
//!
//! The role's machine outlives its links, so both live here. A call that fails ends the link: the
//! driver writes what it can, asks [`LinkCore::cause`] what the end is to be called, and hands that
//! to [`LinkCore::down`] or [`LinkCore::finish`]. After every call the driver publishes
//! [`LinkCore::state_news`], hands events out and writes [`LinkCore::output`].

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use waybill_wire::code::BrokerState;
use waybill_wire::frame::{ErrorFrame, Hello, State, Welcome};
use waybill_wire::limits::DRAFT;
use waybill_wire::session::{Fault, Step};
use waybill_wire::{Deframer, Frame, Session};

use super::{Identity, Reconnect};
use crate::link::{LinkError, LinkErrorKind, LinkState, Welcomed};
use crate::machine::{Ending, Machine, WRITE_BYTES};
use crate::options::Options;

/// How long a link that says goodbye waits for the other end to close, so that the last frames are
/// read by both and not lost to a reset.
const FAREWELL: Duration = Duration::from_secs(1);

/// A buffer that grew beyond this for one large frame is given back once that frame is written.
const KEPT_BYTES_MAX: usize = 4 * WRITE_BYTES;

/// A role's machine, and the link it is on.
#[derive(Debug)]
pub(crate) struct LinkCore<M: Machine> {
    pub(crate) machine: M,
    pub(crate) reconnect: Reconnect,
    identity: Identity,
    token: Option<String>,
    close_timeout: Duration,
    /// An event that had no room where it goes. While there is one nothing is to be read.
    held: Option<M::Event>,
    /// Events are not asked for at present.
    is_untaken: bool,
    /// No command comes any more.
    commands_ended: bool,
    /// When all is over at the latest; set when the owner closes it.
    close_at: Option<Instant>,
    link: Option<Link>,
    state: LinkState,
    state_is_new: bool,
}

/// One link.
#[derive(Debug)]
struct Link {
    address: Arc<str>,
    session: Session,
    deframer: Deframer,
    /// Capabilities that HELLO offered.
    offered: u64,
    /// Frames on their way out; the first `written` bytes are with the transport. Filled only when
    /// the ones before are, so that frames that come meanwhile go out together.
    output: Vec<u8>,
    written: usize,
    /// Origin of the session's clock.
    began: Instant,
    paused: bool,
    phase: Phase,
    /// When to leave, because the broker asked to or another one is better.
    leave_at: Option<Instant>,
    left_for: LinkErrorKind,
    said_drain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting { until: Instant },
    Open,
    Leaving { until: Instant, shut: bool },
}

impl Link {
    fn error(&self, kind: LinkErrorKind) -> LinkError {
        LinkError::new(kind, &self.address)
    }

    /// The transport failed or ended; after goodbyes that is how it should be.
    fn lost(&self, source: Option<io::Error>) -> LinkError {
        let error = self.error(self.left_for);
        match source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }

    /// The broker broke the contract: an ERROR is queued, if it can still follow whole frames.
    fn violated(&mut self, fault: &Fault) -> LinkError {
        self.session.fail(fault);
        if self.output.is_empty() {
            self.session.transmit(&mut self.output);
        }
        self.error(LinkErrorKind::Violated(fault.code())).with_detail(&fault.to_string())
    }

    fn clock(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    fn silent_since(&self, now: Instant) -> Option<Instant> {
        self.session.silent_since(self.clock(now)).map(|since| self.began + since)
    }

    fn silence_at(&self) -> Option<Instant> {
        self.session.deadline().map(|deadline| self.began + deadline)
    }

    fn leave(&mut self, at: Instant, kind: LinkErrorKind) {
        self.leave_at = Some(at);
        self.left_for = kind;
    }

    fn deadline(&self, close_at: Option<Instant>) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Greeting { until } | Phase::Leaving { until, .. } => Some(until),
            Phase::Open => None,
        };
        // Leaving has a time of its own; the one it left for is in the past.
        let leave_at = self.leave_at.filter(|_| self.phase == Phase::Open);
        [phase, self.silence_at(), leave_at, close_at].into_iter().flatten().min()
    }
}

impl<M: Machine> LinkCore<M> {
    /// A machine without a link. The options were checked.
    pub(crate) fn new(machine: M, identity: Identity, options: &Options) -> Self {
        let brokers = options.brokers.iter().map(|broker| Arc::from(broker.as_str())).collect();
        Self {
            machine,
            reconnect: Reconnect::new(brokers, options.backoff),
            identity,
            token: options.token.clone(),
            close_timeout: options.close_timeout,
            held: None,
            is_untaken: false,
            commands_ended: false,
            close_at: None,
            link: None,
            state: LinkState::Connecting,
            state_is_new: true,
        }
    }

    /// An attempt begins: where to connect to.
    pub(crate) fn connecting(&mut self) -> Arc<str> {
        self.set_state(LinkState::Connecting);
        self.reconnect.address()
    }

    /// There is a transport to `address`: HELLO is ready to be written, WELCOME is due by `until`.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        address: &Arc<str>,
        until: Instant,
    ) -> Result<(), LinkError> {
        let draft = u16::from(DRAFT);
        let wishes = self.machine.hello();
        let hello = Hello {
            role: self.identity.role,
            version_min: draft,
            version_max: draft,
            instance: self.identity.instance,
            session: wishes.session,
            capabilities: wishes.capabilities,
            data: wishes.data.is_some(),
            wanted_shard: wishes.data.unwrap_or(Hello::ANY_SHARD),
            credential: self.token.as_deref().unwrap_or_default().as_bytes(),
            ..Hello::default()
        };
        let mut output = Vec::with_capacity(WRITE_BYTES);
        hello.encode(&mut output).map_err(|error| {
            // Options were checked, so this is not expected; an error ends the attempt.
            LinkError::new(LinkErrorKind::Lost, address).with_detail(&error.to_string())
        })?;
        self.link = Some(Link {
            address: Arc::clone(address),
            session: Session::initiator(self.identity.role, Duration::ZERO),
            deframer: Deframer::new(),
            offered: wishes.capabilities,
            output,
            written: 0,
            began: now,
            paused: false,
            phase: Phase::Greeting { until },
            leave_at: None,
            left_for: LinkErrorKind::Lost,
            said_drain: false,
        });
        Ok(())
    }

    /// What is to be written now. Empty: nothing is.
    pub(crate) fn output(&mut self, now: Instant) -> &[u8] {
        let Some(link) = &mut self.link else { return &[] };
        if link.output.is_empty() {
            self.machine.handle_written();
            // A PONG says that what came before it has been taken in (SES-16).
            if self.held.is_none() && !self.is_untaken {
                link.session.transmit(&mut link.output);
            } else {
                link.session.transmit_but_answers(&mut link.output);
            }
            if link.phase == Phase::Open {
                self.machine.transmit(now, &mut link.output);
            }
        }
        &link.output[link.written..]
    }

    /// What is left to be written of what was begun; nothing new is added.
    pub(crate) fn rest(&self) -> &[u8] {
        self.link.as_ref().map_or(&[], |link| &link.output[link.written..])
    }

    /// The transport has taken so many more bytes of [`output`](Self::output).
    pub(crate) fn written(&mut self, count: usize) {
        let Some(link) = &mut self.link else { return };
        link.written += count;
        debug_assert!(link.written <= link.output.len());
        if link.written == link.output.len() {
            link.written = 0;
            link.output.clear();
            if link.output.capacity() > KEPT_BYTES_MAX {
                link.output.shrink_to(WRITE_BYTES);
            }
        }
    }

    /// Whether another turn has something to do without anything having happened.
    pub(crate) fn is_busy(&self) -> bool {
        self.link.as_ref().is_some_and(|link| {
            let unshut = matches!(link.phase, Phase::Leaving { shut: false, .. });
            // PONGs wait for what came before them to be taken (SES-16).
            let has_output = match self.held.is_none() && !self.is_untaken {
                true => link.session.has_output(),
                false => link.session.has_more_than_answers(),
            };
            link.output.is_empty() && (has_output || unshut)
        })
    }

    /// Bytes came in. The error ends the link.
    pub(crate) fn received(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LinkError> {
        // Taken out so that its frames can be read while the link is worked on.
        let Some(mut link) = self.link.take() else { return Ok(()) };
        link.session.received(link.clock(now));
        let mut deframer = std::mem::take(&mut link.deframer);
        let mut rest = bytes;
        let result = loop {
            let step = match deframer.next(rest) {
                Ok(step) => step,
                Err(malformed) => break Err(link.violated(&malformed.into())),
            };
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break Ok(()) };
            let handled = match raw.decode() {
                Ok(frame) => self.handle_frame(&mut link, now, &frame, raw.bytes()),
                Err(malformed) => Err(link.violated(&malformed.into())),
            };
            if handled.is_err() {
                break handled;
            }
        };
        link.deframer = deframer;
        self.link = Some(link);
        result
    }

    /// The transport failed, or without a `source`: the other end will send nothing more.
    pub(crate) fn lost(&self, source: Option<io::Error>) -> LinkError {
        match &self.link {
            Some(link) => link.lost(source),
            None => LinkError::new(LinkErrorKind::Lost, &self.reconnect.address()),
        }
    }

    fn handle_frame(
        &mut self,
        link: &mut Link,
        now: Instant,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        let step = match link.session.handle(link.clock(now), frame) {
            Ok(step) => step,
            Err(fault) => return Err(link.violated(&fault)),
        };
        match (step, frame) {
            (Step::Welcome, Frame::Welcome(welcome)) => self.handle_welcome(link, now, welcome),
            (Step::Ended, Frame::Error(error)) => {
                let retry_after = Duration::from_millis(error.retry_after_ms.into());
                self.reconnect.retry_after(retry_after);
                let kind = LinkErrorKind::Refused(error.code);
                return Err(link.error(kind).with_detail(error.detail));
            }
            (Step::Drain { deadline_ms }, _) => {
                tracing::info!(broker = %link.address, deadline_ms, "broker drains");
                let at = now + Duration::from_millis(deadline_ms.into());
                link.leave(at, LinkErrorKind::Drained);
                self.set_broker_state(BrokerState::DRAINING);
                self.machine.handle_drain();
            }
            (Step::Pass, Frame::State(State { state, gateways_missing })) => {
                self.set_broker_state(*state);
                self.machine.handle_state(*state, *gateways_missing);
            }
            (Step::Pass, Frame::Error(error)) => {
                let ErrorFrame { code, detail, .. } = error;
                tracing::warn!(broker = %link.address, %code, detail, "broker refused a frame");
                self.machine.handle_refusal(error);
            }
            (Step::Pass, frame) => {
                let handled = self.machine.handle_frame(now, frame, bytes);
                return handled.map_err(|violation| link.violated(&violation.into()));
            }
            (Step::NotSupported(kind), _) => {
                tracing::debug!(broker = %link.address, %kind, "frame of a later draft ignored");
            }
            _ => {}
        }
        Ok(())
    }

    fn handle_welcome(&mut self, link: &mut Link, now: Instant, welcome: &Welcome) {
        let welcomed = Welcomed {
            address: Arc::clone(&link.address),
            broker: welcome.broker,
            session: welcome.session,
            resumed: welcome.resumed,
            state: welcome.state,
            shard: welcome.shard,
            shards: welcome.shards,
            capabilities: welcome.capabilities,
            payload_max: welcome.payload_max,
            credit: welcome.credit,
        };
        let Welcomed { session, shard, .. } = welcomed;
        tracing::info!(broker = %link.address, session, shard, "link open");
        link.phase = Phase::Open;
        link.session.run(welcome.capabilities & link.offered);
        self.reconnect.opened(now);
        self.machine.handle_open(now, &welcomed);
        self.set_state(LinkState::Open(welcomed));
    }

    /// Whether silence is about to be judged: what came unseen meanwhile counts before it does.
    pub(crate) fn judges_silence(&self, now: Instant) -> bool {
        let silence_at = self.link.as_ref().and_then(Link::silence_at);
        self.held.is_none() && silence_at.is_some_and(|at| at <= now)
    }

    /// Whatever is due without anything having come in, with a link or without. `true`: the driver
    /// now ends its direction of the transport. The error ends the link.
    pub(crate) fn advance(&mut self, now: Instant) -> Result<bool, LinkError> {
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        let leaving = self.may_leave(now);
        let Some(link) = &mut self.link else { return Ok(false) };
        if let Err(fault) = link.session.expired(link.clock(now)) {
            let mut error = link.violated(&fault);
            // Silence is no breach of the contract that a person would look for.
            error.kind = LinkErrorKind::Lost;
            return Err(error);
        }
        match link.phase {
            Phase::Greeting { until } if now >= until => Err(link.error(LinkErrorKind::Timeout)),
            Phase::Greeting { .. } if leaving => Err(link.error(LinkErrorKind::Closed)),
            Phase::Greeting { .. } => Ok(false),
            Phase::Open => {
                self.advance_open(now, leaving);
                Ok(false)
            }
            Phase::Leaving { until, .. } if now >= until => Err(link.lost(None)),
            Phase::Leaving { until, shut: false } if link.output.is_empty() => {
                link.phase = Phase::Leaving { until, shut: true };
                Ok(true)
            }
            Phase::Leaving { .. } => Ok(false),
        }
    }

    fn advance_open(&mut self, now: Instant, leaving: bool) {
        let Some(link) = &mut self.link else { return };
        let settled = self.machine.is_settled() && self.held.is_none();
        if link.leave_at.is_none() && self.machine.wants_another() && self.reconnect.has_another() {
            link.leave(now, LinkErrorKind::NotReady);
        }
        let asked = link.leave_at.is_some_and(|at| now >= at || (!M::IS_SERVED && settled));
        let leaving = asked || leaving;
        if !link.said_drain && (leaving || (self.close_at.is_some() && M::IS_SERVED)) {
            let left = self.close_at.map_or(FAREWELL, |at| at.saturating_duration_since(now));
            let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
            // If even that has no room the link is closed without it.
            let _full = link.session.drain(deadline_ms);
            link.said_drain = true;
        }
        if leaving {
            link.phase = Phase::Leaving { until: now + FAREWELL, shut: false };
        }
    }

    /// Says whether the driver reads from now on: while an event is held it does not, and silence
    /// is its own doing.
    pub(crate) fn set_reading(&mut self, now: Instant) -> bool {
        let reading = self.held.is_none();
        if let Some(link) = &mut self.link
            && link.paused == reading
        {
            let clock = link.clock(now);
            match reading {
                true => link.session.resume(clock),
                false => link.session.pause(clock),
            }
            link.paused = !reading;
        }
        reading
    }

    /// When to call [`advance`](Self::advance) again at the latest.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        // Once closing has begun it is waited for by `may_leave`, not by its first deadline.
        let close_at = self.close_at.filter(|at| *at > now);
        let link = self.link.as_ref().map_or(close_at, |link| link.deadline(close_at));
        [link, self.machine.deadline()].into_iter().flatten().min()
    }

    /// What the end of this link is called: an ordinary goodbye stays one, however the transport
    /// ended.
    pub(crate) fn cause(&self, error: LinkError) -> LinkError {
        match &self.link {
            Some(link)
                if matches!(link.phase, Phase::Leaving { .. }) && self.close_at.is_some() =>
            {
                link.error(LinkErrorKind::Closed)
            }
            _ => error,
        }
    }

    /// The link or attempt is over. The delay before the next one, from a `random` number spread
    /// over all of `u64`; `None`: there is none, and [`finish`](Self::finish) is due.
    pub(crate) fn down(
        &mut self,
        now: Instant,
        error: &LinkError,
        random: u64,
    ) -> Option<Duration> {
        if let Some(since) = self.link.as_ref().and_then(|link| link.silent_since(now)) {
            self.machine.handle_silence(since);
        }
        self.link = None;
        self.reconnect.ended(now);
        if error.is_final() || self.machine.gives_up(error) || self.may_leave(now) {
            return None;
        }
        let was_open = matches!(self.state, LinkState::Open(_));
        let (retry_in, attempts) = self.reconnect.again(was_open, random);
        let role = self.identity.role;
        let reason = error.clone();
        tracing::warn!(%reason, ?retry_in, attempts, %role, "link down");
        self.machine.handle_down(now, &Ending::Retry { reason: reason.clone(), retry_in });
        self.set_state(LinkState::Down { reason, retry_in, attempts });
        Some(retry_in)
    }

    /// It is over for good. What the machine still has to tell is to be handed out.
    pub(crate) fn finish(&mut self, now: Instant, error: &LinkError) {
        self.link = None;
        self.machine.handle_down(now, &Ending::Final(error.clone()));
        let role = self.identity.role;
        if error.kind == LinkErrorKind::Closed {
            tracing::debug!(%role, "link closed");
            self.set_state(LinkState::Closed);
        } else {
            tracing::error!(%error, %role, "link failed, not tried again");
            self.set_state(LinkState::Failed(error.clone()));
        }
    }

    /// Takes a command over.
    pub(crate) fn command(&mut self, now: Instant, command: M::Command) {
        self.machine.handle_command(now, command);
    }

    /// Whether another command has room.
    pub(crate) fn wants_commands(&self) -> bool {
        !self.commands_ended && self.machine.wants_commands()
    }

    /// No command comes any more.
    pub(crate) fn end_commands(&mut self, now: Instant) {
        self.commands_ended = true;
        self.begin_close(now);
    }

    /// The owner closed the link, or nobody holds it any more.
    pub(crate) fn begin_close(&mut self, now: Instant) {
        if self.close_at.is_none() {
            self.close_at = Some(now + self.close_timeout);
            self.held = self.machine.handle_close(self.held.take());
        }
    }

    /// When all is over at the latest, once closing has begun.
    pub(crate) fn close_at(&self) -> Option<Instant> {
        self.close_at
    }

    /// Whether the owner closed the link and nothing is left to finish, or no time.
    pub(crate) fn may_leave(&self, now: Instant) -> bool {
        let Some(close_at) = self.close_at else { return false };
        let finished = self.commands_ended && self.machine.is_settled() && self.held.is_none();
        finished || now >= close_at
    }

    /// The next event, in order.
    pub(crate) fn poll_event(&mut self) -> Option<M::Event> {
        self.held.take().or_else(|| self.machine.poll_event())
    }

    /// An event that had no room: it is the next again, and nothing is read meanwhile.
    pub(crate) fn hold(&mut self, event: M::Event) {
        debug_assert!(self.held.is_none(), "one event is handed out at a time");
        self.held = Some(event);
    }

    /// Whether nobody asks for events now, as far as what waits in the machine is not taken in.
    #[cfg(feature = "sim")]
    pub(crate) fn set_untaken(&mut self, is_untaken: bool) {
        self.is_untaken = is_untaken;
    }

    /// Whether an event waits for room.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The link's state, if it changed since it was asked for last.
    pub(crate) fn state_news(&mut self) -> Option<LinkState> {
        std::mem::take(&mut self.state_is_new).then(|| self.state.clone())
    }

    fn set_state(&mut self, state: LinkState) {
        self.state = state;
        self.state_is_new = true;
    }

    fn set_broker_state(&mut self, state: BrokerState) {
        if let LinkState::Open(welcomed) = &mut self.state
            && welcomed.state != state
        {
            welcomed.state = state;
            self.state_is_new = true;
        }
    }
}

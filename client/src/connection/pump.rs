//! One link from HELLO to its end: read a batch, hand it over, write a batch.
//!
//! ```text
//!  Greeting --WELCOME--> Open --owner closes | broker drains--> Leaving --both ends shut--> over
//!      \--------------------\--fatal ERROR, silence, transport ends-------------------> over
//! ```
//!
//! Each turn sends what there is, hands events out, and waits for the first of: bytes, room for
//! events, commands, the owner's wish to close, a deadline.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waybill_wire::Frame;
use waybill_wire::code::BrokerState;
use waybill_wire::frame::{ErrorFrame, State, Welcome};
use waybill_wire::session::{Fault, Step};

use super::{COMMANDS_PER_TURN, Connection, Transport, until};
use crate::link::{LinkError, LinkErrorKind, LinkState, Welcomed};
use crate::machine::Machine;
use crate::outlet::Outlet;

/// How long a link that says goodbye waits for the other end to close, so that the last frames are
/// read by both and not lost to a reset.
const FAREWELL: Duration = Duration::from_secs(1);

/// One link.
struct Link<'a> {
    transport: Transport,
    address: &'a Arc<str>,
    phase: Phase,
    /// When to leave because the broker asked to.
    leave_at: Option<Instant>,
    /// Another broker of the list would serve better.
    for_another: bool,
    said_drain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeting { until: Instant },
    Open,
    Leaving { until: Instant, shut: bool },
}

impl Link<'_> {
    fn error(&self, kind: LinkErrorKind) -> LinkError {
        LinkError::new(kind, self.address)
    }

    /// The transport failed or ended; after goodbyes that is how it should be.
    fn lost(&self, source: Option<io::Error>) -> LinkError {
        let drained = self.leave_at.is_some();
        let kind = match (drained, self.for_another) {
            (true, _) => LinkErrorKind::Drained,
            (false, true) => LinkErrorKind::NotReady,
            (false, false) => LinkErrorKind::Lost,
        };
        match source {
            Some(source) => self.error(kind).with_source(source),
            None => self.error(kind),
        }
    }

    /// The broker broke the contract: says so, if the kernel takes it, and ends the link.
    fn violated(&mut self, fault: &Fault) -> LinkError {
        self.transport.session.fail(fault);
        if self.transport.is_flushed() {
            self.transport.session.transmit(&mut self.transport.output);
            // The link is over either way; the ERROR is a courtesy.
            let _courtesy = self.transport.flush();
        }
        self.error(LinkErrorKind::Violated(fault.code())).with_detail(&fault.to_string())
    }

    fn deadline(&self, close_at: Option<Instant>) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Greeting { until } | Phase::Leaving { until, .. } => Some(until),
            Phase::Open => None,
        };
        let session = self.transport.deadline().map(Instant::from_std);
        // Leaving has a time of its own; the one it left for is in the past.
        let leave_at = self.leave_at.filter(|_| self.phase == Phase::Open);
        [phase, session, leave_at, close_at].into_iter().flatten().min()
    }
}

impl<M, O> Connection<M, O>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    O: Outlet<M::Event> + 'static,
{
    /// Runs the link until it ends; why it did.
    pub(super) async fn pump(
        &mut self,
        transport: Transport,
        address: &Arc<str>,
        welcome_by: Instant,
    ) -> LinkError {
        let phase = Phase::Greeting { until: welcome_by };
        let mut link = Link {
            transport,
            address,
            phase,
            leave_at: None,
            for_another: false,
            said_drain: false,
        };
        loop {
            if let Err(error) = self.turn(&mut link).await {
                // What was an ordinary goodbye stays one, however the transport ended.
                let over = matches!(link.phase, Phase::Leaving { .. });
                let closed = over && self.close_at.is_some();
                return if closed { link.error(LinkErrorKind::Closed) } else { error };
            }
        }
    }

    async fn turn(&mut self, link: &mut Link<'_>) -> Result<(), LinkError> {
        if let Err(error) = self.send(link) {
            // The broker's reason may have come before its reset.
            self.receive(link)?;
            return Err(link.lost(Some(error)));
        }
        self.flush_events();
        self.advance(link).await?;
        self.wait(link).await
    }

    /// Writes until there is nothing to say or the kernel has no room.
    fn send(&mut self, link: &mut Link<'_>) -> io::Result<()> {
        loop {
            link.transport.flush()?;
            if !link.transport.is_flushed() {
                return Ok(());
            }
            self.machine.handle_written();
            let Link { transport, phase, .. } = link;
            transport.session.transmit(&mut transport.output);
            if *phase == Phase::Open {
                let now = Instant::now().into_std();
                self.machine.transmit(now, &mut transport.output);
            }
            if transport.is_flushed() {
                return Ok(());
            }
        }
    }

    /// Whatever is due without anything having come in.
    async fn advance(&mut self, link: &mut Link<'_>) -> Result<(), LinkError> {
        let now = Instant::now();
        self.machine_timeout();
        if link.transport.deadline().is_some_and(|at| at <= now.into_std()) && self.held.is_none() {
            // A process that was stopped for a while has not been reading: what lies in the kernel
            // counts before the silence does.
            self.receive(link)?;
        }
        let clock = link.transport.clock(now.into_std());
        if let Err(fault) = link.transport.session.expired(clock) {
            let mut error = link.violated(&fault);
            // Silence is no breach of the contract that a person would look for.
            error.kind = LinkErrorKind::Lost;
            return Err(error);
        }
        match link.phase {
            Phase::Greeting { until } if now >= until => Err(link.error(LinkErrorKind::Timeout)),
            Phase::Greeting { .. } if self.may_leave() => Err(link.error(LinkErrorKind::Closed)),
            Phase::Greeting { .. } => Ok(()),
            Phase::Open => {
                self.advance_open(link, now);
                Ok(())
            }
            Phase::Leaving { until, .. } if now >= until => Err(link.lost(None)),
            Phase::Leaving { until, shut: false } if link.transport.is_flushed() => {
                link.phase = Phase::Leaving { until, shut: true };
                link.transport.shut().await.map_err(|error| link.lost(Some(error)))
            }
            Phase::Leaving { .. } => Ok(()),
        }
    }

    fn advance_open(&mut self, link: &mut Link<'_>, now: Instant) {
        let closing = self.close_at.is_some();
        let asked = link.leave_at.is_some_and(|at| {
            now >= at || (!M::IS_SERVED && self.machine.is_settled() && self.held.is_none())
        });
        link.for_another = self.options.brokers.len() > 1 && self.machine.wants_another();
        let leaving = asked || link.for_another || self.may_leave();
        if !link.said_drain && (leaving || (closing && M::IS_SERVED)) {
            let left = self.close_at.map_or(FAREWELL, |at| at.saturating_duration_since(now));
            let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
            // If even that has no room the link is closed without it.
            let _full = link.transport.session.drain(deadline_ms);
            link.said_drain = true;
        }
        if leaving {
            link.phase = Phase::Leaving { until: now + FAREWELL, shut: false };
        }
    }

    async fn wait(&mut self, link: &mut Link<'_>) -> Result<(), LinkError> {
        let unsent = link.transport.session.has_output();
        let unshut = matches!(link.phase, Phase::Leaving { shut: false, .. });
        if link.transport.is_flushed() && (unsent || unshut) {
            return Ok(());
        }
        link.transport.set_reading(self.held.is_none(), Instant::now().into_std());
        let close_at = self.close_at;
        // Once closing has begun it is waited for by `may_leave`, not by its first deadline.
        let deadline = link.deadline(close_at.filter(|at| *at > Instant::now()));
        let deadline = [deadline, self.machine_deadline()].into_iter().flatten().min();
        tokio::select! {
            ready = link.transport.ready() => match ready {
                Ok(ready) if ready.is_readable() || ready.is_read_closed() => self.receive(link),
                Ok(_) => Ok(()),
                Err(error) => Err(link.lost(Some(error))),
            },
            () = self.outlet.room(), if self.held.is_some() => Ok(()),
            count = self.commands.recv_many(&mut self.taken, COMMANDS_PER_TURN),
                if !self.commands_ended && self.machine.wants_commands() =>
            {
                self.take_commands(count);
                Ok(())
            }
            Ok(()) = self.closing.changed(), if close_at.is_none() => {
                self.begin_close();
                Ok(())
            }
            () = until(deadline) => Ok(()),
        }
    }

    /// Reads once and hands over every frame that is whole.
    fn receive(&mut self, link: &mut Link<'_>) -> Result<(), LinkError> {
        let count = match link.transport.read(Instant::now().into_std()) {
            Ok(None) => return Ok(()),
            Ok(Some(0)) => return Err(link.lost(None)),
            Ok(Some(count)) => count,
            Err(error) => return Err(link.lost(Some(error))),
        };
        // Both are taken out so that frames can borrow them while the link is worked on.
        let input = std::mem::take(&mut link.transport.input);
        let mut deframer = std::mem::take(&mut link.transport.deframer);
        let mut rest = &input[..count];
        let result = loop {
            let step = match deframer.next(rest) {
                Ok(step) => step,
                Err(malformed) => break Err(link.violated(&malformed.into())),
            };
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break Ok(()) };
            let handled = match raw.decode() {
                Ok(frame) => self.handle_frame(link, &frame, raw.bytes()),
                Err(malformed) => Err(link.violated(&malformed.into())),
            };
            if handled.is_err() {
                break handled;
            }
        };
        link.transport.input = input;
        link.transport.deframer = deframer;
        result
    }

    fn handle_frame(
        &mut self,
        link: &mut Link<'_>,
        frame: &Frame<'_>,
        bytes: &[u8],
    ) -> Result<(), LinkError> {
        let clock = link.transport.clock(Instant::now().into_std());
        let step = match link.transport.session.handle(clock, frame) {
            Ok(step) => step,
            Err(fault) => return Err(link.violated(&fault)),
        };
        match (step, frame) {
            (Step::Welcome, Frame::Welcome(welcome)) => self.handle_welcome(link, welcome),
            (Step::Ended, Frame::Error(error)) => {
                let retry_after = Duration::from_millis(error.retry_after_ms.into());
                self.delays.retry_after(retry_after);
                let kind = LinkErrorKind::Refused(error.code);
                return Err(link.error(kind).with_detail(error.detail));
            }
            (Step::Drain { deadline_ms }, _) => {
                tracing::info!(broker = %link.address, deadline_ms, "broker drains");
                link.leave_at = Some(Instant::now() + Duration::from_millis(deadline_ms.into()));
                self.set_broker_state(BrokerState::DRAINING);
                self.machine.handle_drain();
            }
            (Step::Pass, Frame::State(State { state, gateways_missing })) => {
                self.set_broker_state(*state);
                self.machine.handle_state(*state, *gateways_missing);
            }
            (Step::Pass, Frame::Error(ErrorFrame { code, detail, .. })) => {
                tracing::warn!(broker = %link.address, %code, detail, "broker refused a frame");
            }
            (Step::Pass, frame) => {
                let now = Instant::now().into_std();
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

    fn handle_welcome(&mut self, link: &mut Link<'_>, welcome: &Welcome) {
        let welcomed = Welcomed {
            address: Arc::clone(link.address),
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
        self.delays.opened(Instant::now().into_std());
        self.machine.handle_open(Instant::now().into_std(), &welcomed);
        self.state.send_replace(LinkState::Open(welcomed));
    }

    fn set_broker_state(&self, state: BrokerState) {
        self.state.send_if_modified(|link| match link {
            LinkState::Open(welcomed) if welcomed.state != state => {
                welcomed.state = state;
                true
            }
            _ => false,
        });
    }
}

//! The task that owns the socket: attempts, back-off, fail-over, closing.
//!
//! One task per link, generic over the role's [`Machine`]. It never stops serving commands and
//! events, whatever it waits for, so a handle is never stuck behind a broker that is away. What
//! happens while a link is open is in `pump.rs`, the bytes of one link are in `transport.rs`.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use waybill_wire::code::Role;

use crate::backoff::Delays;
use crate::link::{LinkError, LinkErrorKind, LinkState};
use crate::machine::{Ending, Machine};
use crate::options::{Options, OptionsError};
use crate::outlet::Outlet;

mod control;
mod pump;
mod transport;

pub(crate) use control::Control;
use transport::Transport;

/// Commands taken over in one turn. Enough to fill a write with small ones; few enough that a turn
/// with the largest ones does not keep receipts and keepalive waiting.
const COMMANDS_PER_TURN: usize = 256;

/// Who the initiator says it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) role: Role,
    /// Random number of this life of the process, not 0.
    pub(crate) instance: u64,
}

/// The task's state.
pub(crate) struct Connection<M: Machine, O> {
    machine: M,
    outlet: O,
    /// An event the outlet had no room for. While there is one the socket is not read.
    held: Option<M::Event>,
    commands: mpsc::Receiver<M::Command>,
    taken: Vec<M::Command>,
    /// No command comes any more.
    commands_ended: bool,
    closing: watch::Receiver<bool>,
    /// When the task ends at the latest; set when the owner closes it.
    close_at: Option<Instant>,
    state: watch::Sender<LinkState>,
    options: Options,
    identity: Identity,
    delays: Delays,
    /// Place in `options.brokers`.
    broker: usize,
    /// Attempts that failed one after another.
    attempts: u32,
}

impl<M, O> Connection<M, O>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    O: Outlet<M::Event> + 'static,
{
    /// Checks the options and starts the task.
    pub(crate) fn start(
        options: Options,
        identity: Identity,
        machine: M,
        commands: mpsc::Receiver<M::Command>,
        outlet: O,
    ) -> Result<Control, OptionsError> {
        options.check()?;
        if identity.instance == 0 {
            let problem = "0 is not a random number of this process".into();
            return Err(OptionsError { field: "incarnation", problem });
        }
        let (state, states) = watch::channel(LinkState::Connecting);
        let (close, closing) = watch::channel(false);
        let connection = Self {
            machine,
            outlet,
            held: None,
            commands,
            taken: Vec::with_capacity(COMMANDS_PER_TURN),
            commands_ended: false,
            closing,
            close_at: None,
            state,
            delays: Delays::new(options.backoff),
            options,
            identity,
            broker: 0,
            attempts: 0,
        };
        tokio::spawn(connection.run());
        Ok(Control::new(states, close))
    }

    /// Attempts until the owner closes or the broker says something final.
    async fn run(mut self) {
        loop {
            self.state.send_replace(LinkState::Connecting);
            let index = self.broker % self.options.brokers.len();
            let address = Arc::from(self.options.brokers[index].as_str());
            let error = self.attempt(&address).await;
            self.delays.ended(Instant::now().into_std());
            if error.is_final() || self.may_leave() {
                return self.finish(error).await;
            }
            let retry_in = self.delays.next(rand::random());
            self.go_down(error, retry_in);
            if self.tend(sleep(retry_in)).await.is_none() {
                let error = LinkError::new(LinkErrorKind::Closed, &address);
                return self.finish(error).await;
            }
            self.broker += 1;
        }
    }

    fn go_down(&mut self, reason: LinkError, retry_in: Duration) {
        let was_open = matches!(*self.state.borrow(), LinkState::Open(_));
        self.attempts = if was_open { 0 } else { self.attempts.saturating_add(1) };
        let attempts = self.attempts;
        tracing::warn!(%reason, ?retry_in, attempts, role = %self.identity.role, "link down");
        let now = Instant::now().into_std();
        self.machine.handle_down(now, &Ending::Retry { reason: reason.clone(), retry_in });
        self.state.send_replace(LinkState::Down { reason, retry_in, attempts });
    }

    /// Tells everyone who still waits that it is over.
    async fn finish(mut self, error: LinkError) {
        self.commands.close();
        let now = Instant::now().into_std();
        while let Ok(command) = self.commands.try_recv() {
            self.machine.handle_command(now, command);
        }
        self.machine.handle_down(now, &Ending::Final(error.clone()));
        // The last events are worth a wait: one of them says why it is over.
        let patience = Instant::now() + self.options.close_timeout;
        loop {
            self.flush_events();
            if self.held.is_none() || self.outlet.is_gone() {
                break;
            }
            if timeout_at(patience, self.outlet.room()).await.is_err() {
                break;
            }
        }
        if error.kind == LinkErrorKind::Closed {
            tracing::debug!(role = %self.identity.role, "link closed");
            self.state.send_replace(LinkState::Closed);
        } else {
            tracing::error!(%error, role = %self.identity.role, "link failed, not tried again");
            self.state.send_replace(LinkState::Failed(error));
        }
    }

    /// One attempt, and the link if it becomes one; returns why it ended.
    async fn attempt(&mut self, address: &Arc<str>) -> LinkError {
        let until = Instant::now() + self.options.connect_timeout;
        let target = address.to_string();
        let connect = timeout_at(until, TcpStream::connect(target));
        let unreachable = LinkErrorKind::Unreachable;
        match self.tend(connect).await {
            None => LinkError::new(LinkErrorKind::Closed, address),
            Some(Err(_)) => LinkError::new(unreachable, address).with_detail("no answer in time"),
            Some(Ok(Err(error))) => LinkError::new(unreachable, address).with_source(error),
            Some(Ok(Ok(stream))) => {
                let now = Instant::now().into_std();
                let token = self.options.token.as_deref();
                let wishes = self.machine.hello();
                match Transport::open(stream, self.identity, wishes, token, now) {
                    Ok(transport) => self.pump(transport, address, until).await,
                    Err(error) => LinkError::new(LinkErrorKind::Lost, address).with_source(error),
                }
            }
        }
    }

    /// Serves commands and events until `wait` is over; `None` if the task may leave before.
    async fn tend<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        loop {
            self.flush_events();
            if self.may_leave() {
                return None;
            }
            let (close_at, timeout) = (self.close_at, self.machine_deadline());
            tokio::select! {
                done = &mut wait => return Some(done),
                () = self.outlet.room(), if self.held.is_some() => {}
                count = self.commands.recv_many(&mut self.taken, COMMANDS_PER_TURN),
                    if !self.commands_ended && self.machine.wants_commands() =>
                {
                    self.take_commands(count);
                }
                Ok(()) = self.closing.changed(), if close_at.is_none() => self.begin_close(),
                () = until(close_at) => {}
                () = until(timeout) => self.machine_timeout(),
            }
        }
    }

    fn machine_deadline(&self) -> Option<Instant> {
        self.machine.deadline().map(Instant::from_std)
    }

    fn machine_timeout(&mut self) {
        let now = Instant::now().into_std();
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
    }

    /// Takes over what `recv_many` brought; 0 says that no more will come.
    fn take_commands(&mut self, count: usize) {
        let now = Instant::now().into_std();
        for command in self.taken.drain(..) {
            self.machine.handle_command(now, command);
        }
        if count == 0 {
            self.commands_ended = true;
            self.begin_close();
        }
    }

    /// The owner closed the link, or dropped every handle.
    fn begin_close(&mut self) {
        if self.close_at.is_none() {
            self.close_at = Some(Instant::now() + self.options.close_timeout);
            self.commands.close();
            self.held = self.machine.handle_close(self.held.take());
        }
    }

    /// Whether the owner closed the link and nothing is left to finish, or no time.
    fn may_leave(&self) -> bool {
        let Some(close_at) = self.close_at else { return false };
        let finished = self.commands_ended && self.machine.is_settled() && self.held.is_none();
        finished || Instant::now() >= close_at
    }

    /// Hands events out as long as they are taken.
    fn flush_events(&mut self) {
        if self.outlet.is_gone() {
            self.begin_close();
        }
        while let Some(event) = self.held.take().or_else(|| self.machine.poll_event()) {
            if let Err(event) = self.outlet.offer(event) {
                self.held = Some(event);
                break;
            }
        }
    }
}

/// Sleeps until then; for ever without a time.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! The task that owns the socket: attempts, back-off, fail-over, closing.
//!
//! One task per link, generic over the role's [`Machine`]. It never stops serving commands and
//! events, whatever it waits for, so a handle is never stuck behind a broker that is away. What
//! decides is `core.rs`, a pure machine that the simulator drives as well; this and `pump.rs` drive
//! it over a socket.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use waybill_wire::code::Role;

use crate::link::{LinkError, LinkErrorKind, LinkState};
use crate::machine::Machine;
use crate::options::{Options, OptionsError};
use crate::outlet::Outlet;

mod control;
mod core;
mod dial;
mod pump;
mod reconnect;
mod transport;

pub(crate) use control::Control;
pub(crate) use core::LinkCore;
use dial::dial;
use reconnect::Reconnect;
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
    core: LinkCore<M>,
    outlet: O,
    commands: mpsc::Receiver<M::Command>,
    taken: Vec<M::Command>,
    closing: watch::Receiver<bool>,
    state: watch::Sender<LinkState>,
    options: Options,
    /// Attempts made.
    turn: usize,
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
        let (connection, control) = Self::new(options, identity, machine, commands, outlet);
        tokio::spawn(connection.run());
        Ok(control)
    }

    /// Starts the task after a time, with options and an identity of a connection that was started.
    pub(crate) fn start_after(
        delay: Duration,
        options: Options,
        identity: Identity,
        machine: M,
        commands: mpsc::Receiver<M::Command>,
        outlet: O,
    ) -> AbortHandle {
        let (connection, control) = Self::new(options, identity, machine, commands, outlet);
        let task = async move {
            // With it would go the wish to close.
            let _control = control;
            sleep(delay).await;
            connection.run().await;
        };
        tokio::spawn(task).abort_handle()
    }

    fn new(
        options: Options,
        identity: Identity,
        machine: M,
        commands: mpsc::Receiver<M::Command>,
        outlet: O,
    ) -> (Self, Control) {
        let (state, states) = watch::channel(LinkState::Connecting);
        let (close, closing) = watch::channel(false);
        let connection = Self {
            core: LinkCore::new(machine, identity, &options),
            outlet,
            commands,
            taken: Vec::with_capacity(COMMANDS_PER_TURN),
            closing,
            state,
            options,
            turn: 0,
        };
        (connection, Control::new(states, close))
    }

    /// Attempts until the owner closes or the broker says something final.
    async fn run(mut self) {
        loop {
            let address = self.core.connecting();
            self.publish_state();
            let error = self.attempt(&address).await;
            let now = Instant::now().into_std();
            let Some(retry_in) = self.core.down(now, &error, rand::random()) else {
                return self.finish(error).await;
            };
            self.publish_state();
            if self.tend(sleep(retry_in)).await.is_none() {
                let error = LinkError::new(LinkErrorKind::Closed, &address);
                return self.finish(error).await;
            }
        }
    }

    fn publish_state(&mut self) {
        if let Some(state) = self.core.state_news() {
            self.state.send_replace(state);
        }
    }

    /// Tells everyone who still waits that it is over.
    async fn finish(mut self, error: LinkError) {
        self.commands.close();
        let now = Instant::now().into_std();
        while let Ok(command) = self.commands.try_recv() {
            self.core.command(now, command);
        }
        self.core.finish(now, &error);
        // The last events are worth a wait: one of them says why it is over.
        let patience = Instant::now() + self.options.close_timeout;
        loop {
            self.flush_events();
            if !self.core.is_held() || self.outlet.is_gone() {
                break;
            }
            if timeout_at(patience, self.outlet.room()).await.is_err() {
                break;
            }
        }
        self.publish_state();
    }

    /// One attempt, and the link if it becomes one; returns why it ended.
    async fn attempt(&mut self, address: &Arc<str>) -> LinkError {
        let until = Instant::now() + self.options.connect_timeout;
        let entry = Arc::clone(address);
        let round = self.turn / self.options.brokers.len();
        let connect = timeout_at(until, dial(&entry, round));
        self.turn = self.turn.wrapping_add(1);
        let unreachable = LinkErrorKind::Unreachable;
        match self.tend(connect).await {
            None => LinkError::new(LinkErrorKind::Closed, address),
            Some(Err(_)) => LinkError::new(unreachable, address).with_detail("no answer in time"),
            Some(Ok(Err(error))) => LinkError::new(unreachable, address).with_source(error),
            Some(Ok(Ok((stream, address)))) => match Transport::new(stream) {
                Err(error) => LinkError::new(LinkErrorKind::Lost, &address).with_source(error),
                Ok(transport) => {
                    let now = Instant::now().into_std();
                    match self.core.open(now, &address, until.into_std()) {
                        Ok(()) => self.pump(transport).await,
                        Err(error) => error,
                    }
                }
            },
        }
    }

    /// Serves commands and events until `wait` is over; `None` if the task may leave before.
    async fn tend<T>(&mut self, wait: impl Future<Output = T>) -> Option<T> {
        let mut wait = pin!(wait);
        loop {
            self.flush_events();
            let now = Instant::now().into_std();
            // Without a link only the machine has something due by time.
            let _none = self.core.advance(now);
            if self.core.may_leave(now) {
                return None;
            }
            let (closing, deadline) = (self.core.close_at().is_some(), self.core.deadline(now));
            tokio::select! {
                done = &mut wait => return Some(done),
                () = self.outlet.room(), if self.core.is_held() => {}
                count = self.commands.recv_many(&mut self.taken, COMMANDS_PER_TURN),
                    if self.core.wants_commands() =>
                {
                    self.take_commands(count);
                }
                Ok(()) = self.closing.changed(), if !closing => self.begin_close(),
                () = until(deadline.map(Instant::from_std)) => {}
            }
        }
    }

    /// Takes over what `recv_many` brought; 0 says that no more will come.
    fn take_commands(&mut self, count: usize) {
        let now = Instant::now().into_std();
        for command in self.taken.drain(..) {
            self.core.command(now, command);
        }
        if count == 0 {
            self.core.end_commands(now);
        }
    }

    /// The owner closed the link, or dropped every handle.
    fn begin_close(&mut self) {
        self.commands.close();
        self.core.begin_close(Instant::now().into_std());
    }

    /// Hands events out as long as they are taken.
    fn flush_events(&mut self) {
        if self.outlet.is_gone() {
            self.begin_close();
        }
        while let Some(event) = self.core.poll_event() {
            if let Err(event) = self.outlet.offer(event) {
                self.core.hold(event);
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

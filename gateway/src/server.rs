//! The gateway as a running thing: listener, HTTP, tasks, and the order in which they end.
//!
//! ```text
//! accept task --> one task per socket: HTTP, then perhaps a WebSocket `Connection`
//!                    | mailbox (bounded)          ^ outbox (bounded in bytes)
//!                    v                            |
//!                 switchboard task  <-- events --  broker links
//! ```
//!
//! Ending: drain is said to every connection, each closes at its own moment of the window; when the
//! last has gone the switchboard withdraws what is left and the links close.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};
use waybill_client::gateway::GatewayEvent;
use waybill_client::{OptionsError, Resolver, SystemResolver};

use crate::auth::Verifier;
use crate::clock::Clock;
use crate::config::{ConfigError, GatewayConfig};
use crate::http;
use crate::links::{Links, News, Next, Said};
use crate::session::SessionLimits;
use crate::shortage::{LOOKED_AT_ONCE, Shortage, Stuck};
use crate::switchboard::{Arrived, FromConnection, Switchboard};
use crate::telemetry::{GatewayStats, Telemetry};
use crate::transports::liveness::Liveness;
use crate::transports::origin::Origin;
use crate::transports::{Outbox, QueueShared, Word};

/// Words of connections that wait for the switchboard; beyond, sockets are not read.
const MAILBOX_MAX: usize = 4096;

/// Words taken in one turn: enough to share a frame of registrations, few enough that deliveries do
/// not wait long.
const TURN_MAX: usize = 256;

/// How soon a link that was behind is offered its changes again.
const OFFER_AGAIN: Duration = Duration::from_millis(5);

/// How soon all connections are looked at again when nobody had to go and too much is still held.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A gateway: see [`Gateway::start`].
#[derive(Debug)]
pub struct Gateway;

/// Why a gateway did not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value of the configuration is not allowed.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The client crate does not accept what follows from the configuration.
    #[error("broker link: {0}")]
    Options(#[from] OptionsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// What all tasks of a gateway share.
pub(crate) struct Shared {
    pub(crate) verifier: Verifier,
    pub(crate) clock: Clock,
    pub(crate) session_limits: Arc<SessionLimits>,
    pub(crate) connections_max: usize,
    pub(crate) allowed_origins: Vec<Origin>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) queues: Arc<QueueShared>,
    pub(crate) mailbox: mpsc::Sender<FromConnection>,
    pub(crate) liveness: Liveness,
    drain_ms: u64,
    live: Mutex<Live>,
    emptied: Notify,
    /// Set when connections are to be told to go.
    draining: AtomicBool,
}

/// The WebSocket connections there are, logged in or not.
#[derive(Default)]
struct Live {
    outboxes: Slab<Arc<Outbox>>,
}

impl Gateway {
    /// Starts a gateway and returns once it listens; brokers are linked in the background.
    /// `extra_routes` are served beside `/ws` and `/healthz`.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left running.
    ///
    /// # Panics
    ///
    /// If `extra_routes` has one of the two paths. Outside a tokio runtime.
    pub async fn start(
        config: GatewayConfig,
        extra_routes: Option<axum::Router>,
    ) -> Result<GatewayHandle, StartError> {
        Self::start_with(config, extra_routes, Arc::new(SystemResolver)).await
    }

    /// As [`start`](Self::start), with another way to look up names of brokers.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: GatewayConfig,
        extra_routes: Option<axum::Router>,
        resolver: Arc<dyn Resolver>,
    ) -> Result<GatewayHandle, StartError> {
        config.validate()?;
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let (mailbox, inbox) = mpsc::channel(MAILBOX_MAX);
        let shared = Arc::new(Shared::new(&config, mailbox));
        let queues = Arc::clone(&shared.queues);
        let mut switchboard = Switchboard::new(&config, 0, rand::random(), queues);
        let mut links = Links::new(&config, resolver);
        // Those that need no look-up.
        while let Some(found) = links.found() {
            links.follow(found, &mut switchboard)?;
        }

        let (stop, stopped) = watch::channel(Stage::Running);
        let router = http::router(Arc::clone(&shared), extra_routes);
        let accepting = http::accept(listener, Arc::clone(&shared), router, stopped.clone());
        let accepting = tokio::spawn(accepting);
        let stop = Arc::new(stop);
        let running = Running {
            switchboard,
            links,
            inbox,
            shared: Arc::clone(&shared),
            stop: stopped.clone(),
            shortage: None,
        };
        tokio::spawn(running.run(accepting, Arc::clone(&stop)));
        info!(%local_addr, "gateway listens");
        Ok(GatewayHandle { local_addr, shared, stop, stopped })
    }
}

/// How far a gateway has come on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Running,
    /// No connection is left; the switchboard withdraws what it registered.
    Empty,
    Closed,
}

/// A running gateway. Cloning gives another handle; dropping all of them does not stop it.
#[derive(Clone)]
pub struct GatewayHandle {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    stop: Arc<watch::Sender<Stage>>,
    stopped: watch::Receiver<Stage>,
}

impl GatewayHandle {
    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        self.shared.stats()
    }

    /// Sends every user away over the drain window, then stops. Returns at once; see
    /// [`closed`](Self::closed). A second call changes nothing.
    pub fn drain(&self) {
        if self.shared.drain() {
            info!("gateway drains");
            let (shared, stop) = (Arc::clone(&self.shared), Arc::clone(&self.stop));
            tokio::spawn(async move {
                shared.emptied().await;
                stop.send_replace(Stage::Empty);
            });
        }
    }

    /// Waits until the gateway has stopped and its links are closed.
    pub async fn closed(&self) {
        let mut stopped = self.stopped.clone();
        // An error means that the other end is gone, which is as closed as can be.
        let _ = stopped.wait_for(|stage| *stage == Stage::Closed).await;
    }
}

impl std::fmt::Debug for GatewayHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayHandle")
            .field("local_addr", &self.local_addr)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(config: &GatewayConfig, mailbox: mpsc::Sender<FromConnection>) -> Self {
        let telemetry = Arc::<Telemetry>::default();
        let origins = config.allowed_origins.iter().filter_map(|origin| Origin::parse(origin));
        Self {
            verifier: config.verifier(),
            clock: Clock::new(),
            session_limits: Arc::new(config.session_limits()),
            connections_max: config.limits.connections_max,
            allowed_origins: origins.collect(),
            queues: Arc::new(QueueShared::new(&config.limits, Arc::clone(&telemetry))),
            telemetry,
            mailbox,
            liveness: Liveness {
                keepalive_ms: config.deadlines.tcp_keepalive_ms,
                user_timeout_ms: config.deadlines.tcp_user_timeout_ms,
            },
            drain_ms: config.deadlines.drain_ms,
            live: Mutex::default(),
            emptied: Notify::new(),
            draining: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self) -> GatewayStats {
        self.telemetry.snapshot(self.connections(), self.queues.pool.held())
    }

    /// The ledger as fields, and a word if it is wrong.
    fn log_ledger(&self) {
        let stats = self.stats();
        if let Err(wrong) = stats.balances() {
            warn!(%wrong, "the ledger does not balance");
        }
        info!(ledger = %serde_json::json!(stats), "gateway stopped");
    }

    /// Begins a shortage, goes on with it, or ends it.
    fn attend(&self, shortage: &mut Option<Shortage>, is_over: bool, now_ms: u64) {
        if is_over {
            self.relieve(shortage.get_or_insert_with(|| Shortage::new(now_ms)), now_ms);
        } else if self.queues.pool.has_room() {
            *shortage = None;
        } else if let Some(shortage) = shortage
            // What is over only now and then would be looked at from the start each time; and while
            // some are in line the next messages would be as much too many again.
            && shortage.is_begun()
        {
            self.relieve(shortage, now_ms);
        }
    }

    /// Looks at some more connections while too much is held; after all were looked at, tells some
    /// more of those to go that hold it up.
    fn relieve(&self, shortage: &mut Shortage, now_ms: u64) {
        let pool = &self.queues.pool;
        shortage.is_waiting = false;
        if !pool.is_settled() {
            return;
        }
        let is_over = pool.is_over();
        let outboxes = &self.live().outboxes;
        if let Some(from) = shortage.from() {
            let upto = outboxes.capacity().min(from + LOOKED_AT_ONCE);
            for key in from..upto {
                let stuck = outboxes.get(key).and_then(|outbox| outbox.stuck());
                if let Some(stuck) = stuck.filter(|it| shortage.may_end(*it, is_over, now_ms)) {
                    shortage.note(stuck, key);
                }
            }
            let is_all = upto == outboxes.capacity();
            shortage.looked(upto, is_all);
            if !is_all {
                return;
            }
        }
        if !shortage.rank() {
            return;
        }
        let part = shortage.next_part(pool);
        let part = part.into_iter().filter_map(|key| outboxes.get(key));
        // Since the look one may have got on, or another have come to its place.
        let may_end = |stuck: Stuck| shortage.may_end(stuck, is_over, now_ms);
        let still = part.filter_map(|outbox| {
            let stuck = outbox.stuck().filter(|stuck| may_end(*stuck))?;
            outbox.send_away();
            Some(stuck.bytes)
        });
        let bytes = still.sum();
        shortage.told(bytes);
    }

    fn connections(&self) -> usize {
        self.live().outboxes.len()
    }

    /// Notes a connection, and tells it to go if it came too late. Gives the key that takes it off
    /// again, and whether it is within `connections_max`.
    pub(crate) fn enter(&self, outbox: &Arc<Outbox>) -> (usize, bool) {
        let mut live = self.live();
        let fits = live.outboxes.len() < self.connections_max;
        let key = live.outboxes.insert(Arc::clone(outbox));
        if self.is_draining() {
            outbox.say(Word::drain(key, self.drain_ms));
        }
        (key, fits)
    }

    pub(crate) fn leave(&self, key: usize) {
        let mut live = self.live();
        live.outboxes.remove(key);
        if live.outboxes.is_empty() {
            drop(live);
            self.emptied.notify_waiters();
        }
    }

    /// Whether this call is the one that began it.
    fn drain(&self) -> bool {
        let live = self.live();
        if self.draining.swap(true, Ordering::Relaxed) {
            return false;
        }
        for (key, outbox) in &live.outboxes {
            outbox.say(Word::drain(key, self.drain_ms));
        }
        true
    }

    /// Waits until no connection is left.
    async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            // Listening before looking: a connection may leave in between.
            emptied.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            emptied.await;
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The switchboard's task.
struct Running {
    switchboard: Switchboard,
    links: Links,
    inbox: mpsc::Receiver<FromConnection>,
    shared: Arc<Shared>,
    stop: watch::Receiver<Stage>,
    /// Since too much was held: a look at all connections for those who are to go.
    shortage: Option<Shortage>,
}

impl Running {
    async fn run(mut self, accepting: JoinHandle<()>, stop: Arc<watch::Sender<Stage>>) {
        while self.turn().await {}
        // Nobody is connected any more; what connections said last is still in the mailbox.
        while let Ok(event) = self.inbox.try_recv() {
            self.switchboard.handle_connection(event, self.shared.clock.ms());
        }
        // Nobody is left for it to be handed to.
        while self.switchboard.is_unfinished() {
            self.go_on();
        }
        let commands = self.switchboard.commands();
        let Self { mut switchboard, links, shared, .. } = self;
        let heard = |(link, event): Said| match event {
            Some(event) => hear(&mut switchboard, &shared.clock, link, event),
            None => switchboard.link_gone(link),
        };
        links.close(commands, heard).await;
        while switchboard.is_unfinished() {
            let _freed = switchboard.go_on(shared.clock.ms());
        }
        // Nobody is left to tell; the counters are those of the end.
        let _untold = switchboard.commands();
        // Closed means that the address is free again. An error is a panic, which ends it as well.
        let _ = accepting.await;
        shared.log_ledger();
        stop.send_replace(Stage::Closed);
    }

    /// Waits for something to happen, handles it and what has happened with it, and tells the
    /// links. False when the gateway is to end.
    async fn turn(&mut self) -> bool {
        let mut words = Vec::new();
        let until = self.switchboard.deadline_ms().map(|ms| self.shared.clock.instant(ms));
        let behind = self.switchboard.has_changes();
        let unfinished = self.switchboard.is_unfinished();
        let pressed = self.shared.queues.pressure.is_on();
        let is_over = self.shared.queues.pool.is_over();
        let is_waiting = is_over && self.shortage.as_ref().is_some_and(|it| it.is_waiting);
        let is_relieved = match is_over {
            true => !is_waiting,
            false => self.shortage.as_ref().is_some_and(Shortage::is_begun),
        };
        tokio::select! {
            () = emptied(&mut self.stop) => return false,
            _ = self.inbox.recv_many(&mut words, TURN_MAX), if !self.switchboard.is_behind() => {
                let now_ms = self.shared.clock.ms();
                for word in words {
                    self.switchboard.handle_connection(word, now_ms);
                }
            }
            next = self.links.next(!pressed && !is_over) => self.handle_next(next),
            () = self.shared.queues.pressure.eased(), if pressed => {}
            () = self.shared.queues.settled.filled() => {}
            () = self.shared.queues.pool.wanted() => {}
            () = sleep_until(until), if until.is_some() => {
                self.switchboard.tick(self.shared.clock.ms());
            }
            () = tokio::time::sleep(OFFER_AGAIN), if behind => {}
            () = tokio::time::sleep(LOOK_AGAIN), if is_waiting => {}
            // Connections are polled meanwhile, and whatever has come is taken first.
            () = tokio::task::yield_now(),
                if is_relieved || (unfinished && !pressed) => {}
        }
        if is_over || self.shortage.is_some() {
            self.shared.attend(&mut self.shortage, is_over, self.shared.clock.ms());
        }
        self.shared.queues.pool.ease();
        if unfinished && !self.shared.queues.pressure.is_on() {
            self.go_on();
        }
        self.links.leave_unlisted(&mut self.switchboard);
        self.links.tell(&mut self.switchboard);
        true
    }

    fn handle_next(&mut self, next: Next) {
        match next {
            Next::Said(said) => self.handle_events(said),
            Next::Found(found) => {
                opened(self.links.follow(found, &mut self.switchboard));
            }
        }
    }

    /// Another part of what is not done (SEC-24).
    fn go_on(&mut self) {
        if let Some(link) = self.switchboard.go_on(self.shared.clock.ms()) {
            self.links.hold(link, false);
        }
    }

    /// Handles an event, and what has arrived with it, so that it is written together; no more once
    /// a connection has to look at its queue first, too much is held, or as much was done as may be
    /// in one turn.
    fn handle_events(&mut self, said: Said) {
        self.handle_event(said);
        for _ in 1..TURN_MAX {
            let queues = &self.shared.queues;
            if queues.pressure.is_on() || queues.pool.is_over() || self.switchboard.is_spent() {
                return;
            }
            let Some(said) = self.links.said() else { return };
            self.handle_event(said);
        }
    }

    fn handle_event(&mut self, (link, event): Said) {
        let Some(event) = event else {
            let gone = self.links.gone(link, &mut self.switchboard);
            self.switchboard.link_gone(link);
            return opened(gone);
        };
        let news = News::of(&event);
        hear(&mut self.switchboard, &self.shared.clock, link, event);
        if self.switchboard.is_held(link) {
            self.links.hold(link, true);
        }
        if let Some(news) = news {
            opened(self.links.heard(link, &news, &mut self.switchboard));
        }
    }
}

/// What a link says goes to the switchboard.
fn hear(switchboard: &mut Switchboard, clock: &Clock, link: usize, event: GatewayEvent) {
    let received = match &event {
        GatewayEvent::Delivery(delivery) => Some((delivery.begun_at(), delivery.received_at())),
        _ => None,
    };
    let waited_ms = received.map_or(0, |(begun, _)| Clock::since_ms(begun));
    let at =
        Arrived { waited_ms, wall_us: &|| received.map_or(0, |(_, whole)| Clock::wall_us(whole)) };
    switchboard.handle_link(link, event, at, clock.ms());
}

/// Those that were found at the start had the same options.
fn opened(link: Result<(), OptionsError>) {
    if let Err(error) = link {
        error!(%error, "cannot link to a broker");
    }
}

async fn emptied(stop: &mut watch::Receiver<Stage>) {
    // An error means that nobody is left to say so.
    let _ = stop.wait_for(|stage| *stage >= Stage::Empty).await;
}

async fn sleep_until(until: Option<tokio::time::Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;

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

use futures_util::FutureExt as _;
use futures_util::stream::{SelectAll, StreamExt as _};
use slab::Slab;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::info;
use waybill_client::gateway::{GatewayEvent, GatewayEvents, GatewayLink};
use waybill_client::{Options, OptionsError};

use crate::auth::Verifier;
use crate::clock::Clock;
use crate::config::{ConfigError, GatewayConfig};
use crate::http;
use crate::session::SessionLimits;
use crate::switchboard::{FromConnection, Switchboard};
use crate::telemetry::{GatewayStats, Telemetry};
use crate::transports::origin::Origin;
use crate::transports::{Outbox, QueueShared, Word};

/// Words of connections that wait for the switchboard; beyond, sockets are not read.
const MAILBOX_MAX: usize = 4096;

/// Words taken in one turn: enough to share a frame of registrations, few enough that deliveries do
/// not wait long.
const TURN_MAX: usize = 256;

/// How soon a link that was behind is offered its changes again.
const OFFER_AGAIN: Duration = Duration::from_millis(5);

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
        config.validate()?;
        let listen = |source| StartError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let local_addr = listener.local_addr().map_err(listen)?;
        let links = Links::start(&config)?;

        let (mailbox, inbox) = mpsc::channel(MAILBOX_MAX);
        let shared = Arc::new(Shared::new(&config, mailbox));
        let queues = Arc::clone(&shared.queues);
        let switchboard = Switchboard::new(&config, links.handles.len(), rand::random(), queues);

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
            queues: Arc::new(QueueShared::new(
                config.limits.queue_bytes_max,
                Arc::clone(&telemetry),
            )),
            telemetry,
            mailbox,
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
        self.telemetry.snapshot(self.connections())
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

/// The links to all brokers. Each is told everything; any may deliver (DESIGN 8).
struct Links {
    handles: Vec<GatewayLink>,
    events: SelectAll<futures_util::stream::BoxStream<'static, (usize, GatewayEvent)>>,
}

impl Links {
    fn start(config: &GatewayConfig) -> Result<Self, OptionsError> {
        // One life, one incarnation, on every link; 0 is not one.
        let incarnation = rand::random::<u64>().max(1);
        let mut links = Self { handles: Vec::new(), events: SelectAll::new() };
        for (number, address) in config.broker.addresses.iter().enumerate() {
            let mut options = Options::new([address.as_str()]);
            if !config.broker.token.is_empty() {
                options = options.token(&config.broker.token);
            }
            options.max_in_flight = config.limits.uplinks_max;
            let (link, events): (GatewayLink, GatewayEvents) =
                GatewayLink::start(options, incarnation)?;
            links.handles.push(link);
            links.events.push(events.map(move |event| (number, event)).boxed());
        }
        Ok(links)
    }
}

/// The switchboard's task.
struct Running {
    switchboard: Switchboard,
    links: Links,
    inbox: mpsc::Receiver<FromConnection>,
    shared: Arc<Shared>,
    stop: watch::Receiver<Stage>,
}

impl Running {
    async fn run(mut self, accepting: JoinHandle<()>, stop: Arc<watch::Sender<Stage>>) {
        while self.turn().await {}
        // Nobody is connected any more; what connections said last is still in the mailbox.
        while let Ok(event) = self.inbox.try_recv() {
            self.switchboard.handle_connection(event, self.shared.clock.ms());
        }
        for (link, command) in self.switchboard.commands() {
            // A link that is gone has nothing registered either.
            let _ = self.links.handles[link].command(command).await;
        }
        for link in &self.links.handles {
            link.close().await;
        }
        // Closed means that the address is free again. An error is a panic, which ends it as well.
        let _ = accepting.await;
        info!(ledger = ?self.shared.stats(), "gateway stopped");
        stop.send_replace(Stage::Closed);
    }

    /// Waits for something to happen, handles it and what has happened with it, and tells the
    /// links. False when the gateway is to end.
    async fn turn(&mut self) -> bool {
        let mut words = Vec::new();
        let until = self.switchboard.deadline_ms().map(|ms| self.shared.clock.instant(ms));
        let behind = self.switchboard.has_changes();
        let pressed = self.shared.queues.pressure.is_on();
        tokio::select! {
            () = emptied(&mut self.stop) => return false,
            _ = self.inbox.recv_many(&mut words, TURN_MAX), if !self.switchboard.is_behind() => {
                let now_ms = self.shared.clock.ms();
                for word in words {
                    self.switchboard.handle_connection(word, now_ms);
                }
            }
            Some((link, event)) = self.links.events.next(), if !pressed => {
                self.handle_events(link, event);
            }
            () = self.shared.queues.pressure.eased(), if pressed => {}
            () = self.shared.queues.settled.filled() => {}
            () = sleep_until(until), if until.is_some() => {
                self.switchboard.tick(self.shared.clock.ms());
            }
            () = tokio::time::sleep(OFFER_AGAIN), if behind => {}
        }
        self.tell_links();
        true
    }

    /// Handles an event, and what has arrived with it, so that it is written together; no more once
    /// a connection has to look at its queue first.
    fn handle_events(&mut self, link: usize, event: GatewayEvent) {
        self.handle_event(link, event);
        for _ in 1..TURN_MAX {
            if self.shared.queues.pressure.is_on() {
                return;
            }
            let Some(Some((link, event))) = self.links.events.next().now_or_never() else { return };
            self.handle_event(link, event);
        }
    }

    fn handle_event(&mut self, link: usize, event: GatewayEvent) {
        let waited_ms = match &event {
            GatewayEvent::Delivery(delivery) => Clock::since_ms(delivery.received_at()),
            _ => 0,
        };
        self.switchboard.handle_link(link, event, waited_ms, self.shared.clock.ms());
    }

    fn tell_links(&mut self) {
        for (link, command) in self.switchboard.commands() {
            match self.links.handles[link].try_command(command) {
                Ok(()) => {}
                Err(TrySendError::Full(command)) => self.switchboard.not_taken(link, command),
                Err(TrySendError::Closed(command)) => self.switchboard.link_gone(link, command),
            }
        }
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

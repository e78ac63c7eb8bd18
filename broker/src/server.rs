//! Starting and stopping a broker on either backend with threads: listener, acceptor, shards.
//!
//! Connections are dealt to the shards in turn, by one thread for all: links are few and stand for
//! long, so it does next to nothing, and the system would deal them by the hash of their addresses,
//! which leaves shards of a few links uneven. Never: frames, what a shard decides.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::admin::Admin;
use crate::config::{BrokerConfig, ConfigError};
use crate::io::choice::{self, Backend, Opened, Unavailable};
use crate::io::orders::{ORDERS_WAITING_MAX, Order};
use crate::io::socket::SignsOfLife;
use crate::io::tokio as portable;
#[cfg(target_os = "linux")]
use crate::io::uring;
use crate::ledger::{Counters, Ledger};
use crate::shard::Shard;
use crate::shared::Shared;

/// Connections the kernel may hold that were not accepted yet. The kernel lowers it to
/// `net.core.somaxconn`, 4096 on a current Linux.
const BACKLOG: i32 = 4096;

/// Pause after the process ran out of file descriptors or memory for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The setting that has it: `listen` or `admin_listen`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// io_uring was asked for by name.
    #[error("io_uring cannot be used here: {0}")]
    Uring(#[from] Unavailable),
    /// A thread or its event loop could not be made.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A shard ended by a panic: its links are gone, and what it shares may be wrong.
#[derive(Debug, thiserror::Error)]
#[error("a shard of the broker failed; its log says why")]
pub struct ShardFailed;

/// A running broker. Dropping the handle tells it to stop without waiting for anybody.
#[derive(Debug)]
pub struct BrokerHandle {
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    backend: Backend,
    counters: Vec<Arc<Counters>>,
    stop: watch::Sender<Option<u32>>,
    // One word from each thread at its end, and how many have yet to say it.
    ends: mpsc::Receiver<End>,
    running: usize,
}

/// The door.
#[derive(Debug)]
pub struct Broker;

impl Broker {
    /// Starts a broker and returns when it listens.
    ///
    /// # Errors
    ///
    /// A setting that cannot be used, an address that cannot be listened on, io_uring asked for by
    /// name where it cannot be used, or no more threads.
    pub fn start(config: BrokerConfig) -> Result<BrokerHandle, StartError> {
        config.validate()?;
        let listen = config.listen;
        let (listener, local_addr) = bind("listen", listen)?;
        let admin = config.admin_address()?;
        let admin = admin.map(|address| bind("admin_listen", address)).transpose()?;
        let admin_addr = admin.as_ref().map(|(_, address)| *address);
        let (opened, backend) = choice::open(config.io, config.shards)?;
        let shared = Arc::new(Shared::new(config, random_number(), random_number()));
        let brains: Vec<Shard> =
            (0..shared.config.shards).map(|id| Shard::new(id, Arc::clone(&shared))).collect();
        let counters: Vec<_> = brains.iter().map(|brain| Arc::clone(brain.counters())).collect();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            brains.iter().map(|_| mpsc::channel(ORDERS_WAITING_MAX)).unzip();
        let (stop, stopping) = watch::channel(None);
        if let Some((listener, _)) = admin {
            let admin = Admin::new(
                Arc::clone(&shared),
                backend.clone(),
                counters.clone(),
                stop.subscribe(),
            );
            spawn("waybill-admin".into(), None, move || admin.serve(listener))?;
        }
        let running = brains.len() + 1;
        let (end, ends) = mpsc::channel(running);
        let shards = Shards {
            signs_of_life: SignsOfLife::new(&shared.config),
            senders: senders.clone(),
            end: end.clone(),
            started: Instant::now(),
        };
        shards.spawn(opened, brains.into_iter().zip(receivers))?;
        spawn("waybill-accept".into(), Some(end), move || accept(listener, senders, stopping))?;
        info!(%local_addr, shards = shared.config.shards, "broker listens");
        Ok(BrokerHandle { local_addr, admin_addr, shared, backend, counters, stop, ends, running })
    }
}

impl BrokerHandle {
    /// The address it listens on, with the port it got.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it tells health and ledger, if it does.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// What moves the bytes, and why that.
    #[must_use]
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// Begins to stop: nobody is accepted any more, links are asked to leave and are ended after
    /// the configured `drain_ms`. Await [`BrokerHandle::stopped`] for the end.
    pub fn drain(&self) {
        self.stop.send_replace(Some(self.shared.config.drain_ms));
    }

    /// Waits until every thread has ended, or the first has failed.
    ///
    /// # Errors
    ///
    /// As soon as one of them ends by a panic: what the others do from then on is not worth much.
    pub async fn stopped(&mut self) -> Result<(), ShardFailed> {
        while self.running > 0 {
            match self.ends.recv().await {
                Some(End::Done) => self.running -= 1,
                Some(End::Panicked) | None => return Err(ShardFailed),
            }
        }
        Ok(())
    }

    /// What its shards counted.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(self.counters.iter().map(Arc::as_ref))
    }

    /// What its shards share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

/// Listens, and the address with the port it got.
fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = listen(address).and_then(|listener| {
        let local_addr = listener.local_addr()?;
        Ok((listener, local_addr))
    });
    bound.map_err(|source| StartError::Listen { key, address, source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart need not wait for the last life's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A number that differs from life to life and from call to call, from the keys std draws for its
/// hash maps; not 0.
fn random_number() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()).max(1)
}

/// How a thread ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Panicked,
}

/// Says how its thread ended, whichever way it does.
struct Goodbye(mpsc::Sender<End>);

impl Drop for Goodbye {
    fn drop(&mut self) {
        let end = if std::thread::panicking() { End::Panicked } else { End::Done };
        // There is a place for each thread; nobody may be left to hear it.
        let _ = self.0.try_send(end);
    }
}

/// What all shards' threads are given.
struct Shards {
    signs_of_life: SignsOfLife,
    senders: Vec<mpsc::Sender<Order>>,
    end: mpsc::Sender<End>,
    started: Instant,
}

impl Shards {
    fn spawn(
        self,
        opened: Opened,
        brains: impl Iterator<Item = (Shard, mpsc::Receiver<Order>)>,
    ) -> Result<(), StartError> {
        let Self { signs_of_life, senders, end, started } = self;
        let named = brains.enumerate().map(|(id, (brain, orders))| {
            (format!("waybill-shard-{id}"), Some(end.clone()), brain, orders, senders.clone())
        });
        match opened {
            Opened::Tokio => {
                for (name, end, brain, orders, others) in named {
                    spawn(name, end, move || async move {
                        let shard = portable::run(brain, signs_of_life, orders, others, started);
                        tokio::task::LocalSet::new().run_until(shard).await;
                    })?;
                }
            }
            #[cfg(target_os = "linux")]
            Opened::Uring(rings) => {
                for ((name, end, brain, orders, others), ring) in named.zip(rings) {
                    thread(name, end, move || {
                        uring::run(brain, ring, signs_of_life, orders, others, started);
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn spawn<F: Future<Output = ()>>(
    name: String,
    end: Option<mpsc::Sender<End>>,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Thread)?;
    thread(name, end, move || runtime.block_on(work()))
}

fn thread(
    name: String,
    end: Option<mpsc::Sender<End>>,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), StartError> {
    let body = move || {
        let _goodbye = end.map(Goodbye);
        work();
    };
    std::thread::Builder::new().name(name).spawn(body).map(drop).map_err(StartError::Thread)
}

async fn accept(
    listener: TcpListener,
    shards: Vec<mpsc::Sender<Order>>,
    mut stopping: watch::Receiver<Option<u32>>,
) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "the listener cannot be watched"),
    };
    let deadline_ms = tokio::select! {
        () = deal(&listener, &shards) => 0,
        // Without a handle nobody can ask for an end any more, so this is it.
        stop = stopping.wait_for(Option::is_some) => stop.ok().and_then(|stop| *stop).unwrap_or(0),
    };
    drop(listener);
    for shard in &shards {
        // A shard that has ended takes no orders.
        let _ = shard.send(Order::Drain(deadline_ms)).await;
    }
}

async fn deal(listener: &tokio::net::TcpListener, shards: &[mpsc::Sender<Order>]) {
    for shard in shards.iter().cycle() {
        let stream = loop {
            match listener.accept().await.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => break stream,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        if shard.send(Order::Accept(stream)).await.is_err() {
            return;
        }
    }
}

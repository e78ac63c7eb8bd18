//! The portable backend: one thread per shard, each with a tokio runtime of its own.
//!
//! Two small tasks per link do what the brain ordered, one read and one write at a time, and put
//! the completion into the shard's queue. The shard's loop feeds what is queued to the brain and
//! carries out its orders. Never: policy, frames.
//!
//! The queue needs no bound of its own: a link has at most one read and one write on its way.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, spawn_local};
use tracing::{debug, warn};

use crate::config::BrokerConfig;
use crate::io::{Input, LinkId, Output, wall};
use crate::limits::TICK_MS;
use crate::mail::Mail;
use crate::shard::Shard;

/// Orders from outside a shard that may wait for it. Mail beyond it waits with its sender.
pub const ORDERS_WAITING_MAX: usize = 1024;

/// Inputs the brain is given before its outputs are carried out. Large enough to batch, small
/// enough that no link waits for more than this many others.
const INPUTS_PER_TURN: usize = 256;

/// What a shard is told from outside its thread.
#[derive(Debug)]
pub enum Order {
    /// Serve this connection.
    Accept(std::net::TcpStream),
    /// Mail from another shard.
    Mail(Mail),
    /// Let the links leave within that many milliseconds, then end.
    Drain(u32),
}

#[derive(Default)]
struct Queue {
    inputs: RefCell<VecDeque<Input>>,
    ready: Notify,
}

impl Queue {
    fn push(&self, input: Input) {
        self.inputs.borrow_mut().push_back(input);
        self.ready.notify_one();
    }

    fn pop(&self) -> Option<Input> {
        self.inputs.borrow_mut().pop_front()
    }
}

enum WriteOrder {
    Bytes(Vec<u8>),
    Shutdown,
}

struct LinkIo {
    reads: mpsc::Sender<Vec<u8>>,
    writes: mpsc::Sender<WriteOrder>,
    tasks: [AbortHandle; 2],
}

impl Drop for LinkIo {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What the system itself does to notice that a peer is gone. The protocol's PING is quicker; this
/// is for where it does not count: a link that is not read, and one whose keepalive is off.
#[derive(Clone, Copy, Debug)]
pub struct SignsOfLife {
    /// Idle time before the first probe; zero: no probes.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged; zero: the system's own.
    pub user_timeout: Duration,
}

impl SignsOfLife {
    /// As configured.
    #[must_use]
    pub fn new(config: &BrokerConfig) -> Self {
        Self {
            keepalive: Duration::from_millis(config.tcp_keepalive_ms.into()),
            user_timeout: Duration::from_millis(config.tcp_user_timeout_ms.into()),
        }
    }

    fn ask_of(self, stream: &std::net::TcpStream) -> std::io::Result<()> {
        let socket = socket2::SockRef::from(stream);
        if !self.keepalive.is_zero() {
            let probes = socket2::TcpKeepalive::new()
                .with_time(self.keepalive)
                .with_interval((self.keepalive / PROBES).max(Duration::from_secs(1)))
                .with_retries(PROBES);
            socket.set_tcp_keepalive(&probes)?;
        }
        #[cfg(target_os = "linux")]
        if !self.user_timeout.is_zero() {
            socket.set_tcp_user_timeout(Some(self.user_timeout))?;
        }
        Ok(())
    }
}

/// Unanswered probes after which the system ends a connection.
const PROBES: u32 = 3;

/// Runs one shard until it is drained. To be called inside a `LocalSet`. Times are counted from
/// `started`, the same for all shards of a broker: what they share has deadlines.
pub async fn run(
    brain: Shard,
    signs_of_life: SignsOfLife,
    orders: mpsc::Receiver<Order>,
    others: Vec<mpsc::Sender<Order>>,
    started: Instant,
) {
    let backlog = others.iter().map(|_| VecDeque::new()).collect();
    Loop {
        brain,
        signs_of_life,
        queue: Rc::default(),
        links: HashMap::new(),
        links_seen: 0,
        others,
        backlog,
        started,
        drained: false,
    }
    .run(orders)
    .await;
}

struct Loop {
    brain: Shard,
    signs_of_life: SignsOfLife,
    queue: Rc<Queue>,
    links: HashMap<LinkId, LinkIo>,
    links_seen: u64,
    others: Vec<mpsc::Sender<Order>>,
    // Mail another shard had no room for; bounded by the outboxes it has reserved room in.
    backlog: Vec<VecDeque<Mail>>,
    started: Instant,
    drained: bool,
}

impl Loop {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let queue = Rc::clone(&self.queue);
        self.brain.set_wall(wall::at_ns(self.started));
        while !self.drained {
            let mut ticked = false;
            tokio::select! {
                () = queue.ready.notified() => {}
                Some(order) = orders.recv() => self.order(order),
                () = some_room(&self.others, &self.backlog) => {}
                () = std::future::ready(()), if self.brain.has_more() => {}
                _ = tick.tick() => ticked = true,
            }
            if ticked {
                // A process that was stopped must read what came before it calls a link silent:
                // the first yield lets the system's events in, the second the links' tasks run.
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            }
            if self.brain.has_more() {
                self.brain.go_on(self.started.elapsed());
            }
            for _ in 0..INPUTS_PER_TURN.max(if ticked { 2 * self.links.len() } else { 0 }) {
                let Some(input) = queue.pop() else { break };
                self.completion(input);
            }
            if ticked {
                // It may have been set.
                self.brain.set_wall(wall::at_ns(self.started));
                self.input(Input::Tick);
            }
            for _ in 0..INPUTS_PER_TURN {
                let Ok(order) = orders.try_recv() else { break };
                self.order(order);
            }
            self.brain.flush(self.started.elapsed());
            while let Some(output) = self.brain.output() {
                self.carry_out(output);
            }
            self.send_backlog();
            if !queue.inputs.borrow().is_empty() {
                queue.ready.notify_one();
            }
            // The links' tasks share this thread.
            tokio::task::yield_now().await;
        }
    }

    fn input(&mut self, input: Input) {
        self.brain.handle(self.started.elapsed(), input);
    }

    fn completion(&mut self, input: Input) {
        let link = match &input {
            Input::Bytes { link, .. }
            | Input::Ended { link }
            | Input::Wrote { link, .. }
            | Input::Failed { link } => *link,
            _ => unreachable!("only links' tasks use the queue"),
        };
        // A task may have finished just before its link was closed.
        if !self.links.contains_key(&link) {
            return;
        }
        if matches!(input, Input::Failed { .. }) {
            self.links.remove(&link);
        }
        self.input(input);
    }

    fn order(&mut self, order: Order) {
        match order {
            Order::Accept(stream) => self.accept(stream),
            Order::Mail(mail) => self.input(Input::Mail(mail)),
            Order::Drain(deadline_ms) => self.input(Input::Drain { deadline_ms }),
        }
    }

    fn accept(&mut self, stream: std::net::TcpStream) {
        let peer = stream.peer_addr().ok().map(|peer| peer.to_string().into());
        let stream = stream
            .set_nodelay(true)
            .and_then(|()| self.signs_of_life.ask_of(&stream))
            .and_then(|()| stream.set_nonblocking(true))
            .and_then(|()| TcpStream::from_std(stream));
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => return warn!(%error, "an accepted connection could not be set up"),
        };
        self.links_seen += 1;
        let link = LinkId(self.links_seen);
        debug!(link = link.0, "link accepted");
        let (read_half, write_half) = stream.into_split();
        let (reads, read_orders) = mpsc::channel(1);
        // One write and the shutdown after it.
        let (writes, write_orders) = mpsc::channel(2);
        let reader = spawn_local(reader(link, read_half, read_orders, Rc::clone(&self.queue)));
        let writer = spawn_local(writer(link, write_half, write_orders, Rc::clone(&self.queue)));
        let tasks = [reader.abort_handle(), writer.abort_handle()];
        self.links.insert(link, LinkIo { reads, writes, tasks });
        self.input(Input::Accepted { link, peer });
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Read { link, buffer } => {
                let sent = self.links.get(&link).map(|io| io.reads.try_send(buffer));
                debug_assert!(!matches!(sent, Some(Err(mpsc::error::TrySendError::Full(_)))));
            }
            Output::Write { link, data } => self.write(link, WriteOrder::Bytes(data)),
            Output::Shutdown { link } => self.write(link, WriteOrder::Shutdown),
            Output::Close { link } => {
                debug!(link = link.0, "link closed");
                self.links.remove(&link);
            }
            Output::Mail { to, mail } => self.backlog[usize::from(to)].push_back(mail),
            Output::Drained => self.drained = true,
        }
    }

    fn write(&self, link: LinkId, order: WriteOrder) {
        let sent = self.links.get(&link).map(|io| io.writes.try_send(order));
        debug_assert!(!matches!(sent, Some(Err(mpsc::error::TrySendError::Full(_)))));
    }

    fn send_backlog(&mut self) {
        for (to, waiting) in self.others.iter().zip(&mut self.backlog) {
            while let Some(mail) = waiting.pop_front() {
                match to.try_send(Order::Mail(mail)) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(Order::Mail(mail))) => {
                        waiting.push_front(mail);
                        break;
                    }
                    // That shard has drained: its links are gone, and so is what was for them.
                    Err(mpsc::error::TrySendError::Closed(Order::Mail(mail))) => {
                        self.brain.undeliverable(&mail);
                    }
                    Err(_) => unreachable!("shards send each other mail and nothing else"),
                }
            }
        }
    }
}

/// Waits until a shard for which mail is waiting has room for it.
async fn some_room(others: &[mpsc::Sender<Order>], backlog: &[VecDeque<Mail>]) {
    match others.iter().zip(backlog).find(|(_, waiting)| !waiting.is_empty()) {
        // An error means that it has drained, which the next attempt finds out as well.
        Some((to, _)) => drop(to.reserve().await),
        None => std::future::pending().await,
    }
}

async fn reader(
    link: LinkId,
    mut stream: OwnedReadHalf,
    mut orders: mpsc::Receiver<Vec<u8>>,
    queue: Rc<Queue>,
) {
    while let Some(mut data) = orders.recv().await {
        match stream.read_buf(&mut data).await {
            Ok(0) => queue.push(Input::Ended { link }),
            Ok(_) => queue.push(Input::Bytes { link, data }),
            Err(error) => {
                debug!(link = link.0, %error, "read failed");
                return queue.push(Input::Failed { link });
            }
        }
    }
}

async fn writer(
    link: LinkId,
    mut stream: OwnedWriteHalf,
    mut orders: mpsc::Receiver<WriteOrder>,
    queue: Rc<Queue>,
) {
    while let Some(order) = orders.recv().await {
        let result = match order {
            WriteOrder::Bytes(data) => {
                let written = stream.write_all(&data).await;
                written.map(|()| queue.push(Input::Wrote { link, data }))
            }
            WriteOrder::Shutdown => stream.shutdown().await,
        };
        if let Err(error) = result {
            debug!(link = link.0, %error, "write failed");
            return queue.push(Input::Failed { link });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_asked_for_what_is_configured() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let config = BrokerConfig::default();
        SignsOfLife::new(&config).ask_of(&stream).unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        let none = SignsOfLife { keepalive: Duration::ZERO, user_timeout: Duration::ZERO };
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        none.ask_of(&stream).unwrap();
        assert!(!socket2::SockRef::from(&stream).keepalive().unwrap());
    }
}

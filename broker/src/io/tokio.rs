//! The portable backend: one thread per shard, each with a tokio runtime of its own.
//!
//! Two small tasks per link do what the brain ordered, one read and one write at a time, and put
//! the completion into the shard's queue. The shard's loop feeds what is queued to the brain and
//! carries out its orders. Never: policy, frames.
//!
//! The queue needs no bound of its own: a link has at most one read and one write on its way.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, spawn_local};
use tracing::{debug, warn};

use crate::io::orders::{Backlog, Order};
use crate::io::socket::SignsOfLife;
use crate::io::{Input, LinkId, Output, Piece, slices, wall};
use crate::limits::{INPUTS_PER_TURN, TICK_MS};
use crate::shard::Shard;

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
    Bytes(Vec<u8>, Vec<Piece>),
    Shutdown,
}

struct LinkIo {
    reads: mpsc::Sender<Vec<u8>>,
    writes: mpsc::Sender<WriteOrder>,
    tasks: Tasks,
}

/// A link's tasks end with it. One that has nothing more to do gives its half of the socket back.
struct Tasks {
    reader: JoinHandle<Option<OwnedReadHalf>>,
    writer: JoinHandle<Option<OwnedWriteHalf>>,
}

impl Tasks {
    /// The socket, of a link that has no orders on their way and gets no more.
    async fn into_stream(mut self) -> Option<std::net::TcpStream> {
        let reader = (&mut self.reader).await.ok()??;
        let writer = (&mut self.writer).await.ok()??;
        reader.reunite(writer).ok()?.into_std().ok()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Runs one shard until it is drained. To be called inside a `LocalSet`. Times are counted from
/// `started`, the same for all shards of a broker: what they share has deadlines.
pub(crate) async fn run(
    brain: Shard,
    signs_of_life: SignsOfLife,
    orders: mpsc::Receiver<Order>,
    others: Vec<mpsc::Sender<Order>>,
    started: Instant,
) {
    Loop {
        brain,
        signs_of_life,
        queue: Rc::default(),
        links: HashMap::new(),
        links_seen: 0,
        backlog: Backlog::new(others),
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
    backlog: Backlog,
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
                () = self.backlog.some_room() => {}
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
            let mut left = INPUTS_PER_TURN;
            while left > 0
                && let Ok(order) = orders.try_recv()
            {
                left = left.saturating_sub(order.weight());
                self.order(order);
            }
            self.brain.flush(self.started.elapsed());
            while let Some(output) = self.brain.output() {
                self.carry_out(output);
            }
            self.backlog.send(|mail| self.brain.undeliverable(mail));
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
        if let Some(input) = order.into_input(|stream| self.take_up(stream)) {
            self.input(input);
        }
    }

    /// Sets a connection up, and gives it a number.
    fn take_up(&mut self, stream: std::net::TcpStream) -> Option<LinkId> {
        let prepared = self.signs_of_life.prepare(&stream, true);
        let stream = prepared.and_then(|()| TcpStream::from_std(stream));
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%error, "an accepted connection could not be set up");
                return None;
            }
        };
        self.links_seen += 1;
        let link = LinkId(self.links_seen);
        let (read_half, write_half) = stream.into_split();
        let (reads, read_orders) = mpsc::channel(1);
        // One write and the shutdown after it.
        let (writes, write_orders) = mpsc::channel(2);
        let reader = spawn_local(reader(link, read_half, read_orders, Rc::clone(&self.queue)));
        let writer = spawn_local(writer(link, write_half, write_orders, Rc::clone(&self.queue)));
        self.links.insert(link, LinkIo { reads, writes, tasks: Tasks { reader, writer } });
        Some(link)
    }

    /// The link's tasks have no orders and get no more; then their halves are one socket again.
    fn hand_over(&mut self, link: LinkId, to: u16, peer: Option<Arc<str>>, data: Vec<u8>) {
        let Some(LinkIo { tasks, .. }) = self.links.remove(&link) else { return };
        let to = self.backlog.shard(to);
        spawn_local(async move {
            if let Some(stream) = tasks.into_stream().await {
                // A shard that has ended serves nobody: the connection ends.
                let _ = to.send(Order::Adopt { stream, peer, data }).await;
            }
        });
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Read { link, buffer } => {
                let sent = self.links.get(&link).map(|io| io.reads.try_send(buffer));
                debug_assert!(!matches!(sent, Some(Err(mpsc::error::TrySendError::Full(_)))));
            }
            Output::Write { link, data, pieces } => {
                self.write(link, WriteOrder::Bytes(data, pieces));
            }
            Output::Shutdown { link } => self.write(link, WriteOrder::Shutdown),
            Output::Close { link } => {
                debug!(link = link.0, "link closed");
                self.links.remove(&link);
            }
            Output::HandOver { link, to, peer, data } => self.hand_over(link, to, peer, data),
            Output::Mail { to, mail } => self.backlog.push(to, Order::Mail(mail)),
            Output::Drained => self.drained = true,
        }
    }

    fn write(&self, link: LinkId, order: WriteOrder) {
        let sent = self.links.get(&link).map(|io| io.writes.try_send(order));
        debug_assert!(!matches!(sent, Some(Err(mpsc::error::TrySendError::Full(_)))));
    }
}

async fn reader(
    link: LinkId,
    mut stream: OwnedReadHalf,
    mut orders: mpsc::Receiver<Vec<u8>>,
    queue: Rc<Queue>,
) -> Option<OwnedReadHalf> {
    while let Some(mut data) = orders.recv().await {
        match stream.read_buf(&mut data).await {
            Ok(0) => queue.push(Input::Ended { link }),
            Ok(_) => queue.push(Input::Bytes { link, data }),
            Err(error) => {
                debug!(link = link.0, %error, "read failed");
                queue.push(Input::Failed { link });
                return None;
            }
        }
    }
    Some(stream)
}

async fn writer(
    link: LinkId,
    mut stream: OwnedWriteHalf,
    mut orders: mpsc::Receiver<WriteOrder>,
    queue: Rc<Queue>,
) -> Option<OwnedWriteHalf> {
    while let Some(order) = orders.recv().await {
        let result = match order {
            WriteOrder::Bytes(data, pieces) => {
                let written = if pieces.is_empty() {
                    stream.write_all(&data).await
                } else {
                    write_all_of(&mut stream, &data, &pieces).await
                };
                written.map(|()| queue.push(Input::Wrote { link, data }))
            }
            WriteOrder::Shutdown => stream.shutdown().await,
        };
        if let Err(error) = result {
            debug!(link = link.0, %error, "write failed");
            queue.push(Input::Failed { link });
            return None;
        }
    }
    Some(stream)
}

/// A write of several slices. The system takes as many of them at a time as it likes.
async fn write_all_of(
    stream: &mut OwnedWriteHalf,
    data: &[u8],
    pieces: &[Piece],
) -> std::io::Result<()> {
    let mut all: Vec<IoSlice<'_>> = slices(data, pieces).map(IoSlice::new).collect();
    let mut rest = &mut all[..];
    while !rest.is_empty() {
        match stream.write_vectored(rest).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            written => IoSlice::advance_slices(&mut rest, written),
        }
    }
    Ok(())
}

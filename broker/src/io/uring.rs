//! The io_uring backend: one plain thread per shard, whose turns each make one system call.
//!
//! A turn hands the system what the brain has ordered, waits for what is done, gives it to the
//! brain and carries out its orders. A link that says little is received from by one standing order
//! (multishot), into buffers all links share. What comes before the brain asks for it waits here,
//! and when that is [`AHEAD_MAX`] buffers the standing order ends: the link brings more than the
//! brain reads, or than fits, and is received from read by read, into the brain's own buffer, until
//! it has said little for a while. Never: policy, frames.

mod buffers;
pub(crate) mod probe;
mod ring;
mod sending;
mod tag;

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::io::choice::Unavailable;
use crate::io::orders::{Backlog, Order};
use crate::io::socket::SignsOfLife;
use crate::io::{Input, LinkId, Output, wall};
use crate::ledger::Counters;
use crate::limits::{BUFFERS_MAX, INPUTS_PER_TURN, READ_BYTES_MIN, TICK_MS};
use crate::shard::Shard;
use crate::telemetry::count;

use buffers::Sizes;
use ring::{Event, Incidents, Ring};
use tag::Place;

/// Buffers of one link that may wait until the brain reads, after which it is received no further.
/// What the system has received by then comes all the same. This and the two below were tried at an
/// eighth to a half and at four to sixteen times as much, and no CPU was saved or spent by it
/// (docs/decisions/0028): they are bounds of memory.
const AHEAD_MAX: usize = 2;

/// Buffers of one link that the brain is given in a turn, if it reads that often.
const READS_PER_TURN: usize = 4;

/// Reads in a row that bring little, after which a link has a standing order again.
const SINGLE_READS: u32 = 64;

/// Buffers for all links of a shard that have standing orders.
const BUFFERS: Sizes = Sizes { least: 16, most: BUFFERS_MAX, bytes: READ_BYTES_MIN };

/// Ticks after which there are fewer buffers if they have sufficed.
const RELAX_TICKS: u64 = 100;

/// A ring that waits for its shard's thread.
pub(crate) struct Prepared(Ring);

impl Prepared {
    /// Takes what the system has to give.
    pub(crate) fn new() -> Result<Self, Unavailable> {
        Ring::new(BUFFERS).map(Self)
    }
}

/// Rings in the ring that its thread sleeps in.
struct Bell(File);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // It fails if nobody has listened for 2^64 rings.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }
}

/// What came from a link and the brain has not read.
enum Ahead {
    Bytes(Vec<u8>),
    Ended,
    Failed,
}

struct LinkIo {
    place: Place,
    // The buffer of a read of the brain that is not answered; without room if the ring has it.
    reads: Option<Vec<u8>>,
    ahead: VecDeque<Ahead>,
    // It is in `Loop::ready`.
    is_ready: bool,
    // A standing order is to end, and has not.
    stops: bool,
    // Reads that bring little until the next standing order. The first read is single: a link may
    // turn out to be for another shard.
    singles: u32,
    // The last turn that it was read in, and how often.
    turn: u64,
    reads_in_turn: usize,
}

/// A link that another shard is to serve.
struct Leaving {
    to: u16,
    peer: Option<Arc<str>>,
    data: Vec<u8>,
}

/// Runs one shard until it is drained. Times are counted from `started`, the same for all shards of
/// a broker: what they share has deadlines.
///
/// # Panics
///
/// If the system takes no orders any more, which it said it would.
pub(crate) fn run(
    brain: Shard,
    Prepared(mut ring): Prepared,
    signs_of_life: SignsOfLife,
    orders: mpsc::Receiver<Order>,
    others: Vec<mpsc::Sender<Order>>,
    started: Instant,
) {
    ring.begin().expect("the ring was made for one thread, and this is it");
    let bell = ring.bell().expect("one more descriptor for each shard");
    let counters = Arc::clone(brain.counters());
    Loop {
        brain,
        ring,
        signs_of_life,
        links: HashMap::new(),
        links_seen: 0,
        ready: VecDeque::new(),
        starved: Vec::new(),
        held: 0,
        leaving: HashMap::new(),
        failed: Vec::new(),
        backlog: Backlog::new(others),
        waker: Arc::new(Bell(bell.into())).into(),
        counters,
        turn: 0,
        ticks: 0,
        started,
        drained: false,
    }
    .run(orders);
}

struct Loop {
    brain: Shard,
    ring: Ring,
    signs_of_life: SignsOfLife,
    links: HashMap<LinkId, LinkIo>,
    links_seen: u64,
    // Links the brain reads and that have something for it already.
    ready: VecDeque<LinkId>,
    // Links the brain reads and that had no buffer.
    starved: Vec<LinkId>,
    // Buffers in the `ahead` of links.
    held: usize,
    // Links that go to another shard as soon as nothing of them is under way.
    leaving: HashMap<LinkId, Leaving>,
    // Links whose direction could not be ended.
    failed: Vec<LinkId>,
    backlog: Backlog,
    waker: Waker,
    counters: Arc<Counters>,
    turn: u64,
    ticks: u64,
    started: Instant,
    drained: bool,
}

impl Loop {
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let tick = Duration::from_millis(TICK_MS);
        let mut next_tick = self.started.elapsed() + tick;
        self.brain.set_wall(wall::at_ns(self.started));
        while !self.drained {
            self.turn += 1;
            let now = self.started.elapsed();
            self.sleep(&mut orders, next_tick.saturating_sub(now));
            if self.brain.has_more() {
                self.brain.go_on(self.started.elapsed());
                self.carry_out();
            }
            self.events(INPUTS_PER_TURN);
            if self.started.elapsed() >= next_tick {
                self.tick();
                next_tick = self.started.elapsed() + tick;
            }
            let mut left = INPUTS_PER_TURN;
            while left > 0
                && let Ok(order) = orders.try_recv()
            {
                left = left.saturating_sub(order.weight());
                self.order(order);
            }
            self.brain.flush(self.started.elapsed());
            self.carry_out();
            self.backlog.send(|mail| self.brain.undeliverable(mail));
            self.feed();
            self.ring.hold(self.held);
        }
    }

    /// Hands all orders over and waits for what comes: until the next tick at most, not at all if
    /// there is something to do, and until the bell rings for an order, or for room in the queue of
    /// a shard that mail is for.
    fn sleep(&mut self, orders: &mut mpsc::Receiver<Order>, until_tick: Duration) {
        let mut wait = until_tick;
        if self.brain.has_more() || !self.ready.is_empty() || !self.failed.is_empty() {
            wait = Duration::ZERO;
        }
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        if !wait.is_zero()
            && let Poll::Ready(Some(order)) = orders.poll_recv(&mut context)
        {
            self.order(order);
            wait = Duration::ZERO;
        }
        let mut room = pin!(self.backlog.some_room());
        if !wait.is_zero() && room.as_mut().poll(&mut context).is_ready() {
            wait = Duration::ZERO;
        }
        // While the bell may ring for it, the wish for room stands.
        Self::enter(&mut self.ring, &self.counters, wait);
    }

    fn enter(ring: &mut Ring, counters: &Counters, wait: Duration) {
        if let Err(error) = ring.enter(wait) {
            panic!("the ring fails: {error}");
        }
        let Incidents { short_sends, overflows, stale } = ring.take_incidents();
        count(&counters.io.sends_resumed, short_sends);
        count(&counters.io.overflows, overflows);
        count(&counters.io.stale, stale);
    }

    fn tick(&mut self) {
        // A process that was stopped must read what came before it calls a link silent: all that
        // was there, and what came for links that were not received from.
        for _ in 0..2 {
            self.feed();
            Self::enter(&mut self.ring, &self.counters, Duration::ZERO);
            self.events(usize::MAX);
        }
        self.ticks += 1;
        if self.ticks.is_multiple_of(RELAX_TICKS) {
            self.ring.relax();
        }
        // It may have been set.
        self.brain.set_wall(wall::at_ns(self.started));
        self.input(Input::Tick);
    }

    fn input(&mut self, input: Input) {
        self.brain.handle(self.started.elapsed(), input);
        self.carry_out();
    }

    /// What has happened, and what had happened before the brain asked.
    fn events(&mut self, most: usize) {
        for _ in 0..self.ready.len() {
            let Some(link) = self.ready.pop_front() else { break };
            if let Some(io) = self.links.get_mut(&link) {
                io.is_ready = false;
                self.offer(link);
            }
        }
        for link in std::mem::take(&mut self.failed) {
            self.fail(link);
        }
        for _ in 0..most {
            let Some(event) = self.ring.next() else { break };
            self.event(event);
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Bytes(link, data) => match self.leaving.get_mut(&link) {
                Some(leaving) => {
                    leaving.data.extend_from_slice(&data);
                    self.ring.put(data);
                }
                None => self.came(link, Ahead::Bytes(data)),
            },
            Event::Left(link, stream) => {
                if let Some(leaving) = self.leaving.remove(&link) {
                    self.handed_over(leaving, stream);
                }
            }
            Event::End(link) => self.came(link, Ahead::Ended),
            Event::Sent(link, data) => self.input(Input::Wrote { link, data }),
            Event::Starved(link) => {
                count(&self.counters.io.starved, 1);
                let Some(io) = self.links.get_mut(&link) else { return };
                if 2 * self.held >= BUFFERS_MAX.into() {
                    // There will not be many more until those are read: it has one of its own.
                    io.singles = SINGLE_READS;
                } else if io.ahead.is_empty() {
                    // One that has more waiting than is read is no reason for more buffers.
                    self.ring.starve();
                }
                self.starved.push(link);
            }
            Event::Stopped(link) => self.receive(link),
            Event::ReceiveFailed(link, error) => {
                debug!(link = link.0, %error, "read failed");
                self.came(link, Ahead::Failed);
            }
            Event::SendFailed(link, error) => {
                debug!(link = link.0, %error, "write failed");
                self.fail(link);
            }
        }
    }

    fn came(&mut self, link: LinkId, what: Ahead) {
        let Some(io) = self.links.get_mut(&link) else { return };
        if let Ahead::Bytes(data) = &what
            && io.singles > 0
        {
            io.singles = if data.len() > BUFFERS.bytes { SINGLE_READS } else { io.singles - 1 };
        }
        self.held += usize::from(matches!(what, Ahead::Bytes(_)));
        io.ahead.push_back(what);
        self.offer(link);
        let Some(io) = self.links.get_mut(&link) else { return };
        if io.ahead.len() >= AHEAD_MAX && !io.stops && self.ring.receives(io.place) {
            count(&self.counters.io.stopped, 1);
            io.stops = true;
            io.singles = SINGLE_READS;
            self.ring.stop(io.place);
        }
    }

    /// Answers the brain's reads of a link with what came before.
    fn offer(&mut self, link: LinkId) {
        while let Some(io) = self.links.get_mut(&link) {
            if io.reads.is_none() || io.ahead.is_empty() {
                return;
            }
            if io.turn != self.turn {
                (io.turn, io.reads_in_turn) = (self.turn, 0);
            }
            if io.reads_in_turn >= READS_PER_TURN {
                if !std::mem::replace(&mut io.is_ready, true) {
                    self.ready.push_back(link);
                }
                return;
            }
            io.reads_in_turn += 1;
            let (Some(what), Some(buffer)) = (io.ahead.pop_front(), io.reads.take()) else {
                return;
            };
            self.ring.put(buffer);
            match what {
                Ahead::Bytes(data) => {
                    self.held -= 1;
                    self.input(Input::Bytes { link, data });
                }
                Ahead::Ended => self.input(Input::Ended { link }),
                Ahead::Failed => self.fail(link),
            }
        }
    }

    fn fail(&mut self, link: LinkId) {
        if let Some(io) = self.links.remove(&link) {
            self.forget(io);
            self.input(Input::Failed { link });
        }
    }

    fn hand_over(&mut self, link: LinkId, mut leaving: Leaving) {
        let Some(io) = self.links.remove(&link) else { return };
        for what in io.ahead {
            // Whatever else came comes again where it goes.
            if let Ahead::Bytes(data) = what {
                leaving.data.extend_from_slice(&data);
                self.held -= 1;
                self.ring.put(data);
            }
        }
        match self.ring.leave(io.place) {
            Some(stream) => self.handed_over(leaving, stream),
            None => drop(self.leaving.insert(link, leaving)),
        }
    }

    fn handed_over(&mut self, Leaving { to, peer, data }: Leaving, stream: std::net::TcpStream) {
        self.backlog.push(to, Order::Adopt { stream, peer, data });
    }

    fn forget(&mut self, io: LinkIo) {
        for what in io.ahead {
            if let Ahead::Bytes(buffer) = what {
                self.held -= 1;
                self.ring.put(buffer);
            }
        }
        self.ring.close(io.place);
    }

    /// Sees to it that a link which the brain reads is received from.
    fn receive(&mut self, link: LinkId) {
        let Some(io) = self.links.get_mut(&link) else { return };
        let Some(buffer) = &mut io.reads else { return };
        if !io.ahead.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(buffer);
        if self.ring.receives(io.place) {
            return self.ring.put(buffer);
        }
        io.stops = false;
        if io.singles == 0 {
            self.ring.put(buffer);
            return self.ring.receive_all(io.place);
        }
        if buffer.capacity() == 0 {
            buffer = self.ring.buffer();
        }
        self.ring.receive(io.place, buffer);
    }

    /// Receives again from links that had no buffer: the ring is filled before the next order.
    fn feed(&mut self) {
        for link in std::mem::take(&mut self.starved) {
            self.receive(link);
        }
    }

    fn order(&mut self, order: Order) {
        if let Some(input) = order.into_input(|stream| self.take_up(stream)) {
            self.input(input);
        }
    }

    /// Sets a connection up, and gives it a number.
    fn take_up(&mut self, stream: std::net::TcpStream) -> Option<LinkId> {
        // An order to a socket that does not block fails where it should wait.
        if let Err(error) = self.signs_of_life.prepare(&stream, false) {
            warn!(%error, "an accepted connection could not be set up");
            return None;
        }
        self.links_seen += 1;
        let link = LinkId(self.links_seen);
        let io = LinkIo {
            place: self.ring.adopt(link, stream),
            reads: None,
            ahead: VecDeque::new(),
            is_ready: false,
            stops: false,
            singles: 1,
            turn: 0,
            reads_in_turn: 0,
        };
        self.links.insert(link, io);
        Some(link)
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.brain.output() {
            match output {
                Output::Read { link, buffer } => self.read(link, buffer),
                Output::Write { link, data, pieces } => {
                    if let Some(io) = self.links.get(&link) {
                        self.ring.send(io.place, data, pieces);
                    }
                }
                Output::Shutdown { link } => {
                    if let Some(io) = self.links.get(&link)
                        && let Err(error) = self.ring.shutdown(io.place)
                    {
                        debug!(link = link.0, %error, "write failed");
                        self.failed.push(link);
                    }
                }
                Output::Close { link } => {
                    debug!(link = link.0, "link closed");
                    if let Some(io) = self.links.remove(&link) {
                        self.forget(io);
                    }
                }
                Output::HandOver { link, to, peer, data } => {
                    self.hand_over(link, Leaving { to, peer, data });
                }
                Output::Mail { to, mail } => self.backlog.push(to, Order::Mail(mail)),
                Output::Drained => self.drained = true,
            }
        }
    }

    fn read(&mut self, link: LinkId, buffer: Vec<u8>) {
        let Some(io) = self.links.get_mut(&link) else { return };
        debug_assert!(io.reads.is_none(), "one read at a time");
        io.reads = Some(buffer);
        if io.ahead.is_empty() {
            self.receive(link);
        } else if !std::mem::replace(&mut io.is_ready, true) {
            self.ready.push_back(link);
        }
    }
}

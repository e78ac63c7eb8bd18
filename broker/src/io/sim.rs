//! The simulator backend: shards, links and time in one thread, every choice from one seed.
//!
//! Bytes move in pieces of random size, in both directions; mail between a pair of shards keeps
//! its order and nothing else does; time passes only when the test says so. The same seed and the
//! same calls give the same run, byte for byte.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::config::BrokerConfig;
use crate::io::{Input, LinkId, Output, joined};
use crate::ledger::Ledger;
use crate::limits::TICK_MS;
use crate::mail::Mail;
use crate::shard::Shard;
use crate::shared::Shared;

/// The test's end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(u64);

#[derive(Default)]
struct Pipe {
    shard: usize,
    to_broker: VecDeque<u8>,
    // The peer ended its direction, or reset the link.
    ended: bool,
    reset: bool,
    read_order: Option<Vec<u8>>,
    write_order: Option<(Vec<u8>, usize)>,
    to_peer: Vec<u8>,
    stalled: bool,
    shut: bool,
    closed: bool,
    // On its way from one shard to another.
    moves: bool,
}

/// What goes from one shard to another.
enum Post {
    Mail(Mail),
    Link { number: u64, peer: Option<Arc<str>>, data: Vec<u8> },
}

/// The wall clock at time zero of every simulation: 2027-01-15 08:00 UTC.
pub const WALL_AT_ZERO_NS: u64 = 1_800_000_000_000_000_000;

enum Action {
    Read(u64),
    Write(u64),
    Fail(u64),
    Post(usize, usize),
    GoOn(usize),
}

/// A broker without an operating system.
pub struct Sim {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    pipes: BTreeMap<u64, Pipe>,
    post: BTreeMap<(usize, usize), VecDeque<Post>>,
    drained: Vec<bool>,
    random: SmallRng,
    now: Duration,
}

impl Sim {
    /// A broker with these settings; every choice follows from `seed`.
    #[must_use]
    pub fn new(config: BrokerConfig, seed: u64) -> Self {
        let count = config.shards;
        let shared = Arc::new(Shared::new(config, seed | 1, seed));
        shared.set_wall(WALL_AT_ZERO_NS);
        Self {
            shards: (0..count).map(|id| Shard::new(id, Arc::clone(&shared))).collect(),
            shared,
            pipes: BTreeMap::new(),
            post: BTreeMap::new(),
            drained: vec![false; count.into()],
            random: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
        }
    }

    /// As if links had so few steps in a turn of a shard.
    pub fn set_turn(&mut self, steps: usize) {
        self.shards.iter_mut().for_each(|shard| shard.set_turn(steps));
    }

    /// Opens a link to a random shard.
    pub fn connect(&mut self) -> Peer {
        let number = self.pipes.len() as u64 + 1;
        let shard = self.random.random_range(0..self.shards.len());
        self.pipes.insert(number, Pipe { shard, ..Pipe::default() });
        self.input(shard, Input::Accepted { link: LinkId(number), peer: None });
        Peer(number)
    }

    /// Sends bytes to the broker; they arrive piece by piece as the simulation runs.
    pub fn send(&mut self, peer: Peer, bytes: &[u8]) {
        self.pipe(peer).to_broker.extend(bytes);
    }

    /// Takes what has arrived from the broker.
    pub fn receive(&mut self, peer: Peer) -> Vec<u8> {
        std::mem::take(&mut self.pipe(peer).to_peer)
    }

    /// Whether the broker has ended its direction or the link.
    pub fn ended(&mut self, peer: Peer) -> bool {
        let pipe = self.pipe(peer);
        pipe.closed || (pipe.shut && pipe.write_order.is_none())
    }

    /// Ends our direction after what was sent.
    pub fn close(&mut self, peer: Peer) {
        self.pipe(peer).ended = true;
    }

    /// Breaks the link at once; what is on its way is lost.
    pub fn reset(&mut self, peer: Peer) {
        self.pipe(peer).reset = true;
    }

    /// Stops, or goes on with, taking bytes from the broker.
    pub fn stall(&mut self, peer: Peer, stalled: bool) {
        self.pipe(peer).stalled = stalled;
    }

    /// Runs until nothing can happen without time passing.
    pub fn settle(&mut self) {
        while self.step() {}
    }

    /// Does one thing that can happen, chosen at random. `false` if there is none.
    pub fn step(&mut self) -> bool {
        let mut actions = Vec::new();
        for (&number, pipe) in &self.pipes {
            if pipe.closed || pipe.moves {
                continue;
            }
            if pipe.reset {
                actions.push(Action::Fail(number));
                continue;
            }
            if pipe.read_order.is_some() && (!pipe.to_broker.is_empty() || pipe.ended) {
                actions.push(Action::Read(number));
            }
            if pipe.write_order.is_some() && !pipe.stalled {
                actions.push(Action::Write(number));
            }
        }
        let pending = self.post.iter().filter(|(_, waiting)| !waiting.is_empty());
        actions.extend(pending.map(|(&(from, to), _)| Action::Post(from, to)));
        let unfinished = self.shards.iter().enumerate().filter(|(_, shard)| shard.has_more());
        actions.extend(unfinished.map(|(shard, _)| Action::GoOn(shard)));
        if actions.is_empty() {
            return false;
        }
        let choice = self.random.random_range(0..actions.len());
        self.act(&actions[choice]);
        true
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Read(number) => self.read(number),
            Action::Write(number) => self.write(number),
            Action::Fail(number) => {
                let pipe = self.pipe(Peer(number));
                pipe.closed = true;
                let shard = pipe.shard;
                self.input(shard, Input::Failed { link: LinkId(number) });
            }
            Action::GoOn(shard) => {
                self.shards[shard].go_on(self.now);
                self.flush(shard);
            }
            Action::Post(from, to) => {
                match self.post.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
                    Some(Post::Mail(mail)) => self.input(to, Input::Mail(mail)),
                    Some(Post::Link { number, peer, data }) => {
                        let pipe = self.pipe(Peer(number));
                        (pipe.shard, pipe.moves) = (to, false);
                        self.input(to, Input::Adopted { link: LinkId(number), peer, data });
                    }
                    None => {}
                }
            }
        }
    }

    fn read(&mut self, number: u64) {
        let piece = self.piece();
        let pipe = self.pipe(Peer(number));
        let (shard, link) = (pipe.shard, LinkId(number));
        let Some(mut data) = pipe.read_order.take() else { return };
        let count = piece.min(pipe.to_broker.len());
        data.extend(pipe.to_broker.drain(..count));
        let input =
            if data.is_empty() { Input::Ended { link } } else { Input::Bytes { link, data } };
        self.input(shard, input);
    }

    fn write(&mut self, number: u64) {
        let piece = self.piece();
        let pipe = self.pipe(Peer(number));
        let (shard, link) = (pipe.shard, LinkId(number));
        let Some((data, at)) = &mut pipe.write_order else { return };
        let end = data.len().min(*at + piece);
        pipe.to_peer.extend_from_slice(&data[*at..end]);
        *at = end;
        if end == data.len()
            && let Some((data, _)) = pipe.write_order.take()
        {
            self.input(shard, Input::Wrote { link, data });
        }
    }

    /// Mostly a few bytes, so that frames are split, and now and then many.
    fn piece(&mut self) -> usize {
        match self.random.random_range(0..4) {
            0 => self.random.random_range(1..8),
            1 => self.random.random_range(8..200),
            _ => self.random.random_range(200..65_536),
        }
    }

    /// Lets time pass, tick by tick.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(TICK_MS));
            for shard in 0..self.shards.len() {
                self.input(shard, Input::Tick);
            }
            self.settle();
        }
    }

    /// The wall clock now, in microseconds since 1970.
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        self.shared.wall_us(self.now)
    }

    /// Tells the broker to stop.
    pub fn drain(&mut self, deadline_ms: u32) {
        for shard in 0..self.shards.len() {
            self.input(shard, Input::Drain { deadline_ms });
        }
    }

    /// Whether every shard has nothing left to do.
    #[must_use]
    pub fn drained(&self) -> bool {
        self.drained.iter().all(|&drained| drained)
    }

    /// The counters of all shards.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger::of(self.shards.iter().map(|shard| shard.counters().as_ref()))
    }

    /// What the shards share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.shared
    }

    fn pipe(&mut self, peer: Peer) -> &mut Pipe {
        self.pipes.get_mut(&peer.0).expect("a peer is made by connect")
    }

    fn input(&mut self, shard: usize, input: Input) {
        let now = self.now;
        let brain = &mut self.shards[shard];
        brain.handle(now, input);
        self.flush(shard);
    }

    fn flush(&mut self, shard: usize) {
        self.shards[shard].flush(self.now);
        while let Some(output) = self.shards[shard].output() {
            self.carry_out(shard, output);
        }
    }

    fn post(&mut self, from: usize, to: u16, post: Post) {
        self.post.entry((from, to.into())).or_default().push_back(post);
    }

    fn carry_out(&mut self, shard: usize, output: Output) {
        match output {
            Output::Read { link, buffer } => {
                let before = self.pipe(Peer(link.0)).read_order.replace(buffer);
                assert!(before.is_none(), "one read at a time");
            }
            Output::Write { link, data, pieces } => {
                let order = (joined(data, &pieces), 0);
                let before = self.pipe(Peer(link.0)).write_order.replace(order);
                assert!(before.is_none(), "one write at a time");
            }
            Output::Shutdown { link } => self.pipe(Peer(link.0)).shut = true,
            Output::Close { link } => self.pipe(Peer(link.0)).closed = true,
            Output::HandOver { link, to, peer, data } => {
                let pipe = self.pipe(Peer(link.0));
                assert!(pipe.read_order.is_none() && pipe.write_order.is_none(), "idle");
                pipe.moves = true;
                self.post(shard, to, Post::Link { number: link.0, peer, data });
            }
            Output::Mail { to, mail } => self.post(shard, to, Post::Mail(mail)),
            Output::Drained => self.drained[shard] = true,
        }
    }
}

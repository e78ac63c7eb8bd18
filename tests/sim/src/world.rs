//! The cluster: processes, the network between them and virtual time, in one thread.
//!
//! What can happen at a time lies in a queue ordered by that time; what follows at once is done
//! before time goes on. Nothing here decides what a broker, a link or a gateway does.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::io::Write as _;
use std::time::{Duration, Instant};

use waybill_broker::config::OutboxPolicy;

use crate::Played;
use crate::chance::Chance;
use crate::net::Pipe;
use crate::oracle::{HANDOVER, Oracle};
use crate::scenario::{MS, Scenario};

mod actions;
mod backends;
mod brokers;
mod ends;
mod gateways;
mod healing;
mod leaving;
mod tagging;
mod users;

use backends::{Consumer, Producer};
use brokers::Broker;
use ends::{End, Owner};
use gateways::Gateway;
use users::{Socket, User};

/// How often a broker is told that time passes.
const TICK: u64 = 100 * MS;

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The scenario goes on.
    Act,
    Tick {
        broker: usize,
    },
    Mail {
        broker: usize,
        life: u64,
        from: usize,
        to: usize,
    },
    GoOn {
        broker: usize,
        life: u64,
        shard: usize,
    },
    ArriveUp {
        pipe: usize,
    },
    ArriveDown {
        pipe: usize,
    },
    ResetNear {
        pipe: usize,
    },
    ResetFar {
        pipe: usize,
    },
    Connect {
        end: usize,
        attempt: u64,
    },
    End {
        end: usize,
    },
    Gateway {
        gateway: usize,
    },
    /// A client's message reaches its gateway.
    Said {
        socket: usize,
    },
    Reads {
        socket: usize,
    },
    Hangs {
        socket: usize,
    },
    User {
        user: usize,
    },
    Answers {
        consumer: usize,
    },
    /// A client obeys the order to go.
    Moves {
        socket: usize,
    },
    /// A link that was suspended is closed.
    Leaves {
        end: usize,
        attempt: u64,
    },
    Resume {
        actor: Actor,
    },
    Restart {
        actor: Actor,
    },
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Broker(usize),
    Gateway(usize),
    Producer(usize),
    Consumer(usize),
}

/// What follows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    End(usize),
    FarRead(usize),
    FarWrite(usize),
    Gateway(usize),
    Drained(usize),
}

/// Whether a process runs, and its clock.
#[derive(Clone, Debug)]
struct Process {
    alive: bool,
    paused: bool,
    life: u64,
    /// In one of its lives, with what it knew.
    killed: bool,
    /// Local time is `ahead` + real time x `rate` / 1000.
    ahead: u64,
    rate: u64,
}

impl Process {
    fn new(chance: &mut Chance, skewed: bool) -> Self {
        let rate = if skewed { chance.between(950, 1_050) } else { 1_000 };
        let ahead = chance.below(1_000 * MS);
        Self { alive: true, paused: false, life: 1, killed: false, ahead, rate }
    }

    fn runs(&self) -> bool {
        self.alive && !self.paused
    }

    fn local(&self, now: u64) -> u64 {
        self.ahead + now * self.rate / 1_000
    }

    fn real(&self, local: u64) -> u64 {
        (local.saturating_sub(self.ahead) * 1_000).div_ceil(self.rate)
    }
}

struct Due {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// See the module.
pub(crate) struct World {
    chance: Chance,
    scenario: Scenario,
    /// Microseconds since the run began.
    now: u64,
    origin: Instant,
    queue: BinaryHeap<Reverse<Due>>,
    queued: u64,
    work: VecDeque<Work>,
    /// By number, from 1: closed ones go.
    pipes: BTreeMap<usize, Pipe>,
    pipes_made: usize,
    ends: Vec<End>,
    brokers: Vec<Broker>,
    gateways: Vec<Gateway>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    users: Vec<User>,
    sockets: Vec<Socket>,
    actions_left: u64,
    healing: bool,
    oracle: Oracle,
    trace: bool,
    /// Things that happened.
    events: u64,
    /// What came up in lives of brokers that are over.
    seen: Played,
}

impl World {
    /// The cluster of a seed, its processes just started.
    #[must_use]
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        let scenario = Scenario::new(&mut chance);
        let mut world = Self {
            actions_left: scenario.actions,
            chance,
            scenario,
            now: 0,
            origin: Instant::now(),
            queue: BinaryHeap::new(),
            queued: 0,
            work: VecDeque::new(),
            pipes: BTreeMap::new(),
            pipes_made: 0,
            ends: Vec::new(),
            brokers: Vec::new(),
            gateways: Vec::new(),
            producers: Vec::new(),
            consumers: Vec::new(),
            users: Vec::new(),
            sockets: Vec::new(),
            healing: false,
            oracle: Oracle::default(),
            trace,
            events: 0,
            seen: Played::default(),
        };
        world.oracle.tight = world.scenario.outbox_bytes < 1 << 20;
        world.oracle.drops_oldest = world.scenario.outbox_policy == OutboxPolicy::DropOldest;
        let age_max = u64::from(world.scenario.outbox_age_max_ms) * MS;
        world.oracle.drops_soon = world.oracle.drops_oldest && (1..HANDOVER).contains(&age_max);
        world.oracle.remembered(world.scenario.recent);
        world.note(|it| format!("{:?}", it.scenario));
        world.start();
        world
    }

    fn start(&mut self) {
        (0..self.scenario.brokers).for_each(|_| self.add_broker());
        (0..self.scenario.gateways).for_each(|_| self.add_gateway());
        (0..self.scenario.producers).for_each(|_| self.add_producer(None));
        (0..self.scenario.consumers).for_each(|_| self.add_consumer());
        for number in 0..self.scenario.users {
            let user = User::new(&mut self.chance, &self.scenario, number);
            self.users.push(user);
            let at = self.chance.below(2_000 * MS);
            self.schedule(at, Event::User { user: number });
        }
        self.schedule(300 * MS, Event::Act);
    }

    /// Plays to the end.
    ///
    /// # Panics
    ///
    /// When a promise is broken.
    pub(crate) fn play(&mut self) {
        self.run_while(|it| it.actions_left > 0);
        self.heal();
        self.oracle.judge();
        let mut brokers = 0..self.brokers.len();
        self.oracle.feeds_dropped |= brokers.any(|broker| self.drops_for_consumers(broker));
        self.oracle.judge_feeds(self.consumers_are());
    }

    /// What came up so far.
    pub(crate) fn played(&self) -> Played {
        let now = (0..self.brokers.len()).map(|broker| self.seen_at(broker));
        Played { events: self.events, ..now.fold(self.seen, Played::and) }
    }

    /// What came up in this life of a broker.
    fn seen_at(&self, broker: usize) -> Played {
        let frames = self.ledger(broker).gateways;
        Played {
            events: 0,
            conflated: frames.conflated,
            expired: frames.expired,
            aged: frames.dropped_outbox_age + frames.evicted_outbox_age,
            full: frames.dropped_outbox_full + frames.evicted_outbox_full,
        }
    }

    fn run_while(&mut self, go_on: impl Fn(&Self) -> bool) {
        while go_on(self) && self.step() {}
    }

    fn run_for(&mut self, time: u64) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|Reverse(due)| due.at <= end) && self.step() {}
        self.now = end;
    }

    fn step(&mut self) -> bool {
        let Some(Reverse(Due { at, event, .. })) = self.queue.pop() else { return false };
        debug_assert!(at >= self.now);
        self.now = at;
        self.events += 1;
        assert!(self.events < 2_000_000, "liveness: the run does not come to an end: {event:?}");
        self.oracle.now = at;
        self.happen(event);
        let mut turns = 0;
        while let Some(work) = self.work.pop_front() {
            turns += 1;
            assert!(turns < 100_000, "liveness: no end at {at}: {work:?}");
            match work {
                Work::End(end) => self.drive_end(end),
                Work::FarRead(pipe) => self.far_read(pipe),
                Work::FarWrite(pipe) => self.far_write(pipe),
                Work::Gateway(gateway) => self.drive_gateway(gateway),
                Work::Drained(broker) => self.broker_leaves(broker),
            }
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Act => self.act(),
            Event::Tick { broker } => self.tick(broker),
            Event::Mail { broker, life, from, to } => self.mail(broker, life, from, to),
            Event::ArriveUp { pipe } => self.arrive(pipe, true),
            Event::ArriveDown { pipe } => self.arrive(pipe, false),
            Event::ResetNear { pipe } => self.reset_near(pipe),
            Event::ResetFar { pipe } => self.reset_far(pipe),
            Event::Connect { end, attempt } => self.connected(end, attempt),
            Event::End { end } => self.work.push_back(Work::End(end)),
            Event::GoOn { broker, life, shard } => self.go_on_at_broker(broker, life, shard),
            Event::Gateway { gateway } => self.work.push_back(Work::Gateway(gateway)),
            Event::Said { socket } => self.said(socket),
            Event::Reads { socket } => self.reads(socket),
            Event::Hangs { socket } => self.hang_up(socket),
            Event::User { user } => self.user_acts(user),
            Event::Answers { consumer } => self.consumer_answers(consumer),
            Event::Moves { socket } => self.moves(socket),
            Event::Leaves { end, attempt } => self.leaves(end, attempt),
            Event::Resume { actor } => self.resume(actor),
            Event::Restart { actor } => self.restart(actor),
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.queued += 1;
        let due = Due { at: at.max(self.now), order: self.queued, event };
        self.queue.push(Reverse(due));
    }

    fn soon(&mut self, within: u64, event: Event) {
        let at = self.now + 1 + self.chance.below(within);
        self.schedule(at, event);
    }

    /// When what is sent now arrives.
    fn arrival(&mut self) -> u64 {
        self.now + 50 + self.chance.below(self.scenario.delay)
    }

    fn note(&self, words: impl FnOnce(&Self) -> String) {
        if self.trace {
            // A trace that nobody reads is no failure.
            let _gone = writeln!(std::io::stderr(), "{:>10} {}", self.now, words(self));
        }
    }

    fn process(&mut self, actor: Actor) -> &mut Process {
        match actor {
            Actor::Broker(at) => &mut self.brokers[at].process,
            Actor::Gateway(at) => &mut self.gateways[at].process,
            Actor::Producer(at) => &mut self.producers[at].process,
            Actor::Consumer(at) => &mut self.consumers[at].process,
        }
    }

    fn instant(&self, process: &Process) -> Instant {
        self.origin + Duration::from_micros(process.local(self.now))
    }

    fn real(&self, process: &Process, instant: Instant) -> u64 {
        let local = instant.saturating_duration_since(self.origin).as_micros();
        process.real(u64::try_from(local).unwrap_or(u64::MAX / 2_000))
    }

    fn owner_process(&self, owner: Owner) -> &Process {
        match owner {
            Owner::Producer(at) => &self.producers[at].process,
            Owner::Gateway(at, _) | Owner::Data(at, ..) => &self.gateways[at].process,
            Owner::Consumer(at, _) => &self.consumers[at].process,
        }
    }
}

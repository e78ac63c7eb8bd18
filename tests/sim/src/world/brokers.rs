//! Broker processes: real shards, whose orders the network carries out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_broker::io::{Input, LinkId, Output, joined};
use waybill_broker::mail::Mail;
use waybill_broker::shard::Shard;
use waybill_broker::shared::Shared;

use super::{Actor, Event, Process, TICK, Work, World};
use crate::net::{Far, Pipe};
use crate::scenario::MS;

/// What goes from one shard to another.
pub(super) enum Post {
    Mail(Mail),
    /// A link, by the number of its pipe.
    Link(usize, Option<Arc<str>>, Vec<u8>),
}

/// One broker.
pub(super) struct Broker {
    pub(super) process: Process,
    pub(super) shards: Vec<Shard>,
    shared: Arc<Shared>,
    post: BTreeMap<(usize, usize), VecDeque<Post>>,
    /// Shards that are done.
    drained: usize,
    /// Links, in this life, of those who talk nonsense, and those that something was done to.
    pub(super) suspects: u64,
    /// Frames that gateways read, at least and at most, by what it said when it last stopped.
    pub(super) read_before: [u64; 2],
}

impl World {
    fn broker_config(&self) -> BrokerConfig {
        let gateways = u32::try_from(self.scenario.gateways).unwrap_or(1);
        BrokerConfig {
            shards: self.scenario.shards,
            keepalive_ms: 1_000,
            outbox_bytes_max: self.scenario.outbox_bytes,
            outbox_policy: self.scenario.outbox_policy,
            outbox_age_max_ms: self.scenario.outbox_age_max_ms,
            resume_window_ms: self.scenario.resume_window_ms,
            ready_quiet_ms: self.scenario.ready_quiet_ms,
            ready_max_ms: 10_000,
            gateways_expected: if self.scenario.expects_gateways { gateways } else { 0 },
            report_timeout_ms: 3_000,
            logins_default: self.scenario.logins,
            gateways_max: self.scenario.gateways_max,
            gateway_tags_max: self.scenario.tags_kept,
            ..BrokerConfig::default()
        }
    }

    fn brain(&mut self) -> (Vec<Shard>, Arc<Shared>) {
        let (instance, key) = (self.chance.id(), self.chance.id());
        let shared = Arc::new(Shared::new(self.broker_config(), instance, key));
        let shards = 0..self.scenario.shards;
        let shards = shards.map(|id| {
            let mut shard = Shard::new(id, Arc::clone(&shared));
            shard.set_turn(self.scenario.turn);
            shard
        });
        (shards.collect(), shared)
    }

    pub(super) fn add_broker(&mut self) {
        let process = Process::new(&mut self.chance, self.scenario.skewed);
        let (shards, shared) = self.brain();
        let broker = self.brokers.len();
        let (post, read_before) = (BTreeMap::new(), [0; 2]);
        self.brokers.push(Broker {
            process,
            shards,
            shared,
            post,
            drained: 0,
            suspects: 0,
            read_before,
        });
        self.soon(TICK, Event::Tick { broker });
    }

    /// Another life of a broker that was killed.
    pub(super) fn broker_again(&mut self, at: usize) {
        self.seen = self.seen.and(self.seen_at(at));
        self.oracle.feeds_dropped |= self.drops_for_consumers(at);
        let (shards, shared) = self.brain();
        let broker = &mut self.brokers[at];
        broker.process.alive = true;
        broker.process.life += 1;
        (broker.shards, broker.shared) = (shards, shared);
        broker.post.clear();
        (broker.drained, broker.suspects) = (0, 0);
    }

    fn broker_now(&self, at: usize) -> Duration {
        Duration::from_micros(self.brokers[at].process.local(self.now))
    }

    pub(super) fn tick(&mut self, broker: usize) {
        self.schedule(self.now + TICK, Event::Tick { broker });
        if self.brokers[broker].process.runs() {
            for shard in 0..self.brokers[broker].shards.len() {
                self.input(broker, shard, Input::Tick);
            }
        }
    }

    /// A broker that was stopped goes on: it reads what came before it looks at the time.
    pub(super) fn broker_resumes(&mut self, broker: usize) {
        let pipes = self.pipes_of(broker);
        pipes.iter().for_each(|&pipe| self.far_read(pipe));
        pipes.iter().for_each(|&pipe| self.far_write(pipe));
    }

    pub(super) fn pipes_of(&self, broker: usize) -> Vec<usize> {
        let far = |pipe: &Pipe| pipe.far.as_ref().is_some_and(|far| far.broker == broker);
        self.pipes.iter().filter(|(_, pipe)| far(pipe)).map(|(number, _)| *number).collect()
    }

    /// A connection is there.
    pub(super) fn accept(&mut self, near: Option<usize>, broker: usize) -> usize {
        let shard = self.chance.place(self.brokers[broker].shards.len());
        self.pipes_made += 1;
        let number = self.pipes_made;
        let pipe = Pipe::new(near, broker, shard, self.scenario.socket_bytes);
        self.pipes.insert(number, pipe);
        self.input(broker, shard, Input::Accepted { link: link_of(number), peer: None });
        number
    }

    pub(super) fn mail(&mut self, broker: usize, life: u64, from: usize, to: usize) {
        let it = &mut self.brokers[broker];
        if it.process.life != life || !it.process.alive {
            return;
        }
        if it.process.paused {
            return self.soon(50 * MS, Event::Mail { broker, life, from, to });
        }
        match it.post.get_mut(&(from, to)).and_then(VecDeque::pop_front) {
            Some(Post::Mail(mail)) => self.input(broker, to, Input::Mail(mail)),
            Some(Post::Link(number, peer, data)) => {
                // It may have been reset on its way.
                if let Some(far) = self.far(link_of(number)) {
                    far.shard = to;
                    self.input(broker, to, Input::Adopted { link: link_of(number), peer, data });
                }
            }
            None => {}
        }
    }

    pub(super) fn far_read(&mut self, number: usize) {
        let piece = self.chance.piece();
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        let Some(Far { broker, shard, read, .. }) = &mut pipe.far else { return };
        let (broker, shard) = (*broker, *shard);
        if !pipe.up.is_readable() || !self.brokers[broker].process.runs() {
            return;
        }
        let Some(mut data) = read.take() else { return };
        pipe.up.read(piece, &mut data);
        let near = pipe.near;
        let link = link_of(number);
        let input = if data.is_empty() {
            Input::Ended { link }
        } else {
            self.work.extend(near.map(Work::End));
            Input::Bytes { link, data }
        };
        self.input(broker, shard, input);
    }

    pub(super) fn far_write(&mut self, number: usize) {
        loop {
            let (piece, at) = (self.chance.piece(), self.arrival());
            let Some(pipe) = self.pipes.get_mut(&number) else { return };
            let Some(Far { broker, shard, write, .. }) = &mut pipe.far else { return };
            let (broker, shard) = (*broker, *shard);
            if !self.brokers[broker].process.runs() {
                return;
            }
            let Some((data, written)) = write else { return };
            let end = data.len().min(*written + piece);
            let (count, at) = pipe.down.write(at, &data[*written..end]);
            if count == 0 {
                return;
            }
            *written += count;
            let whole = (*written == data.len()).then(|| write.take()).flatten();
            self.schedule(at, Event::ArriveDown { pipe: number });
            if let Some((data, _)) = whole {
                return self.input(broker, shard, Input::Wrote { link: link_of(number), data });
            }
        }
    }

    /// The broker learns that the connection was reset.
    pub(super) fn reset_far(&mut self, number: usize) {
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        let Some(Far { broker, shard, .. }) = pipe.far else { return };
        if self.brokers[broker].process.paused {
            return self.soon(50 * MS, Event::ResetFar { pipe: number });
        }
        pipe.far = None;
        self.input(broker, shard, Input::Failed { link: link_of(number) });
        self.drop_pipe(number);
    }

    /// Forgets a pipe that neither end holds.
    pub(super) fn drop_pipe(&mut self, number: usize) {
        let gone = |pipe: &Pipe| pipe.near.is_none() && pipe.far.is_none();
        if self.pipes.get(&number).is_some_and(gone) {
            self.pipes.remove(&number);
        }
    }

    fn input(&mut self, broker: usize, shard: usize, input: Input) {
        let now = self.broker_now(broker);
        self.brokers[broker].shards[shard].handle(now, input);
        self.end_turn(broker, shard);
    }

    /// A shard goes on with what it could not do in one turn.
    pub(super) fn go_on_at_broker(&mut self, broker: usize, life: u64, shard: usize) {
        let it = &self.brokers[broker];
        if it.process.life != life || !it.process.alive {
            return;
        }
        if it.process.paused {
            return self.soon(50 * MS, Event::GoOn { broker, life, shard });
        }
        if it.shards[shard].has_more() {
            let now = self.broker_now(broker);
            self.brokers[broker].shards[shard].go_on(now);
            self.end_turn(broker, shard);
        }
    }

    fn end_turn(&mut self, broker: usize, shard: usize) {
        let now = self.broker_now(broker);
        let it = &mut self.brokers[broker];
        it.shards[shard].flush(now);
        if it.shards[shard].has_more() {
            let life = it.process.life;
            self.soon(50, Event::GoOn { broker, life, shard });
        }
        while let Some(output) = self.brokers[broker].shards[shard].output() {
            self.carry_out(broker, shard, output);
        }
        if self.events.is_multiple_of(4) {
            self.broker_bounds(broker, shard);
        }
    }

    /// Promise 7: what `limits.rs` says of each link.
    fn broker_bounds(&self, broker: usize, shard: usize) {
        let config = &self.brokers[broker].shared.config;
        for load in self.brokers[broker].shards[shard].loads() {
            let exceeded = load.exceeds(config);
            assert!(exceeded.is_none(), "promise 7: {exceeded:?}: {load:?}");
        }
    }

    /// Promise 7: what a broker knows of gateways, those that have gone among them. An incarnation
    /// has one suspended slot at most, so there are no more sessions than such slots.
    pub(super) fn broker_tables(&self, broker: usize) {
        let shared = &self.brokers[broker].shared;
        let (counts, held) = (shared.routes.counts(), shared.sessions_held());
        let slots = counts.slots_filling + counts.slots_live + counts.slots_suspended;
        let bounded = slots + counts.slots_dead <= shared.config.gateways_max as usize
            && held <= counts.slots_suspended
            && counts.routes.max(shared.registrations()) <= shared.config.routes_max;
        assert!(bounded, "promise 7: broker {broker}: {held} sessions, {counts:?}");
    }

    /// Once all is well a broker has what is online, and nothing of what was.
    pub(super) fn nothing_is_left(&self, broker: usize) {
        let shared = &self.brokers[broker].shared;
        let online: Vec<usize> = (0..self.sockets.len()).filter(|at| self.is_online(*at)).collect();
        let users = online.iter().map(|at| {
            let socket = &self.sockets[*at];
            (socket.gateway, self.users[socket.user].who())
        });
        let users: BTreeSet<_> = users.collect();
        let counts = shared.routes.counts();
        let gone = counts.slots_filling + counts.slots_suspended + counts.slots_dead;
        let is = (counts.slots_live, counts.routes, shared.registrations());
        assert_eq!(is, (self.gateways.len(), users.len(), online.len()), "promise 7: {broker}");
        let kept = (gone, counts.routes_dead, shared.sessions_held());
        assert_eq!(kept, (0, 0, 0), "promise 7: broker {broker} keeps what has gone");
    }

    fn is_online(&self, socket: usize) -> bool {
        let it = &self.sockets[socket];
        it.open && it.ready
    }

    /// A broker is told to stop.
    pub(super) fn drain_broker(&mut self, broker: usize) {
        for shard in 0..self.brokers[broker].shards.len() {
            self.input(broker, shard, Input::Drain { deadline_ms: 1_000 });
        }
    }

    /// A broker that was told to stop has.
    pub(super) fn broker_leaves(&mut self, broker: usize) {
        if self.brokers[broker].process.alive {
            self.brokers[broker].read_before = self.read_by_gateways(broker);
            self.goes_down(Actor::Broker(broker));
        }
    }

    /// Frames that gateways have read of this broker's, at least and at most, by what it says.
    pub(super) fn read_by_gateways(&self, broker: usize) -> [u64; 2] {
        let said = self.ledger(broker).gateways;
        let [least, most] = self.brokers[broker].read_before;
        let doubtful = said.in_doubt + said.unconfirmed;
        [least + said.delivered, most + said.delivered + doubtful]
    }

    pub(super) fn is_ready(&self, broker: usize) -> bool {
        self.brokers[broker].process.runs() && self.brokers[broker].shared.is_ready()
    }

    fn carry_out(&mut self, broker: usize, shard: usize, output: Output) {
        match output {
            Output::Read { link, buffer } => {
                if let Some(far) = self.far(link) {
                    let before = far.read.replace(buffer);
                    assert!(before.is_none(), "one read at a time");
                    self.work.push_back(Work::FarRead(number_of(link)));
                }
            }
            Output::Write { link, data, pieces } => {
                if let Some(far) = self.far(link) {
                    let before = far.write.replace((joined(data, &pieces), 0));
                    assert!(before.is_none(), "one write at a time");
                    self.work.push_back(Work::FarWrite(number_of(link)));
                }
            }
            Output::Shutdown { link } => self.far_ends(number_of(link)),
            Output::Close { link } => self.far_closes(number_of(link)),
            Output::HandOver { link, to, peer, data } => {
                if let Some(far) = self.far(link) {
                    assert!(far.read.is_none() && far.write.is_none(), "it has nothing to do");
                }
                self.post(broker, shard, to, Post::Link(number_of(link), peer, data));
            }
            Output::Mail { to, mail } => self.post(broker, shard, to, Post::Mail(mail)),
            Output::Drained => {
                self.note(|_| format!("broker {broker}: shard {shard} has drained"));
                self.brokers[broker].drained += 1;
                if self.brokers[broker].drained == self.brokers[broker].shards.len() {
                    self.work.push_back(Work::Drained(broker));
                }
            }
        }
    }

    fn post(&mut self, broker: usize, from: usize, to: u16, post: Post) {
        let (life, to) = (self.brokers[broker].process.life, usize::from(to));
        self.brokers[broker].post.entry((from, to)).or_default().push_back(post);
        self.soon(200, Event::Mail { broker, life, from, to });
    }

    fn far(&mut self, link: LinkId) -> Option<&mut Far> {
        self.pipes.get_mut(&number_of(link))?.far.as_mut()
    }

    fn far_ends(&mut self, number: usize) {
        let at = self.arrival();
        if let Some(pipe) = self.pipes.get_mut(&number) {
            let at = pipe.down.end(at);
            self.schedule(at, Event::ArriveDown { pipe: number });
        }
    }

    /// A socket that is closed with bytes in it resets the connection.
    fn far_closes(&mut self, number: usize) {
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        pipe.far = None;
        if pipe.up.unread() > 0 && !pipe.up.dead {
            let at = self.arrival();
            self.schedule(at, Event::ResetNear { pipe: number });
        } else {
            self.far_ends(number);
        }
        self.drop_pipe(number);
    }

    /// Whether a broker says that it had no room for something that a consumer was to have.
    pub(super) fn drops_for_consumers(&self, broker: usize) -> bool {
        let frames = self.ledger(broker).consumers;
        frames.dropped_outbox_full + frames.evicted_outbox_full > 0
    }

    /// Checks what a broker says of itself.
    pub(super) fn ledger(&self, broker: usize) -> waybill_broker::Ledger {
        let shards = &self.brokers[broker].shards;
        waybill_broker::Ledger::of(shards.iter().map(|shard| &**shard.counters()))
    }
}

fn link_of(number: usize) -> LinkId {
    LinkId(number as u64)
}

fn number_of(link: LinkId) -> usize {
    usize::try_from(link.0).expect("a number of a pipe")
}

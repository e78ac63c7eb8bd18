//! What the scenario does to the cluster: publishes, and faults of the kinds it has switched on.

use super::ends::{Owner, Phase};
use super::{Actor, Event, World};
use crate::scenario::{Fault, MS, SECOND};

impl World {
    pub(super) fn act(&mut self) {
        if self.healing || self.actions_left == 0 {
            return;
        }
        self.actions_left -= 1;
        let fault =
            !self.scenario.faults.is_empty() && self.chance.one_in(self.scenario.fault_every);
        if fault {
            let kind = self.scenario.faults[self.chance.place(self.scenario.faults.len())];
            self.fault(kind);
        } else if self.scenario.tags && self.chance.one_in(6) {
            self.tags_change();
        } else {
            self.publishes();
        }
        self.check_bounds();
        let pause = self.scenario.pause;
        self.soon(pause, Event::Act);
    }

    fn fault(&mut self, kind: Fault) {
        self.note(|_| format!("fault: {kind:?}"));
        match kind {
            Fault::Reset => self.on_some_pipe(Self::cut),
            Fault::HalfOpen => {
                self.on_some_pipe(Self::half_open);
                self.everybody_sends();
            }
            Fault::Freeze => self.on_some_pipe(Self::freeze),
            Fault::Pause => self.pause_some(),
            Fault::Jump => self.jump_some(),
            Fault::BrokerCrash => {
                let at = self.chance.place(self.brokers.len());
                self.crash(Actor::Broker(at));
            }
            Fault::GatewayCrash => {
                let at = self.chance.place(self.gateways.len());
                self.crash(Actor::Gateway(at));
            }
            Fault::ProducerCrash => {
                let at = self.chance.place(self.producers.len());
                self.crash(Actor::Producer(at));
            }
            Fault::ConsumerCrash if !self.consumers.is_empty() => {
                let at = self.chance.place(self.consumers.len());
                self.crash(Actor::Consumer(at));
            }
            Fault::ConsumerCrash => {}
            Fault::BrokerDrain => {
                let at = self.chance.place(self.brokers.len());
                if self.process(Actor::Broker(at)).runs() {
                    self.disturb_all(Actor::Broker(at));
                    self.drain_broker(at);
                }
            }
            Fault::GatewayDrain => {
                let at = self.chance.place(self.gateways.len());
                self.drain_gateway(at);
            }
            Fault::Suspend => self.suspend_some(),
            Fault::Garbage => self.talk_nonsense(),
        }
    }

    fn on_some_pipe(&mut self, act: fn(&mut Self, usize)) {
        if self.pipes.is_empty() {
            return;
        }
        let place = self.chance.place(self.pipes.len());
        let number = self.pipes.keys().nth(place).copied();
        if let Some(number) = number {
            self.disturb(number);
            act(self, number);
        }
    }

    /// What depends on this link may be late or lost from here on.
    pub(super) fn disturb(&mut self, number: usize) {
        let is_first = self.oracle.pipe_disturbed(number);
        self.note(|it| {
            let near = it.pipes.get(&number).and_then(|pipe| pipe.near);
            format!("pipe {number} is disturbed: {:?}", near.map(|end| it.ends[end].owner))
        });
        let Some(pipe) = self.pipes.get(&number) else { return };
        if let Some(far) = pipe.far.as_ref().filter(|_| is_first) {
            self.brokers[far.broker].suspects += 1;
        }
        let near = pipe.near;
        match near.map(|end| self.ends[end].owner) {
            Some(Owner::Gateway(gateway, broker) | Owner::Data(gateway, broker, _)) => {
                self.oracle.link_unsure(gateway, broker);
            }
            Some(Owner::Consumer(at, broker)) => self.oracle.consumer_unsure(at, broker),
            _ => {}
        }
    }

    pub(super) fn disturb_all(&mut self, actor: Actor) {
        let numbers: Vec<usize> = match actor {
            Actor::Broker(broker) => self.pipes_of(broker),
            _ => self.ends_of(actor).iter().filter_map(|end| self.ends[*end].pipe).collect(),
        };
        numbers.into_iter().for_each(|number| self.disturb(number));
        if let Actor::Gateway(gateway) = actor {
            (0..self.brokers.len()).for_each(|broker| self.oracle.link_unsure(gateway, broker));
        }
    }

    fn ends_of(&self, actor: Actor) -> Vec<usize> {
        match actor {
            Actor::Broker(_) => Vec::new(),
            Actor::Gateway(at) => {
                let gateway = &self.gateways[at];
                gateway.ends.iter().chain(gateway.data_ends.values()).copied().collect()
            }
            Actor::Producer(at) => vec![self.producers[at].end],
            Actor::Consumer(at) => self.consumers[at].ends.clone(),
        }
    }

    fn cut(&mut self, pipe: usize) {
        if let Some(it) = self.pipes.get_mut(&pipe) {
            (it.up.dead, it.down.dead) = (true, true);
        }
        self.soon(100 * MS, Event::ResetNear { pipe });
        self.soon(100 * MS, Event::ResetFar { pipe });
    }

    fn half_open(&mut self, pipe: usize) {
        let which = self.chance.below(3);
        if let Some(it) = self.pipes.get_mut(&pipe) {
            it.up.dead |= which != 0;
            it.down.dead |= which != 1;
        }
    }

    fn freeze(&mut self, pipe: usize) {
        let until = self.now + self.chance.below(5 * SECOND);
        if let Some(it) = self.pipes.get_mut(&pipe) {
            it.frozen_until = until;
        }
    }

    fn some_actor(&mut self) -> Actor {
        let (brokers, gateways) = (self.brokers.len(), self.gateways.len());
        let (producers, consumers) = (self.producers.len(), self.consumers.len());
        let at = self.chance.place(brokers + gateways + producers + consumers);
        match at {
            _ if at < brokers => Actor::Broker(at),
            _ if at < brokers + gateways => Actor::Gateway(at - brokers),
            _ if at < brokers + gateways + producers => Actor::Producer(at - brokers - gateways),
            _ => Actor::Consumer(at - brokers - gateways - producers),
        }
    }

    fn pause_some(&mut self) {
        let actor = self.some_actor();
        if self.process(actor).runs() {
            self.note(|_| format!("{actor:?} stops"));
            self.process(actor).paused = true;
            self.disturb_all(actor);
            self.soon(6 * SECOND, Event::Resume { actor });
        }
    }

    pub(super) fn resume(&mut self, actor: Actor) {
        if !std::mem::take(&mut self.process(actor).paused) {
            return;
        }
        self.note(|_| format!("{actor:?} goes on"));
        match actor {
            Actor::Broker(at) => self.broker_resumes(at),
            Actor::Gateway(at) => self.soon(10, Event::Gateway { gateway: at }),
            _ => {}
        }
        for end in self.ends_of(actor) {
            self.soon(100, Event::End { end });
        }
    }

    fn jump_some(&mut self) {
        let actor = self.some_actor();
        let leap = self.chance.below(8 * SECOND);
        self.note(|_| format!("the clock of {actor:?} leaps by {leap}"));
        self.process(actor).ahead += leap;
        self.disturb_all(actor);
        if let Actor::Gateway(at) = actor {
            self.soon(10, Event::Gateway { gateway: at });
        }
        for end in self.ends_of(actor) {
            self.soon(100, Event::End { end });
        }
    }

    pub(super) fn crash(&mut self, actor: Actor) {
        if self.process(actor).alive {
            self.note(|_| format!("{actor:?} is killed"));
            self.process(actor).killed = true;
            self.goes_down(actor);
        }
    }

    /// A process is no more.
    pub(super) fn goes_down(&mut self, actor: Actor) {
        self.disturb_all(actor);
        let process = self.process(actor);
        (process.alive, process.paused) = (false, false);
        // The system of a killed process resets its connections; a machine that fails does not.
        let silent = self.chance.one_in(3);
        match actor {
            Actor::Broker(at) => {
                for pipe in self.pipes_of(at) {
                    self.far_vanishes(pipe, silent);
                }
            }
            _ => {
                for end in self.ends_of(actor) {
                    self.near_vanishes(end, silent);
                }
            }
        }
        if let Actor::Gateway(at) = actor {
            self.sockets_lost(at);
            self.oracle.gateway_killed(at);
        }
        if let Actor::Producer(at) = actor {
            self.oracle.producer_killed(at);
        }
        self.soon(5 * SECOND, Event::Restart { actor });
    }

    fn far_vanishes(&mut self, number: usize, silent: bool) {
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        pipe.far = None;
        if silent {
            (pipe.up.dead, pipe.down.dead) = (true, true);
        } else {
            self.soon(20 * MS, Event::ResetNear { pipe: number });
        }
        self.drop_pipe(number);
    }

    fn near_vanishes(&mut self, end: usize, silent: bool) {
        self.ends[end].phase = Phase::Over;
        if silent
            && let Some(number) = self.ends[end].pipe.take()
            && let Some(pipe) = self.pipes.get_mut(&number)
        {
            pipe.near = None;
            (pipe.up.dead, pipe.down.dead) = (true, true);
            return self.drop_pipe(number);
        }
        self.near_closes(end);
    }

    pub(super) fn restart(&mut self, actor: Actor) {
        if self.process(actor).alive {
            return;
        }
        self.note(|_| format!("{actor:?} is back"));
        match actor {
            Actor::Broker(at) => self.broker_again(at),
            Actor::Gateway(at) => self.gateway_again(at),
            Actor::Producer(at) => self.producer_again(at),
            Actor::Consumer(at) => self.consumer_again(at),
        }
    }

    /// Somebody who is no client sends bytes that may begin like a frame.
    fn talk_nonsense(&mut self) {
        let broker = self.chance.place(self.brokers.len());
        if !self.brokers[broker].process.runs() {
            return;
        }
        self.brokers[broker].suspects += 1;
        let number = self.accept(None, broker);
        let mut bytes: Vec<u8> = (0..self.chance.below(200)).map(|_| self.any_byte()).collect();
        if self.chance.one_in(2) {
            // A prologue of a HELLO, then whatever.
            bytes.splice(0..0, [1, 1, 6, 0, 0, 0, 0, 0]);
        }
        let at = self.arrival();
        if let Some(pipe) = self.pipes.get_mut(&number) {
            pipe.up.write(at, &bytes);
            self.schedule(at, Event::ArriveUp { pipe: number });
            if self.chance.one_in(2) {
                self.soon(SECOND, Event::ResetFar { pipe: number });
            }
        }
    }

    fn any_byte(&mut self) -> u8 {
        self.chance.below(256).to_le_bytes()[0]
    }
}

//! Gateways that go in good order: one that is told to stop sends its users away and leaves; one
//! that is away for a while says so on a link and comes back.

use waybill_client::gateway::GatewayCommand;

use super::ends::{End, Owner, Phase};
use super::gateways::Stage;
use super::{Actor, Event, Work, World};
use crate::scenario::{MS, SECOND};

impl World {
    /// A gateway is told to stop.
    pub(super) fn drain_gateway(&mut self, at: usize) {
        let now = self.gateway_now(at);
        let gateway = &mut self.gateways[at];
        if gateway.process.runs() && gateway.stage == Stage::Serving {
            gateway.stage = Stage::Draining;
            gateway.sim.drain(now);
            self.work.push_back(Work::Gateway(at));
        }
    }

    /// Once no connection is left its links are closed.
    pub(super) fn gateway_leaves(&mut self, at: usize) {
        let gateway = &self.gateways[at];
        if gateway.stage != Stage::Draining || gateway.sim.connections().next().is_some() {
            return;
        }
        self.note(|_| format!("gateway {at} is empty"));
        let now = self.gateway_now(at);
        while self.gateways[at].sim.is_unfinished() {
            let _freed = self.gateways[at].sim.go_on(now);
        }
        self.hand_commands(at);
        self.disturb_all(Actor::Gateway(at));
        let now = self.instant(&self.gateways[at].process);
        let gateway = &mut self.gateways[at];
        gateway.stage = Stage::Leaving;
        gateway.links.iter_mut().for_each(|link| link.link().close(now));
        self.work.extend(gateway.ends.iter().copied().map(Work::End));
    }

    /// A link is over for good: so it should be only where its gateway leaves.
    pub(super) fn link_is_over(&mut self, owner: Owner) {
        // Its session has ended, or a newer one took its place: the control link knows.
        if let Owner::Data(..) = owner {
            return;
        }
        if let Owner::Gateway(at, link) = owner {
            self.gateways[at].links[link].finish();
            self.data_news(at, link);
        }
        let leaves = |at: usize| self.gateways[at].stage == Stage::Leaving;
        let Some((at, link)) = (match owner {
            Owner::Gateway(at, link) if leaves(at) => Some((at, link)),
            _ => None,
        }) else {
            panic!("{owner:?}: the link failed for good");
        };
        self.oracle.link_unsure(at, link);
        let gateway = &mut self.gateways[at];
        if gateway.ends.iter().any(|end| self.ends[*end].phase != Phase::Over) {
            return;
        }
        gateway.read_before += gateway.sim.stats().frames_in();
        gateway.process.alive = false;
        self.note(|_| format!("gateway {at} has left"));
        self.oracle.gateway_killed(at);
        let actor = Actor::Gateway(at);
        self.soon(if self.healing { 100 * MS } else { 5 * SECOND }, Event::Restart { actor });
    }

    /// A gateway says on one of its links that it will be away. The real one does not: it is for
    /// others that use the client crate.
    pub(super) fn suspend_some(&mut self) {
        let (at, link) =
            (self.chance.place(self.gateways.len()), self.chance.place(self.brokers.len()));
        let window_ms = [0, 500, 10_000][self.chance.place(3)];
        let gateway = &self.gateways[at];
        let end = gateway.ends[link];
        let End { phase, pipe, attempt, .. } = self.ends[end];
        let serves = gateway.process.runs() && gateway.stage == Stage::Serving;
        let Some(pipe) = pipe.filter(|_| serves && phase == Phase::Linked) else { return };
        self.note(|_| format!("gateway {at} suspends link {link} for {window_ms} ms"));
        self.disturb(pipe);
        let now = self.instant(&self.gateways[at].process);
        self.gateways[at].links[link].command(now, GatewayCommand::Suspend { window_ms });
        self.work.push_back(Work::End(end));
        self.soon(SECOND, Event::Leaves { end, attempt });
    }

    /// The link that SUSPEND was said on is closed, and opened again.
    pub(super) fn leaves(&mut self, end: usize, attempt: u64) {
        let End { owner, phase, attempt: current, .. } = self.ends[end];
        if attempt != current || phase != Phase::Linked {
            return;
        }
        if !self.owner_process(owner).runs() {
            return self.soon(50 * MS, Event::Leaves { end, attempt });
        }
        let error = self.link(owner).lost();
        self.end_link(end, error);
    }
}

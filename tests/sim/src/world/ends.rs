//! The clients' ends of links: the real link logic, driven over the network.

use std::time::{Duration, Instant};

use waybill_broker::config::OutboxPolicy;
use waybill_client::sim::Link;
use waybill_client::{ErrorCode, LinkError};

use super::gateways::Stage;
use super::{Event, Work, World};
use crate::scenario::SECOND;

/// Whose link it is; a gateway's and a consumer's with the broker. A data link's is over as soon as
/// its gateway does not have it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Producer(usize),
    Gateway(usize, usize),
    /// The data link to a shard, for a life of it.
    Data(usize, usize, u16),
    Consumer(usize, usize),
}

/// One client's end.
pub(super) struct End {
    pub(super) owner: Owner,
    pub(super) pipe: Option<usize>,
    pub(super) phase: Phase,
    /// Counts attempts, so that a late answer to an old one is recognised.
    pub(super) attempt: u64,
    /// The connection was reset.
    pub(super) reset: bool,
    /// When it is woken next.
    due: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Idle { at: u64 },
    Connecting { broker: usize },
    Linked,
    Over,
}

impl World {
    pub(super) fn add_end(&mut self, owner: Owner) -> usize {
        let phase = Phase::Idle { at: self.now };
        self.ends.push(End { owner, pipe: None, phase, attempt: 0, reset: false, due: u64::MAX });
        let end = self.ends.len() - 1;
        self.soon(2_000, Event::End { end });
        end
    }

    /// The owner is another life of itself: nothing is left of its link.
    pub(super) fn end_again(&mut self, end: usize) {
        let it = &mut self.ends[end];
        it.attempt += 1;
        it.phase = Phase::Idle { at: self.now };
        it.reset = false;
        it.due = u64::MAX;
        self.soon(2_000, Event::End { end });
    }

    pub(super) fn link(&mut self, owner: Owner) -> &mut dyn Link {
        match owner {
            Owner::Producer(at) => self.producers[at].sim.link(),
            Owner::Gateway(at, broker) => self.gateways[at].links[broker].link(),
            Owner::Data(at, broker, shard) => {
                let link = self.gateways[at].links[broker].data_link(shard);
                link.expect("an end that is driven has a link")
            }
            Owner::Consumer(at, broker) => self.consumers[at].sim.link(broker),
        }
    }

    fn owner_now(&self, owner: Owner) -> Instant {
        self.instant(self.owner_process(owner))
    }

    pub(super) fn drive_end(&mut self, end: usize) {
        let owner = self.ends[end].owner;
        if !self.owner_process(owner).runs() {
            return;
        }
        match self.ends[end].phase {
            Phase::Over => return,
            Phase::Linked => self.pump(end),
            Phase::Idle { .. } | Phase::Connecting { .. } => {
                let now = self.owner_now(owner);
                // Without a link only the machine has something due by time.
                let _none = self.link(owner).advance(now);
                self.take_events(end);
                if self.link(owner).may_leave(now) {
                    let error = self.link(owner).lost();
                    return self.end_link(end, error);
                }
                if matches!(self.ends[end].phase, Phase::Idle { at } if at <= self.now) {
                    self.connect(end);
                }
            }
        }
        self.wake_later(end);
    }

    fn wake_later(&mut self, end: usize) {
        let End { owner, phase, due, .. } = self.ends[end];
        if phase == Phase::Over {
            return;
        }
        let now = self.owner_now(owner);
        let deadline = self.link(owner).deadline(now);
        let deadline = deadline.map(|at| self.real(self.owner_process(owner), at));
        let at = match phase {
            Phase::Idle { at } => deadline.unwrap_or(at).min(at),
            Phase::Over => return,
            _ => deadline.unwrap_or(u64::MAX),
        };
        let at = at.max(self.now + 100);
        if at < u64::MAX && (at < due || due <= self.now) {
            self.ends[end].due = at;
            self.schedule(at, Event::End { end });
        }
    }

    fn connect(&mut self, end: usize) {
        let owner = self.ends[end].owner;
        let address = self.link(owner).connecting();
        let broker = broker_at(&address);
        let it = &mut self.ends[end];
        it.attempt += 1;
        it.phase = Phase::Connecting { broker };
        let attempt = it.attempt;
        let at = self.arrival();
        self.schedule(at, Event::Connect { end, attempt });
    }

    /// The broker's system answered.
    pub(super) fn connected(&mut self, end: usize, attempt: u64) {
        let End { owner, phase, attempt: current, .. } = self.ends[end];
        let Phase::Connecting { broker } = phase else { return };
        if attempt != current || !self.owner_process(owner).alive {
            return;
        }
        if self.owner_process(owner).paused {
            return self.soon(20_000, Event::Connect { end, attempt });
        }
        let now = self.owner_now(owner);
        if !self.brokers[broker].process.alive || self.brokers[broker].process.paused {
            let error = self.link(owner).lost();
            return self.end_link(end, error);
        }
        let pipe = self.accept(Some(end), broker);
        self.note(|_| format!("{owner:?} links to broker {broker} by pipe {pipe}"));
        let it = &mut self.ends[end];
        (it.pipe, it.phase, it.reset) = (Some(pipe), Phase::Linked, false);
        let until = now + Duration::from_secs(2);
        let address = std::sync::Arc::from(address_of(broker).as_str());
        if let Err(error) = self.link(owner).open(now, &address, until) {
            self.end_link(end, error);
        }
        match owner {
            Owner::Producer(at) => self.producers[at].linked(broker, pipe),
            Owner::Consumer(at, _) => self.oracle.consumer_linked(at, broker),
            Owner::Gateway(..) | Owner::Data(..) => {}
        }
        self.work.push_back(Work::End(end));
    }

    fn pump(&mut self, end: usize) {
        for _ in 0..1_000 {
            match self.pump_once(end) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.end_link(end, error),
            }
        }
        panic!("liveness: a link has always something to do: {:?}", self.ends[end].owner);
    }

    /// Writes, reads, and looks at the time; whether to go on.
    fn pump_once(&mut self, end: usize) -> Result<bool, LinkError> {
        let owner = self.ends[end].owner;
        let now = self.owner_now(owner);
        if self.ends[end].reset {
            return Err(self.link(owner).lost());
        }
        self.tell_whether_held(owner);
        let mut progress = self.write_up(end);
        progress |= self.read_down(end)?;
        self.take_events(end);
        self.tell_whether_held(owner);
        let Some(number) = self.ends[end].pipe else { return Ok(false) };
        if self.link(owner).advance(now)? {
            let at = self.arrival();
            if let Some(pipe) = self.pipes.get_mut(&number) {
                let at = pipe.up.end(at);
                self.schedule(at, Event::ArriveUp { pipe: number });
            }
        }
        Ok(progress || self.link(owner).is_busy())
    }

    fn write_up(&mut self, end: usize) -> bool {
        let owner = self.ends[end].owner;
        let now = self.owner_now(owner);
        let mut progress = false;
        while let Some(number) = self.ends[end].pipe {
            let (at, piece) = (self.arrival(), self.chance.piece());
            let out = self.link(owner).output(now);
            let out = out[..out.len().min(piece)].to_vec();
            let Some(pipe) = self.pipes.get_mut(&number) else { break };
            let (count, at) = pipe.up.write(at, &out);
            if count == 0 {
                break;
            }
            self.schedule(at, Event::ArriveUp { pipe: number });
            self.link(owner).written(count);
            if let Owner::Producer(at) = owner {
                self.producers[at].tap(&out[..count], &mut self.oracle);
            }
            progress = true;
        }
        progress
    }

    fn read_down(&mut self, end: usize) -> Result<bool, LinkError> {
        let owner = self.ends[end].owner;
        if self.is_held(owner) {
            return Ok(false);
        }
        let now = self.owner_now(owner);
        let piece = self.chance.piece();
        let reading = self.link(owner).set_reading(now);
        let Some(number) = self.ends[end].pipe else { return Ok(false) };
        let Some(pipe) = self.pipes.get_mut(&number) else { return Ok(false) };
        if !reading || !pipe.down.is_readable() {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        pipe.down.read(piece, &mut bytes);
        if bytes.is_empty() {
            return Err(self.link(owner).lost());
        }
        self.work.push_back(Work::FarWrite(number));
        self.link(owner).received(now, &bytes)?;
        Ok(true)
    }

    /// Whether a gateway takes nothing from this link before it has done what that said last.
    fn is_held(&self, owner: Owner) -> bool {
        match owner {
            Owner::Gateway(at, broker) | Owner::Data(at, broker, _) => {
                let gateway = &self.gateways[at];
                gateway.stage != Stage::Leaving && gateway.sim.is_held(broker)
            }
            _ => false,
        }
    }

    fn tell_whether_held(&mut self, owner: Owner) {
        if let Owner::Gateway(at, broker) | Owner::Data(at, broker, _) = owner {
            let is_held = self.is_held(owner);
            self.gateways[at].links[broker].set_held(is_held);
        }
    }

    fn take_events(&mut self, end: usize) {
        match self.ends[end].owner {
            Owner::Producer(at) => self.producer_news(at),
            Owner::Gateway(at, broker) | Owner::Data(at, broker, _) => {
                self.gateway_news(at, broker);
            }
            Owner::Consumer(at, broker) => self.consumer_news(at, broker),
        }
    }

    /// The link or attempt is over.
    pub(super) fn end_link(&mut self, end: usize, error: LinkError) {
        let owner = self.ends[end].owner;
        self.note(|_| format!("{owner:?} loses its link: {error}"));
        if let Owner::Consumer(at, broker) = owner {
            self.oracle.consumer_unsure(at, broker);
        }
        match (self.ends[end].pipe, error.code()) {
            (Some(pipe), Some(ErrorCode::KEEPALIVE_TIMEOUT)) => self.oracle.timed_out(pipe),
            (_, Some(ErrorCode::HELLO_TIMEOUT)) => {}
            (Some(pipe), Some(ErrorCode::SLOW_LINK))
                if self.scenario.outbox_policy == OutboxPolicy::Close =>
            {
                self.disturb(pipe);
            }
            (_, Some(code)) => {
                let honest = !(code.is_malformed() || code.is_violation());
                assert!(honest, "contract: {owner:?} and its broker are at odds: {error}");
            }
            _ => {}
        }
        let now = self.owner_now(owner);
        self.near_closes(end);
        let random = self.chance.any();
        let again = self.link(owner).end(now, error, random);
        let at = again.map(|delay| self.real(self.owner_process(owner), now + delay));
        self.ends[end].phase = at.map_or(Phase::Over, |at| Phase::Idle { at });
        self.take_events(end);
        match at {
            Some(_) => self.wake_later(end),
            None => self.link_is_over(owner),
        }
    }

    /// Its owner does not have the link any more.
    pub(super) fn end_is_gone(&mut self, end: usize) {
        self.near_closes(end);
        let it = &mut self.ends[end];
        it.phase = Phase::Over;
        it.attempt += 1;
    }

    /// The client lets go of its socket. With bytes in it that resets the connection.
    pub(super) fn near_closes(&mut self, end: usize) {
        let Some(number) = self.ends[end].pipe.take() else { return };
        let at = self.arrival();
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        pipe.near = None;
        if pipe.down.unread() > 0 && !pipe.up.dead {
            self.schedule(at, Event::ResetFar { pipe: number });
        } else {
            let at = pipe.up.end(at);
            self.schedule(at, Event::ArriveUp { pipe: number });
        }
        self.drop_pipe(number);
    }

    /// What was on its way is there.
    pub(super) fn arrive(&mut self, number: usize, up: bool) {
        let Some(pipe) = self.pipes.get_mut(&number) else { return };
        if pipe.frozen_until > self.now {
            let at = pipe.frozen_until;
            let event = match up {
                true => Event::ArriveUp { pipe: number },
                false => Event::ArriveDown { pipe: number },
            };
            return self.schedule(at, event);
        }
        let lane = if up { &mut pipe.up } else { &mut pipe.down };
        if !lane.arrive(self.now) {
            return;
        }
        match (up, pipe.near, &pipe.far) {
            (true, _, Some(_)) => self.work.push_back(Work::FarRead(number)),
            (false, Some(end), _) => self.work.push_back(Work::End(end)),
            // Bytes for a socket that is not there any more.
            (true, Some(_), None) if !pipe.down.dead => {
                self.soon(SECOND / 100, Event::ResetNear { pipe: number });
            }
            (false, None, Some(_)) if !pipe.up.dead => {
                self.soon(SECOND / 100, Event::ResetFar { pipe: number });
            }
            _ => {}
        }
    }

    /// The client learns that the connection was reset.
    pub(super) fn reset_near(&mut self, number: usize) {
        if let Some(end) = self.pipes.get(&number).and_then(|pipe| pipe.near) {
            self.ends[end].reset = true;
            self.work.push_back(Work::End(end));
        }
    }
}

pub(super) fn address_of(broker: usize) -> String {
    format!("b:{}", broker + 1)
}

fn broker_at(address: &str) -> usize {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<usize>().ok());
    port.expect("an address made here") - 1
}

//! Gateway processes: the real switchboard and sessions, with the real links to every broker.

use std::collections::BTreeMap;
use std::time::Duration;

use waybill_client::gateway::{GatewayCommand, GatewayEvent};
use waybill_client::sim::{DataNews, GatewayLink};
use waybill_client::{Backoff, Options};
use waybill_gateway::GatewayConfig;
use waybill_gateway::session::Now;
use waybill_gateway::sim::{SimGateway, UIDS_PER_MESSAGE};
use waybill_wire::limits::TARGETS_MAX;

use super::backends::LARGE;
use super::ends::{Owner, Phase, address_of};
use super::{Event, Process, Work, World};
use crate::scenario::{MS, SECOND};

/// Signs the users' tokens.
pub(super) const SECRET: &str = "a secret that all of them know, of 32 bytes";

/// One gateway.
pub(super) struct Gateway {
    pub(super) process: Process,
    pub(super) sim: SimGateway,
    pub(super) links: Vec<GatewayLink>,
    pub(super) incarnation: u64,
    pub(super) ends: Vec<usize>,
    /// Of data links, by broker and shard.
    pub(super) data_ends: BTreeMap<(usize, u16), usize>,
    /// Sockets of this life.
    pub(super) sockets: Vec<usize>,
    due: u64,
    pub(super) stage: Stage,
    /// Messages it had read when it last stopped.
    pub(super) read_before: u64,
}

/// How far a gateway is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    /// Its users are sent away.
    Draining,
    /// Nobody is left; its links are being closed.
    Leaving,
}

/// Options of every link, short in time so that a run is.
pub(super) fn options(brokers: impl IntoIterator<Item = usize>) -> Options {
    Options {
        backoff: Backoff { min: Duration::from_millis(100), max: Duration::from_secs(2) },
        connect_timeout: Duration::from_secs(2),
        ..Options::new(brokers.into_iter().map(address_of))
    }
}

impl World {
    fn gateway_parts(&mut self) -> (SimGateway, Vec<GatewayLink>, u64) {
        let brokers = 0..self.brokers.len();
        let mut config = GatewayConfig::default();
        config.jwt.secret = SECRET.into();
        config.broker.addresses = brokers.clone().map(address_of).collect();
        config.deadlines.register_ms = 4_000;
        config.deadlines.uplink_ms = 4_000;
        config.deadlines.heartbeat_ms = 4_000;
        config.deadlines.close_ms = 1_000;
        config.deadlines.report_ms = 1_000;
        config.deadlines.drain_ms = 2_000;
        config.limits.queue_bytes_max = self.scenario.queue_bytes;
        config.limits.uplinks_max = self.scenario.table;
        config.limits.reports_max = self.scenario.table;
        config.limits.recent_messages_max = self.scenario.recent;
        let incarnation = self.chance.id();
        let mut sim = SimGateway::new(&config, incarnation);
        sim.set_part(self.scenario.part);
        let (tags, data_links) = (config.broker.tags, self.scenario.data_links);
        let options = |at| Options { tags, data_links, ..options([at]) };
        let links = brokers.map(|at| GatewayLink::new(&options(at), incarnation)).collect();
        (sim, links, incarnation)
    }

    pub(super) fn add_gateway(&mut self) {
        let process = Process::new(&mut self.chance, self.scenario.skewed);
        let (sim, links, incarnation) = self.gateway_parts();
        let at = self.gateways.len();
        let ends = (0..links.len()).map(|broker| self.add_end(Owner::Gateway(at, broker)));
        let ends = ends.collect();
        let (sockets, due) = (Vec::new(), u64::MAX);
        let (stage, read_before) = (Stage::Serving, 0);
        self.gateways.push(Gateway {
            process,
            sim,
            links,
            incarnation,
            ends,
            data_ends: BTreeMap::new(),
            sockets,
            due,
            stage,
            read_before,
        });
    }

    /// Another life of a gateway that was killed.
    pub(super) fn gateway_again(&mut self, at: usize) {
        let (sim, links, incarnation) = self.gateway_parts();
        let gateway = &mut self.gateways[at];
        gateway.process.alive = true;
        gateway.process.life += 1;
        (gateway.sim, gateway.links, gateway.incarnation) = (sim, links, incarnation);
        gateway.due = u64::MAX;
        gateway.stage = Stage::Serving;
        for end in std::mem::take(&mut gateway.data_ends).into_values() {
            self.end_is_gone(end);
        }
        let gateway = &self.gateways[at];
        for end in gateway.ends.clone() {
            self.end_again(end);
        }
    }

    pub(super) fn gateway_now(&self, at: usize) -> Now {
        let local = self.gateways[at].process.local(self.now);
        Now { ms: local / MS, unix_s: 1_800_000_000 + local / SECOND }
    }

    pub(super) fn gateway_news(&mut self, at: usize, broker: usize) {
        let now = self.gateway_now(at);
        let mut any = false;
        let is_leaving = self.gateways[at].stage == Stage::Leaving;
        while (is_leaving || !self.gateways[at].sim.is_held(broker))
            && let Some(event) = self.gateways[at].links[broker].poll()
        {
            any = true;
            match &event {
                GatewayEvent::InEffect { ticket } => {
                    self.oracle.in_effect(at, broker, *ticket);
                    self.link_is_sure(at, broker);
                }
                GatewayEvent::Delivery(delivery) => {
                    let message = delivery.message();
                    self.oracle.given(at, &message);
                }
                GatewayEvent::Down { .. } | GatewayEvent::DataLinkLost { .. } => {
                    self.oracle.link_unsure(at, broker);
                }
                _ => {}
            }
            self.gateways[at].sim.link_event(broker, event, now);
        }
        self.data_news(at, broker);
        if any {
            self.work.push_back(Work::Gateway(at));
        }
    }

    /// What is published from now on arrives, unless something is done to one of its links.
    fn link_is_sure(&mut self, at: usize, broker: usize) {
        let gateway = &self.gateways[at];
        let data = gateway.data_ends.range((broker, 0)..=(broker, u16::MAX)).map(|(_, end)| *end);
        let ends = std::iter::once(gateway.ends[broker]).chain(data);
        let pipes: Option<Vec<usize>> = ends.map(|end| self.ends[end].pipe).collect();
        if let Some(pipes) = pipes.filter(|_| gateway.links[broker].is_whole()) {
            self.oracle.link_sure(at, broker, &pipes);
        }
    }

    /// Data links come and go with the control link, and when they are lost.
    pub(super) fn data_news(&mut self, at: usize, broker: usize) {
        for news in self.gateways[at].links[broker].data_news() {
            match news {
                DataNews::New(shard) => {
                    let end = self.add_end(Owner::Data(at, broker, shard));
                    self.gateways[at].data_ends.insert((broker, shard), end);
                }
                DataNews::Gone(shard) => {
                    if let Some(end) = self.gateways[at].data_ends.remove(&(broker, shard)) {
                        self.end_is_gone(end);
                    }
                }
            }
        }
    }

    /// Hands over what is due in either direction.
    pub(super) fn drive_gateway(&mut self, at: usize) {
        // What it still hears is counted; it says nothing more.
        let is_leaving = self.gateways[at].stage == Stage::Leaving;
        if is_leaving || !self.gateways[at].process.runs() {
            return;
        }
        let now = self.gateway_now(at);
        let gateway = &mut self.gateways[at];
        if gateway.sim.deadline().is_some_and(|due| due <= now.ms) {
            gateway.sim.tick(now);
        }
        self.go_on(at, now);
        self.hand_commands(at);
        for place in 0..self.gateways[at].sockets.len() {
            let socket = self.gateways[at].sockets[place];
            self.hand_in(socket);
        }
        self.look_at_sockets(at);
        self.gateway_later(at);
        if self.events.is_multiple_of(4) {
            self.gateway_bounds(at);
        }
        self.gateway_leaves(at);
    }

    /// A part of what its brokers have asked for. The others are heard first: what is left comes as
    /// an event of its own.
    fn go_on(&mut self, at: usize, now: Now) {
        let sim = &mut self.gateways[at].sim;
        if !sim.is_unfinished() {
            return;
        }
        let freed = sim.go_on(now);
        if sim.is_unfinished() {
            self.soon(50, Event::Gateway { gateway: at });
        }
        if let Some(broker) = freed {
            let gateway = &self.gateways[at];
            self.work.push_back(Work::End(gateway.ends[broker]));
            let data = gateway.data_ends.range((broker, 0)..=(broker, u16::MAX));
            self.work.extend(data.map(|(_, end)| Work::End(*end)));
        }
    }

    /// Promise 7: what the documentation of its settings says.
    fn gateway_bounds(&self, at: usize) {
        let (sim, scenario) = (&self.gateways[at].sim, &self.scenario);
        let (load, table) = (sim.load(), scenario.table);
        let waiting = sim.queue_bytes_most();
        // One message more, encoded: its payload, its number and its frame.
        let largest = if scenario.large { LARGE } else { scenario.payload };
        let one = usize::try_from(largest).unwrap_or(0) + 64;
        assert!(
            waiting <= scenario.queue_bytes + one,
            "promise 7: {waiting} bytes wait for a user"
        );
        let recent = scenario.recent;
        // The newest list stays, however long.
        let uids = (UIDS_PER_MESSAGE * recent).max(TARGETS_MAX);
        let bounded = load.uplinks <= table
            && load.reports <= 2 * table
            && load.recent <= recent
            && load.recent_uids <= uids
            && load.past <= recent
            && load.past_users <= UIDS_PER_MESSAGE * recent;
        assert!(bounded, "promise 7: gateway {at}: {load:?}, tables of {table} and {recent}");
    }

    pub(super) fn hand_commands(&mut self, at: usize) {
        let now = self.instant(&self.gateways[at].process);
        for (link, command) in self.gateways[at].sim.commands() {
            self.note(|_| format!("gateway {at} link {link}: {command:?}"));
            let gateway = &mut self.gateways[at];
            let end = gateway.ends[link];
            if let GatewayCommand::Change { ticket, .. } = &command {
                self.oracle.told(at, link, *ticket);
            }
            if self.ends[end].phase == Phase::Over {
                gateway.sim.link_gone(link, command);
            } else if gateway.links[link].wants_commands() {
                gateway.links[link].command(now, command);
                self.work.push_back(Work::End(end));
                let data = gateway.data_ends.range((link, 0)..=(link, u16::MAX));
                self.work.extend(data.map(|(_, end)| Work::End(*end)));
            } else {
                gateway.sim.not_taken(link, command);
            }
        }
    }

    fn gateway_later(&mut self, at: usize) {
        let gateway = &self.gateways[at];
        let Some(due) = gateway.sim.deadline() else { return };
        let mut due = gateway.process.real(due.saturating_mul(MS)).max(self.now + 500);
        if gateway.sim.has_changes() {
            due = due.min(self.now + 5 * MS);
        }
        // What is due already is among the events: another one for it would never go again.
        if due < gateway.due || gateway.due <= self.now {
            self.gateways[at].due = due;
            self.schedule(due, Event::Gateway { gateway: at });
        }
    }
}

//! The faults: a plan from the seed, its execution, and how long each was felt.
//!
//! Every process in turn is killed and stopped, and pairs are parted, again and again. A fault is
//! over for the judge when every broker answers for every gateway again.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use crate::clock::{Micros, SECOND};
use crate::load::{Probes, Told};
use crate::net::{End, Way};
use crate::servers::Server;
use crate::world::World;

/// How long everything may take to be well again after a fault.
const RECOVERY_MAX: Micros = 60 * SECOND;

/// What is done.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// `kill -9`; started again after this.
    Kill { server: usize, down: Duration },
    /// SIGSTOP, and SIGCONT after this.
    Stop { server: usize, still: Duration },
    /// Packets between a node and another end are dropped.
    Part { server: usize, other: Option<usize>, way: Way, apart: Duration },
}

/// One fault as it was done.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) words: String,
    pub(crate) from: Micros,
    pub(crate) to: Micros,
    /// When every pair of broker and gateway answered again.
    pub(crate) well_at: Option<Micros>,
    /// For each pair that was hurt, from the fault to the first answer that says so.
    pub(crate) detected: Vec<Micros>,
}

/// All servers in one order: brokers, then gateways.
fn server(world: &World, index: usize) -> &Server {
    world.servers().nth(index).expect("an index below the number of servers")
}

/// One round: every process is killed and stopped once, in random order, with partitions between.
fn round(world: &World, random: &mut StdRng) -> Vec<Kind> {
    let (brokers, gateways) = (world.brokers.len(), world.gateways.len());
    let millis =
        |random: &mut StdRng, from, to| Duration::from_millis(random.random_range(from..to));
    let mut kinds = Vec::new();
    for index in 0..brokers + gateways {
        kinds.push(Kind::Kill { server: index, down: millis(random, 0, 4_000) });
        kinds.push(Kind::Stop { server: index, still: millis(random, 500, 8_000) });
        if world.net.can_part() {
            let way = [Way::Both, Way::Both, Way::In, Way::Out][random.random_range(0..4)];
            let broker = random.random_range(0..brokers);
            let gateway = brokers + random.random_range(0..gateways);
            let (server, other) = match random.random_range(0..10) {
                0..7 => (gateway, Some(broker)),
                7..9 => (broker, None),
                _ => (gateway, None),
            };
            kinds.push(Kind::Part { server, other, way, apart: millis(random, 1_000, 10_000) });
        }
    }
    kinds.shuffle(random);
    kinds
}

/// Does faults until this time; what was done.
pub(crate) async fn hurt(world: Arc<World>, until: Micros, probes: Probes) -> Vec<Fault> {
    let mut random = StdRng::seed_from_u64(world.seed ^ 0xfa17);
    let mut done = Vec::new();
    let mut plan = Vec::new();
    while world.clock.now() < until {
        if plan.is_empty() {
            plan = round(&world, &mut random);
        }
        let Some(kind) = plan.pop() else { break };
        let mut fault = inflict(&world, kind).await;
        // Most of the time everything becomes well first; the rest hits what is still recovering.
        let waits = random.random_range(0..3) > 0;
        let pause = if waits { 500..6_000 } else { 100..1_500 };
        let pause = Duration::from_millis(random.random_range(pause));
        if waits {
            recover(&world, &mut fault, &probes).await;
        }
        done.push(fault);
        sleep(pause).await;
    }
    if let Some(last) = done.last_mut() {
        recover(&world, last, &probes).await;
    }
    finish(&mut done, &probes);
    done
}

async fn inflict(world: &World, kind: Kind) -> Fault {
    let from = world.clock.now();
    let words = words(world, &kind);
    match &kind {
        Kind::Kill { server: index, down } => {
            let server = server(world, *index);
            let life = (server.name(), server.life());
            server.kill();
            let now = world.clock.now();
            world.shared.with(|record| record.kills.insert(life, now));
            sleep(*down).await;
            if let Err(error) = server.start(&world.net) {
                violation(world, "a process does not start", error);
            }
        }
        Kind::Stop { server: index, still } => {
            let server = server(world, *index);
            server.stop();
            sleep(*still).await;
            server.go_on();
        }
        Kind::Part { server: index, other, way, apart } => {
            let node = server(world, *index).node;
            let end = other.map_or(End::Outside, |other| End::Node(server(world, other).node));
            let parted = world.net.part(node, end, *way);
            sleep(*apart).await;
            if let Err(error) = parted.and(world.net.join(node)) {
                violation(world, "the network cannot be changed", error);
            }
        }
    }
    Fault { kind, words, from, to: world.clock.now(), well_at: None, detected: Vec::new() }
}

fn violation(world: &World, what: &'static str, details: String) {
    world.shared.with(|record| record.violations.add(what, || details));
}

fn words(world: &World, kind: &Kind) -> String {
    let name = |index: usize| server(world, index).name();
    match kind {
        Kind::Kill { server, down } => {
            format!("kill -9 {}, back after {} ms", name(*server), down.as_millis())
        }
        Kind::Stop { server, still } => {
            format!("SIGSTOP {} for {} ms", name(*server), still.as_millis())
        }
        Kind::Part { server, other, way, apart } => {
            let other = other.map_or("the clients".into(), name);
            let way = match way {
                Way::Both => "and",
                Way::In => "deaf to",
                Way::Out => "mute to",
            };
            format!("parted {} {way} {other} for {} ms", name(*server), apart.as_millis())
        }
    }
}

/// Waits until every pair answers *sent* twice, asked after the end of the fault.
async fn recover(world: &World, fault: &mut Fault, probes: &Probes) {
    let deadline = fault.to + RECOVERY_MAX;
    while well_at(world, fault.to, probes).is_none() {
        if world.clock.now() > deadline {
            let details = format!("{} at {} us: {}", fault.words, fault.from, sick(world, probes));
            violation(world, "not well again in 60 s", details);
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// When, after this time, the second *sent* of the last pair was said.
fn well_at(world: &World, after: Micros, probes: &Probes) -> Option<Micros> {
    let probes = probes.lock().expect("no panic under the lock");
    let mut well = after;
    for broker in 0..world.brokers.len() {
        for gateway in 0..world.gateways.len() {
            let mut run = 0;
            let answers = probes.iter().filter(|probe| {
                (probe.broker, probe.gateway) == (broker, gateway) && probe.asked_at > after
            });
            let second = answers.into_iter().find(|probe| {
                run = if probe.told == Told::Sent { run + 1 } else { 0 };
                run == 2
            });
            well = well.max(second?.answered_at);
        }
    }
    Some(well)
}

/// The pairs whose last answer was not *sent*.
fn sick(world: &World, probes: &Probes) -> String {
    let probes = probes.lock().expect("no panic under the lock");
    let mut words = Vec::new();
    for broker in 0..world.brokers.len() {
        for gateway in 0..world.gateways.len() {
            let pair = (broker, gateway);
            let last = probes.iter().rev().find(|probe| (probe.broker, probe.gateway) == pair);
            if let Some(last) = last.filter(|last| last.told != Told::Sent) {
                words.push(format!("broker {broker} of gateway {gateway}: {:?}", last.told));
            }
        }
    }
    words.join(", ")
}

/// When each was felt and when it was over, from all probes.
fn finish(faults: &mut [Fault], probes: &Probes) {
    let probes = probes.lock().expect("no panic under the lock");
    let brokers = probes.iter().map(|probe| probe.broker + 1).max().unwrap_or(0);
    let gateways = probes.iter().map(|probe| probe.gateway + 1).max().unwrap_or(0);
    for fault in faults {
        let mut well = Some(fault.to);
        for broker in 0..brokers {
            for gateway in 0..gateways {
                let pair = probes.iter().filter(|p| (p.broker, p.gateway) == (broker, gateway));
                let mut run = 0;
                let second = pair.clone().filter(|p| p.asked_at > fault.to).find(|probe| {
                    run = if probe.told == Told::Sent { run + 1 } else { 0 };
                    run == 2
                });
                well = well.zip(second).map(|(well, second)| well.max(second.answered_at));
                if hits(fault, brokers, broker, gateway) {
                    let mut during = pair.filter(|p| (fault.from..fault.to).contains(&p.asked_at));
                    let gone = during.find(|probe| probe.told == Told::Offline);
                    fault.detected.extend(gone.map(|probe| probe.answered_at - fault.from));
                }
            }
        }
        fault.well_at = well;
    }
}

/// Whether the broker should notice this of the gateway: it has no more word from it.
fn hits(fault: &Fault, brokers: usize, broker: usize, gateway: usize) -> bool {
    match fault.kind {
        Kind::Kill { server, .. } | Kind::Stop { server, .. } => server == brokers + gateway,
        Kind::Part { server, other, .. } => server == brokers + gateway && other == Some(broker),
    }
}

//! What people would pick instead of Waybill, on the same work: NATS, Redis, RabbitMQ.
//!
//! Codecs are bytes only (`resp`, `nats`, `amqp`); drivers are protocols without I/O (`pubsub`,
//! `rabbitmq`); `servers` starts the processes. Each peer is driven the way its own documentation
//! calls fastest, which is written, with its source, at the top of each driver.

mod amqp;
mod decimal;
mod nats;
mod parcel;
mod pubsub;
mod rabbitmq;
mod resp;
mod routes;
mod servers;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use pubsub::{Addressing, Channels, PubSub, Subjects};
use rabbitmq::{Lists, RabbitMq};
use routes::Routes;
use servers::Started;

use crate::failure::Failure;
use crate::process::Place;
use crate::targets::{Plan, Running, Skipped, Target};
use crate::work::{Shares, WorkPlan};

/// All of them.
#[must_use]
pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "nats/uid",
            driven: "a subject for each UID, published to one by one",
            routes: true,
            start: nats_uid,
        },
        Target {
            name: "nats/lookup",
            driven: "a subject for each gateway; the producer asks a table in Redis (MGET of 64, \
                     pipelined) and groups",
            routes: true,
            start: nats_lookup,
        },
        Target {
            name: "nats/gw",
            driven: "a subject for each gateway; the producer knows every route for nothing",
            routes: false,
            start: nats_gw,
        },
        Target {
            name: "redis/uid",
            driven: "a channel for each UID, published to one by one",
            routes: true,
            start: redis_uid,
        },
        Target {
            name: "redis/lookup",
            driven: "a channel for each gateway; the producer asks a table in the same Redis (MGET \
                     of 64, pipelined) and groups",
            routes: true,
            start: redis_lookup,
        },
        Target {
            name: "rabbitmq",
            driven: "a direct exchange, a queue for each gateway, a binding for each UID; groups \
                     by CC; transient, no confirms, no acknowledgements",
            routes: true,
            start: rabbitmq,
        },
        Target {
            name: "rabbitmq/uid",
            driven: "as rabbitmq, but a group is published one by one",
            routes: true,
            start: rabbitmq_uid,
        },
    ]
}

/// Bytes in flight that a server may have to keep for its readers: far below every limit of theirs,
/// and what their users' windows are.
const FLIGHT_BYTES: u64 = 4 << 20;
/// What a copy of a message takes beside its payload, about.
const COPY_BYTES: u64 = 64;

/// No window is smaller, however large a message is.
const WINDOW_MIN: u64 = 8;

/// Copies of a message, in the mean, where each user of a group gets one.
fn copies(work: &WorkPlan) -> u64 {
    let Shares { single, group, broadcast } = work.shares;
    let (single, group, broadcast) = (u64::from(single), u64::from(group), u64::from(broadcast));
    let copies = single + group * work.group_uids as u64 + broadcast * work.gateways as u64;
    copies / (single + group + broadcast).max(1)
}

/// The window where each user of a group gets a copy.
fn window_of_copies(work: &WorkPlan) -> Option<u64> {
    let bytes = copies(work) * (work.payload_bytes as u64 + COPY_BYTES);
    (work.shares.group > 0).then_some((FLIGHT_BYTES / bytes).max(WINDOW_MIN))
}

fn running(started: Vec<Started>, driver: Box<dyn crate::driver::Driver>) -> Running {
    let (mut servers, mut versions) = (Vec::new(), Vec::new());
    for one in started {
        servers.extend(one.servers);
        versions.extend(one.versions);
    }
    Running { driver, servers, versions, window: None, notes: Vec::new() }
}

fn on_nats(address: SocketAddr, addressing: Addressing, work: &WorkPlan) -> PubSub<Subjects> {
    PubSub::new(address, addressing, work.users, work.gateways)
}

fn on_redis(address: SocketAddr, addressing: Addressing, work: &WorkPlan) -> PubSub<Channels> {
    PubSub::new(address, addressing, work.users, work.gateways)
}

fn table(redis: &Started, work: &WorkPlan) -> Addressing {
    let routes = Routes::new(redis.address, work.users, work.gateways);
    Addressing::LookedUp(Box::new(routes))
}

fn nats_uid(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let Shares { single, group, .. } = plan.work.shares;
    // Messages for everyone go to one subject, and its cache pays.
    let subjects =
        if single + group > 0 { servers::Subjects::Many } else { servers::Subjects::Few };
    let nats = servers::nats(place, subjects, plan.pending)?;
    let driver = on_nats(nats.address, Addressing::PerUser, plan.work);
    let window = window_of_copies(plan.work);
    Ok(Running { window, ..running(vec![nats], Box::new(driver)) })
}

fn nats_lookup(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let redis = servers::redis(place, plan.pending)?;
    let nats = servers::nats(place, servers::Subjects::Few, plan.pending)?;
    let driver = on_nats(nats.address, table(&redis, plan.work), plan.work);
    Ok(running(vec![nats, redis], Box::new(driver)))
}

fn nats_gw(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let nats = servers::nats(place, servers::Subjects::Few, plan.pending)?;
    let driver = on_nats(nats.address, Addressing::Known, plan.work);
    Ok(running(vec![nats], Box::new(driver)))
}

fn redis_uid(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let redis = servers::redis(place, plan.pending)?;
    let driver = on_redis(redis.address, Addressing::PerUser, plan.work);
    let window = window_of_copies(plan.work);
    Ok(Running { window, ..running(vec![redis], Box::new(driver)) })
}

fn redis_lookup(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let redis = servers::redis(place, plan.pending)?;
    let driver = on_redis(redis.address, table(&redis, plan.work), plan.work);
    Ok(running(vec![redis], Box::new(driver)))
}

fn on_rabbitmq(place: &Place, work: &WorkPlan, lists: Lists) -> Result<Running, Skipped> {
    let rabbitmq = servers::rabbitmq(place)?;
    let driver = RabbitMq::new(rabbitmq.address, work.users, work.gateways, lists);
    Ok(running(vec![rabbitmq], Box::new(driver)))
}

fn rabbitmq(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let running = on_rabbitmq(place, plan.work, Lists::CarbonCopies)?;
    // A list takes RabbitMQ up to a second: a few keep it busy.
    let Shares { single, group, broadcast } = plan.work.shares;
    let all = u64::from(single) + u64::from(group) + u64::from(broadcast);
    let window = (group > 0).then(|| WINDOW_MIN * all / u64::from(group));
    Ok(Running { window, ..running })
}

fn rabbitmq_uid(plan: &Plan<'_>, place: &Place) -> Result<Running, Skipped> {
    let running = on_rabbitmq(place, plan.work, Lists::OneByOne)?;
    Ok(Running { window: window_of_copies(plan.work), ..running })
}

/// Bytes that are not of the protocol, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sent {0}")]
struct Malformed(&'static str);

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::new(malformed)
    }
}

/// What a server said, for a person.
fn words(said: &[u8]) -> String {
    String::from_utf8_lossy(said).into_owned()
}

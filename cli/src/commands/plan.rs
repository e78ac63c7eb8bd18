//! `waybill plan`: what a deployment needs, from what was measured.
//!
//! Every constant names its measurement. All were taken on one virtual machine of two cores, so
//! cores are for orientation. What may be taken at most is another question: `config memory`.

use serde_json::json;
use waybill_broker::BrokerConfig;
use waybill_broker::limits::{READ_BYTES, WRITE_BYTES};
use waybill_broker::memory::ROUTE_BYTES;
use waybill_gateway::config::{BrokerConfig as GatewayBrokerConfig, LimitConfig};
use waybill_wire::limits::{PAYLOAD_BYTES_MAX, TARGETS_MAX};
use waybill_wire::memory::wide;

use crate::Common;
use crate::failure::Outcome;
use crate::output::{self, bytes_in_words};

/// Bytes of a registration beside its route: a broker's resident memory grew by 64 bytes a user
/// from none to 1, 2 and 4 x 10^6 users of one gateway, in the order of their UIDs, 16 of them of
/// the route.
const REGISTRATION_BYTES: u64 = 48;
/// Bytes of a link that waits: resident memory of a broker grew by 9.4 KB for each of 2,000
/// producers and 11.1 KB for each of 1,000 gateways without users.
const LINK_BYTES: u64 = 11_100;
/// A link in use: its read buffer, and what is being written and its spare, as large as they get.
const BUSY_BYTES: u64 = (READ_BYTES + 2 * WRITE_BYTES) as u64;
/// Bytes of a broker that nobody is linked to: 8.2 MB were measured.
const BROKER_BYTES: u64 = 8_200_000;
/// Bytes of a tag, and of each gateway that has it: what `config memory` counts for a tag of 64
/// bytes, and for a set that is small.
const TAG_BYTES: u64 = 96;
const TAG_AT_GATEWAY_BYTES: u64 = 2;
/// Bytes of an idle WebSocket, broker and gateways together: 11.1 KiB each for 10,000 of them
/// (`waybill-bench run idle`).
const CONNECTION_BYTES: u64 = 11_400;
/// CPU of one in a minute, of which it was 258 us with a heartbeat each 5 s (the same run), for the
/// heartbeat each 25 s that is the default.
const CONNECTION_US: f64 = 258.0 / 5.0;

/// CPU of a delivery to a connection, in a write of its own; 0.53 us each where sixteen leave in
/// one (`docs/decisions/0026-one-pool-for-what-connections-hold.md`).
const DELIVERY_US: f64 = 5.9;

/// CPU of a message to one of 10^5 users, and of each further UID in its list: 0.087 us, and 15.6
/// us for a list of 1,000 (`waybill-bench run direct group`, 8 gateways, medians of nine repeats).
const MESSAGE_US: f64 = 0.087;
const TARGET_US: f64 = 0.0155;
/// CPU of a registration that comes or goes, under traffic
/// (`docs/decisions/0021-what-changes-of-routes-cost-traffic.md`).
const CHANGE_US: f64 = 0.31;
/// Look-ups, by users: ns of one in a read of 1,000 messages, and of one in a list of 1,000
/// (`docs/decisions/0018-one-route-table-in-groups-of-blocks.md`, 100 gateways).
const LOOK_UPS: [(u64, f64, f64); 4] = [
    (100_000, 22.2, 12.7),
    (1_000_000, 27.0, 13.8),
    (10_000_000, 33.5, 19.6),
    (u64::MAX, 56.5, 54.1),
];

/// CPU of a turn that brings one message: at 1,000 a second one takes 18.9 us, at 10,000 16.7, at
/// 50,000 11.4 and at 200,000, where the shard is never idle, 4.84 (`latency` of the bench with
/// these rates). So a shard looks busy long before it is: turns then bring more, for what this
/// counts.
const TURN_US: f64 = 17.0;

/// Share of a core that is to be in use: beyond, what comes in a burst waits.
const LOAD: f64 = 0.5;

/// Bytes of a header besides the list.
const HEADER_BYTES: u64 = 48;

/// Arguments of `waybill plan`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Users that are online at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    users: u64,
    /// Gateways they are at.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=65_535))]
    gateways: u64,
    /// Messages a second, in all.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    rate: u64,
    /// Bytes of a payload.
    #[arg(long, value_name = "BYTES", default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(0..=PAYLOAD_BYTES_MAX as u64))]
    payload: u64,
    /// UIDs in a message's list.
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=TARGETS_MAX as u64))]
    targets: u64,
    /// Users who come or go in a second.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=1_000_000_000))]
    changes: u64,
    /// Different tags, each at every gateway.
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(0..=16_777_216))]
    tags: u64,
    /// Producers that link to each broker.
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    producers: u64,
    /// Brokers: each has all routes and takes its part of the messages, and of those of one that is
    /// gone.
    #[arg(long, value_name = "N", default_value_t = 2,
          value_parser = clap::value_parser!(u64).range(1..=1_000))]
    brokers: u64,
}

/// What is needed.
struct Plan {
    /// Of each broker.
    routes: u64,
    links: u64,
    tags: u64,
    shards: u64,
    busy: f64,
    looks_busy: f64,
    link_count: u64,
    sent_bits: f64,
    /// Of each gateway.
    connections: u64,
    gateway_bytes: u64,
    held_bytes: u64,
    heartbeats_busy: f64,
    /// A second: each user of a list has one connection.
    deliveries: f64,
    deliveries_busy: f64,
}

impl Plan {
    fn of(args: &Args) -> Self {
        let gateway_share = args.users.div_ceil(args.gateways);
        // One broker more or less must not be felt: what the others take if one is gone.
        let left = args.brokers.saturating_sub(1).max(1) as f64;
        let rate = args.rate as f64 / left;
        let frames = rate * args.targets.min(args.gateways) as f64;
        let uids = rate * args.targets as f64;
        let bytes = frames * (HEADER_BYTES + args.payload) as f64 + 8.0 * uids;
        let busy = (rate * message_us(args) + args.changes as f64 * CHANGE_US) / 1e6;
        let shards = (1..).find(|shards| *shards as f64 * LOAD >= busy).unwrap_or(1);
        let link_count = args.gateways * shards + args.producers;
        let deliveries = args.rate as f64 * args.targets as f64 / args.gateways as f64;
        Self {
            routes: args.users * (ROUTE_BYTES + REGISTRATION_BYTES),
            links: link_count * (LINK_BYTES + BUSY_BYTES),
            tags: args.tags * (TAG_BYTES + TAG_AT_GATEWAY_BYTES * args.gateways),
            shards,
            busy,
            looks_busy: (rate * TURN_US / 1e6).clamp(busy, (shards as f64).max(busy)),
            link_count,
            sent_bits: 8.0 * bytes,
            connections: gateway_share,
            gateway_bytes: gateway_share * CONNECTION_BYTES,
            held_bytes: held_bytes(gateway_share),
            heartbeats_busy: gateway_share as f64 * CONNECTION_US / 60e6,
            deliveries,
            deliveries_busy: deliveries * DELIVERY_US / 1e6,
        }
    }

    fn broker_bytes(&self) -> u64 {
        BROKER_BYTES + self.routes + self.links + self.tags
    }
}

/// What has to be set for it, and what no setting allows.
fn remarks(args: &Args, plan: &Plan) -> Vec<String> {
    let broker = BrokerConfig::default();
    let data_links = plan.shards.saturating_sub(1);
    let more_brokers = "plan more brokers";
    let needs = [
        ("broker.shards", plan.shards, broker.shards.into(), 64, more_brokers),
        ("broker.links_max", plan.link_count, broker.links_max.into(), 1_000_000, more_brokers),
        ("broker.routes_max", args.users, wide(broker.routes_max), u64::MAX, more_brokers),
        (
            "gateway.broker.data_links",
            data_links,
            GatewayBrokerConfig::default().data_links.into(),
            64,
            more_brokers,
        ),
        (
            "gateway.limits.connections_max",
            plan.connections,
            wide(LimitConfig::default().connections_max),
            wide(LimitConfig::CONNECTIONS_MAX),
            "plan more gateways",
        ),
    ];
    let told = needs.into_iter().filter(|(_, need, default, ..)| need > default);
    told.map(|(key, need, _, most, remedy)| match need <= most {
        true => format!("set {key} to {need} or more"),
        false => format!("{key} would have to be {need}, and is {most} at most: {remedy}"),
    })
    .collect()
}

/// What the connections of a gateway may hold: by default, or by the least that is allowed for so
/// many.
fn held_bytes(connections: u64) -> u64 {
    let default = LimitConfig::default().connections_bytes_max;
    wide(default).max(connections * wide(LimitConfig::CONNECTION_BYTES_LEAST))
}

/// CPU of one message.
fn message_us(args: &Args) -> f64 {
    let (_, one, listed) = LOOK_UPS[0];
    let found = LOOK_UPS.iter().find(|(most, ..)| args.users <= *most);
    let (_, one_here, listed_here) = *found.expect("the last has no end");
    let us = |here: f64, there: f64| (here - there).max(0.0) / 1e3;
    let further = (args.targets - 1) as f64;
    MESSAGE_US + us(one_here, one) + further * (TARGET_US + us(listed_here, listed))
}

pub(crate) fn run(args: &Args, common: &Common) -> Outcome {
    let plan = Plan::of(args);
    if common.form().is_json() {
        return output::json(&as_json(args, &plan));
    }
    let mut page = output::Page::default();
    broker_lines(args, &plan, &mut page)?;
    gateway_lines(args, &plan, &mut page)?;
    for remark in remarks(args, &plan) {
        page.line(remark)?;
    }
    page.line("Measured on 2 cores of a virtual machine; a link that is slow keeps up to")?;
    page.line("broker.outbox_bytes_max more. `waybill config memory` tells the bounds.")?;
    page.write()
}

fn as_json(args: &Args, plan: &Plan) -> serde_json::Value {
    json!({
        "broker": {
            "count": args.brokers, "bytes": plan.broker_bytes(), "routes_bytes": plan.routes,
            "links_bytes": plan.links, "tags_bytes": plan.tags, "links": plan.link_count,
            "busy_cores": plan.busy, "looks_busy_cores": plan.looks_busy,
            "shards": plan.shards, "sent_bits_per_s": plan.sent_bits,
        },
        "gateway": {
            "count": args.gateways, "connections": plan.connections,
            "idle_bytes": plan.gateway_bytes, "connections_bytes_max": plan.held_bytes,
            "idle_busy_cores": plan.heartbeats_busy, "deliveries_per_s": plan.deliveries,
            "deliveries_busy_cores": plan.deliveries_busy,
            "links": args.brokers * plan.shards,
        },
        "message_us": message_us(args),
        "remarks": remarks(args, plan),
    })
}

fn broker_lines(args: &Args, plan: &Plan, page: &mut output::Page) -> Outcome {
    let words = bytes_in_words;
    match args.brokers {
        1 => page.line("the broker:")?,
        brokers => page.line(format_args!("each of {brokers} brokers (with one of them gone):"))?,
    }
    page.line(format_args!("  memory  {}", words(plan.broker_bytes())))?;
    page.line(format_args!("          {} routes and registrations", words(plan.routes)))?;
    page.line(format_args!("          {} links, all in use", words(plan.links)))?;
    page.line(format_args!("          {} tags", words(plan.tags)))?;
    let Plan { link_count, shards, busy, looks_busy, .. } = plan;
    page.line(format_args!("  links   {link_count}"))?;
    page.line(format_args!("  cores   {shards} shards, {busy:.2} cores of work in full turns"))?;
    page.line(format_args!(
        "          up to {looks_busy:.2} in use: a turn of one message is dear"
    ))?;
    page.line(format_args!("  sends   {:.2} Gbit/s", plan.sent_bits / 1e9))
}

fn gateway_lines(args: &Args, plan: &Plan, page: &mut output::Page) -> Outcome {
    let (idle, held) = (bytes_in_words(plan.gateway_bytes), bytes_in_words(plan.held_bytes));
    page.line(format_args!("each of {} gateways:", args.gateways))?;
    page.line(format_args!("  memory  {idle} for {} idle connections", plan.connections))?;
    page.line(format_args!(
        "          {held} at most of what waits for users: connections_bytes_max"
    ))?;
    page.line(format_args!("  links   {} to brokers", args.brokers * plan.shards))?;
    page.line(format_args!("  cores   {:.2} busy with heartbeats", plan.heartbeats_busy))?;
    page.line(format_args!(
        "          {:.2} with {:.0} deliveries a second, each a write of its own",
        plan.deliveries_busy, plan.deliveries
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: Args = Args {
        users: 1_000_000,
        gateways: 8,
        rate: 100_000,
        payload: 128,
        targets: 1,
        changes: 0,
        tags: 0,
        producers: 8,
        brokers: 1,
    };

    #[test]
    fn more_of_anything_needs_more() {
        let need = |args: &Args| {
            let plan = Plan::of(args);
            let broker = plan.broker_bytes() as f64 + plan.busy + plan.sent_bits;
            broker + plan.heartbeats_busy + plan.deliveries_busy
        };
        let more: [fn(&mut Args); 8] = [
            |it| it.users *= 10,
            |it| it.gateways *= 2,
            |it| it.rate *= 2,
            |it| it.payload *= 2,
            |it| it.targets *= 2,
            |it| it.changes += 1_000,
            |it| it.tags += 1,
            |it| it.producers += 1,
        ];
        for (at, more) in more.into_iter().enumerate() {
            let mut args = ARGS.clone();
            more(&mut args);
            assert!(need(&args) > need(&ARGS), "argument {at}");
        }
    }

    #[test]
    fn what_defaults_do_not_allow_is_told() {
        let told = |args: Args| remarks(&args, &Plan::of(&args));
        assert!(told(Args { gateways: 16, ..ARGS }).is_empty());
        let one = told(Args { gateways: 1, ..ARGS });
        assert_eq!(one, ["set gateway.limits.connections_max to 1000000 or more"]);
        let rate = told(Args { rate: 1_000_000_000, targets: 4_096, ..ARGS });
        assert!(rate[0].ends_with("and is 64 at most: plan more brokers"), "{rate:?}");
    }

    #[test]
    fn what_a_gateway_may_hold_is_allowed_for_its_connections() {
        assert_eq!([held_bytes(1), held_bytes(524_288)], [1 << 30; 2]);
        assert_eq!(held_bytes(1_000_000), 2_048_000_000);
    }

    #[test]
    fn what_was_measured_comes_out_again() {
        let plan = Plan::of(&ARGS);
        assert_eq!(plan.routes, 64_000_000);
        assert!((plan.busy - 0.0092).abs() < 0.0005, "{}", plan.busy);
        let list = Args { users: 100_000, targets: 1_000, ..ARGS };
        assert!((message_us(&list) - 15.6).abs() < 0.1, "{}", message_us(&list));
        // A shard with little to do was in use for 0.17 of the time at 10,000 a second.
        let looks_busy = |rate| Plan::of(&Args { rate, ..ARGS }).looks_busy;
        assert!((looks_busy(10_000) - 0.17).abs() < 1e-9 && looks_busy(1_000_000) <= 1.0);
        // One core had 0.17 million deliveries a second.
        let many = Plan::of(&Args { rate: 1_360_000, ..ARGS });
        assert!((many.deliveries_busy - 1.0).abs() < 0.01, "{}", many.deliveries_busy);
        // Two brokers, one of them gone: the other takes all.
        let two = Plan::of(&Args { brokers: 2, ..ARGS });
        assert!((two.busy - plan.busy).abs() < 1e-9);
    }
}

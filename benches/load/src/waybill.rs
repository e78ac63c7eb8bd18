//! Waybill itself: a broker process, driven by frames, or through the client crate.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::driver::Driver;
use crate::failure::Failure;
use crate::process::{Place, Server};
use crate::targets::{Plan, Running, Skipped, Target};
use crate::work::WorkPlan;

mod client;
mod frames;
mod prepared;
mod receipts;

pub(crate) use frames::{open_link, open_link_offering};

use client::Client;
use frames::{Frames, Links, Receipts};

/// Routes a broker is allowed to hold beyond the users there are.
const ROUTES_LEAST: u64 = 1 << 24;

/// All of them.
#[must_use]
pub fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "waybill",
            driven: "one broker, one shard; frames of the wire crate, no receipts",
            routes: true,
            start: |plan, place| frames(plan, place, Receipts::None, ""),
        },
        Target {
            name: "waybill-uring",
            driven: "one broker, one shard, on io_uring; frames of the wire crate, no receipts",
            routes: true,
            start: |plan, place| frames(plan, place, Receipts::None, "io = \"uring\"\n"),
        },
        Target {
            name: "waybill-tokio",
            driven: "one broker, one shard, on tokio; frames of the wire crate, no receipts",
            routes: true,
            start: |plan, place| frames(plan, place, Receipts::None, "io = \"tokio\"\n"),
        },
        Target {
            name: "waybill/2shards",
            driven: "one broker, two shards; frames of the wire crate, no receipts; a link to one \
                     of the shards for each gateway",
            routes: true,
            start: |plan, place| shards(plan, place, Links::Control),
        },
        Target {
            name: "waybill/2shards-links",
            driven: "one broker, two shards; frames of the wire crate, no receipts; a link to each \
                     of the shards for each gateway",
            routes: true,
            start: |plan, place| shards(plan, place, Links::Data),
        },
        Target {
            name: "waybill/receipts",
            driven: "one broker, one shard; frames of the wire crate, a receipt of level routed \
                     for each message",
            routes: true,
            start: |plan, place| frames(plan, place, Receipts::Routed, ""),
        },
        Target {
            name: "waybill-client",
            driven: "one broker, one shard; publish_batch and gateway links of the client crate in \
                     the generator's thread, no receipts; it is idle where nothing is delivered",
            routes: true,
            start: |plan, place| {
                let (server, address) = broker(plan, place, "")?;
                running(place, server, Box::new(Client::new(*plan.work, address)?))
            },
        },
    ]
}

fn frames(
    plan: &Plan<'_>,
    place: &Place,
    receipts: Receipts,
    settings: &str,
) -> Result<Running, Skipped> {
    let (server, address) = broker(plan, place, settings)?;
    let frames = Frames::new(*plan.work, address, receipts, Links::Control);
    running(place, server, Box::new(frames))
}

fn shards(plan: &Plan<'_>, place: &Place, links: Links) -> Result<Running, Skipped> {
    let (server, address) = broker(plan, place, "shards = 2\n")?;
    let frames = Frames::new(*plan.work, address, Receipts::None, links);
    running(place, server, Box::new(frames))
}

fn running(place: &Place, server: Server, driver: Box<dyn Driver>) -> Result<Running, Skipped> {
    Ok(Running {
        driver,
        servers: vec![server],
        versions: vec![("waybill".into(), version(place.waybill())?)],
        window: None,
        notes: Vec::new(),
    })
}

/// Starts a broker with these settings of a broker more; where it listens.
fn broker(plan: &Plan<'_>, place: &Place, settings: &str) -> Result<(Server, SocketAddr), Failure> {
    broker_at(SocketAddr::from(([127, 0, 0, 1], 0)), plan.work, settings, place)
}

/// Starts a broker that listens there, at a free port if it is 0, with these settings of a broker
/// more; where it listens.
pub(crate) fn broker_at(
    listen: SocketAddr,
    work: &WorkPlan,
    more: &str,
    place: &Place,
) -> Result<(Server, SocketAddr), Failure> {
    let routes = ROUTES_LEAST.max(work.users + work.users / 4);
    let routes = if more.contains("routes_max") {
        String::new()
    } else {
        format!("routes_max = {routes}\n")
    };
    let gateways = work.gateways;
    let settings = format!(
        "[broker]\nlisten = \"{listen}\"\ngateways_expected = {gateways}\n\
         {routes}{more}[log]\nlevel = \"warn\"\n"
    );
    let path = place.folder().join("broker.toml");
    fs::write(&path, settings)?;
    let mut command = place.command(place.waybill());
    without_settings(&mut command);
    command.args(["broker", "--json", "--config"]).arg(&path);
    let mut server = place.start("broker", command)?;
    let address = server.wait_for_line(|line| {
        let said: Value = serde_json::from_str(line).ok()?;
        said.get("broker")?.as_str()?.parse().ok()
    })?;
    Ok((server, address))
}

/// The most memory that the broker started last may take, as its program documents it for these
/// settings.
pub(crate) fn documented_bytes_max(place: &Place) -> Result<f64, Failure> {
    let mut command = Command::new(place.waybill());
    without_settings(&mut command);
    command.args(["config", "memory", "--json", "--config"]);
    let output = command.arg(place.folder().join("broker.toml")).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let roles = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let broker = roles.into_iter().find(|role| role["role"] == "broker");
    let bytes_max = broker.and_then(|broker| broker["bytes_max"].as_f64());
    bytes_max.ok_or_else(|| Failure::new("`waybill config memory` says nothing of a broker"))
}

/// Names a fault that a broker built with the feature `planted` commits; one built without refuses
/// to start with it.
const PLANTED: &str = "WAYBILL_PLANTED";

/// Settings of whoever runs the bench must not reach what is measured; a fault for it must.
pub(crate) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy().starts_with("WAYBILL_") && name != PLANTED;
        if ours || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
}

/// Whether the target of this name is a `waybill` process.
pub(crate) fn is_driven_by(target: &str) -> bool {
    targets().iter().any(|one| one.name == target)
}

/// What the program says of itself.
pub(crate) fn version(program: &Path) -> Result<String, Failure> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .map_err(|error| Failure::from(error).during(program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    // Its name, a number, and the commit it was built from, where it knows that.
    let version = said.lines().next().and_then(|line| line.split_once(' '));
    Ok(version.map_or("unknown", |(_, version)| version).to_string())
}

//! What a run found, as it stands in the JSON file. Figures that are not there were not measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tally::Fault;

/// Version of this format.
pub const FORMAT: u32 = 1;

/// One run of the bench.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// The command, as it can be given again.
    pub command: String,
    /// Date and time in UTC when it was given.
    pub started: String,
    /// Where it ran.
    pub machine: Machine,
    /// Programs and their versions.
    pub versions: BTreeMap<String, String>,
    /// In the order they ran in.
    pub scenarios: Vec<ScenarioResult>,
    /// It was ended before all of it was done.
    #[serde(default)]
    pub interrupted: bool,
    /// A short pass for correctness, by `--check`: its figures say nothing.
    #[serde(default)]
    pub check: bool,
}

impl Results {
    /// Whether nothing was wrong that the scenarios do not allow.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.complaints().is_empty()
    }

    /// What was wrong, a line each.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let early = "interrupted: only what was done by then is here";
        let early = self.interrupted.then(|| early.to_string());
        early
            .into_iter()
            .chain(self.scenarios.iter().flat_map(ScenarioResult::complaints))
            .collect()
    }
}

/// Where a run took place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Name and version of the kernel.
    pub kernel: String,
    /// `pinned` or `free`.
    pub placement: String,
}

/// One scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResult {
    /// Its name: that of its file.
    pub name: String,
    /// `throughput`, `latency` or `system`.
    pub kind: String,
    /// What it shows, in a line.
    pub title: String,
    /// The file it came from.
    pub file: String,
    /// What was in the file, as it was used.
    pub parameters: BTreeMap<String, Value>,
    /// Every run of every target.
    pub rows: Vec<Row>,
    /// Targets that were not measured.
    pub skipped: Vec<SkippedTarget>,
    /// What the scenario says must hold.
    pub assertions: Vec<Assertion>,
}

impl ScenarioResult {
    fn complaints(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.rows.is_empty() {
            let skipped = self.skipped.iter().map(|it| format!("{}: {}", it.target, it.reason));
            let skipped: Vec<String> = skipped.collect();
            lines.push(format!("{}: nothing was measured; {}", self.name, skipped.join("; ")));
            return lines;
        }
        for row in self.rows.iter().filter(|row| !row.ok) {
            let of = format!("{} {} {}", self.name, row.target, row.variant);
            let words = row.faults.iter().map(|fault| {
                let Fault { name, count, example } = fault;
                format!("{of}: {name} {count}, first: {example}")
            });
            lines.extend(words);
        }
        let broken = self.assertions.iter().filter(|assertion| !assertion.held);
        lines.extend(broken.map(|assertion| format!("{}: not so: {}", self.name, assertion.words)));
        lines
    }
}

/// What differs between rows of one scenario. Rows are compared with equal ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// Bytes of each payload.
    pub payload_bytes: usize,
    /// Users that were asked for.
    pub users: u64,
    /// Gateways.
    pub gateways: usize,
    /// How messages came: `null` is a closed window.
    pub rate: Option<Rate>,
}

/// The rate of an open loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// As asked for: `10000/s`, `50% of capacity`, `50% of capacity of waybill`.
    pub asked: String,
    /// Messages per second.
    pub per_s: f64,
}

impl std::fmt::Display for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { payload_bytes, users, gateways, rate } = self;
        write!(f, "{payload_bytes} B, {users} users, {gateways} gateways")?;
        match rate {
            Some(rate) => write!(f, ", {}", rate.asked),
            None => Ok(()),
        }
    }
}

/// One run of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name of the target.
    pub target: String,
    /// How it was driven.
    pub driven: String,
    /// Of what.
    pub variant: Variant,
    /// Which repeat, from 0. Rows of one repeat are compared with each other.
    pub repeat: usize,
    /// Place among all rows of the scenario, from 0, in time.
    pub order: usize,
    /// No fault that the scenario does not allow.
    pub ok: bool,
    /// Everything that was wrong.
    pub faults: Vec<Fault>,
    /// Words that limit what the figures say; see [`mark`].
    pub marks: Vec<String>,
    /// Users that were set up.
    pub users: u64,
    /// Figures by name; see [`figure`].
    pub figures: BTreeMap<String, f64>,
    /// Of an open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<LatencyUs>,
    /// Named spans of time in milliseconds.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spans_ms: BTreeMap<String, f64>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// A generator that is idle for less than this part of the time may be what limits the figures.
const IDLE_LEAST: f64 = 0.15;

/// One that publishes at a rate may find something to do in every turn and still be in time. It is
/// not if 1 in 100 messages is late by more than this part of what 1 in 100 takes.
const LATE_PART_MOST: f64 = 0.25;

impl Row {
    /// Whether its rates and latencies are those of the generator more than those of the target.
    #[must_use]
    pub fn says_the_generator(&self) -> bool {
        let figure = |name: &str| self.figures.get(name).copied();
        let late = figure(figure::GENERATOR_LATE_P99_US);
        let late = late.zip(self.latency_us.as_ref().map(|latency| latency.p99));
        is_too_busy(figure(figure::GENERATOR_IDLE), late)
    }

    /// What came out, in a few words.
    #[must_use]
    pub fn gist(&self) -> String {
        if !self.ok {
            let names =
                self.faults.iter().map(|Fault { name, count, .. }| format!("{name} {count}"));
            return format!("FAILED: {}", names.collect::<Vec<_>>().join(", "));
        }
        let figure = |name: &str, unit: &str| {
            self.figures.get(name).map(|value| format!("{value:.2} {unit}"))
        };
        let latency = self.latency_us.as_ref().map(|latency| format!("p99 {:.0} us", latency.p99));
        let spans = self.spans_ms.iter().map(|(name, ms)| format!("{name} {ms:.0} ms"));
        let words = figure(figure::MESSAGES_PER_S, "messages/s")
            .into_iter()
            .chain(figure(figure::CPU_US_PER_MESSAGE, "us of CPU each"))
            .chain(latency)
            .chain(spans);
        words.collect::<Vec<_>>().join(", ")
    }
}

/// By its idle part; and at a rate by how late it was, and the latency, of both the p99.
fn is_too_busy(idle: Option<f64>, late: Option<(f64, f64)>) -> bool {
    let is_late = late.is_none_or(|(late, latency)| late > LATE_PART_MOST * latency);
    is_late && idle.is_some_and(|idle| idle < IDLE_LEAST)
}

/// Names of marks.
pub mod mark {
    /// [The generator's](super::Row::says_the_generator) are the rates and latencies: only CPU
    /// figures count.
    pub const GENERATOR_BUSY: &str = "generator_busy";
    /// Fewer than 20 messages were measured: a rate made of so few is a rough one.
    pub const FEW_MESSAGES: &str = "few_messages";
    /// Fewer users than were asked for.
    pub const FEWER_USERS: &str = "fewer_users";
}

/// Names of figures, with their units.
pub mod figure {
    /// Messages completed in a second.
    pub const MESSAGES_PER_S: &str = "messages_per_s";
    /// Deliveries in a second.
    pub const DELIVERIES_PER_S: &str = "deliveries_per_s";
    /// CPU of the target, user and system, in microseconds for a message.
    pub const CPU_US_PER_MESSAGE: &str = "cpu_us_per_message";
    /// The same for a delivery.
    pub const CPU_US_PER_DELIVERY: &str = "cpu_us_per_delivery";
    /// CPU of the generator in microseconds for a message; only where it sleeps (`free`), or less
    /// its idle turns.
    pub const GENERATOR_US_PER_MESSAGE: &str = "generator_us_per_message";
    /// Resident memory of the target at the end.
    pub const RSS_BYTES: &str = "rss_bytes";
    /// Resident memory that came with a user.
    pub const BYTES_PER_ROUTE: &str = "bytes_per_route";
    /// Bytes on all connections of the target for a delivery, both ways.
    pub const LINK_BYTES_PER_DELIVERY: &str = "link_bytes_per_delivery";
    /// Share of the time in which the generator had nothing to do.
    pub const GENERATOR_IDLE: &str = "generator_idle";
    /// In an open loop: 99 in 100 messages were published no more than so many microseconds after
    /// they were due.
    pub const GENERATOR_LATE_P99_US: &str = "generator_late_p99_us";
    /// Cores the target used.
    pub const SERVER_CORES: &str = "server_cores";
    /// Seconds from the first connection until all users were there.
    pub const SETUP_S: &str = "setup_s";

    /// All that rows of throughput and latency may have.
    pub const ALL: [&str; 11] = [
        MESSAGES_PER_S,
        DELIVERIES_PER_S,
        CPU_US_PER_MESSAGE,
        CPU_US_PER_DELIVERY,
        GENERATOR_US_PER_MESSAGE,
        RSS_BYTES,
        BYTES_PER_ROUTE,
        LINK_BYTES_PER_DELIVERY,
        GENERATOR_IDLE,
        SERVER_CORES,
        SETUP_S,
    ];
}

/// Latency in microseconds: due time to receipt at the gateway's socket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyUs {
    /// Frames measured.
    pub count: u64,
    /// Half are below.
    pub p50: f64,
    /// 90 % are below.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All are.
    pub max: f64,
    /// Percentile and value, rising.
    pub curve: Vec<(f64, f64)>,
}

/// A target that was not measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedTarget {
    /// Its name.
    pub target: String,
    /// Why, and how to get it.
    pub reason: String,
}

/// Something that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// What.
    pub words: String,
    /// Whether it did.
    pub held: bool,
}

#[cfg(test)]
mod tests {
    use super::is_too_busy;

    #[test]
    fn a_generator_is_too_busy_without_idle_turns_unless_it_is_in_time() {
        for (idle, late, is_so) in [
            (Some(0.14), None, true),
            (Some(0.15), None, false),
            (None, None, false),
            (Some(0.01), Some((25.0, 100.0)), false),
            (Some(0.01), Some((26.0, 100.0)), true),
            (Some(0.15), Some((26.0, 100.0)), false),
        ] {
            assert_eq!(is_too_busy(idle, late), is_so, "{idle:?} {late:?}");
        }
    }
}

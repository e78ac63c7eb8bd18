//! Scenarios: what is sent to whom, how fast, for how long, and what must hold. Read from TOML; a
//! key that is not known is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::engine::Spans;
use crate::failure::Failure;
use crate::results::Row;
use crate::system::SystemPlan;
use crate::tally::fault;
use crate::work::{Shares, WorkPlan};

mod check;
mod files;
#[cfg(test)]
mod tests;

pub use files::{folder, list, load};

/// Users of a check: as few as make every path of the work run.
const CHECK_USERS: u64 = 2_000;

/// Seconds of a check.
const CHECK_SECONDS: f64 = 0.5;

/// A check must not call lost what a machine with much else to do has not come to.
const CHECK_DRAIN_SECONDS: f64 = 30.0;

/// One scenario, as in its file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a line.
    pub title: String,
    /// What is measured.
    pub kind: Kind,
    /// Whom messages are for.
    pub work: WorkKind,
    /// Targets, unless others are named on the command line.
    pub targets: Vec<String>,
    /// Numbers of users, each a variant.
    pub users: Vec<u64>,
    /// Numbers of gateways, each a variant.
    pub gateways: Vec<usize>,
    /// Bytes of payloads, each a variant.
    pub payload_bytes: Vec<usize>,
    /// Which combinations of the three run.
    #[serde(default)]
    pub variants: Variants,
    /// Times that each target runs, in turns with the others.
    pub repeats: usize,
    /// Seconds that are measured.
    pub seconds: f64,
    /// Seconds before that.
    #[serde(default = "Scenario::warm_up")]
    pub warm_up_seconds: f64,
    /// Seconds without a delivery after which what is missing is lost.
    #[serde(default = "Scenario::drain")]
    pub drain_seconds: f64,
    /// Where all chance comes from. Each repeat has one of its own.
    #[serde(default = "Scenario::seed")]
    pub seed: u64,
    /// Most messages in flight.
    #[serde(default = "Scenario::window")]
    pub window: u64,
    /// Most bytes of them, with their lists.
    #[serde(default = "Scenario::window_bytes")]
    pub window_bytes: u64,
    /// Groups that are prepared, `work = "group"` and `"mixed"`.
    #[serde(default = "Scenario::groups")]
    pub groups: usize,
    /// Users of a group.
    #[serde(default = "Scenario::group_uids")]
    pub group_uids: usize,
    /// How many messages of which kind, `work = "mixed"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Shares>,
    /// Rates, `kind = "latency"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<RatePlan>,
    /// What is done, `kind = "system"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemPlan>,
    /// Faults that do not fail the run, by target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub allowed: BTreeMap<String, Vec<String>>,
    /// What must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assert: Vec<Requirement>,
}

/// Which combinations of users, gateways and payloads run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variants {
    /// The first of each, and every other value with the first of the others: what each of them
    /// does alone.
    #[default]
    OneAtATime,
    /// Every combination.
    All,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Capacity, with a closed window.
    Throughput,
    /// Latency, in an open loop.
    Latency,
    /// How a cluster behaves, by the table `[system]`.
    System,
}

impl Kind {
    /// As in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::System => "system",
        }
    }
}

/// Whom messages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// One user each.
    Single,
    /// A group each.
    Group,
    /// Everyone.
    Broadcast,
    /// Some of each, by `shares`.
    Mixed,
}

/// A rate: a number per second, or a share of what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a rate is a number per second, as 10000, or { share = 0.5 }, or \
                 { share = 0.5, of = \"waybill\" }"
)]
pub enum RatePlan {
    /// Messages per second.
    PerSecond(f64),
    /// A share of a capacity measured in the same repeat.
    Share(ShareOfCapacity),
}

/// A share of a capacity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareOfCapacity {
    /// Above 0, below 1.
    pub share: f64,
    /// Whose capacity; each target's own if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

impl RatePlan {
    /// In words.
    #[must_use]
    pub fn asked(&self) -> String {
        match self {
            Self::PerSecond(rate) => format!("{rate}/s"),
            Self::Share(ShareOfCapacity { share, of }) => {
                let of = of.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
                format!("{}% of capacity{of}", (share * 100.0).round())
            }
        }
    }
}

/// A bound of a figure, or of a count of faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Name of the figure or fault.
    pub figure: String,
    /// Of which target; of each if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// No more than this in any repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// No less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// It depends on how fast the machine is: not judged by a check.
    #[serde(default)]
    pub timing: bool,
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(target) = &self.target {
            write!(f, "{target}: ")?;
        }
        let figure = &self.figure;
        match (self.at_least, self.at_most) {
            (Some(least), Some(most)) if least == most => write!(f, "{figure} = {least}"),
            (Some(least), Some(most)) => write!(f, "{figure} is {least} to {most}"),
            (Some(least), None) => write!(f, "{figure} is at least {least}"),
            (None, Some(0.0)) => write!(f, "{figure} = 0"),
            (None, Some(most)) => write!(f, "{figure} is at most {most}"),
            (None, None) => write!(f, "{figure} is anything"),
        }
    }
}

impl Requirement {
    /// Whether it holds in every row it is about. A figure that is in none of them does not hold,
    /// nor does anything of a row that could not go on; a fault that is not there is 0.
    #[must_use]
    pub fn holds(&self, rows: &[Row]) -> bool {
        let is_fault = fault::ALL.contains(&self.figure.as_str());
        let of_target = |row: &&Row| self.target.as_ref().is_none_or(|name| *name == row.target);
        let rows = || rows.iter().filter(of_target);
        if rows().any(|row| row.faults.iter().any(|it| it.name == fault::FAILED)) {
            return false;
        }
        let values: Vec<f64> = rows()
            .filter_map(|row| if is_fault { Some(self.faults(row)) } else { self.value(row) })
            .collect();
        let most = self.at_most.unwrap_or(f64::INFINITY);
        let least = self.at_least.unwrap_or(f64::NEG_INFINITY);
        !values.is_empty() && values.iter().all(|value| (least..=most).contains(value))
    }

    fn faults(&self, row: &Row) -> f64 {
        let of_name = row.faults.iter().filter(|fault| fault.name == self.figure);
        of_name.map(|fault| fault.count as f64).sum()
    }

    fn value(&self, row: &Row) -> Option<f64> {
        let latency = row.latency_us.as_ref();
        match self.figure.as_str() {
            "p50_us" => latency.map(|latency| latency.p50),
            "p99_us" => latency.map(|latency| latency.p99),
            "p999_us" => latency.map(|latency| latency.p999),
            name => row.figures.get(name).copied(),
        }
    }
}

/// A scenario and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Its name: that of its file without the ending.
    pub name: String,
    /// Its file.
    pub file: String,
    /// What is in it.
    pub scenario: Scenario,
}

/// What the command line says instead of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Targets.
    pub targets: Option<Vec<String>>,
    /// Repeats.
    pub repeats: Option<usize>,
    /// Measured seconds.
    pub seconds: Option<f64>,
    /// Users.
    pub users: Option<u64>,
    /// Bytes of payloads.
    pub payload_bytes: Option<usize>,
    /// A short pass for correctness.
    pub check: bool,
}

impl Scenario {
    fn warm_up() -> f64 {
        0.5
    }

    fn drain() -> f64 {
        3.0
    }

    fn seed() -> u64 {
        1
    }

    fn window() -> u64 {
        32_768
    }

    fn window_bytes() -> u64 {
        4 << 20
    }

    fn groups() -> usize {
        256
    }

    fn group_uids() -> usize {
        1_000
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// The key that is not known or has a value that cannot be, and what could stand there.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let scenario: Self = toml::from_str(text).map_err(Failure::new)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// How many messages of which kind.
    #[must_use]
    pub fn shares(&self) -> Shares {
        match self.work {
            WorkKind::Single => Shares::SINGLE,
            WorkKind::Group => Shares::GROUP,
            WorkKind::Broadcast => Shares::BROADCAST,
            WorkKind::Mixed => self.shares.unwrap_or(Shares::SINGLE),
        }
    }

    /// The same with what the command line says, checked again.
    ///
    /// # Errors
    /// As of [`Scenario::parse`].
    pub fn with(mut self, overrides: &Overrides) -> Result<Self, Failure> {
        if overrides.check {
            for users in &mut self.users {
                *users = (*users).min(CHECK_USERS);
            }
            let all = std::mem::take(&mut self.users);
            for users in all {
                if !self.users.contains(&users) {
                    self.users.push(users);
                }
            }
            self.repeats = 1;
            self.seconds = CHECK_SECONDS;
            self.warm_up_seconds = CHECK_SECONDS / 5.0;
            self.drain_seconds = self.drain_seconds.max(CHECK_DRAIN_SECONDS);
            if let Some(system) = &mut self.system {
                system.shorten(CHECK_USERS);
            }
        }
        if let Some(targets) = &overrides.targets {
            self.targets.clone_from(targets);
            // What is required of a target that does not run is not required.
            let runs = |name: &String| targets.contains(name);
            self.assert.retain(|it| it.target.as_ref().is_none_or(runs));
        }
        if let Some(repeats) = overrides.repeats {
            self.repeats = repeats;
        }
        if let Some(seconds) = overrides.seconds {
            self.seconds = seconds;
        }
        if let Some(users) = overrides.users {
            self.users = vec![users];
        }
        if let Some(bytes) = overrides.payload_bytes {
            self.payload_bytes = vec![bytes];
        }
        self.check()?;
        Ok(self)
    }

    /// The work of one variant and repeat.
    #[must_use]
    pub fn work_plan(&self, case: Case, repeat: usize) -> WorkPlan {
        WorkPlan {
            seed: self.seed.wrapping_add(repeat as u64),
            users: case.users,
            gateways: case.gateways,
            payload_bytes: case.payload_bytes,
            shares: self.shares(),
            groups: self.groups,
            group_uids: self.group_uids,
        }
    }

    /// The combinations of users, gateways and payload that run.
    #[must_use]
    pub fn cases(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        for (u, &users) in self.users.iter().enumerate() {
            for (g, &gateways) in self.gateways.iter().enumerate() {
                for (p, &payload_bytes) in self.payload_bytes.iter().enumerate() {
                    let others = [u, g, p].iter().filter(|at| **at > 0).count();
                    if self.variants == Variants::All || others <= 1 {
                        cases.push(Case { users, gateways, payload_bytes });
                    }
                }
            }
        }
        cases
    }

    /// Rows of a run in which every target can do everything.
    #[must_use]
    pub fn rows_most(&self) -> usize {
        // The capacity, and each rate.
        let paces = self.rates.len() + 1;
        self.cases().len() * self.repeats * self.targets.len() * paces
    }

    /// Most messages in flight of a case: `window`, or as many as have `window_bytes` with their
    /// lists.
    #[must_use]
    pub fn window_of(&self, case: Case) -> u64 {
        let shares = self.shares();
        let list = if shares.group > 0 { 8 * self.group_uids } else { 8 };
        let bytes = (case.payload_bytes + list) as u64;
        self.window.min(self.window_bytes / bytes).max(1)
    }

    /// Its lengths.
    #[must_use]
    pub fn spans(&self) -> Spans {
        Spans {
            warm_up: Duration::from_secs_f64(self.warm_up_seconds),
            measured: Duration::from_secs_f64(self.seconds),
            drain: Duration::from_secs_f64(self.drain_seconds),
        }
    }

    /// As it stands in results.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }
}

/// One combination of users, gateways and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Users.
    pub users: u64,
    /// Gateways.
    pub gateways: usize,
    /// Bytes of each payload.
    pub payload_bytes: usize,
}

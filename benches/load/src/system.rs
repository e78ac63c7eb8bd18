//! What is not a rate: how a cluster behaves while users move, one gateway is slow, the broker
//! starts again, users are idle, or all come at once. `kind = "system"`; each has a table of its
//! own in the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Measured, SetUp, SetUpLimits, Spans, Usage};
use crate::failure::Failure;
use crate::process::{Place, Server};
use crate::results::{LatencyUs, figure};
use crate::run::{self, SET_UP, latency_us};
use crate::tally::{Fault, Tally};
use crate::targets::{Skipped, Target};
use crate::waybill;
use crate::work::{RATE_MAX, WorkPlan};

mod churn;
mod cluster;
mod departure;
mod mail;
mod overload;
mod relearn;
mod slow;
mod users;

use churn::ChurnPlan;
use departure::DeparturePlan;
use overload::OverloadPlan;
use relearn::RelearnPlan;
use slow::SlowPlan;
use users::{IdlePlan, StormPlan};

/// What is done, by `measure` in the table `[system]` of a scenario's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "measure", rename_all = "snake_case")]
pub enum SystemPlan {
    /// Users move between gateways.
    Churn(ChurnPlan),
    /// A gateway with many users goes and does not come back.
    Departure(DeparturePlan),
    /// More is published than gateways read.
    Overload(OverloadPlan),
    /// The broker is killed and started again.
    Relearn(RelearnPlan),
    /// One gateway stops reading.
    Slow(SlowPlan),
    /// Users on WebSockets who say nothing.
    Idle(IdlePlan),
    /// Users on WebSockets who all come at once.
    Storm(StormPlan),
}

/// One run of one target.
pub(crate) struct Trial<'a> {
    /// What runs.
    pub(crate) target: Target,
    /// Whom messages are for.
    pub(crate) work: WorkPlan,
    /// How long.
    pub(crate) spans: Spans,
    /// Where processes live.
    pub(crate) place: &'a Place,
    /// Whether the generator has a core of its own.
    pub(crate) pinned: bool,
    /// Programs and their versions.
    pub(crate) versions: BTreeMap<String, String>,
}

/// What a run found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) users: u64,
    pub(crate) figures: BTreeMap<String, f64>,
    pub(crate) spans_ms: BTreeMap<String, f64>,
    pub(crate) latency: Option<LatencyUs>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) notes: Vec<String>,
}

/// Whether a number of things per second can be: at least `least`, and no more than the clock,
/// which has nanoseconds, tells apart.
fn is_rate(rate: f64, least: f64) -> bool {
    (least..=RATE_MAX).contains(&rate)
}

impl SystemPlan {
    /// What is wrong with it, if anything.
    #[must_use]
    pub fn check(&self) -> Option<String> {
        match self {
            Self::Churn(plan) => plan.check(),
            Self::Departure(plan) => plan.check(),
            Self::Overload(plan) => plan.check(),
            Self::Relearn(plan) => plan.check(),
            Self::Slow(plan) => plan.check(),
            Self::Idle(plan) => plan.check(),
            Self::Storm(plan) => plan.check(),
        }
    }

    /// Makes it one with so few users that all of it fits into a check.
    pub(crate) fn shorten(&mut self, users: u64) {
        if let Self::Departure(plan) = self {
            plan.shorten(users);
        }
    }

    /// Fewest gateways that it makes sense with.
    #[must_use]
    pub fn gateways_least(&self) -> usize {
        match self {
            // Users move to another one; others than the slow one are looked at.
            Self::Churn(_) | Self::Slow(_) => 2,
            Self::Departure(_)
            | Self::Overload(_)
            | Self::Relearn(_)
            | Self::Idle(_)
            | Self::Storm(_) => 1,
        }
    }

    /// How Waybill is driven.
    #[must_use]
    pub fn driven(&self) -> &'static str {
        match self {
            Self::Churn(_) => "one broker, one shard; frames of the wire crate, no receipts",
            Self::Departure(_) => {
                "one broker, one shard; frames of the wire crate, a receipt of level routed for \
                 each message to a user who left"
            }
            Self::Overload(_) | Self::Relearn(_) | Self::Slow(_) => {
                "one broker, one shard; frames of the wire crate, a receipt of level routed for \
                 each message"
            }
            Self::Idle(_) | Self::Storm(_) => {
                "one broker, one shard; gateway processes; users on WebSockets, JSON subprotocol"
            }
        }
    }

    /// Messages per second, where it says so.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Churn(plan) => Some(plan.rate),
            Self::Departure(plan) => Some(plan.rate),
            Self::Overload(plan) => Some(plan.rate()),
            Self::Relearn(plan) => Some(plan.rate),
            Self::Slow(plan) => Some(plan.rate),
            Self::Idle(_) | Self::Storm(_) => None,
        }
    }

    /// Runs it.
    pub(crate) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        match self {
            Self::Slow(plan) => plan.run(trial),
            _ if trial.target.name != "waybill" => {
                Err(Skipped::absent("this is played by hand, and only for target `waybill`"))
            }
            Self::Churn(plan) => plan.run(trial),
            Self::Departure(plan) => plan.run(trial),
            Self::Overload(plan) => plan.run(trial),
            Self::Relearn(plan) => plan.run(trial),
            Self::Idle(plan) => plan.run(trial),
            Self::Storm(plan) => plan.run(trial),
        }
    }
}

impl Trial<'_> {
    /// A broker, at an address of its own if it has to be found there again.
    fn broker(&mut self, listen: Option<SocketAddr>) -> Result<(Server, SocketAddr), Failure> {
        self.broker_with(listen, "")
    }

    /// The same, with these lines more of its settings.
    fn broker_with(
        &mut self,
        listen: Option<SocketAddr>,
        more: &str,
    ) -> Result<(Server, SocketAddr), Failure> {
        self.versions.insert("waybill".into(), waybill::version(self.place.waybill())?);
        let listen = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
        waybill::broker_at(listen, &self.work, more, self.place)
    }

    /// Sets all users up; fewer are a failure.
    fn set_up(
        &self,
        engine: &mut Engine,
        usage: &mut dyn FnMut() -> Usage,
    ) -> Result<SetUp, Failure> {
        set_up_all(&self.work, engine, usage)
    }
}

/// Sets up all users of this work.
fn set_up_all(
    work: &WorkPlan,
    engine: &mut Engine,
    usage: &mut dyn FnMut() -> Usage,
) -> Result<SetUp, Failure> {
    let limits = SetUpLimits { rss: u64::MAX, ..SET_UP };
    let set_up = run::set_up(work, limits, engine, usage)?;
    let (there, asked) = (set_up.users, work.users);
    if there != asked {
        return Err(Failure::new(format_args!("the set-up ended with {there} users of {asked}")));
    }
    Ok(set_up)
}

impl Findings {
    fn set_up(&mut self, set_up: SetUp) {
        self.users = set_up.users;
        self.figure(figure::SETUP_S, set_up.seconds);
    }

    fn figure(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.figures.insert(name.into(), value);
        }
    }

    fn span(&mut self, name: &str, ms: f64) {
        self.spans_ms.insert(name.into(), ms);
    }

    /// The figures of a span that every row has, and its latency as that of the row.
    fn measured(&mut self, measured: &Measured, tally: &Tally) {
        let Measured { seconds, messages, .. } = *measured;
        self.figure(figure::MESSAGES_PER_S, messages as f64 / seconds);
        self.figure(figure::SERVER_CORES, measured.server_cpu_s / seconds);
        self.figure(figure::CPU_US_PER_MESSAGE, 1e6 * measured.server_cpu_s / messages as f64);
        self.figure(figure::RSS_BYTES, measured.rss as f64);
        self.latency = tally.latency().map(latency_us);
    }
}

/// Rate and latency of one part of a run, as figures that begin with its name.
fn latency_figures(part: &str, measured: &Measured, tally: &Tally, findings: &mut Findings) {
    if let Some(histogram) = tally.latency() {
        for (name, percentile) in [("p50", 50.0), ("p99", 99.0)] {
            let micros = histogram.value_at_percentile(percentile) as f64 / 1e3;
            findings.figure(&format!("{part}_{name}_us"), micros);
        }
    }
    findings.figure(&format!("{part}_messages_per_s"), measured.messages as f64 / measured.seconds);
    findings.figure(&format!("{part}_rss_bytes"), measured.rss as f64);
}

/// Quantiles of nanoseconds as spans.
fn quantiles(name: &str, histogram: &Histogram<u64>, findings: &mut Findings) {
    if histogram.is_empty() {
        return;
    }
    let ms = |nanos: u64| nanos as f64 / 1e6;
    findings.span(&format!("{name}, p50"), ms(histogram.value_at_percentile(50.0)));
    findings.span(&format!("{name}, p99"), ms(histogram.value_at_percentile(99.0)));
    findings.span(&format!("{name}, max"), ms(histogram.max()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::{Driver, Message};
    use crate::io::Io;

    /// Ready at once, with so many users.
    struct Ready(u64);

    impl Driver for Ready {
        fn connect(&mut self, _io: &mut Io) -> Result<(), Failure> {
            Ok(())
        }

        fn is_ready(&self) -> bool {
            true
        }

        fn users_ready(&self) -> u64 {
            self.0
        }

        fn publish(&mut self, _message: &Message<'_>, _io: &mut Io) -> Result<(), Failure> {
            Err(Failure::new("nothing is published"))
        }
    }

    #[test]
    fn a_set_up_with_fewer_users_than_asked_is_a_failure() {
        let work = WorkPlan::single(10, 2);
        let set_up = |users| {
            let mut engine = Engine::connect(Box::new(Ready(users)), true)?;
            set_up_all(&work, &mut engine, &mut Usage::default)
        };
        assert_eq!(set_up(10).unwrap().users, 10);
        let failure = set_up(9).unwrap_err().to_string();
        assert!(failure.contains("9 users of 10"), "{failure}");
    }
}

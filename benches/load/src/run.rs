//! A whole run: every scenario, its variants and repeats, the targets in turns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::clock;
use crate::engine::pace::Pace;
use crate::engine::{Engine, Measured, SetUp, SetUpLimits, Usage};
use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::output::{self, Progress};
use crate::process::{self, Place, Server};
use crate::results::{
    Assertion, FORMAT, LatencyUs, Rate, Results, Row, ScenarioResult, SkippedTarget, Variant,
    figure, mark,
};
use crate::scenario::{Case, Kind, Loaded, RatePlan, Requirement, Scenario, ShareOfCapacity};
use crate::system::{Findings, SystemPlan, Trial};
use crate::tally::{Fault, Tally, fault};
use crate::targets::{self, Pending, Plan, Skipped, Target};
use crate::work::{Work, WorkPlan};

/// Fewer messages in a span make a rate of steps.
const FEW_MESSAGES: u64 = 20;

/// Part of a target's capacity above which a rate is not tried: its queue would only grow.
const CAPACITY_PART_MAX: f64 = 0.95;

/// What a set-up may take; what is there by then is what is measured.
pub(crate) const SET_UP: SetUpLimits =
    SetUpLimits { time: Duration::from_secs(120), rss: 8 << 30, patience: Duration::from_secs(60) };

/// Percentiles of a latency curve: as many between 90 and 99 as between 99 and 99.9.
const CURVE: [f64; 32] = [
    0.0, 25.0, 50.0, 65.0, 75.0, 85.0, 90.0, 92.5, 95.0, 96.5, 97.5, 98.5, 99.0, 99.25, 99.5,
    99.65, 99.75, 99.85, 99.9, 99.925, 99.95, 99.965, 99.975, 99.985, 99.99, 99.9925, 99.995,
    99.9965, 99.9975, 99.9985, 99.999, 100.0,
];

/// How a run is done.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nothing is pinned, and the generator sleeps when it is idle.
    pub free: bool,
    /// A correctness pass: requirements that depend on time are not judged.
    pub check: bool,
    /// The `waybill` program.
    pub waybill: PathBuf,
}

/// Runs scenarios. What is wrong with a target's deliveries is in the results.
///
/// # Errors
/// The bench itself cannot do its work.
pub fn run(scenarios: &[Loaded], settings: &Settings, command: &str) -> Result<Results, Failure> {
    let cores = if settings.free { None } else { machine::two_cores() };
    // Before this thread is pinned: then it would see one core.
    let machine = machine::facts(cores.is_some());
    if let Some((own, _)) = cores {
        process::pin(own)?;
    }
    let mut results = Results {
        format: FORMAT,
        command: command.into(),
        started: clock::date_and_time(),
        machine,
        versions: BTreeMap::new(),
        scenarios: Vec::new(),
        interrupted: false,
        check: settings.check,
    };
    for loaded in scenarios {
        let mut runner = Runner::new(loaded, settings, cores.map(|(_, servers)| servers))?;
        runner.run()?;
        results.versions.append(&mut runner.versions);
        results.scenarios.push(runner.result);
        results.interrupted = interrupt::asked();
        if results.interrupted {
            break;
        }
    }
    Ok(results)
}

/// One scenario being run.
struct Runner<'a> {
    scenario: &'a Scenario,
    settings: &'a Settings,
    server_core: Option<usize>,
    targets: Vec<Target>,
    gone: BTreeSet<&'static str>,
    versions: BTreeMap<String, String>,
    progress: Progress,
    result: ScenarioResult,
}

/// One row to be.
#[derive(Clone)]
struct Turn {
    case: Case,
    repeat: usize,
    /// `None` is a closed window.
    rate: Option<Rate>,
}

/// What a turn found, before it becomes a row.
struct Outcome {
    set_up: SetUp,
    bytes_per_route: Option<f64>,
    measured: Measured,
    latency: Option<LatencyUs>,
    faults: Vec<Fault>,
    notes: Vec<String>,
}

impl<'a> Runner<'a> {
    fn new(
        loaded: &'a Loaded,
        settings: &'a Settings,
        server_core: Option<usize>,
    ) -> Result<Self, Failure> {
        let scenario = &loaded.scenario;
        let result = ScenarioResult {
            name: loaded.name.clone(),
            kind: scenario.kind.name().into(),
            title: scenario.title.clone(),
            file: loaded.file.clone(),
            parameters: scenario.parameters(),
            rows: Vec::new(),
            skipped: Vec::new(),
            assertions: Vec::new(),
        };
        Ok(Self {
            scenario,
            settings,
            server_core,
            targets: targets::named(&scenario.targets)?,
            gone: BTreeSet::new(),
            versions: BTreeMap::new(),
            progress: Progress::new(),
            result,
        })
    }

    fn run(&mut self) -> Result<(), Failure> {
        for case in self.scenario.cases() {
            match self.scenario.kind {
                Kind::Latency => self.latencies(case)?,
                Kind::Throughput | Kind::System => {
                    let rate = self.scenario.system.as_ref().and_then(SystemPlan::rate);
                    let rate = rate.map(|per_s| Rate { asked: format!("{per_s}/s"), per_s });
                    for repeat in 0..self.scenario.repeats {
                        self.all(&Turn { case, repeat, rate: rate.clone() })?;
                    }
                }
            }
        }
        self.progress.clear();
        if !interrupt::asked() {
            self.result.assertions = self.judge();
        }
        Ok(())
    }

    /// Every target once, beginning with another one in each repeat; messages per second of each
    /// that passed the check.
    fn all(&mut self, turn: &Turn) -> Result<BTreeMap<&'static str, f64>, Failure> {
        let mut rates = BTreeMap::new();
        for target in self.in_turn(turn.repeat) {
            if let Some(row) = self.one(target, turn)?.filter(|row| row.ok)
                && let Some(rate) = row.figures.get(figure::MESSAGES_PER_S)
            {
                rates.insert(target.name, *rate);
            }
        }
        Ok(rates)
    }

    fn in_turn(&self, repeat: usize) -> Vec<Target> {
        let mut targets = self.targets.clone();
        let count = targets.len().max(1);
        targets.rotate_left(repeat % count);
        targets
    }

    /// Capacities of all repeats, then the rates: a rate is for all repeats or for none.
    fn latencies(&mut self, case: Case) -> Result<(), Failure> {
        let mut capacities: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for repeat in 0..self.scenario.repeats {
            for (target, capacity) in self.all(&Turn { case, repeat, rate: None })? {
                capacities.entry(target).or_default().push(capacity);
            }
        }
        for plan in &self.scenario.rates {
            let asked = plan.asked();
            let rates = self.rates(plan, &asked, &capacities);
            for repeat in 0..self.scenario.repeats {
                for target in self.in_turn(repeat) {
                    let Some(per_s) = rates.get(target.name).copied() else { continue };
                    let rate = Rate { asked: asked.clone(), per_s };
                    self.one(target, &Turn { case, repeat, rate: Some(rate) })?;
                }
            }
        }
        Ok(())
    }

    /// What a rate is for each target that can bear it in every repeat.
    fn rates(
        &mut self,
        plan: &RatePlan,
        asked: &str,
        capacities: &BTreeMap<&'static str, Vec<f64>>,
    ) -> BTreeMap<&'static str, f64> {
        let least = |name: &str| capacities.get(name)?.iter().copied().min_by(f64::total_cmp);
        let mut rates = BTreeMap::new();
        for target in self.targets.clone() {
            let per_s = match plan {
                RatePlan::PerSecond(rate) => Some(*rate),
                RatePlan::Share(ShareOfCapacity { share, of }) => {
                    least(of.as_deref().unwrap_or(target.name)).map(|capacity| capacity * share)
                }
            };
            let (Some(per_s), Some(own)) = (per_s, least(target.name)) else {
                self.skip(target.name, format!("{asked}: no capacity was measured"));
                continue;
            };
            if per_s > own * CAPACITY_PART_MAX {
                let words = format!("{per_s:.0}/s is too near its least capacity, {own:.0}/s");
                self.skip(target.name, words);
                continue;
            }
            rates.insert(target.name, per_s);
        }
        rates
    }

    fn skip(&mut self, target: &'static str, reason: String) {
        self.result.skipped.push(SkippedTarget { target: target.into(), reason });
    }

    /// Runs one target once. No row if it is not there.
    fn one(&mut self, target: Target, turn: &Turn) -> Result<Option<&Row>, Failure> {
        if self.gone.contains(target.name) || interrupt::asked() {
            return Ok(None);
        }
        let variant = Variant {
            payload_bytes: turn.case.payload_bytes,
            users: turn.case.users,
            gateways: turn.case.gateways,
            rate: turn.rate.clone(),
        };
        let done = self.result.rows.len();
        let (name, repeats) = (&self.result.name, self.scenario.repeats);
        let what = format!(
            "{name} {} of {}: {variant}, repeat {} of {repeats}: {}",
            done + 1,
            self.scenario.rows_most(),
            turn.repeat + 1,
            target.name
        );
        self.progress.show(&what);
        let place = Place::new(self.server_core, &self.settings.waybill)?;
        let mut row = Row {
            target: target.name.into(),
            driven: match &self.scenario.system {
                Some(plan) if target.name == "waybill" => plan.driven().into(),
                _ => target.driven.into(),
            },
            variant,
            repeat: turn.repeat,
            order: done,
            ok: false,
            faults: Vec::new(),
            marks: Vec::new(),
            users: 0,
            figures: BTreeMap::new(),
            latency_us: None,
            spans_ms: BTreeMap::new(),
            notes: Vec::new(),
        };
        let done = match &self.scenario.system {
            Some(plan) => self
                .behaviour(plan, target, turn, &place)
                .map(|findings| self.fill_system(&mut row, findings)),
            None => {
                self.measure(target, turn, &place).map(|outcome| self.fill(&mut row, outcome, turn))
            }
        };
        if interrupt::asked() {
            return Ok(None);
        }
        match done {
            Ok(()) => {}
            Err(Skipped { reason, failed: false }) => {
                self.gone.insert(target.name);
                self.skip(target.name, reason);
                return Ok(None);
            }
            Err(Skipped { reason, failed: true }) => {
                let name = fault::FAILED.into();
                row.faults.push(Fault { name, count: 1, example: reason });
            }
        }
        self.progress.done(format_args!("{what}: {}", row.gist()));
        self.result.rows.push(row);
        Ok(self.result.rows.last())
    }

    fn measure(&mut self, target: Target, turn: &Turn, place: &Place) -> Result<Outcome, Skipped> {
        let asked = self.scenario.work_plan(turn.case, turn.repeat);
        let window = if turn.rate.is_some() { 0 } else { self.scenario.window_of(turn.case) };
        let mut running =
            (target.start)(&Plan { work: &asked, window, pending: Pending::Raised }, place)?;
        self.versions.extend(running.versions.iter().cloned());
        let servers = &running.servers;
        let pids = || -> Vec<u32> { servers.iter().flat_map(|server| server.pids()).collect() };
        let mut usage = || process::usage(&pids());
        let before = usage();
        let mut engine = Engine::connect(running.driver, self.server_core.is_some())?;
        let set_up = set_up(&asked, SET_UP, &mut engine, &mut usage)?;
        let (uids, users) = (asked.group_uids, set_up.users);
        if asked.shares.group > 0 && users < uids as u64 {
            let words = format!("{users} users are there, too few for a group of {uids}");
            return Err(Failure::new(words).into());
        }
        let after = usage();
        let work = Rc::new(Work::new(WorkPlan { users: set_up.users, ..asked }));
        let mut tally = Tally::new(Rc::clone(&work));
        let pace = match &turn.rate {
            Some(rate) => Pace::Rate(rate.per_s),
            None => Pace::Window(running.window.unwrap_or(window).min(window)),
        };
        // Walking all processes takes a millisecond: once is enough while messages flow.
        let pids = pids();
        let mut usage = || -> Usage { process::usage(&pids) };
        let spans = self.scenario.spans();
        let measured = engine
            .run(&work, &mut tally, pace, spans, &mut usage)
            .map_err(|failure| with_faults(&failure, &mut tally))
            .map_err(|failure| with_ends(failure, &mut running.servers))?;
        let latency = tally.latency().filter(|_| turn.rate.is_some()).map(latency_us);
        let grown = after.rss.saturating_sub(before.rss);
        let bytes_per_route = target.routes.then(|| grown as f64 / set_up.users as f64);
        let (faults, notes) = (tally.end(), running.notes);
        Ok(Outcome { set_up, bytes_per_route, measured, latency, faults, notes })
    }

    fn behaviour(
        &mut self,
        plan: &SystemPlan,
        target: Target,
        turn: &Turn,
        place: &Place,
    ) -> Result<Findings, Skipped> {
        let mut trial = Trial {
            target,
            work: self.scenario.work_plan(turn.case, turn.repeat),
            spans: self.scenario.spans(),
            place,
            pinned: self.server_core.is_some(),
            versions: BTreeMap::new(),
        };
        let findings = plan.run(&mut trial);
        self.versions.append(&mut trial.versions);
        findings
    }

    fn fill_system(&self, row: &mut Row, findings: Findings) {
        row.ok = self.allows(&row.target, &findings.faults);
        row.faults = findings.faults;
        row.users = findings.users;
        row.figures = findings.figures;
        row.spans_ms = findings.spans_ms;
        row.latency_us = findings.latency;
        row.notes = findings.notes;
    }

    /// Whether none of these fails the run.
    fn allows(&self, target: &str, faults: &[Fault]) -> bool {
        let allowed = self.scenario.allowed.get(target);
        faults.iter().all(|fault| allowed.is_some_and(|names| names.contains(&fault.name)))
    }

    fn fill(&self, row: &mut Row, outcome: Outcome, turn: &Turn) {
        let Outcome { set_up, bytes_per_route, measured, latency, faults, notes } = outcome;
        row.ok = self.allows(&row.target, &faults);
        row.faults = faults;
        row.notes = notes;
        row.users = set_up.users;
        row.latency_us = latency;
        row.figures = figures(&measured, self.server_core.is_some());
        row.figures.insert(figure::SETUP_S.into(), set_up.seconds);
        row.figures.extend(bytes_per_route.map(|bytes| (figure::BYTES_PER_ROUTE.into(), bytes)));
        if row.says_the_generator() {
            row.marks.push(mark::GENERATOR_BUSY.into());
        }
        if measured.messages < FEW_MESSAGES {
            row.marks.push(mark::FEW_MESSAGES.into());
        }
        if set_up.users < turn.case.users {
            row.marks.push(mark::FEWER_USERS.into());
        }
    }

    /// Whether what the scenario requires held in every row.
    fn judge(&self) -> Vec<Assertion> {
        let judged = |requirement: &&Requirement| !(requirement.timing && self.settings.check);
        let assertion = |requirement: &Requirement| Assertion {
            words: requirement.to_string(),
            held: requirement.holds(&self.result.rows),
        };
        self.scenario.assert.iter().filter(judged).map(assertion).collect()
    }
}

/// Sets up the users of this work, within limits.
pub(crate) fn set_up(
    work: &WorkPlan,
    limits: SetUpLimits,
    engine: &mut Engine,
    usage: &mut dyn FnMut() -> Usage,
) -> Result<SetUp, Failure> {
    // Nothing is published, and nothing may come.
    let mut tally = Tally::new(Rc::new(Work::new(WorkPlan { groups: 0, ..*work })));
    let set_up = engine.set_up(limits, &mut tally, usage)?;
    match tally.end().first() {
        Some(Fault { name, example, .. }) => {
            Err(Failure::new(format_args!("during the set-up: {name}: {example}")))
        }
        None => Ok(set_up),
    }
}

/// What ended a run, and what had been wrong before.
fn with_faults(failure: &Failure, tally: &mut Tally) -> Failure {
    let words = tally.end().into_iter().map(|Fault { name, count, .. }| format!("{name} {count}"));
    let words: Vec<String> = words.collect();
    match words.is_empty() {
        true => failure.clone(),
        false => Failure::new(format_args!("{failure}; by then: {}", words.join(", "))),
    }
}

/// What ended a run, behind the server that ended itself, if one did.
fn with_ends(failure: Failure, servers: &mut [Server]) -> Failure {
    match servers.iter_mut().find_map(Server::ended) {
        Some(ended) => Failure::new(format_args!("{ended}; {failure}")),
        None => failure,
    }
}

fn figures(measured: &Measured, pinned: bool) -> BTreeMap<String, f64> {
    let Measured { seconds, messages, deliveries, .. } = *measured;
    let (messages, deliveries) = (messages as f64, deliveries as f64);
    let idle = if pinned {
        measured.generator_idle
    } else {
        (1.0 - measured.generator_cpu_s / seconds).max(0.0)
    };
    let micros = 1e6 * measured.server_cpu_s;
    [
        (figure::MESSAGES_PER_S, messages / seconds),
        (figure::DELIVERIES_PER_S, deliveries / seconds),
        (figure::CPU_US_PER_MESSAGE, micros / messages),
        (figure::CPU_US_PER_DELIVERY, micros / deliveries),
        (figure::GENERATOR_US_PER_MESSAGE, 1e6 * seconds * (1.0 - idle) / messages),
        (figure::RSS_BYTES, measured.rss as f64),
        (figure::LINK_BYTES_PER_DELIVERY, measured.bytes as f64 / deliveries),
        (figure::GENERATOR_IDLE, idle),
        (figure::GENERATOR_LATE_P99_US, measured.late_p99_us.unwrap_or(f64::NAN)),
        (figure::SERVER_CORES, measured.server_cpu_s / seconds),
    ]
    .into_iter()
    .filter(|(_, value)| value.is_finite())
    // A driver with sockets of its own has no bytes here.
    .filter(|(name, value)| *name != figure::LINK_BYTES_PER_DELIVERY || *value > 0.0)
    .map(|(name, value)| (name.to_string(), value))
    .collect()
}

pub(crate) fn latency_us(histogram: &Histogram<u64>) -> LatencyUs {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    let at = |percentile: f64| micros(histogram.value_at_percentile(percentile));
    LatencyUs {
        count: histogram.len(),
        p50: at(50.0),
        p90: at(90.0),
        p99: at(99.0),
        p999: at(99.9),
        max: micros(histogram.max()),
        curve: CURVE.iter().map(|percentile| (*percentile, at(*percentile))).collect(),
    }
}

/// Tells what was wrong, on stderr.
pub fn complain(results: &Results) {
    for line in results.complaints() {
        output::talk(format_args!("FAILED {line}"));
    }
}

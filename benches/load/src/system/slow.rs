//! One gateway stops reading, and lives: what the others feel of it, what the server keeps for it,
//! and whether what it never got was told.

use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use waybill_wire::code::Level;

use super::cluster::Shared;
use super::{Findings, Trial, is_rate, latency_figures};
use crate::driver::Driver;
use crate::engine::Engine;
use crate::engine::pace::Pace;
use crate::process::{self, Server};
use crate::tally::Tally;
use crate::targets::{Pending, Plan, Skipped};
use crate::work::{RATE_MAX, Work};

/// Nothing has come for so long: what was kept for the gateway has come.
const QUIET: Duration = Duration::from_millis(500);

/// Targets whose drivers open the gateways' connections first, in their order.
const DRIVEN: [&str; 4] = ["waybill", "nats/uid", "redis/uid", "rabbitmq"];

/// How one is slow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowPlan {
    /// Messages per second, to the users of all gateways.
    pub rate: f64,
}

/// A server, its driver, and for Waybill what the driver knows.
struct Slowed {
    driver: Box<dyn Driver>,
    servers: Vec<Server>,
    cluster: Option<Shared>,
    notes: Vec<String>,
}

impl SlowPlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let rate = self.rate;
        (!is_rate(rate, 1.0)).then(|| format!("rate {rate} is not in 1..={RATE_MAX}"))
    }

    fn start(trial: &mut Trial<'_>) -> Result<Slowed, Skipped> {
        if trial.target.name == "waybill" {
            let (server, address) = trial.broker(None)?;
            let shared = Shared::new(trial.work, address, Level::ROUTED);
            let driver = Box::new(shared.clone());
            let notes =
                vec!["receipts of level routed; the slow gateway goes on saying PING".into()];
            return Ok(Slowed { driver, servers: vec![server], cluster: Some(shared), notes });
        }
        let plan = Plan { work: &trial.work, window: 0, pending: Pending::Shipped };
        let running = (trial.target.start)(&plan, trial.place)?;
        trial.versions.extend(running.versions);
        let (driver, servers, mut notes) = (running.driver, running.servers, running.notes);
        notes.push("its limits for a slow reader are those it is shipped with".into());
        Ok(Slowed { driver, servers, cluster: None, notes })
    }

    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        if !DRIVEN.contains(&trial.target.name) {
            // Of others, which connection is whose gateway's is not known here.
            let words = "not driven here; waybill, nats/uid, redis/uid and rabbitmq are";
            return Err(Skipped::absent(words));
        }
        let Slowed { driver, servers, cluster, notes } = Self::start(trial)?;
        let pids: Vec<u32> = servers.iter().flat_map(Server::pids).collect();
        let mut usage = || process::usage(&pids);
        let mut engine = Engine::connect(driver, trial.pinned)?;
        let mut findings = Findings { notes, ..Findings::default() };
        findings.set_up(trial.set_up(&mut engine, &mut usage)?);
        let work = Rc::new(Work::new(trial.work));
        let mut tally = Tally::new(Rc::clone(&work));
        let (pace, spans) = (Pace::Rate(self.rate), trial.spans);
        let slow = 0;
        tally.excuse(slow);
        let before = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("before", &before, &tally, &mut findings);

        engine.freeze(slow, true);
        if let Some(cluster) = &cluster {
            cluster.0.borrow_mut().frozen = Some(slow);
        }
        let (first, deliveries) = (tally.next(), tally.deliveries());
        let during = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("while", &during, &tally, &mut findings);
        findings.measured(&during, &tally);
        let published = (first..tally.next()).filter(|number| !Self::is_for(slow, *number, &work));
        let (expected, came) = (published.count(), tally.deliveries() - deliveries);
        findings.figure("others_delivered_share", came as f64 / expected.max(1) as f64);

        engine.freeze(slow, false);
        engine.settle(QUIET, &mut tally)?;
        findings.faults = tally.end();
        let lost = tally.excused_lost();
        findings.figure("slow_gateway_lost", lost as f64);
        if let Some(cluster) = cluster {
            let told = cluster.0.borrow().told;
            findings.figure("slow_gateway_told_dropped", told.dropped as f64);
            findings.figure("unaccounted", told.dropped.abs_diff(lost) as f64);
            findings.figure("unanswered", tally.next().abs_diff(told.receipts) as f64);
        }
        Ok(findings)
    }

    fn is_for(gateway: usize, number: u64, work: &Work) -> bool {
        match work.job(number) {
            crate::work::Job::User(uid) => {
                crate::work::gateway_of(uid, work.plan().gateways) == gateway
            }
            _ => false,
        }
    }
}

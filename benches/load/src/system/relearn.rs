//! The broker is killed in the middle of traffic and started again: how long until it knows
//! everybody, and whether every message that did not come is one that somebody was told of.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use waybill_wire::code::Level;

use super::cluster::{Cluster, Fate, Shared, Strike};
use super::{Findings, Trial, is_rate, latency_figures};
use crate::clock;
use crate::engine::pace::Pace;
use crate::engine::{Engine, Spans};
use crate::failure::Failure;
use crate::process;
use crate::results::figure;
use crate::tally::{Tally, fault};
use crate::targets::Skipped;
use crate::work::{RATE_MAX, Work};

/// Traffic around the end of the broker.
const AROUND: Duration = Duration::from_millis(200);

/// Silence after which what was under way has come, or never will.
const QUIET: Duration = Duration::from_millis(300);

/// How the broker starts again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelearnPlan {
    /// Messages per second, before and after.
    pub rate: f64,
}

impl RelearnPlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let rate = self.rate;
        (!is_rate(rate, 10.0)).then(|| format!("rate {rate} is not in 10..={RATE_MAX}"))
    }

    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        let (server, address) = trial.broker(Some(trial.place.free_address()?))?;
        let shared = Shared::new(trial.work, address, Level::ROUTED);
        let server = Rc::new(RefCell::new(server));
        let pids = server.borrow().pids();
        let mut usage = || process::usage(&pids);
        let empty = usage().rss;
        let mut engine = Engine::connect(Box::new(shared.clone()), trial.pinned)?;
        let mut findings = Findings::default();
        findings.set_up(trial.set_up(&mut engine, &mut usage)?);
        let full = usage().rss;
        let per_route = full.saturating_sub(empty) as f64 / trial.work.users as f64;
        findings.figure(figure::BYTES_PER_ROUTE, per_route);

        let work = Rc::new(Work::new(trial.work));
        let mut tally = Tally::new(Rc::clone(&work));
        let pace = Pace::Rate(self.rate);
        let before = engine.run(&work, &mut tally, pace, trial.spans, &mut usage)?;
        latency_figures("before", &before, &tally, &mut findings);

        let mut unanswered = tally.next().abs_diff(answered(&shared));

        let doomed = Rc::clone(&server);
        let what = Box::new(move || doomed.borrow_mut().kill());
        let messages = crate::engine::pace::due_before(clock::nanos(AROUND), self.rate);
        shared.0.borrow_mut().strike = Some(Strike { at: tally.next() + messages / 2, what });
        let spans = Spans { warm_up: AROUND / 4, measured: AROUND, drain: QUIET };
        engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        engine.settle(QUIET, &mut tally)?;

        let start = clock::instant();
        let (again, _) = trial.broker(Some(address))?;
        findings.span("process listens", ms(start.elapsed()));
        let pids = again.pids();
        *server.borrow_mut() = again;
        let mut usage = || process::usage(&pids);
        trial.set_up(&mut engine, &mut usage)?;
        let (returned, told) = (tally.next(), answered(&shared));
        let spans = trial.spans;
        let after = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("after", &after, &tally, &mut findings);
        findings.measured(&after, &tally);
        engine.settle(QUIET, &mut tally)?;

        unanswered += (tally.next() - returned).abs_diff(answered(&shared) - told);
        findings.figure("unanswered", unanswered as f64);
        let cluster = shared.0.borrow();
        moments(&cluster, start, trial.work.users, &mut findings)?;
        findings.faults = tally.end();
        account(&cluster, returned, &mut findings);
        findings.notes.push("gateways come back at once; their back-off is not in it".into());
        Ok(findings)
    }
}

/// Receipts so far.
fn answered(shared: &Shared) -> u64 {
    shared.0.borrow().told.receipts
}

/// When what was there again.
fn moments(
    cluster: &Cluster,
    start: Instant,
    users: u64,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let since = |moment: Option<Instant>, what: &str| {
        let moment = moment.ok_or_else(|| Failure::new(format_args!("after the start: no {what}")));
        moment.map(|moment| ms(moment.duration_since(start)))
    };
    let moments = cluster.moments;
    let routes = since(moments.in_effect, "routes in effect")?;
    findings.span("all routes back", routes);
    findings.span("broker ready", since(moments.ready, "broker that is ready")?);
    findings.span("first message answered", since(moments.answered, "answered message")?);
    let listens = findings.spans_ms.get("process listens").copied().unwrap_or(0.0);
    findings.figure("routes_back_per_s", users as f64 / (routes - listens) * 1e3);
    Ok(())
}

/// Takes the lost ones apart by who was told of them. What nobody was told of, and whatever was
/// lost after the return, is `unaccounted`; without any the loss is no fault.
fn account(cluster: &Cluster, returned: u64, findings: &mut Findings) {
    let (mut unsent, mut unanswered, mut answered, mut refused, mut wrong) = (0, 0, 0, 0, 0);
    for (number, (fate, came)) in (0u64..).zip(&cluster.fates) {
        match fate {
            _ if *came => {}
            Fate::Refused => refused += 1,
            _ if number >= returned => wrong += 1,
            Fate::Unsent => unsent += 1,
            Fate::Unanswered => unanswered += 1,
            Fate::Answered => answered += 1,
            Fate::Sent => wrong += 1,
        }
    }
    let lost: u64 =
        findings.faults.iter().filter(|it| it.name == fault::LOST).map(|it| it.count).sum();
    let told: u64 = unsent + unanswered + answered + refused;
    findings.figure("lost_not_sent", unsent as f64);
    findings.figure("lost_without_receipt", unanswered as f64);
    findings.figure("lost_with_a_link", answered as f64);
    findings.figure("lost_refused", refused as f64);
    let unaccounted = wrong + lost.abs_diff(told + wrong);
    findings.figure("unaccounted", unaccounted as f64);
    if unaccounted == 0 {
        findings.faults.retain(|it| it.name != fault::LOST);
    }
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Fault;
    use crate::work::WorkPlan;

    /// What is found where these messages are lost, and the tally missed `lost`.
    fn findings(fates: &[(Fate, bool)], returned: u64, lost: u64) -> Findings {
        let work = WorkPlan::single(10, 2);
        let shared = Shared::new(work, ([127, 0, 0, 1], 1).into(), Level::ROUTED);
        shared.0.borrow_mut().fates = fates.to_vec();
        let fault = Fault { name: fault::LOST.into(), count: lost, example: String::new() };
        let mut findings = Findings { faults: vec![fault], ..Findings::default() };
        account(&shared.0.borrow(), returned, &mut findings);
        findings
    }

    #[test]
    fn a_loss_that_somebody_was_told_of_is_no_fault() {
        let told = [Fate::Unsent, Fate::Unanswered, Fate::Answered, Fate::Refused];
        let fates: Vec<_> = told.map(|fate| (fate, false)).into_iter().collect();
        let found = findings(&[fates.as_slice(), &[(Fate::Sent, true)]].concat(), 4, 4);
        assert_eq!((found.figures["unaccounted"], found.faults.len()), (0.0, 0));
    }

    #[test]
    fn a_loss_that_nobody_was_told_of_is_one() {
        for (fates, returned, lost) in [
            (vec![(Fate::Sent, false)], 0, 1),
            (vec![(Fate::Answered, false)], 0, 1),
            (vec![(Fate::Unanswered, true)], 1, 1),
        ] {
            let found = findings(&fates, returned, lost);
            assert!(found.figures["unaccounted"] > 0.0 && found.faults.len() == 1, "{fates:?}");
        }
    }
}

//! A gateway with many users goes while messages flow to those of others: what these feel while
//! the broker forgets it, and whether anything goes by a route that is gone.

use std::rc::Rc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use waybill_wire::code::{ErrorCode, Level};
use waybill_wire::frame::Receipt;

use super::cluster::Shared;
use super::{Findings, Trial, is_rate, latency_figures};
use crate::clock;
use crate::engine::Engine;
use crate::engine::pace::Pace;
use crate::io::{Io, Socket};
use crate::tally::{Tally, fault};
use crate::targets::Skipped;
use crate::work::{RATE_MAX, Work, uid_of};

/// One message in so many is followed by one to a user of the gateway that leaves.
const PROBE_EVERY: u64 = 16;

/// Most users that leave.
const LEAVING_MAX: u64 = 10_000_000;

/// Longest time that a gateway may stay away; as of the broker's setting.
const WINDOW_MS_MAX: u32 = 600_000;

/// The same in a check.
const SHORT_WINDOW_MS: u32 = 50;

/// How a gateway leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeparturePlan {
    /// Messages per second to the users of gateways that stay.
    pub rate: f64,
    /// Users of the gateway that leaves.
    pub leaving: u64,
    /// How long the broker waits for it to come back before it forgets it, in milliseconds. What is
    /// measured should last for that and for the forgetting.
    pub resume_window_ms: u32,
}

/// The gateway that leaves, and what is asked of its users.
pub(super) struct Departure {
    first_uid: u64,
    leaving: u64,
    /// Whether it is to go with the next message.
    due: bool,
    gone: Option<Instant>,
    /// Messages to its users so far.
    probes: u64,
    /// Sequences of the first message to its users after its link was closed.
    asked_after: Option<u64>,
    answers: Answers,
}

/// What the receipts of messages to its users said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Answers {
    /// Sent, while its link was there or the broker had not seen its end.
    sent: u64,
    /// Not sent.
    refused: u64,
    /// Sent after one was not: by a route that was gone.
    stale: u64,
    /// From the end of the link to the first receipt that knew of it.
    known_ms: Option<f64>,
}

impl Departure {
    fn new(plan: &DeparturePlan, stay: u64) -> Self {
        Self {
            first_uid: uid_of(stay),
            leaving: plan.leaving,
            due: false,
            gone: None,
            probes: 0,
            asked_after: None,
            answers: Answers::default(),
        }
    }

    /// User `n` of the gateway.
    pub(super) fn at_first(&self, n: u64) -> Option<u64> {
        (n < self.leaving).then(|| self.first_uid + n)
    }

    /// Whether a user is one of those who leave.
    pub(super) fn is_about(&self, uid: u64) -> bool {
        uid >= self.first_uid
    }

    /// With each message to others: closes the link when that is due; a user who leaves, whom the
    /// next message is for.
    pub(super) fn turn(&mut self, number: u64, link: Socket, io: &mut Io) -> Option<u64> {
        if std::mem::take(&mut self.due) {
            io.close(link);
            self.gone = Some(clock::instant());
        }
        if !number.is_multiple_of(PROBE_EVERY) {
            return None;
        }
        // Stepping by a prime goes all over them.
        let uid = self.first_uid + (self.probes * 7_919) % self.leaving;
        self.probes += 1;
        Some(uid)
    }

    /// That message has this sequence.
    pub(super) fn asked(&mut self, sequence: u64) {
        if self.gone.is_some() {
            self.asked_after.get_or_insert(sequence);
        }
    }

    /// A receipt came in.
    pub(super) fn answered(&mut self, receipt: &Receipt<'_>, tally: &mut Tally) {
        if receipt.code != ErrorCode(0) {
            let words = format_args!("the message to a user who leaves: {}", receipt.code);
            return tally.fault(fault::REFUSED, words);
        }
        let after = self.asked_after.is_some_and(|first| receipt.sequence >= first);
        let answers = &mut self.answers;
        match (receipt.sent, answers.known_ms) {
            (0, known) => {
                answers.refused += 1;
                if let (None, Some(gone)) = (known, self.gone) {
                    answers.known_ms = Some(gone.elapsed().as_secs_f64() * 1e3);
                }
                if !after {
                    let words = "a user of the gateway was not reached before it left";
                    tally.fault(fault::LOST, format_args!("{words}"));
                }
            }
            (_, None) => answers.sent += 1,
            (_, Some(_)) => answers.stale += 1,
        }
    }

    /// A message to one of its users came in at a gateway.
    pub(super) fn delivered(&mut self, at: usize, uid: u64, gateways: usize, tally: &mut Tally) {
        if at != gateways {
            let words = format_args!("to user {uid}, who is on another gateway, at gateway {at}");
            tally.fault(fault::WRONG_GATEWAY, words);
        }
    }
}

impl DeparturePlan {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Option<String> {
        let (rate, leaving, window) = (self.rate, self.leaving, self.resume_window_ms);
        if !is_rate(rate, 1.0) {
            return Some(format!("rate {rate} is not in 1..={RATE_MAX}"));
        }
        if !(1..=LEAVING_MAX).contains(&leaving) {
            return Some(format!("leaving {leaving} is not in 1..={LEAVING_MAX}"));
        }
        (window > WINDOW_MS_MAX)
            .then(|| format!("resume_window_ms {window} is not in 0..={WINDOW_MS_MAX}"))
    }

    /// The same with at most so many users, and forgotten at once.
    pub(super) fn shorten(&mut self, users: u64) {
        self.leaving = self.leaving.min(users);
        self.resume_window_ms = self.resume_window_ms.min(SHORT_WINDOW_MS);
    }

    /// Runs it.
    pub(super) fn run(&self, trial: &mut Trial<'_>) -> Result<Findings, Skipped> {
        let window = format!("resume_window_ms = {}\n", self.resume_window_ms);
        let broker = trial.broker_with(None, &window)?;
        let shared = Shared::new(trial.work, broker.1, Level::NONE);
        shared.0.borrow_mut().departure = Some(Departure::new(self, trial.work.users));
        let mut engine = Engine::connect(Box::new(shared.clone()), trial.pinned)?;
        let pids = broker.0.pids();
        let mut usage = || crate::process::usage(&pids);
        let mut findings = Findings::default();
        findings.set_up(trial.set_up(&mut engine, &mut usage)?);
        let work = Rc::new(Work::new(trial.work));
        let mut tally = Tally::new(Rc::clone(&work));
        let (pace, spans) = (Pace::Rate(self.rate), trial.spans);
        let before = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("before", &before, &tally, &mut findings);

        if let Some(departure) = &mut shared.0.borrow_mut().departure {
            departure.due = true;
        }
        // What it is to show is not before it.
        let spans = crate::engine::Spans { warm_up: std::time::Duration::ZERO, ..spans };
        let during = engine.run(&work, &mut tally, pace, spans, &mut usage)?;
        latency_figures("while", &during, &tally, &mut findings);
        findings.measured(&during, &tally);
        let answers = shared.0.borrow().departure.as_ref().map(|departure| departure.answers);
        let answers = answers.unwrap_or_default();
        findings.figure("probes_before", answers.sent as f64);
        findings.figure("probes_not_sent", answers.refused as f64);
        findings.figure("stale_routes_used", answers.stale as f64);
        if let Some(ms) = answers.known_ms {
            findings.span("link ends, then a receipt that knows it", ms);
        }
        findings.faults = tally.end();
        Ok(findings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::work::WorkPlan;

    const PLAN: DeparturePlan = DeparturePlan { rate: 1.0, leaving: 3, resume_window_ms: 0 };

    fn receipt(sequence: u64, sent: u32) -> Receipt<'static> {
        Receipt { sequence, sent, last: true, stage: Level::ROUTED, ..Receipt::default() }
    }

    fn names(tally: &mut Tally) -> Vec<String> {
        tally.end().into_iter().map(|fault| fault.name).collect()
    }

    fn tally() -> Tally {
        Tally::new(Rc::new(Work::new(WorkPlan::single(10, 2))))
    }

    #[test]
    fn what_is_sent_after_a_receipt_that_knew_is_stale() {
        let (mut departure, mut tally) = (Departure::new(&PLAN, 10), tally());
        departure.gone = Some(Instant::now());
        departure.asked(5);
        for (sequence, sent) in [(4, 1), (5, 1), (6, 0), (7, 0), (8, 1)] {
            departure.answered(&receipt(sequence, sent), &mut tally);
        }
        let Answers { sent, refused, stale, known_ms } = departure.answers;
        assert_eq!((sent, refused, stale, known_ms.is_some()), (2, 2, 1, true));
        assert!(names(&mut tally).is_empty());
    }

    #[test]
    fn a_user_who_is_not_reached_before_is_lost() {
        let (mut departure, mut tally) = (Departure::new(&PLAN, 10), tally());
        departure.answered(&receipt(1, 0), &mut tally);
        assert_eq!(names(&mut tally), [fault::LOST]);
    }

    #[test]
    fn a_message_at_another_gateway_is_a_fault() {
        let (mut departure, mut tally) = (Departure::new(&PLAN, 10), tally());
        assert_eq!((0..9).map_while(|n| departure.at_first(n)).count(), 3);
        assert!(departure.is_about(uid_of(10)) && !departure.is_about(uid_of(9)));
        departure.delivered(2, uid_of(10), 2, &mut tally);
        departure.delivered(1, uid_of(10), 2, &mut tally);
        assert_eq!(names(&mut tally), [fault::WRONG_GATEWAY]);
    }
}

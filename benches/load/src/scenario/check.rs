//! What a scenario may not say: values that cannot be, keys that do not go together.

use std::fmt::Display;
use std::ops::RangeInclusive;

use waybill_wire::limits::{PAYLOAD_BYTES_MAX, TARGETS_MAX};

use super::{Kind, RatePlan, Requirement, Scenario, ShareOfCapacity, WorkKind};
use crate::failure::Failure;
use crate::results::figure;
use crate::system::SystemPlan;
use crate::tally::fault;
use crate::targets;
use crate::work::{GATEWAYS_MAX, PAYLOAD_BYTES_MIN, RATE_MAX, Shares, USERS_MAX};

/// Most groups: the bench keeps the users of each.
const GROUPS_MAX: usize = 100_000;

/// Most repeats: every quotient of two of them is looked at when runs are compared.
const REPEATS_MAX: usize = 10_000;

/// What rows say of latency, by the names of requirements.
const LATENCIES: [&str; 3] = ["p50_us", "p99_us", "p999_us"];

/// Refuses the first value that is out of range.
fn within<T: PartialOrd + Display>(
    key: &str,
    values: &[T],
    range: &RangeInclusive<T>,
) -> Result<(), Failure> {
    let Some(value) = values.iter().find(|value| !range.contains(value)) else { return Ok(()) };
    let (least, most) = (range.start(), range.end());
    Err(Failure::new(format_args!("{key}: {value} is not in {least}..={most}")))
}

/// Refuses the first value that is there again: its rows could not be told from those before.
fn once<T: PartialEq + Display>(key: &str, values: &[T]) -> Result<(), Failure> {
    for (at, value) in values.iter().enumerate() {
        if values[..at].contains(value) {
            return Err(Failure::new(format_args!("{key}: {value} is there twice")));
        }
    }
    Ok(())
}

impl Scenario {
    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let wrong = |key: &str, words: String| Err(Failure::new(format_args!("{key}: {words}")));
        for (key, is_empty) in [
            ("users", self.users.is_empty()),
            ("gateways", self.gateways.is_empty()),
            ("payload_bytes", self.payload_bytes.is_empty()),
            ("targets", self.targets.is_empty()),
        ] {
            if is_empty {
                return wrong(key, "is empty, name at least one".into());
            }
        }
        once("targets", &self.targets)?;
        targets::named(&self.targets).map_err(|failure| failure.during("targets"))?;
        once("users", &self.users)?;
        within("users", &self.users, &(1..=USERS_MAX))?;
        let least = self.system.as_ref().map_or(1, SystemPlan::gateways_least);
        once("gateways", &self.gateways)?;
        within("gateways", &self.gateways, &(least..=GATEWAYS_MAX))?;
        once("payload_bytes", &self.payload_bytes)?;
        within("payload_bytes", &self.payload_bytes, &(PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX))?;
        within("repeats", &[self.repeats], &(1..=REPEATS_MAX))?;
        within("groups", &[self.groups], &(1..=GROUPS_MAX))?;
        within("group_uids", &[self.group_uids], &(1..=TARGETS_MAX))?;
        for (key, value) in [
            ("seconds", self.seconds),
            ("warm_up_seconds", self.warm_up_seconds),
            ("drain_seconds", self.drain_seconds),
        ] {
            if !(value > 0.0 && value <= 3_600.0) {
                return wrong(key, format!("{value} is not above 0 and at most 3600"));
            }
        }
        for (key, value) in [("window", self.window), ("window_bytes", self.window_bytes)] {
            if value == 0 {
                return wrong(key, "0 is not at least 1".into());
            }
        }
        self.check_work()?;
        self.check_rates()?;
        self.check_requirements()
    }

    fn check_work(&self) -> Result<(), Failure> {
        let wrong = match (&self.system, self.kind, self.work) {
            (None, Kind::System, _) => Some("is missing, and kind is system".into()),
            (Some(_), Kind::Throughput | Kind::Latency, _) => {
                Some("is for kind = \"system\"".into())
            }
            (Some(_), _, WorkKind::Group | WorkKind::Broadcast | WorkKind::Mixed) => {
                Some("is for work = \"single\"".into())
            }
            (plan, ..) => plan.as_ref().and_then(SystemPlan::check),
        };
        if let Some(words) = wrong {
            return Err(Failure::new(format_args!("system: {words}")));
        }
        match (self.work, self.shares) {
            (WorkKind::Mixed, None) => {
                return Err(Failure::new("shares: is missing, and work is mixed"));
            }
            (WorkKind::Mixed, Some(Shares { single: 0, group: 0, broadcast: 0 })) => {
                return Err(Failure::new("shares: all are 0"));
            }
            (WorkKind::Mixed, Some(_)) | (_, None) => {}
            (_, Some(_)) => {
                return Err(Failure::new("shares: is for work = \"mixed\" only"));
            }
        }
        let least = self.users.iter().min().copied().unwrap_or(0);
        if self.shares().group > 0 && self.group_uids as u64 > least {
            let uids = self.group_uids;
            let words = format!("group_uids: {uids} users cannot be drawn once each from {least}");
            return Err(Failure::new(words));
        }
        Ok(())
    }

    fn check_rates(&self) -> Result<(), Failure> {
        let wrong = |words: String| Err(Failure::new(format_args!("rates: {words}")));
        match (self.kind, self.rates.is_empty()) {
            (Kind::Latency, true) => return wrong("is missing, and kind is latency".into()),
            (Kind::Throughput | Kind::System, false) => {
                return wrong("is for kind = \"latency\" only".into());
            }
            _ => {}
        }
        for rate in &self.rates {
            match rate {
                RatePlan::PerSecond(rate) => within("rates", &[*rate], &(1.0..=RATE_MAX))?,
                RatePlan::Share(ShareOfCapacity { share, .. })
                    if !(*share > 0.0 && *share < 1.0) =>
                {
                    return wrong(format!("share {share} is not between 0 and 1"));
                }
                RatePlan::Share(ShareOfCapacity { of: Some(of), .. })
                    if !self.targets.contains(of) =>
                {
                    return wrong(format!(
                        "a share of {of:?}, which does not run; add it to the targets, or leave \
                         `of` out for a share of each target's own capacity"
                    ));
                }
                RatePlan::Share(_) => {}
            }
        }
        // By what rows say of it: 0.5 and 0.501 would be one rate in every table.
        once("rates", &self.rates.iter().map(RatePlan::asked).collect::<Vec<_>>())
    }

    fn check_requirements(&self) -> Result<(), Failure> {
        for requirement in &self.assert {
            if let Some(words) = self.wrong_with(requirement) {
                return Err(Failure::new(format_args!("assert: {} {words}", requirement.figure)));
            }
            let target: Vec<String> = requirement.target.iter().cloned().collect();
            targets::named(&target).map_err(|failure| failure.during("assert"))?;
        }
        let allowed: Vec<String> = self.allowed.keys().cloned().collect();
        targets::named(&allowed).map_err(|failure| failure.during("allowed"))?;
        for name in self.allowed.values().flatten() {
            if !fault::ALL.contains(&name.as_str()) {
                let known = fault::ALL.join(", ");
                let words = format!("allowed: {name:?} is no fault; these are: {known}");
                return Err(Failure::new(words));
            }
        }
        Ok(())
    }

    /// What is wrong with a requirement, if anything.
    fn wrong_with(&self, requirement: &Requirement) -> Option<String> {
        let Requirement { figure: name, at_least, at_most, .. } = requirement;
        match (at_least, at_most) {
            (None, None) => return Some("has neither at_most nor at_least".into()),
            (Some(bound), _) | (_, Some(bound)) if bound.is_nan() => {
                return Some("is compared with nan".into());
            }
            (Some(least), Some(most)) if least > most => {
                return Some(format!("cannot be at least {least} and at most {most}"));
            }
            _ => {}
        }
        let latencies = if self.kind == Kind::Latency { &LATENCIES[..] } else { &[] };
        let known = [&fault::ALL[..], &figure::ALL, latencies].concat();
        // What a system scenario measures beside these has names of its own.
        let fine = self.kind == Kind::System || known.contains(&name.as_str());
        (!fine).then(|| format!("is no figure of this kind; there are {}", known.join(", ")))
    }
}

//! What a scenario may not say: values that cannot be, keys that do not go together.

use super::{Kind, RatePlan, Scenario, ShareOfCapacity, WorkKind};
use crate::failure::Failure;
use crate::system::SystemPlan;
use crate::tally::fault;
use crate::work::{GATEWAYS_MAX, PAYLOAD_BYTES_MIN, Shares};

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
        if let Some(users) = self.users.iter().find(|users| **users == 0) {
            return wrong("users", format!("{users} is not at least 1"));
        }
        let gateways = |count: &&usize| !(1..=GATEWAYS_MAX).contains(*count);
        if let Some(count) = self.gateways.iter().find(gateways) {
            return wrong("gateways", format!("{count} is not in 1..={GATEWAYS_MAX}"));
        }
        if let Some(bytes) = self.payload_bytes.iter().find(|it| **it < PAYLOAD_BYTES_MIN) {
            return wrong("payload_bytes", format!("{bytes} is less than {PAYLOAD_BYTES_MIN}"));
        }
        for (key, value) in [
            ("seconds", self.seconds),
            ("warm_up_seconds", self.warm_up_seconds),
            ("drain_seconds", self.drain_seconds),
        ] {
            if !(value > 0.0 && value <= 3_600.0) {
                return wrong(key, format!("{value} is not above 0 and at most 3600"));
            }
        }
        for (key, value) in [
            ("repeats", self.repeats as u64),
            ("window", self.window),
            ("window_bytes", self.window_bytes),
            ("groups", self.groups as u64),
            ("group_uids", self.group_uids as u64),
        ] {
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
                RatePlan::PerSecond(rate) if !(*rate >= 1.0 && rate.is_finite()) => {
                    return wrong(format!("{rate} is not at least 1 per second"));
                }
                RatePlan::Share(ShareOfCapacity { share, .. })
                    if !(*share > 0.0 && *share < 1.0) =>
                {
                    return wrong(format!("share {share} is not between 0 and 1"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_requirements(&self) -> Result<(), Failure> {
        for requirement in &self.assert {
            if requirement.at_most.is_none() && requirement.at_least.is_none() {
                let figure = &requirement.figure;
                let words = format!("assert: {figure} has neither at_most nor at_least");
                return Err(Failure::new(words));
            }
        }
        for name in self.allowed.values().flatten() {
            if !fault::ALL.contains(&name.as_str()) {
                let known = fault::ALL.join(", ");
                let words = format!("allowed: {name:?} is no fault; these are: {known}");
                return Err(Failure::new(words));
            }
        }
        Ok(())
    }
}

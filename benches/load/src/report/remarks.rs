//! What has to be said beside the figures: failures, faults, marks, notes. What is true of several
//! variants is said once.

use std::collections::BTreeMap;

use super::words;
use crate::results::mark::{FEWER_USERS, GENERATOR_BUSY};
use crate::results::{ScenarioResult, SkippedTarget, figure};
use crate::summary::figures::{Figure, Unit};
use crate::summary::table::{Entry, Table};

/// A server that used less than this in a closed window was not the limit.
const CORES_BUSY: f64 = 0.8;

/// One thing to be said of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remark {
    /// The target.
    pub(super) target: String,
    /// Of which variants, in words; empty where it is so in all of them.
    pub(super) of: String,
    /// What.
    pub(super) said: String,
    /// It failed the run.
    pub(super) grave: bool,
}

/// Everything to be said of a scenario's rows, what failed first.
pub(super) fn remarks(scenario: &ScenarioResult, tables: &[Table<'_>]) -> Vec<Remark> {
    let mut remarks: Vec<(Remark, Vec<String>)> = Vec::new();
    for table in tables {
        for entry in &table.entries {
            let target = entry.target.to_owned();
            let unused = unused(scenario, table, entry).map(|said| (false, said));
            for (grave, said) in said(entry, table.variant.users).into_iter().chain(unused) {
                let variant = words::variant_within(table.variant, scenario);
                let new = Remark { target: target.clone(), of: String::new(), said, grave };
                match remarks.iter_mut().find(|(there, _)| *there == new) {
                    Some((_, variants)) => variants.push(variant),
                    None => remarks.push((new, vec![variant])),
                }
            }
        }
    }
    let everywhere = |target: &str| tables.iter().filter(|one| one.entry(target).is_some()).count();
    let mut remarks: Vec<Remark> = remarks
        .into_iter()
        .map(|(remark, variants)| {
            let all = variants.len() == everywhere(&remark.target)
                && (variants.len() > 1 || tables.len() == 1);
            Remark { of: if all { String::new() } else { variants.join("; ") }, ..remark }
        })
        .collect();
    remarks.sort_by_key(|remark| !remark.grave);
    remarks
}

/// Targets that were skipped, each once with all its reasons.
pub(super) fn skipped(scenario: &ScenarioResult) -> Vec<(&str, String)> {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for SkippedTarget { target, reason } in &scenario.skipped {
        let reasons = reasons.entry(target).or_default();
        if !reasons.contains(&reason.as_str()) {
            reasons.push(reason);
        }
    }
    reasons.into_iter().map(|(target, reasons)| (target, reasons.join("; "))).collect()
}

/// Of a capacity that neither side was busy for, if it was one: pinned to a core each, one of the
/// two is the limit, or else something third was.
fn unused(scenario: &ScenarioResult, table: &Table<'_>, entry: &Entry<'_>) -> Option<String> {
    let open = table.variant.rate.is_some() || scenario.kind == "system";
    let figure = |key: &str| Some(entry.cell(&Figure::named(key)).quoted()?.median);
    let (cores, idle) = (figure(figure::SERVER_CORES)?, figure(figure::GENERATOR_IDLE)?);
    if open || cores >= CORES_BUSY || entry.generator_was_busy() {
        return None;
    }
    let (cores, idle) = (words::digits(cores), words::value(idle, Unit::Share));
    Some(format!(
        "neither side was busy (server {cores} cores, generator {idle} idle): other load on the \
         machine, or the target waits for something"
    ))
}

/// What a target's rows say of themselves, and whether it failed the run.
fn said(entry: &Entry<'_>, asked: u64) -> Vec<(bool, String)> {
    let mut said = Vec::new();
    if entry.failed() > 0 {
        let repeats = words::several(entry.rows.len(), "repeat");
        said.push((true, format!("FAILED the check in {} of {repeats}", entry.failed())));
    }
    for fault in entry.faults() {
        let allowed = if fault.allowed { "; the scenario allows it" } else { "" };
        let (name, count) = (&fault.name, words::grouped(fault.count));
        let repeats = words::several(fault.repeats, "repeat");
        let words = format!("{name}: {count} in {repeats}, the first: {}{allowed}", fault.example);
        said.push((!fault.allowed, words));
    }
    for (mark, repeats) in entry.marks() {
        match mark {
            GENERATOR_BUSY => {
                let words = "the generator was too busy, so only CPU figures count";
                said.push((false, words.to_owned()));
            }
            // Said below, with their number.
            FEWER_USERS => {}
            other => {
                let repeats = words::several(repeats, "repeat");
                said.push((false, format!("{} ({repeats})", other.replace('_', " "))));
            }
        }
    }
    if (1..asked).contains(&entry.users()) {
        let (users, asked) = (words::grouped(entry.users()), words::grouped(asked));
        said.push((false, format!("set up with {users} users, of {asked} that were asked for")));
    }
    said.extend(entry.notes().into_keys().map(|note| (false, note.to_owned())));
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn what_is_so_everywhere_is_said_once() {
        let run = example::run();
        let direct = &run.scenarios[0];
        let remarks = remarks(direct, &Table::of(direct));
        let busy = remarks.iter().filter(|one| one.said.contains("generator")).collect::<Vec<_>>();
        let targets: Vec<&str> = busy.iter().map(|one| one.target.as_str()).collect();
        assert_eq!(targets, ["relay-epoll", "relay-uring"]);
        assert!(busy.iter().all(|one| one.of.is_empty()), "{busy:?}");
    }

    #[test]
    fn a_capacity_that_nobody_was_busy_for_is_told() {
        let mut run = example::run();
        let direct = &mut run.scenarios[0];
        let about = |remarks: &[Remark]| -> Vec<String> {
            let told = remarks.iter().filter(|one| one.said.contains("neither side was busy"));
            told.map(|one| one.target.clone()).collect()
        };
        assert_eq!(about(&remarks(direct, &Table::of(direct))), Vec::<String>::new());
        for row in direct.rows.iter_mut().filter(|row| row.target == "redis/uid") {
            row.figures.insert(figure::SERVER_CORES.to_owned(), 0.1);
        }
        assert_eq!(about(&remarks(direct, &Table::of(direct))), ["redis/uid"]);
    }

    #[test]
    fn a_target_is_skipped_once_for_all_its_reasons() {
        let mut run = example::run();
        let latency = &mut run.scenarios[1];
        for reason in ["20000/s is above its capacity", "50000/s is above its capacity"] {
            for _repeat in 0..2 {
                let (target, reason) = ("redis/uid".to_owned(), reason.to_owned());
                latency.skipped.push(SkippedTarget { target, reason });
            }
        }
        let all = skipped(latency);
        let targets: Vec<&str> = all.iter().map(|(target, _)| *target).collect();
        assert_eq!(targets, ["nats/gw", "redis/uid"]);
        assert_eq!(all[1].1, "20000/s is above its capacity; 50000/s is above its capacity");
    }

    #[test]
    fn what_failed_comes_first_with_where() {
        let run = example::run();
        let direct = &run.scenarios[0];
        let remarks = remarks(direct, &Table::of(direct));
        assert!(remarks[0].grave && remarks[0].target == "nats/uid", "{remarks:?}");
        assert_eq!(remarks[0].of, "1,024 B payload, 100,000 users");
        assert_eq!(remarks.iter().filter(|one| one.grave).count(), 2, "{remarks:?}");
    }
}

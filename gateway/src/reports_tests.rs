//! Reports on deliveries whose connections do what a test says, then at random against a naive sum;
//! those on messages that were sent again are in `copies`.

use proptest::prelude::*;

use super::*;

#[path = "reports_copies_tests.rs"]
mod copies;

#[path = "reports_parts_tests.rs"]
mod parts;

fn machine() -> Reports {
    Reports::new(Bounds { places: 1000, past: 1000, report_ms: 2000 })
}

const KEY: Key = (1, (7, 1));

/// Targets as (fate, cause, UIDs).
fn named(report: &Report) -> Vec<(Fate, ErrorCode, Vec<u64>)> {
    report.fates.iter().map(|f| (f.fate, f.cause, f.uids.clone())).collect()
}

fn seal(reports: &mut Reports, draft: Draft) {
    reports.seal(draft, 0, Report::default(), 100);
}

#[test]
fn one_report_when_all_have_settled() {
    let mut reports = machine();
    let mut draft = reports.open(KEY, 3, false);
    let (phone, laptop) = (draft.queued(1), draft.queued(1));
    let full = draft.queued(2);
    draft.settled(3, Outcome::Filtered);
    draft.offline(9);
    draft.offline(9);
    seal(&mut reports, draft);
    assert_eq!(reports.deadline_ms(), Some(2100));
    reports.settle(phone, Outcome::Gone);
    reports.settle(full, Outcome::Full);
    assert!(!reports.is_ready());
    reports.settle(laptop, Outcome::Reached);
    let (link, report) = reports.pop().unwrap();
    assert_eq!((link, report.reached, report.offline, report.filtered), (0, 1, 1, 1));
    assert_eq!((report.dropped, report.unknown), (1, 0));
    let expected = [
        (Fate::OFFLINE, ErrorCode(0), vec![9]),
        (Fate::FILTERED, ErrorCode(0), vec![3]),
        (Fate::DROPPED, ErrorCode::OUTBOX_FULL, vec![2]),
    ];
    assert_eq!(named(&report), expected);
    assert!(reports.pop().is_none() && reports.deadline_ms().is_none());
    assert_eq!(reports.places, 0);
}

#[test]
fn a_user_is_reached_by_the_first_connection_that_is() {
    let mut reports = machine();
    let mut draft = reports.open(KEY, 1, false);
    let (phone, laptop) = (draft.queued(1), draft.queued(1));
    seal(&mut reports, draft);
    reports.settle(phone, Outcome::Reached);
    assert_eq!(reports.pop().unwrap().1.reached, 1);
    // The other one settles into nothing.
    reports.settle(laptop, Outcome::Full);
    assert!(reports.pop().is_none());
}

#[test]
fn who_is_not_heard_of_in_time_is_in_doubt() {
    let mut reports = machine();
    let mut draft = reports.open(KEY, 2, false);
    let (first, second) = (draft.queued(1), draft.queued(2));
    seal(&mut reports, draft);
    reports.settle(first, Outcome::Reached);
    reports.tick(2099);
    assert!(!reports.is_ready());
    reports.tick(2100);
    let (_, report) = reports.pop().unwrap();
    assert_eq!((report.reached, report.unknown), (1, 1));
    assert_eq!(named(&report), [(Fate::UNKNOWN, ErrorCode(0), vec![2])]);
    reports.settle(second, Outcome::Reached);
    assert!(reports.pop().is_none(), "one report");
}

#[test]
fn with_everyone_users_are_counted_and_nobody_is_named() {
    let mut reports = machine();
    let mut draft = reports.open(KEY, 3, true);
    let tickets = [draft.queued(1), draft.queued(2), draft.queued(1)];
    draft.settled(3, Outcome::Filtered);
    seal(&mut reports, draft);
    reports.settle(tickets[0], Outcome::Full);
    reports.settle(tickets[1], Outcome::Expired);
    reports.settle(tickets[2], Outcome::Reached);
    let (_, report) = reports.pop().unwrap();
    assert_eq!((report.reached, report.dropped, report.filtered), (1, 1, 1));
    assert!(report.fates.is_empty());
}

#[test]
fn promise_7_what_finds_no_room_is_reported_at_once_as_unknown() {
    let mut reports = Reports::new(Bounds { places: 4, past: 2, report_ms: 2000 });
    let mut kept = reports.open(KEY, 2, false);
    kept.queued(1);
    kept.queued(2);
    seal(&mut reports, kept);
    let mut draft = reports.open((1, (7, 1000)), 2, false);
    assert!(!draft.queued(3).is_some());
    draft.offline(4);
    seal(&mut reports, draft);
    let (_, report) = reports.pop().unwrap();
    assert_eq!((report.unknown, report.offline), (1, 1));
    assert_eq!(reports.counts().untracked, 1);
    // Nobody takes reports: they end, too.
    for uid in 0..100 {
        let mut draft = reports.open((1, (7, uid)), 1, false);
        draft.queued(uid);
        seal(&mut reports, draft);
    }
    assert!(reports.places <= 8, "{}", reports.places);
    assert!(reports.counts().lost > 90);
    assert!(reports.copies.len() <= 3 && reports.newest.len() <= 3, "one is owed, two are past");
}

#[test]
fn reports_of_a_link_end_with_it() {
    let mut reports = machine();
    let mut draft = reports.open(KEY, 1, false);
    let ticket = draft.queued(1);
    reports.seal(draft, 1, Report::default(), 0);
    let mut draft = reports.open(KEY, 1, false);
    draft.offline(1);
    reports.seal(draft, 1, Report::default(), 0);
    reports.link_down(1);
    reports.settle(ticket, Outcome::Reached);
    assert!(reports.pop().is_none());
    assert_eq!(reports.places, 0);
    assert_eq!(reports.counts().lost, 2);
}

proptest! {
    #[test]
    fn every_user_counts_once(
        connections in proptest::collection::vec((0u64..6, 0u8..7), 1..40),
        everyone in any::<bool>(),
    ) {
        let mut connections = connections;
        if !everyone {
            connections.sort_unstable();
        }
        let outcomes = [
            Outcome::Gone, Outcome::Filtered, Outcome::Expired, Outcome::Full, Outcome::InDoubt,
            Outcome::Reached,
        ];
        let mut reports = machine();
        let mut draft = reports.open(KEY, connections.len(), everyone);
        let mut best = BTreeMap::new();
        let mut tickets = Vec::new();
        for (uid, what) in &connections {
            // 6 never settles.
            let outcome = outcomes.get(usize::from(*what)).copied();
            let entry = best.entry(*uid).or_insert(Outcome::Gone);
            *entry = (*entry).max(outcome.unwrap_or(Outcome::InDoubt));
            match outcome {
                Some(outcome @ Outcome::Filtered) => draft.settled(*uid, outcome),
                _ => tickets.push((draft.queued(*uid), outcome)),
            }
        }
        seal(&mut reports, draft);
        for (ticket, outcome) in tickets {
            if let Some(outcome) = outcome {
                reports.settle(ticket, outcome);
            }
        }
        reports.tick(u64::MAX);
        let (_, report) = reports.pop().unwrap();
        prop_assert!(reports.pop().is_none());
        let count = |found: &[Outcome]| best.values().filter(|best| found.contains(best)).count();
        prop_assert_eq!(report.reached as usize, count(&[Outcome::Reached]));
        prop_assert_eq!(report.unknown as usize, count(&[Outcome::InDoubt]));
        prop_assert_eq!(report.dropped as usize, count(&[Outcome::Full, Outcome::Expired]));
        prop_assert_eq!(report.filtered as usize, count(&[Outcome::Filtered]));
        prop_assert_eq!(report.offline as usize, count(&[Outcome::Gone]));
        prop_assert_eq!(reports.places, 0);
    }
}

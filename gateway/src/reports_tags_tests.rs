//! Reports on TAG: who is reached, by when, and for how much room.

use waybill_client::gateway::Fates;

use super::*;

fn machine(places: usize) -> Reports {
    Reports::new(Bounds { places, past: 1000, report_ms: 2000 })
}

fn on(sequence: u64) -> Report {
    Report { link: 1, sequence, origin: 0x77, ..Report::default() }
}

fn popped(reports: &mut Reports) -> Vec<(usize, u64, u32, Vec<Fates>)> {
    let next = |reports: &mut Reports| reports.pop();
    std::iter::from_fn(|| next(reports))
        .map(|(link, report)| (link, report.sequence, report.reached, report.fates))
        .collect()
}

#[test]
fn tag_16_users_are_reached_when_the_broker_has_their_tags() {
    let mut reports = machine(1000);
    let mut full = on(1);
    full.add(Fate::DROPPED, ErrorCode::CONNECTION_TAGS, 9);
    reports.tagged(0, Some(5), full.clone(), vec![1, 2], 0);
    reports.tagged(1, Some(5), on(2), vec![1], 0);
    reports.tagged(0, None, on(3), vec![1, 2, 3], 0);
    assert_eq!(popped(&mut reports), [(0, 3, 3, vec![])], "in effect already");
    reports.in_effect(0, 4);
    assert_eq!(popped(&mut reports), []);
    reports.in_effect(0, 6);
    assert_eq!(popped(&mut reports), [(0, 1, 2, full.fates)]);
    reports.in_effect(1, 5);
    assert_eq!(popped(&mut reports), [(1, 2, 1, vec![])]);
    assert_eq!((reports.waiting(), reports.load(), reports.deadline_ms()), (0, 0, None));
    // Nobody's changes were made: there is nothing to wait for.
    reports.tagged(0, Some(7), on(4), vec![], 0);
    assert_eq!(popped(&mut reports), [(0, 4, 0, vec![])]);
}

#[test]
fn tag_16_a_broker_that_does_not_confirm_in_time_leaves_them_unknown() {
    let mut reports = machine(1000);
    reports.tagged(0, Some(5), on(1), vec![1, 2], 100);
    reports.tagged(0, Some(4), on(2), vec![3], 150);
    assert_eq!(reports.deadline_ms(), Some(2100));
    reports.tick(2099);
    assert_eq!(popped(&mut reports), []);
    reports.tick(2100);
    let unknown =
        |uids: &[u64]| vec![Fates { fate: Fate::UNKNOWN, cause: ErrorCode(0), uids: uids.into() }];
    assert_eq!(popped(&mut reports), [(0, 1, 0, unknown(&[1, 2]))]);
    assert_eq!(reports.deadline_ms(), Some(2150));
    reports.tick(9000);
    assert_eq!(popped(&mut reports), [(0, 2, 0, unknown(&[3]))]);
    reports.in_effect(0, 5);
    assert_eq!(popped(&mut reports), [], "each is reported once");
}

#[test]
fn a_link_that_ends_takes_its_taggings_along() {
    let mut reports = machine(1000);
    reports.tagged(0, Some(5), on(1), vec![1, 2], 0);
    reports.tagged(1, Some(5), on(2), vec![1], 0);
    reports.link_down(0);
    assert_eq!((reports.waiting(), reports.counts().lost), (1, 1));
    reports.in_effect(0, 9);
    reports.in_effect(1, 9);
    assert_eq!(popped(&mut reports), [(1, 2, 1, vec![])]);
    assert_eq!((reports.load(), reports.deadline_ms()), (0, None));
}

#[test]
fn what_finds_no_room_is_reported_at_once() {
    // Two places for each delivery or tagging, and one for each user.
    let mut reports = machine(4);
    reports.tagged(0, Some(5), on(1), vec![1, 2], 0);
    assert_eq!(reports.load(), 4);
    reports.tagged(0, Some(5), on(2), vec![3], 0);
    let unknown = vec![Fates { fate: Fate::UNKNOWN, cause: ErrorCode(0), uids: vec![3] }];
    assert_eq!(popped(&mut reports), [(0, 2, 0, unknown)]);
    assert_eq!(reports.counts().untracked, 1);
    reports.in_effect(0, 5);
    assert_eq!(popped(&mut reports).len(), 1);
}

/// REP-9: the broker tells reports with one id apart by their order alone.
#[test]
fn sec_6_who_takes_the_number_of_another_does_not_speak_for_it() {
    let mut reports = machine(1000);
    let key = |namespace| (namespace, (0x77, 1));
    let deliver = |reports: &mut Reports, namespace, users: &[u64]| {
        let mut draft = reports.open(key(namespace), users.len(), false);
        users.iter().for_each(|uid| draft.settled(*uid, Outcome::Reached));
        reports.seal(draft, 0, on(1), 0);
    };
    reports.tagged(0, Some(5), on(1), vec![1, 2], 0);
    deliver(&mut reports, 2, &[7]);
    reports.tagged(0, None, on(1), vec![7, 8, 9], 0);
    deliver(&mut reports, 2, &[7, 8, 9, 10]);
    // By another link, and with another number: neither waits.
    reports.tagged(1, None, on(1), vec![7], 0);
    reports.tagged(0, None, on(2), vec![7], 0);
    assert_eq!(popped(&mut reports), [(1, 1, 1, vec![]), (0, 2, 1, vec![])]);
    reports.in_effect(0, 5);
    let reached = |reports: &mut Reports| -> Vec<u32> {
        popped(reports).into_iter().map(|(_, _, reached, _)| reached).collect()
    };
    assert_eq!(reached(&mut reports), [2, 1, 3, 4]);
    // The other way round.
    let mut draft = reports.open(key(1), 1, false);
    let ticket = draft.queued(1);
    reports.seal(draft, 0, on(1), 0);
    reports.tagged(0, Some(6), on(1), vec![7, 8], 0);
    reports.in_effect(0, 6);
    assert!(reached(&mut reports).is_empty());
    reports.settle(ticket, Outcome::Full);
    assert_eq!(reached(&mut reports), [0, 2]);
    // And when the time of the first is over.
    reports.tagged(0, Some(7), on(1), vec![1, 2], 0);
    deliver(&mut reports, 2, &[7]);
    reports.tick(2000);
    assert_eq!(reached(&mut reports), [0, 1]);
    assert_eq!((reports.waiting(), reports.load(), reports.deadline_ms()), (0, 0, None));
}

//! Deliveries that are handed out in parts: what settles between them.

use super::*;

fn report(reports: &mut Reports) -> Report {
    let (_, report) = reports.pop().expect("it is finished");
    assert!(reports.pop().is_none(), "once");
    report
}

#[test]
fn sec_24_what_settles_between_two_parts_is_in_the_report() {
    for everyone in [false, true] {
        let mut reports = machine();
        let mut draft = reports.open(KEY, 4, everyone);
        let (first, waits) = (draft.queued(1), draft.queued(2));
        let number = reports.park(draft);
        reports.settle(first, Outcome::Reached);
        reports.passed(first, 77);
        assert_eq!((reports.waiting(), reports.is_ready()), (1, false));
        let mut draft = reports.take_up(number);
        let full = draft.queued(3);
        draft.settled(4, Outcome::Filtered);
        // All have met what they will; they are counted, one of them a part later.
        assert!(!draft.count(&mut { 3 }));
        let number = reports.park(draft);
        reports.settle(full, Outcome::Full);
        let mut draft = reports.take_up(number);
        assert!(draft.count(&mut { 3 }));
        reports.seal(draft, 0, Report::default(), 100);
        assert!(!reports.is_ready());
        reports.settle(waits, Outcome::Gone);
        let report = report(&mut reports);
        assert_eq!((report.reached, report.offline, report.filtered, report.dropped), (1, 1, 1, 1));
        assert_eq!((report.unknown, report.socket_us), (0, 77));
        assert_eq!(report.fates.len(), if everyone { 0 } else { 3 });
        assert_eq!(reports.places, 0);
    }
}

#[test]
fn rep_5_of_everyone_who_has_not_settled_in_time_is_unknown() {
    let mut reports = machine();
    let mut draft = reports.open(KEY, 3, true);
    let (one, _late) = (draft.queued(1), draft.queued(2));
    draft.settled(3, Outcome::Filtered);
    seal(&mut reports, draft);
    reports.settle(one, Outcome::Reached);
    reports.tick(2100);
    let report = report(&mut reports);
    assert_eq!((report.reached, report.unknown, report.filtered), (1, 1, 1));
}

#[test]
fn sec_24_a_copy_knows_what_the_first_came_to_between_its_parts() {
    for (outcome, forgotten) in
        [(Outcome::Reached, false), (Outcome::Full, false), (Outcome::Reached, true)]
    {
        let past = if forgotten { 0 } else { 1000 };
        let mut reports = Reports::new(Bounds { places: 1000, past, report_ms: 2000 });
        let mut draft = reports.open(KEY, 2, false);
        let (one, two) = (draft.queued(1), draft.queued(2));
        seal(&mut reports, draft);
        let mut draft = reports.open(KEY, 2, false);
        // It asks the first copy for user 1, and is parked before it asks for user 2.
        draft.repeated(1);
        let number = reports.park(draft);
        reports.settle(one, outcome);
        reports.settle(two, outcome);
        let first = report(&mut reports);
        let mut draft = reports.take_up(number);
        draft.repeated(2);
        seal(&mut reports, draft);
        let copy = report(&mut reports);
        assert_eq!((first.reached + first.dropped, first.unknown), (2, 0));
        // Of a copy that was forgotten meanwhile nothing is known of whom it was not asked for.
        let unknown = u32::from(forgotten);
        let known = copy.reached + copy.dropped;
        assert_eq!((known, copy.unknown), (2 - unknown, unknown), "{outcome:?}");
    }
}

#[test]
fn promise_7_a_delivery_keeps_its_places_between_its_parts() {
    let mut reports = Reports::new(Bounds { places: 100, past: 10, report_ms: 2000 });
    let draft = reports.open(KEY, 60, false);
    let number = reports.park(draft);
    let other = reports.open((1, (7, 2)), 60, false);
    assert_eq!((reports.places, reports.counts.untracked), (61, 1));
    seal(&mut reports, other);
    // What another link's end leaves is counted anew.
    reports.link_down(1);
    assert_eq!(reports.places, 61 + 1, "and the report on the other");
    let draft = reports.take_up(number);
    seal(&mut reports, draft);
    assert_eq!(reports.places, 2, "nobody was here");
}

//! Reports on messages that were sent again (REP-2): what is told of a user is told of the message.
//! Case by case, then at random against an oracle that keeps every connection's copy for ever.

use super::*;

/// A copy for user 1, whose connection had an earlier one.
fn again(reports: &mut Reports, link: usize, now_ms: u64) {
    let mut draft = reports.open(KEY, 1, false);
    draft.repeated(1);
    reports.seal(draft, link, Report::default(), now_ms);
}

fn first(reports: &mut Reports, link: usize) -> Ticket {
    let mut draft = reports.open(KEY, 1, false);
    let ticket = draft.queued(1);
    reports.seal(draft, link, Report::default(), 0);
    ticket
}

/// Fate and cause of the one user of the next report, and its link.
fn told(reports: &mut Reports) -> Option<(usize, Fate, u16)> {
    let (link, report) = reports.pop()?;
    let set = report.fates.first().map_or((Fate(0), 0), |set| (set.fate, set.cause.0));
    assert_eq!(report.reached == 1, set.0 == Fate(0));
    Some((link, set.0, set.1))
}

#[test]
fn rep_2_a_copy_waits_for_what_the_earlier_ones_come_to() {
    for (outcome, fate, cause) in [
        (Outcome::Reached, Fate(0), ErrorCode(0)),
        (Outcome::InDoubt, Fate::UNKNOWN, ErrorCode(0)),
        (Outcome::Full, Fate::DROPPED, ErrorCode::OUTBOX_FULL),
        (Outcome::Expired, Fate::DROPPED, ErrorCode::EXPIRED),
        (Outcome::Gone, Fate::OFFLINE, ErrorCode(0)),
    ] {
        let mut reports = machine();
        let ticket = first(&mut reports, 0);
        again(&mut reports, 1, 10);
        again(&mut reports, 2, 20);
        assert!(!reports.is_ready(), "nobody knows yet");
        reports.settle(ticket, outcome);
        for link in 0..3 {
            assert_eq!(told(&mut reports), Some((link, fate, cause.0)));
        }
        // It has settled: the memory answers.
        again(&mut reports, 3, 30);
        assert_eq!(told(&mut reports), Some((3, fate, cause.0)));
        assert!(told(&mut reports).is_none() && reports.places == 0);
    }
}

#[test]
fn rep_2_a_copy_outlives_its_link_and_its_report() {
    let mut reports = machine();
    let ticket = first(&mut reports, 0);
    reports.link_down(0);
    again(&mut reports, 1, 100);
    reports.tick(2099);
    assert!(!reports.is_ready());
    reports.tick(2100);
    assert_eq!(told(&mut reports), Some((1, Fate::UNKNOWN, 0)));
    // It comes later than two reports waited; the third hears it.
    again(&mut reports, 1, 3000);
    reports.settle(ticket, Outcome::Full);
    assert_eq!(told(&mut reports), Some((1, Fate::DROPPED, ErrorCode::OUTBOX_FULL.0)));
    assert!(told(&mut reports).is_none());
}

#[test]
fn rep_2_what_is_not_known_of_an_earlier_copy_is_unknown() {
    // It was of another level, so it was never here.
    let mut reports = machine();
    again(&mut reports, 0, 0);
    assert_eq!(told(&mut reports), Some((0, Fate::UNKNOWN, 0)));

    // One between was: it may have reached a connection that is new since.
    let mut reports = machine();
    let ticket = first(&mut reports, 0);
    reports.settle(ticket, Outcome::Full);
    told(&mut reports);
    reports.untold((2, KEY.1));
    reports.untold(KEY);
    again(&mut reports, 0, 0);
    assert_eq!(told(&mut reports), Some((0, Fate::UNKNOWN, 0)));

    // It was forgotten: one of two here, of its own length, none at all.
    for past in [0, 1] {
        let mut reports = Reports::new(Bounds { places: 1000, past, report_ms: 2000 });
        let ticket = first(&mut reports, 0);
        reports.settle(ticket, Outcome::Reached);
        assert_eq!(told(&mut reports), Some((0, Fate(0), 0)));
        let mut draft = reports.open((1, (7, 2)), 1, false);
        draft.settled(1, Outcome::Filtered);
        seal(&mut reports, draft);
        told(&mut reports);
        again(&mut reports, 0, 0);
        assert_eq!(told(&mut reports), Some((0, Fate::UNKNOWN, 0)));
    }
}

#[test]
fn rep_2_who_is_new_since_the_first_copy_is_reached_by_the_second() {
    let mut reports = machine();
    let old = first(&mut reports, 0);
    reports.settle(old, Outcome::Gone);
    assert_eq!(told(&mut reports), Some((0, Fate::OFFLINE, 0)));
    let mut draft = reports.open(KEY, 1, false);
    draft.repeated(1);
    let new = draft.queued(1);
    seal(&mut reports, draft);
    reports.settle(new, Outcome::Reached);
    assert_eq!(told(&mut reports), Some((0, Fate(0), 0)));
    // And who was reached and has left is reached.
    let mut draft = reports.open(KEY, 1, false);
    draft.offline(1);
    seal(&mut reports, draft);
    assert_eq!(told(&mut reports), Some((0, Fate(0), 0)));
}

#[test]
fn rep_9_reports_on_copies_by_one_link_come_in_the_order_of_the_copies() {
    let mut reports = machine();
    let waits = first(&mut reports, 0);
    let other = |reports: &mut Reports, link, uid, now_ms| {
        let mut draft = reports.open(KEY, 1, false);
        draft.settled(uid, Outcome::Filtered);
        reports.seal(draft, link, Report { sequence: uid, ..Report::default() }, now_ms);
    };
    other(&mut reports, 0, 2, 10);
    other(&mut reports, 0, 3, 20);
    assert!(!reports.is_ready(), "the first is not reported on");
    other(&mut reports, 1, 4, 30);
    assert_eq!(reports.pop().map(|(link, it)| (link, it.sequence)), Some((1, 4)));
    reports.settle(waits, Outcome::Reached);
    for sequence in [0, 2, 3] {
        assert_eq!(reports.pop().map(|(link, it)| (link, it.sequence)), Some((0, sequence)));
    }
    // None waits for longer than its own time.
    let mut reports = machine();
    first(&mut reports, 0);
    other(&mut reports, 0, 2, 10);
    reports.tick(2000);
    assert_eq!(told(&mut reports), Some((0, Fate::UNKNOWN, 0)));
    assert_eq!(told(&mut reports), Some((0, Fate::FILTERED, 0)));
    // Nor for what its link will not say any more.
    let mut reports = machine();
    first(&mut reports, 0);
    reports.link_down(0);
    other(&mut reports, 0, 2, 3000);
    assert!(reports.is_ready() && reports.line.is_empty());
}

#[test]
fn rep_9_where_a_report_was_lost_those_on_later_copies_are_not_made() {
    let mut reports = Reports::new(Bounds { places: 2, past: 9, report_ms: 2000 });
    let full = |reports: &mut Reports, sequence, again| {
        let mut draft = reports.open((1, (7, sequence)), 0, false);
        draft.sent_again(again);
        reports.seal(draft, 0, Report { sequence, ..Report::default() }, 0);
    };
    (1..=5).for_each(|sequence| full(&mut reports, sequence, false));
    let made = |reports: &mut Reports| {
        std::iter::from_fn(|| reports.pop()).map(|(_, it)| it.sequence).collect::<Vec<_>>()
    };
    assert_eq!(made(&mut reports), [1, 2, 3, 4]);
    full(&mut reports, 5, true);
    full(&mut reports, 6, false);
    assert_eq!(made(&mut reports), [6], "that on the copy would be taken for the lost one");
    assert_eq!(reports.counts().lost, 2);
    reports.link_down(0);
    full(&mut reports, 5, true);
    assert_eq!(made(&mut reports), [5]);
}

#[test]
fn promise_7_what_became_of_copies_is_kept_within_its_bounds() {
    let mut reports = Reports::new(Bounds { places: 1000, past: 4, report_ms: 2000 });
    for id in 0..100 {
        let users = id % 90;
        let mut draft = reports.open((1, (7, id % 7)), 90, false);
        let tickets: Vec<Ticket> = (0..users).map(|uid| draft.queued(uid)).collect();
        seal(&mut reports, draft);
        tickets.into_iter().for_each(|ticket| reports.settle(ticket, Outcome::Reached));
        reports.pop().unwrap();
        assert!(reports.past.len() <= 4 && reports.past_users <= 4 * UIDS_PER_MESSAGE);
        assert_eq!(reports.copies.len(), reports.past.len());
        assert!(reports.newest.len() <= reports.copies.len());
        let users: usize = reports.copies.values().map(|copy| copy.users.len()).sum();
        assert_eq!(users, reports.past_users);
    }
}

#[derive(Clone, Debug)]
enum Act {
    /// Of a message, by a link, to users; without a report if dark.
    Deliver {
        id: u64,
        link: usize,
        uids: Vec<u64>,
        everyone: bool,
        dark: bool,
    },
    Connect(u64),
    Disconnect(usize),
    Settle(usize, u8),
    LinkDown(usize),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let uids = proptest::collection::btree_set(0..4u64, 1..4);
    let flags = (proptest::bool::weighted(0.1), proptest::bool::weighted(0.1));
    let deliver = (0..2u64, 0..3usize, uids, flags).prop_map(|(id, link, uids, flags)| {
        let (everyone, dark) = flags;
        Act::Deliver { id, link, uids: uids.into_iter().collect(), everyone, dark }
    });
    prop_oneof![
        4 => deliver,
        2 => (0..4u64).prop_map(Act::Connect),
        1 => (0..8usize).prop_map(Act::Disconnect),
        6 => (0..64usize, 0..5u8).prop_map(|(which, outcome)| Act::Settle(which, outcome)),
        1 => (0..3usize).prop_map(Act::LinkDown),
        2 => (1..1500u64).prop_map(Act::Pass),
    ]
}

/// What is known of one connection's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Waits(Ticket),
    Came(Outcome),
}

/// A delivery, and of each user it met which of the oracle's `known` count.
#[derive(Debug)]
struct Naive {
    id: u64,
    link: usize,
    everyone: bool,
    dark: bool,
    until_ms: u64,
    users: BTreeMap<u64, Vec<usize>>,
    offline: Vec<u64>,
    told: bool,
}

/// See the module. Connections are confirmed when they connect.
#[derive(Debug, Default)]
struct Oracle {
    now_ms: u64,
    /// User, and ids it was served by.
    connections: Vec<(u64, Vec<u64>)>,
    known: Vec<Known>,
    copies: Vec<Naive>,
}

impl Oracle {
    /// What the last copy that met this user counts, with what came between.
    fn before(&mut self, id: u64, uid: u64) -> Option<Vec<usize>> {
        let mut dark = false;
        for at in (0..self.copies.len()).rev().filter(|at| self.copies[*at].id == id) {
            let copy = &self.copies[at];
            dark |= copy.dark;
            if let Some(of_it) = copy.users.get(&uid) {
                let mut counts = of_it.clone();
                if dark {
                    counts.push(self.note(Known::Came(Outcome::InDoubt)));
                }
                return Some(counts);
            }
        }
        None
    }

    fn note(&mut self, known: Known) -> usize {
        self.known.push(known);
        self.known.len() - 1
    }

    fn deliver(&mut self, reports: &mut Reports, act: &Act) {
        let Act::Deliver { id, link, uids, everyone, dark } = act else { unreachable!() };
        let (id, key) = (*id, (1, (7, *id)));
        let mut draft = (!dark).then(|| reports.open(key, 4, *everyone));
        if *dark {
            reports.untold(key);
        }
        let until_ms = self.now_ms + 2000;
        let mut copy = Naive {
            id,
            link: *link,
            everyone: *everyone,
            dark: *dark,
            until_ms,
            users: BTreeMap::new(),
            offline: Vec::new(),
            told: *dark,
        };
        let uids = if *everyone { (0..4).collect() } else { uids.clone() };
        for uid in uids {
            let before = self.before(id, uid);
            let mut counts = before.clone().unwrap_or_default();
            let mut met = false;
            for at in 0..self.connections.len() {
                if self.connections[at].0 != uid {
                    continue;
                }
                met = true;
                let repeated = self.connections[at].1.contains(&id);
                self.connections[at].1.push(id);
                let Some(draft) = &mut draft else { continue };
                if !repeated {
                    let ticket = draft.queued(uid);
                    counts.push(self.note(Known::Waits(ticket)));
                    continue;
                }
                draft.repeated(uid);
                if before.is_none() {
                    counts.push(self.note(Known::Came(Outcome::InDoubt)));
                }
            }
            if *dark || (!met && *everyone) {
                continue;
            }
            if !met {
                draft.as_mut().unwrap().offline(uid);
            }
            match met || before.is_some() {
                true => drop(copy.users.insert(uid, counts)),
                false => copy.offline.push(uid),
            }
        }
        if let Some(draft) = draft {
            let report = Report { sequence: self.copies.len() as u64, ..Report::default() };
            reports.seal(draft, *link, report, self.now_ms);
        }
        self.copies.push(copy);
    }

    /// The best of what counts; `None` while it may get better.
    fn best(&self, counts: &[usize]) -> Option<Outcome> {
        let known = counts.iter().map(|at| self.known[*at]);
        let came = known.clone().filter_map(|it| match it {
            Known::Came(outcome) => Some(outcome),
            Known::Waits(_) => None,
        });
        let best = came.max().unwrap_or(Outcome::Gone);
        let waits = known.clone().any(|it| matches!(it, Known::Waits(_)));
        (best == Outcome::Reached || !waits).then_some(best)
    }

    /// Reports that must be there by now: sequence, link, and outcomes by UID.
    fn due(&mut self) -> BTreeMap<u64, (usize, bool, BTreeMap<u64, Outcome>)> {
        let (mut due, mut blocked) = (BTreeMap::new(), BTreeSet::new());
        for at in 0..self.copies.len() {
            let copy = &self.copies[at];
            let users = copy.users.iter().map(|(uid, counts)| (*uid, self.best(counts)));
            let users: BTreeMap<u64, Option<Outcome>> = users.collect();
            let waits = users.values().any(Option::is_none) && self.now_ms < copy.until_ms;
            if copy.told {
                continue;
            }
            // Each waits for those of the same message that came by its link before it.
            if waits || blocked.contains(&(copy.link, copy.id)) {
                blocked.insert((copy.link, copy.id));
                continue;
            }
            let doubt = |best: Option<Outcome>| best.unwrap_or(Outcome::InDoubt);
            let mut fates: BTreeMap<u64, Outcome> =
                users.into_iter().map(|(uid, best)| (uid, doubt(best))).collect();
            fates.extend(copy.offline.iter().map(|uid| (*uid, Outcome::Gone)));
            due.insert(at as u64, (copy.link, copy.everyone, fates));
            self.copies[at].told = true;
        }
        due
    }
}

/// Outcomes by UID, of the named; the others were reached.
fn fates(report: &Report, reached: impl Iterator<Item = u64>) -> BTreeMap<u64, Outcome> {
    let mut fates: BTreeMap<u64, Outcome> = reached.map(|uid| (uid, Outcome::Reached)).collect();
    for set in &report.fates {
        let outcome = match (set.fate, set.cause) {
            (Fate::OFFLINE, _) => Outcome::Gone,
            (Fate::UNKNOWN, ErrorCode(0)) => Outcome::InDoubt,
            (Fate::DROPPED, ErrorCode::EXPIRED) => Outcome::Expired,
            (Fate::DROPPED, ErrorCode::OUTBOX_FULL) => Outcome::Full,
            other => panic!("{other:?}"),
        };
        fates.extend(set.uids.iter().map(|uid| (*uid, outcome)));
    }
    fates
}

fn counted(fates: &BTreeMap<u64, Outcome>) -> [u32; 4] {
    let count = |of: &[Outcome]| {
        let of_them = fates.values().filter(|it| of.contains(it)).count();
        u32::try_from(of_them).expect("a handful of users")
    };
    let dropped = count(&[Outcome::Full, Outcome::Expired]);
    [count(&[Outcome::Reached]), count(&[Outcome::InDoubt]), dropped, count(&[Outcome::Gone])]
}

fn run(acts: &[Act]) {
    let (mut oracle, mut reports) = (Oracle::default(), machine());
    for act in acts {
        match *act {
            Act::Deliver { .. } => oracle.deliver(&mut reports, act),
            Act::Connect(uid) if oracle.connections.len() < 8 => {
                oracle.connections.push((uid, Vec::new()));
            }
            Act::Connect(_) => {}
            Act::Disconnect(at) if at < oracle.connections.len() => {
                oracle.connections.remove(at);
            }
            Act::Disconnect(_) => {}
            Act::Settle(which, outcome) => {
                let waits = |known: &Known| matches!(known, Known::Waits(_));
                let all: Vec<usize> =
                    (0..oracle.known.len()).filter(|at| waits(&oracle.known[*at])).collect();
                if all.is_empty() {
                    continue;
                }
                let at = all[which % all.len()];
                let outcomes = [Outcome::Gone, Outcome::Expired, Outcome::Full, Outcome::InDoubt];
                let outcome =
                    outcomes.get(usize::from(outcome)).copied().unwrap_or(Outcome::Reached);
                let Known::Waits(ticket) = oracle.known[at] else { unreachable!() };
                oracle.known[at] = Known::Came(outcome);
                reports.settle(ticket, outcome);
            }
            Act::LinkDown(link) => {
                reports.link_down(link);
                let of_it = oracle.copies.iter_mut().filter(|copy| copy.link == link);
                of_it.for_each(|copy| copy.told = true);
            }
            Act::Pass(ms) => {
                oracle.now_ms += ms;
                reports.tick(oracle.now_ms);
            }
        }
        let mut due = oracle.due();
        let mut last = BTreeMap::new();
        while let Some((link, report)) = reports.pop() {
            let id = oracle.copies[usize::try_from(report.sequence).unwrap()].id;
            let before = last.insert((link, id), report.sequence);
            assert!(before < Some(report.sequence), "in the order of the copies");
            let due = due.remove(&report.sequence);
            let (by, everyone, expected) = due.expect("one report for each, and not too early");
            assert_eq!(link, by, "on the link it came by");
            let counters = [report.reached, report.unknown, report.dropped, report.offline];
            assert_eq!(counters, counted(&expected), "{report:?} {expected:?}");
            if everyone {
                assert!(report.fates.is_empty());
            } else {
                let of_reached = expected.iter().filter(|(_, it)| **it == Outcome::Reached);
                assert_eq!(fates(&report, of_reached.map(|(uid, _)| *uid)), expected);
            }
        }
        assert!(due.is_empty(), "not reported: {due:?}");
        let _ = reports.counts();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn rep_2_reports_on_copies_say_what_an_oracle_knows(
        acts in proptest::collection::vec(act(), 1..24)
    ) {
        run(&acts);
    }
}

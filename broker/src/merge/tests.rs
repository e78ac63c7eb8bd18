//! Merging against an oracle that keeps a map per user and thinks of nothing else.

use std::collections::BTreeMap;

use proptest::prelude::*;
use waybill_wire::code::{ErrorCode, Fate};
use waybill_wire::frame::{FateSet, Report};

use super::{Merge, Outcome, Share, Told, Word};

const NAMES: [(Fate, u16); 6] = [
    (Fate::OFFLINE, 0),
    (Fate::FILTERED, 0),
    (Fate::DROPPED, ErrorCode::OUTBOX_FULL.0),
    (Fate::DROPPED, ErrorCode::EXPIRED.0),
    (Fate::UNKNOWN, 0),
    // Stands for reached.
    (Fate(0), 0),
];

/// The last one of a user's counts: REP-6.
const OF_A_MESSAGE: [Fate; 5] =
    [Fate::OFFLINE, Fate::FILTERED, Fate::DROPPED, Fate::UNKNOWN, Fate(0)];
/// TAG-17.
const OF_A_TAG: [Fate; 4] = [Fate::OFFLINE, Fate(0), Fate::UNKNOWN, Fate::DROPPED];

#[derive(Clone, Debug)]
enum Says {
    Reports(Vec<usize>),
    Silent,
    Expires,
    Full,
    Gone,
    CannotDoThat,
}

impl Says {
    /// What that means for each of its users, if it is no report.
    fn of_all(&self) -> Option<(Word, Fate, u16)> {
        Some(match self {
            Self::Reports(_) => return None,
            Self::Silent => (Word::Unknown, Fate::UNKNOWN, 0),
            Self::Expires => (Word::Expired, Fate::DROPPED, ErrorCode::EXPIRED.0),
            Self::Full => (Word::Full, Fate::DROPPED, ErrorCode::OUTBOX_FULL.0),
            Self::Gone => (Word::Gone, Fate::OFFLINE, 0),
            Self::CannotDoThat => (Word::NotSupported, Fate::DROPPED, ErrorCode::NOT_SUPPORTED.0),
        })
    }
}

#[derive(Clone, Debug)]
struct Gateway {
    users: Vec<u64>,
    whole: bool,
    says: Says,
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let says = prop_oneof![
        6 => prop::collection::vec(0..NAMES.len(), 16).prop_map(Says::Reports),
        1 => Just(Says::Silent),
        1 => Just(Says::Expires),
        1 => Just(Says::Full),
        1 => Just(Says::Gone),
        1 => Just(Says::CannotDoThat),
    ];
    (prop::collection::vec(0..12u64, 1..8), prop::bool::weighted(0.2), says)
        .prop_map(|(users, whole, says)| Gateway { users, whole, says })
}

fn told(mine: &[u64], fates: &[usize]) -> Told {
    let mut told = Told::default();
    for (&uid, &fate) in mine.iter().zip(fates) {
        let (fate, cause) = NAMES[fate];
        if fate == Fate(0) {
            told.reached += 1;
            continue;
        }
        told.counts[usize::from(fate.0) - 1] += 1;
        let key = (fate, ErrorCode(cause));
        match told.named.iter_mut().find(|it| (it.0, it.1) == key) {
            Some(set) => set.2.push(uid),
            None => told.named.push((fate, ErrorCode(cause), vec![uid])),
        }
    }
    told
}

fn distinct(uids: &[u64]) -> Vec<u64> {
    let mut seen = Vec::new();
    for &uid in uids {
        if !seen.contains(&uid) {
            seen.push(uid);
        }
    }
    seen
}

/// The word of each user that counts: by its place in an order, and then by the lower cause.
type Words = BTreeMap<u64, (Fate, u16)>;

struct Naive {
    order: &'static [Fate],
    best: Words,
}

impl Naive {
    fn hear(&mut self, uid: u64, fate: Fate, cause: u16) {
        // What is in no order is not known.
        let known = self.order.contains(&fate);
        let (fate, cause) = if known { (fate, cause) } else { (Fate::UNKNOWN, cause) };
        let place = |fate| self.order.iter().position(|it| *it == fate).unwrap();
        let held = self.best.entry(uid).or_insert((fate, cause));
        let later = place(fate) > place(held.0);
        if later || (fate == held.0 && cause < held.1) {
            *held = (fate, cause);
        }
    }
}

fn expected(list: &[u64], best: &Words) -> Outcome {
    let mut outcome = Outcome::default();
    let mut sets: BTreeMap<(u8, u16), Vec<u64>> = BTreeMap::new();
    for &uid in list {
        let (fate, cause) = best[&uid];
        if fate == Fate(0) {
            outcome.sent += 1;
        } else {
            outcome.counts[usize::from(fate.0) - 1] += 1;
            sets.entry((fate.0, cause)).or_default().push(uid);
        }
    }
    if sets.len() > waybill_wire::limits::FATES_MAX {
        let mut joined: BTreeMap<(u8, u16), Vec<u64>> = BTreeMap::new();
        for &uid in list {
            let (fate, _) = best[&uid];
            if fate != Fate(0) {
                joined.entry((fate.0, 0)).or_default().push(uid);
            }
        }
        sets = joined;
    }
    let named = sets.into_iter().map(|((fate, cause), uids)| (Fate(fate), ErrorCode(cause), uids));
    Outcome { named: named.collect(), ..outcome }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn promise_5_each_user_counts_once_with_the_word_of_its_gateways_that_counts_most(
        of_a_tag in any::<bool>(),
        listed in prop::collection::vec(0..12u64, 1..10),
        gateways in prop::collection::vec(gateway(), 0..5),
        turns in prop::collection::vec(any::<u16>(), 8),
    ) {
        let list = distinct(&listed);
        let make = if of_a_tag { Merge::tags } else { Merge::list };
        let mut merge = make(listed.iter().copied());
        let order = if of_a_tag { &OF_A_TAG[..] } else { &OF_A_MESSAGE };
        let mut naive = Naive { order, best: Words::new() };
        let mut parts = Vec::new();
        for gateway in &gateways {
            let mut mine = distinct(&gateway.users);
            mine.retain(|uid| list.contains(uid));
            if gateway.whole {
                mine.clone_from(&list);
            }
            let share = if gateway.whole { Share::Whole } else { Share::Uids(&mine) };
            parts.push((merge.part(share), mine, &gateway.says));
        }
        let covered = |uid: &u64| parts.iter().any(|(_, mine, _)| mine.contains(uid));
        let offline: Vec<u64> = list.iter().copied().filter(|uid| !covered(uid)).collect();
        merge.settle(&offline, Fate::OFFLINE, ErrorCode(0));
        offline.iter().for_each(|&uid| naive.hear(uid, Fate::OFFLINE, 0));
        parts.sort_by_key(|(part, ..)| turns[usize::from(*part) % turns.len()]);
        for (at, (part, mine, says)) in parts.iter().enumerate() {
            prop_assert!(!merge.is_complete(), "{} parts to come", parts.len() - at);
            let word = match (says, says.of_all()) {
                (Says::Reports(fates), _) => {
                    for (&uid, &fate) in mine.iter().zip(fates) {
                        naive.hear(uid, NAMES[fate].0, NAMES[fate].1);
                    }
                    Word::Told(told(mine, fates))
                }
                (_, Some((word, fate, cause))) => {
                    mine.iter().for_each(|&uid| naive.hear(uid, fate, cause));
                    word
                }
                (_, None) => unreachable!("only a report says different things of users"),
            };
            prop_assert!(merge.hear(*part, &word));
            prop_assert!(!merge.hear(*part, &Word::Unknown), "a part is settled once");
        }
        prop_assert!(merge.is_complete());
        let outcome = merge.outcome();
        prop_assert_eq!(&outcome, &expected(&list, &naive.best));
        let all = outcome.sent + outcome.counts.iter().sum::<u32>();
        prop_assert_eq!(all as usize, list.len());
    }
}

#[test]
fn promise_1_a_gateway_speaks_of_its_own_part_only() {
    let mut merge = Merge::list([1, 2, 3].into_iter());
    let (mine, other) = (merge.part(Share::Uids(&[1])), merge.part(Share::Uids(&[2, 3])));
    let lie = Told {
        reached: 1,
        counts: [1, 0, 0, 0],
        named: vec![(Fate::OFFLINE, ErrorCode(0), vec![2, 77])],
    };
    assert!(merge.hear(mine, &Word::Told(lie)));
    assert!(merge.hear(other, &Word::Told(Told { reached: 2, ..Told::default() })));
    assert_eq!(merge.outcome(), Outcome { sent: 3, ..Outcome::default() });
}

#[test]
fn whoever_is_not_named_is_unknown_when_the_numbers_do_not_agree() {
    let mut merge = Merge::list([1, 2, 3].into_iter());
    let part = merge.part(Share::Whole);
    assert!(merge.hear(part, &Word::Told(Told { reached: 1, ..Told::default() })));
    let outcome = merge.outcome();
    assert_eq!((outcome.sent, outcome.counts), (0, [0, 3, 0, 0]));
    assert_eq!(outcome.named, [(Fate::UNKNOWN, ErrorCode(0), vec![1, 2, 3])]);
}

#[test]
fn tag_17_what_is_missing_counts_before_what_was_reached() {
    let both = || {
        let mut merge = Merge::tags([1, 2, 3].into_iter());
        let parts = [merge.part(Share::Uids(&[1, 2, 3])), merge.part(Share::Uids(&[1, 2, 3]))];
        (merge, parts)
    };
    let reached = Word::Told(Told { reached: 3, ..Told::default() });
    let said = |fate, cause| {
        let mut counts = [0; 4];
        counts[usize::from(fate) - 1] = 1;
        let named = vec![(Fate(fate), cause, vec![2])];
        Word::Told(Told { reached: 2, counts, named })
    };
    let dropped = ErrorCode::CONNECTION_TAGS;
    let cases = [
        (said(Fate::OFFLINE.0, ErrorCode(0)), [3, 0, 0, 0, 0]),
        (said(Fate::UNKNOWN.0, ErrorCode(0)), [2, 0, 1, 0, 0]),
        (said(Fate::FILTERED.0, ErrorCode(0)), [2, 0, 1, 0, 0]),
        (said(Fate::DROPPED.0, dropped), [2, 0, 0, 0, 1]),
        (Word::Gone, [3, 0, 0, 0, 0]),
        (Word::Unknown, [0, 0, 3, 0, 0]),
        (Word::NotSupported, [0, 0, 0, 0, 3]),
        (Word::Full, [0, 0, 0, 0, 3]),
    ];
    for (word, expected) in cases {
        let (mut merge, [one, other]) = both();
        assert!(merge.hear(one, &word) && merge.hear(other, &reached));
        let Outcome { sent, counts: [offline, unknown, filtered, dropped], named } =
            merge.outcome();
        assert_eq!([sent, offline, unknown, filtered, dropped], expected, "{word:?}");
        let named: usize = named.iter().map(|(_, _, uids)| uids.len()).sum();
        assert_eq!(named + sent as usize, 3, "all others are named");
    }
    let (mut merge, [one, other]) = both();
    assert!(merge.hear(one, &said(Fate::DROPPED.0, dropped)));
    assert!(merge.hear(other, &said(Fate::DROPPED.0, ErrorCode::NOT_SUPPORTED)));
    let lower = (Fate::DROPPED, ErrorCode::NOT_SUPPORTED, vec![2]);
    assert_eq!(merge.outcome().named, [lower], "of two causes the lower one");
}

#[test]
fn everyone_is_summed_over_gateways_and_nobody_named() {
    let mut merge = Merge::everyone();
    let parts: Vec<u16> = (0..3).map(|_| merge.part(Share::Whole)).collect();
    for (part, reached) in [(parts[0], 10), (parts[1], 5)] {
        let told = Told { reached, counts: [0, 0, 1, 2], named: Vec::new() };
        assert!(merge.hear(part, &Word::Told(told)));
    }
    assert_eq!(merge.give_up(), 1, "one gateway did not speak, and nothing is counted for it");
    let outcome = merge.outcome();
    assert_eq!((outcome.sent, outcome.counts), (15, [0, 0, 2, 4]));
    assert_eq!(outcome.named, []);
}

#[test]
fn what_was_sent_to_nobody_is_with_nobody() {
    // REP-6, by mode broadcast and without gateways.
    let merge = Merge::list([5, 5, 6].into_iter());
    assert!(merge.is_complete());
    let outcome = merge.outcome();
    assert_eq!((outcome.sent, outcome.counts), (0, [2, 0, 0, 0]));
    assert_eq!(outcome.named, [(Fate::OFFLINE, ErrorCode(0), vec![5, 6])]);
}

#[test]
fn promise_7_a_merge_knows_what_it_weighs() {
    let mut merge = Merge::list(0..4096);
    let uids: Vec<u64> = (0..4096).collect();
    for _ in 0..4 {
        merge.part(Share::Uids(&uids));
    }
    assert!(merge.bytes() >= 4096 * 14 + 4 * 4096 * 2);
    assert!(merge.bytes() < 100_000);
}

#[test]
fn promise_7_a_report_is_kept_for_no_more_names_than_were_asked_for() {
    let uids: Vec<u64> = (0..4_000).collect();
    let set = |fate, uids: &[u64]| -> (Fate, Vec<u64>) { (fate, uids.to_vec()) };
    let said = [set(Fate::OFFLINE, &uids[..2]), set(Fate::UNKNOWN, &uids[2..])];
    let sets: Vec<FateSet<'_>> = said
        .iter()
        .map(|(fate, uids)| FateSet { fate: *fate, cause: ErrorCode(0), uids: uids.into() })
        .collect();
    let report = Report { fate_sets: (&sets).into(), ..Report::default() };
    let names = |users| -> Vec<usize> {
        let told = Told::of(&report, users);
        told.named.iter().map(|(_, _, uids)| uids.len()).collect()
    };
    assert_eq!(names(4_000), [2, 3_998]);
    assert_eq!(names(3), [2, 1]);
    assert_eq!(names(2), [2]);
    assert_eq!(names(0), [0; 0]);
}

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

/// From worst to best; see the contract.
fn rank(fate: Fate) -> usize {
    let order = [Fate::OFFLINE, Fate::FILTERED, Fate::DROPPED, Fate::UNKNOWN, Fate(0)];
    order.iter().position(|it| *it == fate).unwrap()
}

#[derive(Clone, Debug)]
enum Says {
    Reports(Vec<usize>),
    Silent,
    Expires,
    Gone,
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
        1 => Just(Says::Gone),
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

/// Best word of each user, by rank and then by the lower cause.
type Naive = BTreeMap<u64, (Fate, u16)>;

fn naive(best: &mut Naive, uid: u64, fate: Fate, cause: u16) {
    let held = best.entry(uid).or_insert((fate, cause));
    let better = (rank(fate), std::cmp::Reverse(cause)) > (rank(held.0), std::cmp::Reverse(held.1));
    if better {
        *held = (fate, cause);
    }
}

fn expected(list: &[u64], best: &Naive) -> Outcome {
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
    fn promise_5_each_user_counts_once_with_the_best_word_of_its_gateways(
        listed in prop::collection::vec(0..12u64, 1..10),
        gateways in prop::collection::vec(gateway(), 0..5),
        order in prop::collection::vec(any::<u16>(), 8),
    ) {
        let list = distinct(&listed);
        let mut merge = Merge::list(listed.iter().copied());
        let mut best = Naive::new();
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
        offline.iter().for_each(|&uid| naive(&mut best, uid, Fate::OFFLINE, 0));
        parts.sort_by_key(|(part, ..)| order[usize::from(*part) % order.len()]);
        for (at, (part, mine, says)) in parts.iter().enumerate() {
            prop_assert!(!merge.is_complete(), "{} parts to come", parts.len() - at);
            let word = match says {
                Says::Reports(fates) => {
                    for (&uid, &fate) in mine.iter().zip(fates) {
                        naive(&mut best, uid, NAMES[fate].0, NAMES[fate].1);
                    }
                    Word::Told(told(mine, fates))
                }
                Says::Silent => Word::Unknown,
                Says::Expires => Word::Expired,
                Says::Gone => Word::Gone,
            };
            let all = match says {
                Says::Reports(_) => None,
                Says::Silent => Some((Fate::UNKNOWN, 0)),
                Says::Expires => Some((Fate::DROPPED, ErrorCode::EXPIRED.0)),
                Says::Gone => Some((Fate::OFFLINE, 0)),
            };
            if let Some((fate, cause)) = all {
                mine.iter().for_each(|&uid| naive(&mut best, uid, fate, cause));
            }
            prop_assert!(merge.hear(*part, &word));
            prop_assert!(!merge.hear(*part, &Word::Unknown), "a part is settled once");
        }
        prop_assert!(merge.is_complete());
        let outcome = merge.outcome();
        prop_assert_eq!(&outcome, &expected(&list, &best));
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

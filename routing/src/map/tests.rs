//! The map against a naive one while it grows, and what it takes in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::scratch::NO_SLOT;
use crate::{Namespace, Uid};

const KEY: u64 = 0x5eed_0f0a_3a17_2b91;

fn slots(map: &Map, uid: u64) -> BTreeSet<u16> {
    let (mut slots, mut found) = (Vec::new(), Vec::new());
    let user = (uid, hash(KEY, uid));
    map.view().find(&[user], &mut found, |_, there| slots.extend_from_slice(there.as_slice()));
    let distinct: BTreeSet<u16> = slots.iter().copied().collect();
    assert_eq!(distinct.len(), slots.len(), "each slot once");
    distinct
}

fn change(map: &Map, op: Op, uid: u64, slot: u16) -> bool {
    let change = Change { op, namespace: Namespace(1), uid: Uid(uid) };
    map.apply(slot, &[change]) != (0, 0)
}

fn add(map: &Map, uid: u64, slot: u16) -> bool {
    change(map, Op::Add, uid, slot)
}

fn remove(map: &Map, uid: u64, slot: u16) -> bool {
    change(map, Op::Remove, uid, slot)
}

/// Numbers that follow from the one before.
fn next(state: &mut u64) -> u64 {
    *state = hash(KEY, *state);
    *state
}

#[test]
fn a_map_that_grows_and_shrinks_has_what_a_naive_one_has() {
    let (map, mut naive) = (Map::new(KEY), BTreeMap::<u64, BTreeSet<u16>>::new());
    let mut state = 1;
    for _ in 0..120_000 {
        let (uid, slot, dice) = (next(&mut state) % 40_000, next(&mut state) % 3, next(&mut state));
        let slot = u16::try_from(slot).expect("below 3");
        let there = naive.entry(uid).or_default();
        match dice % 4 {
            0 => assert_eq!(remove(&map, uid, slot), there.remove(&slot)),
            _ => assert_eq!(add(&map, uid, slot), there.insert(slot)),
        }
    }
    for uid in 0..40_001 {
        assert_eq!(slots(&map, uid), naive.get(&uid).cloned().unwrap_or_default(), "{uid}");
    }
    let mut all = map.all();
    all.sort_unstable();
    let expected = naive.iter().flat_map(|(uid, slots)| slots.iter().map(|slot| (*uid, *slot)));
    assert_eq!(all, expected.collect::<Vec<_>>());
    let mut copied = map.copy().all();
    copied.sort_unstable();
    assert_eq!(copied, all);
}

/// Some have none, one or several; UID 0 is one of them.
#[test]
fn of_many_users_looked_up_together_each_is_told_what_it_is_told_alone() {
    let map = Map::new(KEY);
    for uid in (0..40_000).filter(|uid| uid % 3 > 0 || uid % 100 == 0) {
        assert!((0..=u16::from(uid % 50 == 0)).all(|slot| add(&map, uid, slot)));
    }
    for some in (0..40_000).collect::<Vec<u64>>().chunks(1_000) {
        let users: Vec<(u64, u64)> = some.iter().map(|uid| (*uid, hash(KEY, *uid))).collect();
        let (view, mut found, mut told) = (map.view(), Vec::new(), Vec::new());
        view.find(&users, &mut found, |uid, there| told.push((uid, there.as_slice().to_vec())));
        let expected = some.iter().map(|uid| (*uid, slots(&map, *uid).into_iter().collect()));
        told.iter_mut().for_each(|(_, slots)| slots.sort_unstable());
        assert_eq!(told, expected.collect::<Vec<_>>());
        let (mut firsts, mut closely) = (vec![7; users.len()], 0);
        view.find_each(&users, &mut firsts, &mut found, |at, there| {
            assert!(told[at].1.iter().eq(there.as_slice()) || told[at].1.len() == 2);
            closely += 1;
            there.as_slice().iter().copied().min().unwrap_or(NO_SLOT)
        });
        let lowest = told.iter().map(|(_, slots)| *slots.first().unwrap_or(&NO_SLOT));
        assert!(lowest.eq(firsts.iter().copied()));
        assert!(closely < 400, "nearly all are seen at first sight: {closely}");
    }
}

/// Else who looks at many users would miss those that left their block meanwhile.
#[test]
fn promise_8_no_user_comes_to_another_group_or_block_without_being_counted() {
    let map = Map::new(KEY);
    let place = |uid| {
        let (hash, view) = (hash(KEY, uid), map.view());
        let group = view.group(hash);
        (std::ptr::from_ref(group), group.block_of(hash).map(std::ptr::from_ref))
    };
    let places = || (0..64).map(place).collect::<Vec<_>>();
    let (mut before, mut moves) = (places(), map.ground.moves());
    for uid in 0..20_000 {
        assert!(add(&map, uid, 1));
        let now = places();
        assert!(now == before || map.ground.moves_again() != moves, "{uid}");
        (before, moves) = (now, map.ground.moves());
    }
}

#[test]
fn a_user_on_more_gateways_than_buckets_take_is_on_all_of_them() {
    let map = Map::new(KEY);
    (0..300).for_each(|uid| assert!(add(&map, uid, 7)));
    (0..500).for_each(|slot| assert!(add(&map, 1_000, slot) && !add(&map, 1_000, slot)));
    (300..9_000).for_each(|uid| assert!(add(&map, uid, 7) || uid == 1_000));
    assert_eq!(slots(&map, 1_000), (0..500).collect());
    (0..500).step_by(2).for_each(|slot| assert!(remove(&map, 1_000, slot)));
    assert_eq!(slots(&map, 1_000), (1..500).step_by(2).collect());
    assert!((0..300).all(|uid| slots(&map, uid) == BTreeSet::from([7])));
}

#[test]
fn a_sweep_that_the_map_outgrows_meanwhile_takes_all_of_the_dead_and_nothing_else() {
    let map = Map::new(KEY);
    (0..30_000).for_each(|uid| assert!(add(&map, uid, 1)));
    let (mut removed, mut at, mut late) = (0, Some((0, 0)), 30_000);
    while let Some((group, bucket)) = at {
        let swept = map.sweep(group, bucket..bucket + 256, |slot| slot == 1, |_| removed += 1);
        at = swept.next;
        (late..late + 300).for_each(|uid| assert!(add(&map, uid, 2)));
        late += 300;
        assert!(late < 1_000_000, "a walk comes to its end while others register");
    }
    assert_eq!(removed, 30_000);
    let mut all = map.all();
    all.sort_unstable();
    assert_eq!(all, (30_000..late).map(|uid| (uid, 2)).collect::<Vec<_>>());
}

/// A route that is pulled home may come to where the sweep has been, and be left there: of a slot
/// whose index is used again then. Each block gives while the sweep is in the middle of it.
#[test]
fn promise_1_a_sweep_misses_nothing_that_is_pulled_home_meanwhile() {
    for block in 0..4 {
        let (map, mut users, mut removed) = (Map::new(KEY), 0, 0);
        let last = blocks::SMALL as u32;
        while map.groups() <= last || map.group(last).shape().blocks() < 4 {
            assert!(add(&map, users, (users % 2) as u16));
            users += 1;
        }
        while !map.group(last).shape().is_growing() {
            assert!(add(&map, users, (users % 2) as u16));
            users += 1;
        }
        let (of_slot, middle) = (users / 2, block * blocks::BUCKETS_MAX + blocks::BUCKETS_MAX / 2);
        map.sweep(last, 0..middle, |slot| slot == 1, |_| removed += 1);
        while map.group(last).shape().is_growing() {
            assert!(add(&map, users, 2));
            users += 1;
        }
        map.sweep(last, middle..usize::MAX, |slot| slot == 1, |_| removed += 1);
        assert_eq!(removed, of_slot, "block {block}");
        assert!(map.all().iter().all(|(_, slot)| *slot != 1));
    }
}

/// One who is not at home costs a look-up three times as much as the others.
#[test]
fn at_most_one_in_eight_is_not_at_home_on_average_of_all_sizes() {
    let map = Map::new(KEY);
    let (mut away, mut all) = (0, 0);
    for uid in 0..160_000 {
        assert!(add(&map, uid, 1));
        if uid >= 20_000 && uid % 5_000 == 0 {
            away += map.away();
            all += uid;
        }
    }
    assert!(8 * away <= all, "{away} of {all}");
}

#[test]
fn a_route_takes_sixteen_bytes_at_most_whatever_their_number() {
    let map = Map::new(KEY);
    for uid in 0..400_000 {
        assert!(add(&map, uid, 1));
        if uid >= 20_000 && uid % 1_000 == 0 {
            let bytes = map.buckets() * 64;
            assert!(
                bytes <= 16 * usize::try_from(uid).expect("a small number"),
                "{bytes} for {uid}"
            );
        }
    }
}

/// UIDs that another key puts into one bucket in 256.
fn chosen_for(key: u64) -> impl Iterator<Item = u64> {
    (0..).filter(move |uid| hash(key, *uid) & 0xff == 0 || hash(key, *uid) >> 56 == 0)
}

/// An adversary knows how UIDs are hashed, and not the key.
#[test]
fn no_choice_of_uids_makes_a_look_up_cost_twice_what_any_others_cost() {
    const USERS: usize = 30_000;
    let mut state = 1;
    let any: Vec<u64> = (0..USERS).map(|_| next(&mut state)).collect();
    let families: [(&str, Vec<u64>); 8] = [
        ("in a row", (1..).take(USERS).collect()),
        ("as far apart as can be", (0..).step_by(1 << 32).take(USERS).collect()),
        ("multiples of a bucket's bytes", (0..).step_by(64).take(USERS).collect()),
        ("the same lowest bits", (0..).map(|n: u64| n << 40 | 7).take(USERS).collect()),
        ("in pairs that differ in all bits", (1..).flat_map(|n| [n, !n]).take(USERS).collect()),
        ("the highest bits alone", (0..).map(|n: u64| n.reverse_bits()).take(USERS).collect()),
        ("without a key", chosen_for(0).take(USERS).collect()),
        ("for a key that it is not", chosen_for(!KEY).take(USERS).collect()),
    ];
    let cost = |uids: &[u64]| {
        let map = Map::new(KEY);
        uids.iter().for_each(|uid| assert!(add(&map, *uid, 1)));
        let view = map.view();
        let looks = uids.iter().map(|uid| {
            let hash = hash(KEY, *uid);
            view.group(hash).locate(hash).looks(hash)
        });
        looks.fold((0, 0), |(sum, most), looks| (sum + looks, most.max(looks)))
    };
    let (sum, most) = cost(&any);
    for (name, uids) in &families {
        let (its, its_most) = cost(uids);
        assert!(
            its <= 2 * sum && its_most <= 2 * most,
            "{name}: {its} of {sum}, {its_most}, {most}"
        );
    }
    // Who knows the key can.
    let chosen: Vec<u64> = chosen_for(KEY).take(USERS / 30).collect();
    assert!(30 * cost(&chosen).0 > 2 * sum);
}

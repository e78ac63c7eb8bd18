//! The route table under threads that all do something else at the same time: what is there all the
//! time is always found, and nobody is found where they never were.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use waybill_routing::fuzzing::uid_bytes;
use waybill_routing::{
    Audience, Change, Incarnation, Limits, Namespace, Op, Part, Plan, Query, Routes, Slot, Uid,
};
use waybill_wire::targets::UidRun;

const TENANTS: [Namespace; 2] = [Namespace(1), Namespace(2)];

/// Users who are at the first gateway from the beginning to the end.
const STEADY: u64 = if cfg!(miri) { 12 } else { 2_000 };

/// Users of each gateway that takes them in and lets them go.
const CHANGING: u64 = if cfg!(miri) { 24 } else { 6_000 };

/// How often each of these does so, and how many gateways die.
const ROUNDS: u64 = if cfg!(miri) { 1 } else { 4 };

/// Where the users of each of these begin, and of those who never come.
const KINDS: u64 = 1 << 40;
const NEVER: u64 = 9 * KINDS;

fn changes(op: Op, uids: impl IntoIterator<Item = u64>) -> Vec<Change> {
    let change = |(uid, namespace)| Change { op, namespace, uid: Uid(uid) };
    let each = |uid| TENANTS.map(|namespace| (uid, namespace));
    uids.into_iter().flat_map(each).map(change).collect()
}

fn live(routes: &Routes, incarnation: u64, uids: impl IntoIterator<Item = u64>) -> Slot {
    let slot = routes.open(Incarnation(incarnation)).expect("there is room for slots");
    routes.apply(slot, &changes(Op::Add, uids)).expect("there is room for routes");
    routes.go_live(slot, None).expect("it is filling");
    slot
}

/// (UID, slot) of everybody in a list who is reached, in one of the tenants.
fn reached(
    routes: &Routes,
    plan: &mut Plan,
    tenant: Namespace,
    uids: &[u8],
) -> BTreeSet<(u64, Slot)> {
    let run = UidRun::new(uids).expect("whole UIDs");
    let query = Query::new(tenant, Audience::Uids(run));
    routes.resolve(&[query], plan);
    let parts = plan.routed(0).parts();
    let own = parts.flat_map(|(slot, part)| match part {
        Part::Uids(uids) => uids.iter().map(move |uid| (*uid, slot)).collect::<Vec<_>>(),
        Part::Whole => unreachable!("the query has a list"),
    });
    own.collect()
}

/// Takes all of its users in, then lets every other one go, and so on; who is there at the end.
fn change(routes: &Routes, slot: Slot, first: u64) -> BTreeSet<(u64, Slot)> {
    for round in 0..ROUNDS {
        for batch in (first..first + CHANGING).collect::<Vec<_>>().chunks(500) {
            routes.apply(slot, &changes(Op::Add, batch.iter().copied())).expect("it is live");
        }
        let leaving = (first + round % 2..first + CHANGING).step_by(2);
        for batch in leaving.collect::<Vec<_>>().chunks(500) {
            routes.apply(slot, &changes(Op::Remove, batch.iter().copied())).expect("it is live");
        }
    }
    let left = (first + ROUNDS % 2..first + CHANGING).step_by(2);
    left.map(|uid| (uid, slot)).collect()
}

/// Gateways that come with users, die and are swept, one after the other.
fn die(routes: &Routes, first: u64) {
    for round in 0..ROUNDS {
        let slot = live(routes, 100 + round, first..first + CHANGING / 4);
        routes.kill(slot).expect("it is live");
        while routes.sweep(64).slots_left > 0 {}
    }
}

/// Asks until told to end: the steady, those who change, those who die and those who never come.
fn ask(routes: &Routes, steady: Slot, changing: &[(u64, Slot)], done: &AtomicBool) -> u64 {
    let (mut plan, mut asked) = (Plan::new(), 0);
    while asked < 2 || !done.load(Ordering::Relaxed) {
        let from = asked * 7 % STEADY.saturating_sub(8).max(1);
        let some = from..(from + 8).min(STEADY);
        let others = (1..=3).map(|kind| kind * KINDS + asked * 31 % CHANGING);
        let never = NEVER + asked;
        let uids = uid_bytes(some.clone().chain(others).chain([never]));
        for tenant in TENANTS {
            let got = reached(routes, &mut plan, tenant, &uids);
            for uid in some.clone() {
                assert!(got.contains(&(uid, steady)), "promise 8: {uid} is there all the time");
            }
            for (uid, slot) in got {
                let kind = uid / KINDS;
                let owner = changing.iter().find(|(first, _)| first / KINDS == kind);
                let fits = match (kind, owner) {
                    (0, _) => slot == steady,
                    (_, Some((_, owner))) => slot == *owner,
                    // Of those who die: whoever came to be there then.
                    (3, None) => slot != steady && changing.iter().all(|(_, other)| *other != slot),
                    _ => false,
                };
                assert!(fits, "promise 1: {uid} never was at {slot:?}");
            }
        }
        asked += 1;
    }
    asked
}

#[test]
fn promises_1_and_8_hold_while_users_come_and_go_and_gateways_die() {
    let routes = &Routes::new(Limits { slots: 8, routes: 1 << 20, ..Limits::default() }, 0x5eed);
    let steady = live(routes, 1, 0..STEADY);
    let changing = &[1, 2].map(|kind| (kind * KINDS, live(routes, 10 + kind, [])));
    let done = &AtomicBool::new(false);
    let left: BTreeSet<(u64, Slot)> = std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| scope.spawn(|| ask(routes, steady, changing, done)));
        let writers =
            changing.map(|(first, slot)| scope.spawn(move || change(routes, slot, first)));
        let dying = scope.spawn(|| die(routes, 3 * KINDS));
        let left = writers.into_iter().flat_map(|writer| writer.join().expect("it holds"));
        let left = left.collect();
        dying.join().expect("it holds");
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("it holds") > 0);
        }
        left
    });
    routes.invariants();
    let everybody =
        (0..STEADY).chain((1..=3).flat_map(|kind| kind * KINDS..kind * KINDS + CHANGING));
    let uids = uid_bytes(everybody);
    let expected: BTreeSet<_> = (0..STEADY).map(|uid| (uid, steady)).chain(left).collect();
    for tenant in TENANTS {
        assert!(reached(routes, &mut Plan::new(), tenant, &uids) == expected);
    }
    assert_eq!(routes.routes(), TENANTS.len() * expected.len());
}

#[test]
fn promise_8_a_user_is_found_once_while_snapshots_take_each_others_place() {
    let routes = &Routes::new(Limits { slots: 4, routes: 1 << 20, ..Limits::default() }, 0x5eed);
    let incarnation = Incarnation(1);
    let mut standing = live(routes, incarnation.0, 0..STEADY);
    let done = &AtomicBool::new(false);
    let uids = &uid_bytes(0..STEADY);
    std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let (mut plan, mut asked) = (Plan::new(), 0);
                while asked < 2 || !done.load(Ordering::Relaxed) {
                    let got = reached(routes, &mut plan, TENANTS[0], uids);
                    let slots: BTreeSet<Slot> = got.iter().map(|(_, slot)| *slot).collect();
                    assert_eq!((got.len() as u64, slots.len()), (STEADY, 1));
                    asked += 1;
                }
            })
        });
        for _ in 0..4 * ROUNDS {
            let fresh = routes.open(incarnation).expect("there is room for slots");
            routes.apply(fresh, &changes(Op::Add, 0..STEADY)).expect("there is room for routes");
            routes.go_live(fresh, Some(standing)).expect("it is filling");
            while routes.sweep(16).slots_left > 0 {}
            standing = fresh;
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().expect("it holds");
        }
    });
    routes.invariants();
}

#[test]
fn promises_7_and_8_hold_while_a_namespace_empties_and_others_come_to_it() {
    let routes = &Routes::new(Limits { slots: 4, routes: 8, ..Limits::default() }, 0x5eed);
    let gateways = [1, 2].map(|incarnation| live(routes, incarnation, []));
    std::thread::scope(|scope| {
        for (slot, uid) in gateways.into_iter().zip(1..) {
            scope.spawn(move || {
                let mut plan = Plan::new();
                for _ in 0..STEADY {
                    routes.apply(slot, &changes(Op::Add, [uid])).expect("there is room");
                    for tenant in TENANTS {
                        let got = reached(routes, &mut plan, tenant, &uid_bytes([uid]));
                        assert_eq!(got, BTreeSet::from([(uid, slot)]), "promise 8");
                    }
                    routes.apply(slot, &changes(Op::Remove, [uid])).expect("it is live");
                }
            });
        }
    });
    assert_eq!((routes.namespaces(), routes.routes()), (0, 0), "promise 7");
    routes.invariants();
}

//! The promises routing has a part in, each as a table of cases with the answer written out.
//!
//! Promise 1: never the wrong user. Promise 8: routes are true or absent.

use waybill_routing::oracle::Expected;
use waybill_routing::{
    Audience, Change, Incarnation, Limits, Mode, Namespace, Op, Plan, Query, Routes, Slot,
    SlotError, SlotState, SweepProgress, Uid, fuzzing::uid_bytes,
};
use waybill_wire::targets::UidRun;

const TENANT: Namespace = Namespace(1);
const OTHER_TENANT: Namespace = Namespace(2);

const A: Incarnation = Incarnation(0xa);
const B: Incarnation = Incarnation(0xb);

fn changes(op: Op, namespace: Namespace, uids: &[u64]) -> Vec<Change> {
    uids.iter().map(|uid| Change { op, namespace, uid: Uid(*uid) }).collect()
}

fn run(bytes: &[u8]) -> UidRun<'_> {
    UidRun::new(bytes).expect("whole UIDs")
}

fn filling(routes: &Routes, incarnation: Incarnation, uids: &[u64]) -> Slot {
    let slot = routes.open(incarnation).expect("a free slot");
    routes.apply(slot, &changes(Op::Add, TENANT, uids)).expect("room for the routes");
    slot
}

fn live(routes: &Routes, incarnation: Incarnation, uids: &[u64]) -> Slot {
    let slot = filling(routes, incarnation, uids);
    routes.go_live(slot, None).expect("nothing stands");
    slot
}

/// `None` for everyone.
fn ask(
    routes: &Routes,
    namespace: Namespace,
    uids: Option<&[u64]>,
    except: &[u64],
    mode: Mode,
) -> Expected {
    let list = uids.map(|uids| uid_bytes(uids.iter().copied()));
    let except = uid_bytes(except.iter().copied());
    let audience = list.as_deref().map_or(Audience::Everyone, |bytes| Audience::Uids(run(bytes)));
    let query = Query { except: run(&except), mode, ..Query::new(namespace, audience) };
    let mut plan = Plan::new();
    routes.resolve(&[query], &mut plan);
    plan.routed(0).into()
}

#[track_caller]
fn check(routes: &Routes, uids: &[u64], parts: &[(Slot, &[u64])], offline: &[u64]) {
    let got = ask(routes, TENANT, Some(uids), &[], Mode::Direct);
    let parts: Vec<_> = parts.iter().map(|(slot, uids)| (*slot, Some(uids.to_vec()))).collect();
    assert_eq!((got.parts, &got.offline[..]), (parts, offline));
}

#[track_caller]
fn check_broadcast(routes: &Routes, slots: &[Slot]) {
    let parts: Vec<_> = slots.iter().map(|slot| (*slot, None)).collect();
    for mode in [Mode::Direct, Mode::Auto, Mode::Broadcast] {
        assert_eq!(ask(routes, TENANT, None, &[], mode).parts, parts, "{mode:?}");
    }
}

/// However many UIDs are asked for, and at however many gateways each of them is.
#[test]
fn promise_1_each_gateway_gets_its_own_of_short_and_of_long_lists() {
    let routes = Routes::default();
    // User 1 is at every gateway, user 2 at every second, user 3 at every third, and so on.
    let at = |gateway: u64| (1..=100).filter(move |uid| gateway.is_multiple_of(*uid));
    let gateways = (1..=60).map(|gateway| {
        let uids: Vec<u64> = at(gateway).collect();
        (live(&routes, Incarnation(gateway), &uids), uids)
    });
    let gateways: Vec<(Slot, Vec<u64>)> = gateways.collect();
    let lists: Vec<Vec<u64>> = (1..=70).map(|length| (1..=length).rev().collect()).collect();
    for list in lists.iter().chain(&[vec![7], vec![60, 59], vec![61], vec![4, 2, 99, 1]]) {
        let mut expected = Vec::new();
        for (slot, uids) in &gateways {
            let part: Vec<u64> = list.iter().copied().filter(|uid| uids.contains(uid)).collect();
            expected.extend((!part.is_empty()).then_some((*slot, part)));
        }
        let parts: Vec<_> = expected.iter().map(|(slot, part)| (*slot, part.as_slice())).collect();
        let offline: Vec<u64> = list.iter().copied().filter(|uid| *uid > 60).collect();
        check(&routes, list, &parts, &offline);
    }
}

#[test]
fn promise_1_namespaces_never_meet() {
    let routes = Routes::default();
    let a = live(&routes, A, &[1001]);
    let b = routes.open(B).unwrap();
    routes.apply(b, &changes(Op::Add, OTHER_TENANT, &[1001, 1002])).unwrap();
    routes.go_live(b, None).unwrap();

    for (namespace, parts, offline) in [
        (TENANT, vec![(a, Some(vec![1001]))], vec![1002]),
        (OTHER_TENANT, vec![(b, Some(vec![1001, 1002]))], vec![]),
        (Namespace(3), vec![], vec![1001, 1002]),
    ] {
        let got = ask(&routes, namespace, Some(&[1001, 1002]), &[], Mode::Direct);
        assert_eq!((got.parts, got.offline), (parts, offline), "{namespace:?}");
    }
    for (namespace, everyone) in
        [(TENANT, vec![(a, None)]), (OTHER_TENANT, vec![(b, None)]), (Namespace(3), vec![])]
    {
        let got = ask(&routes, namespace, None, &[], Mode::Direct);
        assert_eq!(got.parts, everyone, "{namespace:?}");
    }

    routes.apply(b, &changes(Op::Remove, TENANT, &[1001])).unwrap();
    check(&routes, &[1001], &[(a, &[1001])], &[]);
}

#[test]
fn promise_1_narrowing_never_gives_a_gateway_anothers_uid() {
    let routes = Routes::default();
    let a = live(&routes, A, &[1, 2, 3]);
    let b = live(&routes, B, &[3, 4, 5]);
    check(&routes, &[5, 3, 1, 9, 4, 7], &[(a, &[3, 1]), (b, &[5, 3, 4])], &[9, 7]);
    check(&routes, &[2], &[(a, &[2])], &[]);
    check(&routes, &[4], &[(b, &[4])], &[]);
    check(&routes, &[], &[], &[]);
}

#[test]
fn promise_1_one_querys_uids_never_reach_the_next() {
    let routes = Routes::default();
    let a = live(&routes, A, &[1, 2]);
    let lists = [&[1, 8][..], &[2], &[9]].map(|uids| uid_bytes(uids.iter().copied()));
    let queries: Vec<Query<'_>> = lists
        .iter()
        .map(|bytes| Query { mode: Mode::Direct, ..Query::new(TENANT, Audience::Uids(run(bytes))) })
        .collect();
    let mut plan = Plan::new();
    for _ in 0..2 {
        routes.resolve(&queries, &mut plan);
        let got: Vec<_> = plan.iter().map(Expected::from).map(|e| (e.parts, e.offline)).collect();
        assert_eq!(
            got,
            [
                (vec![(a, Some(vec![1]))], vec![8]),
                (vec![(a, Some(vec![2]))], vec![]),
                (vec![], vec![9]),
            ]
        );
    }
    routes.resolve(&[], &mut plan);
    assert!(plan.is_empty());
}

#[test]
fn promise_1_except_always_wins_and_a_uid_counts_once() {
    let routes = Routes::default();
    let a = live(&routes, A, &[1, 2]);
    let b = live(&routes, B, &[2, 3]);
    let (list, except) = ([3, 2, 9, 2, 3, 1, 8, 9], [2, 8, 8, 77]);

    let direct = Expected {
        parts: vec![(a, Some(vec![1])), (b, Some(vec![3]))],
        offline: vec![9],
        filtered: vec![2, 8],
        reached: 2,
        unresolved: 0,
        ..Expected::default()
    };
    let broadcast = Expected {
        parts: vec![(a, None), (b, None)],
        filtered: vec![2, 8],
        unresolved: 3,
        ..Expected::default()
    };
    for (mode, expected) in
        [(Mode::Direct, &direct), (Mode::Auto, &direct), (Mode::Broadcast, &broadcast)]
    {
        assert_eq!(ask(&routes, TENANT, Some(&list), &except, mode), *expected, "{mode:?}");
    }
    let all_out = ask(&routes, TENANT, Some(&[1, 3]), &[3, 1], Mode::Direct);
    assert_eq!(all_out, Expected { filtered: vec![1, 3], ..Expected::default() });
}

#[test]
fn promise_8_a_lost_gateways_routes_stop_answering_at_once() {
    let many: Vec<u64> = (0..10_000).collect();
    let routes = Routes::default();
    let a = live(&routes, A, &many);
    let b = live(&routes, B, &[7]);
    routes.kill(a).unwrap();

    check(&routes, &[7, 8], &[(b, &[7])], &[8]);
    check_broadcast(&routes, &[b]);
    assert_eq!(routes.counts().routes_dead, many.len(), "nothing was swept for that");
}

#[test]
fn promise_8_a_suspended_gateways_users_are_offline_until_it_resumes() {
    let routes = Routes::default();
    let a = live(&routes, A, &[1]);
    routes.suspend(a).unwrap();
    check(&routes, &[1], &[], &[1]);
    check_broadcast(&routes, &[]);
    routes.apply(a, &changes(Op::Add, TENANT, &[2, 3])).unwrap();
    routes.apply(a, &changes(Op::Remove, TENANT, &[3])).unwrap();
    check(&routes, &[2, 3], &[], &[2, 3]);
    assert_eq!(routes.sweep(100), SweepProgress::default());
    assert_eq!(routes.standing(A), Some(a));

    routes.resume(a).unwrap();
    check(&routes, &[1, 2, 3], &[(a, &[1, 2])], &[3]);
}

#[test]
fn promise_8_resume_only_from_suspended() {
    let routes = Routes::default();
    let slot = routes.open(A).unwrap();
    let refused = |state| Err(SlotError::Refused { state });
    assert_eq!(routes.resume(slot), refused(SlotState::Filling));
    assert_eq!(routes.suspend(slot), refused(SlotState::Filling));
    routes.go_live(slot, None).unwrap();
    assert_eq!(routes.resume(slot), refused(SlotState::Live));
    assert_eq!(routes.go_live(slot, None), refused(SlotState::Live));
    routes.suspend(slot).unwrap();
    assert_eq!(routes.suspend(slot), refused(SlotState::Suspended));
    routes.kill(slot).unwrap();
    assert_eq!(routes.resume(slot), Err(SlotError::Dead));
    assert_eq!(routes.kill(slot), Err(SlotError::Dead));
}

#[test]
fn promise_8_remove_by_one_incarnation_never_removes_anothers() {
    let routes = Routes::default();
    let a = live(&routes, A, &[1]);
    let b = live(&routes, B, &[1]);
    check(&routes, &[1], &[(a, &[1]), (b, &[1])], &[]);

    let removed = routes.apply(a, &changes(Op::Remove, TENANT, &[1, 1])).unwrap();
    assert_eq!((removed.removed, removed.unchanged), (1, 1));
    check(&routes, &[1], &[(b, &[1])], &[]);

    let added = routes.apply(a, &changes(Op::Add, TENANT, &[1, 1])).unwrap();
    assert_eq!((added.added, added.unchanged), (1, 1));
    routes.kill(b).unwrap();
    routes.sweep(usize::MAX);
    check(&routes, &[1], &[(a, &[1])], &[]);
}

#[test]
fn promise_8_a_snapshot_answers_nothing_before_its_end() {
    let routes = Routes::default();
    let old = live(&routes, A, &[1, 2]);
    let new = filling(&routes, A, &[2, 3]);
    check(&routes, &[1, 2, 3], &[(old, &[1, 2])], &[3]);
    check_broadcast(&routes, &[old]);

    routes.go_live(new, Some(old)).unwrap();
    check(&routes, &[1, 2, 3], &[(new, &[2, 3])], &[1]);
    check_broadcast(&routes, &[new]);
    assert_eq!(routes.state(old), SlotState::Dead);
}

#[test]
fn promise_8_a_replaced_slot_swaps_without_a_moment_of_absence() {
    let routes = Routes::default();
    let first = live(&routes, A, &[1]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut old = first;
            for _ in 0..2_000 {
                let new = filling(&routes, A, &[1]);
                routes.go_live(new, Some(old)).unwrap();
                routes.sweep(usize::MAX);
                old = new;
            }
        });
        while !writer.is_finished() {
            let got = ask(&routes, TENANT, Some(&[1]), &[], Mode::Direct);
            assert_eq!((got.reached, got.parts.len()), (1, 1), "exactly one slot answers");
        }
    });
}

#[test]
fn promise_8_an_incarnation_answers_from_one_slot() {
    let routes = Routes::default();
    let other = live(&routes, B, &[]);
    for suspended in [false, true] {
        let old = live(&routes, A, &[1]);
        if suspended {
            routes.suspend(old).unwrap();
        }
        let new = filling(&routes, A, &[1]);
        let not_replaced = Err(SlotError::NotReplaced { standing: old });
        assert_eq!(routes.go_live(new, None), not_replaced);
        assert_eq!(routes.go_live(new, Some(other)), Err(SlotError::OtherIncarnation));
        assert_eq!(routes.go_live(new, Some(new)), Err(SlotError::ReplacesItself));
        assert_eq!(routes.state(new), SlotState::Filling, "a refusal changes nothing");
        routes.kill(old).unwrap();
        assert_eq!(routes.go_live(new, Some(old)), Ok(()), "it is replaced already");
        routes.kill(new).unwrap();
    }
}

#[test]
fn promise_8_an_index_is_reused_only_after_its_sweep_and_no_old_handle_comes_back() {
    let routes = Routes::new(Limits { slots: 1, routes: 10, ..Limits::default() }, 0);
    let old = live(&routes, A, &[1, 2]);
    routes.kill(old).unwrap();

    let full = Err(SlotError::SlotsFull { limit: 1 });
    let (mut removed, mut freed) = (0, 0);
    while freed == 0 {
        assert_eq!(routes.open(B), full);
        let told = routes.sweep(1);
        (removed, freed) = (removed + told.removed, told.freed);
        assert_eq!((told.routes_left, told.slots_left), (2 - removed, 1 - freed));
    }
    assert_eq!((removed, freed), (2, 1));
    let new = live(&routes, B, &[3]);
    assert_eq!(new.index(), old.index());
    assert_ne!(new, old);
    assert_eq!(routes.apply(old, &changes(Op::Remove, TENANT, &[3])), Err(SlotError::Dead));
    assert_eq!(routes.kill(old), Err(SlotError::Dead));
    check(&routes, &[1, 2, 3], &[(new, &[3])], &[1, 2]);
}

#[test]
fn promise_7_a_batch_over_the_limit_changes_nothing() {
    let routes = Routes::new(Limits { slots: 2, routes: 3, ..Limits::default() }, 0);
    let a = live(&routes, A, &[1, 2]);
    let mut batch = changes(Op::Remove, TENANT, &[1]);
    batch.extend(changes(Op::Add, TENANT, &[3, 4]));
    assert_eq!(routes.apply(a, &batch), Err(SlotError::RoutesFull { limit: 3 }));
    check(&routes, &[1, 2, 3, 4], &[(a, &[1, 2])], &[3, 4]);

    routes.apply(a, &changes(Op::Add, TENANT, &[3])).unwrap();
    routes.kill(a).unwrap();
    let b = live(&routes, B, &[]);
    let one = changes(Op::Add, TENANT, &[1]);
    assert_eq!(routes.apply(b, &one), Err(SlotError::RoutesFull { limit: 3 }), "dead ones count");
    routes.sweep(usize::MAX);
    routes.apply(b, &one).unwrap();
}

#[test]
fn promise_7_who_names_ever_new_namespaces_takes_no_memory_for_them() {
    let limits = Limits { namespaces: 3, ..Limits::default() };
    let routes = Routes::new(limits, 0x5eed);
    let a = live(&routes, A, &[]);
    for namespace in (0..20_000).map(Namespace) {
        routes.apply(a, &changes(Op::Add, namespace, &[1, 2])).unwrap();
        assert_eq!(routes.namespaces(), 1);
        routes.apply(a, &changes(Op::Remove, namespace, &[2, 3])).unwrap();
        assert_eq!(routes.namespaces(), 1);
        routes.apply(a, &changes(Op::Remove, namespace, &[1])).unwrap();
        assert_eq!((routes.namespaces(), routes.routes()), (0, 0));
        routes.apply(a, &changes(Op::Remove, namespace, &[1])).unwrap();
        assert_eq!(routes.namespaces(), 0, "nobody comes by leaving");
    }
    let [first, second, third, fourth] = [7, 71, 1, 2].map(Namespace);
    for namespace in [first, second, third] {
        routes.apply(a, &changes(Op::Add, namespace, &[1])).unwrap();
    }
    let batch = [changes(Op::Remove, first, &[1]), changes(Op::Add, fourth, &[1])].concat();
    assert_eq!(routes.apply(a, &batch), Err(SlotError::NamespacesFull { limit: 3 }));
    assert_eq!((routes.namespaces(), routes.routes()), (3, 3), "nothing of it was applied");
    routes.invariants();

    routes.kill(a).unwrap();
    let b = live(&routes, B, &[]);
    let one = changes(Op::Add, fourth, &[1]);
    assert_eq!(routes.apply(b, &one), Err(SlotError::NamespacesFull { limit: 3 }));
    while routes.sweep(1).slots_left > 0 {
        routes.invariants();
    }
    assert_eq!(routes.namespaces(), 0);
    routes.apply(b, &one).unwrap();
    routes.invariants();
}

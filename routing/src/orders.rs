//! Every order in which a query may meet the end of a slot, its sweep and the next one at its
//! index.

use loom::sync::Arc;
use loom::thread;
use waybill_wire::targets::UidRun;

use crate::fuzzing::uid_bytes;
use crate::{
    Audience, Change, Incarnation, Limits, Namespace, Op, Part, Plan, Query, Routes, Slot, Uid,
};

const NAMESPACE: Namespace = Namespace(1);

fn filling(routes: &Routes, incarnation: u64, uid: u64) -> Slot {
    let slot = routes.open(Incarnation(incarnation)).expect("there is room for slots");
    let add = Change { op: Op::Add, namespace: NAMESPACE, uid: Uid(uid) };
    routes.apply(slot, &[add]).expect("there is room for routes");
    slot
}

fn live(routes: &Routes, incarnation: u64, uid: u64) -> Slot {
    let slot = filling(routes, incarnation, uid);
    routes.go_live(slot, None).expect("it is filling");
    slot
}

fn reached(routes: &Routes, uids: &[u8]) -> Vec<(Slot, u64)> {
    let run = UidRun::new(uids).expect("whole UIDs");
    let query = Query::new(NAMESPACE, Audience::Uids(run));
    let mut plan = Plan::new();
    routes.resolve(&[query], &mut plan);
    let parts = plan.routed(0).parts();
    let own = parts.flat_map(|(slot, part)| match part {
        Part::Uids(uids) => uids.iter().map(|uid| (slot, *uid)).collect::<Vec<_>>(),
        Part::Whole => unreachable!("the query has a list"),
    });
    own.collect()
}

fn every_order(switches: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.max_branches = 50_000;
    builder.check(run);
}

#[test]
fn promise_1_the_next_slot_at_an_index_is_never_given_its_forerunners_user() {
    every_order(1, || {
        let routes = Arc::new(Routes::new(Limits { slots: 1, routes: 4, ..Limits::default() }, 7));
        let older = live(&routes, 1, 5);
        let writer = {
            let routes = Arc::clone(&routes);
            thread::spawn(move || {
                routes.kill(older).expect("it is live");
                while routes.sweep(usize::MAX).slots_left > 0 {}
                live(&routes, 2, 6)
            })
        };
        let got = reached(&routes, &uid_bytes([6]));
        let newer = writer.join().expect("it holds");
        assert!([vec![], vec![(newer, 6)]].contains(&got), "{got:?} of {older:?}");
    });
}

#[test]
fn promise_8_a_user_is_found_while_a_snapshot_takes_the_place_of_another_that_is_swept() {
    every_order(1, || {
        let routes = Arc::new(Routes::new(Limits { slots: 2, routes: 4, ..Limits::default() }, 7));
        let older = live(&routes, 1, 5);
        let newer = filling(&routes, 1, 5);
        let writer = {
            let routes = Arc::clone(&routes);
            thread::spawn(move || {
                routes.go_live(newer, Some(older)).expect("it is filling");
                routes.sweep(usize::MAX);
            })
        };
        let got = reached(&routes, &uid_bytes([5]));
        writer.join().expect("it holds");
        assert!([vec![(older, 5)], vec![(newer, 5)]].contains(&got), "{got:?}");
    });
}

#[test]
fn promise_8_who_comes_to_a_namespace_while_its_last_user_leaves_is_found() {
    every_order(2, || {
        let routes = Arc::new(Routes::new(Limits { slots: 2, routes: 4, ..Limits::default() }, 7));
        let older = live(&routes, 1, 5);
        let newer = routes.open(Incarnation(2)).expect("there is room for slots");
        routes.go_live(newer, None).expect("it is filling");
        let writer = {
            let routes = Arc::clone(&routes);
            thread::spawn(move || {
                let remove = Change { op: Op::Remove, namespace: NAMESPACE, uid: Uid(5) };
                routes.apply(older, &[remove]).expect("it is live");
            })
        };
        let add = Change { op: Op::Add, namespace: NAMESPACE, uid: Uid(6) };
        routes.apply(newer, &[add]).expect("there is room for routes");
        assert_eq!(reached(&routes, &uid_bytes([6])), [(newer, 6)]);
        writer.join().expect("it holds");
        assert_eq!(reached(&routes, &uid_bytes([5, 6])), [(newer, 6)]);
        assert_eq!((routes.namespaces(), routes.routes()), (1, 1));
    });
}

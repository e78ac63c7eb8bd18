//! Routing allocates nothing once its plan has seen the largest batch.
#![expect(unsafe_code, reason = "an allocator that counts cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use waybill_routing::fuzzing::uid_bytes;
use waybill_routing::{
    Audience, Change, Incarnation, Mode, Namespace, Op, Plan, Query, Routes, Uid,
};
use waybill_wire::targets::UidRun;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; the counter is a plain cell of this
// thread that allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's duty, handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's duty, handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn promise_7_a_warm_plan_allocates_nothing() {
    let routes = Routes::default();
    for gateway in 0..8 {
        let slot = routes.open(Incarnation(gateway)).unwrap();
        let users = (0..1_000).filter(|uid| uid % 8 <= gateway).map(Uid);
        let adds: Vec<Change> =
            users.map(|uid| Change { op: Op::Add, namespace: Namespace(1), uid }).collect();
        routes.apply(slot, &adds).unwrap();
        routes.go_live(slot, None).unwrap();
    }
    let uids = uid_bytes((0..1_200).rev());
    let except = uid_bytes(300..400);
    let uids = Audience::Uids(UidRun::new(&uids).unwrap());
    let queries = [(uids, Mode::Direct), (uids, Mode::Broadcast), (Audience::Everyone, Mode::Auto)]
        .map(|(audience, mode)| Query {
            namespace: Namespace(1),
            audience,
            except: UidRun::new(&except).unwrap(),
            mode,
        });

    let mut plan = Plan::new();
    routes.resolve(&queries, &mut plan);
    assert_eq!(plan.routed(0).reached(), 900);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "the counter counts");
    for _ in 0..10 {
        routes.resolve(&queries, &mut plan);
        routes.resolve(&queries[..1], &mut plan);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

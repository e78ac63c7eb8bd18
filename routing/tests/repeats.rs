//! Whoever asks for everyone as the query before did has its answer, and takes no room in the plan.

use waybill_routing::{
    Audience, Change, Incarnation, Mode, Namespace, Op, Part, Plan, Query, Routes, Uid,
};
use waybill_wire::targets::UidRun;

const HERE: Namespace = Namespace(1);

/// Three gateways of which two have users here, and one elsewhere.
fn routes() -> Routes {
    let routes = Routes::default();
    for gateway in 0..3 {
        let slot = routes.open(Incarnation(gateway + 1)).expect("there is room");
        let namespace = if gateway == 2 { Namespace(2) } else { HERE };
        let change = Change { op: Op::Add, namespace, uid: Uid(gateway) };
        routes.apply(slot, &[change]).expect("there is room");
        routes.go_live(slot, None).expect("it was filling");
    }
    routes
}

fn everyone(mode: Mode) -> Query<'static> {
    Query { mode, bytes: 100, ..Query::new(HERE, Audience::Everyone) }
}

#[test]
fn a_query_that_repeats_the_one_before_has_its_answer() {
    let except = 5_u64.to_le_bytes();
    let except = UidRun::new(&except).expect("one UID");
    let (direct, broadcast) = (everyone(Mode::Direct), everyone(Mode::Broadcast));
    let auto = everyone(Mode::Auto);
    let heavy = Query { bytes: 1 << 20, ..auto };
    let elsewhere = Query { namespace: Namespace(2), ..direct };
    let queries = [
        (direct, false),
        (direct, true),
        (Query { bytes: 1, ..direct }, true),
        (broadcast, false),
        (broadcast, true),
        (direct, false),
        (Query { except, ..direct }, false),
        (direct, false),
        (elsewhere, false),
        (auto, false),
        (auto, true),
        (heavy, false),
        (Query { fates_asked: true, ..heavy }, false),
        (Query::new(HERE, Audience::Uids(except)), false),
        (Query::new(HERE, Audience::Uids(except)), false),
    ];
    let (routes, mut plan, mut alone) = (routes(), Plan::new(), Plan::new());
    let all = queries.map(|(query, _)| query);
    routes.resolve(&all, &mut plan);
    assert_eq!(plan.len(), queries.len());
    for (at, (query, repeats)) in queries.iter().enumerate() {
        routes.resolve(&[*query], &mut alone);
        let parts: Vec<_> = plan.routed(at).parts().collect();
        assert!(alone.routed(0).parts().eq(parts.iter().copied()), "{at}: {parts:?}");
        assert_eq!(plan.routed(at).mode(), alone.routed(0).mode(), "{at}");
        assert_eq!(at > 0 && query.repeats(&all[at.saturating_sub(1)]), *repeats, "{at}");
        if at > 0 && !parts.is_empty() {
            let repeated = plan.routed(at - 1).is_repeated_by(plan.routed(at));
            assert_eq!(repeated, *repeats, "{at}");
        }
    }
    assert!(plan.routed(0).parts().all(|(_, part)| part == Part::Whole));
    assert_eq!((plan.routed(0).parts().len(), plan.routed(3).parts().len()), (2, 3));
}

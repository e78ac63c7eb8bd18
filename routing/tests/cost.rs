//! What `auto` takes: the answer for messages of each kind, and the reasons in numbers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use waybill_routing::fuzzing::uid_bytes;
use waybill_routing::{
    Audience, Change, Choice, Incarnation, Mode, Namespace, Op, Plan, Query, Routes, Uid,
};
use waybill_wire::selector::{Selector, parse};
use waybill_wire::targets::UidRun;

const TENANT: Namespace = Namespace(1);

/// Gateways with so many users each, on which tags are agreed.
fn world(gateways: u64, users: u64) -> Routes {
    let routes = Routes::default();
    for gateway in 0..gateways {
        let slot = routes.open(Incarnation(gateway)).unwrap();
        let own = (gateway * users..).take(usize::try_from(users).unwrap());
        let change = |uid| Change { op: Op::Add, namespace: TENANT, uid: Uid(uid) };
        routes.apply(slot, &own.map(change).collect::<Vec<_>>()).unwrap();
        routes.agree_on_tags(slot, true).unwrap();
        routes.go_live(slot, None).unwrap();
    }
    routes
}

/// What is taken by [`Routes::weigh`], and the same by a plan.
#[track_caller]
fn choice(routes: &Routes, query: &Query<'_>) -> Choice {
    let choice = routes.weigh(query);
    let mut plan = Plan::new();
    routes.resolve(&[Query { mode: Mode::Auto, ..*query }], &mut plan);
    assert_eq!(plan.routed(0).mode(), choice.mode);
    let cheaper = choice.broadcast.total_ns() < choice.direct.total_ns();
    assert_eq!(choice.mode == Mode::Broadcast, cheaper && !choice.fates_asked);
    choice
}

/// The gateway of all of them looks up who is not there, too, and that is dearer than here.
#[test]
fn a_list_is_looked_up_even_where_one_gateway_has_everybody() {
    for (gateways, targets) in [(1, 1), (1, 10), (1, 1_000), (1, 4_096), (2, 1), (8, 1_000)] {
        let routes = world(gateways, 100);
        let list = uid_bytes(0..targets);
        let query = Query::new(TENANT, Audience::Uids(UidRun::new(&list).unwrap()));
        let query = Query { bytes: 176, ..query };
        let choice = choice(&routes, &query);
        assert_eq!(choice.mode, Mode::Direct, "{targets} at {gateways}: {choice:?}");
        // In a namespace where nobody is nobody gets a frame.
        let elsewhere = routes.weigh(&Query { namespace: Namespace(2), ..query });
        assert_eq!(elsewhere.direct.gateways, 0);
    }
}

#[test]
fn tgt_6_auto_is_never_broadcast_when_fates_are_asked_for() {
    let routes = world(1, 10);
    let terms: Vec<String> = (0..40).map(|term| format!("t{term}")).collect();
    let selector = parse(&terms.join(" | ")).unwrap();
    let selector = Some(Selector::check(&selector).unwrap());
    let query = Query { selector, ..Query::new(TENANT, Audience::Everyone) };
    assert_eq!(choice(&routes, &query).mode, Mode::Broadcast);
    let choice = choice(&routes, &Query { fates_asked: true, ..query });
    assert!(choice.broadcast.total_ns() < choice.direct.total_ns());
    assert_eq!((choice.mode, choice.fates_asked), (Mode::Direct, true));
}

#[test]
fn a_selector_is_broadcast_where_looking_up_its_terms_costs_more_than_frames() {
    let terms: Vec<String> = (0..40).map(|term| format!("t{term}")).collect();
    let (few, many) = (parse("a & b").unwrap(), parse(&terms.join(" | ")).unwrap());
    for (gateways, users, selector, mode) in [
        (1, 100, &few, Mode::Direct),
        (1, 10, &many, Mode::Broadcast),
        (1, 100_000, &many, Mode::Direct),
        (1_000, 10, &many, Mode::Direct),
    ] {
        let routes = world(gateways, users);
        let query = Query::new(TENANT, Audience::Everyone);
        let selector = Some(Selector::check(selector).unwrap());
        let choice = choice(&routes, &Query { selector, bytes: 400, ..query });
        assert_eq!(choice.mode, mode, "{users} at {gateways}: {choice:?}");
    }
}

#[test]
fn everyone_is_never_dearer_without_a_broadcast() {
    let routes = world(8, 10);
    let empty = routes.open(Incarnation(99)).unwrap();
    routes.go_live(empty, None).unwrap();
    let choice = choice(&routes, &Query { bytes: 200, ..Query::new(TENANT, Audience::Everyone) });
    let (direct, broadcast) = (choice.direct, choice.broadcast);
    assert_eq!((choice.mode, direct.gateways, broadcast.gateways), (Mode::Direct, 8, 9));
    assert_eq!((direct.link_bytes, broadcast.link_bytes), (8 * 200, 9 * 200));
}

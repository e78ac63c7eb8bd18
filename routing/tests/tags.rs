//! Tags of gateways: what they decide, when they stop to, and what happens beyond the limits. Each
//! case with its answer written out; random ones are in `oracle.rs`.

use waybill_routing::fuzzing::uid_bytes;
use waybill_routing::oracle::Expected;
use waybill_routing::{
    Audience, Change, Incarnation, Limits, Mode, Namespace, Op, Plan, Query, Routes, Slot,
    SlotError, SlotState, TagChange, TagLimit, TagsApplied, Uid,
};
use waybill_wire::selector::{Selector, parse};
use waybill_wire::targets::UidRun;

const TENANT: Namespace = Namespace(1);
const OTHER_TENANT: Namespace = Namespace(2);

fn changes<'a>(op: Op, tags: &[&'a str]) -> Vec<TagChange<'a>> {
    tags.iter().map(|tag| TagChange { op, namespace: TENANT, tag }).collect()
}

fn declare(routes: &Routes, slot: Slot, op: Op, tags: &[&str]) -> TagsApplied {
    routes.apply_tags(slot, &changes(op, tags)).expect("the slot is not dead")
}

/// A slot that is filling, with users and tags.
fn filling(routes: &Routes, gateway: u64, uids: &[u64], tags: &[&str]) -> Slot {
    let slot = routes.open(Incarnation(gateway)).expect("a free slot");
    let add = |uid: &u64| Change { op: Op::Add, namespace: TENANT, uid: Uid(*uid) };
    routes.apply(slot, &uids.iter().map(add).collect::<Vec<_>>()).expect("room for routes");
    routes.agree_on_tags(slot, true).expect("it is filling");
    declare(routes, slot, Op::Add, tags);
    slot
}

fn live(routes: &Routes, gateway: u64, uids: &[u64], tags: &[&str]) -> Slot {
    let slot = filling(routes, gateway, uids, tags);
    routes.go_live(slot, None).expect("nothing stands");
    slot
}

/// With no UIDs for everyone in the namespace.
fn ask_in(
    routes: &Routes,
    namespace: Namespace,
    (uids, except): (&[u64], &[u64]),
    selector: &str,
    mode: Mode,
) -> Expected {
    let (list, except) = (uid_bytes(uids.iter().copied()), uid_bytes(except.iter().copied()));
    let selector = parse(selector).expect("a selector");
    let run = |bytes| UidRun::new(bytes).expect("whole UIDs");
    let audience = match uids.is_empty() {
        true => Audience::Everyone,
        false => Audience::Uids(run(&list)),
    };
    let query = Query {
        selector: Some(Selector::check(&selector).expect("it was made of text")),
        except: run(&except),
        mode,
        ..Query::new(namespace, audience)
    };
    let mut plan = Plan::new();
    routes.resolve(&[query], &mut plan);
    plan.routed(0).into()
}

fn ask(routes: &Routes, uids: &[u64], selector: &str) -> Expected {
    ask_in(routes, TENANT, (uids, &[]), selector, Mode::Direct)
}

/// The slots that get a message for a selector alone.
fn meant(routes: &Routes, selector: &str) -> Vec<Slot> {
    ask(routes, &[], selector).parts.into_iter().map(|(slot, _)| slot).collect()
}

#[test]
fn sel_9_a_selector_alone_goes_where_a_connection_may_match() {
    let routes = Routes::default();
    let a = live(&routes, 1, &[1], &["geo:sh", "vip"]);
    let b = live(&routes, 2, &[2], &["geo:bj", "ios"]);
    let c = live(&routes, 3, &[3], &[]);
    // A gateway without a user in the namespace has no connection that could match.
    let empty = live(&routes, 4, &[], &["geo:sh"]);
    for (selector, slots) in [
        ("geo:sh", &[a][..]),
        ("geo:sh | geo:bj", &[a, b]),
        ("geo:sh & vip", &[a]),
        ("geo:bj & vip", &[]),
        ("!ios", &[a, b, c]),
        ("(geo:sh | geo:bj) & !ios", &[a, b]),
        ("!(geo:sh | !vip)", &[a]),
        ("geo:s", &[]),
    ] {
        assert_eq!(meant(&routes, selector), slots, "{selector}");
    }
    let in_other = ask_in(&routes, OTHER_TENANT, (&[], &[]), "geo:sh", Mode::Direct);
    assert_eq!(in_other, Expected::default());
    let broadcast = ask_in(&routes, OTHER_TENANT, (&[], &[]), "geo:sh", Mode::Broadcast);
    let all = [a, b, c, empty].map(|slot| (slot, None));
    assert_eq!(broadcast.parts, all);
}

#[test]
fn sel_7_who_is_only_where_nothing_can_match_is_filtered_and_except_wins() {
    let routes = Routes::default();
    let a = live(&routes, 1, &[1, 2, 3], &["vip"]);
    let _b = live(&routes, 2, &[3, 4, 5], &[]);
    let got = ask_in(&routes, TENANT, (&[9, 5, 3, 4, 1, 2], &[1, 9]), "vip", Mode::Direct);
    let expected = Expected {
        parts: vec![(a, Some(vec![3, 2]))],
        offline: vec![],
        filtered: vec![9, 1, 5, 4],
        filtered_in_part: vec![3],
        reached: 2,
        unresolved: 0,
    };
    assert_eq!(got, expected);
    let got = ask(&routes, &[9, 5], "vip");
    let expected = Expected { offline: vec![9], filtered: vec![5], ..Expected::default() };
    assert_eq!(got, expected);
}

#[test]
fn sel_10_a_gateway_without_tags_never_gets_a_selector() {
    let routes = Routes::default();
    let a = live(&routes, 1, &[1], &["vip"]);
    routes.agree_on_tags(a, false).unwrap();
    for mode in [Mode::Direct, Mode::Broadcast, Mode::Auto] {
        let got = ask_in(&routes, TENANT, (&[], &[]), "!x", mode);
        assert_eq!(got, Expected::default(), "{mode:?}");
    }
    let got = ask(&routes, &[1, 2], "!x");
    let expected = Expected { offline: vec![2], filtered: vec![1], ..Expected::default() };
    assert_eq!(got, expected);

    routes.agree_on_tags(a, true).unwrap();
    assert_eq!(meant(&routes, "vip"), [a], "what it declared was kept");
}

#[test]
fn tag_8_tags_answer_while_their_slot_is_live_and_end_with_it() {
    let routes = Routes::default();
    let a = live(&routes, 1, &[1], &["vip"]);
    routes.suspend(a).unwrap();
    assert_eq!(meant(&routes, "vip"), []);
    declare(&routes, a, Op::Add, &["new"]);
    declare(&routes, a, Op::Remove, &["vip"]);
    routes.resume(a).unwrap();
    assert_eq!((meant(&routes, "vip"), meant(&routes, "new")), (vec![], vec![a]));

    // A snapshot: nothing of it answers before its end, nothing of the old one after it.
    let next = filling(&routes, 1, &[1], &["vip"]);
    assert_eq!((meant(&routes, "vip"), meant(&routes, "new")), (vec![], vec![a]));
    routes.go_live(next, Some(a)).unwrap();
    assert_eq!((meant(&routes, "vip"), meant(&routes, "new")), (vec![next], vec![]));

    routes.kill(next).unwrap();
    assert_eq!(meant(&routes, "vip"), []);
    assert_eq!(routes.apply_tags(next, &[]), Err(SlotError::Dead));
    assert_eq!(routes.agree_on_tags(next, true), Err(SlotError::Dead));
    assert_eq!(routes.counts().declared_dead, 2);
    routes.sweep(usize::MAX);
    assert_eq!((routes.counts().declared, routes.counts().tags), (0, 0));
    let reused = routes.open(Incarnation(7)).unwrap();
    assert_eq!(reused.index(), a.index());
    routes.go_live(reused, None).unwrap();
    let broadcast = ask_in(&routes, TENANT, (&[], &[]), "!x", Mode::Broadcast);
    assert_eq!(broadcast.parts, [], "that tags were agreed on ended with the slot");
}

#[test]
fn tag_10_beyond_a_limit_every_tag_counts_as_declared() {
    for limit in [TagLimit::Gateway, TagLimit::Broker] {
        let (gateway_tags, broker_tags) = match limit {
            TagLimit::Gateway => (2, 100),
            TagLimit::Broker => (100, 3),
        };
        let routes = Routes::new(Limits { gateway_tags, broker_tags, ..Limits::default() }, 7);
        let b = live(&routes, 2, &[2], &["b"]);
        let a = live(&routes, 1, &[1], &["a1", "a2"]);
        assert_eq!(meant(&routes, "none"), []);

        // "b" is there already, so that it takes no more room in the broker.
        let more = ["b", "a3", "a4"];
        let applied = declare(&routes, a, Op::Add, &more);
        let expected = TagsApplied { added: 3, unkept: Some(limit), ..TagsApplied::default() };
        assert_eq!(applied, expected);
        assert_eq!((meant(&routes, "none"), meant(&routes, "b")), (vec![a], vec![b, a]));
        let kept = routes.counts().declared;
        assert_eq!(kept, if limit == TagLimit::Gateway { 3 } else { 4 });

        let applied = declare(&routes, a, Op::Add, &["a5", "a1"]);
        assert_eq!((applied.unkept, applied.contradicting), (None, 1), "it is told once");
        declare(&routes, a, Op::Remove, &["a5", "a3", "a4", "b"]);
        assert_eq!((meant(&routes, "none"), meant(&routes, "a1")), (vec![], vec![a]));
        let applied = declare(&routes, a, Op::Remove, &["a4"]);
        assert_eq!(applied.contradicting, 1, "all that is declared is kept again");
        let applied = declare(&routes, a, Op::Add, &["b", "a3"]);
        assert_eq!(applied.unkept, Some(limit), "and what comes next is told again");

        // A slot's end ends it, and makes room.
        routes.kill(a).unwrap();
        routes.sweep(usize::MAX);
        let c = live(&routes, 3, &[3], &["c1", "c2"]);
        assert_eq!((meant(&routes, "none"), meant(&routes, "c2")), (vec![], vec![c]));
    }
}

#[test]
fn tag_6_what_contradicts_is_told_and_changes_nothing() {
    let routes = Routes::default();
    let a = live(&routes, 1, &[1], &["x"]);
    let b = live(&routes, 2, &[2], &["x"]);
    let applied = declare(&routes, a, Op::Add, &["x", "y", "y"]);
    assert_eq!((applied.added, applied.contradicting), (1, 2));
    let applied = declare(&routes, a, Op::Remove, &["x", "x", "z"]);
    assert_eq!((applied.removed, applied.contradicting), (1, 2));
    assert_eq!((meant(&routes, "x"), meant(&routes, "y")), (vec![b], vec![a]));
}

#[test]
fn a_hundred_thousand_tags_of_many_gateways_are_found_and_swept_in_portions() {
    const GATEWAYS: u64 = 70;
    const TAGS: usize = 100_000;
    let routes = Routes::new(Limits::default(), 0x5eed);
    let text: Vec<String> = (0..TAGS).map(|tag| format!("group:{tag}")).collect();
    let slots: Vec<Slot> = (0..GATEWAYS).map(|at| live(&routes, at, &[at], &["all"])).collect();
    for (at, slot) in slots.iter().enumerate() {
        let own: Vec<&str> = text[at..].iter().step_by(slots.len()).map(String::as_str).collect();
        assert_eq!(declare(&routes, *slot, Op::Add, &own).added, own.len());
    }
    assert_eq!((routes.counts().tags, routes.counts().declared), (TAGS + 1, TAGS + slots.len()));
    for (at, tag) in text.iter().enumerate().step_by(997) {
        assert_eq!(meant(&routes, tag), [slots[at % slots.len()]]);
    }
    assert_eq!(meant(&routes, "all"), slots);

    // Every other gateway dies; what is left answers all the while.
    for slot in slots.iter().step_by(2) {
        routes.kill(*slot).unwrap();
    }
    let left: Vec<Slot> = slots.iter().copied().skip(1).step_by(2).collect();
    let mut steps = 0;
    while routes.sweep(200).slots_left > 0 {
        assert_eq!(meant(&routes, "all"), left);
        assert_eq!(meant(&routes, &text[71]), [slots[1]]);
        steps += 1;
    }
    assert!(steps > 20, "it was swept in {steps} portions");
    assert_eq!(routes.counts().tags, TAGS / 2 + 1);
    routes.invariants();
    for (at, tag) in text.iter().enumerate().step_by(331) {
        let slot = slots[at % slots.len()];
        let expected = if left.contains(&slot) { vec![slot] } else { vec![] };
        assert_eq!(meant(&routes, tag), expected);
    }
}

#[test]
fn a_tag_that_stays_is_seen_by_every_reader_while_others_come_and_go() {
    // Few parts, so that each gets more buckets again and again.
    let routes = Routes::new(Limits { broker_tags: 40_000, ..Limits::default() }, 1);
    let stays = live(&routes, 1, &[1], &["stays"]);
    let text: Vec<String> = (0..20_000).map(|tag| format!("t{tag}")).collect();
    let write = |gateway| {
        let slot = live(&routes, gateway, &[gateway], &[]);
        for op in [Op::Add, Op::Remove, Op::Add] {
            for some in text.chunks(100) {
                let some: Vec<&str> = some.iter().map(String::as_str).collect();
                assert_eq!(declare(&routes, slot, op, &some).contradicting, 0);
                for op in [Op::Add, Op::Remove] {
                    assert_eq!(declare(&routes, slot, op, &["stays"]).contradicting, 0);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let writers = [2, 3].map(|gateway| {
            scope.spawn({
                let write = &write;
                move || write(gateway)
            })
        });
        while !writers.iter().all(|writer| writer.is_finished()) {
            assert!(meant(&routes, "stays").contains(&stays));
        }
    });
    assert_eq!(meant(&routes, "stays"), [stays]);
    assert_eq!(routes.counts().tags, text.len() + 1);
    routes.invariants();
}

#[test]
fn rep_6_who_is_also_where_nothing_can_match_is_named() {
    let routes = Routes::default();
    let a = live(&routes, 1, &[1, 2, 3], &["vip"]);
    let _b = live(&routes, 2, &[3, 2, 4], &[]);
    let _c = live(&routes, 3, &[3], &[]);
    let got = ask_in(&routes, TENANT, (&[4, 3, 2, 1], &[2]), "vip", Mode::Direct);
    let expected = Expected {
        parts: vec![(a, Some(vec![3, 1]))],
        filtered: vec![2, 4],
        filtered_in_part: vec![3],
        reached: 2,
        ..Expected::default()
    };
    assert_eq!(got, expected);
}

#[test]
fn promise_6_a_sweep_of_tags_takes_no_longer_than_its_budget() {
    // So few that they lie together.
    let routes = Routes::new(Limits { broker_tags: 4_000, ..Limits::default() }, 7);
    let tags: Vec<String> = (0..3_000).map(|number| format!("group:{number}")).collect();
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let a = live(&routes, 1, &[], &tags);
    let b = live(&routes, 2, &[], &["vip"]);
    routes.kill(a).unwrap();
    let (mut swept, mut calls) = (0, 0);
    while routes.counts().slots_dead > 0 {
        let removed = routes.sweep(300).tags_removed;
        // Three steps a tag, and what was begun is ended: a bucket of some twenty tags.
        assert!(removed <= 100 + 50, "{removed}");
        (swept, calls) = (swept + removed, calls + 1);
    }
    assert_eq!((swept, routes.counts().tags), (3_000, 1));
    assert!(calls >= 15, "{calls}");
    assert_eq!(routes.state(b), SlotState::Live);
}

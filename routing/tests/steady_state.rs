//! Routing allocates nothing once its plan has seen the largest batch.

use waybill_routing::fuzzing::uid_bytes;
use waybill_routing::{
    Audience, Change, ConnectionTags, Incarnation, Matcher, Mode, Namespace, Op, Plan, Program,
    Query, Routes, TagChange, Uid, Whereabouts,
};
use waybill_wire::selector::{Selector, parse};
use waybill_wire::targets::UidRun;

#[test]
fn promise_7_a_warm_plan_allocates_nothing() {
    let routes = Routes::default();
    for gateway in 0..8 {
        let slot = routes.open(Incarnation(gateway)).unwrap();
        let users = (0..1_000).filter(|uid| uid % 8 <= gateway).map(Uid);
        let adds: Vec<Change> =
            users.map(|uid| Change { op: Op::Add, namespace: Namespace(1), uid }).collect();
        routes.apply(slot, &adds).unwrap();
        let tags = [format!("gateway:{gateway}"), "vip".to_owned()];
        let tag = |tag| TagChange { op: Op::Add, namespace: Namespace(1), tag };
        routes.apply_tags(slot, &tags.each_ref().map(|text| tag(text))).unwrap();
        routes.agree_on_tags(slot, true).unwrap();
        routes.go_live(slot, None).unwrap();
    }
    let uids = uid_bytes((0..1_200).rev());
    let except = uid_bytes(300..400);
    let (list, except) = (UidRun::new(&uids).unwrap(), UidRun::new(&except).unwrap());
    let nobody = UidRun::default();
    let few = [1, 3, 40].map(|count| Audience::Uids(UidRun::new(&uids[..8 * count]).unwrap()));
    let queries = [
        (Audience::Uids(list), except, Mode::Direct),
        (few[0], nobody, Mode::Direct),
        (few[1], nobody, Mode::Direct),
        (Audience::Uids(list), except, Mode::Broadcast),
        (few[2], except, Mode::Direct),
        (Audience::Everyone, except, Mode::Auto),
        (few[0], nobody, Mode::Auto),
    ]
    .map(|(audience, except, mode)| Query {
        except,
        mode,
        ..Query::new(Namespace(1), audience)
    });
    let selector = parse("vip & !(gateway:3 | !(gateway:1 | gateway:2 | gateway:7))").unwrap();
    let selector = Selector::check(&selector).unwrap();
    let tagged = queries.map(|query| Query { selector: Some(selector), ..query });
    let queries = [queries, tagged].concat();

    let mut whereabouts = Whereabouts::new();
    let mut locate = || routes.locate(Namespace(1), 0..64, &mut whereabouts);
    locate();
    assert_eq!(allocation_counter::measure(locate).count_total, 0);

    let mut plan = Plan::new();
    routes.resolve(&queries, &mut plan);
    assert_eq!(plan.routed(0).reached(), 900);
    assert_eq!((plan.routed(7).parts().len(), plan.routed(12).parts().len()), (3, 3));
    let counted = allocation_counter::measure(|| {
        for _ in 0..10 {
            routes.resolve(&queries, &mut plan);
            routes.resolve(&queries[..1], &mut plan);
        }
    });
    assert_eq!(counted.count_total, 0);
    let cold = allocation_counter::measure(|| routes.resolve(&queries, &mut Plan::new()));
    assert!(cold.count_total > 0, "the counter counts");
}

#[test]
fn promise_7_evaluating_a_selector_allocates_nothing() {
    let sixteen = "a & b & c & d & !(e | f | g | h | i) | !j & (k | l | m | n) & (o | !p)";
    let selectors = ["a", "a & (b | c) & !d", "!(a & !(b | c & !(d | e)))", sixteen].map(parse);
    let selectors = selectors.map(Result::unwrap);
    let mut program = Program::new();
    let mut evaluate = || {
        let mut matching = 0;
        for bytes in &selectors {
            program.compile(Selector::check(bytes).unwrap());
            matching += (0..32).filter(|mask| program.matches(*mask) && program.may(*mask)).count();
        }
        matching
    };
    let expected = evaluate();
    let counted = allocation_counter::measure(|| assert_eq!(evaluate(), expected));
    assert_eq!(counted.count_total, 0);
}

/// As a gateway evaluates them: connections by their tags, of selectors of one to sixteen terms.
#[test]
fn promise_7_asking_connections_whether_they_match_allocates_nothing() {
    let (mut tags, namespace) = (ConnectionTags::new(), Namespace(1));
    for connection in 0..64 {
        for of in 2..6 {
            tags.insert(namespace, &format!("group:{}", connection % of), connection);
        }
    }
    let sixteen: Vec<String> = (0..16).map(|group| format!("!group:{group}")).collect();
    let texts = ["group:1", "group:1 & (group:2 | !group:3)", &sixteen.join(" | ")];
    let selectors = texts.map(|text| parse(text).unwrap());
    let mut matcher = Matcher::new();
    let mut matching = || {
        let counts = selectors.each_ref().map(|bytes| {
            matcher.compile(&tags, namespace, Selector::check(bytes).unwrap());
            let asked = (0..64).filter(|connection| matcher.matches(&tags, *connection)).count();
            (asked, matcher.matching(&tags).map(Iterator::count))
        });
        assert!(counts.iter().all(|(asked, found)| found.is_none_or(|found| found == *asked)));
        counts.map(|(asked, _)| asked)
    };
    let expected = matching();
    assert!(expected.iter().all(|asked| (1..=64).contains(asked)), "{expected:?}");
    let counted = allocation_counter::measure(|| assert_eq!(matching(), expected));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn promise_7_a_namespace_with_one_user_takes_four_kibibytes_at_most() {
    let routes = Routes::default();
    let slot = routes.open(Incarnation(1)).unwrap();
    let namespaces = 1_000;
    let grown = allocation_counter::measure(|| {
        for namespace in (0..namespaces).map(Namespace) {
            let add = Change { op: Op::Add, namespace, uid: Uid(1) };
            routes.apply(slot, &[add]).unwrap();
        }
    });
    let bytes = grown.bytes_current / i64::from(namespaces);
    assert!(bytes <= 4_096, "{bytes} bytes");
}

//! Filters of consumers: what the contract's vectors want and pass over, and a naive evaluation.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use toml::{Table, Value};
use waybill_routing::filter::{Fields, is_true};
use waybill_wire::code::{Event, Kind};
use waybill_wire::filter::{self, Node, Term};
use waybill_wire::frame::Frame;

fn table(path: &str) -> Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol-spec/vectors").join(path);
    std::fs::read_to_string(&path).unwrap().parse().unwrap()
}

fn list(table: &Table, name: &str) -> Vec<Table> {
    let list = table.get(name).and_then(Value::as_array).unwrap();
    list.iter().map(|item| item.as_table().unwrap().clone()).collect()
}

fn text<'t>(table: &'t Table, name: &str) -> &'t str {
    table[name].as_str().unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.lines().flat_map(|line| line.split('#').next().unwrap().chars());
    let digits: Vec<u32> = digits.filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// Every frame of the vectors that goes to consumers, by the vector's id.
fn frames() -> BTreeMap<String, Vec<u8>> {
    let files = ["frames/consumers.toml", "frames/messages.toml"];
    let vectors = files.iter().flat_map(|file| list(&table(file), "vector"));
    vectors.map(|it| (text(&it, "id").to_owned(), bytes(text(&it, "hex")))).collect()
}

fn wants(expression: &filter::Expression, frame: &[u8]) -> bool {
    match Frame::decode(frame).unwrap() {
        Frame::Uplink(message) => {
            let uids = [message.sender.unwrap().uid];
            is_true(expression, &Fields::of_message(Kind::UPLINK, &uids, &message))
        }
        Frame::Offline(message) => {
            let mut uids: Vec<u64> = message.targets.iter().collect();
            uids.sort_unstable();
            is_true(expression, &Fields::of_message(Kind::OFFLINE, &uids, &message))
        }
        Frame::Presence(it) => {
            is_true(expression, &Fields::of_presence(it.event, &it.uid, it.device_class))
        }
        other => panic!("{other:?} goes to no consumer"),
    }
}

#[test]
fn flt_2_the_vectors_say_which_frames_an_expression_wants() {
    let (frames, mut judged) = (frames(), 0);
    for vector in list(&table("filters.toml"), "filter") {
        let Ok(expression) = filter::parse(text(&vector, "text")) else { continue };
        for (name, expected) in [("wants", true), ("passes", false)] {
            let ids = vector.get(name).and_then(Value::as_array).into_iter().flatten();
            for id in ids.map(|id| id.as_str().unwrap()) {
                assert_eq!(wants(&expression, &frames[id]), expected, "{} {id}", vector["id"]);
                judged += 1;
            }
        }
    }
    assert!(judged >= 50, "only {judged} frames were judged");
}

/// A text, and what it is for a user at an event by the rules of logic.
fn random() -> impl Strategy<Value = (String, Truth)> {
    let leaf = prop_oneof![
        (0..4u64).prop_map(|uid| (format!("uid={uid}"), Truth::Uid(uid))),
        (1..4u16).prop_map(|at| {
            let event = ["", "login", "logout", "displaced"][usize::from(at)];
            (format!("event={event}"), Truth::Event(at))
        }),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let row = proptest::collection::vec(inner.clone(), 2..4);
        let join = |row: Vec<(String, Truth)>, with: &str, of: fn(Vec<Truth>) -> Truth| {
            let (texts, truths): (Vec<_>, Vec<_>) = row.into_iter().unzip();
            (format!("({})", texts.join(with)), of(truths))
        };
        prop_oneof![
            row.clone().prop_map(move |row| join(row, " & ", Truth::All)),
            row.prop_map(move |row| join(row, "|", Truth::Any)),
            inner.prop_map(|(text, truth)| (format!("!{text}"), Truth::Not(Box::new(truth)))),
        ]
    })
}

#[derive(Clone, Debug)]
enum Truth {
    Uid(u64),
    Event(u16),
    All(Vec<Truth>),
    Any(Vec<Truth>),
    Not(Box<Truth>),
}

impl Truth {
    fn is(&self, uid: u64, event: u16) -> bool {
        match self {
            Self::Uid(it) => *it == uid,
            Self::Event(it) => *it == event,
            Self::All(all) => all.iter().all(|it| it.is(uid, event)),
            Self::Any(any) => any.iter().any(|it| it.is(uid, event)),
            Self::Not(it) => !it.is(uid, event),
        }
    }
}

proptest! {
    #[test]
    fn an_expression_is_true_where_logic_says_so((text, truth) in random()) {
        // A random one may have more terms or parentheses than there may be.
        let Ok(expression) = filter::parse(&text) else { return Ok(()) };
        for (uid, event) in (0..5).flat_map(|uid| (1..4).map(move |event| (uid, event))) {
            let code = [Event::LOGIN, Event::LOGOUT, Event::DISPLACED][usize::from(event) - 1];
            let fields = Fields::of_presence(code, &uid, 0);
            prop_assert_eq!(is_true(&expression, &fields), truth.is(uid, event), "{}", text);
        }
    }

    #[test]
    fn a_range_is_true_for_a_list_if_one_of_it_is_in_it(
        uids in proptest::collection::btree_set(0..40_u64, 1..20),
        (first, more) in (0..40_u64, 0..10_u64),
    ) {
        let list: Vec<u64> = uids.iter().copied().collect();
        let fields = Fields { uids: &list, ..Fields::of_presence(Event::LOGIN, &0, 0) };
        let last = first + more;
        let expression = filter::parse(&format!("uid={first}..{last}")).unwrap();
        let expected = uids.iter().any(|uid| (first..=last).contains(uid));
        prop_assert_eq!(is_true(&expression, &fields), expected, "{}..{}", first, last);
    }
}

#[test]
fn judging_allocates_nothing() {
    let text = "kind=presence & (uid=7 | uid=10..20 | event=login & !device_class=3)";
    let expression = filter::parse(text).unwrap();
    assert!(matches!(expression.nodes()[1], Node::Term(Term::Kind(Kind::PRESENCE))));
    let judged = allocation_counter::measure(|| {
        assert!(is_true(&expression, &Fields::of_presence(Event::LOGIN, &9, 2)));
        assert!(!is_true(&expression, &Fields::of_presence(Event::LOGOUT, &9, 2)));
    });
    assert_eq!(judged.count_total, 0);
}

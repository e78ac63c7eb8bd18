//! The vectors of selectors and filters: bytes, text, what is refused and where; and, by the
//! plainest reading of the nodes, what they mean.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "vectors/files.rs"]
mod files;

use toml::{Table, Value};
use waybill_wire::code::{Event, Kind, Priority};
use waybill_wire::expression::TextError;
use waybill_wire::filter::{self, Term};
use waybill_wire::message::Message;
use waybill_wire::selector::{self, Node};
use waybill_wire::{Frame, Selector};

use files::{bytes, read_table, text, vectors, vectors_dir};

fn table(name: &str) -> Vec<Table> {
    let mut table = read_table(&vectors_dir().join(format!("{name}s.toml")));
    let Some(Value::Array(vectors)) = table.remove(name) else { panic!("no [[{name}]]") };
    assert!(vectors.len() >= 30, "{} vectors of {name}", vectors.len());
    vectors.into_iter().map(|vector| vector.as_table().unwrap().clone()).collect()
}

/// The text of a vector, which need not be UTF-8.
fn given(vector: &Table) -> Vec<u8> {
    match vector.get("text_hex") {
        Some(hex) => bytes(hex.as_str().unwrap()),
        None => text(vector, "text").as_bytes().to_vec(),
    }
}

/// Whether a text was refused as its vector says; what it gave, if it was to be read.
fn read<T>(vector: &Table, found: Result<T, TextError>) -> Option<T> {
    let id = text(vector, "id");
    match (vector.get("error"), found) {
        (None, Ok(found)) => Some(found),
        (Some(error), Err(refused)) => {
            let at = i64::try_from(refused.position).unwrap();
            let found = (refused.code.name(), Some(at));
            assert_eq!(found, (error.as_str(), vector["at"].as_integer()), "{id}: {refused}");
            None
        }
        (Some(error), Ok(_)) => panic!("{id}: was read, and not refused as {error}"),
        (None, Err(refused)) => panic!("{id}: {refused}"),
    }
}

/// Lists of tags under a key.
fn tag_lists(vector: &Table, key: &str) -> Vec<Vec<String>> {
    let lists = vector.get(key).map_or(&[][..], |lists| lists.as_array().unwrap());
    let tags = |list: &Value| {
        let tags = list.as_array().unwrap().iter();
        tags.map(|tag| tag.as_str().unwrap().to_string()).collect()
    };
    lists.iter().map(tags).collect()
}

/// SEL-5.
fn matches<'a>(nodes: &mut impl Iterator<Item = Node<'a>>, tags: &[String]) -> bool {
    match nodes.next().unwrap() {
        Node::Tag(tag) => tags.iter().any(|it| it == tag),
        Node::And(n) => (0..n).fold(true, |all, _| matches(nodes, tags) & all),
        Node::Or(n) => (0..n).fold(false, |any, _| matches(nodes, tags) | any),
        Node::Not => !matches(nodes, tags),
    }
}

/// SEL-9: whether some connection can match, and whether every one must.
fn bounds<'a>(nodes: &mut impl Iterator<Item = Node<'a>>, declared: &[String]) -> (bool, bool) {
    match nodes.next().unwrap() {
        Node::Tag(tag) => (declared.iter().any(|it| it == tag), false),
        Node::And(n) => (0..n).fold((true, true), |all, _| {
            let (may, must) = bounds(nodes, declared);
            (may & all.0, must & all.1)
        }),
        Node::Or(n) => (0..n).fold((false, false), |any, _| {
            let (may, must) = bounds(nodes, declared);
            (may | any.0, must | any.1)
        }),
        Node::Not => {
            let (may, must) = bounds(nodes, declared);
            (!must, !may)
        }
    }
}

#[test]
fn selectors_are_read_written_and_mean_what_the_vectors_say() {
    let mut meanings = 0;
    for vector in table("selector") {
        let id = text(&vector, "id");
        let Some(found) = read(&vector, selector::parse_bytes(&given(&vector))) else { continue };
        let expected = bytes(text(&vector, "hex"));
        assert_eq!(found, expected, "{id}: text to bytes");
        let selector = Selector::check(&expected).unwrap_or_else(|flaw| panic!("{id}: {flaw}"));
        let canonical = vector.get("canonical").unwrap_or(&vector["text"]).as_str().unwrap();
        assert_eq!(selector.to_string(), canonical, "{id}: bytes to text");
        assert_eq!(selector::parse(canonical), Ok(expected.clone()), "{id}: and back");
        for (key, holds) in [("matches", true), ("differs", false)] {
            for tags in tag_lists(&vector, key) {
                assert_eq!(matches(&mut selector.nodes(), &tags), holds, "{id}: {key} {tags:?}");
                meanings += 1;
            }
        }
        for (key, holds) in [("may", true), ("may_not", false)] {
            for tags in tag_lists(&vector, key) {
                assert_eq!(bounds(&mut selector.nodes(), &tags).0, holds, "{id}: {key} {tags:?}");
                meanings += 1;
            }
        }
    }
    assert!(meanings >= 40, "{meanings}");
}

/// Whether a filter is true for a frame, node by node.
fn wants<'a>(nodes: &mut impl Iterator<Item = &'a filter::Node>, frame: &Frame<'_>) -> bool {
    match nodes.next().unwrap() {
        filter::Node::Term(term) => holds(term, frame),
        filter::Node::And(n) => (0..*n).fold(true, |all, _| wants(nodes, frame) & all),
        filter::Node::Or(n) => (0..*n).fold(false, |any, _| wants(nodes, frame) | any),
        filter::Node::Not => !wants(nodes, frame),
    }
}

fn holds(term: &Term, frame: &Frame<'_>) -> bool {
    if *term == Term::Kind(frame.kind()) {
        return true;
    }
    match frame {
        Frame::Uplink(message) => {
            let sender = message.sender.unwrap().uid;
            matches!(term, Term::Uid(range) if range.contains(&sender))
                || holds_of_message(term, message)
        }
        Frame::Offline(message) => {
            let mut uids = message.targets.iter();
            matches!(term, Term::Uid(range) if uids.any(|uid| range.contains(&uid)))
                || holds_of_message(term, message)
        }
        Frame::Presence(presence) => match term {
            Term::Uid(range) => range.contains(&presence.uid),
            Term::Event(event) => *event == presence.event,
            Term::DeviceClass(range) => range.contains(&presence.device_class),
            _ => false,
        },
        other => panic!("filters do not see {other:?}"),
    }
}

fn holds_of_message(term: &Term, message: &Message<'_>) -> bool {
    match term {
        Term::Label(label) => message.labels.iter().any(|it| it == &**label),
        Term::LabelBegins(label) => message.labels.iter().any(|it| it.starts_with(&**label)),
        Term::Priority(priority) => *priority == message.priority,
        Term::Content(content) => message.content.is_some_and(|it| it.content_type == *content),
        _ => false,
    }
}

#[test]
fn filters_are_read_and_mean_what_the_vectors_say() {
    let frames = vectors("frames");
    let named = |id: &Value| {
        let vector = frames.iter().find(|vector| vector["id"] == *id);
        bytes(text(vector.unwrap_or_else(|| panic!("no vector {id}")), "hex"))
    };
    let mut meanings = 0;
    for vector in table("filter") {
        let id = text(&vector, "id");
        let Some(found) = read(&vector, filter::parse_bytes(&given(&vector))) else { continue };
        for (key, holds) in [("wants", true), ("passes", false)] {
            for name in vector.get(key).map_or(&[][..], |names| names.as_array().unwrap()) {
                let bytes = named(name);
                let frame = Frame::decode(&bytes).unwrap();
                assert_eq!(wants(&mut found.nodes().iter(), &frame), holds, "{id}: {key} {name}");
                meanings += 1;
            }
        }
    }
    assert!(meanings >= 40, "{meanings}");
}

/// FLT-1, FLT-3: what each field may be compared with.
#[test]
fn terms_are_what_their_text_says() {
    let term = |text: &str| match filter::parse(text).unwrap().nodes() {
        [filter::Node::Term(term)] => term.clone(),
        nodes => panic!("{nodes:?}"),
    };
    assert_eq!(term("kind=offline"), Term::Kind(Kind::OFFLINE));
    assert_eq!(term("uid=7"), Term::Uid(7..=7));
    assert_eq!(term("uid=0..18446744073709551615"), Term::Uid(0..=u64::MAX));
    assert_eq!(term(r#"label="a \"b\\""#), Term::Label(r#"a "b\"#.into()));
    assert_eq!(term("label=*"), Term::LabelBegins("".into()));
    assert_eq!(term("label=\"a b\"*"), Term::LabelBegins("a b".into()));
    assert_eq!(term("priority=control"), Term::Priority(Priority::CONTROL));
    assert_eq!(term("event=lost"), Term::Event(Event::LOST));
    assert_eq!(term("device_class=3..4"), Term::DeviceClass(3..=4));
    let at = |text: &str| filter::parse(text).unwrap_err().position;
    for (text, position) in [
        ("content=32767", 8),
        ("content=65536", 8),
        ("uid=1...2", 4),
        ("uid=1..2..3", 4),
        ("uid=+1", 4),
        ("kind=\"uplink", 5),
        ("kind=uplink*", 5),
        ("kind=uplink\"x\"", 11),
        ("kind uplink", 5),
        ("Kind=uplink", 0),
        ("label=a* *", 9),
        ("label=", 6),
        ("uid=1 ..2", 6),
    ] {
        assert_eq!(at(text), position, "{text}");
    }
    let long = format!("{} | label={}", vec!["uid=1"; 64].join(" | "), "l".repeat(65));
    let refused = filter::parse(&long).unwrap_err();
    assert_eq!((refused.position, refused.limit), (64 * 8 + 6, Some(("label_bytes_max", 64))));
    let many = filter::parse(&vec!["uid=1"; 65].join(" | ")).unwrap_err();
    assert_eq!((many.position, many.limit), (64 * 8, Some(("filter_terms_max", 64))));
}

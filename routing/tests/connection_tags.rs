//! Tags of connections against a list of tuples, and who matches a selector.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a panic is how a test fails, and its numbers are small"
)]

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use waybill_routing::fuzzing::selectors::selector;
use waybill_routing::oracle::selectors::Tree;
use waybill_routing::{ConnectionTags, Inserted, Matcher, Namespace, Removed};
use waybill_wire::selector::{Selector, parse};

const TAGS: [&str; 5] = ["a", "ab", "b", "vip", "x"];

/// Connections, each of one namespace.
const CONNECTIONS: u32 = 6;

fn namespace(connection: u32) -> Namespace {
    Namespace(connection % 2)
}

#[derive(Default)]
struct Naive(Vec<(u32, &'static str)>);

impl Naive {
    fn has(&self, connection: u32, tag: &str) -> bool {
        self.0.contains(&(connection, TAGS[TAGS.iter().position(|there| *there == tag).unwrap()]))
    }

    fn is_declared(&self, of: Namespace, tag: &str) -> bool {
        self.0.iter().any(|(connection, there)| namespace(*connection) == of && *there == tag)
    }

    fn insert(&mut self, connection: u32, tag: &'static str) -> Inserted {
        let declared = self.is_declared(namespace(connection), tag);
        if self.has(connection, tag) {
            return Inserted::Already;
        }
        self.0.push((connection, tag));
        if declared { Inserted::Another } else { Inserted::First }
    }

    fn remove(&mut self, connection: u32, tag: &'static str) -> Removed {
        if !self.has(connection, tag) {
            return Removed::Absent;
        }
        self.0.retain(|held| *held != (connection, tag));
        match self.is_declared(namespace(connection), tag) {
            true => Removed::Another,
            false => Removed::Last,
        }
    }

    /// The tags that are gone with a connection.
    fn end(&mut self, connection: u32) -> Vec<(Namespace, &'static str)> {
        let had: Vec<&str> = TAGS.into_iter().filter(|tag| self.has(connection, tag)).collect();
        self.0.retain(|held| held.0 != connection);
        let of = namespace(connection);
        had.into_iter().filter(|tag| !self.is_declared(of, tag)).map(|tag| (of, tag)).collect()
    }

    fn check(&self, tags: &ConnectionTags) {
        tags.invariants();
        let mut declared: Vec<_> = self.0.iter().map(|held| (namespace(held.0), held.1)).collect();
        declared.sort_unstable();
        declared.dedup();
        assert_eq!(tags.iter().collect::<Vec<_>>(), declared);
        assert_eq!((tags.len(), tags.is_empty()), (declared.len(), declared.is_empty()));
        for connection in 0..CONNECTIONS {
            let mut of: Vec<&str> = tags.of(connection).collect();
            of.sort_unstable();
            let own: Vec<&str> = TAGS.into_iter().filter(|tag| self.has(connection, tag)).collect();
            assert_eq!((tags.count(connection), of), (own.len(), own));
        }
        for (tag, of) in TAGS.into_iter().flat_map(|tag| [(tag, 0), (tag, 1)]) {
            let of = Namespace(of);
            assert_eq!(tags.is_declared(of, tag), self.is_declared(of, tag));
        }
    }

    fn check_matching(&self, tags: &ConnectionTags, matcher: &mut Matcher, selector: Selector<'_>) {
        let tree = Tree::of(selector);
        for of in [Namespace(0), Namespace(1)] {
            matcher.compile(tags, of, selector);
            let mut all = Vec::new();
            for connection in (0..CONNECTIONS).filter(|connection| namespace(*connection) == of) {
                let expected = tree.matches(&|tag| self.has(connection, tag));
                assert_eq!(matcher.matches(tags, connection), expected, "{selector}");
                all.extend(expected.then_some(connection));
            }
            if let Some(matching) = matcher.matching(tags) {
                let mut matching: Vec<u32> = matching.collect();
                matching.sort_unstable();
                assert_eq!(matching, all, "{selector}: each once");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn tag_3_and_sel_5_connections_have_what_a_list_of_tuples_says(
        steps in prop::collection::vec((0..8, 0..CONNECTIONS, 0..TAGS.len()), 0..60),
        data in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..24), 4),
    ) {
        let (mut tags, mut naive) = (ConnectionTags::new(), Naive::default());
        for (what, connection, tag) in steps {
            let (of, tag) = (namespace(connection), TAGS[tag]);
            match what {
                0 => {
                    let mut last: Vec<(Namespace, String)> = Vec::new();
                    tags.end(connection, |namespace, tag| last.push((namespace, tag.to_owned())));
                    last.sort_unstable();
                    let expected = naive.end(connection).into_iter();
                    let expected: Vec<_> = expected.map(|(of, tag)| (of, tag.to_owned())).collect();
                    assert_eq!(last, expected);
                }
                1..=2 => assert_eq!(
                    tags.remove(of, tag, connection),
                    naive.remove(connection, tag)
                ),
                _ => assert_eq!(tags.insert(of, tag, connection), naive.insert(connection, tag)),
            }
            naive.check(&tags);
        }
        let mut matcher = Matcher::new();
        for data in data {
            let bytes = selector(&data, &TAGS);
            naive.check_matching(&tags, &mut matcher, Selector::check(&bytes).unwrap());
        }
    }
}

#[test]
fn who_matches_is_found_by_the_tags_that_one_must_have() {
    let (mut tags, mut matcher) = (ConnectionTags::new(), Matcher::new());
    assert!(!matcher.matches(&tags, 0), "no selector was compiled yet");
    assert!(matcher.matching(&tags).is_none());
    for connection in 0..4 {
        tags.insert(Namespace(1), "vip", connection);
    }
    tags.insert(Namespace(1), "group:42", 2);
    tags.insert(Namespace(2), "other", 9);
    tags.insert(Namespace(1), "bare", 7);
    for (text, expected) in [
        ("group:42", Some(&[2][..])),
        ("vip & group:42", Some(&[2])),
        ("vip & !group:42", Some(&[0, 1, 3])),
        ("vip & (group:42 | x)", Some(&[2])),
        ("!(!group:42 | x)", Some(&[2])),
        ("vip & nobody", Some(&[])),
        ("other", Some(&[])),
        ("vip | group:42", Some(&[0, 1, 2, 3])),
        ("group:42 | bare | nobody", Some(&[2, 7])),
        ("(vip | bare) & (group:42 | !bare)", Some(&[0, 1, 2, 3])),
        ("!vip", None),
        ("bare | !vip", None),
    ] {
        let bytes = parse(text).unwrap();
        matcher.compile(&tags, Namespace(1), Selector::check(&bytes).unwrap());
        let found = matcher.matching(&tags).map(|all| {
            let mut all: Vec<u32> = all.collect();
            all.sort_unstable();
            all
        });
        assert_eq!(found.as_deref(), expected, "{text}");
    }
}

//! Selectors, evaluated as programs and as the contract says: the same for every set of tags.

use proptest::prelude::*;
use waybill_routing::Program;
use waybill_routing::fuzzing::selectors::selector;
use waybill_routing::oracle::selectors::Tree;
use waybill_wire::selector::{Node, Selector, parse};

const TAGS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The bits of the terms whose tags are in a set of [`TAGS`].
fn mask(selector: Selector<'_>, set: usize) -> u64 {
    let terms = selector.nodes().filter_map(|node| match node {
        Node::Tag(text) => Some(has(set, text)),
        Node::And(_) | Node::Or(_) | Node::Not => None,
    });
    terms.enumerate().fold(0, |mask, (bit, has)| mask | u64::from(has) << bit)
}

fn has(set: usize, text: &str) -> bool {
    TAGS.iter().position(|tag| *tag == text).is_some_and(|bit| set >> bit & 1 != 0)
}

/// Every set of tags, of a connection and of a gateway.
fn check(program: &mut Program, selector: Selector<'_>) -> Result<(), TestCaseError> {
    program.compile(selector);
    let tree = Tree::of(selector);
    for set in 0..1 << TAGS.len() {
        let mask = mask(selector, set);
        let (matches, may) = (program.matches(mask), program.may(mask));
        prop_assert_eq!(matches, tree.matches(&|text| has(set, text)), "{} {}", selector, set);
        prop_assert_eq!(may, tree.may(&|text| has(set, text)), "{} {}", selector, set);
        // Of connections with these tags and fewer some may match, and more tags never hurt.
        prop_assert!(may || !matches);
        let all_more = (0..TAGS.len()).map(|bit| set | 1 << bit);
        for more in all_more {
            prop_assert!(!may || program.may(crate::mask(selector, more)));
        }
    }
    prop_assert!(
        program.may(u64::MAX),
        "where every tag counts as declared every selector may match"
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn sel_5_and_sel_9_a_program_says_what_the_contract_does(
        all in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..3)
    ) {
        let mut program = Program::new();
        for data in all {
            let bytes = selector(&data, &TAGS);
            check(&mut program, Selector::check(&bytes).unwrap())?;
        }
    }
}

#[test]
fn a_table_of_selectors_and_who_matches() {
    let mut program = Program::new();
    assert!(!program.matches(u64::MAX) && !program.may(u64::MAX), "nothing is compiled yet");
    // For sets of tags {a}, {b}, {a, b} and none: who matches, and which gateways may.
    for (text, matches, may) in [
        ("a", [true, false, true, false], [true, false, true, false]),
        ("!a", [false, true, false, true], [true; 4]),
        ("a & b", [false, false, true, false], [false, false, true, false]),
        ("a | b", [true, true, true, false], [true, true, true, false]),
        ("a & !b", [true, false, false, false], [true, false, true, false]),
        ("a | !b", [true, false, true, true], [true; 4]),
        ("!(a & b)", [true, true, false, true], [true; 4]),
        ("!(a | b)", [false, false, false, true], [true; 4]),
        ("!(a | !b)", [false, true, false, false], [false, true, true, false]),
        ("!(!a & !b)", [true, true, true, false], [true, true, true, false]),
        ("a & !a", [false; 4], [true, false, true, false]),
        ("a & (b | !a)", [false, false, true, false], [true, false, true, false]),
    ] {
        let bytes = parse(text).unwrap();
        let selector = Selector::check(&bytes).unwrap();
        program.compile(selector);
        let masks = [1, 2, 3, 0].map(|set| mask(selector, set));
        assert_eq!(masks.map(|mask| program.matches(mask)), matches, "{text}");
        assert_eq!(masks.map(|mask| program.may(mask)), may, "{text}");
    }
}

#[test]
fn the_largest_selectors_are_evaluated_too() {
    // 64 terms with 63 operators, as deep and as wide as they may be.
    let mut all: Vec<String> = (0..64).map(|at| TAGS[at % TAGS.len()].to_owned()).collect();
    for level in 0..6 {
        let operator = if level % 2 == 0 { " & " } else { " | " };
        all = all.chunks(2).map(|pair| format!("!({})", pair.join(operator))).collect();
    }
    let bytes = parse(&all[0]).unwrap();
    let selector = Selector::check(&bytes).unwrap();
    assert_eq!(selector.terms(), 64);
    check(&mut Program::new(), selector).unwrap();
}

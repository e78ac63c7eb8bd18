//! Selectors as bytes and as text, against a checker and a normaliser that are as simple as can be.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use waybill_wire::code::ErrorCode;
use waybill_wire::selector::{Node, Selector, parse, parse_bytes};

const TERMS_MAX: usize = 64;
const DEPTH_MAX: usize = 16;
const BYTES_MAX: usize = 4096;
const TAG_BYTES_MAX: usize = 64;

/// An expression as a tree.
#[derive(Clone, Debug, PartialEq)]
enum Tree {
    Tag(String),
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
}

/// Reads one node and all below it, as the contract says it, one sentence after another.
fn naive(
    bytes: &[u8],
    at: &mut usize,
    (depth, terms): (usize, &mut usize),
    outer: u8,
) -> Result<Tree, ErrorCode> {
    let byte = |at: usize| bytes.get(at).copied().ok_or(ErrorCode::LENGTH);
    let need = |holds: bool, code| if holds { Ok(()) } else { Err(code) };
    let node = byte(*at)?;
    need((1..=4).contains(&node), ErrorCode::BAD_VALUE)?;
    *at += 1;
    let mut n = 1;
    if node != 4 {
        n = usize::from(byte(*at)?);
        *at += 1;
    }
    let mut text: &[u8] = &[];
    if node == 1 {
        text = bytes.get(*at..*at + n).ok_or(ErrorCode::LENGTH)?;
        *at += n;
    }
    need(n >= if node == 2 || node == 3 { 2 } else { 1 }, ErrorCode::BAD_VALUE)?;
    need(node == 1 || node != outer, ErrorCode::BAD_VALUE)?;
    need(n <= if node == 1 { TAG_BYTES_MAX } else { TERMS_MAX }, ErrorCode::LIMIT)?;
    need(depth <= DEPTH_MAX, ErrorCode::LIMIT)?;
    *terms += usize::from(node == 1);
    need(*terms <= TERMS_MAX, ErrorCode::LIMIT)?;
    if node == 1 {
        let text = String::from_utf8(text.to_vec()).map_err(|_| ErrorCode::NOT_UTF8)?;
        need(!text.chars().any(|c| c < ' ' || c == '\x7f'), ErrorCode::BAD_VALUE)?;
        return Ok(Tree::Tag(text));
    }
    let mut operands = Vec::new();
    for _ in 0..n {
        operands.push(naive(bytes, at, (depth + 1, terms), node)?);
    }
    Ok(match node {
        2 => Tree::And(operands),
        3 => Tree::Or(operands),
        _ => Tree::Not(Box::new(operands.remove(0))),
    })
}

fn naive_check(bytes: &[u8]) -> Result<(Tree, usize), ErrorCode> {
    let (mut at, mut terms) = (0, 0);
    let tree = naive(bytes, &mut at, (1, &mut terms), 0)?;
    if at == bytes.len() { Ok((tree, terms)) } else { Err(ErrorCode::LENGTH) }
}

impl Tree {
    fn encode(&self, out: &mut Vec<u8>) {
        let count = |list: &[Tree]| u8::try_from(list.len()).unwrap();
        match self {
            Self::Tag(text) => {
                out.extend([1, u8::try_from(text.len()).unwrap()]);
                out.extend(text.as_bytes());
            }
            Self::And(list) => out.extend([2, count(list)]),
            Self::Or(list) => out.extend([3, count(list)]),
            Self::Not(_) => out.push(4),
        }
        match self {
            Self::Tag(_) => {}
            Self::And(list) | Self::Or(list) => list.iter().for_each(|tree| tree.encode(out)),
            Self::Not(tree) => tree.encode(out),
        }
    }

    /// Without an operator directly in one of its own kind.
    fn normal(self) -> Self {
        let flat = |list: Vec<Self>, inner: fn(Self) -> Result<Vec<Self>, Self>| {
            let each = list.into_iter().map(|tree| inner(tree.normal()));
            each.flat_map(|operands| operands.unwrap_or_else(|tree| vec![tree])).collect()
        };
        match self {
            Self::Tag(text) => Self::Tag(text),
            Self::And(list) => Self::And(flat(list, |tree| match tree {
                Self::And(list) => Ok(list),
                other => Err(other),
            })),
            Self::Or(list) => Self::Or(flat(list, |tree| match tree {
                Self::Or(list) => Ok(list),
                other => Err(other),
            })),
            Self::Not(tree) => match tree.normal() {
                Self::Not(tree) => *tree,
                other => Self::Not(Box::new(other)),
            },
        }
    }

    fn terms(&self) -> usize {
        match self {
            Self::Tag(_) => 1,
            Self::And(list) | Self::Or(list) => list.iter().map(Self::terms).sum(),
            Self::Not(tree) => tree.terms(),
        }
    }

    /// Text with more blanks, quotes and parentheses than are needed, by the bits of `taste`.
    fn write(&self, taste: &mut impl Iterator<Item = u8>, out: &mut String) {
        let blank = |taste: u8| ["", "", " ", "\t \r\n"][usize::from(taste & 3)];
        let before = taste.next().unwrap();
        out.push_str(blank(before));
        match self {
            Self::Tag(text) => {
                let plain = text.chars().all(|c| c.is_alphanumeric() || c == ':');
                if plain && before & 4 == 0 {
                    out.push_str(text);
                } else {
                    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
                    out.push_str(&format!("\"{quoted}\""));
                }
            }
            Self::And(list) | Self::Or(list) => {
                let sign = if matches!(self, Self::And(_)) { "&" } else { "|" };
                for (at, tree) in list.iter().enumerate() {
                    out.push_str(if at > 0 { sign } else { "" });
                    tree.write_operand(taste, out);
                }
            }
            Self::Not(tree) => {
                out.push('!');
                tree.write_operand(taste, out);
            }
        }
        out.push_str(blank(before >> 3));
    }

    /// In parentheses, where they are needed or liked.
    fn write_operand(&self, taste: &mut impl Iterator<Item = u8>, out: &mut String) {
        let needed = matches!(self, Self::And(_) | Self::Or(_));
        if needed || taste.next().unwrap().is_multiple_of(4) {
            out.push_str(" (");
            self.write(taste, out);
            out.push(')');
        } else {
            self.write(taste, out);
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let tags = prop_oneof![
        "[a-d]{1,2}",
        "[a-c:]{1,6}",
        r#"[ -~äß]{1,8}"#.prop_map(|text| text.replace('\x7f', "x")),
        Just("\"\\\"".to_string()),
        Just("l".repeat(TAG_BYTES_MAX)),
    ];
    tags.prop_map(Tree::Tag).prop_recursive(9, 70, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..6).prop_map(Tree::And),
            vec(inner.clone(), 2..6).prop_map(Tree::Or),
            inner.prop_map(|tree| Tree::Not(Box::new(tree))),
        ]
    })
}

/// Bytes that are often nearly right.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(vec![1, 1, b'a']),
        2 => (1..66u8).prop_map(|n| [vec![1, n], vec![b'x'; usize::from(n)]].concat()),
        2 => select(vec![2u8, 3]).prop_flat_map(|node| (0..5u8).prop_map(move |n| vec![node, n])),
        1 => select(vec![2u8, 3]).prop_flat_map(|node| (60..70u8).prop_map(move |n| vec![node, n])),
        2 => Just(vec![4]),
        1 => vec(0..6u8, 0..4),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..70).prop_map(|pieces| pieces.concat())
}

/// What the naive checker says, [`Selector::check`] says.
fn agree(bytes: &[u8]) -> bool {
    let expected = naive_check(bytes);
    let found = Selector::check(bytes);
    match (&expected, found) {
        (Ok((tree, terms)), Ok(selector)) => {
            assert_eq!((selector.bytes(), selector.terms()), (bytes, *terms));
            assert_eq!(&rebuild(&mut selector.nodes()), tree);
            let text = selector.to_string();
            if bytes.len() <= BYTES_MAX {
                assert_eq!(parse(&text).as_deref(), Ok(bytes), "{text}");
            }
            true
        }
        (Err(code), Err(flaw)) => {
            assert_eq!(flaw.code, *code, "{flaw}");
            false
        }
        (expected, found) => panic!("{expected:?}, {found:?}: {bytes:x?}"),
    }
}

fn rebuild<'a>(nodes: &mut impl Iterator<Item = Node<'a>>) -> Tree {
    match nodes.next().unwrap() {
        Node::Tag(tag) => Tree::Tag(tag.to_string()),
        Node::And(n) => Tree::And((0..n).map(|_| rebuild(nodes)).collect()),
        Node::Or(n) => Tree::Or((0..n).map(|_| rebuild(nodes)).collect()),
        Node::Not => Tree::Not(Box::new(rebuild(nodes))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1024,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn noise_is_judged_as_the_naive_checker_does(bytes in noise()) {
        agree(&bytes);
    }

    /// Text in any taste gives the bytes of the normalised tree, or breaks a limit as that does.
    #[test]
    fn text_gives_the_bytes_of_its_tree(tree in trees(), taste in vec(any::<u8>(), 1..40)) {
        let mut text = String::new();
        tree.write(&mut taste.iter().copied().cycle(), &mut text);
        let (mut bytes, terms) = (Vec::new(), tree.terms());
        if terms > TERMS_MAX {
            let refused = parse(&text).unwrap_err();
            prop_assert_eq!(refused.code, ErrorCode::LIMIT, "{}", text);
            prop_assert!(refused.position > 0);
            return Ok(());
        }
        tree.normal().encode(&mut bytes);
        match parse(&text) {
            Ok(found) => {
                prop_assert_eq!(&found, &bytes, "{}", text);
                prop_assert!(agree(&bytes) && bytes.len() <= BYTES_MAX);
            }
            Err(refused) => {
                prop_assert_eq!(refused.code, ErrorCode::LIMIT, "{}: {}", text, refused);
                let deep = text.matches('(').count() > DEPTH_MAX;
                let broken = bytes.len() > BYTES_MAX || naive_check(&bytes).is_err();
                let holds = if refused.position == 0 { broken } else { deep };
                prop_assert!(holds, "{}: {}", text, refused);
            }
        }
    }

    /// Whatever is refused is refused at a place in the text, and at the start of a character.
    #[test]
    fn any_text_is_read_or_refused_at_a_place(
        text in vec(any::<u8>(), 0..60),
        signs in r#"[ab!&|()" \\é]{0,40}"#,
    ) {
        for text in [&text[..], signs.as_bytes()] {
            match parse_bytes(text) {
                Ok(bytes) => prop_assert!(agree(&bytes)),
                Err(refused) => {
                    prop_assert!(refused.position <= text.len());
                    let text = std::str::from_utf8(text);
                    let whole = text.is_ok_and(|text| text.is_char_boundary(refused.position));
                    prop_assert!(whole || refused.code == ErrorCode::NOT_UTF8);
                }
            }
        }
    }
}

proptest! {
    // Each case is some thousand selectors.
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every byte of a selector changed in each of its bits, and every prefix of it.
    #[test]
    fn damage_is_judged_as_the_naive_checker_does(tree in trees()) {
        let mut bytes = Vec::new();
        tree.normal().encode(&mut bytes);
        agree(&bytes);
        for at in 0..bytes.len() {
            agree(&bytes[..at]);
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                agree(&bytes);
                bytes[at] ^= 1 << bit;
            }
        }
    }
}

/// The generators reach what they are for: otherwise the tests above would prove nothing.
#[test]
fn noise_is_a_selector_often_enough() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut sample = || noise().new_tree(&mut runner).unwrap().current();
    assert!((0..2000).filter(|_| naive_check(&sample()).is_ok()).count() >= 20);
}

#[test]
fn the_largest_selectors_are_read_and_one_more_is_not() {
    let term = [1, 1, b'a'];
    let row = |n: u8| [&[3, n][..], &term.repeat(n.into())].concat();
    assert!(agree(&row(64)));
    assert!(!agree(&row(65)));
    let rows = |first: u8, second: u8| [&[2, 2][..], &row(first), &row(second)].concat();
    assert!(agree(&rows(32, 32)));
    assert!(!agree(&rows(32, 33)), "no row is too long, and there are 65 terms");
    // `not` of `and` of a term and a `not` of ..., as deep as it gets and one deeper.
    let deep = |levels: usize| [[4, 2, 2, 1, 1, b'a'].repeat(levels), vec![4, 1, 1, b'b']].concat();
    assert!(agree(&deep(7)));
    assert!(!agree(&deep(8)));
    let long =
        |n: u8| [&[3, n][..], &[&[1, 64][..], &[b'"'; 64]].concat().repeat(n.into())].concat();
    assert!(agree(&long(62)), "62 of 66 bytes");
    let text = Selector::check(&long(64)).unwrap().to_string();
    assert_eq!(parse(&text).unwrap_err().position, 0, "it has more bytes than a message may carry");
}

#[test]
fn errors_say_what_and_where() {
    let told = |text: &str| parse(text).unwrap_err().to_string();
    assert_eq!(told("a && b"), "a term must stand here, at byte 3");
    assert_eq!(told("a b"), "an operator, & or |, must stand between two terms, at byte 2");
    assert_eq!(told(&"b".repeat(65)), "this tag is longer than tag_bytes_max 64, at byte 0");
    let long = told(&" ".repeat(20_000));
    assert_eq!(long, "the text is longer than selector_text_bytes_max 16384, at byte 16384");
}

#[test]
fn checking_and_reading_nodes_allocates_nothing() {
    let bytes = parse("group:42 & (geo:sh | geo:bj) & !platform:ios").unwrap();
    let counted = allocation_counter::measure(|| {
        let selector = Selector::check(&bytes).unwrap();
        assert_eq!((selector.nodes().count(), selector.terms()), (7, 4));
        assert!(Selector::check(&bytes[1..]).is_err());
    });
    assert_eq!(counted.count_total, 0);
}

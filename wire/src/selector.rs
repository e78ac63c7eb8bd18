//! Selectors as they stand in a message (5.1): boolean expressions over tags, in prefix form.
//!
//! [`Selector::check`] goes once over the bytes with a stack of fixed size; whoever has a
//! [`Selector`] reads its nodes where they lie and need not check them again. The text form is in
//! `selector/text.rs`. Nothing here allocates but text; who has which tag is not known here.

mod text;

use crate::code::{ErrorCode, SelectorNode};
use crate::error::{Problem, What};
use crate::limits::{SELECTOR_DEPTH_MAX, SELECTOR_TERMS_MAX, TAG_BYTES_MAX};

pub use crate::expression::TextError;
pub use text::{parse, parse_bytes};

/// A selector that has passed every check, in the bytes of the message that carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Selector<'a> {
    bytes: &'a [u8],
    terms: u8,
}

/// One node of a selector: an operator comes before its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node<'a> {
    /// A term: true for a connection that has this tag.
    Tag(&'a str),
    /// That many operands follow, 2 to `selector_terms_max`, and all must be true.
    And(u8),
    /// That many operands follow, 2 to `selector_terms_max`, and one must be true.
    Or(u8),
    /// One operand follows and must not be true.
    Not,
}

/// Bytes that are no selector: the first check that fails, in the order of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The code to report.
    pub code: ErrorCode,
    /// Requirement that was broken.
    pub rule: &'static str,
    /// What is wrong.
    pub what: What,
}

impl std::fmt::Display for Flaw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} [{}]", self.what, self.rule)
    }
}

impl std::error::Error for Flaw {}

impl<'a> Selector<'a> {
    /// Checks that `bytes` are one selector and nothing after it (SEL-2 to SEL-4). How many it may
    /// have is for the section that carries it.
    ///
    /// # Errors
    /// `length`, `bad_value`, `limit` or `not_utf8`, as the first wrong node says.
    pub fn check(bytes: &'a [u8]) -> Result<Self, Flaw> {
        let mut checker = Checker { rest: bytes, open: [Open::default(); _], depth: 0, terms: 0 };
        loop {
            checker.node()?;
            if checker.depth == 0 {
                break;
            }
        }
        if !checker.rest.is_empty() {
            let problem = Problem::Must("be those of one node and its operands");
            return Err(flaw(
                (ErrorCode::LENGTH, "SEL-4"),
                "bytes of SELECTOR",
                bytes.len(),
                problem,
            ));
        }
        Ok(Self { bytes, terms: checker.terms })
    }

    /// The bytes it was made of.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The nodes in the order of their bytes.
    #[must_use]
    pub fn nodes(self) -> Nodes<'a> {
        Nodes { rest: self.bytes }
    }

    /// How many terms it has, 1 to `selector_terms_max`. The same tag twice is two.
    #[must_use]
    pub fn terms(self) -> usize {
        usize::from(self.terms)
    }
}

/// Whether this text may be a tag (TAG-1).
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let control = text.bytes().any(|byte| byte.is_ascii_control());
    (1..=TAG_BYTES_MAX).contains(&text.len()) && !control
}

/// Nodes of a [`Selector`].
#[derive(Clone, Debug)]
pub struct Nodes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    /// Every step succeeds until the end: these bytes have been checked.
    fn next(&mut self) -> Option<Node<'a>> {
        let (code, rest) = self.rest.split_first()?;
        if SelectorNode(*code) == SelectorNode::NOT {
            self.rest = rest;
            return Some(Node::Not);
        }
        let (count, rest) = rest.split_first()?;
        self.rest = rest;
        match SelectorNode(*code) {
            SelectorNode::AND => Some(Node::And(*count)),
            SelectorNode::OR => Some(Node::Or(*count)),
            _ => {
                let (text, rest) = rest.split_at_checked(usize::from(*count))?;
                self.rest = rest;
                std::str::from_utf8(text).ok().map(Node::Tag)
            }
        }
    }
}

impl std::iter::FusedIterator for Nodes<'_> {}

/// An operator some of whose operands are still to come.
#[derive(Clone, Copy, Default)]
struct Open {
    operator: SelectorNode,
    left: u8,
}

struct Checker<'a> {
    rest: &'a [u8],
    /// The operators around the next node; `depth` of them.
    open: [Open; SELECTOR_DEPTH_MAX],
    depth: usize,
    terms: u8,
}

#[cold]
fn flaw(
    (code, rule): (ErrorCode, &'static str),
    field: &'static str,
    value: usize,
    problem: Problem,
) -> Flaw {
    Flaw { code, rule, what: What { field, value: value as u64, problem } }
}

impl<'a> Checker<'a> {
    fn take(&mut self, part: &'static str, bytes: usize) -> Result<&'a [u8], Flaw> {
        let Some((taken, rest)) = self.rest.split_at_checked(bytes) else {
            let problem = Problem::Must("fit in the bytes of SELECTOR");
            return Err(flaw((ErrorCode::LENGTH, "SEL-2"), part, bytes, problem));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self, part: &'static str) -> Result<u8, Flaw> {
        self.take(part, 1).map(|taken| taken[0])
    }

    /// Checks the next node and opens or closes what it opens or closes.
    fn node(&mut self) -> Result<(), Flaw> {
        let node = SelectorNode(self.byte("a node, of bytes")?);
        match node {
            SelectorNode::TAG => self.tag(),
            SelectorNode::AND | SelectorNode::OR => {
                let operands = self.byte("operands of a node, of bytes")?;
                if operands < 2 {
                    let problem = Problem::Must("be 2 or more");
                    let field = "operands of a node";
                    return Err(flaw(
                        (ErrorCode::BAD_VALUE, "SEL-2"),
                        field,
                        operands.into(),
                        problem,
                    ));
                }
                self.operator(node, operands)
            }
            SelectorNode::NOT => self.operator(node, 1),
            SelectorNode(other) => {
                let value = other.into();
                Err(flaw(
                    (ErrorCode::BAD_VALUE, "SEL-2"),
                    "selector node",
                    value,
                    Problem::Unregistered,
                ))
            }
        }
    }

    fn operator(&mut self, operator: SelectorNode, left: u8) -> Result<(), Flaw> {
        let outer = self.depth.checked_sub(1).map(|at| self.open[at].operator);
        if outer == Some(operator) {
            let problem = Problem::Must("not be an operand of its own kind");
            return Err(flaw(
                (ErrorCode::BAD_VALUE, "SEL-3"),
                "selector node",
                operator.0.into(),
                problem,
            ));
        }
        if usize::from(left) > SELECTOR_TERMS_MAX {
            let problem = Problem::Above("selector_terms_max", SELECTOR_TERMS_MAX as u64);
            return Err(flaw(
                (ErrorCode::LIMIT, "SEL-2"),
                "operands of a node",
                left.into(),
                problem,
            ));
        }
        self.check_depth()?;
        self.open[self.depth] = Open { operator, left };
        self.depth += 1;
        Ok(())
    }

    fn check_depth(&self) -> Result<(), Flaw> {
        if self.depth < SELECTOR_DEPTH_MAX {
            return Ok(());
        }
        let problem = Problem::Above("selector_depth_max", SELECTOR_DEPTH_MAX as u64);
        Err(flaw((ErrorCode::LIMIT, "SEL-2"), "depth of a selector node", self.depth + 1, problem))
    }

    fn tag(&mut self) -> Result<(), Flaw> {
        let length = usize::from(self.byte("length of a tag, of bytes")?);
        let text = self.take("a tag of bytes", length)?;
        if length == 0 {
            let problem = Problem::Must("not be 0");
            return Err(flaw((ErrorCode::BAD_VALUE, "SEL-2"), "length of a tag", length, problem));
        }
        if length > TAG_BYTES_MAX {
            let problem = Problem::Above("tag_bytes_max", TAG_BYTES_MAX as u64);
            return Err(flaw((ErrorCode::LIMIT, "SEL-2"), "length of a tag", length, problem));
        }
        self.check_depth()?;
        if usize::from(self.terms) == SELECTOR_TERMS_MAX {
            let problem = Problem::Above("selector_terms_max", SELECTOR_TERMS_MAX as u64);
            let value = SELECTOR_TERMS_MAX + 1;
            return Err(flaw((ErrorCode::LIMIT, "SEL-2"), "selector terms", value, problem));
        }
        self.terms += 1;
        // All of it in one go, several bytes in a step; ASCII is UTF-8.
        let judge = |(controls, all): (bool, u8), byte: &u8| {
            (controls | byte.is_ascii_control(), all | byte)
        };
        let (controls, all) = text.iter().fold((false, 0), judge);
        if !all.is_ascii()
            && let Err(error) = std::str::from_utf8(text)
        {
            let at = error.valid_up_to();
            return Err(flaw((ErrorCode::NOT_UTF8, "CONV-4"), "tag", at, Problem::NotText));
        }
        if controls {
            let control = text.iter().find(|byte| byte.is_ascii_control()).unwrap_or(&0);
            let (error, value) = ((ErrorCode::BAD_VALUE, "TAG-1"), usize::from(*control));
            let problem = Problem::Must("not be a control character");
            return Err(flaw(error, "byte of a tag", value, problem));
        }
        self.close();
        Ok(())
    }

    /// An operand has ended, and with it each operator that has had all of its own.
    fn close(&mut self) {
        while let Some(at) = self.depth.checked_sub(1) {
            self.open[at].left -= 1;
            if self.open[at].left > 0 {
                break;
            }
            self.depth = at;
        }
    }
}

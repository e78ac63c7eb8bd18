//! What a selector means, read off the contract sentence by sentence: a tree, and a function for
//! each column of its tables.

use waybill_wire::selector::{Node, Selector};

/// A selector as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in Node")]
pub enum Tree {
    Tag(String),
    And(Vec<Tree>),
    Or(Vec<Tree>),
    Not(Box<Tree>),
}

impl Tree {
    /// The tree of a selector.
    #[must_use]
    pub fn of(selector: Selector<'_>) -> Self {
        Self::read(&mut selector.nodes())
    }

    fn read<'a>(nodes: &mut impl Iterator<Item = Node<'a>>) -> Self {
        match nodes.next().expect("as many operands as announced") {
            Node::Tag(text) => Self::Tag(text.into()),
            Node::And(n) => Self::And((0..n).map(|_| Self::read(nodes)).collect()),
            Node::Or(n) => Self::Or((0..n).map(|_| Self::read(nodes)).collect()),
            Node::Not => Self::Not(Box::new(Self::read(nodes))),
        }
    }

    /// \[SEL-5\]: whether it is true for a connection with exactly these tags.
    #[must_use]
    pub fn matches(&self, has: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Tag(text) => has(text),
            Self::And(operands) => operands.iter().all(|operand| operand.matches(has)),
            Self::Or(operands) => operands.iter().any(|operand| operand.matches(has)),
            Self::Not(operand) => !operand.matches(has),
        }
    }

    /// \[SEL-9\], column *may*: some connection can match, of a gateway that declared these tags.
    #[must_use]
    pub fn may(&self, declared: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Tag(text) => declared(text),
            Self::And(operands) => operands.iter().all(|operand| operand.may(declared)),
            Self::Or(operands) => operands.iter().any(|operand| operand.may(declared)),
            Self::Not(operand) => !operand.must(declared),
        }
    }

    /// \[SEL-9\], column *must*: every connection matches.
    #[must_use]
    pub fn must(&self, declared: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Tag(_) => false,
            Self::And(operands) => operands.iter().all(|operand| operand.must(declared)),
            Self::Or(operands) => operands.iter().any(|operand| operand.must(declared)),
            Self::Not(operand) => !operand.may(declared),
        }
    }
}

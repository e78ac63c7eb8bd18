//! Selectors as people write them: `group:42 & (geo:sh | geo:bj) & !platform:ios` (SEL-11 to
//! SEL-15).

use std::fmt::{self, Write as _};

use super::{Node, Nodes, Selector};
use crate::code::SelectorNode;
use crate::expression::{self, Bounds, Literal, TextError, above, is_word_byte};
use crate::limits::{
    SELECTOR_BYTES_MAX, SELECTOR_DEPTH_MAX, SELECTOR_TERMS_MAX, SELECTOR_TEXT_BYTES_MAX,
    TAG_BYTES_MAX,
};

const BOUNDS: Bounds = Bounds {
    bytes: ("selector_text_bytes_max", SELECTOR_TEXT_BYTES_MAX),
    terms: ("selector_terms_max", SELECTOR_TERMS_MAX),
    depth: ("selector_depth_max", SELECTOR_DEPTH_MAX),
};

/// The bytes of a selector, from its text. Two texts that differ in blanks, in quotes or in
/// parentheses that are not needed give the same bytes; [`Selector`] prints the plainest.
///
/// # Errors
/// The first place where the text can't be a selector, or the limit that it breaks.
///
/// # Examples
/// ```
/// let bytes = waybill_wire::selector::parse("vip & !ios").unwrap();
/// let selector = waybill_wire::selector::Selector::check(&bytes).unwrap();
/// assert_eq!(selector.to_string(), "vip & !ios");
/// assert_eq!(waybill_wire::selector::parse("vip & & ios").unwrap_err().position, 6);
/// ```
pub fn parse(text: &str) -> Result<Vec<u8>, TextError> {
    parse_bytes(text.as_bytes())
}

/// [`parse`] for text of which it is not known yet whether it is UTF-8.
///
/// # Errors
/// As [`parse`], and `not_utf8`.
pub fn parse_bytes(text: &[u8]) -> Result<Vec<u8>, TextError> {
    let limit = ("tag_bytes_max", TAG_BYTES_MAX);
    let nodes = expression::read(text, BOUNDS, |reader| {
        let start = reader.position();
        let tag = reader.literal()?;
        if tag.len() > limit.1 {
            return Err(above(start, limit, "this tag is longer than"));
        }
        Ok(tag)
    })?;
    let bytes = encode(&nodes);
    let limit = ("selector_bytes_max", SELECTOR_BYTES_MAX);
    if bytes.len() > limit.1 {
        return Err(above(0, limit, "the selector has more bytes than"));
    }
    let checked = Selector::check(&bytes);
    // What has been read has the right form and few enough terms; how deep it is shows only now.
    let limit = ("selector_depth_max", SELECTOR_DEPTH_MAX);
    checked.map_err(|_| above(0, limit, "the selector is nested deeper than"))?;
    Ok(bytes)
}

fn encode(nodes: &[expression::Node<Literal<'_>>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for node in nodes {
        match node {
            expression::Node::Term(tag) => {
                let length = u8::try_from(tag.len()).unwrap_or(u8::MAX);
                bytes.extend_from_slice(&[SelectorNode::TAG.0, length]);
                bytes.extend(tag.bytes());
            }
            expression::Node::And(operands) => {
                bytes.extend_from_slice(&[SelectorNode::AND.0, *operands]);
            }
            expression::Node::Or(operands) => {
                bytes.extend_from_slice(&[SelectorNode::OR.0, *operands]);
            }
            expression::Node::Not => bytes.push(SelectorNode::NOT.0),
        }
    }
    bytes
}

/// The operator that an expression is an operand of, if that makes a difference to its text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    And,
    Not,
}

/// The text that gives the same bytes: with as few blanks, quotes and parentheses as there can be,
/// but one blank on each side of `&` and `|`.
impl fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_node(&mut self.nodes(), Around::Nothing, f)
    }
}

impl fmt::Debug for Selector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Selector({self})")
    }
}

/// Writes the next node with its operands. It calls itself as deep as the selector is nested, which
/// is bounded.
fn write_node(nodes: &mut Nodes<'_>, around: Around, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match nodes.next() {
        None => Ok(()),
        Some(Node::Tag(tag)) => write_tag(tag, f),
        Some(Node::Not) => {
            f.write_char('!')?;
            write_node(nodes, Around::Not, f)
        }
        Some(Node::And(operands)) => {
            let closed = around == Around::Not;
            write_row(nodes, operands, " & ", (closed, Around::And), f)
        }
        Some(Node::Or(operands)) => {
            let closed = around != Around::Nothing;
            write_row(nodes, operands, " | ", (closed, Around::Nothing), f)
        }
    }
}

fn write_row(
    nodes: &mut Nodes<'_>,
    operands: u8,
    sign: &str,
    (closed, around): (bool, Around),
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if closed {
        f.write_char('(')?;
    }
    for operand in 0..operands {
        if operand > 0 {
            f.write_str(sign)?;
        }
        write_node(nodes, around, f)?;
    }
    if closed {
        f.write_char(')')?;
    }
    Ok(())
}

fn write_tag(tag: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if tag.bytes().all(is_word_byte) {
        return f.write_str(tag);
    }
    f.write_char('"')?;
    for character in tag.chars() {
        if matches!(character, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(character)?;
    }
    f.write_char('"')
}

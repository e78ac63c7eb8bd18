//! Filter expressions of consumers (5.2): text over fields of UPLINK, PRESENCE and OFFLINE.
//!
//! FILTER carries the text; its receiver reads it once, here. What an expression is true for is
//! judged where frames are routed.

use std::ops::RangeInclusive;

use crate::code::{ContentType, Event, Kind, PRIVATE_USE, Priority};
use crate::expression::{self, Bounds, Reader, above};
use crate::limits::{EXPRESSION_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_TERMS_MAX, LABEL_BYTES_MAX};

pub use crate::expression::TextError;

/// One node of a filter expression: an operator comes before its operands.
pub type Node = expression::Node<Term>;

/// A test of one field. Of a field that the frame does not have it is false (FLT-2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Term {
    /// It is a frame of this kind: UPLINK, PRESENCE or OFFLINE.
    Kind(Kind),
    /// UPLINK: its SENDER is in the range; PRESENCE: its user; OFFLINE: one of its list.
    Uid(RangeInclusive<u64>),
    /// UPLINK, OFFLINE: it has this label.
    Label(Box<str>),
    /// UPLINK, OFFLINE: it has a label that begins so; any label, if this is empty.
    LabelBegins(Box<str>),
    /// UPLINK, OFFLINE: it has this priority.
    Priority(Priority),
    /// UPLINK, OFFLINE: it has CONTENT with this type.
    Content(ContentType),
    /// PRESENCE: it is this event.
    Event(Event),
    /// PRESENCE: its device class is in the range.
    DeviceClass(RangeInclusive<u8>),
}

/// An expression that has been read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Expression {
    nodes: Box<[Node]>,
    terms: u8,
}

impl Expression {
    /// Its nodes in prefix order: at most `filter_terms_max` terms, and operators that have all
    /// their operands, none of them an operand of its own kind.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// How many terms it has, 1 to `filter_terms_max`. What it costs to judge a frame by it.
    #[must_use]
    pub fn terms(&self) -> usize {
        usize::from(self.terms)
    }
}

const BOUNDS: Bounds = Bounds {
    bytes: ("expression_bytes_max", EXPRESSION_BYTES_MAX),
    terms: ("filter_terms_max", FILTER_TERMS_MAX),
    depth: ("filter_depth_max", FILTER_DEPTH_MAX),
};

/// Reads a filter expression (FLT-1 to FLT-3).
///
/// # Errors
/// The first place where the text can't be an expression, or the limit that it breaks.
///
/// # Examples
/// ```
/// let expression = waybill_wire::filter::parse("kind=uplink & label=order.*").unwrap();
/// assert_eq!(expression.terms(), 2);
/// assert_eq!(waybill_wire::filter::parse("kind=publish").unwrap_err().position, 5);
/// ```
pub fn parse(text: &str) -> Result<Expression, TextError> {
    parse_bytes(text.as_bytes())
}

/// [`parse`] for text of which it is not known yet whether it is UTF-8.
///
/// # Errors
/// As [`parse`], and `not_utf8`.
pub fn parse_bytes(text: &[u8]) -> Result<Expression, TextError> {
    let nodes = expression::read(text, BOUNDS, term)?;
    let terms = nodes.iter().filter(|node| matches!(node, Node::Term(_))).count();
    let terms = u8::try_from(terms).expect("no more than filter_terms_max were read");
    Ok(Expression { nodes: nodes.into(), terms })
}

fn term(reader: &mut Reader<'_>) -> Result<Term, TextError> {
    let start = reader.position();
    let field = reader.take_while(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let read: fn(&str) -> Option<Term> = match field {
        "kind" => kind,
        "uid" => |word| range(word).map(Term::Uid),
        "label" => |_| None,
        "priority" => |word| Priority::from_name(word).map(Term::Priority),
        "content" => content,
        "event" => |word| Event::from_name(word).map(Term::Event),
        "device_class" => |word| range(word).map(Term::DeviceClass),
        "" => return Err(reader.wrong("a test of a field must stand here")),
        _ => return Err(reader.wrong_at(start, "there is no such field")),
    };
    reader.blanks();
    if !reader.take(b'=') {
        return Err(reader.wrong("= must stand between a field and its value"));
    }
    reader.blanks();
    if field == "label" {
        return label(reader);
    }
    let start = reader.position();
    let word = reader.word();
    let value = read(word).filter(|_| reader.peek() != Some(b'*'));
    value.ok_or_else(|| reader.wrong_at(start, "this is no value of its field"))
}

fn label(reader: &mut Reader<'_>) -> Result<Term, TextError> {
    if reader.take(b'*') {
        return Ok(Term::LabelBegins("".into()));
    }
    let (start, limit) = (reader.position(), ("label_bytes_max", LABEL_BYTES_MAX));
    let literal = reader.literal()?;
    if literal.len() > limit.1 {
        return Err(above(start, limit, "this label is longer than"));
    }
    let label = literal.text().into();
    Ok(if reader.take(b'*') { Term::LabelBegins(label) } else { Term::Label(label) })
}

fn kind(word: &str) -> Option<Term> {
    let kind = match word {
        "uplink" => Kind::UPLINK,
        "presence" => Kind::PRESENCE,
        "offline" => Kind::OFFLINE,
        _ => return None,
    };
    Some(Term::Kind(kind))
}

/// A name, or a number of those for private use.
fn content(word: &str) -> Option<Term> {
    let private = || number(word).filter(|number| *number >= PRIVATE_USE).map(ContentType);
    ContentType::from_name(word).or_else(private).map(Term::Content)
}

/// A number, or two with `..` between them, the first not above the second.
fn range<T: std::str::FromStr + Copy + PartialOrd>(word: &str) -> Option<RangeInclusive<T>> {
    let (first, last) = word.split_once("..").unwrap_or((word, word));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

/// `0`, or digits that do not begin with one.
fn number<T: std::str::FromStr>(word: &str) -> Option<T> {
    let digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let plain = digits && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

//! Any bytes as a selector: every byte chooses what comes next, and at their end a tag does.

use std::fmt::Write as _;

use waybill_wire::selector::parse;

/// How deep operators lie in each other: with a `not` for each less than a selector may.
const DEPTH: usize = 7;

/// A selector over some of these tags, as it lies in a frame.
///
/// # Panics
///
/// If it is none: each tag is to be a word of the text form.
#[must_use]
pub fn selector(data: &[u8], tags: &[&str]) -> Vec<u8> {
    let (mut text, mut rest, mut terms) = (String::new(), data.iter().copied(), 1);
    expression(&mut text, &mut rest, tags, &mut terms, DEPTH);
    parse(&text).expect("it is built so")
}

/// `terms` is how many there are, those included that are still to come.
fn expression(
    text: &mut String,
    rest: &mut impl Iterator<Item = u8>,
    tags: &[&str],
    terms: &mut usize,
    depth: usize,
) {
    let byte = rest.next().unwrap_or(0);
    if byte & 1 != 0 {
        text.push('!');
    }
    let choice = usize::from(byte / 2);
    let operands = choice / 8 % 4 + 2;
    let (and, or) = (choice % 8 >= 6, choice % 8 >= 4);
    if !(or && depth > 0 && *terms + operands <= waybill_wire::limits::SELECTOR_TERMS_MAX) {
        write!(text, "{}", tags[choice / 8 % tags.len()]).expect("a string takes all");
        return;
    }
    *terms += operands - 1;
    text.push('(');
    for operand in 0..operands {
        if operand > 0 {
            text.push_str(if and { " & " } else { " | " });
        }
        expression(text, rest, tags, terms, depth - 1);
    }
    text.push(')');
}

//! The optional sections of a message header: their values, and reading them in flag order.
//!
//! Each section is checked in the order of FRAME-9 step 6: fits, reserved, values, limits, text,
//! padding. Items of LABELS and EXTENSIONS, and nodes of SELECTOR, are checked one after another.

use super::{FIXED_BYTES, Message};
use crate::code::{ContentType, Encoding, ErrorCode, Kind, PRIVATE_USE, flags};
use crate::error::{Malformed, Problem};
use crate::limits::{
    EXCEPT_MAX, EXTENSION_BYTES_MAX, EXTENSIONS_MAX, LABEL_BYTES_MAX, LABELS_MAX,
    MESSAGE_BYTES_MAX, SELECTOR_BYTES_MAX,
};
use crate::list::{Item, List};
use crate::read::{Reader, padding_bytes, u16_at, u32_at, u64_at};
use crate::selector::{Flaw, Selector};
use crate::targets::UidRun;

/// First of the extension types that are refused where they are not known ([MSG-8]).
const REFUSED_EXTENSIONS: u16 = 0x8000;

/// SENDER: the user and connection a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sender {
    /// The user.
    pub uid: u64,
    /// One connection of that user.
    pub connection: u64,
}

/// PART: one message of several that share a long UID list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Part {
    /// Sequence of the first part.
    pub list: u64,
    /// Which part this is, from 0.
    pub index: u32,
    /// How many there are.
    pub parts: u32,
}

/// CONTENT: what the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Content {
    /// Its type.
    pub content_type: ContentType,
    /// Its compression.
    pub encoding: Encoding,
}

/// HISTORY: place of a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct History {
    /// The channel.
    pub channel: u64,
    /// The place in it; 0 on PUBLISH.
    pub cursor: u64,
}

/// One item of EXTENSIONS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extension<'a> {
    /// Its `type`. From 0x8000 on it is refused where it is not known, and none is known yet.
    pub extension_type: u16,
    /// Its bytes.
    pub data: &'a [u8],
}

/// Labels of a message.
pub type Labels<'a> = List<'a, &'a str>;

/// Extensions of a message.
pub type Extensions<'a> = List<'a, Extension<'a>>;

impl<'a> Item<'a> for &'a str {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = bytes.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        Some((std::str::from_utf8(text).ok()?, rest))
    }
}

impl<'a> Item<'a> for Extension<'a> {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let length = usize::from(u16_at(head, 2));
        let (data, rest) = rest.split_at_checked(length)?;
        let (_, rest) = rest.split_at_checked(padding_bytes(length))?;
        Some((Self { extension_type: u16_at(head, 0), data }, rest))
    }
}

/// Bytes of FRAGMENTED.
pub(crate) const FRAGMENTED_BYTES: usize = 8;

/// Where FRAGMENTED lies, or would lie, in a header with these flags: all before it is of fixed
/// length.
pub(crate) fn bytes_before_fragmented(set: u16) -> usize {
    use flags::message::*;
    let sections =
        [(ORIGIN, 8), (TRACE, 16), (CONFLATE, 8), (SENDER, 16), (PART, 16), (CONTENT, 8)];
    let there = sections.iter().filter(|(flag, _)| set & flag != 0);
    FIXED_BYTES + there.map(|(_, bytes)| bytes).sum::<usize>()
}

/// Reads the sections that `set` announces into `message`, in place: a message is large, and most
/// have no section at all.
pub(super) fn read<'a>(
    message: &mut Message<'a>,
    reader: &mut Reader<'a>,
    set: u16,
) -> Result<(), Malformed> {
    let has = |flag| set & flag != 0;
    let header = reader.header();
    if has(flags::message::ORIGIN) {
        message.origin = Some(u64::from_le_bytes(*reader.take_array("ORIGIN")?));
    }
    let start = reader.position();
    if has(flags::message::TRACE) {
        message.trace = Some(reader.take_array("TRACE")?);
    }
    if has(flags::message::CONFLATE) {
        message.conflate = Some(u64::from_le_bytes(*reader.take_array("CONFLATE")?));
    }
    if has(flags::message::SENDER) {
        let bytes = reader.take_array::<16>("SENDER")?;
        message.sender = Some(Sender { uid: u64_at(bytes, 0), connection: u64_at(bytes, 8) });
    }
    if has(flags::message::PART) {
        message.part = Some(part(reader)?);
    }
    if has(flags::message::CONTENT) {
        message.content = Some(content(reader)?);
    }
    if has(flags::message::FRAGMENTED) {
        message.fragmented = Some(fragmented(reader)?);
    }
    if has(flags::message::HISTORY) {
        message.history = Some(history(reader)?);
    }
    if has(flags::message::LABELS) {
        message.labels = labels(reader)?;
    }
    if has(flags::message::SELECTOR) {
        message.selector = Some(selector(reader)?);
    }
    message.raw.before_except = &header[start..reader.position()];
    if has(flags::message::EXCEPT) {
        message.except = except(reader)?;
    }
    let start = reader.position();
    if has(flags::message::EXTENSIONS) {
        message.extensions = extensions(reader)?;
    }
    message.raw.after_except = &header[start..reader.position()];
    Ok(())
}

fn part(reader: &mut Reader<'_>) -> Result<Part, Malformed> {
    let bytes = reader.take_array::<16>("PART")?;
    let part = Part { list: u64_at(bytes, 0), index: u32_at(bytes, 8), parts: u32_at(bytes, 12) };
    reader.not_zero("MSG-9", "parts", part.parts)?;
    let index = ("index", u64::from(part.index));
    reader.must(part.index < part.parts, "MSG-9", index, "be less than parts")?;
    Ok(part)
}

fn content(reader: &mut Reader<'_>) -> Result<Content, Malformed> {
    let bytes = reader.take_array::<8>("CONTENT")?;
    reader.reserved(u32_at(bytes, 4))?;
    let content_type = ContentType(u16_at(bytes, 0));
    let encoding = Encoding(u16_at(bytes, 2));
    let known = content_type.0 >= PRIVATE_USE || content_type.is_registered();
    reader.registered(known, "content_type", content_type.0)?;
    let known = encoding.0 >= PRIVATE_USE || encoding.is_registered();
    reader.registered(known, "encoding", encoding.0)?;
    Ok(Content { content_type, encoding })
}

fn fragmented(reader: &mut Reader<'_>) -> Result<u32, Malformed> {
    let bytes = reader.take_array::<8>("FRAGMENTED")?;
    reader.reserved(u32_at(bytes, 4))?;
    let total = u32_at(bytes, 0);
    let value = ("total", u64::from(total));
    let longer = total as usize > reader.payload_bytes;
    reader.must(longer, "MSG-11", value, "be greater than payload_len")?;
    reader.at_most("MSG-11", value, ("message_bytes_max", MESSAGE_BYTES_MAX))?;
    Ok(total)
}

fn history(reader: &mut Reader<'_>) -> Result<History, Malformed> {
    let bytes = reader.take_array::<16>("HISTORY")?;
    let history = History { channel: u64_at(bytes, 0), cursor: u64_at(bytes, 8) };
    let holds = reader.kind != Kind::PUBLISH || history.cursor == 0;
    reader.must(holds, "MSG-16", ("cursor", history.cursor), "be 0 on PUBLISH")?;
    Ok(history)
}

fn labels<'a>(reader: &mut Reader<'a>) -> Result<Labels<'a>, Malformed> {
    let head = reader.take_array::<8>("LABELS")?;
    let (bytes, count) = (usize::from(u16_at(head, 0)), usize::from(u16_at(head, 2)));
    let (items, padding) = reader.take_padded("LABELS", bytes)?;
    reader.reserved(u32_at(head, 4))?;
    reader.not_zero("MSG-5", "count of labels", count as u64)?;
    let value = ("count of labels", count as u64);
    reader.at_most("MSG-5", value, ("labels_max", LABELS_MAX))?;
    let mut rest = items;
    for _ in 0..count {
        rest = label(reader, rest)?;
    }
    if !rest.is_empty() {
        let problem = Problem::Must("be those of its items");
        let error = (ErrorCode::LENGTH, "MSG-5");
        return Err(reader.malformed(error, "bytes of LABELS", bytes as u64, problem));
    }
    reader.padding(padding)?;
    Ok(List::wire(items, count))
}

/// Checks the first label of `items`; what follows it.
fn label<'a>(reader: &Reader<'a>, items: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let short = |needs: usize| {
        let problem = Problem::Must("fit in the bytes of LABELS");
        reader.malformed((ErrorCode::LENGTH, "MSG-5"), "label of bytes", needs as u64, problem)
    };
    let (length, rest) = items.split_first().ok_or_else(|| short(1))?;
    let length = usize::from(*length);
    let (text, rest) = rest.split_at_checked(length).ok_or_else(|| short(length))?;
    reader.not_zero("MSG-5", "length of a label", length as u64)?;
    let value = ("length of a label", length as u64);
    reader.at_most("MSG-5", value, ("label_bytes_max", LABEL_BYTES_MAX))?;
    reader.text("label", text)?;
    Ok(rest)
}

fn selector<'a>(reader: &mut Reader<'a>) -> Result<Selector<'a>, Malformed> {
    let head = reader.take_array::<8>("SELECTOR")?;
    let bytes = u16_at(head, 0);
    let (selector, padding) = reader.take_padded("SELECTOR", usize::from(bytes))?;
    reader.reserved(u16_at(head, 2))?;
    reader.reserved(u32_at(head, 4))?;
    reader.not_zero("MSG-6", "bytes of SELECTOR", bytes)?;
    let value = ("bytes of SELECTOR", u64::from(bytes));
    reader.at_most("MSG-6", value, ("selector_bytes_max", SELECTOR_BYTES_MAX))?;
    let selector = Selector::check(selector).map_err(|Flaw { code, rule, what }| Malformed {
        code,
        rule,
        kind: reader.kind,
        what,
    })?;
    reader.padding(padding)?;
    Ok(selector)
}

fn except<'a>(reader: &mut Reader<'a>) -> Result<UidRun<'a>, Malformed> {
    let head = reader.take_array::<8>("EXCEPT")?;
    let count = u32_at(head, 0);
    let uids = reader.take_uids("EXCEPT", count)?;
    reader.reserved(u32_at(head, 4))?;
    reader.not_zero("MSG-7", "count of EXCEPT", count)?;
    let value = ("count of EXCEPT", u64::from(count));
    reader.at_most("MSG-7", value, ("except_max", EXCEPT_MAX))?;
    Ok(uids)
}

fn extensions<'a>(reader: &mut Reader<'a>) -> Result<Extensions<'a>, Malformed> {
    let head = reader.take_array::<8>("EXTENSIONS")?;
    let (bytes, count) = (u16_at(head, 0), u16_at(head, 2));
    let items = reader.take("EXTENSIONS", u64::from(bytes))?;
    let length = |words| {
        let error = (ErrorCode::LENGTH, "MSG-8");
        reader.malformed(error, "bytes of EXTENSIONS", u64::from(bytes), Problem::Must(words))
    };
    if !bytes.is_multiple_of(8) {
        return Err(length("be a multiple of 8"));
    }
    reader.reserved(u32_at(head, 4))?;
    reader.not_zero("MSG-8", "count of EXTENSIONS", count)?;
    let value = ("bytes of EXTENSIONS", u64::from(bytes));
    reader.at_most("MSG-8", value, ("extension_bytes_max", EXTENSION_BYTES_MAX))?;
    let value = ("count of EXTENSIONS", u64::from(count));
    reader.at_most("MSG-8", value, ("extensions_max", EXTENSIONS_MAX))?;
    let mut rest = items;
    for _ in 0..count {
        rest = extension(reader, rest)?;
    }
    if !rest.is_empty() {
        return Err(length("be those of its items"));
    }
    Ok(List::wire(items, usize::from(count)))
}

/// Checks the first extension of `items`; what follows it.
fn extension<'a>(reader: &Reader<'a>, items: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let short = |needs: usize| {
        let problem = Problem::Must("fit in the bytes of EXTENSIONS");
        reader.malformed((ErrorCode::LENGTH, "MSG-8"), "extension of bytes", needs as u64, problem)
    };
    let (head, rest) = items.split_first_chunk::<8>().ok_or_else(|| short(8))?;
    let (kind, length) = (u16_at(head, 0), usize::from(u16_at(head, 2)));
    let padded = length + padding_bytes(length);
    let (data, rest) = rest.split_at_checked(padded).ok_or_else(|| short(padded))?;
    reader.reserved(u32_at(head, 4))?;
    if kind >= REFUSED_EXTENSIONS {
        let error = (ErrorCode::UNKNOWN_EXTENSION, "MSG-8");
        let value = u64::from(kind);
        return Err(reader.malformed(error, "extension type", value, Problem::Unregistered));
    }
    reader.padding(&data[length..])?;
    Ok(rest)
}

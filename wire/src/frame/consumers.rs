//! Consumers, tags and presence (7.4). OFFLINE is a message and is laid out with those.

use crate::code::{Event, Kind, Op};
use crate::error::{Malformed, Unencodable};
use crate::limits::{EXPRESSION_BYTES_MAX, GROUP_BYTES_MAX, TAG_BYTES_MAX};
use crate::limits::{TAG_CHANGES_MAX, TARGETS_MAX};
use crate::list::{Item, List};
use crate::read::{Reader, u16_at, u32_at, u64_at};
use crate::targets::Uids;
use crate::write::Writer;

/// FILTER: a consumer wants, or no longer wants, what an expression matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Filter<'a> {
    /// Add or remove.
    pub op: Op,
    /// The consumer's number for this filter.
    pub filter: u32,
    /// Tenant.
    pub namespace: u32,
    /// The expression, not looked into: see [`crate::filter`] (5.2).
    pub expression: &'a str,
}

impl<'a> Filter<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<24>()?;
        reader.flags(0)?;
        reader.reserved(fixed[11])?;
        reader.reserved(u16_at(fixed, 14))?;
        let op = Op(fixed[10]);
        reader.registered(op.is_registered(), "op", op.0)?;
        let length = u16_at(fixed, 12);
        let value = ("expression_len", u64::from(length));
        reader.at_most("FRAME-9", value, ("expression_bytes_max", EXPRESSION_BYTES_MAX))?;
        let expression = read_text(&mut reader, "expression", usize::from(length))?;
        reader.finish()?;
        Ok(Self { op, filter: u32_at(fixed, 16), namespace: u32_at(fixed, 20), expression })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// An expression that is too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let mut writer = Writer::new(Kind::FILTER, 0, out);
        let length = self.expression.len();
        if writer.within("expression_len", length, ("expression_bytes_max", EXPRESSION_BYTES_MAX)) {
            writer.u8(self.op.0).u8(0).count16(length).u16(0);
            writer.u32(self.filter).u32(self.namespace).bytes(self.expression.as_bytes()).pad();
        }
        writer.finish_header()
    }
}

/// Text that is the last part but padding.
fn read_text<'a>(
    reader: &mut Reader<'a>,
    part: &'static str,
    bytes: usize,
) -> Result<&'a str, Malformed> {
    let (text, padding) = reader.take_padded(part, bytes)?;
    let text = reader.text(part, text)?;
    reader.padding(padding)?;
    Ok(text)
}

/// GROUP: a consumer joins (op add) or leaves (op remove) a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Group<'a> {
    /// Add to join, remove to leave.
    pub op: Op,
    /// Tenant.
    pub namespace: u32,
    /// Name of the group, not empty.
    pub name: &'a str,
}

impl<'a> Group<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<16>()?;
        reader.flags(0)?;
        let (op, length) = (Op(fixed[10]), fixed[11]);
        reader.registered(op.is_registered(), "op", op.0)?;
        reader.not_zero("FRAME-9", "name_len", length)?;
        let value = ("name_len", u64::from(length));
        reader.at_most("FRAME-9", value, ("group_bytes_max", GROUP_BYTES_MAX))?;
        let name = read_text(&mut reader, "name", usize::from(length))?;
        reader.finish()?;
        Ok(Self { op, namespace: u32_at(fixed, 12), name })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// A name that is empty or too long.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let mut writer = Writer::new(Kind::GROUP, 0, out);
        if writer.within("name_len", self.name.len(), ("group_bytes_max", GROUP_BYTES_MAX)) {
            writer.u8(self.op.0).count8(self.name.len()).u32(self.namespace);
            writer.bytes(self.name.as_bytes()).pad();
        }
        writer.finish_header()
    }
}

/// One change of TAG: a tag to give or to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TagChange<'a> {
    /// Add or remove.
    pub op: Op,
    /// The tag (TAG-1).
    pub tag: &'a str,
}

/// Changes of a TAG, in the order in which they are made.
pub type TagChanges<'a> = List<'a, TagChange<'a>>;

impl<'a> Item<'a> for TagChange<'a> {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let ([op, length], rest) = bytes.split_first_chunk::<2>()?;
        let (tag, rest) = rest.split_at_checked(usize::from(*length))?;
        Some((Self { op: Op(*op), tag: std::str::from_utf8(tag).ok()? }, rest))
    }
}

/// TAG: a backend gives tags to users, or takes them from them (TAG-12). A broker passes it on to
/// gateways (TAG-13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Tag<'a> {
    /// Tenant.
    pub namespace: u32,
    /// The producer's number for this command, not 0.
    pub sequence: u64,
    /// Producer instance, from a broker; 0 from a producer.
    pub origin: u64,
    /// The users, at least one.
    pub uids: Uids<'a>,
    /// The changes, at least one: `(&[TagChange { op: Op::ADD, tag: "vip" }]).into()`.
    pub changes: TagChanges<'a>,
}

impl<'a> Tag<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<40>()?;
        reader.flags(0)?;
        reader.reserved(u32_at(fixed, 36))?;
        let (changes, sequence, count) = (u16_at(fixed, 10), u64_at(fixed, 16), u32_at(fixed, 32));
        reader.not_zero("FRAME-9", "changes", changes)?;
        reader.not_zero("FRAME-9", "sequence", sequence)?;
        reader.not_zero("FRAME-9", "count", count)?;
        let value = ("changes", u64::from(changes));
        reader.at_most("FRAME-9", value, ("tag_changes_max", TAG_CHANGES_MAX))?;
        reader.at_most("FRAME-9", ("count", u64::from(count)), ("targets_max", TARGETS_MAX))?;
        let uids = Uids::Run(reader.take_uids("the UID list", count)?);
        let start = reader.position();
        for _ in 0..changes {
            read_change(&mut reader)?;
        }
        let bytes = &reader.header()[start..reader.position()];
        reader.take_padding()?;
        reader.finish()?;
        let changes = List::wire(bytes, usize::from(changes));
        let (namespace, origin) = (u32_at(fixed, 12), u64_at(fixed, 24));
        Ok(Self { namespace, sequence, origin, uids, changes })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// No UIDs or too many; no changes or too many; text that is no tag; sequence 0.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let mut writer = Writer::new(Kind::TAG, 0, out);
        let count = self.changes.len();
        if writer.within("changes", count, ("tag_changes_max", TAG_CHANGES_MAX))
            && writer.within("count", self.uids.len(), ("targets_max", TARGETS_MAX))
        {
            writer.count16(count).u32(self.namespace).u64(self.sequence).u64(self.origin);
            writer.count16(self.uids.len()).u16(0).u32(0).uids(self.uids);
            for TagChange { op, tag } in self.changes {
                if !writer.within("length of a tag", tag.len(), ("tag_bytes_max", TAG_BYTES_MAX)) {
                    break;
                }
                writer.u8(op.0).count8(tag.len()).bytes(tag.as_bytes());
            }
            writer.pad();
        }
        writer.finish_header()
    }
}

/// Checks the next change.
fn read_change(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    let [op, length] = *reader.take_array::<2>("a change")?;
    let tag = reader.take("a tag", length.into())?;
    reader.registered(Op(op).is_registered(), "op", op)?;
    reader.not_zero("FRAME-9", "length of a tag", length)?;
    let value = ("length of a tag", u64::from(length));
    reader.at_most("FRAME-9", value, ("tag_bytes_max", TAG_BYTES_MAX))?;
    reader.tag(tag).map(drop)
}

/// PRESENCE: a user came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Presence {
    /// What happened.
    pub event: Event,
    /// Device class.
    pub device_class: u8,
    /// Tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Login number.
    pub login: u64,
    /// Incarnation of the gateway.
    pub gateway: u64,
}

impl Presence {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<40>()?;
        reader.flags(0)?;
        let event = Event(fixed[10]);
        reader.registered(event.is_registered(), "event", event.0)?;
        reader.finish()?;
        Ok(Self {
            event,
            device_class: fixed[11],
            namespace: u32_at(fixed, 12),
            uid: u64_at(fixed, 16),
            login: u64_at(fixed, 24),
            gateway: u64_at(fixed, 32),
        })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::PRESENCE, 0, out);
        writer.u8(self.event.0).u8(self.device_class).u32(self.namespace);
        writer.u64(self.uid).u64(self.login).u64(self.gateway);
        writer.finish_fixed();
    }
}

/// PRESENCE_QUERY: which of these users are online?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PresenceQuery<'a> {
    /// Tenant.
    pub namespace: u32,
    /// The sender's number for this query.
    pub sequence: u64,
    /// The users, at least one.
    pub uids: Uids<'a>,
}

impl<'a> PresenceQuery<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<24>()?;
        reader.flags(0)?;
        let count = u16_at(fixed, 10);
        reader.not_zero("FRAME-9", "count", count)?;
        reader.at_most("FRAME-9", ("count", u64::from(count)), ("targets_max", TARGETS_MAX))?;
        let uids = Uids::Run(reader.take_uids("the UID list", count)?);
        reader.finish()?;
        Ok(Self { namespace: u32_at(fixed, 12), sequence: u64_at(fixed, 16), uids })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// No UIDs or too many.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let mut writer = Writer::new(Kind::PRESENCE_QUERY, 0, out);
        if writer.within("count", self.uids.len(), ("targets_max", TARGETS_MAX)) {
            writer.count16(self.uids.len()).u32(self.namespace).u64(self.sequence);
            writer.uids(self.uids);
        }
        writer.finish_header()
    }
}

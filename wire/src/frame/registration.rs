//! Registration: who is at which gateway (7.3).

use crate::code::{Kind, Op, flags};
use crate::error::{Malformed, Unencodable};
use crate::limits::{RECORDS_MAX, TAG_BYTES_MAX, TAG_RECORDS_MAX};
use crate::list::{Item, List};
use crate::read::{Reader, padding_bytes, u16_at, u32_at, u64_at};
use crate::write::Writer;

use super::session::word_frame;

/// Bytes of one registration record.
const RECORD_BYTES: usize = 24;

/// One login of one user, added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Record {
    /// The user.
    pub uid: u64,
    /// Login number; 0 for none.
    pub login: u64,
    /// Tenant.
    pub namespace: u32,
    /// Add or remove.
    pub op: Op,
    /// Device class.
    pub device_class: u8,
}

/// Registration records of a DELTA or SNAPSHOT.
pub type Records<'a> = List<'a, Record>;

impl<'a> Item<'a> for Record {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (record, rest) = bytes.split_first_chunk::<RECORD_BYTES>()?;
        Some((Self::parse(record), rest))
    }
}

impl Record {
    fn parse(bytes: &[u8; RECORD_BYTES]) -> Self {
        Self {
            uid: u64_at(bytes, 0),
            login: u64_at(bytes, 8),
            namespace: u32_at(bytes, 16),
            op: Op(bytes[20]),
            device_class: bytes[21],
        }
    }
}

fn read_records<'a>(reader: &mut Reader<'a>, count: u16) -> Result<Records<'a>, Malformed> {
    let start = reader.position();
    for _ in 0..count {
        let record = reader.take_array::<RECORD_BYTES>("a record")?;
        reader.reserved(u16_at(record, 22))?;
        let op = Op(record[20]);
        reader.registered(op.is_registered(), "op", op.0)?;
        let holds = reader.kind != Kind::SNAPSHOT || op == Op::ADD;
        reader.must(holds, "REG-4", ("op", u64::from(op.0)), "be add in SNAPSHOT")?;
    }
    let bytes = &reader.header()[start..reader.position()];
    Ok(List::wire(bytes, usize::from(count)))
}

fn write_versioned(writer: &mut Writer<'_>, version: u64, records: Records<'_>) {
    let count = records.len();
    if !writer.within("count", count, ("records_max", RECORDS_MAX)) {
        return;
    }
    writer.count16(count).u32(0).u64(version);
    if let Some(bytes) = records.wire_bytes() {
        writer.bytes(bytes);
        return;
    }
    for record in records {
        writer.u64(record.uid).u64(record.login).u32(record.namespace);
        writer.u8(record.op.0).u8(record.device_class).u16(0);
    }
}

/// DELTA: changes of a gateway's registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Delta<'a> {
    /// One above the last, not 0.
    pub version: u64,
    /// The changes, at least one.
    pub records: Records<'a>,
}

impl<'a> Delta<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<24>()?;
        reader.flags(0)?;
        let (count, version) = read_versioned(&reader, fixed)?;
        let records = read_records(&mut reader, count)?;
        reader.finish()?;
        Ok(Self { version, records })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// No records or too many; version 0.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let mut writer = Writer::new(Kind::DELTA, 0, out);
        write_versioned(&mut writer, self.version, self.records);
        writer.finish_header()
    }
}

/// Count and version of DELTA and SNAPSHOT.
fn read_versioned(reader: &Reader<'_>, fixed: &[u8; 24]) -> Result<(u16, u64), Malformed> {
    let (count, version) = (u16_at(fixed, 10), u64_at(fixed, 16));
    reader.reserved(u32_at(fixed, 12))?;
    if reader.kind == Kind::DELTA {
        reader.not_zero("FRAME-9", "count", count)?;
    }
    reader.not_zero("FRAME-9", "version", version)?;
    reader.at_most("FRAME-9", ("count", u64::from(count)), ("records_max", RECORDS_MAX))?;
    Ok((count, version))
}

/// SNAPSHOT: all of a gateway's registrations, in one frame or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Snapshot<'a> {
    /// Flag FIRST.
    pub first: bool,
    /// Flag LAST.
    pub last: bool,
    /// The same in all frames of one snapshot, not 0.
    pub version: u64,
    /// Registrations, all with op `add`; may be none.
    pub records: Records<'a>,
}

impl<'a> Snapshot<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<24>()?;
        let set = reader.flags(flags::snapshot::MASK)?;
        let (count, version) = read_versioned(&reader, fixed)?;
        let records = read_records(&mut reader, count)?;
        reader.finish()?;
        let first = set & flags::snapshot::FIRST != 0;
        Ok(Self { first, last: set & flags::snapshot::LAST != 0, version, records })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// Too many records, another op than `add`, version 0.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let first = if self.first { flags::snapshot::FIRST } else { 0 };
        let last = if self.last { flags::snapshot::LAST } else { 0 };
        let mut writer = Writer::new(Kind::SNAPSHOT, first | last, out);
        write_versioned(&mut writer, self.version, self.records);
        writer.finish_header()
    }
}

/// Frames that hold a version and a digest.
macro_rules! digest_frame {
    ($(#[$meta:meta])* $name:ident $kind:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct $name {
            /// Version the digest is of.
            pub version: u64,
            /// Digest of all registrations (5.3).
            pub digest: u64,
        }

        impl $name {
            pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
                let fixed = reader.fixed::<32>()?;
                reader.flags(0)?;
                reader.reserved(u16_at(fixed, 10))?;
                reader.reserved(u32_at(fixed, 12))?;
                reader.finish()?;
                Ok(Self { version: u64_at(fixed, 16), digest: u64_at(fixed, 24) })
            }

            /// Appends the frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut writer = Writer::new(Kind::$kind, 0, out);
                writer.u16(0).u32(0).u64(self.version).u64(self.digest);
                writer.finish_fixed();
            }
        }
    };
}

digest_frame! {
    /// BARRIER: is everything up to `version` in effect on every shard?
    Barrier BARRIER
}

digest_frame! {
    /// IN_EFFECT: everything up to `version` is.
    InEffect IN_EFFECT
}

digest_frame! {
    /// RESUMED: the broker holds the session, with everything up to `version`.
    Resumed RESUMED
}

word_frame! {
    /// SUSPEND: the gateway will be away for a while.
    Suspend SUSPEND {
        /// How long it asks to be waited for.
        window_ms
    }
}

/// RESUME: the gateway is back, with what it had declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Resume {
    /// Session to go on with.
    pub session: u64,
    /// Last version it declared.
    pub version: u64,
    /// Digest at that version.
    pub digest: u64,
}

impl Resume {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<40>()?;
        reader.flags(0)?;
        reader.reserved(u16_at(fixed, 10))?;
        reader.reserved(u32_at(fixed, 12))?;
        reader.finish()?;
        let (session, version) = (u64_at(fixed, 16), u64_at(fixed, 24));
        Ok(Self { session, version, digest: u64_at(fixed, 32) })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::RESUME, 0, out);
        writer.u16(0).u32(0).u64(self.session).u64(self.version).u64(self.digest);
        writer.finish_fixed();
    }
}

/// DISPLACED: a login lost against a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Displaced {
    /// Device class of both.
    pub device_class: u8,
    /// Tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Login number of the loser.
    pub login: u64,
    /// Login number of the winner.
    pub winner: u64,
}

impl Displaced {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<40>()?;
        reader.flags(0)?;
        reader.reserved(fixed[11])?;
        reader.finish()?;
        Ok(Self {
            device_class: fixed[10],
            namespace: u32_at(fixed, 12),
            uid: u64_at(fixed, 16),
            login: u64_at(fixed, 24),
            winner: u64_at(fixed, 32),
        })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::DISPLACED, 0, out);
        writer.u8(self.device_class).u8(0).u32(self.namespace);
        writer.u64(self.uid).u64(self.login).u64(self.winner);
        writer.finish_fixed();
    }
}

/// One tag of a gateway's connections, added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TagRecord<'a> {
    /// Tenant.
    pub namespace: u32,
    /// Add or remove.
    pub op: Op,
    /// The tag.
    pub tag: &'a str,
}

/// Records of a TAG_DELTA.
pub type TagRecords<'a> = List<'a, TagRecord<'a>>;

impl<'a> Item<'a> for TagRecord<'a> {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let length = usize::from(head[5]);
        let (tag, rest) = rest.split_at_checked(length)?;
        let (_, rest) = rest.split_at_checked(padding_bytes(length))?;
        let tag = std::str::from_utf8(tag).ok()?;
        Some((Self { namespace: u32_at(head, 0), op: Op(head[4]), tag }, rest))
    }
}

/// TAG_DELTA: changes of the tags a gateway has connections of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TagDelta<'a> {
    /// One above the last, not 0; within a snapshot that of the snapshot.
    pub version: u64,
    /// The changes, at least one.
    pub tag_records: TagRecords<'a>,
}

impl<'a> TagDelta<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<24>()?;
        reader.flags(0)?;
        reader.reserved(u32_at(fixed, 12))?;
        let (count, version) = (u16_at(fixed, 10), u64_at(fixed, 16));
        reader.not_zero("FRAME-9", "count", count)?;
        reader.not_zero("FRAME-9", "version", version)?;
        let value = ("count", u64::from(count));
        reader.at_most("FRAME-9", value, ("tag_records_max", TAG_RECORDS_MAX))?;
        let start = reader.position();
        for _ in 0..count {
            let head = reader.take_array::<8>("a tag record")?;
            let (tag, padding) = reader.take_padded("a tag", usize::from(head[5]))?;
            reader.reserved(u16_at(head, 6))?;
            let op = Op(head[4]);
            reader.registered(op.is_registered(), "op", op.0)?;
            reader.not_zero("FRAME-9", "length of a tag", head[5])?;
            let value = ("length of a tag", u64::from(head[5]));
            reader.at_most("FRAME-9", value, ("tag_bytes_max", TAG_BYTES_MAX))?;
            reader.tag(tag)?;
            reader.padding(padding)?;
        }
        let bytes = &reader.header()[start..reader.position()];
        reader.finish()?;
        Ok(Self { version, tag_records: List::wire(bytes, usize::from(count)) })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// No records or too many; version 0; text that is no tag (TAG-1).
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let mut writer = Writer::new(Kind::TAG_DELTA, 0, out);
        let count = self.tag_records.len();
        if writer.within("count", count, ("tag_records_max", TAG_RECORDS_MAX)) {
            writer.count16(count).u32(0).u64(self.version);
            for record in self.tag_records {
                let length = record.tag.len();
                if !writer.within("length of a tag", length, ("tag_bytes_max", TAG_BYTES_MAX)) {
                    break;
                }
                writer.u32(record.namespace).u8(record.op.0).count8(length).u16(0);
                writer.bytes(record.tag.as_bytes()).pad();
            }
        }
        writer.finish_header()
    }
}

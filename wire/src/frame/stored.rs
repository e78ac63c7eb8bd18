//! Stored messages (7.5). Layouts only: their behaviour comes later.

use crate::code::{Kind, flags};
use crate::error::{Malformed, Unencodable};
use crate::limits::{ACKS_MAX, FETCH_MAX};
use crate::list::{Item, List};
use crate::read::{Reader, u16_at, u32_at, u64_at};
use crate::write::Writer;

/// FETCH: asks for stored messages after a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fetch {
    /// Most messages wanted, at least 1.
    pub limit: u16,
    /// Tenant.
    pub namespace: u32,
    /// The sender's number for this request.
    pub sequence: u64,
    /// The user.
    pub uid: u64,
    /// History channel; 0 for the inbox of `uid`.
    pub channel: u64,
    /// Cursor after which to begin.
    pub after: u64,
}

impl Fetch {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<48>()?;
        reader.flags(0)?;
        let limit = u16_at(fixed, 10);
        reader.not_zero("FRAME-9", "limit", limit)?;
        reader.at_most("FRAME-9", ("limit", u64::from(limit)), ("fetch_max", FETCH_MAX))?;
        reader.finish()?;
        Ok(Self {
            limit,
            namespace: u32_at(fixed, 12),
            sequence: u64_at(fixed, 16),
            uid: u64_at(fixed, 24),
            channel: u64_at(fixed, 32),
            after: u64_at(fixed, 40),
        })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::FETCH, 0, out);
        writer.u16(self.limit).u32(self.namespace).u64(self.sequence);
        writer.u64(self.uid).u64(self.channel).u64(self.after);
        writer.finish_fixed();
    }
}

/// PAGE_END: the messages a FETCH asked for have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PageEnd {
    /// How many they were.
    pub count: u16,
    /// That of the FETCH.
    pub sequence: u64,
    /// Cursor to go on after.
    pub next: u64,
}

impl PageEnd {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<32>()?;
        reader.flags(0)?;
        reader.reserved(u32_at(fixed, 12))?;
        reader.finish()?;
        let (count, sequence) = (u16_at(fixed, 10), u64_at(fixed, 16));
        Ok(Self { count, sequence, next: u64_at(fixed, 24) })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::PAGE_END, 0, out);
        writer.u16(self.count).u32(0).u64(self.sequence).u64(self.next);
        writer.finish_fixed();
    }
}

/// One pair of ACK: (origin, sequence), or (channel, cursor) with CUMULATIVE.
pub type Pair = (u64, u64);

/// Pairs of an ACK.
pub type Pairs<'a> = List<'a, Pair>;

impl<'a> Item<'a> for Pair {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (pair, rest) = bytes.split_first_chunk::<16>()?;
        Some(((u64_at(pair, 0), u64_at(pair, 8)), rest))
    }
}

/// ACK: a user has these messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Ack<'a> {
    /// Flag CUMULATIVE: everything up to a cursor.
    pub cumulative: bool,
    /// Tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// At least one; with `cumulative` exactly one.
    pub pairs: Pairs<'a>,
}

impl<'a> Ack<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<24>()?;
        let cumulative = reader.flags(flags::ack::MASK)? & flags::ack::CUMULATIVE != 0;
        let count = u16_at(fixed, 10);
        reader.not_zero("FRAME-9", "count", count)?;
        let value = ("count", u64::from(count));
        reader.must(!cumulative || count == 1, "FRAME-9", value, "be 1 with CUMULATIVE")?;
        reader.at_most("FRAME-9", value, ("acks_max", ACKS_MAX))?;
        let pairs = reader.take("pairs", u64::from(count) * 16)?;
        reader.finish()?;
        let pairs = List::wire(pairs, usize::from(count));
        Ok(Self { cumulative, namespace: u32_at(fixed, 12), uid: u64_at(fixed, 16), pairs })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// No pairs or too many.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let set = if self.cumulative { flags::ack::CUMULATIVE } else { 0 };
        let mut writer = Writer::new(Kind::ACK, set, out);
        if writer.within("count", self.pairs.len(), ("acks_max", ACKS_MAX)) {
            writer.count16(self.pairs.len()).u32(self.namespace).u64(self.uid);
            for (first, second) in self.pairs {
                writer.u64(first).u64(second);
            }
        }
        writer.finish_header()
    }
}

//! Fragments, receipts, reports and the acknowledgement of an uplink (7.2).

use crate::code::{ErrorCode, Fate, Kind, Level, flags};
use crate::error::{Malformed, Unencodable};
use crate::frame::hops::HopTimes;
use crate::limits::{FATES_MAX, TARGETS_MAX};
use crate::list::{Item, List};
use crate::read::{Reader, u16_at, u32_at, u64_at};
use crate::targets::{UID_BYTES, UidRun, Uids};
use crate::write::Writer;

/// FRAGMENT: a later piece of a payload that was announced by FRAGMENTED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Fragment<'a> {
    /// Flag LAST.
    pub last: bool,
    /// Place of this payload in the whole.
    pub offset: u32,
    /// That of the message.
    pub sequence: u64,
    /// As in ORIGIN; 0 on a producer's link.
    pub origin: u64,
    /// The piece, not empty.
    pub payload: &'a [u8],
}

impl<'a> Fragment<'a> {
    pub(super) fn read(mut reader: Reader<'a>, payload: &'a [u8]) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<32>()?;
        let set = reader.flags(flags::fragment::MASK)?;
        reader.reserved(u16_at(fixed, 10))?;
        reader.end()?;
        reader.not_zero("FRAME-9", "payload_len", reader.payload_bytes as u64)?;
        Ok(Self {
            last: set & flags::fragment::LAST != 0,
            offset: u32_at(fixed, 12),
            sequence: u64_at(fixed, 16),
            origin: u64_at(fixed, 24),
            payload,
        })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// A payload that is empty or above its limit.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        self.write(out).finish(self.payload, self.payload.len())
    }

    /// Appends the header alone, for a payload of `payload_bytes` that the caller sends after it.
    ///
    /// # Errors
    /// Payload bytes that are 0 or above their limit.
    pub fn encode_header(
        &self,
        payload_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Unencodable> {
        self.write(out).finish(&[], payload_bytes)
    }

    fn write<'o>(&self, out: &'o mut Vec<u8>) -> Writer<'o> {
        let set = if self.last { flags::fragment::LAST } else { 0 };
        let mut writer = Writer::new(Kind::FRAGMENT, set, out);
        writer.u16(0).u32(self.offset).u64(self.sequence).u64(self.origin);
        writer
    }
}

/// Targets that met the same fate for the same cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct FateSet<'a> {
    /// What became of them.
    pub fate: Fate,
    /// Why; code 0 for no cause.
    pub cause: ErrorCode,
    /// The targets, at least one.
    pub uids: Uids<'a>,
}

/// Fate sets of a receipt or report: ordered by fate, then cause, each pair once.
pub type FateSets<'a> = List<'a, FateSet<'a>>;

impl<'a> Item<'a> for FateSet<'a> {
    fn cut(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (uids, rest) = rest.split_at_checked(u32_at(head, 4) as usize * UID_BYTES)?;
        let uids = Uids::Run(UidRun::new(uids)?);
        Some((Self { fate: Fate(head[0]), cause: ErrorCode(u16_at(head, 2)), uids }, rest))
    }
}

fn read_sets<'a>(reader: &mut Reader<'a>, count: u16) -> Result<FateSets<'a>, Malformed> {
    let start = reader.position();
    let mut last = (Fate(0), ErrorCode(0));
    for _ in 0..count {
        let head = reader.take_array::<8>("a fate set")?;
        let uids = u32_at(head, 4);
        reader.take_uids("UIDs of a fate set", uids)?;
        reader.reserved(head[1])?;
        let (fate, cause) = (Fate(head[0]), ErrorCode(u16_at(head, 2)));
        reader.registered(fate.is_registered(), "fate", fate.0)?;
        reader.registered(cause.0 == 0 || cause.is_registered(), "cause", cause.0)?;
        let value = ("fate", u64::from(fate.0));
        let holds = (fate, cause) > last;
        reader.must(
            holds,
            "FRAME-9",
            value,
            "come after the set before it, by fate, then cause",
        )?;
        reader.not_zero("FRAME-9", "count of a fate set", uids)?;
        let value = ("count of a fate set", u64::from(uids));
        reader.at_most("FRAME-9", value, ("targets_max", TARGETS_MAX))?;
        last = (fate, cause);
    }
    let bytes = &reader.header()[start..reader.position()];
    Ok(List::wire(bytes, usize::from(count)))
}

/// No fate has more UIDs in its sets than its counter says.
fn check_counters(
    reader: &Reader<'_>,
    sets: FateSets<'_>,
    counter: impl Fn(Fate) -> u32,
) -> Result<(), Malformed> {
    let mut named = (Fate(0), 0);
    for set in sets {
        let before = if named.0 == set.fate { named.1 } else { 0 };
        named = (set.fate, before + set.uids.len() as u64);
        let holds = named.1 <= u64::from(counter(set.fate));
        let value = ("UIDs named for a fate", named.1);
        reader.must(holds, "FRAME-9", value, "be no more than that fate's counter")?;
    }
    Ok(())
}

fn write_sets(sets: FateSets<'_>, writer: &mut Writer<'_>) {
    for set in sets {
        let count = set.uids.len();
        if !writer.within("count of a fate set", count, ("targets_max", TARGETS_MAX)) {
            return;
        }
        writer.u8(set.fate.0).u8(0).u16(set.cause.0).count16(count).u16(0);
        writer.uids(set.uids);
    }
}

/// RECEIPT: what became of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Receipt<'a> {
    /// Flag FINAL: no more receipts for this message.
    pub last: bool,
    /// What this receipt tells about: any level but `none`.
    pub stage: Level,
    /// 0, or why the message was refused as a whole.
    pub code: ErrorCode,
    /// That of the PUBLISH.
    pub sequence: u64,
    /// Targets reached at this stage; 0 with EVERYONE or a selector.
    pub sent: u32,
    /// Targets of that fate.
    pub offline: u32,
    /// Targets of that fate.
    pub unknown: u32,
    /// Targets of that fate.
    pub filtered: u32,
    /// Targets of that fate.
    pub dropped: u32,
    /// Frames put into gateways' outboxes.
    pub gateways: u32,
    /// Targets that were not sent, by fate and cause.
    pub fate_sets: FateSets<'a>,
    /// When the message passed where, if that was asked for.
    pub hops: HopTimes<'a>,
}

impl<'a> Receipt<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<48>()?;
        let set = reader.flags(flags::receipt::MASK)?;
        reader.reserved(fixed[11])?;
        let stage = Level(fixed[10]);
        let holds = stage.is_registered() && stage != Level::NONE;
        reader.registered(holds, "stage", stage.0)?;
        let sets = u16_at(fixed, 14);
        let value = ("sets", u64::from(sets));
        reader.at_most("FRAME-9", value, ("fates_max", FATES_MAX))?;
        let fate_sets = read_sets(&mut reader, sets)?;
        let hops = HopTimes::read(&mut reader, set & flags::receipt::TRACE != 0)?;
        reader.end()?;
        let receipt = Self {
            last: set & flags::receipt::FINAL != 0,
            stage,
            code: ErrorCode(u16_at(fixed, 12)),
            sequence: u64_at(fixed, 16),
            sent: u32_at(fixed, 24),
            offline: u32_at(fixed, 28),
            unknown: u32_at(fixed, 32),
            filtered: u32_at(fixed, 36),
            dropped: u32_at(fixed, 40),
            gateways: u32_at(fixed, 44),
            fate_sets,
            hops,
        };
        check_counters(&reader, fate_sets, |fate| receipt.counter(fate))?;
        reader.no_payload()?;
        Ok(receipt)
    }

    /// The counter of a fate.
    #[must_use]
    pub fn counter(&self, fate: Fate) -> u32 {
        match fate {
            Fate::OFFLINE => self.offline,
            Fate::UNKNOWN => self.unknown,
            Fate::FILTERED => self.filtered,
            Fate::DROPPED => self.dropped,
            _ => 0,
        }
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// Sets that are too many, too long, out of order or not covered by the counters; too many hop
    /// times, or one of 0; stage `none`.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let last = if self.last { flags::receipt::FINAL } else { 0 };
        let set = last | if self.hops.is_empty() { 0 } else { flags::receipt::TRACE };
        let mut writer = Writer::new(Kind::RECEIPT, set, out);
        if writer.within("sets", self.fate_sets.len(), ("fates_max", FATES_MAX)) {
            writer.u8(self.stage.0).u8(0).u16(self.code.0).count16(self.fate_sets.len());
            writer.u64(self.sequence).u32(self.sent).u32(self.offline).u32(self.unknown);
            writer.u32(self.filtered).u32(self.dropped).u32(self.gateways);
            write_sets(self.fate_sets, &mut writer);
            self.hops.write(&mut writer);
        }
        writer.finish_header()
    }
}

/// REPORT: a gateway tells what became of a DELIVER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Report<'a> {
    /// Level `delivered` or `acknowledged`.
    pub stage: Level,
    /// That of the DELIVER.
    pub sequence: u64,
    /// That of the DELIVER.
    pub origin: u64,
    /// Targets reached at this stage.
    pub reached: u32,
    /// Targets of that fate.
    pub offline: u32,
    /// Targets of that fate.
    pub filtered: u32,
    /// Targets of that fate.
    pub dropped: u32,
    /// Targets of that fate.
    pub unknown: u32,
    /// Targets that were not reached, by fate and cause.
    pub fate_sets: FateSets<'a>,
    /// When the message passed the gateway, if that was asked for.
    pub hops: HopTimes<'a>,
}

impl<'a> Report<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<56>()?;
        let set = reader.flags(flags::report::MASK)?;
        reader.reserved(fixed[11])?;
        reader.reserved(u16_at(fixed, 14))?;
        reader.reserved(u32_at(fixed, 52))?;
        let stage = Level(fixed[10]);
        let holds = matches!(stage, Level::DELIVERED | Level::ACKNOWLEDGED);
        reader.must(holds, "FRAME-9", ("stage", u64::from(stage.0)), "be 2 or 3")?;
        let sets = u16_at(fixed, 12);
        let value = ("sets", u64::from(sets));
        reader.at_most("FRAME-9", value, ("fates_max", FATES_MAX))?;
        let fate_sets = read_sets(&mut reader, sets)?;
        let hops = HopTimes::read(&mut reader, set & flags::report::TRACE != 0)?;
        reader.end()?;
        let report = Self {
            stage,
            sequence: u64_at(fixed, 16),
            origin: u64_at(fixed, 24),
            reached: u32_at(fixed, 32),
            offline: u32_at(fixed, 36),
            filtered: u32_at(fixed, 40),
            dropped: u32_at(fixed, 44),
            unknown: u32_at(fixed, 48),
            fate_sets,
            hops,
        };
        check_counters(&reader, fate_sets, |fate| report.counter(fate))?;
        reader.no_payload()?;
        Ok(report)
    }

    /// The counter of a fate.
    #[must_use]
    pub fn counter(&self, fate: Fate) -> u32 {
        match fate {
            Fate::OFFLINE => self.offline,
            Fate::UNKNOWN => self.unknown,
            Fate::FILTERED => self.filtered,
            Fate::DROPPED => self.dropped,
            _ => 0,
        }
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// Sets that are too many, too long, out of order or not covered by the counters; too many hop
    /// times, or one of 0; another stage.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let set = if self.hops.is_empty() { 0 } else { flags::report::TRACE };
        let mut writer = Writer::new(Kind::REPORT, set, out);
        if writer.within("sets", self.fate_sets.len(), ("fates_max", FATES_MAX)) {
            writer.u8(self.stage.0).u8(0).count16(self.fate_sets.len()).u16(0);
            writer.u64(self.sequence).u64(self.origin).u32(self.reached).u32(self.offline);
            writer.u32(self.filtered).u32(self.dropped).u32(self.unknown).u32(0);
            write_sets(self.fate_sets, &mut writer);
            self.hops.write(&mut writer);
        }
        writer.finish_header()
    }
}

/// UPLINK_ACK: a consumer's answer to an UPLINK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct UplinkAck {
    /// 0 for accepted, or why not.
    pub code: ErrorCode,
    /// That of the UPLINK.
    pub sequence: u64,
    /// The gateway's incarnation, as in the UPLINK's ORIGIN.
    pub origin: u64,
}

impl UplinkAck {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<32>()?;
        reader.flags(0)?;
        reader.reserved(u32_at(fixed, 12))?;
        reader.finish()?;
        let code = ErrorCode(u16_at(fixed, 10));
        Ok(Self { code, sequence: u64_at(fixed, 16), origin: u64_at(fixed, 24) })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::UPLINK_ACK, 0, out);
        writer.u16(self.code.0).u32(0).u64(self.sequence).u64(self.origin);
        writer.finish_fixed();
    }
}

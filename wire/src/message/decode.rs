//! Checking a message header, in the order of FRAME-9.

use super::{Extensions, FIXED_BYTES, Labels, Message, Raw, sections};
use crate::code::{Class, ErrorCode, Kind, Level, Mode, Priority, flags};
use crate::error::{Malformed, Problem};
use crate::limits::{HOPS_MAX, PROLOGUE_BYTES, TARGETS_MAX};
use crate::prologue::Prologue;
use crate::read::{Reader, u16_at, u32_at, u64_at};
use crate::targets::UidRun;

/// Flags that announce bytes.
const SECTIONS: u16 = flags::message::MASK
    & !(flags::message::RESEND | flags::message::EVERYONE | flags::message::EXCEPT_SELF);

impl<'a> Message<'a> {
    /// Reads a message of the reader's kind.
    pub(crate) fn read(reader: Reader<'a>, payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut message = Self::blank(reader.kind);
        message.fill(reader, payload)?;
        Ok(message)
    }

    /// Reads a message in one piece, however long its payload: what an assembly gives out. `bytes`
    /// are its header, and its payload or the beginning of it. `None` if they are not.
    #[must_use]
    pub fn decode_whole(bytes: &'a [u8]) -> Option<Self> {
        let (first, _) = bytes.split_first_chunk::<PROLOGUE_BYTES>()?;
        // Of its payload's length only the fields that speak of it are to know.
        let [version, kind, low, high, payload @ ..] = *first;
        let mut prologue = Prologue::decode(&[version, kind, low, high, 0, 0, 0, 0]).ok()?;
        prologue.payload_bytes = u32::from_le_bytes(payload) as usize;
        let (header, payload) = bytes.split_at_checked(prologue.header_bytes)?;
        let is_message =
            matches!(prologue.kind, Kind::PUBLISH | Kind::DELIVER | Kind::UPLINK | Kind::OFFLINE);
        let read = || Self::read(Reader::new(prologue, header), payload).ok();
        if is_message { read() } else { None }
    }

    /// Overwrites a blank message, whose kind is the reader's. In place: a message is large, and
    /// moving it about costs as much as reading it. What is in it after an error means nothing.
    pub(crate) fn fill(
        &mut self,
        mut reader: Reader<'a>,
        payload: &'a [u8],
    ) -> Result<(), Malformed> {
        let fixed = reader.fixed::<FIXED_BYTES>()?;
        let set = reader.flags(flags::message::MASK)?;
        reader.reserved(u16_at(fixed, 14))?;
        let handling = fixed[12];
        self.mode = Mode(handling & 3);
        self.class = Class(handling >> 2 & 3);
        self.level = Level(handling >> 4 & 3);
        self.priority = Priority(handling >> 6);
        self.sequence = u64_at(fixed, 16);
        check_handling(&reader, self.mode, self.class, self.priority)?;
        reader.not_zero("MSG-4", "sequence", self.sequence)?;
        let target_count = u16_at(fixed, 10);
        let value = ("target_count", u64::from(target_count));
        reader.at_most("FRAME-9", value, ("targets_max", TARGETS_MAX))?;
        self.hops = fixed[13];
        let value = ("hops", u64::from(self.hops));
        reader.at_most("MSG-2", value, ("hops_max", usize::from(HOPS_MAX)))?;
        self.resend = set & flags::message::RESEND != 0;
        self.everyone = set & flags::message::EVERYONE != 0;
        self.except_self = set & flags::message::EXCEPT_SELF != 0;
        self.namespace = u32_at(fixed, 24);
        self.ttl_ms = u32_at(fixed, 28);
        self.payload = payload;
        self.raw.fixed = fixed;
        if set & SECTIONS != 0 {
            sections::read(self, &mut reader, set)?;
        }
        self.targets = reader.take_uids("the UID list", target_count)?;
        reader.end()?;
        self.check_between(&reader)
    }

    /// A message of which nothing is known yet.
    #[inline]
    pub(crate) fn blank(kind: Kind) -> Self {
        Self {
            kind,
            resend: false,
            everyone: false,
            except_self: false,
            mode: Mode(0),
            class: Class(0),
            level: Level(0),
            priority: Priority(0),
            hops: 0,
            sequence: 0,
            namespace: 0,
            ttl_ms: 0,
            origin: None,
            trace: None,
            conflate: None,
            sender: None,
            part: None,
            content: None,
            fragmented: None,
            history: None,
            labels: Labels::default(),
            selector: None,
            except: UidRun::default(),
            extensions: Extensions::default(),
            targets: UidRun::default(),
            payload: &[],
            raw: Raw { fixed: &[0; FIXED_BYTES], before_except: &[], after_except: &[] },
        }
    }

    /// The rules between parts, MSG-12 to MSG-17, in the order of the text.
    fn check_between(&self, reader: &Reader<'_>) -> Result<(), Malformed> {
        let is = |kind| reader.kind == kind;
        let section = |present: bool, field| (field, u64::from(present));
        let origin = section(self.origin.is_some(), "ORIGIN");
        let from_broker = is(Kind::DELIVER) || is(Kind::OFFLINE);
        let holds = !from_broker || self.origin.is_some();
        reader.must(holds, "MSG-12", origin, "be present on DELIVER and OFFLINE")?;
        let holds = !is(Kind::PUBLISH) || self.origin.is_none();
        reader.must(holds, "MSG-12", origin, "not be present on PUBLISH")?;
        let sender = section(self.sender.is_some(), "SENDER");
        let holds = !is(Kind::UPLINK) || self.sender.is_some();
        reader.must(holds, "MSG-13", sender, "be present on UPLINK")?;
        let holds = !self.except_self || self.sender.is_some();
        reader.must(holds, "MSG-13", sender, "be present where EXCEPT_SELF is set")?;
        self.check_audience(reader)?;
        let class = ("class", u64::from(self.class.0));
        let placed = self.history.is_some() || !self.targets.is_empty();
        let holds = !is(Kind::PUBLISH) || self.class != Class::STORED || placed;
        reader.must(holds, "MSG-16", class, "have HISTORY or a UID list to be stored")?;
        let holds = self.history.is_none() || self.class == Class::STORED;
        reader.must(holds, "MSG-16", class, "be stored where HISTORY is present")
    }

    /// MSG-14, MSG-15 and MSG-17.
    fn check_audience(&self, reader: &Reader<'_>) -> Result<(), Malformed> {
        let narrower = self.selector.is_some() || !self.targets.is_empty();
        let (holds, rule, words) = if reader.kind == Kind::UPLINK {
            let shaped = self.except_self || self.history.is_some() || !self.except.is_empty();
            (!narrower && !self.everyone && !shaped, "MSG-15", "not be given on UPLINK")
        } else if reader.kind == Kind::OFFLINE {
            let listed = !self.targets.is_empty() && !self.everyone;
            (listed, "MSG-17", "be a UID list on OFFLINE")
        } else if self.everyone {
            (!narrower, "MSG-14", "be EVERYONE alone, or targets, or SELECTOR, or both of these")
        } else {
            (narrower, "MSG-14", "be given: EVERYONE, SELECTOR or at least one target")
        };
        if holds {
            return Ok(());
        }
        let count = self.targets.len() as u64;
        let problem = Problem::Must(words);
        let error = (ErrorCode::AUDIENCE, rule);
        Err(reader.malformed(error, "audience, with target_count", count, problem))
    }
}

/// MSG-1.
fn check_handling(
    reader: &Reader<'_>,
    mode: Mode,
    class: Class,
    priority: Priority,
) -> Result<(), Malformed> {
    reader.registered(mode.is_registered(), "mode", mode.0)?;
    reader.registered(class.is_registered(), "class", class.0)?;
    let holds = priority != Priority::CONTROL || reader.kind == Kind::DELIVER;
    let value = ("priority", u64::from(priority.0));
    reader.must(holds, "MSG-1", value, "not be control on this kind")
}

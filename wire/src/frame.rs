//! Frames: one borrowed view per kind, one `decode` and one `encode` for all of them.
//!
//! The struct of a kind serves both directions: decoding fills it from a frame, and a caller fills
//! it to write one, lists coming from either (see [`crate::list`]). Frames without lists or text
//! always encode; the others say which limit they break. Files follow the sections of chapter 7.

mod consumers;
mod hops;
mod receipts;
mod registration;
mod session;
mod stored;

pub use consumers::{Filter, Group, Presence, PresenceQuery, Tag, TagChange, TagChanges};
pub use hops::{HOP_TIME_BYTES, HopTime, HopTimes};
pub use receipts::{FateSet, FateSets, Fragment, Receipt, Report, UplinkAck};
pub use registration::{
    Barrier, Delta, Displaced, InEffect, Record, Records, Resume, Resumed, Snapshot, Suspend,
    TagDelta, TagRecord, TagRecords,
};
pub use session::{Credit, Drain, ErrorFrame, Hello, Ping, Pong, State, Welcome};
pub use stored::{Ack, Fetch, PageEnd, Pair, Pairs};

use crate::code::{ErrorCode, Kind};
use crate::error::{Malformed, Problem, Unencodable, What};
use crate::message::Message;
use crate::prologue::Prologue;
use crate::read::Reader;

/// The kinds with a struct of their own: variant, struct, constant; and how each is written.
macro_rules! frames {
    ($($variant:ident($($view:tt)+) $kind:ident $encodes:ident,)+) => {
        /// One whole frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Frame<'a> {
            /// PUBLISH.
            Publish(Message<'a>),
            /// DELIVER.
            Deliver(Message<'a>),
            /// UPLINK.
            Uplink(Message<'a>),
            /// OFFLINE.
            Offline(Message<'a>),
            $(
                #[doc = concat!(stringify!($kind), ".")]
                $variant($($view)+),
            )+
        }

        impl<'a> Frame<'a> {
            /// Its kind.
            #[must_use]
            pub const fn kind(&self) -> Kind {
                match self {
                    Self::Publish(_) => Kind::PUBLISH,
                    Self::Deliver(_) => Kind::DELIVER,
                    Self::Uplink(_) => Kind::UPLINK,
                    Self::Offline(_) => Kind::OFFLINE,
                    $(Self::$variant(_) => Kind::$kind,)+
                }
            }

            /// Appends the frame.
            ///
            /// # Errors
            /// None for a frame as it was decoded (CONV-5). For one made by the caller, the first
            /// rule that a receiver would find broken; nothing was written then.
            pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
                match self {
                    Self::Publish(message)
                    | Self::Deliver(message)
                    | Self::Uplink(message)
                    | Self::Offline(message) => message.encode(out),
                    $(Self::$variant(frame) => frames!(@$encodes frame, out),)+
                }
            }

            /// Inlined, so that a message, which is large, is not moved from frame to frame.
            #[inline]
            fn read(reader: Reader<'a>, payload: &'a [u8]) -> Result<Self, Malformed> {
                match reader.kind {
                    Kind::PUBLISH => Ok(Self::Publish(Message::read(reader, payload)?)),
                    Kind::DELIVER => Ok(Self::Deliver(Message::read(reader, payload)?)),
                    Kind::UPLINK => Ok(Self::Uplink(Message::read(reader, payload)?)),
                    Kind::OFFLINE => Ok(Self::Offline(Message::read(reader, payload)?)),
                    $(Kind::$kind => frames!(@read $kind $variant reader, payload),)+
                    kind => Err(unknown(kind)),
                }
            }
        }
    };
    (@always $frame:ident, $out:ident) => {{
        $frame.encode($out);
        Ok(())
    }};
    (@checked $frame:ident, $out:ident) => { $frame.encode($out) };
    (@read FRAGMENT $variant:ident $reader:ident, $payload:ident) => {
        Fragment::read($reader, $payload).map(Self::Fragment)
    };
    (@read ERROR $variant:ident $reader:ident, $payload:ident) => {
        ErrorFrame::read($reader).map(Self::Error)
    };
    (@read $kind:ident $variant:ident $reader:ident, $payload:ident) => {
        $variant::read($reader).map(Self::$variant)
    };
}

frames! {
    Hello(Hello<'a>) HELLO checked,
    Welcome(Welcome) WELCOME always,
    State(State) STATE always,
    Ping(Ping) PING always,
    Pong(Pong) PONG always,
    Drain(Drain) DRAIN always,
    Error(ErrorFrame<'a>) ERROR always,
    Credit(Credit) CREDIT always,
    Fragment(Fragment<'a>) FRAGMENT checked,
    Receipt(Receipt<'a>) RECEIPT checked,
    Report(Report<'a>) REPORT checked,
    UplinkAck(UplinkAck) UPLINK_ACK always,
    Delta(Delta<'a>) DELTA checked,
    Snapshot(Snapshot<'a>) SNAPSHOT checked,
    Barrier(Barrier) BARRIER always,
    InEffect(InEffect) IN_EFFECT always,
    Suspend(Suspend) SUSPEND always,
    Resume(Resume) RESUME always,
    Resumed(Resumed) RESUMED always,
    Displaced(Displaced) DISPLACED always,
    TagDelta(TagDelta<'a>) TAG_DELTA checked,
    Filter(Filter<'a>) FILTER checked,
    Group(Group<'a>) GROUP checked,
    Tag(Tag<'a>) TAG checked,
    Presence(Presence) PRESENCE always,
    PresenceQuery(PresenceQuery<'a>) PRESENCE_QUERY checked,
    Fetch(Fetch) FETCH always,
    PageEnd(PageEnd) PAGE_END always,
    Ack(Ack<'a>) ACK checked,
}

impl<'a> Frame<'a> {
    /// Reads one whole frame: its prologue, its header, its payload and nothing after it.
    ///
    /// # Errors
    /// The first check that fails, in the order of FRAME-1 and FRAME-9; `length` if `bytes` is not
    /// one whole frame; `unknown_kind` also for a kind that a link would skip.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let Some((prologue, _)) = bytes.split_first_chunk() else {
            return Err(not_whole(Kind(0), bytes.len(), "hold a prologue"));
        };
        let prologue = Prologue::decode(prologue)?;
        if bytes.len() != prologue.frame_bytes() {
            return Err(not_whole(prologue.kind, bytes.len(), "be what its prologue says"));
        }
        Self::decode_parts(prologue, bytes)
    }

    /// Reads a frame whose prologue has been read and whose length is right.
    #[inline]
    pub(crate) fn decode_parts(prologue: Prologue, bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) = bytes.split_at(prologue.header_bytes);
        Self::read(Reader::new(prologue, header), payload)
    }

    /// Sequence or version of this frame, of FILTER its number, as ERROR's `ref` names it; 0 if it
    /// has none.
    #[must_use]
    pub const fn reference(&self) -> u64 {
        match self {
            Self::Publish(message)
            | Self::Deliver(message)
            | Self::Uplink(message)
            | Self::Offline(message) => message.sequence,
            Self::Fragment(frame) => frame.sequence,
            Self::Receipt(frame) => frame.sequence,
            Self::Report(frame) => frame.sequence,
            Self::UplinkAck(frame) => frame.sequence,
            Self::Delta(frame) => frame.version,
            Self::Snapshot(frame) => frame.version,
            Self::Barrier(frame) => frame.version,
            Self::InEffect(frame) => frame.version,
            Self::Resume(frame) => frame.version,
            Self::Resumed(frame) => frame.version,
            Self::TagDelta(frame) => frame.version,
            Self::Tag(frame) => frame.sequence,
            Self::Filter(frame) => frame.filter as u64,
            Self::PresenceQuery(frame) => frame.sequence,
            Self::Fetch(frame) => frame.sequence,
            Self::PageEnd(frame) => frame.sequence,
            _ => 0,
        }
    }
}

/// Checks a complete header before its payload is there (FRAME-9). A message is checked where it
/// is: it would be moved twice to be dropped.
pub(crate) fn check_header(prologue: Prologue, header: &[u8]) -> Result<(), Malformed> {
    let reader = Reader::new(prologue, header);
    match prologue.kind {
        Kind::PUBLISH | Kind::DELIVER | Kind::UPLINK | Kind::OFFLINE => {
            Message::blank(prologue.kind).fill(reader, &[])
        }
        _ => Frame::read(reader, &[]).map(drop),
    }
}

#[cold]
fn unknown(kind: Kind) -> Malformed {
    let what = What { field: "kind", value: u64::from(kind.0), problem: Problem::Unregistered };
    Malformed { code: ErrorCode::UNKNOWN_KIND, rule: "FRAME-3", kind, what }
}

#[cold]
fn not_whole(kind: Kind, bytes: usize, words: &'static str) -> Malformed {
    let problem = Problem::Must(words);
    let what = What { field: "length of the frame", value: bytes as u64, problem };
    Malformed { code: ErrorCode::LENGTH, rule: "CONV-1", kind, what }
}

//! What shards say to each other. A frame in it has its place in the receiving outbox reserved
//! already, so that mail on its way is bounded by the outboxes it is meant for. What has no frame
//! says at its kind what bounds it; what goes from link to link of one gateway as they begin and
//! end is bounded as links are.

use bytes::Bytes;
use waybill_routing::Slot;
use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::frame::HopTime;

use crate::io::LinkId;
use crate::merge::Word;
use crate::outbox::Care;
use crate::told::Told;

/// An uplink that waits for a consumer's answer. The answer goes to the link that asked and to no
/// other: a newer link of the same gateway did not ask (UP-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Shard of the gateway's link.
    pub shard: u16,
    /// The gateway's link.
    pub link: LinkId,
    /// Incarnation of that gateway.
    pub origin: u64,
    /// The gateway's number for it.
    pub sequence: u64,
    /// The asking link's number for it: a gateway may ask the same again.
    pub number: u64,
}

/// A part of a message whose fate a producer wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Shard of the producer's link.
    pub shard: u16,
    /// The producer's link.
    pub link: LinkId,
    /// That link's number for the message: a producer may send the same again.
    pub number: u64,
    /// Which gateway's part of it.
    pub part: u16,
}

/// A DELIVER or TAG that a gateway will report on, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// Who asks.
    pub asked: Asked,
    /// DELIVER or TAG: it depends on that which gateways report.
    pub kind: Kind,
    /// The producer's instance, as in the frame.
    pub origin: u64,
    /// The producer's number, as in the frame.
    pub sequence: u64,
    /// Users listed in the frame: more cannot be named.
    pub users: u16,
    /// Whether the producer wants to know when it passed where.
    pub is_traced: bool,
}

/// Whose ledger a frame is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A gateway.
    Gateways,
    /// A consumer.
    Consumers,
}

/// A link of a gateway that has messages to write. Those of a newer link are held back until those
/// of the older are written, or lost with it (promise 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Shard of the link.
    pub shard: u16,
    /// The link.
    pub link: LinkId,
}

/// Frames for links of one shard, in the order in which they were made. It is charged to the pool
/// of what waits from when a frame lies in it until its receiver has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// Bytes of large payloads, and those that the pool is charged with.
    pub(crate) beside: usize,
    pub(crate) charged: usize,
}

/// A frame of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The receiver's link.
    pub(crate) link: LinkId,
    /// Where its bytes end, of the whole frame; or of its header, which announces no payload, where
    /// that is large.
    pub(crate) upto: usize,
    /// The payload then.
    pub(crate) payload: Bytes,
    /// What that link is.
    pub(crate) receiver: Receiver,
    /// What it asks of the outbox.
    pub(crate) care: Care,
    /// Whether its fate is to be told, and to whom.
    pub(crate) awaited: Option<Awaited>,
}

impl Parcel {
    /// How many frames are in it.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.items.len()
    }

    /// Bytes of memory it takes.
    pub(crate) fn held(&self) -> usize {
        self.bytes.capacity() + self.items.capacity() * size_of::<Item>() + self.beside
    }

    /// Keeps the memory for other frames.
    pub(crate) fn empty(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.beside = 0;
    }
}

/// One piece of mail.
#[derive(Debug, PartialEq, Eq)]
pub enum Mail {
    /// Put frames, whose bytes are reserved, into outboxes of your links.
    Parcel(Parcel),
    /// What became of a gateway's part of a message.
    Word {
        /// Who asked.
        asked: Asked,
        /// What is known.
        word: Word,
    },
    /// When a gateway's part of a message passed where: three at most for each of its REPORTs that
    /// is waited for.
    Hop {
        /// Who asked.
        asked: Asked,
        /// What is known.
        hop: HopTime,
    },
    /// One frame, for a consumer, which owes an answer for it.
    Uplink {
        /// The consumer's link.
        link: LinkId,
        /// What it owes an answer for, and to whom.
        question: Question,
        /// The whole frame.
        frame: Vec<u8>,
    },
    /// Tell a gateway what became of its uplink.
    UplinkAnswer {
        /// What it asked.
        question: Question,
        /// 0 = accepted.
        code: ErrorCode,
    },
    /// A newer link of the same gateway took over: write this one out and end it.
    Supersede {
        /// The older link.
        link: LinkId,
    },
    /// What consumers were told to be at a gateway by the slot that yours replaced.
    Told {
        /// The newer link.
        link: LinkId,
        /// The incarnation of both.
        incarnation: u64,
        /// The registrations. Their place is still reserved, and so is that of this mail: there are
        /// at most as many as there may be gateways.
        old: Told,
    },
    /// Logins at one of your gateways have lost: who, is where the logins are. There is at most one
    /// of these on its way for each slot, and never more than there may be slots.
    Losers {
        /// The gateway's link, if it had one.
        link: Option<LinkId>,
        /// Its slot.
        slot: Slot,
    },
    /// A gateway has a data link to another shard, which has sent messages to one of your links
    /// before. Say when that gateway has taken them in. There is one on its way for each data link.
    Fence {
        /// The gateway's control link.
        link: LinkId,
        /// Its new data link.
        data: Writer,
    },
    /// It has: your data link may write messages.
    Passed {
        /// The data link.
        link: LinkId,
    },
    /// A data link of a gateway has ended. What comes for the gateway after this comes instead.
    DataLost {
        /// The gateway's control link.
        link: LinkId,
        /// The data link's number.
        number: u64,
    },
    /// The control link of one of your data links has ended.
    SessionEnded {
        /// The data link.
        link: LinkId,
    },
    /// The link that yours took over from has been written out, or has gone: messages may flow.
    Release {
        /// The newer link.
        link: LinkId,
    },
}

// A term of the sum in `limits.rs`.
const _: () = assert!(size_of::<Mail>() <= 256);

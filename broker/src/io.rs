//! The seam between a shard's brain and the I/O that moves its bytes, made of data.
//!
//! Completion-shaped: a buffer goes out with the order to fill or to send it, and comes back,
//! owned, with the result. Readiness can imitate that, the reverse is not possible. At most one
//! read and one write of a link are on their way at any time; the brain keeps to it and a backend
//! may rely on it. Never: policy, clocks, what is in the bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::mail::Mail;

pub mod choice;
pub(crate) mod orders;
#[cfg(feature = "sim")]
pub mod sim;
pub(crate) mod socket;
pub(crate) mod tokio;
#[cfg(target_os = "linux")]
pub(crate) mod uring;
mod wall;

/// A link of one shard. Given by the backend, never used again after its [`Input::Failed`] or
/// [`Output::Close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Bytes of a write that lie elsewhere, and maybe in other links' writes, too. They stay until the
/// write is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// So many of the write's own bytes go before it.
    pub at: usize,
    /// What goes there; not empty.
    pub bytes: Bytes,
}

/// All of a write, in order: its own bytes, and the pieces between them, which are in the order of
/// their places.
pub(crate) fn slices<'a>(data: &'a [u8], pieces: &'a [Piece]) -> impl Iterator<Item = &'a [u8]> {
    let ends = pieces.iter().map(|piece| piece.at).chain([data.len()]);
    let mut from = 0;
    let own = ends.map(move |end| &data[std::mem::replace(&mut from, end)..end]);
    let theirs = pieces.iter().map(|piece| &piece.bytes[..]).chain([&[][..]]);
    own.zip(theirs).flat_map(|(own, theirs)| [own, theirs]).filter(|slice| !slice.is_empty())
}

/// All of a write in one buffer: its own, if there is nothing else.
#[must_use]
pub fn joined(data: Vec<u8>, pieces: &[Piece]) -> Vec<u8> {
    if pieces.is_empty() { data } else { slices(&data, pieces).flatten().copied().collect() }
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A peer connected. Nothing is read until the brain orders it.
    Accepted {
        /// The new link.
        link: LinkId,
        /// The peer's address, if the transport knows: words for people.
        peer: Option<Arc<str>>,
    },
    /// Another shard has handed a link over. Nothing is read until the brain orders it.
    Adopted {
        /// The link, by a new number.
        link: LinkId,
        /// As in [`Input::Accepted`].
        peer: Option<Arc<str>>,
        /// What the peer has sent so far: its HELLO, and what was read behind it.
        data: Vec<u8>,
    },
    /// Answer to [`Output::Read`]: the buffer, with what was read since in it. Never empty: the
    /// end of the stream is [`Input::Ended`].
    Bytes {
        /// The link.
        link: LinkId,
        /// The buffer of the order, or another one in its place.
        data: Vec<u8>,
    },
    /// Answer to [`Output::Read`]: the peer will send nothing more.
    Ended {
        /// The link.
        link: LinkId,
    },
    /// Answer to [`Output::Write`]: all of it is with the kernel.
    Wrote {
        /// The link.
        link: LinkId,
        /// The buffer of the order, or another one in its place.
        data: Vec<u8>,
    },
    /// The transport failed, in either direction. Orders on their way are void; no other input
    /// follows for this link.
    Failed {
        /// The link.
        link: LinkId,
    },
    /// From another shard.
    Mail(Mail),
    /// Time passed; nothing else happened.
    Tick,
    /// The process was told to stop: links have this many milliseconds to leave.
    Drain {
        /// Milliseconds.
        deadline_ms: u32,
    },
}

/// What a backend must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Read into this buffer, which is empty and has room, and answer with [`Input::Bytes`],
    /// [`Input::Ended`] or [`Input::Failed`].
    Read {
        /// The link.
        link: LinkId,
        /// Where to put the bytes.
        buffer: Vec<u8>,
    },
    /// Write all of this and answer with [`Input::Wrote`] or [`Input::Failed`].
    Write {
        /// The link.
        link: LinkId,
        /// Its own bytes.
        data: Vec<u8>,
        /// Those that lie elsewhere, in the order of their places. Mostly none.
        pieces: Vec<Piece>,
    },
    /// End our direction; reading goes on. No answer.
    Shutdown {
        /// The link.
        link: LinkId,
    },
    /// Close the link and forget it; orders on their way are void. No answer.
    Close {
        /// The link.
        link: LinkId,
    },
    /// Another shard is to serve the link: forget it here, and give its socket over. That shard's
    /// input is [`Input::Adopted`]. Neither a read nor a write is on its way. No answer.
    HandOver {
        /// The link.
        link: LinkId,
        /// The shard.
        to: u16,
        /// For that input.
        peer: Option<Arc<str>>,
        /// For that input. What the backend has read beyond what was given, it adds.
        data: Vec<u8>,
    },
    /// Hand this to another shard. In the order of these orders, for each pair of shards.
    Mail {
        /// The shard.
        to: u16,
        /// What to hand over.
        mail: Mail,
    },
    /// Every link is gone after an [`Input::Drain`]: this shard has nothing left to do.
    Drained,
}

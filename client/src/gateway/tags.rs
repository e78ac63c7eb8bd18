//! Tags as a gateway declares them, and commands of backends that give or take them.
//!
//! Declared is that some connection has a tag, never which: the latter is known to the gateway
//! alone.

use std::sync::Arc;

use bytes::Bytes;
use waybill_wire::Frame;
use waybill_wire::code::Op;
use waybill_wire::frame::Tag;

/// A tag that some connection of this gateway has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeclaredTag {
    /// The tenant.
    pub namespace: u32,
    /// The tag: 1 to `tag_bytes_max` bytes without control characters. Clones share it, so that
    /// links to several brokers hold it once.
    pub text: Arc<str>,
}

/// A declared tag that comes or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagUpdate {
    /// Add or remove; anything else changes nothing.
    pub op: Op,
    /// Which.
    pub tag: DeclaredTag,
}

impl TagUpdate {
    /// The first connection gets it.
    #[must_use]
    pub fn add(tag: DeclaredTag) -> Self {
        Self { op: Op::ADD, tag }
    }

    /// No connection has it any more.
    #[must_use]
    pub fn remove(tag: DeclaredTag) -> Self {
        Self { op: Op::REMOVE, tag }
    }
}

/// A TAG frame, kept as it came: a backend gives tags to users of this gateway, or takes them from
/// them. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagging {
    frame: Bytes,
    link: u64,
}

impl Tagging {
    /// `frame` is a TAG that was decoded once.
    pub(super) fn new(frame: Bytes, link: u64) -> Self {
        Self { frame, link }
    }

    /// The link it came by, as [`Delivery::link`](super::Delivery::link).
    #[must_use]
    pub fn link(&self) -> u64 {
        self.link
    }

    /// What it says. Reads the frame again: call it once and keep the result.
    ///
    /// # Panics
    ///
    /// Never: the bytes are those of a TAG that was decoded when it came.
    #[must_use]
    pub fn tag(&self) -> Tag<'_> {
        match Frame::decode(&self.frame) {
            Ok(Frame::Tag(tag)) => tag,
            other => unreachable!("was a TAG when it came: {other:?}"),
        }
    }

    /// Bytes it is counted with while it waits to be taken.
    pub(super) fn bytes(&self) -> usize {
        self.frame.len()
    }
}

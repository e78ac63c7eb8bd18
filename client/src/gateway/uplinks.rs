//! Uplinks of one link: those that wait to be written, and those that wait for their answer.

use std::collections::{BTreeSet, VecDeque};

use waybill_wire::code::ErrorCode;
use waybill_wire::error::Unencodable;
use waybill_wire::message::{MessageHead, Sender};

use super::Uplink;
use crate::machine::WRITE_BYTES;

/// The answer to one uplink: its sequence and a code.
pub(super) type Answer = (u64, ErrorCode);

/// Invariant: `waiting` holds `bytes` bytes; a sequence is in at most one of the two.
#[derive(Debug)]
pub(super) struct Uplinks {
    waiting: VecDeque<Uplink>,
    bytes: usize,
    /// Sequences of uplinks that were transmitted and have no answer.
    unanswered: BTreeSet<u64>,
    count_max: usize,
    bytes_max: usize,
}

impl Uplinks {
    /// At most `count_max` without an answer, and about `bytes_max` bytes of them not transmitted.
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        let (waiting, unanswered) = (VecDeque::new(), BTreeSet::new());
        Self { waiting, bytes: 0, unanswered, count_max, bytes_max }
    }

    /// Takes one over, or refuses it.
    pub(super) fn push(&mut self, uplink: Uplink) -> Result<(), Answer> {
        let full = self.waiting.len() + self.unanswered.len() >= self.count_max;
        if full || self.bytes >= self.bytes_max {
            return Err((uplink.sequence, ErrorCode::OVERLOADED));
        }
        self.bytes += uplink.pending_bytes();
        self.waiting.push_back(uplink);
        Ok(())
    }

    /// Nobody waits for it any more.
    pub(super) fn abandon(&mut self, sequence: u64) {
        if self.unanswered.remove(&sequence) {
            return;
        }
        if let Some(at) = self.waiting.iter().position(|uplink| uplink.sequence == sequence)
            && let Some(uplink) = self.waiting.remove(at)
        {
            self.bytes -= uplink.pending_bytes();
        }
    }

    /// Whether this is an answer that is waited for.
    pub(super) fn answered(&mut self, sequence: u64) -> bool {
        self.unanswered.remove(&sequence)
    }

    /// The link is gone: sequences, and whether they were transmitted.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = (u64, bool)> {
        self.bytes = 0;
        let lost = std::mem::take(&mut self.unanswered).into_iter();
        let unsent = std::mem::take(&mut self.waiting).into_iter();
        lost.map(|sequence| (sequence, true)).chain(unsent.map(|uplink| (uplink.sequence, false)))
    }

    /// Appends frames until `out` has [`WRITE_BYTES`]; what cannot be encoded is refused.
    pub(super) fn transmit(&mut self, out: &mut Vec<u8>, mut refused: impl FnMut(Answer)) {
        while out.len() < WRITE_BYTES
            && let Some(uplink) = self.waiting.pop_front()
        {
            self.bytes -= uplink.pending_bytes();
            match encode(&uplink, out) {
                Ok(()) => {
                    self.unanswered.insert(uplink.sequence);
                }
                Err(error) => {
                    // Its sender's fault, not the link's: labels or payload above a limit.
                    tracing::debug!(%error, "uplink refused");
                    refused((uplink.sequence, error.code));
                }
            }
        }
    }

    /// Whether none waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.unanswered.is_empty()
    }
}

fn encode(uplink: &Uplink, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let labels: Vec<&str> = uplink.labels.iter().map(String::as_str).collect();
    let head = MessageHead {
        sequence: uplink.sequence,
        namespace: uplink.namespace,
        resend: uplink.resend,
        sender: Some(Sender { uid: uplink.uid, connection: uplink.connection }),
        content: uplink.content,
        labels: (&labels).into(),
        ..MessageHead::default()
    };
    head.encode_uplink(&uplink.payload, out)
}

//! Publishes whose payload goes out in pieces, with others between them (FRG-1 to FRG-3).
//!
//! Of one priority there is one at a time, and none of that priority goes between its pieces, so
//! that their order stays what it was (FRG-6). What is sent again goes alone (PUB-5). The more
//! urgent goes first, and now and then the one that has waited: others of its priority wait for it,
//! and the broker keeps what has come of it.

use std::cmp::Reverse;
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use waybill_wire::assembly::cuts;
use waybill_wire::code::Priority;
use waybill_wire::frame::Fragment;
use waybill_wire::limits::FRAGMENTED_BYTES_MAX;

use super::job::{Flight, Job, Reply};
use super::machine::ProducerMachine;
use crate::machine::WRITE_BYTES;

/// A payload longer than this is cut: a shorter one goes in one write all the same.
pub(super) const WHOLE_BYTES_MAX: usize = WRITE_BYTES;

/// Bytes of a piece: half of a write, so that others have the other half.
pub(super) const PIECE_BYTES: usize = WRITE_BYTES / 2;

/// How many of those that wait are looked at for one that may go between the pieces of another.
const LOOK_AHEAD: usize = 64;

/// Pieces of more urgent ones that go at most before a piece of one that waits: two that wait have
/// half of the pieces, one a quarter.
const PASSED_MAX: u32 = 3;

/// See the module. Invariant: their priorities differ, and their payloads come to at most
/// [`FRAGMENTED_BYTES_MAX`].
#[derive(Debug)]
pub(super) struct Cuts {
    open: Vec<Cut>,
    whole_bytes_max: usize,
    piece_bytes: usize,
}

/// A publish of which pieces are missing.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) sequence: u64,
    pub(super) priority: Priority,
    pub(super) payload: Bytes,
    /// How much of it went with the first piece.
    pub(super) at: usize,
    /// It was transmitted before.
    pub(super) resend: bool,
    /// What is settled once all of it is written; `None` if that takes a receipt.
    pub(super) flight: Option<Flight>,
    /// Pieces of others that have gone since its last one.
    pub(super) passed: u32,
}

impl Default for Cuts {
    fn default() -> Self {
        Self::of(WHOLE_BYTES_MAX, PIECE_BYTES)
    }
}

impl Cuts {
    /// Of payloads that are longer than the first, pieces of the second, which is not 0.
    pub(super) fn of(whole_bytes_max: usize, piece_bytes: usize) -> Self {
        debug_assert!((1..=whole_bytes_max).contains(&piece_bytes));
        Self { open: Vec::new(), whole_bytes_max, piece_bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether that message is among them.
    pub(super) fn has(&self, sequence: u64) -> bool {
        self.open.iter().any(|cut| cut.sequence == sequence)
    }

    /// Whether one is that is sent again.
    pub(super) fn resends(&self) -> bool {
        self.open.iter().any(|cut| cut.resend)
    }

    /// Whether a publish of this priority has to wait, of which so many bytes are to be cut.
    pub(super) fn blocks(&self, priority: Priority, cut_bytes: usize) -> bool {
        let open: usize = self.open.iter().map(|cut| cut.payload.len()).sum();
        let is_beyond = cut_bytes > 0 && open + cut_bytes > FRAGMENTED_BYTES_MAX;
        is_beyond || self.open.iter().any(|cut| cut.priority == priority)
    }

    pub(super) fn push(&mut self, cut: Cut) {
        debug_assert!(!self.blocks(cut.priority, cut.payload.len()) && cut.at < cut.payload.len());
        self.open.push(cut);
    }

    /// Whose piece goes next.
    fn next(&self) -> Option<usize> {
        // Who has not been passed that often has no claim by that.
        let claim = |cut: &Cut| (cut.passed.max(PASSED_MAX - 1), Reverse(cut.priority.rank()));
        (0..self.open.len()).max_by_key(|at| claim(&self.open[*at]))
    }

    /// Appends the next piece, of at most so many bytes as the broker takes in a frame. What is
    /// settled by the last one of its message.
    pub(super) fn transmit(&mut self, payload_max: usize, out: &mut Vec<u8>) -> Option<Flight> {
        let at = self.next()?;
        self.open.iter_mut().for_each(|cut| cut.passed += 1);
        let cut = &mut self.open[at];
        cut.passed = 0;
        let piece_bytes = self.piece_bytes.min(payload_max);
        let Range { start, end } = cuts(cut.payload.len(), cut.at, piece_bytes).next()?;
        let last = end == cut.payload.len();
        let offset = u32::try_from(start).unwrap_or(u32::MAX);
        let (sequence, payload) = (cut.sequence, &cut.payload[start..end]);
        let fragment = Fragment { last, offset, sequence, origin: 0, payload };
        fragment.encode(out).expect("a piece is not empty, and shorter than a frame");
        cut.at = end;
        if last { self.open.remove(at).flight } else { None }
    }

    /// Their link is gone: what was to be settled.
    pub(super) fn lose(&mut self) -> impl Iterator<Item = Flight> {
        std::mem::take(&mut self.open).into_iter().filter_map(|cut| cut.flight)
    }
}

impl<R: Reply> ProducerMachine<R> {
    /// How much of a payload of so many bytes goes first, if it is cut.
    pub(super) fn first_of(&self, bytes: usize) -> Option<usize> {
        let may_cut = self.message_max > self.payload_max;
        let cut = may_cut && bytes > self.cuts.whole_bytes_max.min(self.payload_max);
        cut.then_some(self.cuts.piece_bytes.min(self.payload_max))
    }

    /// Transmits what has not been, as long as there is room: from the head of the queue, and past
    /// what has to wait for the rest of one that is cut, but for others of its priority.
    pub(super) fn transmit_new(&mut self, now: Instant, out: &mut Vec<u8>) {
        let (mut at, mut waits) = (0, [false; 4]);
        while out.len() < WRITE_BYTES && at < LOOK_AHEAD {
            let Some(&id) = self.queue.get(at) else { return };
            let priority = self.jobs[id].order.request.payload().map(|(_, priority)| priority);
            let waits = priority.and_then(|it| waits.get_mut(usize::from(it.0)));
            if waits.as_deref() == Some(&true) || self.is_blocked(&self.jobs[id]) {
                at += 1;
                waits.into_iter().for_each(|it| *it = true);
            } else if self.transmit_job(now, id, out) {
                self.queue.remove(at);
            } else if !self.is_blocked(&self.jobs[id]) {
                return;
            }
        }
    }

    pub(super) fn is_blocked(&self, job: &Job<R>) -> bool {
        let payload = job.order.request.payload();
        payload.is_some_and(|(payload, priority)| {
            let cut_bytes = self.first_of(payload.len()).map_or(0, |_| payload.len());
            self.cuts.blocks(priority, cut_bytes)
        })
    }
}

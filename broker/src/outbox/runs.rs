//! Frames that several outboxes share: messages that follow each other and go to the same gateways
//! as they are lie in one buffer, and a lane knows where they stand among its own frames.
//!
//! A run stands before the lane's own frame at its position, and takes no byte of the lane's
//! buffer. Its frames have no notes: none has a time to live, a key, or somebody who is to be told
//! of it. Its buffer stays as it is until the last of its frames is written, so a lane with one of
//! them left holds all of it.

use std::collections::VecDeque;

use bytes::Bytes;
use waybill_wire::code::Priority;

use super::lane::{Lane, length};
use super::write::Write;
use super::{Cause, Gone, Outbox, queue_of};
use crate::io::Piece;
use crate::limits::WRITE_BYTES;

/// Whole frames, one behind the other.
#[derive(Clone, Debug)]
pub struct Run {
    bytes: Bytes,
    frames: usize,
    // Of the buffer that the bytes lie in.
    held: usize,
}

impl Run {
    /// So many frames, in a buffer of `held` bytes.
    #[must_use]
    pub fn new(bytes: Bytes, frames: usize, held: usize) -> Self {
        debug_assert!(frames > 0 && bytes.len() <= held, "it is in its buffer");
        Self { bytes, frames, held }
    }

    /// How many frames it has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.frames
    }

    /// Each of its frames.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(
            move || {
                if rest.is_empty() { None } else { rest.split_off(..length(rest)) }
            },
        )
    }
}

/// The runs of one lane, each with its position.
#[derive(Debug, Default)]
pub(super) struct Runs {
    all: VecDeque<(u64, Run)>,
    waiting: usize,
    held: usize,
    // Frames of runs that there have been, and those of them that have left.
    entered: u64,
    left: u64,
}

impl Runs {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Bytes of frames that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Bytes of their places among the lane's own frames.
    pub(super) fn places(&self) -> usize {
        self.all.len() * size_of::<(u64, Run)>()
    }

    /// Bytes of memory that they take.
    pub(super) fn held(&self) -> usize {
        self.held + self.all.capacity() * size_of::<(u64, Run)>()
    }

    pub(super) fn entered(&self) -> u64 {
        self.entered
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// The first, if it stands at that position or before.
    fn at(&self, position: u64) -> Option<&Run> {
        self.all.front().filter(|(at, _)| *at <= position).map(|(_, run)| run)
    }

    /// So many frames of the first leave: their bytes.
    fn leave(&mut self, frames: usize, bytes: usize) -> Option<Run> {
        let (_, run) = self.all.front_mut()?;
        let taken = Run { bytes: run.bytes.split_to(bytes), frames, held: run.held };
        run.frames -= frames;
        self.waiting -= bytes;
        self.left += frames as u64;
        if run.frames == 0 {
            self.held -= run.held;
            self.all.pop_front();
        }
        Some(taken)
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        (self.waiting, self.held, self.left) = (0, 0, self.entered);
    }

    pub(super) fn trim(&mut self) {
        if self.all.is_empty() {
            self.all = VecDeque::new();
        }
    }

    /// All of them, for a write of the lane's own bytes as they lie from `base` on.
    pub(super) fn give(&mut self, base: u64, write: &mut Write) {
        for (at, run) in self.all.drain(..) {
            let at = usize::try_from(at - base).expect("it stands in what waits");
            write.refer(at, run);
        }
        self.clear();
    }

    /// Gives the runs up to that position, which come next, another one.
    pub(super) fn moved(&mut self, from: &mut usize, upto: u64, to: u64) {
        while let Some((at, _)) = self.all.get_mut(*from).filter(|(at, _)| *at <= upto) {
            *at = to;
            *from += 1;
        }
    }
}

impl Lane {
    /// Whether a frame of a run is the next.
    pub(super) fn has_run_next(&self) -> bool {
        !self.runs.is_empty() && self.next_of_run().is_some()
    }

    /// The next frame, if it is one of a run, and what follows it there.
    pub(super) fn next_of_run(&self) -> Option<&[u8]> {
        self.runs.at(self.front()).map(|run| &run.bytes[..])
    }

    fn add_run(&mut self, run: Run) {
        let at = self.position(self.bytes.len());
        self.enter(run.frames);
        let runs = &mut self.runs;
        runs.waiting += run.bytes.len();
        runs.held += run.held;
        runs.entered += run.frames as u64;
        runs.all.push_back((at, run));
    }

    fn leave_run(&mut self, frames: usize, bytes: usize) -> Option<Run> {
        let run = self.runs.leave(frames, bytes)?;
        self.leave_entered(frames);
        Some(run)
    }

    /// Puts frames of the run that comes next into a write, until that is full; how many.
    pub(super) fn take_run(&mut self, write: &mut Write) -> u64 {
        let Some(run) = self.runs.at(self.front()) else { return 0 };
        let (mut frames, mut bytes) = (run.frames, run.bytes.len());
        if write.bytes() + bytes > WRITE_BYTES {
            (frames, bytes) = (0, 0);
            for frame in run.frames() {
                if write.bytes() + bytes >= WRITE_BYTES {
                    break;
                }
                frames += 1;
                bytes += frame.len();
            }
        }
        if let Some(run) = self.leave_run(frames, bytes) {
            write.refer(write.data.len(), run);
        }
        frames as u64
    }

    /// Copies the next frame, if it is one of a run; how many.
    pub(super) fn copy_of_run(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        let bytes = length(self.next_of_run()?);
        out.extend_from_slice(&self.leave_run(1, bytes)?.bytes);
        Some(1)
    }

    /// Drops the next frame, if it is one of a run; whether it was.
    pub(super) fn drop_of_run(&mut self, cause: Cause, gone: &mut Gone) -> bool {
        let bytes = self.next_of_run().map(length);
        let dropped = bytes.and_then(|bytes| self.leave_run(1, bytes)).is_some();
        if dropped {
            gone.add(cause, 0);
        }
        dropped
    }

    /// What holds at any time; the frames of all runs.
    pub(super) fn frames_of_runs(&self) -> Option<usize> {
        let Runs { all, waiting, held, entered, left } = &self.runs;
        let counted = all.iter().all(|(_, run)| run.frames().count() == run.frames);
        let frames: usize = all.iter().map(|(_, run)| run.frames).sum();
        let bytes: usize = all.iter().map(|(_, run)| run.bytes.len()).sum();
        let buffers: usize = all.iter().map(|(_, run)| run.held).sum();
        let in_order = all.iter().is_sorted_by_key(|(at, _)| *at);
        let sums = (bytes, buffers, frames as u64) == (*waiting, *held, entered - left);
        (counted && in_order && sums).then_some(frames)
    }
}

impl Write {
    /// Adds frames of a run, behind so many own bytes.
    fn refer(&mut self, at: usize, Run { bytes, held, .. }: Run) {
        self.beside += bytes.len();
        self.held += held;
        self.pieces.push(Piece { at, bytes });
    }
}

impl Outbox {
    /// Takes in all frames of a run, which are of that priority, or none of them; whether it did.
    /// None of them has a time to live or a key, and nobody is told what becomes of them.
    #[must_use]
    pub fn offer_run(&mut self, priority: Priority, run: &Run) -> bool {
        let has_room = self.pays(run.bytes.len());
        if has_room {
            self.queues[queue_of(priority)].lane.add_run(run.clone());
        }
        has_room
    }
}

#[cfg(test)]
mod tests;

//! How long the frames of a lane have waited: not noted of each, but now and then of all there are.

use std::time::Duration;

use super::lane::Lane;
use super::{Cause, Gone};

/// A place between two frames: the position, and frames of runs before it.
pub(super) type End = (u64, u64);

impl Lane {
    /// Notes how much there is now; at most one note in every `step`.
    pub(super) fn note_age(&mut self, now: Duration, step: Duration) {
        let end = (self.position(self.bytes.len()), self.runs.entered());
        let is_due =
            self.ages.back().is_none_or(|(since, upto)| now - *since >= step && *upto != end);
        if self.frames() > 0 && is_due {
            self.ages.push_back((now, end));
        }
    }

    /// The last frame has waited since then, in another lane.
    pub(super) fn is_as_old(&mut self, since: Duration) {
        let end = (self.position(self.bytes.len()), self.runs.entered());
        match self.ages.back_mut() {
            // Of those before it nobody looked so early.
            Some((last, upto)) if *last >= since => *upto = end,
            _ => self.ages.push_back((since, end)),
        }
    }

    /// Since when the oldest frame has waited at least.
    pub(super) fn waits_since(&mut self) -> Option<Duration> {
        let (front, left) = (self.front(), self.runs.left());
        let has_left = |(own, shared): End| own <= front && shared <= left;
        while self.ages.pop_front_if(|(_, upto)| has_left(*upto)).is_some() {}
        self.ages.front().map(|(since, _)| *since)
    }

    /// Drops all that had been offered by then. [`Lane::settle`] follows.
    pub(super) fn drop_older(&mut self, since: Duration, gone: &mut Gone) {
        while let Some((_, (own, shared))) = self.ages.pop_front_if(|(noted, _)| *noted <= since) {
            while self.frames() > 0 && (self.front() < own || self.runs.left() < shared) {
                self.drop_oldest(Cause::Aged, gone);
            }
        }
    }
}

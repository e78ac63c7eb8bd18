//! How much is done for one frame before others are served (SEC-24), and what is not done yet.
//!
//! What a frame asks for beyond its part becomes a job, and its link is held: nothing more is taken
//! from it until the job is done, so that nothing overtakes it (promise 2). Whoever drives the
//! switchboard serves connections and other links, then calls [`go_on`](Switchboard::go_on), once a
//! turn. Jobs take turns; one whose message is being handed out for another link waits for that, so
//! that its report can tell of both.
//!
//! Bounded by the links: each has at most one job.

use std::collections::VecDeque;

use super::Switchboard;
use super::handing::Handing;
use super::tagging::TagJob;
use crate::recent::Key;

/// Connections that are met, tags of connections that are changed or users that are told, for one
/// frame and in one go.
///
/// With 10^6 connections, medians of a part, in milliseconds (release build, busy machine of two
/// cores): for everyone 0.12, for everyone with reports 0.44, by `not` alone 0.08, a list of 4,096
/// users with 64 connections each 0.39, as many changes of tags 0.44, confirmations 0.71. In one go
/// these were 560, 670, 210, 149, 274 and 1,530.
const PART: usize = 1 << 10;

/// What is not done yet.
#[derive(Debug)]
pub(super) enum Job {
    Handing(Box<Handing>),
    Tagging(Box<TagJob>),
}

impl Job {
    fn link(&self) -> usize {
        match self {
            Self::Handing(handing) => handing.link,
            Self::Tagging(tagging) => tagging.link,
        }
    }
}

#[derive(Debug)]
pub(super) struct Parts {
    size: usize,
    /// In this turn, or since its [`go_on`](Switchboard::go_on).
    spent: usize,
    jobs: VecDeque<Job>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { size: PART, spent: 0, jobs: VecDeque::new() }
    }
}

impl Parts {
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// So much of a part is left after a frame.
    pub(super) fn left(&mut self, left: usize) {
        self.spend((self.size - left).max(1));
    }

    pub(super) fn spend(&mut self, done: usize) {
        self.spent += done;
    }

    pub(super) fn turn_ends(&mut self) {
        self.spent = 0;
    }

    pub(super) fn add(&mut self, job: Job) {
        self.jobs.push_back(job);
    }

    /// Whether a copy of this message is being handed out.
    pub(super) fn is_handing(&self, key: Key) -> bool {
        let of_it = |it: &Handing| it.is_begun() && it.key() == key;
        self.jobs.iter().any(|job| matches!(job, Job::Handing(it) if of_it(it)))
    }
}

impl Switchboard {
    /// Whether nothing more should be taken from links in this turn.
    pub(crate) fn is_spent(&self) -> bool {
        self.parts.spent >= self.parts.size
    }

    /// Whether nothing is to be taken from this link until [`go_on`](Self::go_on) says so.
    pub(crate) fn is_held(&self, link: usize) -> bool {
        self.parts.jobs.iter().any(|job| job.link() == link)
    }

    /// Whether [`go_on`](Self::go_on) has something to do.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.parts.jobs.is_empty() || !self.confirmed.is_empty()
    }

    /// Does another part of what is not done. The link that is not held any more, if there is one.
    pub(crate) fn go_on(&mut self, now_ms: u64) -> Option<usize> {
        self.go_on_where(self.queues.pool.is_over(), now_ms)
    }

    /// The same, where too much is held or not.
    fn go_on_where(&mut self, is_over: bool, now_ms: u64) -> Option<usize> {
        self.parts.turn_ends();
        self.confirm();
        for _ in 0..self.parts.jobs.len() {
            let job = self.parts.jobs.pop_front()?;
            if self.must_wait(&job, is_over) {
                self.parts.add(job);
                continue;
            }
            let link = job.link();
            let rest = match job {
                Job::Handing(handing) => self.hand_on(handing).map(Job::Handing),
                Job::Tagging(tagging) => self.tag_on(tagging, now_ms).map(Job::Tagging),
            };
            self.tell();
            return match rest {
                Some(job) => {
                    self.parts.add(job);
                    None
                }
                None => Some(link),
            };
        }
        None
    }

    /// Whether a job is not to go on now: another copy of its message is being handed out, or it
    /// would be encoded while more is held than there should be.
    fn must_wait(&self, job: &Job, is_over: bool) -> bool {
        let Job::Handing(handing) = job else { return false };
        let is_copy = !handing.is_begun() && self.parts.is_handing(handing.key());
        is_copy || (is_over && !handing.is_encoded())
    }

    /// Does all that a link is held for.
    pub(super) fn finish(&mut self, link: usize, now_ms: u64) {
        while self.is_held(link) {
            let _freed = self.go_on_where(false, now_ms);
        }
    }

    /// As if a part were this large.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn set_part(&mut self, size: usize) {
        self.parts.size = size;
    }
}

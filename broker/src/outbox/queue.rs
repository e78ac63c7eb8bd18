//! Messages of one priority: a lane, where those with a key lie in it, and what has stepped aside
//! from it.
//!
//! What a producer sent behind a large message of its own waits until that is written, and *steps
//! aside* when it comes to the head of the lane, so that nobody else waits for it. All of one
//! producer that has stepped aside lies in a lane of its own, and as long as there is one, whatever
//! comes next of that producer follows it there (promise 2). A frame with a key never steps aside.
//! It holds the lane, so that those with a key leave in the order of the lane, whoever sent them.
//!
//! Invariant: all that has stepped aside had its place before all that lies in the lane.

use std::collections::VecDeque;

use waybill_wire::limits::FRAGMENTED_MAX;

use super::conflation::Keys;
use super::lane::{Lane, Noted, length};

/// Producers that may have stepped aside from one lane: they are gone through for each part of a
/// large message. What one more sent behind its own large message holds the lane.
const ASIDES_MAX: usize = FRAGMENTED_MAX;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) lane: Lane,
    pub(super) keys: Keys,
    // Those first whose turn is next.
    asides: Vec<Aside>,
}

/// What has stepped aside of one producer.
#[derive(Debug)]
struct Aside {
    origin: u64,
    lane: Lane,
    // How many had left the queue's lane before each frame, or less; of those of which this lane
    // does not know yet that they have left.
    places: VecDeque<u64>,
}

/// A lane of a queue: its own, or that of the producer at this place among those that have stepped
/// aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Lane,
    Aside(usize),
}

impl Aside {
    fn place_of_next(&self) -> u64 {
        let left = self.places.len() - self.known_to_wait();
        self.places.get(left).copied().unwrap_or(u64::MAX)
    }

    fn known_to_wait(&self) -> usize {
        usize::try_from(self.lane.entered() - self.lane.left_first()).expect("they are in memory")
    }

    /// To be called when frames have left.
    fn settle(&mut self) {
        self.lane.settle();
        self.places.drain(..self.places.len() - self.known_to_wait());
    }

    fn held(&self) -> usize {
        self.lane.held() + self.places.capacity() * size_of::<u64>()
    }
}

impl Queue {
    /// Frames that wait.
    pub(super) fn frames(&self) -> usize {
        self.lane.frames() + self.frames_aside()
    }

    /// Those of them that have stepped aside.
    pub(super) fn frames_aside(&self) -> usize {
        self.asides.iter().map(|aside| aside.lane.frames()).sum()
    }

    /// Bytes of them.
    pub(super) fn waiting(&self) -> usize {
        self.lanes().map(Lane::waiting).sum()
    }

    /// Bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        let asides: usize = self.asides.iter().map(Aside::held).sum();
        let list = self.asides.capacity() * size_of::<Aside>();
        self.lane.held() + self.keys.held() + asides + list
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.lane).chain(self.asides.iter().map(|aside| &aside.lane))
    }

    pub(super) fn lanes_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        let asides = self.asides.iter_mut().map(|aside| &mut aside.lane);
        std::iter::once(&mut self.lane).chain(asides)
    }

    pub(super) fn lane_mut(&mut self, from: Source) -> &mut Lane {
        match from {
            Source::Lane => &mut self.lane,
            Source::Aside(at) => &mut self.asides[at].lane,
        }
    }

    /// How many had left the queue's lane before the frame that is next there, or less.
    pub(super) fn place_of_next(&self, from: Source) -> u64 {
        match from {
            Source::Lane => self.lane.left_first(),
            Source::Aside(at) => self.asides[at].place_of_next(),
        }
    }

    /// How many of the first places there have been are left, at least.
    pub(super) fn left_first(&self) -> u64 {
        let asides = self.asides.iter().map(Aside::place_of_next).min();
        asides.unwrap_or(u64::MAX).min(self.lane.left_first())
    }

    /// How many producers have stepped aside.
    pub(super) fn asides(&self) -> usize {
        self.asides.len()
    }

    /// Whether something of that one waits there.
    pub(super) fn is_aside(&self, origin: u64) -> bool {
        self.asides.iter().any(|aside| aside.origin == origin && aside.lane.frames() > 0)
    }

    pub(super) fn may_step_aside(&self, origin: u64) -> bool {
        self.asides.len() < ASIDES_MAX || self.asides.iter().any(|aside| aside.origin == origin)
    }

    /// What comes next in the lane, which is of this producer, steps aside; how many bytes were
    /// moved for it.
    pub(super) fn step_aside(&mut self, origin: u64) -> usize {
        let place = self.lane.left_first();
        let at = self.asides.iter().position(|aside| aside.origin == origin);
        let aside = match at {
            Some(at) => &mut self.asides[at],
            None => {
                let (lane, places) = (Lane::default(), VecDeque::new());
                self.asides.push(Aside { origin, lane, places });
                self.asides.last_mut().expect("it was put there")
            }
        };
        aside.places.push_back(place);
        self.lane.move_next(&mut aside.lane)
    }

    /// The turn of the one at that place is over.
    pub(super) fn next_in_turn(&mut self, at: usize) {
        self.asides[at..].rotate_left(1);
    }

    /// The lane that has the oldest frame.
    pub(super) fn oldest(&mut self) -> &mut Lane {
        let waiting = self.asides.iter_mut().filter(|aside| aside.lane.frames() > 0);
        let oldest = waiting.min_by_key(|aside| aside.place_of_next());
        oldest.map_or(&mut self.lane, |aside| &mut aside.lane)
    }

    /// To be called when frames have left or were replaced.
    pub(super) fn settle(&mut self) {
        if self.lane.settle() {
            self.keys.rebuild(&self.lane);
        }
        if self.lane.frames() == 0 {
            self.keys.clear();
        }
        if !self.asides.is_empty() {
            self.asides.iter_mut().for_each(Aside::settle);
            self.asides.retain(|aside| aside.lane.frames() > 0);
        }
    }

    /// Gives the memory back that is kept for frames to come.
    pub(super) fn trim(&mut self) {
        self.keys.trim();
        self.lanes_mut().for_each(Lane::trim);
        self.asides.iter_mut().for_each(|aside| aside.places.shrink_to(2 * aside.places.len()));
        self.asides.shrink_to_fit();
    }

    /// Forgets all frames; how many there were.
    pub(super) fn abandon(&mut self) -> u64 {
        self.keys.clear();
        let lost = self.lanes_mut().map(Lane::abandon).sum();
        self.asides = Vec::new();
        lost
    }

    /// What holds at any time.
    pub(super) fn invariant(&self) -> bool {
        let in_order = |aside: &Aside| {
            let known = aside.places.len() >= aside.known_to_wait();
            known && aside.places.iter().is_sorted() && aside.lane.frames() > 0
        };
        let before = self.asides.iter().filter_map(|aside| aside.places.back());
        self.lanes().all(Lane::invariant)
            && self.asides.iter().all(in_order)
            && before.max().is_none_or(|last| *last < self.lane.left_first())
            && self.asides.len() <= ASIDES_MAX
    }
}

impl Lane {
    /// Moves the frame that comes next behind those of another lane; how many bytes it had here.
    fn move_next(&mut self, to: &mut Self) -> usize {
        let since = self.waits_since();
        let before = to.bytes.len();
        if self.copy_of_run(&mut to.bytes).is_some() {
            to.add(before);
        } else {
            self.move_own(to);
        }
        if let Some(since) = since {
            to.is_as_old(since);
        }
        to.bytes.len() - before
    }

    fn move_own(&mut self, to: &mut Self) {
        let (at, before) = (self.start, to.bytes.len());
        self.start += length(&self.bytes[at..]);
        let note = self.pop_note(at);
        let body = note.as_ref().map_or(at, |note| self.body_of(note));
        let frame = &self.bytes[body..body + length(&self.bytes[body..])];
        to.bytes.extend_from_slice(frame);
        let bytes = frame.len();
        self.first_left(bytes);
        let Some(note) = note else { return to.add(before) };
        match self.forget_payload(&note) {
            Some(payload) => to.add_large(before, Noted::of(&note), payload),
            None => to.add_noted(before, Noted::of(&note)),
        }
    }
}

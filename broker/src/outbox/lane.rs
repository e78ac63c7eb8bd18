//! Messages of one priority that wait for a link: one buffer, in the order they are written.
//!
//! How long a frame is stands in its prologue, so a plain one needs nothing beside its bytes. One
//! with a time to live, with a conflation key, or of which somebody wants to be told, has a note.
//! A frame that took the place of a shorter or longer one lies further back in the buffer: the note
//! of the place says where, and a note where it lies says that it is passed over there. Of a large
//! one only the header lies in the buffer, and a note says so (`large.rs`). Of frames that several
//! lanes share nothing does (`runs.rs`).
//!
//! Positions count from the first byte the lane ever had; that of `bytes[0]` is `base`.
//! Invariants: notes are in the order of `at`; `frames` and `waiting` count what will be written;
//! between two calls from outside at most half of the buffer is not, or what runs have in places.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use waybill_wire::limits::PROLOGUE_BYTES;

use super::age::End;
use super::runs::Runs;
use super::write::Write;
use super::{Cause, Gone};
use crate::limits::{SPARE_BYTES, WRITE_BYTES};

/// Where `ttl_ms` lies in a message header.
pub(crate) const TTL_OFFSET: usize = 28;

/// Beyond every number of a message: that it is traced, and that it is large.
pub(super) const TRACED: u64 = 1 << 63;
pub(super) const LARGE: u64 = 1 << 62;
/// The number itself.
pub(super) const NUMBER: u64 = LARGE - 1;

/// No time to live.
const NEVER: u64 = u64::MAX;
/// The frame of this place lies in it.
const HERE: u64 = u64::MAX;
/// What lies here is not written here, or not at all.
const PASSED_OVER: u64 = u64::MAX - 1;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) bytes: Vec<u8>,
    pub(super) start: usize,
    base: u64,
    frames: usize,
    waiting: usize,
    // Places that there have been, and how many of the first of them have been left, or more.
    entered: u64,
    left_first: u64,
    pub(super) notes: VecDeque<Note>,
    // The payloads of large ones, by the positions of these, and the bytes of all of them.
    pub(super) larges: VecDeque<(u64, Bytes)>,
    pub(super) beside: usize,
    pub(super) runs: Runs,
    // Notes that a write has to look at.
    tended: usize,
    // No frame expires before, in microseconds.
    soonest: u64,
    // Times, and up to where all had been offered then.
    pub(super) ages: VecDeque<(Duration, End)>,
}

/// What is noted of a frame: a term of the sum in `limits.rs`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    pub(super) at: u64,
    body: u64,
    pub(super) expires_us: u64,
    pub(super) number: u64,
}

impl Note {
    fn is_tended(&self) -> bool {
        self.expires_us != NEVER || self.number & !NUMBER != 0 || self.body != HERE
    }

    pub(super) fn is_passed_over(&self) -> bool {
        self.body == PASSED_OVER
    }

    pub(super) fn is_large(&self) -> bool {
        self.number & LARGE != 0
    }

    /// The whole milliseconds it has left; `None` if its time ran out.
    pub(super) fn left_ms(&self, now_us: u64) -> Option<u64> {
        Some(self.expires_us.saturating_sub(now_us) / 1000).filter(|left_ms| *left_ms > 0)
    }

    pub(super) fn has_time_to_live(&self) -> bool {
        self.expires_us != NEVER
    }
}

const _: () = assert!(size_of::<Note>() == 32);

/// What is to be noted of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted {
    expires_us: u64,
    number: u64,
}

impl Noted {
    /// Of a frame offered at `now`; no number is 0.
    pub(super) fn new(now: Duration, ttl_ms: u32, number: u64, is_traced: bool) -> Self {
        let expires_us = if ttl_ms == 0 { NEVER } else { micros(now) + u64::from(ttl_ms) * 1000 };
        let number = if is_traced && number != 0 { number | TRACED } else { number };
        Self { expires_us, number }
    }

    /// As it was noted elsewhere.
    pub(super) fn of(&Note { expires_us, number, .. }: &Note) -> Self {
        Self { expires_us, number }
    }

    pub(super) fn large(self) -> Self {
        Self { number: self.number | LARGE, ..self }
    }
}

/// Length of the frame that these bytes begin with.
pub(super) fn length(bytes: &[u8]) -> usize {
    let [_, _, words_low, words_high, payload @ ..] =
        *bytes.first_chunk::<PROLOGUE_BYTES>().expect("a frame has a prologue");
    let header = usize::from(u16::from_le_bytes([words_low, words_high])) * 8;
    header + u32::from_le_bytes(payload) as usize
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(NEVER)
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            // Position 0 is before everything.
            base: 1,
            frames: 0,
            waiting: 0,
            entered: 0,
            left_first: 0,
            notes: VecDeque::new(),
            larges: VecDeque::new(),
            beside: 0,
            runs: Runs::default(),
            tended: 0,
            soonest: NEVER,
            ages: VecDeque::new(),
        }
    }
}

impl Lane {
    /// Frames that wait.
    pub(super) fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes of them.
    pub(super) fn waiting(&self) -> usize {
        self.waiting + self.beside + self.runs.waiting()
    }

    /// Bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        let ages = self.ages.capacity() * size_of::<(Duration, End)>();
        let larges = self.larges.capacity() * size_of::<(u64, Bytes)>() + self.beside;
        let notes = self.notes.capacity() * size_of::<Note>();
        self.bytes.capacity() + notes + ages + larges + self.runs.held()
    }

    /// Gives the memory back that is kept for frames to come, or was taken for one that was
    /// refused.
    pub(super) fn trim(&mut self) {
        if self.frames == 0 {
            self.ages = VecDeque::new();
            self.runs.trim();
        }
        if self.bytes.is_empty() {
            (self.bytes, self.notes, self.larges) = Default::default();
        } else if self.bytes.capacity() > 4 * self.bytes.len() {
            self.bytes.shrink_to(2 * self.bytes.len());
        }
    }

    /// Places that there have been; a frame that takes another's adds none.
    pub(super) fn entered(&self) -> u64 {
        self.entered
    }

    /// How many of the first of those have been left, at least.
    pub(super) fn left_first(&self) -> u64 {
        self.left_first
    }

    /// The buffer, to encode one frame behind what is in it. [`Lane::add`] or [`Lane::replace`]
    /// follows, or it is cut off again.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The frame encoded there.
    pub(super) fn encoded(&self, before: usize) -> &[u8] {
        &self.bytes[before..]
    }

    /// The position of an offset in the buffer.
    pub(super) fn position(&self, offset: usize) -> u64 {
        self.base + offset as u64
    }

    /// The position of what is written next.
    pub(super) fn front(&self) -> u64 {
        self.position(self.start)
    }

    /// Takes in the frame encoded from `before` on, of which there is nothing to be noted.
    pub(super) fn add(&mut self, before: usize) {
        self.enter(1);
        self.waiting += self.bytes.len() - before;
    }

    pub(super) fn enter(&mut self, frames: usize) {
        self.frames += frames;
        self.entered += frames as u64;
    }

    /// The same for one with a note.
    pub(super) fn add_noted(&mut self, before: usize, noted: Noted) {
        self.add(before);
        self.note(before, HERE, noted);
    }

    fn note(&mut self, offset: usize, body: u64, Noted { expires_us, number }: Noted) {
        let note = Note { at: self.position(offset), body, expires_us, number };
        self.tended += usize::from(note.is_tended());
        self.soonest = self.soonest.min(expires_us);
        self.notes.push_back(note);
    }

    /// The note of the frame at that position, if it has one and is still to be written.
    pub(super) fn place(&self, at: u64) -> Option<usize> {
        let place = self.notes.binary_search_by_key(&at, |note| note.at).ok()?;
        (at >= self.front() && self.notes[place].body != PASSED_OVER).then_some(place)
    }

    /// The frame of that place.
    pub(super) fn frame(&self, place: usize) -> &[u8] {
        let offset = self.body_of(&self.notes[place]);
        &self.bytes[offset..offset + length(&self.bytes[offset..])]
    }

    /// The positions of frames with a note, in order, and the frames.
    pub(super) fn noted(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let notes = self.notes.iter().enumerate();
        let here = notes.filter(|(_, note)| note.body != PASSED_OVER);
        here.map(|(place, note)| (note.at, self.frame(place)))
    }

    pub(super) fn body_of(&self, note: &Note) -> usize {
        let at = if note.body == HERE { note.at } else { note.body };
        usize::try_from(at - self.base).expect("what is in the buffer has its offset in it")
    }

    /// Puts the frame encoded from `before` on into a place; the number of the one that was there.
    pub(super) fn replace(&mut self, place: usize, before: usize, noted: Noted) -> u64 {
        let offset = self.body_of(&self.notes[place]);
        let (old, new) = (length(&self.bytes[offset..]), self.bytes.len() - before);
        self.waiting = self.waiting + new - old;
        self.soonest = self.soonest.min(noted.expires_us);
        let mut body = self.notes[place].body;
        if new == old {
            self.bytes.copy_within(before.., offset);
            self.bytes.truncate(before);
        } else {
            body = self.position(before);
            self.note(before, PASSED_OVER, Noted { expires_us: NEVER, number: 0 });
        }
        let note = &mut self.notes[place];
        let (was_tended, number) = (note.is_tended(), note.number);
        *note = Note { at: note.at, body, expires_us: noted.expires_us, number: noted.number };
        self.tended = self.tended + usize::from(note.is_tended()) - usize::from(was_tended);
        number & NUMBER
    }

    /// Whether all of it may be written as it lies, in one write.
    pub(super) fn may_swap(&self) -> bool {
        let bytes = self.bytes.len() + self.runs.waiting();
        self.start == 0 && self.tended == 0 && bytes <= WRITE_BYTES
    }

    /// Gives all of it away for an empty buffer.
    pub(super) fn swap(&mut self, spare: Vec<u8>) -> Write {
        let mut write = Write::of(std::mem::replace(&mut self.bytes, spare));
        if !self.runs.is_empty() {
            self.runs.give(self.base, &mut write);
        }
        self.base += write.data.len() as u64;
        self.reset();
        write
    }

    /// Nothing waits any more.
    fn reset(&mut self) {
        self.base += self.bytes.len() as u64;
        self.bytes.clear();
        (self.start, self.frames, self.waiting, self.tended) = (0, 0, 0, 0);
        self.left_first = self.entered;
        self.soonest = NEVER;
        if !self.notes.is_empty() {
            self.notes.clear();
            self.notes.shrink_to(SPARE_BYTES / size_of::<Note>());
        }
        if !self.ages.is_empty() {
            self.ages.clear();
        }
        if !self.larges.is_empty() {
            self.larges.clear();
            self.beside = 0;
        }
        if !self.runs.is_empty() {
            self.runs.clear();
        }
        if self.bytes.capacity() > SPARE_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Forgets all frames; how many there were.
    pub(super) fn abandon(&mut self) -> u64 {
        let lost = self.frames as u64;
        self.reset();
        self.bytes = Vec::new();
        lost
    }

    /// Appends whole frames to a write until that is full; how many. Those whose time ran out are
    /// left out, and what is left of the others' is written into them. There is no large one.
    /// [`Lane::settle`] follows.
    pub(super) fn take(
        &mut self,
        now: Duration,
        write: &mut Write,
        gone: &mut Gone,
        traced: &mut Vec<u64>,
    ) -> u64 {
        let (now_us, mut taken) = (micros(now), 0);
        // The first byte of frames without a note that are still to be copied.
        let mut run = self.start;
        while self.frames > 0 && write.bytes() + (self.start - run) < WRITE_BYTES {
            let at = self.start;
            if self.has_run_next() {
                write.data.extend_from_slice(&self.bytes[run..at]);
                run = at;
                taken += self.take_run(write);
                continue;
            }
            let bytes = length(&self.bytes[at..]);
            self.start += bytes;
            let Some(note) = self.pop_note(at) else {
                self.first_left(bytes);
                taken += 1;
                continue;
            };
            write.data.extend_from_slice(&self.bytes[run..at]);
            run = self.start;
            if note.body != PASSED_OVER {
                taken += self.take_noted(&note, now_us, &mut write.data, gone, traced);
            }
        }
        write.data.extend_from_slice(&self.bytes[run..self.start]);
        taken
    }

    pub(super) fn take_noted(
        &mut self,
        note: &Note,
        now_us: u64,
        out: &mut Vec<u8>,
        gone: &mut Gone,
        traced: &mut Vec<u64>,
    ) -> u64 {
        let offset = self.body_of(note);
        let frame = &self.bytes[offset..offset + length(&self.bytes[offset..])];
        let bytes = frame.len();
        let Some(left_ms) = note.left_ms(now_us) else {
            self.first_left(bytes);
            gone.add(Cause::Expired, note.number & NUMBER);
            return 0;
        };
        let at = out.len() + TTL_OFFSET;
        out.extend_from_slice(frame);
        if note.expires_us != NEVER {
            let left_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
            out[at..at + 4].copy_from_slice(&left_ms.to_le_bytes());
        }
        if note.number & TRACED != 0 {
            traced.push(note.number & NUMBER);
        }
        self.first_left(bytes);
        1
    }

    pub(super) fn first_left(&mut self, bytes: usize) {
        self.left_first += 1;
        self.left(bytes);
    }

    /// The first frames have left, and lay elsewhere.
    pub(super) fn leave_entered(&mut self, frames: usize) {
        self.left_first += frames as u64;
        self.frames -= frames;
    }

    fn left(&mut self, bytes: usize) {
        self.frames -= 1;
        self.waiting -= bytes;
    }

    pub(super) fn pop_note(&mut self, offset: usize) -> Option<Note> {
        let at = self.position(offset);
        let note = self.notes.pop_front_if(|note| note.at == at)?;
        self.tended -= usize::from(note.is_tended());
        Some(note)
    }

    /// Drops the frame that would be written next. [`Lane::settle`] follows.
    pub(super) fn drop_oldest(&mut self, cause: Cause, gone: &mut Gone) {
        while self.frames > 0 {
            if self.drop_of_run(cause, gone) {
                return;
            }
            let at = self.start;
            let bytes = length(&self.bytes[at..]);
            self.start += bytes;
            match self.pop_note(at) {
                None => {
                    self.first_left(bytes);
                    return gone.add(cause, 0);
                }
                Some(note) if note.body == PASSED_OVER => {}
                Some(note) => {
                    let offset = self.body_of(&note);
                    self.first_left(length(&self.bytes[offset..]));
                    self.forget_payload(&note);
                    return gone.add(cause, note.number & NUMBER);
                }
            }
        }
    }

    /// Notes to be looked at for those whose time ran out, or 0 if there can be none.
    pub(super) fn to_sweep(&self, now: Duration) -> usize {
        let may_be = self.soonest.saturating_sub(micros(now)) < 1000;
        if may_be { self.notes.len() } else { 0 }
    }

    /// Drops all whose time ran out. [`Lane::settle`] follows.
    pub(super) fn sweep(&mut self, now: Duration, gone: &mut Gone) {
        let now_us = micros(now);
        self.soonest = NEVER;
        for place in 0..self.notes.len() {
            let note = self.notes[place];
            if note.expires_us.saturating_sub(now_us) >= 1000 {
                self.soonest = self.soonest.min(note.expires_us);
                continue;
            }
            let offset = self.body_of(&note);
            self.left(length(&self.bytes[offset..]));
            self.forget_payload(&note);
            let number = 0;
            // It had a time to live, so a write would have looked at it before, too.
            self.notes[place] = Note { body: PASSED_OVER, expires_us: NEVER, number, ..note };
            gone.add(Cause::Expired, note.number & NUMBER);
        }
    }

    /// Moves what waits together when half of the buffer is something else, so that each byte is
    /// moved at most once for each byte that left. Whether positions are others now.
    pub(super) fn settle(&mut self) -> bool {
        if self.frames == 0 {
            self.reset();
            return false;
        }
        let in_order = self.start + self.waiting == self.bytes.len();
        // All runs are gone through for it.
        let beside = if in_order { 0 } else { self.runs.places() };
        if (self.waiting + beside) * 2 > self.bytes.len() {
            return false;
        }
        if in_order {
            self.base += self.start as u64;
            self.bytes.drain(..self.start);
            self.start = 0;
        } else {
            self.rebuild();
        }
        if self.bytes.capacity() > SPARE_BYTES.max(4 * self.waiting) {
            self.bytes.shrink_to(2 * self.waiting);
        }
        !in_order
    }

    /// Writes all frames anew, each in its place.
    fn rebuild(&mut self) {
        let base = self.position(self.bytes.len());
        let mut bytes = Vec::with_capacity(2 * self.waiting);
        let (mut notes, mut ages) = (VecDeque::new(), VecDeque::new());
        let (mut was_large, mut larges) = (std::mem::take(&mut self.larges), VecDeque::new());
        let mut runs_moved = 0;
        while self.start < self.bytes.len() {
            let at = self.start;
            let from = self.position(at);
            let to = base + bytes.len() as u64;
            while let Some((since, upto)) = self.ages.pop_front_if(|(_, upto)| upto.0 <= from) {
                ages.push_back((since, (to, upto.1)));
            }
            self.runs.moved(&mut runs_moved, from, to);
            self.start += length(&self.bytes[at..]);
            let note = self.notes.pop_front_if(|note| note.at == from);
            let offset = note.as_ref().map_or(at, |note| match note.body {
                PASSED_OVER => at,
                _ => self.body_of(note),
            });
            if let Some(note) = note {
                if note.body == PASSED_OVER {
                    continue;
                }
                let at = base + bytes.len() as u64;
                if note.is_large()
                    && let Some((_, payload)) = was_large.pop_front()
                {
                    larges.push_back((at, payload));
                }
                notes.push_back(Note { at, body: HERE, ..note });
            }
            bytes.extend_from_slice(&self.bytes[offset..offset + length(&self.bytes[offset..])]);
        }
        let end = base + bytes.len() as u64;
        ages.extend(self.ages.drain(..).map(|(since, upto)| (since, (end, upto.1))));
        self.runs.moved(&mut runs_moved, u64::MAX, end);
        self.tended = notes.iter().filter(|note| note.is_tended()).count();
        (self.bytes, self.notes, self.ages) = (bytes, notes, ages);
        self.larges = larges;
        (self.start, self.base) = (0, base);
    }

    /// What holds at any time.
    pub(super) fn invariant(&self) -> bool {
        let (mut at, mut frames, mut waiting) = (self.start, 0, 0);
        let mut notes = self.notes.iter().peekable();
        while at < self.bytes.len() {
            let note = notes.next_if(|note| note.at == self.position(at));
            let offset = match note {
                Some(note) if note.body == PASSED_OVER => None,
                Some(note) => Some(self.body_of(note)),
                None => Some(at),
            };
            frames += usize::from(offset.is_some());
            waiting += offset.map_or(0, |offset| length(&self.bytes[offset..]));
            at += length(&self.bytes[at..]);
        }
        let Some(shared) = self.frames_of_runs() else { return false };
        let tended = self.notes.iter().filter(|note| note.is_tended()).count();
        let found = (frames + shared, waiting, tended, notes.next().is_none());
        found == (self.frames, self.waiting, self.tended, true) && self.larges_are_noted()
    }
}

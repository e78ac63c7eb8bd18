//! Messages whose payload is large: of such a one the lane has the header alone, which announces no
//! payload, and the payload lies where several outboxes may share it.
//!
//! Without FRAGMENTED it goes whole, in its place. With it, it is *open* from its first part on: it
//! leaves its lane, and its parts take turns with those of other open ones and with what lies in
//! the lane, so that neither answers nor other producers' messages wait for all of it. What its own
//! producer sent after it steps aside (`queue.rs`) and waits (promise 2): a message stands in its
//! order where its last part is. One that is open is finished, or lost with its link.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::{Kind, flags};
use waybill_wire::frame::Fragment;
use waybill_wire::limits::{FRAGMENTED_BYTES_MAX, FRAGMENTED_MAX};
use waybill_wire::prologue::PAYLOAD_LEN;

use super::lane::{Lane, NUMBER, Note, Noted, TRACED, TTL_OFFSET, length, micros};
use super::queue::Source;
use super::write::Write;
use super::{Cause, Gone, Outbox, QUEUES};
use crate::limits::{FRAGMENT_BYTES, WRITE_BYTES};

/// Where a message header has its flags, its sequence and ORIGIN.
const FLAGS_OFFSET: usize = 8;
const SEQUENCE_OFFSET: usize = 16;
const ORIGIN_OFFSET: usize = 32;
/// Its namespace; and CONFLATE's bytes, if there is neither ORIGIN nor TRACE.
const NAMESPACE_OFFSET: usize = 24;
const CONFLATE_OFFSET: usize = 32;

/// Large messages of which a part was written, those first whose turn is next.
#[derive(Debug, Default)]
pub(super) struct OpenOnes {
    all: VecDeque<Open>,
    payloads: usize,
}

#[derive(Debug)]
struct Open {
    queue: usize,
    origin: u64,
    sequence: u64,
    // Of namespace and conflation.
    key: Option<Key>,
    payload: Bytes,
    sent: usize,
    // Of header and payload.
    bytes: usize,
    // As in a note.
    number: u64,
    // Frames that had left its lane before it, or less.
    left_first: u64,
    // Since when it waits for its next part to be written.
    since: Duration,
}

/// A message that comes next in its lane.
struct Head {
    is_large: bool,
    is_fragmented: bool,
    origin: Option<u64>,
    sequence: u64,
    key: Option<Key>,
    payload: usize,
}

/// A namespace, and a conflation key in it.
type Key = (u32, u64);

/// What a message that comes next waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// What its producer sent before it in that queue.
    Behind,
    /// Another one of its key, or that more may be open.
    Otherwise,
}

/// What a queue gives to a write at one time.
struct Share {
    /// Bytes at which the write has had it.
    upto: usize,
    /// Messages that ended with it.
    frames: u64,
    /// Bytes that are not in the queue any more.
    left: usize,
    /// One waits until more may be open, so that no other one is opened before.
    is_short: bool,
}

impl Share {
    fn of(write: &Write) -> Self {
        let upto = (write.bytes() + FRAGMENT_BYTES).min(WRITE_BYTES);
        Self { upto, frames: 0, left: 0, is_short: false }
    }
}

impl Head {
    /// Of a frame, or of a large one's header and so many bytes of payload.
    fn of(frame: &[u8], large: Option<usize>) -> Self {
        let set = u16::from_le_bytes([frame[FLAGS_OFFSET], frame[FLAGS_OFFSET + 1]]);
        let is_message = frame[1] != Kind::TAG.0;
        let has = |flag| is_message && set & flag != 0;
        let has_origin = has(flags::message::ORIGIN);
        Self {
            is_large: large.is_some(),
            is_fragmented: large.is_some() && set & flags::message::FRAGMENTED != 0,
            origin: has_origin.then(|| u64_at(frame, ORIGIN_OFFSET)),
            sequence: u64_at(frame, SEQUENCE_OFFSET),
            key: has(flags::message::CONFLATE).then(|| key_of(frame, set)),
            payload: large.unwrap_or(0),
        }
    }
}

/// A large message that has left its lane.
struct Taken {
    header: Vec<u8>,
    payload: Bytes,
    number: u64,
}

impl Taken {
    /// The header, where this is the first that follows it.
    fn announce(&mut self, payload: usize) -> &[u8] {
        let announced = u32::try_from(payload).expect("no payload is longer than its limit");
        self.header[PAYLOAD_LEN].copy_from_slice(&announced.to_le_bytes());
        &self.header
    }
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("a header is longer than that"))
}

/// Of a frame with CONFLATE and these flags.
fn key_of(frame: &[u8], set: u16) -> Key {
    let origin = if set & flags::message::ORIGIN == 0 { 0 } else { 8 };
    let trace = if set & flags::message::TRACE == 0 { 0 } else { 16 };
    let namespace = frame[NAMESPACE_OFFSET..].first_chunk().expect("a header is longer than that");
    (u32::from_le_bytes(*namespace), u64_at(frame, CONFLATE_OFFSET + origin + trace))
}

impl Lane {
    /// Takes in the header encoded from `before` on, of a payload that lies elsewhere.
    pub(super) fn add_large(&mut self, before: usize, noted: Noted, payload: Bytes) {
        self.beside += payload.len();
        self.larges.push_back((self.position(before), payload));
        self.add_noted(before, noted.large());
    }

    /// Whether a large one waits.
    pub(super) fn has_large(&self) -> bool {
        !self.larges.is_empty()
    }

    /// The payload of a frame that leaves, if it is a large one.
    pub(super) fn forget_payload(&mut self, note: &Note) -> Option<Bytes> {
        if !note.is_large() {
            return None;
        }
        let place = self.larges.binary_search_by_key(&note.at, |(at, _)| *at).ok()?;
        let (_, payload) = self.larges.remove(place)?;
        self.beside -= payload.len();
        Some(payload)
    }

    /// Passes over what is not written where it lies, and says what comes next.
    fn head(&mut self) -> Option<Head> {
        while self.frames() > 0 {
            if let Some(frame) = self.next_of_run() {
                return Some(Head::of(frame, None));
            }
            let note = self.notes.front().filter(|note| note.at == self.front()).copied();
            if note.as_ref().is_some_and(Note::is_passed_over) {
                let at = self.start;
                self.start += length(&self.bytes[at..]);
                self.pop_note(at);
                continue;
            }
            let frame = &self.bytes[note.as_ref().map_or(self.start, |note| self.body_of(note))..];
            let is_large = note.as_ref().is_some_and(Note::is_large);
            let payload = self.larges.front().filter(|_| is_large);
            return Some(Head::of(frame, payload.map(|(_, payload)| payload.len())));
        }
        None
    }

    /// Takes the next frame, which is not large.
    fn take_one(
        &mut self,
        now_us: u64,
        out: &mut Vec<u8>,
        gone: &mut Gone,
        traced: &mut Vec<u64>,
    ) -> u64 {
        if let Some(taken) = self.copy_of_run(out) {
            return taken;
        }
        let at = self.start;
        let bytes = length(&self.bytes[at..]);
        self.start += bytes;
        if let Some(note) = self.pop_note(at) {
            return self.take_noted(&note, now_us, out, gone, traced);
        }
        out.extend_from_slice(&self.bytes[at..at + bytes]);
        self.first_left(bytes);
        1
    }

    /// Takes the next one, which is large, unless its time ran out.
    fn take_large(&mut self, now_us: u64, gone: &mut Gone) -> Option<Taken> {
        let at = self.start;
        let bytes = length(&self.bytes[at..]);
        self.start += bytes;
        let note = self.pop_note(at)?;
        let payload = self.forget_payload(&note)?;
        self.first_left(bytes);
        let Some(left_ms) = note.left_ms(now_us) else {
            gone.add(Cause::Expired, note.number & NUMBER);
            return None;
        };
        let mut header = self.bytes[at..at + bytes].to_vec();
        if note.has_time_to_live() {
            let left_ms = u32::try_from(left_ms).unwrap_or(u32::MAX);
            header[TTL_OFFSET..][..4].copy_from_slice(&left_ms.to_le_bytes());
        }
        Some(Taken { header, payload, number: note.number })
    }

    /// What holds at any time.
    pub(super) fn larges_are_noted(&self) -> bool {
        let here = self.notes.iter().filter(|note| note.is_large());
        let bytes: usize = self.larges.iter().map(|(_, payload)| payload.len()).sum();
        here.map(|note| note.at).eq(self.larges.iter().map(|(at, _)| *at)) && bytes == self.beside
    }
}

impl OpenOnes {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// Bytes of all of them, whole, with their headers.
    pub(super) fn bytes(&self) -> usize {
        self.all.iter().map(|open| open.bytes).sum()
    }

    /// Whether one is of that queue.
    pub(super) fn any(&self, queue: usize) -> bool {
        self.all.iter().any(|open| open.queue == queue)
    }

    /// Since when the one has waited that has not had its turn for longest.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        self.all.iter().map(|open| open.since).min()
    }

    /// Whether all of them came into their lanes after so many others, as far as is known.
    pub(super) fn are_younger(&self, entered: [u64; QUEUES]) -> bool {
        self.all.iter().all(|open| open.left_first >= entered[open.queue])
    }

    /// What a message that comes next must wait for. Two that are open at one time are told apart
    /// by their ids; of two with one key the newer must be the last word.
    fn waits(&self, queue: usize, head: &Head, is_short: bool) -> Option<Waits> {
        let same = |open: &Open| Some(open.origin) == head.origin;
        if self.all.iter().any(|open| open.queue == queue && same(open)) {
            return Some(Waits::Behind);
        }
        let has_key = |open: &Open| open.queue == queue && open.key == head.key;
        let is_keyed = head.key.is_some() && self.all.iter().any(has_key);
        let is_full =
            self.all.len() >= FRAGMENTED_MAX || self.payloads + head.payload > FRAGMENTED_BYTES_MAX;
        let is_again = |open: &Open| same(open) && open.sequence == head.sequence;
        let may_open = !is_short && !is_full && !self.all.iter().any(is_again);
        (is_keyed || head.is_fragmented && !may_open).then_some(Waits::Otherwise)
    }

    fn open(&mut self, open: Open) {
        self.payloads += open.payload.len();
        self.all.push_back(open);
    }

    /// The next one of a queue.
    fn next(&mut self, queue: usize) -> Option<Open> {
        let place = self.all.iter().position(|open| open.queue == queue)?;
        self.remove(place)
    }

    /// The one whose turn is next of all.
    fn first(&mut self) -> Option<Open> {
        self.remove(0)
    }

    fn remove(&mut self, place: usize) -> Option<Open> {
        let open = self.all.remove(place)?;
        self.payloads -= open.payload.len();
        Some(open)
    }
}

impl Open {
    /// Writes its next part, with the header of its first frame before the first. Whether it was
    /// the last.
    fn write_part(&mut self, first: Option<&mut Taken>, now: Duration, write: &mut Write) -> bool {
        let (from, left) = (self.sent, self.payload.len() - self.sent);
        let part = self.payload.slice(from..from + left.min(FRAGMENT_BYTES));
        let last = part.len() == left;
        match first {
            Some(taken) => write.data.extend_from_slice(taken.announce(part.len())),
            None => {
                let offset = u32::try_from(from).expect("within the limit of a payload");
                let (sequence, origin) = (self.sequence, self.origin);
                let fragment = Fragment { last, offset, sequence, origin, payload: &[] };
                let encoded = fragment.encode_header(part.len(), &mut write.data);
                encoded.expect("a part is no longer than a frame");
            }
        }
        self.sent += part.len();
        self.since = now;
        write.put(part);
        last
    }
}

impl Outbox {
    /// What is written of a queue with large messages: in turn a share of what had stepped aside
    /// and waits no more, one of what lies in the lane, and a part of one that is open. How many
    /// messages ended.
    pub(super) fn gather_large(&mut self, now: Duration, at: usize, write: &mut Write) -> u64 {
        // As much may step aside for a write as it takes.
        let (mut frames, mut may_move) = (0, WRITE_BYTES);
        while write.bytes() < WRITE_BYTES {
            let before = (write.bytes(), may_move);
            let mut share = Share::of(write);
            self.take_asides(now, at, write, &mut share);
            share.upto = Share::of(write).upto;
            self.take_lane(now, at, write, (&mut share, &mut may_move));
            frames += share.frames;
            self.give_back(share.left);
            // What waits for the room of another queue's gets it, though others of its own keep
            // coming.
            let next = self.open.next(at);
            let next = next.or_else(|| share.is_short.then(|| self.open.first()).flatten());
            if let Some(mut open) = next {
                let is_last = open.write_part(None, now, write);
                frames += self.put_back(open, is_last);
            }
            if (write.bytes(), may_move) == before {
                break;
            }
        }
        self.settle_at(at);
        self.count_beside();
        frames
    }

    /// Takes what has stepped aside and waits no more, until a share is full: each producer's in
    /// turn.
    fn take_asides(&mut self, now: Duration, at: usize, write: &mut Write, share: &mut Share) {
        let mut place = 0;
        for _ in 0..self.queues[at].asides() {
            let (from, before) = (Source::Aside(place), write.bytes());
            while write.bytes() < share.upto
                && let Some(head) = self.queues[at].lane_mut(from).head()
            {
                let waits = self.open.waits(at, &head, share.is_short);
                share.is_short |= waits == Some(Waits::Otherwise);
                if waits.is_some() {
                    break;
                }
                self.take_head(now, (at, from), &head, write, share);
            }
            if write.bytes() > before {
                self.queues[at].next_in_turn(place);
            } else {
                place += 1;
            }
        }
    }

    /// Takes from a lane until a share is full, or something must wait that may not step aside.
    fn take_lane(
        &mut self,
        now: Duration,
        at: usize,
        write: &mut Write,
        (share, may_move): (&mut Share, &mut usize),
    ) {
        while write.bytes() < share.upto
            && let Some(head) = self.queues[at].lane.head()
        {
            let queue = &mut self.queues[at];
            let is_aside = head.origin.is_some_and(|origin| queue.is_aside(origin));
            let waits = if is_aside {
                Some(Waits::Behind)
            } else {
                self.open.waits(at, &head, share.is_short)
            };
            let steps_aside = waits == Some(Waits::Behind) && head.key.is_none() && *may_move > 0;
            match head.origin {
                _ if waits.is_none() => {
                    self.take_head(now, (at, Source::Lane), &head, write, share);
                }
                Some(origin) if steps_aside && queue.may_step_aside(origin) => {
                    *may_move = may_move.saturating_sub(queue.step_aside(origin));
                }
                _ => break,
            }
        }
    }

    /// Takes the next message. One that is opened has its first part at once.
    fn take_head(
        &mut self,
        now: Duration,
        (at, from): (usize, Source),
        head: &Head,
        write: &mut Write,
        share: &mut Share,
    ) {
        let left_first = self.queues[at].place_of_next(from);
        let lane = self.queues[at].lane_mut(from);
        let before = lane.waiting();
        if !head.is_large {
            let (gone, traced) = (&mut self.gone, &mut self.traced);
            share.frames += lane.take_one(micros(now), &mut write.data, gone, traced);
            share.left += before - lane.waiting();
            return;
        }
        let taken = lane.take_large(micros(now), &mut self.gone);
        let bytes = before - lane.waiting();
        let Some(mut taken) = taken else {
            share.left += bytes;
            return;
        };
        let mut open = Open {
            queue: at,
            origin: head.origin.unwrap_or(0),
            sequence: head.sequence,
            key: head.key,
            payload: taken.payload.clone(),
            sent: 0,
            bytes,
            number: taken.number,
            left_first,
            since: now,
        };
        let is_last = if head.is_fragmented {
            open.write_part(Some(&mut taken), now, write)
        } else {
            let whole = taken.payload.len();
            write.data.extend_from_slice(taken.announce(whole));
            write.put(taken.payload);
            true
        };
        share.frames += self.put_back(open, is_last);
    }

    /// One that has had its turn waits for the next, unless that was its last part. Its place is
    /// given back when that is written: the payload stays until then.
    fn put_back(&mut self, open: Open, is_last: bool) -> u64 {
        if !is_last {
            self.open.open(open);
            return 0;
        }
        self.lent += open.bytes;
        if open.number & TRACED != 0 {
            self.traced.push(open.number & NUMBER);
        }
        1
    }
}

#[cfg(test)]
mod tests;

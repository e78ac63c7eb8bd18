//! Bytes waiting to be written to one link: answers first, then messages by their priority.
//!
//! Messages are bounded in bytes and, if wanted, in time; [`Policy`] says what happens at a bound.
//! Frames for the link are encoded straight into the outbox. What is handed to the kernel is the
//! outbox's own buffer, whose place a spare takes, so the steady state neither allocates nor
//! copies; nothing that was handed over is touched again. Another shard reserves the place of a
//! message before it sends it over. Large payloads lie elsewhere, and may be in several outboxes
//! (`outbox/large.rs`), as may messages that follow each other (`outbox/runs.rs`). Never: sockets,
//! who gets what.
//!
//! Invariant: frames of `queues` and `open`, `lent`, `credit` and room reserved for mail on its way
//! sum to what `room` has.

mod age;
mod conflation;
mod held;
mod lane;
mod large;
mod queue;
mod room;
mod runs;
mod terms;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::Priority;

use self::lane::{Lane, Noted};
use self::large::OpenOnes;
use self::queue::Queue;
use crate::limits::MAIL_BEYOND_PART;

pub(crate) use self::lane::TTL_OFFSET;
pub use self::room::Room;
pub use self::runs::Run;
pub use self::terms::{Care, Cause, Gone, Policy, Terms};
pub use self::write::Write;

/// All messages of an outbox at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark([u64; QUEUES]);

/// Priorities that messages have: high, normal, bulk. Answers are the fourth.
const QUEUES: usize = 3;

fn queue_of(priority: Priority) -> usize {
    usize::from(priority.rank()).saturating_sub(1).min(QUEUES - 1)
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    control: Vec<u8>,
    // From the highest priority to the lowest.
    queues: [Queue; QUEUES],
    spare: Vec<u8>,
    room: Arc<Room>,
    policy: Policy,
    age_max: Option<Duration>,
    // Bytes up to which a message from here finds room: none while what waits is too old and
    // nothing is dropped for it.
    limit: usize,
    is_old: bool,
    // Bytes reserved ahead, so that not each message costs an atomic addition.
    credit: usize,
    // Since when the transport has had what it was given last, unless it has taken it.
    written_at: Option<Duration>,
    // Bytes of the buffer that it has, and those of answers in it.
    writing: usize,
    writing_answers: usize,
    // Messages that found no room since those were looked for whose time ran out.
    unswept: usize,
    gone: Gone,
    traced: Vec<u64>,
    // Large messages of which a part was written.
    open: OpenOnes,
    // These, and messages that have stepped aside: one look, at every write, for those that lie
    // beside the lanes.
    beside: usize,
    // Bytes of large messages whose last part is being written: they stay until it is.
    lent: usize,
}

impl Outbox {
    /// An empty outbox for at most `most` bytes of messages, which refuses what is beyond.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            control: Vec::new(),
            queues: Default::default(),
            spare: Vec::new(),
            room: Room::new(most),
            policy: Policy::Refuse,
            age_max: None,
            limit: most,
            is_old: false,
            credit: 0,
            written_at: None,
            writing: 0,
            writing_answers: 0,
            unswept: 0,
            gone: Gone::default(),
            traced: Vec::new(),
            open: OpenOnes::default(),
            beside: 0,
            lent: 0,
        }
    }

    /// Sets what happens at a bound, and for how long messages may wait.
    pub fn set_policy(&mut self, policy: Policy, age_max: Option<Duration>) {
        (self.policy, self.age_max) = (policy, age_max);
        self.open();
    }

    /// Opens the room, or closes it, as policy and age have it.
    fn open(&mut self) {
        self.give_back(0);
        let most = self.room.most();
        let is_shut = self.is_old && self.policy == Policy::Refuse;
        self.limit = if is_shut { 0 } else { most };
        // What comes from another shard makes room for itself when it is here.
        let beyond = if self.policy == Policy::DropOldest { most / MAIL_BEYOND_PART } else { 0 };
        self.room.open_up_to(self.limit + beyond);
    }

    /// The space of this outbox.
    #[must_use]
    pub fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// Where answers are encoded. They are never refused; whoever causes them is no longer read
    /// when they pile up.
    pub fn control(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Bytes of waiting answers.
    #[must_use]
    pub fn control_bytes(&self) -> usize {
        self.control.len()
    }

    /// Messages waiting.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.queues.iter().map(|queue| queue.lane.frames()).sum::<usize>() + self.beside
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.frames() == 0
    }

    /// Encodes one message, if there is or can be made room for it; else nothing changes for it.
    ///
    /// # Errors
    /// Why it is refused.
    #[inline]
    pub fn offer(
        &mut self,
        now: Duration,
        terms: Terms,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), Cause> {
        // Terms taken apart, and made anew for those few that need them: a copy of what was just
        // written field by field is a stall, 4 % of a small message.
        let Terms { care: Care { ttl_ms, priority, conflates }, number, is_traced } = terms;
        let at = queue_of(priority);
        let buffer = self.queues[at].lane.buffer();
        let before = buffer.len();
        encode(buffer);
        let bytes = buffer.len() - before;
        let pays = !conflates && self.pays(bytes);
        if pays && ttl_ms == 0 && number == 0 {
            self.queues[at].lane.add(before);
            return Ok(());
        }
        let terms = Terms { care: Care { ttl_ms, priority, conflates }, number, is_traced };
        if pays {
            self.add(now, at, before, terms);
            return Ok(());
        }
        self.squeeze(now, at, before, terms, Bytes::new())
    }

    /// As [`Outbox::offer`], of a message whose payload lies elsewhere; what is encoded is its
    /// header, which announces no payload. With FRAGMENTED in it, it goes in pieces, and is never
    /// replaced; else it goes whole, and must not conflate.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn offer_large(
        &mut self,
        now: Duration,
        terms: Terms,
        header: &[u8],
        payload: Bytes,
    ) -> Result<(), Cause> {
        let at = queue_of(terms.care.priority);
        let buffer = self.queues[at].lane.buffer();
        let before = buffer.len();
        buffer.extend_from_slice(header);
        self.squeeze(now, at, before, terms, payload)
    }

    /// Takes in a message from elsewhere, whose place in [`Outbox::room`] is reserved: the whole
    /// frame, or as with [`Outbox::offer_large`] where there is a payload.
    pub fn accept(&mut self, now: Duration, terms: Terms, frame: &[u8], payload: Bytes) {
        let at = queue_of(terms.care.priority);
        let Queue { lane, keys, .. } = &mut self.queues[at];
        let before = lane.buffer().len();
        lane.buffer().extend_from_slice(frame);
        let place = if terms.care.conflates { keys.place_for(lane, before) } else { None };
        let mut has_left = place.is_some();
        if let Some(place) = place {
            self.room.release(lane.frame(place).len());
            self.replace(now, at, (place, before), terms);
        } else {
            self.add_any(now, at, before, terms, payload);
        }
        let is_alone = |queues: &[Queue]| queues.iter().map(Queue::frames).sum::<usize>() < 2;
        if self.room.waiting() > self.room.most() {
            self.give_back(0);
        }
        // The message itself stays: there is room for it beyond the bound.
        while self.policy == Policy::DropOldest
            && self.room.waiting() > self.room.most()
            && !is_alone(&self.queues[at..])
        {
            has_left |= self.drop_oldest(at);
        }
        if has_left {
            self.settle();
        }
    }

    /// Takes place for a message, and for more at the same time: a locked addition for each of them
    /// waits for all that was written before it, 18 of 250 ns that a small message took.
    #[inline]
    fn pays(&mut self, bytes: usize) -> bool {
        if bytes > self.credit {
            let lacking = bytes - self.credit;
            let ahead = AHEAD_BYTES.min(self.room.most() / AHEAD_PART);
            if !self.room.reserve_within(lacking + ahead, self.limit) {
                return false;
            }
            self.credit += lacking + ahead;
        }
        self.credit -= bytes;
        true
    }

    /// Gives place back: that of so many bytes, and what was reserved ahead.
    fn give_back(&mut self, bytes: usize) {
        let bytes = bytes + std::mem::take(&mut self.credit);
        if bytes > 0 {
            self.room.release(bytes);
        }
    }

    fn add(&mut self, now: Duration, at: usize, before: usize, terms: Terms) {
        let Terms { care: Care { ttl_ms, conflates, .. }, number, is_traced } = terms;
        let Queue { lane, keys, .. } = &mut self.queues[at];
        if ttl_ms == 0 && number == 0 && !conflates {
            return lane.add(before);
        }
        lane.add_noted(before, Noted::new(now, ttl_ms, number, is_traced));
        if conflates {
            keys.put(lane, lane.position(before));
        }
    }

    fn add_any(&mut self, now: Duration, at: usize, before: usize, terms: Terms, payload: Bytes) {
        if payload.is_empty() {
            return self.add(now, at, before, terms);
        }
        let Terms { care: Care { ttl_ms, conflates, .. }, number, is_traced } = terms;
        let Queue { lane, keys, .. } = &mut self.queues[at];
        lane.add_large(before, Noted::new(now, ttl_ms, number, is_traced), payload);
        if conflates {
            // It is not replaced, and nothing that lies before it is.
            keys.put(lane, lane.position(before));
        }
    }

    /// A message with a key, a large one, or one for which there is no room as it is.
    #[cold]
    fn squeeze(
        &mut self,
        now: Duration,
        at: usize,
        before: usize,
        terms: Terms,
        payload: Bytes,
    ) -> Result<(), Cause> {
        self.give_back(0);
        let bytes = self.queues[at].lane.encoded(before).len() + payload.len();
        let mut has_swept = false;
        let outcome = loop {
            let Queue { lane, keys, .. } = &self.queues[at];
            let place = if terms.care.conflates { keys.place_for(lane, before) } else { None };
            if let Some(place) = place {
                if self.room.exchange(lane.frame(place).len(), bytes) {
                    self.replace(now, at, (place, before), terms);
                    break Ok(());
                }
            } else if self.room.reserve_within(bytes, self.limit) {
                self.add_any(now, at, before, terms, payload);
                break Ok(());
            }
            if !has_swept {
                has_swept = true;
                if self.sweep(now) {
                    continue;
                }
            }
            let may_fit = self.policy == Policy::DropOldest && self.fits_without(at, bytes);
            if may_fit && self.drop_oldest(at) {
                continue;
            }
            self.queues[at].lane.buffer().truncate(before);
            self.room.note_full_of(bytes);
            break Err(if self.limit == 0 { Cause::Aged } else { self.room.cause() });
        };
        self.settle();
        outcome
    }

    fn replace(&mut self, now: Duration, at: usize, (place, before): (usize, usize), terms: Terms) {
        let noted = Noted::new(now, terms.care.ttl_ms, terms.number, terms.is_traced);
        let number = self.queues[at].lane.replace(place, before, noted);
        self.gone.add(Cause::Conflated, number);
    }

    /// Whether there is room for that many bytes without all that may be dropped for a message of
    /// that queue.
    fn fits_without(&self, at: usize, bytes: usize) -> bool {
        let droppable: usize = self.queues[at..].iter().map(Queue::waiting).sum();
        let stays = self.room.waiting().saturating_sub(droppable);
        stays.saturating_add(bytes) <= self.room.bound()
    }

    /// Drops one message that is no more urgent than those of that queue, if there is one.
    fn drop_oldest(&mut self, at: usize) -> bool {
        let mut queues = self.queues[at..].iter_mut().rev();
        let Some(queue) = queues.find(|queue| queue.frames() > 0) else { return false };
        let lane = queue.oldest();
        let before = lane.waiting();
        lane.drop_oldest(self.room.cause(), &mut self.gone);
        self.room.release(before - lane.waiting());
        true
    }

    /// Drops all whose time ran out, if it was refused often enough since to be worth it: each
    /// refusal pays for a few looks. Whether there was one.
    fn sweep(&mut self, now: Duration) -> bool {
        self.unswept += 1;
        let lanes = self.queues.iter_mut().flat_map(Queue::lanes_mut);
        let looks: usize = lanes.map(|lane| lane.to_sweep(now)).sum();
        if looks == 0 || looks > self.unswept * LOOKS_PER_REFUSAL {
            return false;
        }
        self.unswept = 0;
        let before = self.gone.expired;
        self.leave(|lane, gone| lane.sweep(now, gone));
        let has_swept = self.gone.expired > before;
        if has_swept {
            self.queues.iter_mut().for_each(|Queue { lane, keys, .. }| keys.rebuild(lane));
        }
        has_swept
    }

    /// Lets messages leave, and gives their room back. What follows them is not moved yet.
    fn leave(&mut self, mut act: impl FnMut(&mut Lane, &mut Gone)) {
        let mut left = 0;
        for lane in self.queues.iter_mut().flat_map(Queue::lanes_mut) {
            let before = lane.waiting();
            act(lane, &mut self.gone);
            left += before - lane.waiting();
        }
        self.give_back(left);
    }

    fn settle(&mut self) {
        self.queues.iter_mut().for_each(Queue::settle);
        self.count_beside();
    }

    /// To be called when there may be more or fewer beside the lanes.
    fn count_beside(&mut self) {
        let aside: usize = self.queues.iter().map(Queue::frames_aside).sum();
        self.beside = self.open.count() + aside;
    }

    /// Looks at how long messages have waited; to be called every now and then. Why the link is to
    /// be ended, if it is.
    pub fn look(&mut self, now: Duration) -> Option<Cause> {
        let was_full = self.policy == Policy::Close && self.room.take_was_full();
        let was_full = was_full.then(|| self.room.cause());
        let Some(age_max) = self.age_max else { return was_full };
        for lane in self.queues.iter_mut().flat_map(Queue::lanes_mut) {
            lane.note_age(now, age_max / AGES);
        }
        if self.policy == Policy::DropOldest
            && let Some(since) = now.checked_sub(age_max)
        {
            self.leave(|lane, gone| lane.drop_older(since, gone));
            self.settle();
        }
        self.judge_age(now);
        let is_too_old = self.policy == Policy::Close && self.is_old;
        was_full.or(is_too_old.then_some(Cause::Aged))
    }

    fn judge_age(&mut self, now: Duration) {
        let waiting =
            self.queues.iter_mut().flat_map(Queue::lanes_mut).filter_map(Lane::waits_since);
        let since = waiting.chain(self.open.waits_since()).chain(self.written_at).min();
        let is_old = since.zip(self.age_max).is_some_and(|(since, most)| now - since > most);
        if is_old != self.is_old {
            self.is_old = is_old;
            self.open();
        }
    }

    /// Stands for all messages that are here now.
    #[must_use]
    pub fn entered(&self) -> Mark {
        Mark(self.queues.each_ref().map(|queue| queue.lane.entered()))
    }

    /// Whether all messages that were here when the mark was taken have left: written, or gone. It
    /// may say so later than need be, where some have gone from between others.
    #[must_use]
    pub fn has_left(&self, mark: Mark) -> bool {
        let left = |(queue, entered): (&Queue, u64)| queue.left_first() >= entered;
        self.queues.iter().zip(mark.0).all(left) && self.open.are_younger(mark.0)
    }

    /// Whether messages have left unwritten that [`Outbox::take_gone`] has not told of.
    #[must_use]
    pub fn has_gone(&self) -> bool {
        self.gone.count() > 0
    }

    /// The messages that have left unwritten since the last call.
    pub fn take_gone(&mut self) -> Gone {
        std::mem::take(&mut self.gone)
    }

    /// Whether messages were written whose time is wanted.
    #[must_use]
    pub fn has_traced(&self) -> bool {
        !self.traced.is_empty()
    }

    /// The numbers of the traced messages that have been taken for a write since the last call.
    pub fn take_traced(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.traced)
    }

    /// Forgets the messages, not the answers; the number of messages that were waiting.
    pub fn abandon(&mut self) -> u64 {
        let waiting: usize = self.queues.iter().map(Queue::waiting).sum();
        let open = std::mem::take(&mut self.open);
        self.give_back(waiting + open.bytes());
        let lost: u64 = self.queues.iter_mut().map(Queue::abandon).sum();
        self.count_beside();
        lost + open.count() as u64
    }
}

/// Bytes reserved ahead for one outbox, at most; and as a part of all it may have, so that other
/// shards find nearly all of it.
const AHEAD_BYTES: usize = 32 << 10;
const AHEAD_PART: usize = 64;

/// Notes looked at for one message that found no room.
const LOOKS_PER_REFUSAL: usize = 8;

/// Times that are noted within the longest that a message may wait: by a part of it in so many the
/// age of what waits is known.
const AGES: u32 = 16;

#[cfg(test)]
impl Outbox {
    fn invariant(&self) -> bool {
        let waiting: usize = self.queues.iter().map(Queue::waiting).sum();
        let frames = self.queues.iter().map(Queue::frames).sum::<usize>() + self.open.count();
        let holds = self.queues.iter().all(Queue::invariant) && frames == self.frames();
        holds && waiting + self.open.bytes() + self.lent == self.waiting()
    }

    /// Bytes reserved for what waits here and what is on its way.
    fn waiting(&self) -> usize {
        self.room.waiting() - self.credit
    }
}

#[cfg(test)]
mod tests;

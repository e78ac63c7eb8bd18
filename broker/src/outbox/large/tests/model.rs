//! Messages that were offered, and a receiver that puts pieces together and knows what must be true
//! of what comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use waybill_wire::Frame;
use waybill_wire::code::Priority;
use waybill_wire::limits::MESSAGE_BYTES_MAX;
use waybill_wire::message::{Message, MessageHead};

use super::super::*;
use crate::io::joined;
use crate::outbox::{Care, Run, Terms};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Copied,
    /// Where other outboxes may have it, too.
    InRun,
    Whole,
    InPieces,
}

#[derive(Clone, Debug)]
pub(super) struct Offered {
    pub(super) how: How,
    pub(super) origin: u64,
    pub(super) priority: Priority,
    pub(super) payload: usize,
    pub(super) ttl_ms: u32,
    pub(super) key: Option<u64>,
    pub(super) is_mailed: bool,
}

/// All payloads are parts of this.
static BYTES: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..=250).collect::<Vec<u8>>().repeat(MESSAGE_BYTES_MAX / 251 + 2));

/// A payload that no message near it has.
pub(super) fn payload(sequence: u64, bytes: usize) -> &'static [u8] {
    let start = usize::try_from(sequence % 251).expect("less than 251");
    &BYTES[start..start + bytes]
}

impl Offered {
    /// What is encoded in the lane, and what lies elsewhere.
    fn frame(&self, sequence: u64) -> (Vec<u8>, Bytes) {
        let total = u32::try_from(self.payload).expect("less than that");
        let head = MessageHead {
            sequence,
            ttl_ms: self.ttl_ms,
            priority: self.priority,
            conflate: self.key,
            origin: Some(self.origin),
            fragmented: (self.how == How::InPieces).then_some(total),
            ..MessageHead::default()
        };
        let payload = payload(sequence, self.payload);
        let (copied, shared) = match self.how {
            How::Copied | How::InRun => (payload, Bytes::new()),
            How::Whole | How::InPieces => (&[][..], Bytes::from_static(payload)),
        };
        let mut frame = Vec::new();
        head.encode(Kind::DELIVER, &[1][..], copied, &mut frame).expect("a test's own message");
        (frame, shared)
    }

    fn terms(&self, number: u64) -> Terms {
        let (ttl_ms, priority, conflates) = (self.ttl_ms, self.priority, self.key.is_some());
        let care = Care { ttl_ms, priority, conflates };
        Terms { care, number, is_traced: number.is_multiple_of(3) }
    }
}

pub(super) fn offer(
    outbox: &mut Outbox,
    now: Duration,
    it: &Offered,
    number: u64,
) -> Result<(), Cause> {
    let (frame, payload) = it.frame(number);
    if it.is_mailed {
        if !outbox.room().reserve(frame.len() + payload.len()) {
            return Err(Cause::Full);
        }
        outbox.accept(now, it.terms(number), &frame, payload);
        return Ok(());
    }
    match it.how {
        How::Copied => outbox.offer(now, it.terms(number), |out| out.extend(frame)),
        How::InRun => {
            let held = frame.len();
            let run = Run::new(frame.into(), 1, held);
            outbox.offer_run(it.priority, &run).then_some(()).ok_or(Cause::Full)
        }
        _ => outbox.offer_large(now, it.terms(number), &frame, payload),
    }
}

/// The other end.
#[derive(Default)]
pub(super) struct Receiver {
    pub(super) open: BTreeMap<(u64, u64), (Priority, usize, Vec<u8>)>,
    /// The last sequence of each path that is complete.
    last: BTreeMap<(u64, u8), u64>,
    /// The last sequence of each priority and key.
    last_of_key: BTreeMap<(u8, u64), u64>,
    pub(super) complete: BTreeSet<u64>,
    pub(super) gone: BTreeSet<u64>,
    /// Those of them that went last, and why.
    pub(super) just_gone: Vec<(u64, Cause)>,
    has_expired: bool,
    pub(super) traced: Vec<u64>,
}

impl Receiver {
    pub(super) fn read(
        &mut self,
        mut rest: &[u8],
        of: &BTreeMap<u64, Offered>,
    ) -> Vec<(&'static str, u64)> {
        let mut seen = Vec::new();
        let (mut written, mut since_piece) = (0, 0);
        while !rest.is_empty() {
            if rest[0] == 0xcc {
                seen.push(("answer", 0));
                rest = &rest[1..];
                continue;
            }
            let (frame, after) = rest.split_at(length(rest));
            rest = after;
            match Frame::decode(frame) {
                Ok(Frame::Deliver(message)) => seen.push(self.message(&message, of)),
                Ok(Frame::Fragment(piece)) => {
                    // Neither share of its queue was full, nor is the write.
                    if since_piece < FRAGMENT_BYTES && written < WRITE_BYTES {
                        self.all_wait_for_a_reason(&piece, of);
                    }
                    seen.push(self.piece(&piece, of));
                }
                other => panic!("{other:?}"),
            }
            written += frame.len();
            since_piece = if frame[1] == Kind::FRAGMENT.0 { 0 } else { since_piece + frame.len() };
            let bytes: usize = self.open.values().map(|(_, total, _)| total).sum();
            assert!(self.open.len() <= FRAGMENTED_MAX && bytes <= FRAGMENTED_BYTES_MAX);
        }
        seen
    }

    pub(super) fn note_gone(&mut self, gone: Gone, of: &BTreeMap<u64, Offered>) {
        self.has_expired |= gone.expired > 0;
        self.just_gone = gone.numbers;
        for (number, _) in &self.just_gone {
            assert!(of.contains_key(number) && self.gone.insert(*number), "{number} was gone");
        }
    }

    pub(super) fn is_settled(&self, number: u64) -> bool {
        self.complete.contains(&number) || self.gone.contains(&number)
    }

    /// Of which nothing has come.
    pub(super) fn waiting(&self, of: &BTreeMap<u64, Offered>) -> impl Iterator<Item = u64> {
        let is_open = |number, it: &Offered| self.open.contains_key(&(it.origin, number));
        let waits = move |number| !self.is_settled(number) && !is_open(number, &of[&number]);
        of.keys().copied().filter(move |number| waits(*number))
    }

    /// DEL-34: what was dropped to make room was the oldest of the least urgent. Where one has the
    /// place of an older one it is as old as that; and where some have expired from between others,
    /// which of two producers' is the older is not known exactly.
    pub(super) fn the_oldest_were_dropped(&self, of: &BTreeMap<u64, Offered>, newest: u64) {
        let is_full = |(_, cause): &&(u64, Cause)| *cause == Cause::Full;
        for (number, _) in self.just_gone.iter().filter(is_full) {
            let (rank, key) = (of[number].priority.rank(), of[number].key);
            for other in self.waiting(of).filter(|other| *other < newest) {
                let it = &of[&other];
                assert!(it.priority.rank() <= rank, "{other} is less urgent than {number}");
                let is_older = it.priority.rank() == rank && other < *number;
                let is_exact = key.is_none() && it.key.is_none() && !self.has_expired;
                assert!(!is_older || !is_exact, "{other} is older than {number}");
            }
        }
    }

    /// Promise 6: nobody waits for a piece but behind its own producer's, or what has a key.
    fn all_wait_for_a_reason(&self, piece: &Fragment<'_>, of: &BTreeMap<u64, Offered>) {
        let priority = of[&piece.sequence].priority;
        let is_here = |it: &u64| of[it].priority == priority;
        let left = |it: &u64| is_here(it) && !self.is_settled(*it);
        let waiting: Vec<u64> = self.waiting(of).filter(is_here).collect();
        // One with a key holds its lane, also when its time has run out.
        let just_gone = self.just_gone.iter().map(|(number, _)| number);
        let is_held = waiting.iter().chain(just_gone).any(|it| of[it].key.is_some());
        let open: usize = self.open.values().map(|(_, total, _)| total).sum();
        let most = waiting.iter().map(|number| of[number].payload).max().unwrap_or(0);
        for number in waiting {
            let origin = of[&number].origin;
            let is_behind = of.keys().any(|it| *it < number && of[it].origin == origin && left(it));
            let is_full = self.open.len() == FRAGMENTED_MAX || open + most > FRAGMENTED_BYTES_MAX;
            assert!(is_held || is_behind || is_full, "{number} waits for {}", piece.sequence);
        }
    }

    fn message(&mut self, it: &Message<'_>, of: &BTreeMap<u64, Offered>) -> (&'static str, u64) {
        let (sequence, origin) = (it.sequence, it.origin.expect("of a DELIVER"));
        let offered = &of[&sequence];
        assert_eq!((origin, it.priority), (offered.origin, offered.priority));
        assert!(it.ttl_ms <= offered.ttl_ms && (it.ttl_ms == 0) == (offered.ttl_ms == 0));
        let Some(total) = it.fragmented else {
            self.completed(origin, it.priority, sequence, it.payload, of);
            return ("whole", sequence);
        };
        assert_eq!(it.payload.len(), FRAGMENT_BYTES);
        let open = (it.priority, total as usize, it.payload.to_vec());
        assert!(self.open.insert((origin, sequence), open).is_none(), "{sequence} is open");
        ("first", sequence)
    }

    fn piece(&mut self, it: &Fragment<'_>, of: &BTreeMap<u64, Offered>) -> (&'static str, u64) {
        let open = self.open.get_mut(&(it.origin, it.sequence)).expect("it was begun");
        assert_eq!(it.offset as usize, open.2.len());
        assert!(it.payload.len() <= FRAGMENT_BYTES);
        open.2.extend(it.payload);
        assert_eq!(it.last, open.2.len() == open.1);
        if it.last {
            let open = self.open.remove(&(it.origin, it.sequence)).expect("it is open");
            self.completed(it.origin, open.0, it.sequence, &open.2, of);
        }
        (if it.last { "last" } else { "piece" }, it.sequence)
    }

    fn completed(
        &mut self,
        origin: u64,
        priority: Priority,
        sequence: u64,
        bytes: &[u8],
        of: &BTreeMap<u64, Offered>,
    ) {
        assert!(bytes == payload(sequence, of[&sequence].payload), "bytes of {sequence}");
        assert!(self.complete.insert(sequence), "{sequence} comes twice");
        // One that took another's place is where that was, and still the last of its key.
        let last = match of[&sequence].key {
            None => self.last.insert((origin, priority.rank()), sequence),
            Some(key) => self.last_of_key.insert((priority.rank(), key), sequence),
        };
        assert!(last < Some(sequence), "{sequence} after {last:?}");
    }
}

pub(super) fn write(outbox: &mut Outbox, now: Duration) -> (Vec<u8>, u64, usize) {
    let (Write { data, pieces, .. }, frames) = outbox.take(now);
    let count = pieces.len();
    let all = joined(data.clone(), &pieces);
    if !all.is_empty() {
        outbox.recycle(now, data);
    }
    (all, frames, count)
}
pub(super) fn of(how: How, origin: u64, priority: Priority, payload: usize) -> Offered {
    Offered { how, origin, priority, payload, ttl_ms: 0, key: None, is_mailed: false }
}

/// Offers all of them, numbered from 1.
pub(super) fn offer_all(outbox: &mut Outbox, all: &[Offered]) -> BTreeMap<u64, Offered> {
    let numbered: BTreeMap<u64, Offered> = (1..).zip(all.iter().cloned()).collect();
    for (number, it) in &numbered {
        assert_eq!(offer(outbox, Duration::ZERO, it, *number), Ok(()));
    }
    numbered
}

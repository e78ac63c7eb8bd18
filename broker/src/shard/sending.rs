//! What waits for a link, from the offer of a frame to the order to write it, and what is read.
//!
//! A frame is offered once, by the shard that made it. It is queued, or refused, where its outbox
//! is; from there it is expired, lost with its link, or handed to the transport. What was handed
//! over counts as delivered when the peer answers a PING that lies after it on the link: it has
//! read all that came before.

use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::planted::{self, Bug};

use super::link::{Life, Link, Part, refused};
use super::{Core, Links};
use crate::io::Output;
use crate::ledger::{Counters, FrameCounters};
use crate::limits::CONFIRM_MS;
use crate::mail::{Awaited, Mail, Receiver};
use crate::merge::Word;
use crate::outbox::{Care, Cause, Gone, Terms, Write};
use crate::shared::Place;
use crate::telemetry::{count, uncount};

/// What became of a frame that was offered to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// Taken, and nobody will tell what becomes of it.
    Untold,
    Full,
    /// What waits there has waited too long.
    Aged,
    NoLink,
    /// Not offered: its credential has no right to the namespace.
    NotAllowed,
    /// Not offered: it does not run what the frame asks for.
    NotSupported,
}

impl Offered {
    pub(crate) fn is_taken(self) -> bool {
        matches!(self, Self::Taken | Self::Untold)
    }

    /// What is known of the gateway's part; `None` if it will be told.
    pub(super) fn word(self) -> Option<Word> {
        match self {
            Self::Taken => None,
            Self::Untold => Some(Word::Unknown),
            Self::Full => Some(Word::Full),
            Self::Aged => Some(Word::Aged),
            Self::NoLink | Self::NotAllowed => Some(Word::Gone),
            Self::NotSupported => Some(Word::NotSupported),
        }
    }
}

/// How a frame is offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) receiver: Receiver,
    pub(super) care: Care,
    // Whether its fate is to be told.
    pub(super) awaited: Option<Awaited>,
}

impl Offer {
    /// A frame for a consumer, of which nobody waits to hear.
    pub(super) fn to_consumer() -> Self {
        Self { receiver: Receiver::Consumers, care: Care::default(), awaited: None }
    }
}

impl Counters {
    pub(super) fn frames(&self, receiver: Receiver) -> &FrameCounters {
        match receiver {
            Receiver::Gateways => &self.gateways,
            Receiver::Consumers => &self.consumers,
        }
    }
}

impl FrameCounters {
    /// Counts a frame that found no room.
    #[cold]
    pub(super) fn refused(&self, cause: Cause) -> Offered {
        if cause == Cause::Aged {
            count(&self.dropped_outbox_age, 1);
            return Offered::Aged;
        }
        let counter = match cause {
            Cause::Pool => &self.dropped_pool_full,
            _ => &self.dropped_outbox_full,
        };
        count(counter, (!planted::is(Bug::LostDropCount)).into());
        Offered::Full
    }
}

impl Core {
    /// Offers one frame to the outbox at `place`, here or in another shard.
    pub(super) fn offer(
        &mut self,
        links: &mut Links,
        place: &Place,
        offer: Offer,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Offered {
        let Offer { receiver, care: Care { ttl_ms, priority, conflates }, awaited } = offer;
        let care = Care { ttl_ms, priority, conflates };
        let frames = self.counters.frames(receiver);
        count(&frames.offered, 1);
        if place.shard != self.id {
            let offer = Offer { receiver, care, awaited };
            return self.offer_elsewhere(place, offer, Bytes::new(), encode);
        }
        let Some(link) = links.find_mut(place.link).filter(|it| it.part.takes_messages()) else {
            count(&frames.dropped_no_link, 1);
            return Offered::NoLink;
        };
        let terms = terms_of(&mut link.part, care, awaited);
        let taken = link.part.outbox.offer(self.now, terms, encode);
        self.offered(&mut link.part, receiver, awaited, (terms.number, taken))
    }

    /// As [`Core::offer`], of a frame whose payload outboxes share; the header announces none.
    pub(super) fn offer_large(
        &mut self,
        links: &mut Links,
        place: &Place,
        offer: Offer,
        header: &[u8],
        payload: Bytes,
    ) -> Offered {
        let Offer { receiver, care, awaited } = offer;
        let frames = self.counters.frames(receiver);
        count(&frames.offered, 1);
        if place.shard != self.id {
            let encode = |out: &mut Vec<u8>| out.extend_from_slice(header);
            return self.offer_elsewhere(place, offer, payload, encode);
        }
        let Some(link) = links.find_mut(place.link).filter(|it| it.part.takes_messages()) else {
            count(&frames.dropped_no_link, 1);
            return Offered::NoLink;
        };
        let terms = terms_of(&mut link.part, care, awaited);
        let taken = link.part.outbox.offer_large(self.now, terms, header, payload);
        self.offered(&mut link.part, receiver, awaited, (terms.number, taken))
    }

    /// What an outbox here said to a frame of that number. Nearly all frames come by one of the two
    /// ways here, and a call would be 20 instructions more for them.
    #[inline(always)]
    fn offered(
        &mut self,
        part: &mut Part,
        receiver: Receiver,
        awaited: Option<Awaited>,
        (number, taken): (u64, Result<(), Cause>),
    ) -> Offered {
        if let Err(cause) = taken {
            let refused = self.counters.frames(receiver).refused(cause);
            // Others may have gone for it, and its own place has grown for nothing.
            self.touch(part);
            return refused;
        }
        self.queued(receiver, part, 1);
        let Some(awaited) = awaited else { return Offered::Taken };
        let is_told = number != 0 && self.await_report(part, number, awaited);
        if is_told { Offered::Taken } else { Offered::Untold }
    }

    /// Mail for a shard that has ended.
    pub(super) fn undeliverable(&mut self, links: &mut Links, mail: &Mail) {
        match *mail {
            Mail::Parcel(ref parcel) => self.undeliverable_parcel(links, parcel),
            Mail::Uplink { question, ref frame, .. } => {
                self.shared.pools.waiting.give(frame.capacity());
                uncount(&self.counters.consumers.between_shards, 1);
                count(&self.counters.consumers.dropped_no_link, 1);
                self.answer(links, question, ErrorCode::CONSUMER_LOST);
            }
            Mail::Losers { slot, .. } => self.woken(links, None, slot),
            Mail::Told { .. } => self.shared.told_arrived(),
            _ => {}
        }
    }

    /// So many more messages wait in a link's outbox.
    pub(super) fn queued(&mut self, receiver: Receiver, part: &mut Part, messages: u64) {
        part.receiver = receiver;
        let frames = self.counters.frames(receiver);
        count(&frames.queued, messages);
        count(&frames.waiting, messages);
        self.touch(part);
    }

    /// Counts what left an outbox unwritten.
    fn count_gone(&self, receiver: Receiver, gone: &Gone) {
        let frames = self.counters.frames(receiver);
        count(&frames.expired, gone.expired);
        count(&frames.conflated, gone.conflated);
        count(&frames.evicted_outbox_full, gone.full);
        count(&frames.evicted_pool_full, gone.pool);
        count(&frames.evicted_outbox_age, gone.aged);
        uncount(&frames.waiting, gone.count());
    }

    /// Counts what left a link's outbox unwritten, and tells those who wait for word of it: there
    /// will be no REPORT.
    pub(super) fn tell_gone(&mut self, links: &mut Links, part: &mut Part) {
        let gone = part.outbox.take_gone();
        self.count_gone(part.receiver, &gone);
        if !gone.numbers.is_empty() {
            self.gone_unreported(links, part, gone.numbers);
        }
    }

    /// Looks at how long messages have waited for a gateway, and ends its link if it is too slow
    /// and that is the policy.
    pub(super) fn check_outbox(&mut self, links: &mut Links, part: &mut Part) {
        let Some(cause) = part.outbox.look(self.now) else { return };
        let counters = &self.counters;
        let (counter, words) = match cause {
            Cause::Aged => (
                &counters.links_slow_age,
                "what waits for this link waits too long: it reads too slowly",
            ),
            Cause::Pool => (
                &counters.links_slow_pool,
                "more waits for this link than there is for one of so many: it reads too slowly",
            ),
            _ => (
                &counters.links_slow_full,
                "more waits for this link than may: it reads too slowly",
            ),
        };
        count(counter, 1);
        self.fault(links, part, refused(ErrorCode::SLOW_LINK, Kind(0), words));
    }

    /// Gives up the messages that wait for a link.
    pub(super) fn abandon(&mut self, part: &mut Part) {
        self.count_gone(part.receiver, &part.outbox.take_gone());
        let (frames, lost) = (self.counters.frames(part.receiver), part.outbox.abandon());
        count(&frames.lost, lost);
        uncount(&frames.waiting, lost);
    }

    /// The link has ended: nobody will say what became of the messages that were handed over.
    pub(super) fn doubt(&mut self, part: &mut Part) {
        let (frames, in_doubt) =
            (self.counters.frames(part.receiver), part.handed - part.confirmed);
        count(&frames.in_doubt, in_doubt);
        uncount(&frames.unconfirmed, in_doubt);
        part.confirmed = part.handed;
    }

    /// Asks whether what was handed over has been read: once a period, and at every tick when the
    /// broker stops. The PING goes into the answers, so it lies behind what was handed over and
    /// ahead of what waits.
    pub(super) fn ask_for_confirmation(&mut self, part: &mut Part) {
        let keepalive_ms = self.shared.config.keepalive_ms;
        let period_ms = if keepalive_ms == 0 { CONFIRM_MS } else { keepalive_ms.into() };
        let due = part.asked_at + Duration::from_millis(period_ms);
        let is_due = due <= self.now || self.drain.is_some();
        if part.handed != part.confirmed && is_due {
            self.ask_now(part);
        }
    }

    /// Asks, unless an answer is on its way.
    pub(super) fn ask_now(&mut self, part: &mut Part) {
        if part.asked.is_some() {
            return;
        }
        if let Some(token) = part.session.ping(self.now) {
            part.asked = Some((token, part.handed));
            part.asked_at = self.now;
            self.touch(part);
        }
    }

    /// The peer answered a PING: it has read what came before.
    pub(super) fn answered(&mut self, part: &mut Part, token: u32) {
        if let Some((_, mark)) = part.asked.take_if(|(asked, _)| *asked == token) {
            let (frames, read) = (self.counters.frames(part.receiver), mark - part.confirmed);
            count(&frames.delivered, read);
            uncount(&frames.unconfirmed, read);
            part.confirmed = mark;
        }
        self.check_fences(part);
    }

    pub(super) fn wrote(&mut self, link: &mut Link, data: Vec<u8>) {
        let part = &mut link.part;
        (part.writing, part.wrote_lately) = (false, true);
        part.outbox.recycle(self.now, data);
        self.touch(part);
        self.read(part);
    }

    pub(super) fn touch(&mut self, part: &mut Part) {
        if !part.touched {
            part.touched = true;
            self.touched.push(part.id);
        }
    }

    pub(super) fn flush(&mut self, links: &mut Links, link: &mut Link) {
        let part = &mut link.part;
        part.touched = false;
        if part.outbox.has_gone() {
            self.tell_gone(links, part);
        }
        self.end_of_turn(part);
        part.session.transmit(part.outbox.control());
        if !part.writing {
            self.tell_losers(links, part);
        }
        if part.life == Life::Gone || part.writing {
            return;
        }
        loop {
            // The farewell is the last frame: nothing may be left that would be written after it.
            if part.outbox.frames() == 0
                && let Some(fault) = part.farewell.take()
            {
                part.session.fail(&fault);
                part.session.transmit(part.outbox.control());
            }
            if part.outbox.is_empty() {
                break;
            }
            let write = self.take(links, part);
            self.check_fences(part);
            if !write.is_empty() {
                part.writing = true;
                let Write { data, pieces, .. } = write;
                self.outputs.push_back(Output::Write { link: part.id, data, pieces });
                return;
            }
            if part.holds_messages() {
                return;
            }
        }
        if part.life == Life::Closing && part.farewell.is_none() {
            self.written_out(links, part);
        }
    }

    /// Orders the next read, unless the link must wait: whoever does not read its answers is not
    /// read, nor whoever has brought what is not served yet. Gateways are always read (promise 6).
    pub(super) fn read(&mut self, part: &mut Part) {
        if part.life == Life::Gone {
            return;
        }
        let share = self.shared.pools.brought.share();
        part.waits = part.must_wait(share);
        if part.waits || part.rest.is_some() {
            part.session.pause(self.now);
        } else {
            part.session.resume(self.now);
            if let Some(buffer) = part.reading.next_buffer(share) {
                self.outputs.push_back(Output::Read { link: part.id, buffer });
            }
        }
    }

    /// What is written next.
    fn take(&mut self, links: &mut Links, part: &mut Part) -> Write {
        let holds = part.holds_messages();
        let (write, handed) =
            if holds { (part.outbox.take_answers(), 0) } else { part.outbox.take(self.now) };
        part.handed += handed;
        let frames = self.counters.frames(part.receiver);
        count(&frames.unconfirmed, handed);
        uncount(&frames.waiting, handed);
        if part.outbox.has_gone() {
            self.tell_gone(links, part);
        }
        if part.outbox.has_traced() {
            self.written(links, part);
        }
        write
    }
}

/// How a frame is kept that is for that link.
#[inline]
pub(super) fn terms_of(part: &mut Part, care: Care, awaited: Option<Awaited>) -> Terms {
    let number = awaited.and_then(|awaited| part.report_number(awaited.kind)).unwrap_or(0);
    Terms { care, number, is_traced: awaited.is_some_and(|awaited| awaited.is_traced) }
}

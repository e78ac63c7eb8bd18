//! What waits for a link, from the offer of a frame to the order to write it, and what is read.
//!
//! A frame is offered once, by the shard that made it. It is queued, or refused, where its outbox
//! is; from there it is expired, lost with its link, or handed to the transport. What was handed
//! over counts as delivered when the peer answers a PING that lies after it on the link: it has
//! read all that came before.

use std::time::Duration;

use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::planted::{self, Bug};

use super::link::{Life, Link, Part, refused};
use super::{Core, Links};
use crate::io::{LinkId, Output};
use crate::ledger::{Counters, FrameCounters};
use crate::limits::{CONFIRM_MS, CONTROL_BYTES_MAX};
use crate::mail::{Awaited, Mail, Receiver};
use crate::merge::Word;
use crate::outbox::{Taken, Terms};
use crate::shared::Place;
use crate::telemetry::{count, uncount};

/// What became of a frame that was offered to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offered {
    Taken,
    /// Taken, and nobody will tell what becomes of it.
    Untold,
    Full,
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
            Self::NoLink | Self::NotAllowed => Some(Word::Gone),
            Self::NotSupported => Some(Word::NotSupported),
        }
    }
}

/// How a frame is offered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offer {
    pub(super) receiver: Receiver,
    pub(super) ttl_ms: u32,
    // Whether its fate is to be told.
    pub(super) awaited: Option<Awaited>,
}

impl Counters {
    pub(super) fn frames(&self, receiver: Receiver) -> &FrameCounters {
        match receiver {
            Receiver::Gateways => &self.gateways,
            Receiver::Consumers => &self.consumers,
        }
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
        let Offer { receiver, ttl_ms, awaited } = offer;
        let frames = self.counters.frames(receiver);
        count(&frames.offered, 1);
        let counts_drops = !planted::is(Bug::LostDropCount);
        if place.shard != self.id {
            let mut frame = Vec::new();
            encode(&mut frame);
            if !place.room.reserve(frame.len()) {
                count(&frames.dropped_outbox_full, counts_drops.into());
                return Offered::Full;
            }
            count(&frames.between_shards, 1);
            let mail = Mail::Deliver { link: place.link, receiver, frame, ttl_ms, awaited };
            self.outputs.push_back(Output::Mail { to: place.shard, mail });
            return Offered::Taken;
        }
        let Some(link) = links.get_mut(&place.link).filter(|it| it.part.takes_messages()) else {
            count(&frames.dropped_no_link, 1);
            return Offered::NoLink;
        };
        let number = awaited.and_then(|awaited| link.part.report_number(awaited.kind));
        let is_traced = awaited.is_some_and(|awaited| awaited.is_traced);
        let terms = Terms { ttl_ms, number: number.unwrap_or(0), is_traced };
        if !link.part.outbox.offer(self.now, terms, encode) {
            count(&frames.dropped_outbox_full, counts_drops.into());
            return Offered::Full;
        }
        self.queued(receiver, &mut link.part);
        let Some(awaited) = awaited else { return Offered::Taken };
        let told = |number| self.await_report(&mut link.part, number, awaited);
        if number.is_some_and(told) { Offered::Taken } else { Offered::Untold }
    }

    /// A frame that another shard offered, and whose place it has reserved.
    pub(super) fn deliver_mailed(
        &mut self,
        links: &mut Links,
        link: LinkId,
        frame: &[u8],
        offer: Offer,
    ) {
        let Offer { receiver, ttl_ms, awaited } = offer;
        let frames = self.counters.frames(receiver);
        uncount(&frames.between_shards, 1);
        let Some(link) = links.get_mut(&link).filter(|it| it.part.takes_messages()) else {
            count(&frames.dropped_no_link, 1);
            if let Some(awaited) = awaited {
                self.tell(links, awaited.asked, Word::Gone);
            }
            return;
        };
        let number = awaited.and_then(|awaited| link.part.report_number(awaited.kind));
        let is_traced = awaited.is_some_and(|awaited| awaited.is_traced);
        let terms = Terms { ttl_ms, number: number.unwrap_or(0), is_traced };
        link.part.outbox.accept(self.now, terms, frame);
        self.queued(receiver, &mut link.part);
        let Some(awaited) = awaited else { return };
        if !number.is_some_and(|number| self.await_report(&mut link.part, number, awaited)) {
            self.tell(links, awaited.asked, Word::Unknown);
        }
    }

    /// Mail for a shard that has ended.
    pub(super) fn undeliverable(&mut self, links: &mut Links, mail: &Mail) {
        match *mail {
            Mail::Deliver { receiver, awaited, .. } => {
                let frames = self.counters.frames(receiver);
                uncount(&frames.between_shards, 1);
                count(&frames.dropped_no_link, 1);
                if let Some(awaited) = awaited {
                    self.tell(links, awaited.asked, Word::Gone);
                }
            }
            Mail::Uplink { question, .. } => {
                uncount(&self.counters.consumers.between_shards, 1);
                count(&self.counters.consumers.dropped_no_link, 1);
                self.answer(links, question, ErrorCode::CONSUMER_LOST);
            }
            Mail::Losers { slot, .. } => self.woken(links, None, slot),
            Mail::Told { .. } => self.shared.told_arrived(),
            _ => {}
        }
    }

    /// One more message waits in a link's outbox.
    pub(super) fn queued(&mut self, receiver: Receiver, part: &mut Part) {
        part.receiver = receiver;
        let frames = self.counters.frames(receiver);
        count(&frames.queued, 1);
        count(&frames.waiting, 1);
        self.touch(part);
    }

    /// Gives up the messages that wait for a link.
    pub(super) fn abandon(&mut self, part: &mut Part) {
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
        part.writing = false;
        part.outbox.recycle(data);
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
        self.end_of_turn(part);
        part.session.transmit(part.outbox.control());
        if !part.writing {
            self.tell_losers(links, part);
        }
        if part.outbox.control_bytes() > CONTROL_BYTES_MAX {
            let words = "answers pile up: this link asks and does not read";
            self.fault(links, part, refused(ErrorCode::OVERLOADED, Kind(0), words));
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
            let data = self.take(links, part);
            self.check_fences(part);
            if !data.is_empty() {
                part.writing = true;
                self.outputs.push_back(Output::Write { link: part.id, data });
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
        part.waits = part.must_wait();
        if part.waits || part.rest.is_some() {
            part.session.pause(self.now);
        } else {
            part.session.resume(self.now);
            if let Some(buffer) = part.reading.next_buffer() {
                self.outputs.push_back(Output::Read { link: part.id, buffer });
            }
        }
    }

    /// What is written next.
    fn take(&mut self, links: &mut Links, part: &mut Part) -> Vec<u8> {
        let (data, Taken { frames: handed, expired }) = if part.holds_messages() {
            (part.outbox.take_answers(), Taken::default())
        } else {
            part.outbox.take(self.now)
        };
        part.handed += handed;
        let frames = self.counters.frames(part.receiver);
        count(&frames.expired, expired);
        count(&frames.unconfirmed, handed);
        uncount(&frames.waiting, expired + handed);
        if expired > 0 {
            self.expired_unreported(links, part);
        }
        if part.outbox.has_traced() {
            self.written(links, part);
        }
        data
    }
}

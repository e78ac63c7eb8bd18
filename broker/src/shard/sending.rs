//! What waits for a link: from the offer of a frame to the order to write it. And what is read.

use waybill_wire::code::{ErrorCode, Kind};

use super::link::{Life, Link, Part, refused};
use super::{Core, Links};
use crate::io::Output;
use crate::limits::CONTROL_BYTES_MAX;
use crate::mail::Mail;
use crate::outbox::Taken;
use crate::shared::Place;
use crate::telemetry::count;

impl Core {
    pub(super) fn touch(&mut self, part: &mut Part) {
        if !part.touched {
            part.touched = true;
            self.touched.push(part.id);
        }
    }

    pub(super) fn wrote(&mut self, link: &mut Link, data: Vec<u8>) {
        let part = &mut link.part;
        count(&self.counters.written, part.writing.take().unwrap_or_default());
        part.outbox.recycle(data);
        self.touch(part);
        self.read(part);
    }

    pub(super) fn flush(&mut self, links: &mut Links, link: &mut Link) {
        let part = &mut link.part;
        part.touched = false;
        part.session.transmit(part.outbox.control());
        if part.outbox.control_bytes() > CONTROL_BYTES_MAX {
            let words = "answers pile up: this link asks and does not read";
            self.fault(links, part, refused(ErrorCode::OVERLOADED, Kind(0), words));
        }
        if part.life == Life::Gone || part.writing.is_some() {
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
            let (data, taken) = if part.held {
                (part.outbox.take_answers(), Taken::default())
            } else {
                part.outbox.take(self.now)
            };
            count(&self.counters.expired, taken.expired);
            if !data.is_empty() {
                part.writing = Some(taken.frames);
                self.outputs.push_back(Output::Write { link: part.id, data });
                return;
            }
            if part.held {
                return;
            }
        }
        if part.life == Life::Closing && part.farewell.is_none() {
            self.written_out(links, part);
        }
    }

    /// Orders the next read, unless the link must wait: whoever does not read its answers is not
    /// read. Gateways are always read (promise 6).
    pub(super) fn read(&mut self, part: &mut Part) {
        if part.life == Life::Gone {
            return;
        }
        part.waits = part.must_wait();
        if part.waits {
            part.session.pause(self.now);
        } else {
            part.session.resume(self.now);
            if let Some(buffer) = part.reading.next_buffer() {
                self.outputs.push_back(Output::Read { link: part.id, buffer });
            }
        }
    }

    /// Offers one frame to the outbox at `place`, here or in another shard.
    pub(super) fn offer(
        &mut self,
        links: &mut Links,
        place: &Place,
        ttl_ms: u32,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Offered {
        if place.shard != self.id {
            let mut frame = Vec::new();
            encode(&mut frame);
            if !place.room.reserve(frame.len()) {
                count(&self.counters.dropped_outbox_full, 1);
                return Offered::Full;
            }
            let mail = Mail::Deliver { link: place.link, frame, ttl_ms };
            self.outputs.push_back(Output::Mail { to: place.shard, mail });
            return Offered::Taken;
        }
        let Some(receiver) = links.get_mut(&place.link).filter(|it| it.part.takes_messages())
        else {
            count(&self.counters.dropped_no_link, 1);
            return Offered::NoLink;
        };
        if !receiver.part.outbox.offer(self.now, ttl_ms, encode) {
            count(&self.counters.dropped_outbox_full, 1);
            return Offered::Full;
        }
        count(&self.counters.queued, 1);
        self.touch(&mut receiver.part);
        Offered::Taken
    }
}

/// What became of a frame that was offered to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    Taken,
    Full,
    NoLink,
    /// Not offered: its credential has no right to the namespace.
    NotAllowed,
}

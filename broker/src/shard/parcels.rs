//! Frames for links of other shards: those of one turn that follow each other travel together, in
//! the order in which they were made, so that neither memory nor a place in a mailbox is taken for
//! each of them.
//!
//! A parcel is open as long as no other mail was handed out after it: what is said of a link goes
//! behind all frames for it.

use bytes::Bytes;

use super::link::Part;
use super::sending::{Offer, Offered, terms_of};
use super::{Core, Links};
use crate::io::Output;
use crate::limits::{PARCEL_BYTES, PARCELS_KEPT};
use crate::mail::{Item, Mail, Parcel};
use crate::merge::Word;
use crate::outbox::Cause;
use crate::shared::Place;
use crate::telemetry::{count, uncount};

impl Core {
    /// Offers a frame to an outbox of another shard; where its payload lies elsewhere, the header.
    pub(super) fn offer_elsewhere(
        &mut self,
        place: &Place,
        Offer { receiver, care, awaited }: Offer,
        payload: Bytes,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Offered {
        self.open_parcel(place.shard);
        let Some(parcel) = self.last_parcel(place.shard) else {
            unreachable!("it was opened");
        };
        let before = parcel.bytes.len();
        encode(&mut parcel.bytes);
        let bytes = parcel.bytes.len() - before + payload.len();
        if !place.room.reserve(bytes) {
            parcel.bytes.truncate(before);
            self.close_empty_parcel();
            let cause = if place.room.is_open() { place.room.cause() } else { Cause::Aged };
            return self.counters.frames(receiver).refused(cause);
        }
        let (link, upto) = (place.link, parcel.bytes.len());
        parcel.beside += payload.len();
        parcel.items.push(Item { link, receiver, care, awaited, upto, payload });
        let held = parcel.held();
        let more = held - std::mem::replace(&mut parcel.charged, held);
        if more > 0 {
            self.shared.pools.waiting.take(more);
        }
        count(&self.counters.frames(receiver).between_shards, 1);
        Offered::Taken
    }

    /// The parcel for that shard that no other mail for it was handed out after. Between those for
    /// different shards there is no order.
    fn last_parcel(&mut self, shard: u16) -> Option<&mut Parcel> {
        let mut parcels = self.outputs.iter_mut().rev().map_while(|output| match output {
            Output::Mail { to, mail: Mail::Parcel(parcel) } => Some((*to, parcel)),
            _ => None,
        });
        parcels.find(|(to, _)| *to == shard).map(|(_, parcel)| parcel)
    }

    /// Sees to it that there is one with room for a frame.
    fn open_parcel(&mut self, to: u16) {
        if self.last_parcel(to).is_some_and(|parcel| parcel.bytes.len() < PARCEL_BYTES) {
            return;
        }
        let mail = Mail::Parcel(self.parcels.pop().unwrap_or_default());
        self.outputs.push_back(Output::Mail { to, mail });
    }

    /// Nobody is told of a parcel that was opened for nothing.
    fn close_empty_parcel(&mut self) {
        let is_empty = |output: &mut Output| match output {
            Output::Mail { mail: Mail::Parcel(parcel), .. } => parcel.items.is_empty(),
            _ => false,
        };
        if let Some(Output::Mail { mail: Mail::Parcel(parcel), .. }) =
            self.outputs.pop_back_if(is_empty)
        {
            self.keep_parcel(parcel);
        }
    }

    /// Keeps the memory of a parcel that has served its turn, if it is not much.
    fn keep_parcel(&mut self, mut parcel: Parcel) {
        self.unpacked += std::mem::take(&mut parcel.charged);
        parcel.empty();
        if self.parcels.len() < PARCELS_KEPT && parcel.held() <= 4 * PARCEL_BYTES {
            self.parcels.push(parcel);
        }
    }

    /// The links that parcels were for are charged with what was in them by now.
    pub(super) fn charge_unpacked(&mut self) {
        let unpacked = std::mem::take(&mut self.unpacked);
        if unpacked > 0 {
            self.shared.pools.waiting.give(unpacked);
        }
    }

    /// Frames that another shard offered, and whose places it has reserved.
    pub(super) fn deliver_parcel(&mut self, links: &mut Links, mut parcel: Parcel) {
        let (mut from, Parcel { bytes, items, .. }) = (0, &mut parcel);
        for item in items.drain(..) {
            let frame = &bytes[from..item.upto];
            from = item.upto;
            self.deliver_item(links, item, frame);
        }
        self.keep_parcel(parcel);
    }

    fn deliver_item(&mut self, links: &mut Links, item: Item, frame: &[u8]) {
        let Item { link, receiver, care, awaited, payload, .. } = item;
        let frames = self.counters.frames(receiver);
        uncount(&frames.between_shards, 1);
        let Some(link) = links.find_mut(link).filter(|it| it.part.takes_messages()) else {
            count(&frames.dropped_no_link, 1);
            if let Some(awaited) = awaited {
                self.tell(links, awaited.asked, Word::Gone);
            }
            return;
        };
        let part: &mut Part = &mut link.part;
        let terms = terms_of(part, care, awaited);
        part.outbox.accept(self.now, terms, frame, payload);
        self.queued(receiver, part, 1);
        let Some(awaited) = awaited else { return };
        let number = terms.number;
        if number == 0 || !self.await_report(part, number, awaited) {
            self.tell(links, awaited.asked, Word::Unknown);
        }
    }

    /// Frames for a shard that has ended.
    pub(super) fn undeliverable_parcel(&mut self, links: &mut Links, parcel: &Parcel) {
        self.shared.pools.waiting.give(parcel.charged);
        for Item { receiver, awaited, .. } in &parcel.items {
            let frames = self.counters.frames(*receiver);
            uncount(&frames.between_shards, 1);
            count(&frames.dropped_no_link, 1);
            if let Some(awaited) = awaited {
                self.tell(links, awaited.asked, Word::Gone);
            }
        }
    }
}

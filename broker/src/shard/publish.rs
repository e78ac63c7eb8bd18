//! PUBLISH: from the plan to outboxes, and the receipt.
//!
//! The payload is passed on as bytes and never looked at.

use bytes::Bytes;
use waybill_routing::{Part as Share, Routed, Slot};
use waybill_wire::code::{ErrorCode, Kind, Level, capability};
use waybill_wire::frame::{Frame, Receipt};
use waybill_wire::limits::PAYLOAD_BYTES_MAX;
use waybill_wire::message::Message;
use waybill_wire::planted::{self, Bug, Deed};
use waybill_wire::prologue::PAYLOAD_LEN;

use super::batch::{Desk, has_list};
use super::fates::Fates;
use super::hops::Trace;
use super::link::{Part, ProducerState, RoleState};
use super::plain::Came;
use super::receipts::bytes_of;
use super::sending::{Offer, Offered};
use super::{Core, Links};
use crate::ledger::Counters;
use crate::limits::{FRAGMENT_BYTES, REFERENCED_BYTES};
use crate::mail::{Asked, Awaited, Receiver};
use crate::merge::{self, Merge};
use crate::outbox::Care;
use crate::shared::{Found, Place, Places};
use crate::telemetry::count;

/// What the messages of a batch come to, so that counters are written once for all.
#[derive(Default)]
pub(super) struct Sums {
    routed: u64,
    refused: u64,
    targets: u64,
    sent: u64,
    offline: u64,
    filtered: u64,
    dropped: u64,
    unresolved: u64,
    asked: u64,
    answered: u64,
}

/// How many users of a message had which fate.
#[derive(Clone, Copy)]
struct Counts {
    sent: usize,
    offline: usize,
    filtered: usize,
    dropped: usize,
}

impl Sums {
    #[inline]
    fn add(&mut self, message: &Message<'_>, routed: Routed<'_>, counts: Counts) {
        let all = [routed.offline().len(), routed.filtered().len(), routed.unresolved()];
        let all = routed.reached() + all.iter().sum::<usize>();
        self.routed += 1;
        self.targets += all as u64;
        self.sent += counts.sent as u64;
        self.offline += counts.offline as u64;
        self.filtered += counts.filtered as u64;
        self.dropped += counts.dropped as u64;
        self.unresolved += routed.unresolved() as u64;
        self.asked += u64::from(message.level != Level::NONE);
    }

    /// One more, for a user to whom this came.
    #[inline]
    pub(super) fn add_plain(&mut self, came: Came) {
        self.routed += 1;
        self.targets += 1;
        match came {
            Came::Sent | Came::NotAllowed => self.sent += 1,
            Came::Offline => self.offline += 1,
            Came::Dropped => self.dropped += 1,
        }
    }

    /// Adds them to the counters and begins anew.
    pub(super) fn count(&mut self, counters: &Counters) {
        let Self {
            routed,
            refused,
            targets,
            sent,
            offline,
            filtered,
            dropped,
            unresolved,
            asked,
            answered,
        } = std::mem::take(self);
        count(&counters.publishes_routed, routed);
        count(&counters.publishes_refused, refused);
        count(&counters.targets, targets);
        count(&counters.targets_sent, sent);
        count(&counters.targets_offline, offline);
        count(&counters.targets_filtered, filtered);
        count(&counters.targets_dropped, dropped);
        count(&counters.targets_unresolved, unresolved);
        count(&counters.receipts_asked, asked);
        count(&counters.receipts_answered, answered);
    }
}

impl Core {
    pub(super) fn refuse(part: &mut Part, message: &Message<'_>, code: ErrorCode, sums: &mut Sums) {
        sums.refused += 1;
        part.put(&Frame::Receipt(Receipt { code, last: true, ..empty_receipt(message) }));
    }

    /// Offers a message that was looked up, and answers it.
    ///
    /// # Errors
    /// `overloaded`, if its receipt finds no room; then nothing was offered.
    pub(super) fn route(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        message: &Message<'_>,
        routed: Routed<'_>,
        desk: &mut Desk,
    ) -> Result<(), ErrorCode> {
        let is_traced = message.trace.is_some() && part.can(capability::TRACE);
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes PUBLISH from producers only");
        };
        let instance = producer.instance;
        if message.level == Level::NONE {
            self.route_unasked(links, message, instance, routed, desk);
            return Ok(());
        }
        let asking =
            ask(producer, message, routed, (is_traced, self.shared.pools.brought.share()))?;
        let number = asking.as_ref().map(|(number, _)| *number);
        let asked = number.map(|number| Asked { shard: self.id, link: part.id, number, part: 0 });
        let trace = is_traced.then(|| self.trace(routed.parts().count()));
        self.deliver(links, message, Producer { instance, is_traced }, asked, routed, desk);
        let Desk { offers, sums, .. } = desk;
        let fates = Fates::of(message, routed, offers);
        self.conclude(links, message, instance, routed, &fates, sums);
        self.answer_publish(part, message, (routed, offers), &fates, (asking, trace), sums);
        Ok(())
    }

    /// Offers a message that nobody asked about: most are, and go where they should, so that what
    /// answers are made of need not be made.
    #[inline]
    fn route_unasked(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        instance: u64,
        routed: Routed<'_>,
        desk: &mut Desk,
    ) {
        let from = Producer { instance, is_traced: false };
        self.deliver(links, message, from, None, routed, desk);
        let Desk { offers, sums, .. } = desk;
        if Fates::are_mixed(offers) {
            let fates = Fates::of(message, routed, offers);
            return self.conclude(links, message, instance, routed, &fates, sums);
        }
        self.conclude_taken(links, message, instance, routed, sums);
    }

    /// The same as [`Core::conclude`], where whoever was offered it took it.
    #[inline]
    pub(super) fn conclude_taken(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        instance: u64,
        routed: Routed<'_>,
        sums: &mut Sums,
    ) {
        let (offline, filtered) = (routed.offline(), routed.filtered().len());
        let counts =
            Counts { sent: routed.reached(), offline: offline.len(), filtered, dropped: 0 };
        sums.add(message, routed, counts);
        self.tell_offline(links, message, instance, offline);
    }

    /// All is offered: counts it, and tells consumers who is offline.
    #[inline]
    pub(super) fn conclude(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        instance: u64,
        routed: Routed<'_>,
        fates: &Fates<'_>,
        sums: &mut Sums,
    ) {
        let (offline, filtered) = (fates.offline.len(), fates.filtered.len());
        let counts = Counts { sent: fates.sent, offline, filtered, dropped: fates.dropped.len() };
        sums.add(message, routed, counts);
        self.tell_offline(links, message, instance, &fates.offline);
    }

    /// Answers a message that was concluded, to whoever asked.
    pub(super) fn answer_publish(
        &mut self,
        part: &mut Part,
        message: &Message<'_>,
        (routed, offers): (Routed<'_>, &[Offered]),
        fates: &Fates<'_>,
        (asking, trace): (Option<(u64, Merge)>, Option<Trace>),
        sums: &mut Sums,
    ) {
        match asking {
            Some((number, mut merge)) => {
                fates.answer(self, part, message, routed, offers, None);
                Fates::settle(&mut merge, routed, offers);
                let waiting = (merge, trace.map(Box::new));
                self.expect(part, number, message.sequence, taken(offers), waiting);
            }
            None => {
                fates.answer(self, part, message, routed, offers, trace.as_ref());
                sums.answered += 1;
            }
        }
    }

    /// Offers its share to each gateway of the plan; the outcomes lie on the desk, in the plan's
    /// order.
    fn deliver(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        from: Producer,
        asked: Option<Asked>,
        routed: Routed<'_>,
        Desk { offers, places, frame, .. }: &mut Desk,
    ) {
        let deed = planted::due();
        frame.clear();
        let is_shared =
            message.payload.len() >= REFERENCED_BYTES && self.share(message, routed.parts().len());
        let mut offer = |(at, (slot, share))| {
            let slot = match deed {
                Some(Deed::Drop) => return Offered::Taken,
                Some(Deed::Wrong) => self.shared.beside(slot),
                _ => slot,
            };
            self.offer_part(links, message, from, asked, (at, slot, share), (places, frame))
        };
        if deed == Some(Deed::Twice) {
            for part in routed.parts().enumerate() {
                offer(part);
            }
        }
        offers.clear();
        offers.extend(routed.parts().enumerate().map(offer));
        if is_shared {
            self.unshare();
        }
    }

    /// Puts a large payload where the outboxes of several gateways, or the pieces of one, can refer
    /// to it, if it is not there already. Whether it was put there.
    #[cold]
    fn share(&mut self, message: &Message<'_>, receivers: usize) -> bool {
        let is_worth = receivers > 1 || message.payload.len() > FRAGMENT_BYTES;
        let is_due = self.whole.is_none() && is_worth;
        if is_due {
            self.whole = Some(Bytes::copy_from_slice(message.payload));
        }
        is_due
    }

    #[cold]
    fn unshare(&mut self) {
        self.whole = None;
    }

    /// Where so many frames of a namespace go that are for a slot, or what is said in its place.
    #[inline]
    pub(super) fn place_of<'a>(
        &self,
        places: &'a mut Places,
        slot: Slot,
        (namespace, frames): (u32, u64),
    ) -> Result<&'a Place, Offered> {
        match places.of(&self.shared, slot, namespace) {
            Found::At(place) => Ok(place),
            Found::NotAllowed => Err(Offered::NotAllowed),
            Found::Gone => {
                count(&self.counters.gateways.offered, frames);
                count(&self.counters.gateways.dropped_no_link, frames);
                Err(Offered::NoLink)
            }
        }
    }

    /// Offers its share to one gateway, the part of the plan at that place. What goes whole is
    /// written to `frame` for the first of them, which is to be empty then.
    pub(super) fn offer_part(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        from: Producer,
        asked: Option<Asked>,
        (at, slot, share): (usize, Slot, Share<'_>),
        (places, frame): (&mut Places, &mut Vec<u8>),
    ) -> Offered {
        let place = match self.place_of(places, slot, (message.namespace, 1)) {
            Ok(place) => place,
            Err(offered) => return offered,
        };
        let asked = asked.map(|asked| Asked { part: number_of(at), ..asked });
        if self.whole.is_some()
            && let Some(offered) = self.offer_large_share(links, place, message, from, asked, share)
        {
            return offered;
        }
        if matches!(share, Share::Whole) && frame.is_empty() {
            message.deliver_whole(from.instance, message.ttl_ms, frame);
        }
        // Few are asked about, and what is to be told of them is not made for the others.
        match asked {
            None => self.offer_share(links, place, message, from, None, (share, frame)),
            Some(_) => self.offer_asked(links, place, message, from, asked, (share, frame)),
        }
    }

    #[inline(never)]
    fn offer_asked(
        &mut self,
        links: &mut Links,
        place: &Place,
        message: &Message<'_>,
        from: Producer,
        asked: Option<Asked>,
        share: (Share<'_>, &[u8]),
    ) -> Offered {
        self.offer_share(links, place, message, from, asked, share)
    }

    /// Offers a share of a message whose payload outboxes may share, unless it is to be copied.
    #[cold]
    fn offer_large_share(
        &mut self,
        links: &mut Links,
        place: &Place,
        message: &Message<'_>,
        from: Producer,
        asked: Option<Asked>,
        share: Share<'_>,
    ) -> Option<Offered> {
        let bytes = message.payload.len();
        let in_pieces = bytes > FRAGMENT_BYTES && place.fragments;
        // Such a payload came in pieces, and goes so, or not at all.
        if bytes > PAYLOAD_BYTES_MAX && !in_pieces {
            return Some(Offered::NotSupported);
        }
        // One that may take another's place lies with it.
        if !in_pieces && message.conflate.is_some() {
            return None;
        }
        let payload = self.whole.clone()?;
        let header = large_header(message, from.instance, share, in_pieces);
        let offer = offer_of(message, from, asked, share);
        Some(self.offer_large(links, place, offer, &header, payload))
    }

    #[inline(always)]
    fn offer_share(
        &mut self,
        links: &mut Links,
        place: &Place,
        message: &Message<'_>,
        from: Producer,
        asked: Option<Asked>,
        (share, frame): (Share<'_>, &[u8]),
    ) -> Offered {
        let (ttl_ms, instance) = (message.ttl_ms, from.instance);
        let offer = offer_of(message, from, asked, share);
        self.offer(links, place, offer, |out| match share {
            Share::Uids(_) if planted::is(Bug::WrongNarrowing) => {
                let all: Vec<u64> = message.targets.iter().collect();
                message.deliver_narrowed(instance, &all, ttl_ms, out);
            }
            Share::Uids(uids) => message.deliver_narrowed(instance, uids, ttl_ms, out),
            Share::Whole => out.extend_from_slice(frame),
        })
    }
}

/// How a share of a message is offered.
#[inline]
fn offer_of(
    message: &Message<'_>,
    Producer { instance, is_traced }: Producer,
    asked: Option<Asked>,
    share: Share<'_>,
) -> Offer {
    let awaited = asked.map(|asked| {
        let users = match share {
            Share::Uids(uids) => uids.len(),
            Share::Whole => message.targets.len(),
        };
        let users = u16::try_from(users).expect("targets_max fits");
        let (kind, origin, sequence) = (Kind::DELIVER, instance, message.sequence);
        Awaited { asked, kind, origin, sequence, users, is_traced }
    });
    let (ttl_ms, conflates) = (message.ttl_ms, message.conflate.is_some());
    let care = Care { ttl_ms, priority: message.priority, conflates };
    Offer { receiver: Receiver::Gateways, care, awaited }
}

/// The header of a DELIVER whose payload lies elsewhere: it announces none.
fn large_header(message: &Message<'_>, origin: u64, share: Share<'_>, in_pieces: bool) -> Vec<u8> {
    let (ttl_ms, mut out) = (message.ttl_ms, Vec::new());
    match share {
        Share::Uids(uids) if in_pieces => {
            message.deliver_narrowed_first(origin, uids, ttl_ms, 0, &mut out);
        }
        Share::Whole if in_pieces => message.deliver_whole_first(origin, ttl_ms, 0, &mut out),
        Share::Uids(uids) => message.deliver_narrowed_header(origin, uids, ttl_ms, &mut out),
        Share::Whole => message.deliver_whole_header(origin, ttl_ms, &mut out),
    }
    out[PAYLOAD_LEN].fill(0);
    out
}

/// Who sent a message, and whether to tell when it passed where.
#[derive(Clone, Copy)]
pub(super) struct Producer {
    pub(super) instance: u64,
    pub(super) is_traced: bool,
}

/// The place of a part in its plan.
pub(super) fn number_of(at: usize) -> u16 {
    u16::try_from(at).expect("there are no more parts than slots, of which there are 65,535")
}

/// What will be told of a message at the level `delivered`, if that is asked for: the number of the
/// receipt, and a part for each part of the plan. `overloaded`, if too much waits already.
fn ask(
    producer: &mut ProducerState,
    message: &Message<'_>,
    routed: Routed<'_>,
    (is_traced, pool_share): (bool, usize),
) -> Result<Option<(u64, Merge)>, ErrorCode> {
    if message.level != Level::DELIVERED {
        return Ok(None);
    }
    let mut merge = merge_of(message);
    add_parts(&mut merge, routed);
    if !producer.receipts.has_room_for(bytes_of(&merge, is_traced), pool_share) {
        return Err(ErrorCode::OVERLOADED);
    }
    Ok(Some((producer.receipts.next(), merge)))
}

/// Who is waited for, before any gateway has a part.
pub(super) fn merge_of(message: &Message<'_>) -> Merge {
    if has_list(message) { Merge::list(message.targets.iter()) } else { Merge::everyone() }
}

/// A part for each gateway of a plan, in its order.
pub(super) fn add_parts(merge: &mut Merge, routed: Routed<'_>) {
    for (_, share) in routed.parts() {
        merge.part(match share {
            Share::Uids(uids) => merge::Share::Uids(uids),
            Share::Whole => merge::Share::Whole,
        });
    }
}

/// What is known of these parts when the frames have been offered.
pub(super) fn hear_offers(merge: &mut Merge, offers: &[Offered]) {
    for (at, offered) in offers.iter().enumerate() {
        if let Some(word) = offered.word() {
            merge.hear(number_of(at), &word);
        }
    }
}

/// Gateways that a frame was taken for.
pub(super) fn taken(offers: &[Offered]) -> u32 {
    length(offers.iter().filter(|offered| offered.is_taken()).count())
}

/// At stage `routed`, and not the last.
pub(super) fn empty_receipt<'a>(message: &Message<'_>) -> Receipt<'a> {
    Receipt { stage: Level::ROUTED, sequence: message.sequence, ..Receipt::default() }
}

/// Lists and slots are far fewer than 2^32.
pub(super) fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

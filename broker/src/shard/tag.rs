//! TAG: a backend's changes of tags, on their way to the gateways of its users (TAG-12 to TAG-18).
//!
//! Judged like a PUBLISH, in one sequence with those, and looked up like a list of users. It goes
//! to each gateway that agreed on tags, narrowed; what the changes are is the gateways' matter. One
//! receipt answers it, when all of them have reported: then what they have in effect here is what
//! they had declared before, and so decides of every PUBLISH that comes after the receipt.
//!
//! Never: tags, which are declared by gateways alone.

use std::slice::from_ref;

use waybill_routing::{Audience, Namespace, Part as Share, Query, Routed, Slot};
use waybill_wire::code::{ErrorCode, Kind, Level};
use waybill_wire::frame::{Frame, Receipt, Tag};
use waybill_wire::targets::Uids;

use super::batch::Desk;
use super::link::{Fault, Part, RoleState};
use super::parts::steps_of;
use super::publish::{add_parts, hear_offers, number_of, taken};
use super::receipts::bytes_of;
use super::sending::{Offer, Offered};
use super::{Core, Links};
use crate::limits::BATCH_TARGETS;
use crate::mail::{Asked, Awaited, Receiver};
use crate::merge::Merge;
use crate::outbox::Care;
use crate::shared::{Found, Place, Places};
use crate::telemetry::count;

/// Who it is for.
pub(super) fn tag_query<'a>(tag: &Tag<'a>) -> Query<'a> {
    let Uids::Run(uids) = tag.uids else { unreachable!("the frame was decoded") };
    Query::new(Namespace(tag.namespace), Audience::Uids(uids))
}

impl Core {
    /// Serves one, or answers why not.
    ///
    /// # Errors
    /// `sequence_order`.
    pub(super) fn tag(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        tag: &Tag<'_>,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes TAG from producers only");
        };
        producer.sequence.advance(Kind::TAG, tag.sequence, false)?;
        let served = if !producer.grant.covers(tag.namespace) {
            Err(ErrorCode::NOT_PERMITTED)
        } else if !self.told_ready {
            // Whoever is not known yet is not offline (PUB-3).
            Err(ErrorCode::NOT_READY)
        } else if tag.uids.len() > self.turn.uids_max().min(BATCH_TARGETS) {
            self.begin_halfway(part, bytes);
            return Ok(());
        } else {
            let mut plan = std::mem::take(&mut self.batches.plan);
            let mut desk = std::mem::take(&mut self.batches.desk);
            let most = self.turn.hits_alone_max();
            let query = tag_query(tag);
            let is_found = self.shared.routes.resolve_within(from_ref(&query), most, &mut plan);
            let steps = is_found.then(|| steps_of(tag.uids.len(), bytes.len(), plan.routed(0)));
            let fits = steps.is_some_and(|steps| steps <= self.turn.left());
            self.turn.take(steps.unwrap_or(0));
            let served = fits.then(|| self.tag_users(links, part, tag, plan.routed(0), &mut desk));
            (self.batches.plan, self.batches.desk) = (plan, desk);
            let Some(served) = served else {
                self.begin_halfway(part, bytes);
                return Ok(());
            };
            served
        };
        if let Err(code) = served {
            self.refuse_tag(part, tag, code);
        }
        Ok(())
    }

    pub(super) fn refuse_tag(&mut self, part: &mut Part, tag: &Tag<'_>, code: ErrorCode) {
        count(&self.counters.taggings, 1);
        count(&self.counters.taggings_refused, 1);
        let (stage, sequence) = (Level::ROUTED, tag.sequence);
        let receipt = Receipt { code, stage, sequence, last: true, ..Receipt::default() };
        part.put(&Frame::Receipt(receipt));
    }

    /// Offers a TAG to the gateways of its users, and waits for their reports.
    ///
    /// # Errors
    /// `overloaded`, if its receipt finds no room; then nothing was offered.
    fn tag_users(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        tag: &Tag<'_>,
        routed: Routed<'_>,
        Desk { offers, places, .. }: &mut Desk,
    ) -> Result<(), ErrorCode> {
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes TAG from producers only");
        };
        let mut merge = Merge::tags(tag.uids.iter());
        add_parts(&mut merge, routed);
        if !producer
            .receipts
            .has_room_for(bytes_of(&merge, false), self.shared.pools.brought.share())
        {
            return Err(ErrorCode::OVERLOADED);
        }
        let (number, origin) = (producer.receipts.next(), producer.instance);
        offers.clear();
        let tag = Tag { origin, ..*tag };
        for (at, (slot, share)) in routed.parts().enumerate() {
            let asked = Asked { shard: self.id, link: part.id, number, part: number_of(at) };
            offers.push(self.offer_tag_part(links, tag, asked, (slot, share), places));
        }
        self.await_tag(part, &tag, (number, merge), offers);
        Ok(())
    }

    /// All is offered: waits for the reports.
    pub(super) fn await_tag(
        &mut self,
        part: &mut Part,
        tag: &Tag<'_>,
        (number, mut merge): (u64, Merge),
        offers: &[Offered],
    ) {
        count(&self.counters.taggings, 1);
        count(&self.counters.taggings_routed, 1);
        count(&self.counters.receipts_asked, 1);
        // Who is in no part is offline.
        hear_offers(&mut merge, offers);
        self.expect(part, number, tag.sequence, taken(offers), (merge, None));
    }

    /// Offers its share to one gateway.
    pub(super) fn offer_tag_part(
        &mut self,
        links: &mut Links,
        tag: Tag<'_>,
        asked: Asked,
        (slot, share): (Slot, Share<'_>),
        places: &mut Places,
    ) -> Offered {
        let Share::Uids(uids) = share else {
            unreachable!("a list that is not sent by broadcast is narrowed")
        };
        let narrowed = Tag { uids: uids.into(), ..tag };
        match places.of(&self.shared, slot, tag.namespace) {
            Found::At(place) if place.tags => self.offer_tag(links, place, narrowed, asked),
            Found::At(_) => Offered::NotSupported,
            Found::NotAllowed => Offered::NotAllowed,
            Found::Gone => {
                count(&self.counters.gateways.offered, 1);
                count(&self.counters.gateways.dropped_no_link, 1);
                Offered::NoLink
            }
        }
    }

    fn offer_tag(
        &mut self,
        links: &mut Links,
        place: &Place,
        tag: Tag<'_>,
        asked: Asked,
    ) -> Offered {
        let users = u16::try_from(tag.uids.len()).expect("targets_max fits");
        let (kind, origin, sequence, is_traced) = (Kind::TAG, tag.origin, tag.sequence, false);
        let awaited = Some(Awaited { asked, kind, origin, sequence, users, is_traced });
        let offer = Offer { receiver: Receiver::Gateways, care: Care::default(), awaited };
        self.offer(links, place, offer, |out| {
            tag.encode(out).expect("it was decoded, and lists no more users than then");
        })
    }
}

//! TAG: a backend's changes of tags, on their way to the gateways of its users (TAG-12 to TAG-18).
//!
//! Judged like a PUBLISH, in one sequence with those, and looked up like a list of users. It goes
//! to each gateway that agreed on tags, narrowed; what the changes are is the gateways' matter. One
//! receipt answers it, when all of them have reported: then what they have in effect here is what
//! they had declared before, and so decides of every PUBLISH that comes after the receipt.
//!
//! Never: tags, which are declared by gateways alone.

use std::slice::from_ref;

use waybill_routing::{Audience, Namespace, Part as Share, Plan, Query, Routed};
use waybill_wire::code::{ErrorCode, Kind, Level};
use waybill_wire::frame::{Frame, Receipt, Tag};
use waybill_wire::targets::Uids;

use super::batch::Desk;
use super::link::{Fault, Part, RoleState};
use super::publish::{add_parts, hear_offers, number_of, taken};
use super::receipts::bytes_of;
use super::sending::{Offer, Offered};
use super::{Core, Links};
use crate::mail::{Asked, Awaited, Receiver};
use crate::merge::Merge;
use crate::shared::{Found, Place};
use crate::telemetry::count;

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
    ) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes TAG from producers only");
        };
        producer.sequence.advance(Kind::TAG, tag.sequence, false)?;
        count(&self.counters.taggings, 1);
        let served = if !producer.grant.covers(tag.namespace) {
            Err(ErrorCode::NOT_PERMITTED)
        } else if !self.told_ready {
            // Whoever is not known yet is not offline (PUB-3).
            Err(ErrorCode::NOT_READY)
        } else {
            let mut plan = std::mem::take(&mut self.batches.plan);
            let mut desk = std::mem::take(&mut self.batches.desk);
            let routed = self.look_up(tag, &mut plan);
            let served = self.tag_users(links, part, tag, routed, &mut desk);
            (self.batches.plan, self.batches.desk) = (plan, desk);
            served
        };
        if let Err(code) = served {
            count(&self.counters.taggings_refused, 1);
            let (stage, sequence) = (Level::ROUTED, tag.sequence);
            let receipt = Receipt { code, stage, sequence, last: true, ..Receipt::default() };
            part.put(&Frame::Receipt(receipt));
        }
        Ok(())
    }

    fn look_up<'a>(&self, tag: &Tag<'_>, plan: &'a mut Plan) -> Routed<'a> {
        let Uids::Run(uids) = tag.uids else { unreachable!("the frame was decoded") };
        let query = Query::new(Namespace(tag.namespace), Audience::Uids(uids));
        self.shared.routes.resolve(from_ref(&query), plan);
        plan.routed(0)
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
        if !producer.receipts.has_room_for(bytes_of(&merge, false)) {
            return Err(ErrorCode::OVERLOADED);
        }
        let (number, origin) = (producer.receipts.next(), producer.instance);
        offers.clear();
        for (at, (slot, share)) in routed.parts().enumerate() {
            let Share::Uids(uids) = share else {
                unreachable!("a list that is not sent by broadcast is narrowed")
            };
            let narrowed = Tag { origin, uids: uids.into(), ..*tag };
            let asked = Asked { shard: self.id, link: part.id, number, part: number_of(at) };
            offers.push(match places.of(&self.shared, slot, tag.namespace) {
                Found::At(place) if place.tags => self.offer_tag(links, place, narrowed, asked),
                Found::At(_) => Offered::NotSupported,
                Found::NotAllowed => Offered::NotAllowed,
                Found::Gone => {
                    count(&self.counters.gateways.offered, 1);
                    count(&self.counters.gateways.dropped_no_link, 1);
                    Offered::NoLink
                }
            });
        }
        count(&self.counters.taggings_routed, 1);
        count(&self.counters.receipts_asked, 1);
        // Who is in no part is offline.
        hear_offers(&mut merge, offers);
        self.expect(part, number, tag.sequence, taken(offers), (merge, None));
        Ok(())
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
        let offer = Offer { receiver: Receiver::Gateways, ttl_ms: 0, awaited };
        self.offer(links, place, offer, |out| {
            tag.encode(out).expect("it was decoded, and lists no more users than then");
        })
    }
}

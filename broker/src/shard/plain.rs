//! PUBLISHes for one user each that ask for nothing else, as most of most producers' are: taken
//! together where they follow each other, looked up in one go, then offered in their order.
//!
//! They do what they would do as any messages (`batch.rs`), and are counted as these are, without
//! what those need: queries, a plan, and all fields of each. `tests/it/batches.rs` compares the
//! two: what does not lie whole in a read goes the other way.

use waybill_routing::{Namespace, Slot, Whereabouts};
use waybill_wire::code::Kind;
use waybill_wire::deframe::Deframer;
use waybill_wire::message::{Message, Plain};
use waybill_wire::planted;

use super::batch::{Desk, emptied};
use super::link::{Fault, Part, RoleState};
use super::parts::{FRAME_STEPS, PLAIN_STEPS};
use super::sending::{Offer, Offered};
use super::{Core, Links};
use crate::limits::{PLAIN_MESSAGES, REFERENCED_BYTES, STEP_BYTES};
use crate::mail::Receiver;
use crate::outbox::Care;
use crate::shared::{Feed, Places};
use crate::telemetry::count;

/// What they are gathered in: it keeps its memory, and of messages nothing between two batches.
#[derive(Default)]
pub(super) struct Plains {
    messages: Vec<Plain<'static>>,
    whereabouts: Whereabouts,
}

/// What became of the one user of a message, by what its gateways said: the highest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Came {
    /// No gateway that has the user may see the namespace.
    NotAllowed,
    Offline,
    Dropped,
    Sent,
}

impl From<Offered> for Came {
    #[inline]
    fn from(offered: Offered) -> Self {
        match offered {
            Offered::Taken | Offered::Untold => Self::Sent,
            Offered::Full | Offered::Aged | Offered::NotSupported => Self::Dropped,
            Offered::NoLink => Self::Offline,
            Offered::NotAllowed => Self::NotAllowed,
        }
    }
}

impl Core {
    /// Serves the plain PUBLISHes that `rest` begins with, as many as make one batch and the turn
    /// has room for, and takes them off. What is not served is left to `batch.rs`.
    ///
    /// # Errors
    /// That of the frame after them, which was taken off as well.
    pub(super) fn plain_publishes(
        &mut self,
        links: &mut Links,
        deframer: &mut Deframer,
        part: &mut Part,
        rest: &mut &[u8],
    ) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &part.role else { return Ok(()) };
        let Some(first) = Plain::read(rest).filter(is_small) else { return Ok(()) };
        let is_permitted = self.told_ready && producer.grant.covers(first.namespace);
        if !is_permitted || deframer.whole(rest).is_none() || planted::is_faulty() {
            return Ok(());
        }
        let Plains { messages, mut whereabouts } = std::mem::take(&mut self.batches.plains);
        let mut messages = emptied(messages);
        gather(&mut messages, first, rest, self.turn.uids_max().min(PLAIN_MESSAGES));
        let uids = messages.iter().map(|plain| plain.uid);
        self.shared.routes.locate(Namespace(first.namespace), uids, &mut whereabouts);
        let mut desk = std::mem::take(&mut self.batches.desk);
        let (served, outcome) = self.serve_plain(links, part, (&messages, &whereabouts), &mut desk);
        count(&self.counters.publishes, served as u64);
        desk.sums.count(&self.counters);
        self.batches.desk = desk;
        let taken_off = served + usize::from(outcome.is_err());
        let bytes: usize = messages[..taken_off].iter().map(|plain| plain.frame().len()).sum();
        *rest = &rest[bytes..];
        self.batches.plains = Plains { messages: emptied(messages), whereabouts };
        outcome
    }

    /// How many of them were served.
    fn serve_plain(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        (messages, whereabouts): (&[Plain<'_>], &Whereabouts),
        desk: &mut Desk,
    ) -> (usize, Result<(), Fault>) {
        let RoleState::Producer(producer) = &mut part.role else { return (0, Ok(())) };
        for (at, plain) in messages.iter().enumerate() {
            let slots = whereabouts.of(at);
            // Whoever is told of an offline user is offered a frame as well.
            let is_told = slots.is_empty() && self.shared.is_wanted(Feed::Offline);
            let told = if is_told { FRAME_STEPS } else { 0 };
            let frame = PLAIN_STEPS + plain.payload_bytes() / STEP_BYTES;
            let steps = PLAIN_STEPS + slots.len() * frame + told;
            if !self.turn.has_room_for(steps) {
                // One that no turn has room for is looked at again, when it is the first.
                if !self.turn.is_beyond(steps) {
                    self.turn.ends_for_link();
                }
                return (at, Ok(()));
            }
            let advanced = producer.sequence.advance(Kind::PUBLISH, plain.sequence, false);
            if let Err(violation) = advanced {
                return (at, Err(violation.into()));
            }
            self.turn.take(steps);
            let mut came = if slots.is_empty() { Came::Offline } else { Came::NotAllowed };
            for slot in slots {
                let offered =
                    self.offer_plain(links, plain, producer.instance, *slot, &mut desk.places);
                came = came.max(offered.into());
            }
            desk.sums.add_plain(came);
            if came == Came::Offline && self.shared.is_wanted(Feed::Offline) {
                self.tell_plain_offline(links, plain, producer.instance);
            }
        }
        (messages.len(), Ok(()))
    }

    #[inline]
    fn offer_plain(
        &mut self,
        links: &mut Links,
        plain: &Plain<'_>,
        instance: u64,
        slot: Slot,
        places: &mut Places,
    ) -> Offered {
        let place = match self.place_of(places, slot, (plain.namespace, 1)) {
            Ok(place) => place,
            Err(offered) => return offered,
        };
        let care = Care { ttl_ms: plain.ttl_ms, priority: plain.priority, conflates: false };
        let offer = Offer { receiver: Receiver::Gateways, care, awaited: None };
        self.offer(links, place, offer, |out| plain.deliver(instance, out))
    }

    #[cold]
    fn tell_plain_offline(&mut self, links: &mut Links, plain: &Plain<'_>, instance: u64) {
        let message = Message::decode_whole(plain.frame()).expect("a plain one is a message");
        self.tell_offline(links, &message, instance, &[plain.uid]);
    }
}

/// Whether its payload is not worth being shared by outboxes.
fn is_small(plain: &Plain<'_>) -> bool {
    plain.payload_bytes() < REFERENCED_BYTES
}

/// Those of one namespace that `input` begins with, of which the first is there.
fn gather<'a>(messages: &mut Vec<Plain<'a>>, first: Plain<'a>, input: &'a [u8], most: usize) {
    let (mut next, mut at) = (Some(first), 0);
    while let Some(plain) = next {
        at += plain.frame().len();
        messages.push(plain);
        if messages.len() == most {
            return;
        }
        next = Plain::read(&input[at..])
            .filter(|plain| plain.namespace == first.namespace && is_small(plain));
    }
}

#[cfg(test)]
mod tests {
    use waybill_routing::{Audience, Change, Incarnation, Namespace, Op, Plan, Query, Routes, Uid};
    use waybill_wire::message::{Message, MessageHead};
    use waybill_wire::targets::UidRun;

    use super::super::fates::Fates;
    use super::super::publish::Sums;
    use super::super::sending::Offered::{
        self, Aged, Full, NoLink, NotAllowed, NotSupported, Taken, Untold,
    };
    use super::Came;
    use crate::ledger::{Counters, Ledger};

    const OFFERED: [Offered; 7] = [Taken, Untold, Full, Aged, NoLink, NotAllowed, NotSupported];

    #[test]
    fn promise_5_whoever_has_three_gateways_is_counted_as_any_message_counts() {
        let (routes, uid) = (Routes::default(), 7_u64.to_le_bytes());
        for gateway in 1..=3 {
            let slot = routes.open(Incarnation(gateway)).expect("there is room");
            let change = Change { op: Op::Add, namespace: Namespace(1), uid: Uid(7) };
            routes.apply(slot, &[change]).expect("there is room");
            routes.go_live(slot, None).expect("it was filling");
        }
        let list = UidRun::new(&uid).expect("one UID");
        let mut plan = Plan::new();
        routes.resolve(&[Query::new(Namespace(1), Audience::Uids(list))], &mut plan);
        let head = MessageHead { sequence: 1, namespace: 1, ..MessageHead::default() };
        let mut frame = Vec::new();
        head.encode_publish(&[7][..], b"", &mut frame).expect("within all limits");
        let message = Message::decode_whole(&frame).expect("a PUBLISH");
        for offers in every_three() {
            let fates = Fates::of(&message, plan.routed(0), &offers);
            let counts =
                [fates.sent, fates.offline.len(), fates.filtered.len(), fates.dropped.len()];
            let came = offers.into_iter().map(Came::from).max().expect("there are three");
            assert_eq!(counted(came), counts.map(|it| it as u64), "{offers:?} {came:?}");
        }
    }

    fn every_three() -> impl Iterator<Item = [Offered; 3]> {
        let last = |first, second| OFFERED.map(|third| [first, second, third]);
        let two = move |first| OFFERED.into_iter().flat_map(move |second| last(first, second));
        OFFERED.into_iter().flat_map(two)
    }

    fn counted(came: Came) -> [u64; 4] {
        let (mut sums, counters) = (Sums::default(), Counters::default());
        sums.add_plain(came);
        sums.count(&counters);
        let told = Ledger::of([&counters]);
        [told.targets_sent, told.targets_offline, told.targets_filtered, told.targets_dropped]
    }
}

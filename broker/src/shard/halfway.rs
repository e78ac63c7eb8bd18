//! A PUBLISH, or a TAG, that takes several turns of its shard: it is looked up in pieces, then
//! offered to one gateway after another, and answered when all have been (SEC-24).
//!
//! ```text
//! looked up, piece by piece --> asked about, if reports are wanted --> offered --> judged, if some
//!                                             ^                          |         were not taken
//!                                             +--- looked up again <-----+--> answered
//! ```
//!
//! It comes to what it would come to at once, by what holds when its turn comes: each UID is looked
//! up once, each gateway gets one frame. Its link waits, so that nothing overtakes it.
//!
//! A gateway that was found and has gone since may be there again, with another slot: a resync
//! hides nobody (promise 8). So if one goes before all are looked up, all are looked up anew; and
//! if one goes before its frame is made, its users are, and go to gateways that have no frame yet.
//! That is where it is then: a slot that takes another's place was in no answer before.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use waybill_routing::{
    Audience, Gathering, Mode as Lookup, Part as Share, Plan, Query, Routed, SlotState,
};
use waybill_wire::Frame;
use waybill_wire::code::{ErrorCode, Level, capability};
use waybill_wire::frame::Tag;
use waybill_wire::message::Message;
use waybill_wire::targets::{UidRun, Uids};

use super::batch::query;
use super::fates::{Dropped, Fates};
use super::fragments::payload_of;
use super::hops::Trace;
use super::link::{Part, RoleState};
use super::parts::{Place, Turn, frame_steps, look_up_steps, selector_steps};
use super::publish::{Producer, Sums, merge_of, number_of};
use super::receipts::bytes_of;
use super::sending::Offered;
use super::tag::tag_query;
use super::{Core, Links};
use crate::limits::HALFWAY_HITS;
use crate::mail::Asked;
use crate::merge::{self, Merge, Word};
use crate::telemetry::count;

/// The first piece is this part of what another may be.
const FIRST_PIECE_PART: usize = 8;

/// How often users are looked up again whose gateways went. Each time, some gateway has gone in the
/// few turns since the last.
const AGAIN_MAX: usize = 4;

/// A message and how far it has come.
pub(super) struct Halfway {
    frame: Bytes,
    /// It came in pieces.
    is_whole: bool,
    /// When it was taken up, and whether some consumer was told then of who is offline.
    since: Duration,
    told: bool,
    work: Work,
}

/// What it is.
enum Order<'a> {
    Publish(&'a Message<'a>),
    Tag(&'a Tag<'a>),
}

impl<'a> Order<'a> {
    fn query(&self, told: bool) -> Query<'a> {
        match self {
            Self::Publish(message) => query(message, told),
            Self::Tag(tag) => tag_query(tag),
        }
    }

    fn targets(&self) -> UidRun<'a> {
        match self {
            Self::Publish(message) => message.targets,
            Self::Tag(Tag { uids: Uids::Run(uids), .. }) => *uids,
            Self::Tag(_) => unreachable!("the frame was decoded"),
        }
    }

    /// Whether gateways tell what became of it.
    fn is_reported(&self) -> bool {
        match self {
            Self::Publish(message) => message.level == Level::DELIVERED,
            Self::Tag(_) => true,
        }
    }

    fn is_traced(&self) -> bool {
        matches!(self, Self::Publish(message) if message.trace.is_some())
    }

    fn merge(&self) -> Merge {
        match self {
            Self::Publish(message) => merge_of(message),
            Self::Tag(tag) => Merge::tags(tag.uids.iter()),
        }
    }
}

#[derive(Default)]
struct Work {
    /// Of the frame, without its list.
    bytes: usize,
    /// Nothing below takes memory without one, nor much without the other.
    place: Option<Place>,
    large: Option<Place>,
    stage: Stage,
    /// How much of the stage is done: UIDs that are looked up, parts that are judged.
    at: usize,
    /// The UIDs that are looked up, each once, as a run; and those of the message while it is
    /// others.
    list: Vec<u8>,
    listed: Vec<u8>,
    gathering: Gathering,
    /// The most gateways that a UID of the last piece had.
    spread: usize,
    /// The answer for the whole list, and for a piece of it.
    plan: Plan,
    piece: Plan,
    /// Parts that had gone when they were offered, and how often users were looked up again.
    gone: Vec<usize>,
    again: usize,
    /// What gateways will report, and the number of that receipt once it is promised.
    merge: Option<Merge>,
    number: Option<u64>,
    trace: Option<Trace>,
    offers: Vec<Offered>,
    /// The best that any offer was for a user.
    best: BTreeMap<u64, Offered>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Begun,
    LookedUp,
    Asked,
    Offered,
    Sought,
    Judged,
    Done,
}

impl Halfway {
    pub(super) fn new(frame: &[u8], told: bool, since: Duration) -> Self {
        let (frame, work) = (Bytes::copy_from_slice(frame), Work::default());
        Self { frame, is_whole: false, since, told, work }
    }

    /// A PUBLISH that came in pieces.
    pub(super) fn whole(frame: Bytes, told: bool, since: Duration) -> Self {
        Self { frame, is_whole: true, since, told, work: Work::default() }
    }

    /// Bytes of memory of its frame. What it has found is bounded for all of a shard together.
    pub(super) fn held(&self) -> usize {
        self.frame.len()
    }

    /// A gateway has told of its part, if it is this message's.
    pub(super) fn hear(&mut self, asked: Asked, word: &Word) -> bool {
        let Work { merge, number, .. } = &mut self.work;
        match merge {
            Some(merge) if *number == Some(asked.number) => merge.hear(asked.part, word),
            _ => false,
        }
    }

    /// What is known of its way, if it is this one.
    pub(super) fn trace(&mut self, asked: Asked) -> Option<&mut Trace> {
        self.work.trace.as_mut().filter(|_| self.work.number == Some(asked.number))
    }
}

impl Core {
    /// Does as much of a link's message as the turn has room for.
    pub(super) fn go_on_halfway(&mut self, links: &mut Links, part: &mut Part) {
        let Some(mut halfway) = part.halfway.take() else { return };
        halfway.work.place = halfway.work.place.take().or_else(|| self.turn.place());
        if halfway.work.place.is_none() {
            part.halfway = Some(halfway);
            return;
        }
        let Halfway { frame, is_whole, since, told, work } = &mut *halfway;
        let whole = if *is_whole { Message::decode_whole(frame) } else { None };
        let decoded = whole.map_or_else(|| Frame::decode(frame), |it| Ok(Frame::Publish(it)));
        let message = match &decoded {
            Ok(Frame::Publish(message)) => Order::Publish(message),
            Ok(Frame::Tag(tag)) => Order::Tag(tag),
            other => unreachable!("was one of these when it came: {other:?}"),
        };
        if let Ok(Frame::Publish(message)) = &decoded {
            self.whole = payload_of(frame, message);
        }
        work.bytes = frame.len() - 8 * message.targets().len();
        while work.stage != Stage::Done && !self.turn.is_over() {
            match work.stage {
                Stage::Begun => self.look_up_some(&message, *told, work),
                Stage::LookedUp => self.promise(part, &message, *since, work),
                Stage::Asked => self.offer_some(links, part, &message, work),
                Stage::Offered => self.seek_gone(&message, *told, work),
                Stage::Sought => judge_some(&mut self.turn, work),
                Stage::Judged | Stage::Done => self.finish(links, part, &message, work),
            }
        }
        self.whole = None;
        if halfway.work.stage != Stage::Done {
            part.halfway = Some(halfway);
        }
    }

    fn look_up_some(&mut self, message: &Order<'_>, told: bool, work: &mut Work) {
        let (whole, targets) = (message.query(told), message.targets().len());
        if work.list.is_empty() {
            let mode = match whole.mode {
                Lookup::Auto if !whole.fates_asked => self.shared.routes.weigh(&whole).mode,
                asked => asked,
            };
            if matches!(whole.audience, Audience::Everyone) || mode == Lookup::Broadcast {
                self.resolve_whole(whole, &mut work.plan);
                self.turn.take(targets);
                return work.next(Stage::LookedUp);
            }
            let filtered;
            (work.list, filtered) = distinct_without(message.targets(), whole.except);
            work.gathering = Gathering::new(filtered);
            self.turn.take(2 * targets);
        }
        if self.look_up_piece(whole, work) {
            return;
        }
        let has_gone = |slot| self.shared.routes.state(slot) != SlotState::Live;
        if work.again < AGAIN_MAX && work.gathering.slots().any(has_gone) {
            work.again += 1;
            work.gathering.begin_anew();
            return work.next(Stage::Begun);
        }
        std::mem::take(&mut work.gathering).into_plan(&mut work.plan);
        work.next(Stage::LookedUp);
    }

    /// Finds the gateways of what is offered whole.
    fn resolve_whole(&mut self, whole: Query<'_>, plan: &mut Plan) {
        self.shared.routes.resolve(&[whole], plan);
        let parts = plan.routed(0).parts().len();
        self.turn.take(parts + selector_steps(whole.selector));
    }

    /// Looks the next piece of the list up; whether there was any.
    fn look_up_piece(&mut self, whole: Query<'_>, work: &mut Work) -> bool {
        // At first it is not known how many gateways each has.
        let parts = if work.spread == 0 { FIRST_PIECE_PART } else { 1 };
        if work.gathering.hits() >= HALFWAY_HITS && !work.may_be_large(&self.turn) {
            self.turn.ends_for_link();
            return true;
        }
        // Each piece asks anew.
        let asked = selector_steps(whole.selector);
        let most = self.turn.left().saturating_sub(asked) / look_up_steps(1, work.spread);
        let most = most.min(self.turn.uids_max() / parts).max(1);
        let piece = &work.list[8 * work.at..];
        let piece = UidRun::new(&piece[..piece.len().min(8 * most)]);
        let Some(uids) = piece.filter(|uids| !uids.is_empty()) else { return false };
        let (audience, except) = (Audience::Uids(uids), UidRun::default());
        let query = Query { audience, except, mode: Lookup::Direct, ..whole };
        if !self.shared.routes.resolve_within(&[query], HALFWAY_HITS, &mut work.piece) {
            work.spread = (2 * work.spread).max(HALFWAY_HITS.div_ceil(uids.len()));
            self.turn.take(asked + look_up_steps(uids.len(), HALFWAY_HITS));
            return true;
        }
        let hits = work.gathering.add(work.piece.routed(0));
        work.spread = hits.div_ceil(uids.len());
        work.at += uids.len();
        self.turn.take(asked + look_up_steps(uids.len(), hits));
        true
    }

    /// If gateways had gone: looks their users up again, and goes back to offering if there are
    /// other gateways for them.
    fn seek_gone(&mut self, message: &Order<'_>, told: bool, work: &mut Work) {
        if work.gone.is_empty() || work.again == AGAIN_MAX {
            return work.next(Stage::Sought);
        }
        let whole = message.query(told);
        if work.at == 0 {
            let sought = of_parts(&work.list, &work.plan, &work.gone);
            work.listed = std::mem::replace(&mut work.list, sought);
        }
        if work.list.is_empty() {
            // Frames for everyone are offered whole.
            self.resolve_whole(whole, &mut work.piece);
        } else if self.look_up_piece(whole, work) {
            return;
        } else {
            std::mem::take(&mut work.gathering).into_plan(&mut work.piece);
        }
        work.list = std::mem::take(&mut work.listed);
        work.gone.clear();
        work.again += 1;
        let found = work.plan.join(&work.piece);
        work.next(if found > 0 { Stage::LookedUp } else { Stage::Sought });
    }

    /// Prepares for what gateways will report, if that is wanted, and promises the receipt.
    fn promise(&mut self, part: &mut Part, message: &Order<'_>, since: Duration, work: &mut Work) {
        let RoleState::Producer(producer) = &mut part.role else { return };
        let routed = work.plan.routed(0);
        let parts = routed.parts().len();
        let is_traced = message.is_traced() && part.capabilities & capability::TRACE != 0;
        if message.is_reported() {
            let merge = work.merge.get_or_insert_with(|| message.merge());
            for (_, share) in routed.parts().skip(merge.parts()) {
                if self.turn.is_over() {
                    return;
                }
                self.turn.take(1 + 3 * length(share));
                merge.part(match share {
                    Share::Uids(uids) => merge::Share::Uids(uids),
                    Share::Whole => merge::Share::Whole,
                });
            }
            if work.number.is_some() {
                return work.next(Stage::Asked);
            }
            if !producer
                .receipts
                .has_room_for(bytes_of(merge, is_traced), self.shared.pools.brought.share())
            {
                self.refuse_halfway(part, message, ErrorCode::OVERLOADED);
                return work.next(Stage::Done);
            }
            work.number = Some(producer.receipts.next());
        }
        if is_traced && work.trace.is_none() {
            work.trace = Some(self.trace_since(since, parts));
        }
        work.next(Stage::Asked);
    }

    fn offer_some(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        order: &Order<'_>,
        work: &mut Work,
    ) {
        let RoleState::Producer(producer) = &part.role else { return };
        let from = Producer { instance: producer.instance, is_traced: work.trace.is_some() };
        let (shard, link) = (self.id, part.id);
        let asked = work.number.map(|number| Asked { shard, link, number, part: 0 });
        let mut desk = std::mem::take(&mut self.batches.desk);
        let routed = work.plan.routed(0);
        desk.frame.clear();
        for (at, (slot, share)) in routed.parts().enumerate().skip(work.offers.len()) {
            if self.turn.is_over() {
                break;
            }
            self.turn.take(frame_steps(work.bytes, order.targets().len(), share));
            let (it, places) = ((at, slot, share), &mut desk.places);
            let offered = match (order, asked) {
                (Order::Publish(message), _) => {
                    let places = (places, &mut desk.frame);
                    self.offer_part(links, message, from, asked, it, places)
                }
                (Order::Tag(tag), Some(asked)) => {
                    let tag = Tag { origin: from.instance, ..**tag };
                    let asked = Asked { part: number_of(at), ..asked };
                    self.offer_tag_part(links, tag, asked, (slot, share), places)
                }
                (Order::Tag(_), None) => unreachable!("a TAG is reported on"),
            };
            work.offers.push(offered);
            if offered == Offered::NoLink {
                work.gone.push(at);
            }
        }
        self.batches.desk = desk;
        if work.offers.len() == routed.parts().len() {
            work.next(Stage::Offered);
        }
    }

    fn finish(&mut self, links: &mut Links, part: &mut Part, order: &Order<'_>, work: &mut Work) {
        work.next(Stage::Done);
        let Work { plan, offers, best, merge, number, trace, list, .. } = work;
        let asking = number.take().zip(merge.take());
        let message = match order {
            Order::Publish(message) => message,
            Order::Tag(tag) => {
                let Some(asking) = asking else { unreachable!("a TAG is reported on") };
                return self.await_tag(part, tag, asking, offers);
            }
        };
        let routed = plan.routed(0);
        let fates = if best.is_empty() {
            Fates::of(message, routed, offers)
        } else {
            fates_of(message, routed, list, best)
        };
        let mut sums = Sums::default();
        if let RoleState::Producer(producer) = &part.role {
            self.conclude(links, message, producer.instance, routed, &fates, &mut sums);
        }
        if message.level != Level::NONE {
            let found = (asking, trace.take());
            self.answer_publish(part, message, (routed, offers), &fates, found, &mut sums);
        }
        self.concluded(&mut sums);
    }

    fn refuse_halfway(&mut self, part: &mut Part, order: &Order<'_>, code: ErrorCode) {
        match order {
            Order::Publish(message) => {
                let mut sums = Sums::default();
                Self::refuse(part, message, code, &mut sums);
                self.concluded(&mut sums);
            }
            Order::Tag(tag) => self.refuse_tag(part, tag, code),
        }
    }

    pub(super) fn concluded(&mut self, sums: &mut Sums) {
        count(&self.counters.publishes, 1);
        sums.count(&self.counters);
    }
}

impl Work {
    fn next(&mut self, stage: Stage) {
        (self.stage, self.at) = (stage, 0);
    }

    /// Whether it may find more than most messages do.
    fn may_be_large(&mut self, turn: &Turn) -> bool {
        self.large = self.large.take().or_else(|| turn.large_place());
        self.large.is_some()
    }
}

/// Those of a run that are in these parts, as a run.
fn of_parts(list: &[u8], plan: &Plan, wanted: &[usize]) -> Vec<u8> {
    let parts: Vec<Share<'_>> = plan.routed(0).parts().map(|(_, share)| share).collect();
    let uids = wanted.iter().map(|at| match parts[*at] {
        Share::Uids(uids) => uids,
        Share::Whole => &[],
    });
    let uids: BTreeSet<u64> = uids.flatten().copied().collect();
    let list = UidRun::new(list).unwrap_or_default().iter();
    list.filter(|uid| uids.contains(uid)).flat_map(u64::to_le_bytes).collect()
}

/// If not every offer was taken: notes of each user the best of their gateways' offers.
fn judge_some(turn: &mut Turn, work: &mut Work) {
    let routed = work.plan.routed(0);
    if !Fates::are_mixed(&work.offers) {
        return work.next(Stage::Judged);
    }
    for ((_, share), offered) in routed.parts().zip(&work.offers).skip(work.at) {
        if turn.is_over() {
            return;
        }
        work.at += 1;
        turn.take(1 + 3 * length(share));
        // Of those who are not listed nobody is named; the ledger has the frame.
        let Share::Uids(uids) = share else { continue };
        for uid in uids {
            let best = work.best.entry(*uid).or_insert(*offered);
            if rank(*offered) > rank(*best) {
                *best = *offered;
            }
        }
    }
    work.next(Stage::Judged);
}

fn rank(offered: Offered) -> u8 {
    match offered {
        Offered::NotAllowed => 0,
        Offered::NoLink => 1,
        // Of two causes the lower number counts (REP-6).
        Offered::Aged => 2,
        Offered::Full => 3,
        Offered::NotSupported => 4,
        Offered::Taken | Offered::Untold => 5,
    }
}

/// Of users each of whom was judged: all in the order of the list.
fn fates_of<'a>(
    message: &Message<'_>,
    routed: Routed<'a>,
    list: &[u8],
    best: &BTreeMap<u64, Offered>,
) -> Fates<'a> {
    let (mut offline, mut there) = (Vec::new(), Vec::new());
    let mut dropped = Dropped::default();
    let mut lost = 0;
    let elsewhere: BTreeSet<u64> = routed.filtered_in_part().iter().copied().collect();
    let mut unknown = routed.offline().iter().peekable();
    for uid in UidRun::new(list).unwrap_or_default().iter() {
        match best.get(&uid) {
            Some(Offered::NotSupported) => dropped.unsupported.push(uid),
            Some(Offered::Full) => dropped.full.push(uid),
            Some(Offered::Aged) => dropped.aged.push(uid),
            Some(Offered::NoLink) => {
                lost += 1;
                // Who is at a gateway that can have no match is there all the same.
                if elsewhere.contains(&uid) { there.push(uid) } else { offline.push(uid) }
            }
            Some(_) => {}
            None => offline.extend(unknown.next_if(|it| **it == uid)),
        }
    }
    let sent = routed.reached() - dropped.len() - lost;
    Fates::new(message, routed, (sent, offline, dropped), there)
}

fn length(share: Share<'_>) -> usize {
    match share {
        Share::Uids(uids) => uids.len(),
        Share::Whole => 0,
    }
}

/// The listed UIDs that are not excepted, each once, as a run, and those that are; in list order.
fn distinct_without(listed: UidRun<'_>, except: UidRun<'_>) -> (Vec<u8>, Vec<u64>) {
    let mut except: Vec<u64> = except.iter().collect();
    except.sort_unstable();
    let mut places: Vec<(u64, usize)> =
        listed.iter().enumerate().map(|(at, uid)| (uid, at)).collect();
    places.sort_unstable();
    places.dedup_by_key(|(uid, _)| *uid);
    places.sort_unstable_by_key(|(_, at)| *at);
    let (mut list, mut filtered) = (Vec::with_capacity(8 * places.len()), Vec::new());
    for (uid, _) in places {
        if except.binary_search(&uid).is_ok() {
            filtered.push(uid);
        } else {
            list.extend_from_slice(&uid.to_le_bytes());
        }
    }
    (list, filtered)
}

//! Where a message would go, and why not there: what `waybill explain` asks of a broker.
//!
//! A question is made into the PUBLISH it would be, which is judged, looked up, made into frames
//! and counted by what does that to real ones, except that no shard is asked and nothing is put
//! into an outbox. Then every holder of each user is looked for, in whatever state it is, to say
//! why not. It presumes a producer that may publish to the namespace; a link that is just ending is
//! seen once it has ended. Never: anything that changes the broker.

pub mod answer;
pub mod question;

use std::collections::{BTreeMap, BTreeSet};

use waybill_routing::{
    Audience, GatewaySlot, Mode as Lookup, Namespace, Part, Plan, Query, Routed, SlotState, Uid,
};
use waybill_wire::code::{BrokerState, ErrorCode, Mode};
use waybill_wire::frame::Frame;
use waybill_wire::message::Message;
use waybill_wire::selector::Node;
use waybill_wire::targets::UidRun;

use answer::{
    Counts, Explanation, Fate, FateCounts, FrameBytes, FrameSeen, GatewaySeen, HolderSeen,
    LinkSeen, Modes, Outcome, Reached, Refused, Term, UserSeen,
};
use question::{Mistake, Question, UserId};

use crate::config::OutboxPolicy;
use crate::shard::batch::{RUNS_WHOLE, query, refusal};
use crate::shard::fates::Fates;
use crate::shard::sending::Offered;
use crate::shared::{Feed, Found, Places, Shared};

#[cfg(test)]
mod tests;

/// Gateways that an explanation shows, at most.
pub const GATEWAYS_SHOWN_MAX: usize = 128;

/// Users that an explanation shows, at most.
pub const USERS_SHOWN_MAX: usize = 1_024;

/// Gateways that an explanation shows for one user, at most.
pub const HOLDERS_SHOWN_MAX: usize = 8;

/// What would become of a message.
///
/// # Errors
/// The question makes no message.
pub fn explain(shared: &Shared, question: &Question) -> Result<Explanation, Mistake> {
    let frame = question.publish()?;
    let Ok(Frame::Publish(message)) = Frame::decode(&frame) else {
        unreachable!("it was encoded as a PUBLISH");
    };
    let asked = query(&message, shared.is_wanted(Feed::Offline));
    let asked = Query { bytes: asked.bytes + question.payload_bytes, ..asked };
    let everyone = Query { audience: Audience::Everyone, except: UidRun::default(), ..asked };
    // Whatever the mode, who has a match is known by looking up.
    let matching = Query { mode: Lookup::Direct, ..everyone };
    let mut plan = Plan::new();
    shared.routes.resolve(&[asked, matching], &mut plan);
    let routed = plan.routed(0);
    let sight = Sight::new(shared, &message, question.payload_bytes, routed, plan.routed(1));
    let users = sight.users();
    let (gateways, gateways_count) = sight.gateways();
    let refused = sight.refused();
    let not_shown = |it: &&GatewaySlot| it.state != SlotState::Dead && !sight.concerns(it);
    let is_filling = |it: &&GatewaySlot| it.state == SlotState::Filling;
    Ok(Explanation {
        state: if shared.is_ready() { BrokerState::READY } else { BrokerState::NOT_READY }
            .to_string(),
        reached: if refused.is_some() { Reached::Nobody } else { sight.reached(&users) },
        refused,
        mode: modes(shared, &message, &asked, routed.mode()),
        publish: FrameBytes { header: frame.len(), payload: question.payload_bytes },
        receipt: sight.receipt(routed),
        gateways_more: gateways_count - gateways.len(),
        gateways_others: sight.slots.values().filter(not_shown).count(),
        gateways_filling: sight.slots.values().filter(is_filling).count(),
        gateways,
        fates: sight.is_list().then(|| counted(&users)),
        users_more: users.len().saturating_sub(USERS_SHOWN_MAX),
        users: shown(users, USERS_SHOWN_MAX, |it| it.fate <= Fate::May),
    })
}

/// What is known of a message, and of the broker at the moment of the question.
struct Sight<'a> {
    shared: &'a Shared,
    message: &'a Message<'a>,
    payload_bytes: usize,
    slots: BTreeMap<usize, GatewaySlot>,
    /// Slots that may have a match, if there is a selector.
    may: BTreeSet<usize>,
    /// In the order of the plan.
    offers: Vec<(usize, Offered, FrameSeen)>,
    at: BTreeMap<usize, usize>,
    /// The users of the list, each once, and who holds them.
    held: Vec<(u64, Vec<usize>)>,
    except: BTreeSet<u64>,
    /// Users that each slot holds, those on the except list left out.
    holds: BTreeMap<usize, usize>,
}

impl<'a> Sight<'a> {
    fn new(
        shared: &'a Shared,
        message: &'a Message<'a>,
        payload_bytes: usize,
        routed: Routed<'_>,
        matching: Routed<'_>,
    ) -> Self {
        let namespace = Namespace(message.namespace);
        let slots = shared.routes.gateway_slots(namespace);
        let mut sight = Self {
            shared,
            message,
            payload_bytes,
            slots: slots.into_iter().map(|it| (it.slot.index(), it)).collect(),
            may: matching.parts().map(|(slot, _)| slot.index()).collect(),
            offers: Vec::new(),
            at: BTreeMap::new(),
            held: Vec::new(),
            except: message.except.iter().collect(),
            holds: BTreeMap::new(),
        };
        sight.offer(routed);
        sight.look_for_holders(namespace);
        sight
    }

    /// What each gateway of the plan would be sent, and whether there is room for it.
    fn offer(&mut self, routed: Routed<'_>) {
        let (message, mut places, mut out) = (self.message, Places::default(), Vec::new());
        for (slot, part) in routed.parts() {
            out.clear();
            let users = match part {
                Part::Uids(uids) => {
                    message.deliver_narrowed(0, uids, message.ttl_ms, &mut out);
                    uids.len()
                }
                Part::Whole => {
                    message.deliver_whole(0, message.ttl_ms, &mut out);
                    message.targets.len()
                }
            };
            let bytes = FrameBytes { header: out.len(), payload: self.payload_bytes };
            let drops_oldest = self.shared.config.outbox_policy == OutboxPolicy::DropOldest;
            let whole = bytes.header + bytes.payload;
            let fits =
                |waiting: usize, most| whole + if drops_oldest { 0 } else { waiting } <= most;
            let offered = match places.of(self.shared, slot, message.namespace) {
                Found::At(place) if !place.room.is_open() => Offered::Aged,
                Found::At(place) if fits(place.room.waiting(), place.room.bound()) => {
                    Offered::Taken
                }
                Found::At(_) => Offered::Full,
                Found::NotAllowed => Offered::NotAllowed,
                Found::Gone => Offered::NoLink,
            };
            self.at.insert(slot.index(), self.offers.len());
            let frame = FrameSeen { users, whole: part == Part::Whole, bytes };
            self.offers.push((slot.index(), offered, frame));
        }
    }

    fn look_for_holders(&mut self, namespace: Namespace) {
        let (mut seen, mut slots) = (BTreeSet::new(), Vec::new());
        for uid in self.message.targets.iter().filter(|uid| seen.insert(*uid)) {
            slots.clear();
            if !self.except.contains(&uid) {
                self.shared.routes.holders(namespace, Uid(uid), &mut slots);
            }
            let slots: Vec<usize> = slots.iter().map(|slot| usize::from(*slot)).collect();
            slots.iter().for_each(|slot| *self.holds.entry(*slot).or_default() += 1);
            self.held.push((uid, slots));
        }
    }

    /// Why the broker would not take it.
    fn refused(&self) -> Option<Refused> {
        let code = match refusal(self.message, true, RUNS_WHOLE) {
            Some(code) => code,
            None if !self.shared.is_ready() => ErrorCode::NOT_READY,
            None => return None,
        };
        let reason = if code == ErrorCode::NOT_READY {
            let missing = self.shared.gateways_missing();
            format!("it does not know yet who is where; gateways it waits for: {missing}")
        } else {
            "this broker does not run what the message asks for".into()
        };
        Some(Refused { code: code.to_string(), reason })
    }

    /// As a real one is counted; of an audience without a list only gateways are.
    fn receipt(&self, routed: Routed<'_>) -> Counts {
        let offers: Vec<Offered> = self.offers.iter().map(|it| it.1).collect();
        let fates = Fates::of(self.message, routed, &offers);
        Counts {
            sent: fates.sent,
            offline: fates.offline.len(),
            filtered: fates.filtered.len(),
            dropped: fates.dropped.len(),
            unknown: routed.unresolved(),
            gateways: offers.iter().filter(|offered| offered.is_taken()).count(),
        }
    }

    /// What becomes of it at a slot for users that this holds; whether there are any is not asked.
    fn outcome(&self, slot: &GatewaySlot) -> Outcome {
        let index = slot.slot.index();
        match (slot.state, self.at.get(&index)) {
            (SlotState::Filling, _) => Outcome::Filling,
            (SlotState::Suspended, _) => Outcome::Suspended,
            (SlotState::Dead, _) => Outcome::Gone,
            (SlotState::Live, _) if self.has_selector() && !slot.agreed_on_tags => {
                Outcome::TagsNotAgreed
            }
            (SlotState::Live, _) if self.has_selector() && !self.may.contains(&index) => {
                Outcome::NoMatch
            }
            (SlotState::Live, None) => Outcome::Changed,
            (SlotState::Live, Some(at)) => outcome_of(self.offers[*at].1),
        }
    }

    /// Whether it is for users that are listed.
    fn is_list(&self) -> bool {
        !self.message.targets.is_empty()
    }

    fn has_selector(&self) -> bool {
        self.message.selector.is_some()
    }

    /// Whether it is one of those that are shown: it would be sent something, or has somebody.
    fn concerns(&self, slot: &GatewaySlot) -> bool {
        let index = slot.slot.index();
        let inhabited = !self.is_list() && slot.routes_here > 0;
        self.at.contains_key(&index) || self.holds.contains_key(&index) || inhabited
    }

    fn users(&self) -> Vec<UserSeen> {
        self.held.iter().map(|(uid, slots)| self.user(*uid, slots)).collect()
    }

    fn user(&self, uid: u64, slots: &[usize]) -> UserSeen {
        let excepted = self.except.contains(&uid);
        let outcome = |index| self.slots.get(index).map_or(Outcome::Changed, |it| self.outcome(it));
        let gateways: Vec<HolderSeen> =
            slots.iter().map(|slot| HolderSeen { slot: *slot, outcome: outcome(slot) }).collect();
        let any = |wanted: &[Outcome]| gateways.iter().any(|it| wanted.contains(&it.outcome));
        let fate = if excepted {
            Fate::Filtered
        } else if any(&[Outcome::Sent]) {
            if self.has_selector() { Fate::May } else { Fate::Sent }
        } else if any(&[Outcome::OutboxFull, Outcome::OutboxAge]) {
            Fate::Dropped
        } else if any(&[Outcome::NoMatch, Outcome::TagsNotAgreed]) {
            // Who is there, if for other messages only, is not offline.
            Fate::Filtered
        } else {
            Fate::Offline
        };
        let gateways_more = gateways.len().saturating_sub(HOLDERS_SHOWN_MAX);
        let gateways = shown(gateways, HOLDERS_SHOWN_MAX, |it| it.outcome != Outcome::Sent);
        UserSeen { uid: UserId(uid), fate, excepted, gateways, gateways_more }
    }

    /// Those that are shown, and how many there are.
    fn gateways(&self) -> (Vec<GatewaySeen>, usize) {
        let concerned = self.slots.values().filter(|it| self.concerns(it));
        let all: Vec<(&GatewaySlot, Outcome)> = concerned
            .map(|slot| match self.at.get(&slot.slot.index()) {
                Some(at) => (slot, outcome_of(self.offers[*at].1)),
                None => (slot, self.outcome(slot)),
            })
            .collect();
        let count = all.len();
        let all = shown(all, GATEWAYS_SHOWN_MAX, |it| it.1 == Outcome::Sent);
        (all.into_iter().map(|(slot, outcome)| self.gateway(slot, outcome)).collect(), count)
    }

    fn gateway(&self, slot: &GatewaySlot, outcome: Outcome) -> GatewaySeen {
        let (index, link) = (slot.slot.index(), self.shared.link_and_holder(slot.slot));
        let offer = self.at.get(&index).map(|at| &self.offers[*at]);
        GatewaySeen {
            slot: index,
            incarnation: format!("{:016x}", slot.incarnation.0),
            state: state_name(slot.state).into(),
            link: link.map(|(place, holder)| LinkSeen {
                peer: place.peer.map(|peer| peer.as_ref().into()),
                holder,
                shard: place.shard,
                waiting_bytes: place.room.waiting(),
                waiting_bytes_max: place.room.most(),
            }),
            users: slot.routes_here,
            users_in_all: slot.routes,
            tags: slot.tags + slot.unkept,
            tags_agreed: slot.agreed_on_tags,
            counts_as_every_tag: slot.unkept > 0,
            terms: self.terms(slot),
            holds: self.holds.get(&index).copied().unwrap_or(0),
            frame: offer.map(|offer| offer.2),
            outcome,
        }
    }

    fn terms(&self, slot: &GatewaySlot) -> Vec<Term> {
        let namespace = Namespace(self.message.namespace);
        let nodes = self.message.selector.into_iter().flat_map(|selector| selector.nodes());
        let tags: BTreeSet<&str> = nodes
            .filter_map(|node| match node {
                Node::Tag(tag) => Some(tag),
                Node::And(_) | Node::Or(_) | Node::Not => None,
            })
            .collect();
        let declared = |tag| self.shared.routes.declares(slot.slot, namespace, tag);
        tags.into_iter().map(|tag| Term { tag: tag.into(), declared: declared(tag) }).collect()
    }

    /// With a list its users count, else the gateways that have somebody whom it may be for.
    fn reached(&self, users: &[UserSeen]) -> Reached {
        let (reached, all) = if !self.is_list() {
            let inhabited = self.slots.values().filter(|it| it.routes_here > 0);
            let meant = inhabited
                .map(|it| self.outcome(it))
                .filter(|it| !matches!(it, Outcome::Gone | Outcome::NoMatch));
            let outcomes: Vec<Outcome> = meant.collect();
            let sent = outcomes.iter().filter(|it| **it == Outcome::Sent).count();
            (sent, outcomes.len())
        } else {
            let meant = users.iter().filter(|user| !user.excepted);
            (users.iter().filter(|user| user.fate <= Fate::May).count(), meant.count())
        };
        match reached {
            0 => Reached::Nobody,
            _ if reached < all => Reached::Some,
            _ => Reached::All,
        }
    }
}

fn outcome_of(offered: Offered) -> Outcome {
    match offered {
        Offered::Taken | Offered::Untold => Outcome::Sent,
        Offered::Full => Outcome::OutboxFull,
        Offered::Aged => Outcome::OutboxAge,
        Offered::NoLink => Outcome::NoLink,
        Offered::NotAllowed => Outcome::NotPermitted,
        Offered::NotSupported => unreachable!("only a TAG is, or what came in pieces"),
    }
}

fn state_name(state: SlotState) -> &'static str {
    match state {
        SlotState::Filling => "filling",
        SlotState::Live => "live",
        SlotState::Suspended => "suspended",
        SlotState::Dead => "dead",
    }
}

fn modes(shared: &Shared, message: &Message<'_>, query: &Query<'_>, taken: Lookup) -> Modes {
    let choice = shared.routes.weigh(query);
    let name = |mode| match mode {
        Lookup::Broadcast => Mode::BROADCAST.to_string(),
        Lookup::Direct | Lookup::Auto => Mode::DIRECT.to_string(),
    };
    Modes {
        asked: message.mode.to_string(),
        taken: name(taken),
        auto: name(choice.mode),
        fates_asked: choice.fates_asked,
        direct: choice.direct.into(),
        broadcast: choice.broadcast.into(),
    }
}

fn counted(users: &[UserSeen]) -> FateCounts {
    let mut counts = FateCounts::default();
    for user in users {
        *match user.fate {
            Fate::Sent => &mut counts.sent,
            Fate::May => &mut counts.may,
            Fate::Offline => &mut counts.offline,
            Fate::Filtered => &mut counts.filtered,
            Fate::Dropped => &mut counts.dropped,
        } += 1;
    }
    counts
}

/// At most so many, in their order; of more of them the plain ones last, which say the least.
fn shown<T>(mut all: Vec<T>, most: usize, is_plain: impl Fn(&T) -> bool) -> Vec<T> {
    if all.len() > most {
        all.sort_by_key(is_plain);
        all.truncate(most);
    }
    all
}

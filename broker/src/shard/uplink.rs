//! UPLINK and its answer: from a gateway to one consumer of each group, and one answer back to the
//! link that asked.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use bytes::Bytes;
use waybill_routing::filter::Fields;
use waybill_wire::code::{ErrorCode, Kind, Op, capability};
use waybill_wire::frame::{Frame, Group, UplinkAck};
use waybill_wire::message::Message;
use waybill_wire::session::Refusal;

use super::batch::{RUNS_WHOLE, refusal};
use super::link::{Fault, Life, Part, RoleState};
use super::{Core, Links};
use crate::io::{LinkId, Output};
use crate::limits::UPLINKS_UNANSWERED_MAX;
use crate::mail::{Mail, Question, Receiver};
use crate::outbox::{Cause, Terms};
use crate::shared::{Feed, Place};
use crate::telemetry::{count, uncount};

/// Uplinks that a gateway's link waits for an answer to, by its own numbers.
#[derive(Default)]
pub(super) struct Uplinked {
    waiting: BTreeMap<u64, Verdict>,
    // Of users in `waiting`: who consumes what they send, until the last of it is answered.
    paths: BTreeMap<User, Path>,
    last: u64,
}

/// Bytes of one, asked or owed, and of whom its user stays with.
const UPLINK_BYTES: usize = 400;

/// Namespace and UID.
type User = (u32, u64);

struct Path {
    consumers: Vec<(u16, LinkId)>,
    waiting: usize,
}

/// What the consumers of an uplink have said so far.
#[derive(Clone, Copy)]
struct Verdict {
    // Groups that have not answered.
    open: usize,
    // The first code that was not 0.
    code: ErrorCode,
    user: User,
}

impl Uplinked {
    /// How many there are.
    #[cfg(feature = "sim")]
    pub(super) fn load(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of memory they take.
    pub(super) fn held(&self) -> usize {
        self.waiting.len() * UPLINK_BYTES
    }

    /// Whether something of the user's waits for that consumer.
    fn stays(&self, user: User, place: &Place) -> bool {
        let path = self.paths.get(&user);
        path.is_some_and(|path| path.consumers.iter().any(|&(shard, link)| place.is(shard, link)))
    }

    fn insert(&mut self, number: u64, user: User, places: &[Place]) {
        let consumers = places.iter().map(|place| (place.shard, place.link)).collect();
        let waiting = self.paths.get(&user).map_or(0, |path| path.waiting) + 1;
        self.paths.insert(user, Path { consumers, waiting });
        self.waiting.insert(number, Verdict { open: places.len(), code: ErrorCode(0), user });
    }

    /// One group has answered; the verdict when it was the last.
    fn hear(&mut self, number: u64, code: ErrorCode) -> Option<ErrorCode> {
        let verdict = self.waiting.get_mut(&number)?;
        if verdict.code == ErrorCode(0) {
            verdict.code = code;
        }
        verdict.open -= 1;
        if verdict.open > 0 {
            return None;
        }
        let Verdict { code, user, .. } = self.waiting.remove(&number)?;
        if let Entry::Occupied(mut path) = self.paths.entry(user) {
            path.get_mut().waiting -= 1;
            if path.get().waiting == 0 {
                path.remove();
            }
        }
        Some(code)
    }
}

/// Uplinks a consumer's link owes an answer for, by gateway incarnation and sequence, as it will
/// name them. One that was sent again is there twice and has one answer.
#[derive(Default)]
pub(super) struct Owed {
    // With the number of each in `ages`.
    questions: BTreeMap<(u64, u64), Vec<(u64, Question)>>,
    // In the order of their deadlines, since there is one time for all.
    ages: BTreeMap<u64, Age>,
    last: u64,
}

struct Age {
    until: Duration,
    origin: u64,
    sequence: u64,
}

impl Owed {
    /// How many there are.
    #[cfg(feature = "sim")]
    pub(super) fn load(&self) -> usize {
        self.ages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ages.is_empty()
    }

    /// Bytes of memory they take.
    pub(super) fn held(&self) -> usize {
        self.ages.len() * UPLINK_BYTES
    }

    fn insert(&mut self, question: Question, until: Duration) {
        let Question { origin, sequence, .. } = question;
        self.last += 1;
        self.ages.insert(self.last, Age { until, origin, sequence });
        self.questions.entry((origin, sequence)).or_default().push((self.last, question));
    }

    fn remove(&mut self, origin: u64, sequence: u64) -> Vec<Question> {
        let questions = self.questions.remove(&(origin, sequence)).unwrap_or_default();
        for (number, _) in &questions {
            self.ages.remove(number);
        }
        questions.into_iter().map(|(_, question)| question).collect()
    }

    /// The first one whose time is over.
    fn overdue(&mut self, now: Duration) -> Option<Question> {
        let oldest = self.ages.first_entry().filter(|oldest| oldest.get().until <= now)?;
        let (number, Age { origin, sequence, .. }) = oldest.remove_entry();
        let Entry::Occupied(mut copies) = self.questions.entry((origin, sequence)) else {
            return None;
        };
        let at = copies.get().iter().position(|(of_it, _)| *of_it == number)?;
        let (_, question) = copies.get_mut().remove(at);
        if copies.get().is_empty() {
            copies.remove();
        }
        Some(question)
    }
}

impl Core {
    pub(super) fn uplink(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        message: &Message<'_>,
    ) -> Result<(), Fault> {
        let RoleState::Gateway(gateway) = &mut part.role else {
            unreachable!("the session passes UPLINK from gateways only");
        };
        gateway.uplinks.advance(Kind::UPLINK, message.sequence, message.resend)?;
        count(&self.counters.uplinks, 1);
        count(&self.counters.uplinks_pending, 1);
        gateway.uplinked.last += 1;
        let question = Question {
            shard: self.id,
            link: part.id,
            origin: gateway.incarnation,
            sequence: message.sequence,
            number: gateway.uplinked.last,
        };
        let user = (message.namespace, message.sender.map_or(0, |sender| sender.uid));
        let permitted = gateway.grant.covers(message.namespace);
        self.chooses_consumers(1);
        let refused = if let Some(code) = refusal(message, permitted, RUNS_WHOLE) {
            Err(code)
        } else if gateway.uplinked.waiting.len() >= UPLINKS_UNANSWERED_MAX
            || gateway.uplinked.held() > self.shared.pools.waiting.share()
        {
            Err(ErrorCode::OVERLOADED)
        } else {
            let stays = |place: &Place| gateway.uplinked.stays(user, place);
            let fields = Fields::of_message(Kind::UPLINK, std::slice::from_ref(&user.1), message);
            let picked = self.shared.consumers_staying(Feed::Uplinks, user, &fields, stays);
            if picked.is_empty() { Err(ErrorCode::NO_CONSUMER) } else { Ok(picked) }
        };
        let places = match refused {
            Ok(places) => places,
            Err(code) => {
                self.put_answer(part, question, code);
                return Ok(());
            }
        };
        gateway.uplinked.insert(question.number, user, &places);
        for place in places {
            let code = self.hand_over(links, message, question, &place);
            if code != ErrorCode(0) {
                self.heard(part, question, code);
            }
        }
        Ok(())
    }

    /// Gives an uplink to a consumer. 0: it has it, and will answer.
    fn hand_over(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        question: Question,
        place: &Place,
    ) -> ErrorCode {
        count(&self.counters.consumers.offered, 1);
        let mut frame = Vec::new();
        message.uplink_forward(question.origin, &mut frame);
        if !place.room.reserve(frame.len()) {
            self.counters.consumers.refused(place.room.cause());
            return ErrorCode::OUTBOX_FULL;
        }
        if place.shard == self.id {
            return self.take_in(links, place.link, question, &frame);
        }
        count(&self.counters.consumers.between_shards, 1);
        self.shared.pools.waiting.take(frame.capacity());
        let mail = Mail::Uplink { link: place.link, question, frame };
        self.outputs.push_back(Output::Mail { to: place.shard, mail });
        ErrorCode(0)
    }

    /// Puts an uplink, whose place is reserved, into the outbox of a consumer of this shard.
    fn take_in(
        &mut self,
        links: &mut Links,
        link: LinkId,
        question: Question,
        frame: &[u8],
    ) -> ErrorCode {
        let part = links.find_mut(link).map(|link| &mut link.part);
        let Some(part) = part.filter(|part| part.life == Life::Open) else {
            count(&self.counters.consumers.dropped_no_link, 1);
            return ErrorCode::CONSUMER_LOST;
        };
        let RoleState::Consumer(consumer) = &mut part.role else {
            unreachable!("a place of a consumer is that of a consumer's link");
        };
        let is_short = consumer.owed.held() > self.shared.pools.waiting.share();
        if is_short || consumer.owed.ages.len() >= UPLINKS_UNANSWERED_MAX {
            part.outbox.room().release(frame.len());
            self.counters.consumers.refused(if is_short { Cause::Pool } else { Cause::Full });
            return ErrorCode::OUTBOX_FULL;
        }
        let timeout_ms = self.shared.config.uplink_timeout_ms.into();
        consumer.owed.insert(question, self.now + Duration::from_millis(timeout_ms));
        part.outbox.accept(self.now, Terms::default(), frame, Bytes::new());
        self.queued(Receiver::Consumers, part, 1);
        ErrorCode(0)
    }

    /// An uplink from a gateway of another shard.
    pub(super) fn uplink_mailed(
        &mut self,
        links: &mut Links,
        link: LinkId,
        question: Question,
        frame: &Vec<u8>,
    ) {
        self.shared.pools.waiting.give(frame.capacity());
        uncount(&self.counters.consumers.between_shards, 1);
        let code = self.take_in(links, link, question, frame);
        if code != ErrorCode(0) {
            self.answer(links, question, code);
        }
    }

    pub(super) fn uplink_ack(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        ack: &UplinkAck,
    ) -> Result<(), Fault> {
        let RoleState::Consumer(consumer) = &mut part.role else {
            unreachable!("the session passes UPLINK_ACK from consumers only");
        };
        if ack.code != ErrorCode(0) && !(301..500).contains(&ack.code.0) {
            let detail = "a consumer answers with 0 or a code of 301 to 499 [UP-3]";
            let (code, kind, reference) = (ErrorCode::BAD_VALUE, Kind::UPLINK_ACK, ack.sequence);
            return Err(Refusal { code, kind, reference, detail, retry_after_ms: 0 }.into());
        }
        let questions = consumer.owed.remove(ack.origin, ack.sequence);
        if questions.is_empty() {
            // One that was not asked, or not any more, changes nothing.
            count(&self.counters.answers_ignored, 1);
        }
        questions.into_iter().for_each(|question| self.answer(links, question, ack.code));
        Ok(())
    }

    /// GROUP: in one namespace the consumer is in this group from now on, or no longer.
    pub(super) fn group(&mut self, part: &mut Part, group: &Group<'_>) {
        let Group { op, namespace, name } = *group;
        let RoleState::Consumer(consumer) = &part.role else {
            unreachable!("the session passes GROUP from consumers only");
        };
        let (shard, link) = (self.id, part.id);
        let refusal = if !part.can(capability::GROUPS) {
            Some((ErrorCode::NOT_SUPPORTED, "this link's HELLO did not offer groups"))
        } else if !consumer.grant.covers(namespace) {
            Some((ErrorCode::NOT_PERMITTED, "this token does not allow the namespace"))
        } else if op == Op::REMOVE {
            self.shared.consumer_parts(shard, link, namespace, name);
            None
        } else if self.shared.consumer_joins(shard, link, namespace, name) {
            None
        } else {
            Some((ErrorCode::OVERLOADED, "a link may be in groups of 64 namespaces"))
        };
        if let Some((code, detail)) = refusal {
            part.refuse((Kind::GROUP, 0), code, detail);
        }
    }

    /// Whoever still waits for this consumer learns that the fate is unknown.
    pub(super) fn consumer_left(&mut self, links: &mut Links, link: LinkId, owed: Owed) {
        self.shared.consumer_closed(self.id, link);
        for (_, question) in owed.questions.into_values().flatten() {
            self.answer(links, question, ErrorCode::CONSUMER_LOST);
        }
    }

    /// What a consumer has taken and not answered in time is answered in its place (UP-15), and
    /// forgotten: it may live and never answer.
    pub(super) fn give_up_uplinks(&mut self, links: &mut Links, part: &mut Part) {
        let RoleState::Consumer(consumer) = &mut part.role else { return };
        while let Some(question) = consumer.owed.overdue(self.now) {
            self.answer(links, question, ErrorCode::CONSUMER_LOST);
        }
    }

    /// The gateway's link has ended: nobody is left to be answered.
    pub(super) fn uplinks_left(&mut self, uplinked: &Uplinked) {
        let gone = uplinked.waiting.len() as u64;
        count(&self.counters.uplinks_asker_gone, gone);
        uncount(&self.counters.uplinks_pending, gone);
    }

    /// Passes a consumer's answer on to the link that asked, if it is still there.
    pub(super) fn answer(&mut self, links: &mut Links, question: Question, code: ErrorCode) {
        if question.shard == self.id {
            return self.answer_here(links, question, code);
        }
        let mail = Mail::UplinkAnswer { question, code };
        self.outputs.push_back(Output::Mail { to: question.shard, mail });
    }

    pub(super) fn answer_here(&mut self, links: &mut Links, question: Question, code: ErrorCode) {
        let Some(mut link) = links.remove(question.link) else { return };
        self.heard(&mut link.part, question, code);
        links.insert(link.part.id, link);
    }

    fn heard(&mut self, part: &mut Part, question: Question, code: ErrorCode) {
        if let RoleState::Gateway(gateway) = &mut part.role
            && let Some(verdict) = gateway.uplinked.hear(question.number, code)
        {
            self.put_answer(part, question, verdict);
        }
    }

    fn put_answer(&mut self, part: &mut Part, question: Question, code: ErrorCode) {
        uncount(&self.counters.uplinks_pending, 1);
        let counters = &self.counters;
        let cause = match code {
            ErrorCode(0) => &counters.uplinks_accepted,
            ErrorCode::NO_CONSUMER => &counters.uplinks_no_consumer,
            ErrorCode::CONSUMER_LOST => &counters.uplinks_consumer_lost,
            ErrorCode::OUTBOX_FULL => &counters.uplinks_outbox_full,
            ErrorCode::OVERLOADED => &counters.uplinks_overloaded,
            ErrorCode::NOT_PERMITTED => &counters.uplinks_not_permitted,
            ErrorCode::NOT_SUPPORTED => &counters.uplinks_not_supported,
            _ => &counters.uplinks_refused_by_consumer,
        };
        count(cause, 1);
        if code != ErrorCode(0) {
            count(&counters.uplinks_refused, 1);
        }
        let Question { sequence, origin, .. } = question;
        part.put(&Frame::UplinkAck(UplinkAck { code, sequence, origin }));
        self.touch(part);
    }
}

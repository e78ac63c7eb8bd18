//! UPLINK and its answer: from a gateway to one consumer and back to the link that asked.

use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::frame::{Frame, UplinkAck};
use waybill_wire::message::Message;
use waybill_wire::session::{Refusal, support};

use super::link::{ConsumerState, Fault, Life, Part, RoleState};
use super::{Core, Links};
use crate::io::{LinkId, Output};
use crate::limits::UPLINKS_UNANSWERED_MAX;
use crate::mail::{Mail, Question};
use crate::telemetry::count;

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
        count(&self.counters.uplinks, 1);
        gateway.uplinks.advance(Kind::UPLINK, message.sequence, message.resend)?;
        let question = Question {
            shard: self.id,
            link: part.id,
            origin: gateway.incarnation,
            sequence: message.sequence,
        };
        let code = if !gateway.grant.covers(message.namespace) {
            ErrorCode::NOT_PERMITTED
        } else if support::missing_for(message).is_some() {
            ErrorCode::NOT_SUPPORTED
        } else if gateway.unanswered >= UPLINKS_UNANSWERED_MAX {
            ErrorCode::OVERLOADED
        } else {
            self.hand_over(links, message, question)
        };
        if code == ErrorCode(0) {
            gateway.unanswered += 1;
        } else {
            self.put_answer(part, question, code);
        }
        Ok(())
    }

    /// Gives an uplink to a consumer. 0: it has it, and will answer.
    fn hand_over(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        question: Question,
    ) -> ErrorCode {
        let uid = message.sender.map_or(0, |sender| sender.uid);
        let Some(place) = self.shared.consumer(message.namespace, uid) else {
            return ErrorCode::NO_CONSUMER;
        };
        let mut frame = Vec::new();
        message.uplink_forward(question.origin, &mut frame);
        if !place.room.reserve(frame.len()) {
            count(&self.counters.dropped_outbox_full, 1);
            return ErrorCode::OUTBOX_FULL;
        }
        if place.shard == self.id {
            return self.take_in(links, place.link, question, &frame);
        }
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
        let part = links.get_mut(&link).map(|link| &mut link.part);
        let Some(part) = part.filter(|part| part.life == Life::Open) else {
            count(&self.counters.dropped_no_link, 1);
            return ErrorCode::CONSUMER_LOST;
        };
        let RoleState::Consumer(consumer) = &mut part.role else {
            unreachable!("a place of a consumer is that of a consumer's link");
        };
        if consumer.unanswered.len() >= UPLINKS_UNANSWERED_MAX {
            part.outbox.room().release(frame.len());
            count(&self.counters.dropped_outbox_full, 1);
            return ErrorCode::OUTBOX_FULL;
        }
        consumer.unanswered.insert((question.origin, question.sequence), question);
        part.outbox.accept(self.now, 0, frame);
        count(&self.counters.queued, 1);
        self.touch(part);
        ErrorCode(0)
    }

    /// An uplink from a gateway of another shard.
    pub(super) fn uplink_mailed(
        &mut self,
        links: &mut Links,
        link: LinkId,
        question: Question,
        frame: &[u8],
    ) {
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
        // One that was not asked, or not any more, changes nothing.
        if let Some(question) = consumer.unanswered.remove(&(ack.origin, ack.sequence)) {
            self.answer(links, question, ack.code);
        }
        Ok(())
    }

    /// Whoever still waits for this consumer learns that the fate is unknown.
    pub(super) fn consumer_left(
        &mut self,
        links: &mut Links,
        link: LinkId,
        consumer: &ConsumerState,
    ) {
        self.shared.consumer_closed(self.id, link);
        for &question in consumer.unanswered.values() {
            self.answer(links, question, ErrorCode::CONSUMER_LOST);
        }
    }

    /// Sends an answer to the link that asked, if it is still there.
    fn answer(&mut self, links: &mut Links, question: Question, code: ErrorCode) {
        if question.shard == self.id {
            return self.answer_here(links, question, code);
        }
        let mail = Mail::UplinkAnswer { question, code };
        self.outputs.push_back(Output::Mail { to: question.shard, mail });
    }

    pub(super) fn answer_here(&mut self, links: &mut Links, question: Question, code: ErrorCode) {
        let Some(mut link) = links.remove(&question.link) else { return };
        if let RoleState::Gateway(gateway) = &mut link.part.role {
            gateway.unanswered -= 1;
            self.put_answer(&mut link.part, question, code);
        }
        links.insert(link.part.id, link);
    }

    fn put_answer(&mut self, part: &mut Part, question: Question, code: ErrorCode) {
        if code != ErrorCode(0) {
            count(&self.counters.uplinks_refused, 1);
        }
        let Question { sequence, origin, .. } = question;
        part.put(&Frame::UplinkAck(UplinkAck { code, sequence, origin }));
        self.touch(part);
    }
}

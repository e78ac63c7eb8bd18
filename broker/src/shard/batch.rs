//! PUBLISHes that one read brought, taken together: decoded and judged in their order, looked up in
//! one batch, then offered and answered in their order.
//!
//! Nothing that one of them does changes what is judged of the next: rights, readiness and the
//! route table are what they are for the whole of an input. What does depend on those before it, as
//! room in outboxes and for receipts, is asked when its turn comes. So a batch does what its
//! messages would do one by one; `tests/it/batches.rs` compares the two. A frame that is refused
//! ends its batch: what came before it is served, and then its link ends. A message that the turn
//! has no room for ends it too, and is what its link goes on with (`parts.rs`); one that no turn
//! has room for takes several (`halfway.rs`).

use bytes::Bytes;
use waybill_routing::{Audience, Mode as Lookup, Namespace, Plan, Query};
use waybill_wire::code::{ErrorCode, Kind, Level, Mode, capability};
use waybill_wire::deframe::Deframer;
use waybill_wire::message::Message;
use waybill_wire::session::{Sequence, support};

use super::fragments::payload_of;
use super::halfway::Halfway;
use super::link::{Fault, Part, RoleState};
use super::parts::{Turn, UID_STEPS, selector_steps, steps_of};
use super::plain::Plains;
use super::publish::Sums;
use super::runs::{Buffers, goes_unchanged, is_shared};
use super::sending::Offered;
use super::{Core, Links};
use crate::limits::{BATCH_MESSAGES, BATCH_TARGETS};
use crate::shared::{Feed, Places};
use crate::telemetry::count;

/// What batches are made in: it keeps its memory, and of messages nothing between two.
#[derive(Default)]
pub(super) struct Batches {
    messages: Vec<Message<'static>>,
    queries: Vec<Query<'static>>,
    refusals: Vec<(usize, ErrorCode)>,
    pub(super) plains: Plains,
    pub(super) plan: Plan,
    pub(super) desk: Desk,
}

/// What the messages of a batch are offered and answered with.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) offers: Vec<Offered>,
    pub(super) places: Places,
    pub(super) sums: Sums,
    /// The frame of a message that goes to every gateway as it is.
    pub(super) frame: Vec<u8>,
    pub(super) buffers: Buffers,
}

/// Messages in their order, and what is asked of the route table for those that are not refused.
struct Batch<'a> {
    messages: Vec<Message<'a>>,
    queries: Vec<Query<'a>>,
    // Places of messages that cannot be taken at all, and why.
    refusals: Vec<(usize, ErrorCode)>,
    // And terms of selectors, as many as they take as long as.
    targets: usize,
    /// Targets beyond which no message joins it.
    targets_max: usize,
    /// Targets beyond which a message alone is looked up in pieces.
    alone_max: usize,
    /// Its only message has more than may join.
    is_alone: bool,
    /// Its only message has more than that, too.
    is_long: bool,
    /// The last sequence before it.
    before: Sequence,
}

/// Where a batch was left: this message was not served, nor any after it.
struct Left {
    at: usize,
    /// What no turn has room for.
    is_long: bool,
}

impl Batches {
    /// Those of a shard.
    pub(super) fn of(shard: u16) -> Self {
        let desk = Desk { places: Places::seen_from(shard), ..Desk::default() };
        Self { desk, ..Self::default() }
    }
}

impl<'a> Batch<'a> {
    fn begun(batches: &mut Batches, part: &Part, turn: &Turn) -> Self {
        let before = match &part.role {
            RoleState::Producer(producer) => producer.sequence,
            _ => Sequence::default(),
        };
        Self {
            messages: emptied(std::mem::take(&mut batches.messages)),
            queries: emptied(std::mem::take(&mut batches.queries)),
            refusals: emptied(std::mem::take(&mut batches.refusals)),
            targets: 0,
            targets_max: turn.uids_max().min(BATCH_TARGETS),
            alone_max: turn.uids_alone_max(),
            is_alone: false,
            is_long: false,
            before,
        }
    }

    /// Where a batch ends that could go on: it bounds what the plan holds.
    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES || self.targets >= self.targets_max || self.is_alone
    }

    /// Whether the last message is a part of it; one that is too long for any batch is one alone.
    #[inline]
    fn takes_last(&mut self) -> bool {
        let Some(message) = self.messages.last() else { return false };
        let looked_up = if message.mode == Mode::BROADCAST { 0 } else { message.targets.len() };
        if self.targets + looked_up <= self.targets_max {
            return true;
        }
        self.is_alone = self.messages.len() == 1;
        self.is_long = self.is_alone && looked_up > self.alone_max;
        self.is_alone
    }

    /// The sequence of its link if only so many of its messages had come.
    fn sequence_after(&self, count: usize) -> Sequence {
        let mut sequence = self.before;
        for message in &self.messages[..count] {
            // They have advanced it once.
            let _risen = sequence.advance(Kind::PUBLISH, message.sequence, message.resend);
        }
        sequence
    }

    /// The last message is looked up, or refused. `told` is whether some consumer is told who is
    /// offline.
    #[inline]
    fn judged(&mut self, refusal: Option<ErrorCode>, told: bool) {
        let at = self.messages.len() - 1;
        if let Some(code) = refusal {
            return self.refusals.push((at, code));
        }
        let message = &self.messages[at];
        // A part for every gateway, or for many, is as much as a long list.
        let whole = message.targets.is_empty() || message.mode == Mode::BROADCAST;
        let query = query(message, told);
        self.targets += match self.queries.last() {
            _ if !whole => message.targets.len(),
            Some(before) if query.repeats(before) => 1,
            // As much as half of one, so that those join it that repeat it.
            _ if goes_unchanged(message) => self.targets_max.div_ceil(2),
            _ => self.targets_max,
        };
        self.targets += selector_steps(message.selector) / UID_STEPS;
        self.queries.push(query);
    }
}

/// The memory of a vector, for items that borrow from elsewhere: the standard library collects in
/// place where both kinds of item have one size, and a test sees to it.
pub(super) fn emptied<T, U>(mut vec: Vec<T>) -> Vec<U> {
    vec.clear();
    vec.into_iter().map(|_| unreachable!("it was cleared")).collect()
}

impl Core {
    /// Serves the PUBLISHes that `rest` begins with, as far as they lie whole in it and make one
    /// batch, and takes them off. Others are left to the one way all frames can go.
    ///
    /// # Errors
    /// That of the frame after them, which was taken off as well.
    pub(super) fn publishes(
        &mut self,
        links: &mut Links,
        deframer: &mut Deframer,
        part: &mut Part,
        rest: &mut &[u8],
    ) -> Result<(), Fault> {
        if !part.session.passes(Kind::PUBLISH) {
            return Ok(());
        }
        let before = rest.len();
        self.plain_publishes(links, deframer, part, rest)?;
        if rest.len() < before || self.must_pause(part) {
            return Ok(());
        }
        let mut batch = Batch::begun(&mut self.batches, part, &self.turn);
        let begun = *rest;
        let gathered = self.gather(&mut batch, deframer, part, rest);
        let Some(left) = self.serve(links, part, batch) else { return gathered };
        // From there on they are taken anew, and so is what was wrong with one.
        *rest = begun;
        for _ in 0..left.at {
            let served = deframer.whole(rest).map_or(0, |raw| raw.bytes().len());
            *rest = &rest[served..];
        }
        if left.is_long
            && let Some(raw) = deframer.whole(rest)
        {
            *rest = &rest[raw.bytes().len()..];
            self.begin_halfway(part, raw.bytes());
        }
        Ok(())
    }

    /// Serves one that does not lie whole in a read, or comes in pieces, of which it is the first.
    pub(super) fn publish(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        message: &Message<'_>,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        if comes_in_pieces(part, message) {
            return self.begin_pieces(part, message, bytes);
        }
        let mut batch = Batch::begun(&mut self.batches, part, &self.turn);
        batch.messages.push(*message);
        batch.takes_last();
        let judged = self.judge_last(&mut batch, part);
        let sequence = batch.sequence_after(batch.messages.len());
        if self.serve(links, part, batch).is_some()
            && let RoleState::Producer(producer) = &mut part.role
        {
            // It is not in any read: whatever the turn had room for, it goes on from a copy.
            producer.sequence = sequence;
            self.begin_halfway(part, bytes);
        }
        judged
    }

    /// Serves one that came in pieces: a frame as [`Message::decode_whole`] reads it. Its place
    /// among the sequences of its link was that of its first piece.
    pub(super) fn publish_whole(&mut self, links: &mut Links, part: &mut Part, frame: Bytes) {
        let message = Message::decode_whole(&frame).expect("its header was checked when it came");
        let mut batch = Batch::begun(&mut self.batches, part, &self.turn);
        batch.messages.push(message);
        batch.takes_last();
        self.judge_permitted(&mut batch, None);
        self.whole = payload_of(&frame, &message);
        if self.serve(links, part, batch).is_some() {
            let told = self.shared.is_wanted(Feed::Offline);
            part.halfway = Some(Box::new(Halfway::whole(frame, told, self.now)));
        }
        self.whole = None;
    }

    fn gather<'a>(
        &self,
        batch: &mut Batch<'a>,
        deframer: &mut Deframer,
        part: &mut Part,
        rest: &mut &'a [u8],
    ) -> Result<(), Fault> {
        while !batch.is_full()
            && let Some(raw) = deframer.whole(rest).filter(|raw| raw.kind() == Kind::PUBLISH)
        {
            let after = &rest[raw.bytes().len()..];
            if let Err(malformed) = raw.decode_into(&mut batch.messages) {
                *rest = after;
                return Err(malformed.into());
            }
            let begins = batch.messages.last().is_some_and(|it| comes_in_pieces(part, it));
            if begins || !batch.takes_last() {
                batch.messages.pop();
                break;
            }
            *rest = after;
            self.judge_last(batch, part)?;
        }
        Ok(())
    }

    /// Judges the last message of a batch; what breaks the order of its link is no part of it.
    #[inline]
    fn judge_last(&self, batch: &mut Batch<'_>, part: &mut Part) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes PUBLISH from producers only");
        };
        let Some(message) = batch.messages.last() else { return Ok(()) };
        let advanced = producer.sequence.advance(Kind::PUBLISH, message.sequence, message.resend);
        if let Err(violation) = advanced {
            batch.messages.pop();
            return Err(violation.into());
        }
        let refusal = refusal(message, producer.grant.covers(message.namespace), RUNS_WHOLE);
        self.judge_permitted(batch, refusal);
        Ok(())
    }

    /// The last message of a batch is refused for this, or for what all are.
    #[inline]
    fn judge_permitted(&self, batch: &mut Batch<'_>, refusal: Option<ErrorCode>) {
        // Whoever is not known yet is not offline (PUB-3).
        let not_ready = (!self.told_ready).then_some(ErrorCode::NOT_READY);
        let told = self.shared.is_wanted(Feed::Offline);
        batch.judged(refusal.or(not_ready), told);
    }

    /// Serves a batch, or what of it the turn has room for.
    fn serve(&mut self, links: &mut Links, part: &mut Part, batch: Batch<'_>) -> Option<Left> {
        let mut left = None;
        let mut plan = std::mem::take(&mut self.batches.plan);
        if let Some(is_long) = self.must_leave(&batch, &mut plan) {
            left = Some(Left { at: 0, is_long });
            self.batches.plan = plan;
        } else {
            let mut desk = std::mem::take(&mut self.batches.desk);
            let (mut looked_up, mut refused) = (0, batch.refusals.iter().peekable());
            let mut at = 0;
            while let Some(message) = batch.messages.get(at) {
                let refusal = match refused.next_if(|(place, _)| *place == at) {
                    Some((_, code)) => Some(*code),
                    None => {
                        let routed = plan.routed(looked_up);
                        if goes_unchanged(message) && is_shared(routed) {
                            let upto = refused.peek().map_or(batch.messages.len(), |(at, _)| *at);
                            let following = (&batch.messages[at..upto], looked_up);
                            let run = self.route_run(links, part, following, &plan, &mut desk);
                            looked_up += run;
                            at += run;
                            if run > 0 {
                                continue;
                            }
                        }
                        let (targets, bytes) = (message.targets.len(), message.payload.len());
                        let steps =
                            steps_of(targets, bytes, routed) + selector_steps(message.selector);
                        // One that fits into a turn is served when its link's turn comes again.
                        let is_long = self.turn.is_beyond(steps);
                        if is_long || (steps > self.turn.left() && !self.turn.is_fresh()) {
                            left = Some(Left { at, is_long });
                            self.turn.ends_for_link();
                            break;
                        }
                        self.turn.take(steps);
                        looked_up += 1;
                        self.route(links, part, message, routed, &mut desk).err()
                    }
                };
                if let Some(code) = refusal {
                    Self::refuse(part, message, code, &mut desk.sums);
                }
                at += 1;
            }
            let served = left.as_ref().map_or(batch.messages.len(), |left| left.at);
            count(&self.counters.publishes, served as u64);
            desk.sums.count(&self.counters);
            (self.batches.plan, self.batches.desk) = (plan, desk);
        }
        if let Some(Left { at, is_long }) = left
            && let RoleState::Producer(producer) = &mut part.role
        {
            producer.sequence = batch.sequence_after(at + usize::from(is_long));
        }
        self.batches.messages = emptied(batch.messages);
        self.batches.queries = emptied(batch.queries);
        self.batches.refusals = emptied(batch.refusals);
        left
    }

    /// Looks a batch up, unless its only message is so long that this turn has no room for it;
    /// `true`: nor has any.
    fn must_leave(&mut self, batch: &Batch<'_>, plan: &mut Plan) -> Option<bool> {
        let routes = &self.shared.routes;
        if batch.messages.is_empty() {
            return None;
        }
        if !batch.is_alone || !batch.refusals.is_empty() {
            routes.resolve(&batch.queries, plan);
            return None;
        }
        // What is looked up for nothing is looked up again.
        if !batch.is_long && !self.turn.is_fresh() && self.turn.left() < batch.targets * UID_STEPS {
            self.turn.ends_for_link();
            return Some(false);
        }
        let fits = !batch.is_long
            && routes.resolve_within(&batch.queries, self.turn.hits_alone_max(), plan);
        (!fits).then_some(true)
    }

    /// A message that takes several turns is taken up; they begin with the next.
    pub(super) fn begin_halfway(&mut self, part: &mut Part, frame: &[u8]) {
        let told = self.shared.is_wanted(Feed::Offline);
        part.halfway = Some(Box::new(Halfway::new(frame, told, self.now)));
    }
}

/// Whether a message comes in pieces, and its producer may send it so.
#[inline]
fn comes_in_pieces(part: &Part, message: &Message<'_>) -> bool {
    message.fragmented.is_some() && part.can(capability::FRAGMENTS)
}

/// What a message may ask for that does not come in pieces.
pub(crate) const RUNS_WHOLE: u64 = support::CAPABILITIES & !capability::FRAGMENTS;

/// Why a message cannot be taken at all, if so: it is not permitted, or asks for what is not run.
#[inline]
pub(crate) fn refusal(message: &Message<'_>, permitted: bool, runs: u64) -> Option<ErrorCode> {
    if permitted {
        support::missing_for(message, runs).map(|_| ErrorCode::NOT_SUPPORTED)
    } else {
        Some(ErrorCode::NOT_PERMITTED)
    }
}

/// Whether a message is for a list of users: of others everyone is meant, or whoever matches, and
/// nobody is counted (SEL-8).
#[inline]
pub(super) fn has_list(message: &Message<'_>) -> bool {
    !message.everyone && (message.selector.is_none() || !message.targets.is_empty())
}

/// About what a header has without lists and selector, as `auto` counts bytes.
const HEADER_BYTES: usize = 48;

#[inline]
pub(crate) fn query<'a>(message: &Message<'a>, told: bool) -> Query<'a> {
    let audience = match has_list(message) {
        true => Audience::Uids(message.targets),
        false => Audience::Everyone,
    };
    Query {
        selector: message.selector,
        except: message.except,
        mode: match message.mode {
            Mode::BROADCAST => Lookup::Broadcast,
            Mode::AUTO => Lookup::Auto,
            _ => Lookup::Direct,
        },
        fates_asked: told || message.level != Level::NONE,
        bytes: HEADER_BYTES
            + message.selector.map_or(0, |selector| selector.bytes().len())
            + message.payload.len(),
        ..Query::new(Namespace(message.namespace), audience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_vector_keeps_its_memory() {
        let messages: Vec<Message<'static>> = Vec::with_capacity(BATCH_MESSAGES);
        let (capacity, at) = (messages.capacity(), messages.as_ptr().addr());
        let emptied: Vec<Message<'_>> = emptied(messages);
        assert_eq!((emptied.capacity(), emptied.as_ptr().addr()), (capacity, at));
    }
}

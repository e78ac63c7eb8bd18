//! PUBLISHes that one read brought, taken together: decoded and judged in their order, looked up in
//! one batch, then offered and answered in their order.
//!
//! Nothing that one of them does changes what is judged of the next: rights, readiness and the
//! route table are what they are for the whole of an input. What does depend on those before it, as
//! room in outboxes and for receipts, is asked when its turn comes. So a batch does what its
//! messages would do one by one; `tests/it/batches.rs` compares the two. A frame that is refused
//! ends its batch: what came before it is served, and then its link ends.

use waybill_routing::{Audience, Mode as Lookup, Namespace, Plan, Query};
use waybill_wire::code::{ErrorCode, Kind, Level, Mode};
use waybill_wire::deframe::Deframer;
use waybill_wire::message::Message;
use waybill_wire::session::support;

use super::link::{Fault, Part, RoleState};
use super::publish::Sums;
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
    pub(super) plan: Plan,
    pub(super) desk: Desk,
}

/// What the messages of a batch are offered and answered with.
#[derive(Default)]
pub(super) struct Desk {
    pub(super) offers: Vec<Offered>,
    pub(super) places: Places,
    pub(super) sums: Sums,
}

/// Messages in their order, and what is asked of the route table for those that are not refused.
struct Batch<'a> {
    messages: Vec<Message<'a>>,
    queries: Vec<Query<'a>>,
    // Places of messages that cannot be taken at all, and why.
    refusals: Vec<(usize, ErrorCode)>,
    targets: usize,
}

impl Batch<'_> {
    fn begun(batches: &mut Batches) -> Self {
        Self {
            messages: emptied(std::mem::take(&mut batches.messages)),
            queries: emptied(std::mem::take(&mut batches.queries)),
            refusals: emptied(std::mem::take(&mut batches.refusals)),
            targets: 0,
        }
    }

    /// Where a batch ends that could go on: it bounds what the plan holds.
    fn is_full(&self) -> bool {
        self.messages.len() >= BATCH_MESSAGES || self.targets >= BATCH_TARGETS
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
        self.targets += if whole { BATCH_TARGETS } else { message.targets.len() };
        self.queries.push(query(message, told));
    }
}

/// The memory of a vector, for items that borrow from elsewhere: the standard library collects in
/// place where both kinds of item have one size, and a test sees to it.
fn emptied<T, U>(mut vec: Vec<T>) -> Vec<U> {
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
        let mut batch = Batch::begun(&mut self.batches);
        let gathered = self.gather(&mut batch, deframer, part, rest);
        self.serve(links, part, batch);
        gathered
    }

    /// Serves one that does not lie whole in a read.
    pub(super) fn publish(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        message: &Message<'_>,
    ) -> Result<(), Fault> {
        let mut batch = Batch::begun(&mut self.batches);
        batch.messages.push(*message);
        let judged = self.judge_last(&mut batch, part);
        self.serve(links, part, batch);
        judged
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
            *rest = &rest[raw.bytes().len()..];
            raw.decode_into(&mut batch.messages)?;
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
        let refusal = refusal(message, producer.grant.covers(message.namespace));
        // Whoever is not known yet is not offline (PUB-3).
        let not_ready = (!self.told_ready).then_some(ErrorCode::NOT_READY);
        let told = self.shared.is_wanted(Feed::Offline);
        batch.judged(refusal.or(not_ready), told);
        Ok(())
    }

    fn serve(&mut self, links: &mut Links, part: &mut Part, batch: Batch<'_>) {
        let Batch { messages, queries, refusals, .. } = batch;
        if !messages.is_empty() {
            let mut plan = std::mem::take(&mut self.batches.plan);
            let mut desk = std::mem::take(&mut self.batches.desk);
            self.shared.routes.resolve(&queries, &mut plan);
            let (mut looked_up, mut refused) = (0, refusals.iter().peekable());
            for (at, message) in messages.iter().enumerate() {
                let refusal = match refused.next_if(|(place, _)| *place == at) {
                    Some((_, code)) => Some(*code),
                    None => {
                        let routed = plan.routed(looked_up);
                        looked_up += 1;
                        self.route(links, part, message, routed, &mut desk).err()
                    }
                };
                if let Some(code) = refusal {
                    Self::refuse(part, message, code, &mut desk.sums);
                }
            }
            count(&self.counters.publishes, messages.len() as u64);
            desk.sums.count(&self.counters);
            (self.batches.plan, self.batches.desk) = (plan, desk);
        }
        self.batches.messages = emptied(messages);
        self.batches.queries = emptied(queries);
        self.batches.refusals = emptied(refusals);
    }
}

/// Why a message cannot be taken at all, if so.
#[inline]
pub(crate) fn refusal(message: &Message<'_>, permitted: bool) -> Option<ErrorCode> {
    if permitted {
        support::missing_for(message, support::CAPABILITIES).map(|_| ErrorCode::NOT_SUPPORTED)
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

//! Messages that follow each other and go to the same gateways as they are: made once, in one
//! buffer that all outboxes refer to, and offered to each of them together.
//!
//! Nobody asks what becomes of one of them, so each outbox may take them together, or is offered
//! one after the other where it has no room for all of them. Either way the frames, their order and
//! what is counted are those of messages that are offered alone.

use std::collections::VecDeque;

use bytes::Bytes;
use waybill_routing::{Part as Portion, Plan, Routed};
use waybill_wire::code::{Level, Priority};
use waybill_wire::message::Message;
use waybill_wire::planted;

use super::batch::Desk;
use super::link::{Part, RoleState};
use super::parts::{COPY_STEPS, READ_STEPS, UID_STEPS, frame_steps};
use super::sending::Offer;
use super::{Core, Links};
use crate::limits::{REFERENCED_BYTES, RUN_BUFFER_MAX, RUN_BYTES, RUN_BYTES_MIN, RUNS_KEPT};
use crate::mail::Receiver;
use crate::outbox::{Care, Run};
use crate::shared::Place;
use crate::telemetry::count;

/// About what a DELIVER has in bytes beside its lists and its payload.
const HEADER_BYTES: usize = 64;

/// Buffers that runs were made in, for the next ones when nobody refers to them any more.
#[derive(Default)]
pub(super) struct Buffers {
    // Each with its size.
    all: VecDeque<(Bytes, usize)>,
}

impl Buffers {
    /// An empty one for that many bytes, at most twice as large.
    fn take(&mut self, bytes: usize) -> Vec<u8> {
        let fits = |size: usize| (bytes..=2 * bytes).contains(&size);
        let free = self.all.iter().rposition(|(it, size)| fits(*size) && it.is_unique());
        let Some((mut free, _)) = free.and_then(|at| self.all.remove(at)) else {
            return Vec::with_capacity(bytes);
        };
        // Else its bytes would be moved for nothing.
        free.clear();
        free.into()
    }

    /// A run of what was made in one.
    fn lend(&mut self, buffer: Vec<u8>, frames: usize) -> Run {
        let size = buffer.capacity();
        let bytes = Bytes::from(buffer);
        if self.all.len() == RUNS_KEPT {
            self.all.pop_front();
        }
        if size <= RUN_BUFFER_MAX {
            self.all.push_back((bytes.clone(), size));
        }
        Run::new(bytes, frames, size)
    }
}

/// Whether a message may lie in a run, if it goes to gateways as it is: nothing is to be noted of
/// it, and no part of it changes while it waits.
#[inline]
pub(super) fn goes_unchanged(message: &Message<'_>) -> bool {
    let is_plain = message.ttl_ms == 0 && message.conflate.is_none() && message.trace.is_none();
    let is_asked_for = message.level != Level::NONE;
    let is_simple = message.selector.is_none() && message.except.is_empty();
    let is_small = message.payload.len() < REFERENCED_BYTES && message.fragmented.is_none();
    is_plain && is_simple && is_small && !is_asked_for
}

/// About what it has in bytes as a frame.
fn bytes_of(message: &Message<'_>) -> usize {
    HEADER_BYTES + 8 * message.targets.len() + message.payload.len()
}

/// Whether it goes to several gateways, and as it is to all of them.
#[inline]
pub(super) fn is_shared(routed: Routed<'_>) -> bool {
    let mut parts = routed.parts();
    parts.len() > 1 && parts.all(|(_, portion)| matches!(portion, Portion::Whole))
}

impl Core {
    /// Routes the first of these messages that make a run, if that is worth one: how many. The
    /// answer to the first lies in the plan at that place; it goes unchanged, and is shared.
    pub(super) fn route_run(
        &mut self,
        links: &mut Links,
        part: &Part,
        (messages, looked_up): (&[Message<'_>], usize),
        plan: &Plan,
        desk: &mut Desk,
    ) -> usize {
        let (run, bytes, steps) = self.run_of(messages, looked_up, plan);
        if bytes < RUN_BYTES_MIN {
            return 0;
        }
        let RoleState::Producer(producer) = &part.role else { return 0 };
        let instance = producer.instance;
        let mut buffer = desk.buffers.take(bytes);
        for message in &messages[..run] {
            message.deliver_whole(instance, message.ttl_ms, &mut buffer);
        }
        let frames = desk.buffers.lend(buffer, run);
        let first = plan.routed(looked_up);
        let (namespace, priority) = (messages[0].namespace, messages[0].priority);
        for (slot, _) in first.parts() {
            if let Ok(place) = self.place_of(&mut desk.places, slot, (namespace, run as u64)) {
                self.offer_run(links, place, priority, &frames);
            }
        }
        self.turn.take(steps);
        for (at, message) in messages[..run].iter().enumerate() {
            let routed = plan.routed(looked_up + at);
            self.conclude_taken(links, message, instance, routed, &mut desk.sums);
        }
        run
    }

    /// How many of the first of these messages may be one run, within the turn; about how many
    /// bytes they are, and the steps that they take.
    fn run_of(
        &self,
        messages: &[Message<'_>],
        looked_up: usize,
        plan: &Plan,
    ) -> (usize, usize, usize) {
        let (mut run, mut bytes, mut listed, mut steps) = (0, 0, 0, 0);
        if self.whole.is_some() || planted::is_faulty() {
            return (run, bytes, steps);
        }
        let (first, of_first) = (&messages[0], plan.routed(looked_up));
        let gateways = of_first.parts().len();
        for message in messages {
            let agrees = run == 0
                || goes_unchanged(message)
                    && message.priority == first.priority
                    && of_first.is_repeated_by(plan.routed(looked_up + run));
            let more = bytes + bytes_of(message);
            listed += message.targets.len();
            let frames = gateways * frame_steps(more, 0, Portion::Whole);
            let with_it = (run + 1) * READ_STEPS + listed * UID_STEPS + frames;
            if !agrees || bytes >= RUN_BYTES || !self.turn.has_room_for(with_it) {
                break;
            }
            (run, bytes, steps) = (run + 1, more, with_it);
        }
        (run, bytes, steps)
    }

    /// Offers a run to the outbox at `place`, here or in another shard.
    fn offer_run(&mut self, links: &mut Links, place: &Place, priority: Priority, run: &Run) {
        if place.shard == self.id
            && let Some(link) = links.find_mut(place.link).filter(|it| it.part.takes_messages())
            && link.part.outbox.offer_run(priority, run)
        {
            let frames = run.count() as u64;
            count(&self.counters.gateways.offered, frames);
            return self.queued(Receiver::Gateways, &mut link.part, frames);
        }
        let care = Care { priority, ..Care::default() };
        let offer = Offer { receiver: Receiver::Gateways, care, awaited: None };
        self.turn.take(COPY_STEPS * run.count());
        for frame in run.frames() {
            self.offer(links, place, offer, |out| out.extend_from_slice(frame));
        }
    }
}

//! How much a shard does for one link before it serves the others (SEC-24).
//!
//! A producer has so many *steps* in a turn, and all of them together some more. One whose message
//! needs more, or comes when none are left, is not served further in it: the rest of its read stays
//! with its link, which is not read meanwhile, so that its order stays (promise 2) and it is slowed
//! by nobody but itself (promise 6). The next turn begins with such links, the first that waited
//! first.
//!
//! Gateways are always read: none of them is slowed by what waits for it (promise 6). But a flood
//! of changes at one would delay messages, and changes of the others. So their links have a share
//! of a turn of their own, and less of it: whole frames until it is used up, then the next link's.
//!
//! Consumers' links are served whatever they bring: it is bounded by the read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use waybill_routing::{Part as Portion, Routed};
use waybill_wire::Frame;
use waybill_wire::selector::Selector;

use super::link::{Life, Link, Part, RoleState};
use super::{Core, Links, Shard};
use crate::io::LinkId;
use crate::limits::{
    ALONE_HITS, GATEWAY_PART, HALFWAY_MAX, LINK_STEPS, STEP_BYTES, TURN_GATEWAYS, TURN_LINKS,
};

/// A UID is looked up: 12 to 35 ns in a list, and more by itself, where a step is some 3 ns.
pub(super) const UID_STEPS: usize = 4;
/// Another gateway of a user is found: with 64 of them, some 40 ns each.
const BESIDE_STEPS: usize = 16;
const _: () = assert!(LINK_STEPS / BESIDE_STEPS == ALONE_HITS);
/// A term of a selector is looked up among the tags and worked out for every gateway: 36 ns if it
/// was just looked at, and 900 in an index of ten million (docs/decisions/0019).
const TERM_STEPS: usize = 64;
/// A frame is made for a gateway and offered to it, without its bytes.
pub(super) const FRAME_STEPS: usize = 64;
/// The same of one that is there and goes to every gateway.
pub(super) const COPY_STEPS: usize = 24;
/// A message of a run is read.
pub(super) const READ_STEPS: usize = 8;
/// A plain message is read and its user looked up, and again for each frame of it: 50 to 60 ns
/// together, without the kernel.
pub(super) const PLAIN_STEPS: usize = 16;

/// A registration is declared, or a tag.
const RECORD_STEPS: usize = 96;
/// Whatever a gateway says is looked up and answered.
const WORD_STEPS: usize = 128;
/// A fate that a gateway reports.
const FATE_STEPS: usize = 8;

/// A consumer is asked whether it may be told of something.
const CONSUMER_STEPS: usize = 8;
/// A term of its filters is tested: 5 ns, and as much again for each halving of a list.
const TEST_STEPS: usize = 2;

/// Whose share of a turn is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Producers,
    Gateways,
}

/// What is left of a turn, and who goes on in the next.
pub(super) struct Turn {
    /// What each producer's link has.
    steps: usize,
    /// What is left for the present link, and whose it is.
    left: usize,
    side: Side,
    producers: Share,
    gateways: Share,
    /// One more than messages that are halfway.
    places: Arc<()>,
    /// One more than those of them that have found much.
    large: Arc<()>,
}

/// What all links of one side have of a turn.
#[derive(Default)]
struct Share {
    left: usize,
    /// Links with a rest, each once; some that have gone since.
    waiting: VecDeque<LinkId>,
}

/// What a message holds that is halfway.
pub(super) type Place = Arc<()>;

impl Default for Turn {
    fn default() -> Self {
        let mut turn = Self {
            steps: LINK_STEPS,
            left: 0,
            side: Side::Producers,
            producers: Share::default(),
            gateways: Share::default(),
            places: Arc::default(),
            large: Arc::default(),
        };
        turn.begins();
        turn
    }
}

/// What a link has brought and was not served yet.
pub(super) struct Rest {
    data: Vec<u8>,
    at: usize,
    /// The transport has failed since.
    failed: bool,
}

impl Rest {
    /// Bytes of memory it takes.
    pub(super) fn held(&self) -> usize {
        self.data.capacity()
    }
}

impl Turn {
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Nothing was done for the present link, which has as much as any may have.
    pub(super) fn is_fresh(&self) -> bool {
        self.left == self.steps
    }

    /// Whether the present link may do that in this turn.
    #[inline]
    pub(super) fn has_room_for(&self, steps: usize) -> bool {
        steps <= self.left || (self.is_fresh() && !self.is_beyond(steps))
    }

    /// Steps that are left.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    pub(super) fn take(&mut self, steps: usize) {
        self.left = self.left.saturating_sub(steps);
        let side = self.side;
        let share = self.of(side);
        share.left = share.left.saturating_sub(steps);
    }

    /// The present link is not served further.
    pub(super) fn ends_for_link(&mut self) {
        self.left = 0;
    }

    /// Whether so much is more than a link has in any turn.
    pub(super) fn is_beyond(&self, steps: usize) -> bool {
        steps > self.steps
    }

    pub(super) fn begins(&mut self) {
        self.producers.left = TURN_LINKS * self.steps;
        self.gateways.left = TURN_GATEWAYS * self.gateway_steps();
        self.begins_for_link(Side::Producers);
    }

    /// Another link is served.
    pub(super) fn begins_for_link(&mut self, side: Side) {
        self.side = side;
        self.left = match (side, self.of(side).left) {
            (_, 0) => 0,
            // What is left may be less: but a message that has room in no remainder would wait for
            // as long as there are others before it.
            (Side::Producers, _) => self.steps,
            (Side::Gateways, left) => left.min(self.gateway_steps()),
        };
    }

    /// The present link is served to the end, whatever that takes.
    fn has_no_end(&mut self) {
        self.left = usize::MAX;
    }

    /// What each gateway's link has.
    fn gateway_steps(&self) -> usize {
        (self.steps / GATEWAY_PART).max(1)
    }

    fn of(&mut self, side: Side) -> &mut Share {
        match side {
            Side::Producers => &mut self.producers,
            Side::Gateways => &mut self.gateways,
        }
    }

    /// A place for one more message that takes several turns; none if these are taken.
    pub(super) fn place(&self) -> Option<Place> {
        let is_free = Arc::strong_count(&self.places) <= HALFWAY_MAX;
        is_free.then(|| Arc::clone(&self.places))
    }

    /// The place of the one that may find as much as there is; none if it is taken.
    pub(super) fn large_place(&self) -> Option<Place> {
        (Arc::strong_count(&self.large) == 1).then(|| Arc::clone(&self.large))
    }

    /// UIDs beyond which a list alone is looked up in pieces: no turn has room for more.
    pub(super) fn uids_alone_max(&self) -> usize {
        self.steps / UID_STEPS
    }

    /// Hits beyond which it is, too.
    pub(super) fn hits_alone_max(&self) -> usize {
        (self.steps / BESIDE_STEPS).max(1)
    }

    /// UIDs of such a piece, and of a batch: an eighth of a turn, since each may be at several
    /// gateways.
    pub(super) fn uids_max(&self) -> usize {
        (self.steps / (8 * UID_STEPS)).max(1)
    }
}

/// Steps of a frame for one gateway, of so many bytes without its list, or with a list of so many.
#[inline]
pub(super) fn frame_steps(bytes: usize, targets: usize, portion: Portion<'_>) -> usize {
    match portion {
        Portion::Uids(uids) => FRAME_STEPS + uids.len() + bytes / STEP_BYTES,
        Portion::Whole => COPY_STEPS + (8 * targets + bytes) / STEP_BYTES,
    }
}

/// Steps of looking so many UIDs up, which have so many routes.
#[inline]
pub(super) fn look_up_steps(uids: usize, hits: usize) -> usize {
    UID_STEPS * uids + BESIDE_STEPS * hits.saturating_sub(uids)
}

/// Steps of finding out which gateways may match it, for each time that this is asked.
#[inline]
pub(super) fn selector_steps(selector: Option<Selector<'_>>) -> usize {
    selector.map_or(0, |selector| TERM_STEPS * selector.terms())
}

/// Steps of choosing who is told of something about so many users, among consumers that have so
/// many terms in their filters together.
fn choice_steps(uids: usize, (consumers, terms): (usize, usize)) -> usize {
    let halvings = uids.max(1).ilog2() as usize;
    CONSUMER_STEPS * consumers + TEST_STEPS * terms * (1 + halvings)
}

/// Steps of what a gateway says.
fn word_steps(frame: &Frame<'_>) -> usize {
    WORD_STEPS
        + match frame {
            Frame::Delta(delta) => RECORD_STEPS * delta.records.len(),
            Frame::Snapshot(snapshot) => RECORD_STEPS * snapshot.records.len(),
            Frame::TagDelta(delta) => RECORD_STEPS * delta.tag_records.len(),
            Frame::Report(report) => {
                FATE_STEPS * report.fate_sets.iter().map(|set| set.uids.len()).sum::<usize>()
            }
            Frame::Uplink(message) => message.payload.len() / STEP_BYTES,
            _ => 0,
        }
}

/// Steps of a piece of a message, of so many bytes.
pub(super) fn piece_steps(bytes: usize) -> usize {
    FRAME_STEPS + bytes / STEP_BYTES
}

/// Steps of a message that was looked up together with others.
#[inline]
pub(super) fn steps_of(targets: usize, bytes: usize, routed: Routed<'_>) -> usize {
    let (mut frames, mut hits) = (0, 0);
    for (_, portion) in routed.parts() {
        frames += frame_steps(bytes, targets, portion);
        if let Portion::Uids(uids) = portion {
            hits += uids.len();
        }
    }
    look_up_steps(targets, hits) + frames
}

impl Shard {
    /// Whether [`go_on`](Self::go_on) has something to do.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let turn = &self.core.turn;
        !turn.producers.waiting.is_empty()
            || !turn.gateways.waiting.is_empty()
            || self.core.chores.are_due()
    }

    /// Serves links further that have brought more than a turn had room for, and does a portion of
    /// what is left to be done. To be called once in a turn while [`has_more`](Self::has_more),
    /// before what has happened meanwhile is handled.
    pub fn go_on(&mut self, now: Duration) {
        debug_assert!(now >= self.core.now);
        self.core.now = now;
        self.core.turn.begins();
        for side in [Side::Producers, Side::Gateways] {
            for _ in 0..self.core.turn.of(side).waiting.len() {
                let share = self.core.turn.of(side);
                if share.left == 0 {
                    break;
                }
                let Some(id) = share.waiting.pop_front() else { break };
                self.core.turn.begins_for_link(side);
                self.with(id, Core::serve_rest);
            }
        }
        if self.core.chores.are_due() {
            self.core.do_chores(&mut self.links);
        }
    }

    /// As if a turn had so many steps.
    #[cfg(feature = "sim")]
    pub fn set_turn(&mut self, steps: usize) {
        self.core.turn.steps = steps;
        self.core.turn.begins();
    }
}

impl Core {
    /// Whether a link is not served further in this turn.
    pub(super) fn must_pause(&self, part: &Part) -> bool {
        let has_share =
            part.side() == Side::Gateways || matches!(part.role, RoleState::Producer(_));
        part.halfway.is_some() || (self.turn.is_over() && has_share)
    }

    /// Consumers are chosen that are told of something about so many users. What that takes is
    /// taken of the turn afterwards: it is no more than each of them is bounded by (FLT-9).
    pub(super) fn chooses_consumers(&mut self, uids: usize) {
        self.turn.take(choice_steps(uids, self.shared.consumers_load()));
    }

    /// How many records that nobody is told of are as much as one that consumers are told of.
    pub(super) fn records_per_news(&self) -> usize {
        1 + choice_steps(1, self.shared.consumers_load()) / RECORD_STEPS
    }

    /// What a frame takes of a gateway's share; what a PUBLISH or TAG takes depends on more.
    pub(super) fn take_word(&mut self, part: &Part, frame: &Frame<'_>) {
        if part.side() == Side::Gateways {
            self.turn.take(word_steps(frame));
        }
    }

    /// What was not served of a read stays with its link, or there is nothing.
    pub(super) fn keep_rest(&mut self, part: &mut Part, data: Vec<u8>, at: usize) {
        let has_more = at < data.len() || part.halfway.is_some();
        if part.life == Life::Open && has_more {
            part.rest = Some(Rest { data, at, failed: false });
            self.turn.of(part.side()).waiting.push_back(part.id);
        } else {
            part.halfway = None;
            part.reading.returned(data);
        }
    }

    fn serve_rest(&mut self, links: &mut Links, link: &mut Link) {
        let Some(Rest { data, at, failed }) = link.part.rest.take() else { return };
        if link.part.life == Life::Open {
            self.go_on_halfway(links, &mut link.part);
        }
        self.serve_read(links, link, data, at);
        if failed {
            match &mut link.part.rest {
                Some(rest) => rest.failed = true,
                None => self.failed(links, link),
            }
        }
    }

    /// The transport has failed. What was read before that is served first: a gateway's at once,
    /// since its users are offline (promise 8).
    pub(super) fn transport_failed(&mut self, links: &mut Links, link: &mut Link) {
        match &mut link.part.rest {
            Some(rest) => rest.failed = true,
            None => return self.failed(links, link),
        }
        if link.part.side() == Side::Gateways {
            self.turn.begins_for_link(Side::Gateways);
            self.turn.has_no_end();
            self.serve_rest(links, link);
        }
    }
}

impl Part {
    /// Whose share of a turn it uses.
    pub(super) fn side(&self) -> Side {
        match self.role {
            RoleState::Gateway(_) | RoleState::Data(_) => Side::Gateways,
            _ => Side::Producers,
        }
    }
}

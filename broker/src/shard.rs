//! One shard's brain: inputs and times in, orders out. Synchronous, pure state.
//!
//! `handle` takes what happened, `flush` turns what waits in touched outboxes into writes, each
//! link once per turn, and `output` yields the orders. Every mutation is followed by draining the
//! outputs. Never: await, system calls, a clock, another shard's memory but for `Shared`.

mod account;
pub(crate) mod batch;
mod chores;
mod data;
mod displacement;
mod endings;
pub(crate) mod fates;
mod filters;
mod fragments;
mod gateway;
mod halfway;
mod handover;
mod hello;
mod hops;
mod link;
mod links;
#[cfg(feature = "sim")]
mod load;
mod offline;
mod parcels;
mod parts;
mod plain;
mod presence;
mod publish;
mod reading;
mod receipts;
mod resume;
mod runs;
pub(crate) mod sending;
mod standing;
mod state;
mod tag;
mod tag_delta;
mod uplink;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::{ErrorCode, Kind};
use waybill_wire::frame::Frame;
use waybill_wire::session::Step;

use crate::io::{Input, LinkId, Output};
use crate::ledger::Counters;
use crate::limits::FOLLOW_STEPS;
use crate::mail::{Mail, Parcel};
use crate::shard::batch::Batches;
use crate::shard::chores::Chores;
use crate::shard::link::{Admission, Fault, Life, Link, Part, RoleState, refused};
use crate::shard::links::Links;
use crate::shard::parts::Turn;
use crate::shard::resume::Burial;
use crate::shared::Shared;
use crate::telemetry::count;

#[cfg(feature = "sim")]
pub use load::Load;

/// See the module.
pub struct Shard {
    core: Core,
    links: Links,
}

/// What a shard has besides its links: handlers get it together with the link they act on.
struct Core {
    id: u16,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    now: Duration,
    batches: Batches,
    // The payload of the message that is being offered, if outboxes are to share it.
    whole: Option<Bytes>,
    turn: Turn,
    outputs: VecDeque<Output>,
    // Empty ones, for what goes to other shards next.
    parcels: Vec<Parcel>,
    // Bytes of frames that came from other shards in this turn: their links are charged at its end.
    unpacked: usize,
    // Links with something to write; a link is in it at most once.
    touched: Vec<LinkId>,
    // What slots that died had declared.
    burials: VecDeque<Burial>,
    chores: Chores,
    // The links of this shard know that the broker is ready.
    told_ready: bool,
    // Links without a HELLO, oldest first, and some that have said theirs or gone since.
    strangers: VecDeque<LinkId>,
    strangers_now: usize,
    drain: Option<Duration>,
    drained: bool,
}

impl Shard {
    /// The brain of shard `id` of a broker.
    #[must_use]
    pub fn new(id: u16, shared: Arc<Shared>) -> Self {
        let core = Core {
            id,
            told_ready: shared.is_ready(),
            shared,
            counters: Arc::default(),
            now: Duration::ZERO,
            batches: Batches::of(id),
            whole: None,
            turn: Turn::default(),
            outputs: VecDeque::new(),
            parcels: Vec::new(),
            unpacked: 0,
            touched: Vec::new(),
            burials: VecDeque::new(),
            chores: Chores::default(),
            strangers: VecDeque::new(),
            strangers_now: 0,
            drain: None,
            drained: false,
        };
        Self { core, links: Links::default() }
    }

    /// Its counters.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.core.counters
    }

    /// The wall clock at time zero, in nanoseconds since 1970 (UTC), as the backend finds it from
    /// time to time.
    pub fn set_wall(&self, at_zero_ns: u64) {
        self.core.shared.set_wall(at_zero_ns);
    }

    /// Takes what happened at `now`, which never runs backwards.
    pub fn handle(&mut self, now: Duration, input: Input) {
        debug_assert!(now >= self.core.now);
        self.core.now = now;
        self.announce();
        match input {
            Input::Accepted { link, peer } => self.accepted(link, peer),
            Input::Adopted { link, peer, data } => self.adopted(link, peer, data),
            Input::Bytes { link, data } => self.with(link, |core, links, link| {
                core.bytes(links, link, data);
            }),
            Input::Ended { link } => self.with(link, Core::ended),
            Input::Wrote { link, data } => self.with(link, |core, _, link| core.wrote(link, data)),
            Input::Failed { link } => self.with(link, Core::transport_failed),
            Input::Mail(mail) => self.core.mail(&mut self.links, mail),
            Input::Tick => self.tick(),
            Input::Drain { deadline_ms } => self.drain(deadline_ms),
        }
        self.announce();
    }

    /// Orders a write for every touched link that has none on its way, and ends the turn.
    pub fn flush(&mut self, now: Duration) {
        self.core.now = now;
        self.core.turn.begins();
        self.core.chores.look(now);
        while let Some(link) = self.core.touched.pop() {
            self.with(link, |core, links, link| {
                core.flush(links, link);
                core.account(links, link);
            });
        }
        self.core.charge_unpacked();
        if self.core.drain.is_some() && self.links.is_empty() && !self.core.drained {
            self.core.drained = true;
            self.core.outputs.push_back(Output::Drained);
        }
    }

    /// The next order.
    pub fn output(&mut self) -> Option<Output> {
        self.core.outputs.pop_front()
    }

    /// Counts mail for a shard that has ended.
    pub fn undeliverable(&mut self, mail: &Mail) {
        self.core.undeliverable(&mut self.links, mail);
    }

    /// Acts on a link outside of the map, so that the others can be reached meanwhile.
    fn with(&mut self, id: LinkId, act: impl FnOnce(&mut Core, &mut Links, &mut Link)) {
        let Some(mut link) = self.links.remove(id) else { return };
        act(&mut self.core, &mut self.links, &mut link);
        if link.part.life != Life::Gone {
            self.links.insert(id, link);
        }
    }

    fn accepted(&mut self, id: LinkId, peer: Option<Arc<str>>) {
        count(&self.core.counters.links_accepted, 1);
        if self.takes_up(id, peer) {
            self.with(id, |core, _, link| core.read(&mut link.part));
        }
    }

    /// A link whose HELLO asks for this shard. It was counted when it was accepted.
    fn adopted(&mut self, id: LinkId, peer: Option<Arc<str>>, data: Vec<u8>) {
        if self.takes_up(id, peer) {
            self.with(id, |core, links, link| core.bytes(links, link, data));
        }
    }

    /// A link without a HELLO is here, or is told why not. Whether it is here at all.
    fn takes_up(&mut self, id: LinkId, peer: Option<Arc<str>>) -> bool {
        let shared = &self.core.shared;
        if self.core.strangers_now >= shared.strangers_max() || shared.is_full() {
            self.send_a_stranger_away();
        }
        let core = &mut self.core;
        let admission = if core.shared.link_opened() {
            core.strangers.push_back(id);
            core.strangers_now += 1;
            Admission::Stranger
        } else {
            count(&core.counters.links_refused, 1);
            if !core.shared.refusal_opened() {
                core.outputs.push_back(Output::Close { link: id });
                return false;
            }
            Admission::Refusal
        };
        let mut link = Box::new(Link::new(id, core.now, &core.shared, admission));
        link.part.peer = peer;
        self.links.insert(id, link);
        let refusal = if admission == Admission::Refusal {
            Some((ErrorCode::TOO_MANY_LINKS, "this broker has as many links as links_max allows"))
        } else if self.core.drain.is_some() {
            Some((ErrorCode::SHUTTING_DOWN, "this broker is shutting down"))
        } else {
            None
        };
        if let Some((code, words)) = refusal {
            self.with(id, |core, links, link| {
                core.fault(links, &mut link.part, refused(code, Kind(0), words));
            });
        }
        true
    }

    /// Whoever means it says HELLO at once, so the one that has waited longest makes room for the
    /// newcomer: a crowd of silent links keeps nobody out (SEC-16).
    fn send_a_stranger_away(&mut self) {
        let is_stranger = |link: &Link| link.part.admission == Admission::Stranger;
        while let Some(id) = self.core.strangers.pop_front() {
            if self.links.find(id).is_some_and(is_stranger) {
                return self.with(id, |core, links, link| core.close(links, &mut link.part));
            }
        }
    }

    fn tick(&mut self) {
        let now = self.core.now;
        self.core.shared.readiness(|readiness| readiness.look(now));
        let mut budget = FOLLOW_STEPS;
        for id in self.links.ids() {
            self.with(id, |core, links, link| {
                core.check_time(links, link);
                core.catch_up(links, &mut link.part, &mut budget);
                core.look_for_losers(&mut link.part);
            });
        }
        let core = &mut self.core;
        core.end_overdue();
        core.catch_up_on_chores(&mut self.links);
        let links = &self.links;
        let known = |id: &mut LinkId| {
            links.find(*id).is_none_or(|link| link.part.admission != Admission::Stranger)
        };
        while core.strangers.pop_front_if(known).is_some() {}
    }

    fn drain(&mut self, deadline_ms: u32) {
        self.core.drain = Some(self.core.now + Duration::from_millis(deadline_ms.into()));
        for id in self.links.ids() {
            self.with(id, |core, _, link| core.ask_to_leave(&mut link.part, deadline_ms));
        }
    }
}

impl Core {
    fn bytes(&mut self, links: &mut Links, link: &mut Link, data: Vec<u8>) {
        link.part.session.received(self.now);
        self.turn.begins_for_link(link.part.side());
        link.part.reading.brought(data.len(), data.capacity());
        self.serve_read(links, link, data, 0);
    }

    /// Serves what a link has read, from this place on, as far as its turn goes.
    fn serve_read(&mut self, links: &mut Links, link: &mut Link, data: Vec<u8>, at: usize) {
        let Link { deframer, part } = link;
        let mut rest = &data[at..];
        while part.life == Life::Open && !rest.is_empty() && !self.must_pause(part) {
            let before = rest.len();
            let served = self.publishes(links, deframer, part, &mut rest);
            if let Err(fault) = served {
                self.fault(links, part, fault);
                break;
            }
            if rest.len() < before || self.must_pause(part) {
                continue;
            }
            let step = match deframer.next(rest) {
                Ok(step) => step,
                Err(malformed) => {
                    self.fault(links, part, malformed.into());
                    break;
                }
            };
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else {
                if let Some(kind) = deframer.expects_payload()
                    && let Err(fault) = part.session.announced(kind)
                {
                    self.fault(links, part, fault);
                }
                break;
            };
            let decoded = raw.decode();
            if let Ok(Frame::Hello(hello)) = &decoded
                && let Some(to) = self.other_shard(part, hello)
            {
                return self.pass_link_on(links, part, to, [raw.bytes(), rest].concat());
            }
            let handled = match decoded {
                Ok(Frame::Publish(message)) if part.session.passes(Kind::PUBLISH) => {
                    self.publish(links, part, &message, raw.bytes())
                }
                Ok(Frame::Tag(tag)) if part.session.passes(Kind::TAG) => {
                    self.tag(links, part, &tag, raw.bytes())
                }
                Ok(frame) => {
                    self.take_word(part, &frame);
                    self.frame(links, part, &frame)
                }
                Err(malformed) => Err(malformed.into()),
            };
            // Many PINGs may be in one read; their answers wait in the outbox, not in the session.
            part.session.transmit(part.outbox.control());
            if let Err(fault) = handled {
                self.fault(links, part, fault);
            }
        }
        let at = data.len() - rest.len();
        part.partial = if deframer.buffered() > 0 { deframer.reserved() } else { 0 };
        self.keep_rest(part, data, at);
        self.touch(part);
        self.read(part);
    }

    fn frame(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        frame: &Frame<'_>,
    ) -> Result<(), Fault> {
        match part.session.handle(self.now, frame)? {
            Step::Hello => match frame {
                Frame::Hello(hello) => self.hello(links, part, hello),
                _ => unreachable!("that step is for HELLO"),
            },
            Step::Pass => self.pass(links, part, frame),
            Step::NotSupported(_) => {
                part.not_supported(frame);
                Ok(())
            }
            Step::Done => Ok(()),
            Step::Pong { token } => {
                self.answered(part, token);
                Ok(())
            }
            Step::Drain { .. } => {
                self.peer_drains(part);
                Ok(())
            }
            Step::Ended => {
                self.leave(links, part);
                self.close(links, part);
                Ok(())
            }
            Step::Welcome | Step::Held => unreachable!("HELLO is judged at once, and by us"),
        }
    }

    fn pass(&mut self, links: &mut Links, part: &mut Part, frame: &Frame<'_>) -> Result<(), Fault> {
        if matches!(part.role, RoleState::Data(_)) {
            return self.pass_data(links, part, frame);
        }
        match frame {
            Frame::Snapshot(records) => self.snapshot(links, part, records),
            Frame::Delta(records) => self.delta(links, part, records),
            Frame::TagDelta(records) => self.tag_delta(part, records),
            Frame::Barrier(barrier) => self.barrier(part, barrier),
            Frame::Resume(resume) => self.resume(links, part, resume),
            Frame::Suspend(suspend) if part.gateway().resumes => self.suspend(part, suspend),
            Frame::Uplink(message) => self.uplink(links, part, message),
            Frame::UplinkAck(ack) => self.uplink_ack(links, part, ack),
            Frame::Fragment(fragment) => self.add_piece(links, part, fragment),
            Frame::Group(group) => {
                self.group(part, group);
                Ok(())
            }
            Frame::Filter(filter) => {
                self.filter(part, filter);
                Ok(())
            }
            Frame::Report(report) => {
                self.report(links, part, report);
                Ok(())
            }
            // An ERROR is never answered (SEC-18): two ends that did would never stop.
            Frame::Error(error) => {
                let (shard, link, code) = (self.id, part.id.0, error.code);
                tracing::info!(shard, link, %code, "the peer reports an error");
                Ok(())
            }
            other => {
                part.not_supported(other);
                Ok(())
            }
        }
    }

    fn mail(&mut self, links: &mut Links, mail: Mail) {
        match mail {
            Mail::Parcel(parcel) => self.deliver_parcel(links, parcel),
            Mail::Word { asked, word } => self.told(links, asked, &word),
            Mail::Hop { asked, hop } => Self::hop_told(links, asked, hop),
            Mail::Uplink { link, question, frame } => {
                self.uplink_mailed(links, link, question, &frame);
            }
            Mail::UplinkAnswer { question, code } => self.answer_here(links, question, code),
            Mail::Supersede { link } => self.supersede(links, link),
            Mail::Release { link } => self.release(links, link),
            Mail::Fence { link, data } => self.fence(links, link, data),
            Mail::Passed { link } => self.passed(links, link),
            Mail::DataLost { link, number } => self.data_lost(links, link, number),
            Mail::SessionEnded { link } => self.session_ended(links, link),
            Mail::Told { link, incarnation, old } => {
                self.told_mailed(links, link, incarnation, old);
            }
            Mail::Losers { link, slot } => self.woken(links, link, slot),
        }
    }
}

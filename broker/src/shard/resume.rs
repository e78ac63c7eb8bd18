//! A gateway's session beyond its link: suspended, resumed on another link, or dead.
//!
//! ```text
//!  live --link ended, SUSPEND--> suspended --HELLO names it--> claimed --RESUME--> live
//!                                  |   ^                          |
//!                         window over  +---------link ended-------+--snapshot--> replaced
//! ```
//!
//! A suspended slot answers nothing (promise 8). Death is O(1) for the routes; what was declared is
//! buried in portions (`chores.rs`).

use std::time::Duration;

use waybill_routing::{Incarnation, Slot, SlotState};
use waybill_wire::code::{ErrorCode, Kind, capability};
use waybill_wire::frame::{Frame, Hello, Resume, Resumed, Suspend};
use waybill_wire::planted::{self, Bug};
use waybill_wire::session::Registration;

use super::gateway::{GatewayState, superseded};
use super::link::{Fault, Part, refused};
use super::{Core, Links};
use crate::auth::Grant;
use crate::declared::Declared;
use crate::io::{LinkId, Output};
use crate::limits::SWEEP_STEPS;
use crate::mail::Mail;
use crate::shared::sessions::Held;
use crate::told::Told;

/// A suspended session that a link has taken out of the table, to go on with it.
pub(super) struct Claim {
    deadline: Duration,
    /// A snapshot comes instead of RESUME: what stands until that has ended.
    given_up: Option<GivenUp>,
    version: u64,
}

struct GivenUp {
    slot: Slot,
    declared: Box<Declared>,
}

impl Claim {
    /// What the snapshot that came instead of RESUME replaces.
    pub(super) fn into_given_up(self) -> Option<(Slot, Box<Declared>)> {
        self.given_up.map(|given_up| (given_up.slot, given_up.declared))
    }
}

/// What a slot that died had declared, until it is all freed.
pub(super) struct Burial {
    incarnation: u64,
    declared: Box<Declared>,
    // Consumers are told that it is lost.
    tells: bool,
}

impl Core {
    /// The session of a gateway that says HELLO: the one it names, if that can be resumed, or a new
    /// one with a fresh slot.
    pub(super) fn gateway_session(
        &mut self,
        hello: &Hello<'_>,
        grant: Grant,
    ) -> Result<GatewayState, Fault> {
        let (session, incarnation) = (hello.session, hello.instance);
        let offers = |capability| hello.capabilities & capability != 0;
        let (resumes, has_tags) = (offers(capability::RESUME), offers(capability::TAGS));
        let claimed = if resumes && session != 0 {
            self.shared.claim(session, incarnation, (&grant, has_tags), self.now)
        } else {
            None
        };
        if let Some(held) = claimed {
            // One that has died meanwhile will not be resumed anyhow.
            let _ = self.shared.routes.agree_on_tags(held.slot, has_tags);
            let mut gateway = GatewayState::new(held.slot, incarnation, session, grant);
            gateway.registration = Registration::resuming(held.version);
            gateway.declared = held.declared;
            (gateway.resumes, gateway.has_tags) = (true, has_tags);
            let Held { deadline, version, .. } = held;
            gateway.claim = Some(Claim { deadline, given_up: None, version });
            return Ok(gateway);
        }
        let slot = self.open_slot(incarnation, has_tags).ok_or_else(|| {
            let words = "this broker knows as many gateways as gateways_max allows";
            refused(ErrorCode::TOO_MANY_LINKS, Kind::HELLO, words)
        })?;
        let mut gateway = GatewayState::new(slot, incarnation, self.shared.next_session(), grant);
        (gateway.resumes, gateway.has_tags) = (resumes, has_tags);
        Ok(gateway)
    }

    /// A fresh slot, and whether tags are agreed on with its gateway.
    fn open_slot(&mut self, incarnation: u64, has_tags: bool) -> Option<Slot> {
        let slot = self.find_slot(incarnation)?;
        if has_tags {
            self.shared.routes.agree_on_tags(slot, true).expect("nobody else has the slot yet");
        }
        Some(slot)
    }

    /// A fresh slot. Gateways that are gone make room for one that is here.
    fn find_slot(&mut self, incarnation: u64) -> Option<Slot> {
        let incarnation = Incarnation(incarnation);
        if let Ok(slot) = self.shared.routes.open(incarnation) {
            return Some(slot);
        }
        let swept = self.shared.routes.sweep(SWEEP_STEPS);
        if let Ok(slot) = self.shared.routes.open(incarnation) {
            return Some(slot);
        }
        if swept.slots_left > 0 {
            // One is being freed: another death would not make it sooner.
            return None;
        }
        let held = self.shared.next_to_end()?;
        self.end_session(held);
        self.shared.routes.sweep(SWEEP_STEPS);
        self.shared.routes.open(incarnation).ok()
    }

    /// A snapshot comes instead of RESUME: it fills a fresh slot, and the suspended one stays until
    /// it has ended.
    pub(super) fn give_up_resuming(&mut self, gateway: &mut GatewayState) -> Result<(), Fault> {
        let fresh = self.open_slot(gateway.incarnation, gateway.has_tags).ok_or_else(|| {
            let words = "this broker knows as many gateways as gateways_max allows";
            refused(ErrorCode::OVERLOADED, Kind::SNAPSHOT, words)
        })?;
        self.shared.gateway_moved(gateway.slot, fresh);
        let slot = std::mem::replace(&mut gateway.slot, fresh);
        let declared = std::mem::take(&mut gateway.declared);
        if let Some(claim) = &mut gateway.claim {
            claim.given_up = Some(GivenUp { slot, declared });
        }
        Ok(())
    }

    /// The last version that is suspended here, and its digest: what RESUME has to build on.
    pub(super) fn put_resumed(part: &mut Part) {
        let gateway = part.gateway();
        if gateway.registration.is_resuming() {
            let (version, digest) = (gateway.registration.version(), gateway.declared.digest());
            part.put(&Frame::Resumed(Resumed { version, digest }));
        }
    }

    pub(super) fn resume(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        resume: &Resume,
    ) -> Result<(), Fault> {
        let gateway = part.gateway();
        let stale = planted::is(Bug::StaleDigest);
        let digest = if stale { resume.digest } else { gateway.declared.digest() };
        let judged = gateway.registration.resume(resume, gateway.session, digest);
        if let Err(violation) = judged {
            if violation.code == ErrorCode::DIGEST_MISMATCH {
                // Nobody knows what is in it: it is not for another try.
                gateway.torn = true;
            }
            return Err(violation.into());
        }
        let alive = self.shared.routes.resume(gateway.slot).is_ok();
        if !alive && !planted::is(Bug::ResumeAfterDeath) {
            return Err(superseded(Kind::RESUME));
        }
        let answer = gateway.in_effect();
        gateway.claim = None;
        self.take_over(links, part);
        part.put(&answer);
        self.now_in_effect(links, part);
        Ok(())
    }

    /// The gateway announces that it will be away: the slot stops answering now.
    pub(super) fn suspend(&mut self, part: &mut Part, suspend: &Suspend) -> Result<(), Fault> {
        part.gateway().registration.suspend()?;
        let window = suspend.window_ms.min(self.shared.config.resume_window_ms);
        let gateway = part.gateway();
        self.shared.gateway_closed(gateway.slot, gateway.incarnation);
        self.stop_answering(gateway, window);
        Ok(())
    }

    /// A gateway's link ended: its users are offline at once (promise 8).
    pub(super) fn gateway_left(&mut self, mut gateway: GatewayState) {
        if gateway.registration.is_suspended() {
            return;
        }
        self.shared.gateway_closed(gateway.slot, gateway.incarnation);
        let window = self.shared.config.resume_window_ms;
        // Not if a newer link was faster, and this one's last step was refused.
        if gateway.answered {
            return self.stop_answering(&mut gateway, window);
        }
        let now = self.now;
        self.shared.readiness(|readiness| readiness.left_filling(now));
        let Some(claim) = gateway.claim.take() else {
            let _ = self.shared.routes.kill(gateway.slot);
            return self.bury(gateway.incarnation, gateway.declared, false);
        };
        // A snapshot has a version of its own, also one that could not even begin.
        let resuming = gateway.registration.is_resuming();
        let version = if resuming { gateway.registration.version() } else { claim.version };
        let mut held = Held {
            session: gateway.session,
            slot: gateway.slot,
            incarnation: gateway.incarnation,
            grant: gateway.grant,
            version,
            declared: gateway.declared,
            deadline: claim.deadline,
        };
        let mut torn = gateway.torn;
        if let Some(GivenUp { slot, declared }) = claim.given_up {
            let _ = self.shared.routes.kill(held.slot);
            let filled = std::mem::replace(&mut held.declared, declared);
            self.bury(held.incarnation, filled, false);
            (held.slot, torn) = (slot, false);
        }
        if torn { self.end_session(held) } else { self.hold(held) }
    }

    /// A slot that answered is suspended and kept for `window_ms`, or dies.
    fn stop_answering(&mut self, gateway: &mut GatewayState, window_ms: u32) {
        let incarnation = gateway.incarnation;
        self.shared.readiness(|readiness| readiness.left(incarnation));
        // Churn of gateways without users must not fill the table with what nobody misses.
        let keeps =
            gateway.resumes && !gateway.torn && window_ms > 0 && !gateway.declared.is_empty();
        self.leave_contest(gateway);
        let suspended = self.shared.routes.suspend(gateway.slot).is_ok();
        let held = Held {
            session: gateway.session,
            slot: gateway.slot,
            incarnation,
            grant: gateway.grant.clone(),
            version: gateway.registration.version(),
            declared: std::mem::take(&mut gateway.declared),
            deadline: self.now + Duration::from_millis(window_ms.into()),
        };
        if keeps && suspended { self.hold(held) } else { self.end_session(held) }
    }

    /// Keeps a session, unless a newer link has ended its slot meanwhile.
    fn hold(&mut self, held: Held) {
        let (slot, session) = (held.slot, held.session);
        if let Some(before) = self.shared.hold(held) {
            self.end_session(before);
        }
        if self.shared.routes.state(slot) != SlotState::Suspended
            && !planted::is(Bug::ResumeAfterDeath)
            && let Some(held) = self.shared.take_held(session)
        {
            self.end_session(held);
        }
    }

    /// A session dies, if its slot has not: its routes in one step, its registrations in portions.
    fn end_session(&mut self, held: Held) {
        if self.shared.routes.kill(held.slot).is_ok() {
            self.bury(held.incarnation, held.declared, true);
        } else {
            self.pass_on(held.incarnation, *held.declared);
        }
    }

    /// What consumers were told of a slot that was replaced passes on to the one that stands. If it
    /// is waiting for that itself, it has told nothing, and what comes for it will be passed on.
    pub(super) fn pass_on(&mut self, incarnation: u64, declared: Declared) {
        let waits = declared.waits();
        let old = declared.into_told();
        if waits {
            return self.bury(incarnation, Box::new(Declared::told_only(old)), false);
        }
        self.pass_on_told(incarnation, old, None);
    }

    fn pass_on_told(&mut self, incarnation: u64, old: Told, from: Option<LinkId>) {
        let standing = self.shared.routes.standing(Incarnation(incarnation));
        let Some(standing) = standing else {
            return self.bury(incarnation, Box::new(Declared::told_only(old)), true);
        };
        let unwanted = match self.shared.link_of(standing) {
            None => self.shared.old_came(incarnation, old),
            Some(place) if place.shard == self.id && Some(place.link) == from => Some(old),
            // A shard that far behind gets no more of it: here it is told as lost, and there, when
            // the wait for it is over, as new.
            Some(_) if !self.shared.told_sent() => {
                return self.bury(incarnation, Box::new(Declared::told_only(old)), true);
            }
            Some(place) => {
                let mail = Mail::Told { link: place.link, incarnation, old };
                // Also within this shard: the newer link may be the one that is acting.
                return self.outputs.push_back(Output::Mail { to: place.shard, mail });
            }
        };
        if let Some(old) = unwanted {
            self.bury(incarnation, Box::new(Declared::told_only(old)), false);
        }
    }

    /// What consumers were told of the slot before has come.
    pub(super) fn told_mailed(
        &mut self,
        links: &mut Links,
        link: LinkId,
        incarnation: u64,
        old: Told,
    ) {
        self.shared.told_arrived();
        let newer = links.find_mut(link).and_then(|link| link.part.gateway_of(incarnation));
        match newer.filter(|gateway| gateway.declared.waits()) {
            Some(gateway) => gateway.declared.old_came(old),
            // It was suspended or replaced meanwhile.
            None => self.pass_on_told(incarnation, old, Some(link)),
        }
    }

    /// Sessions whose window is over die.
    pub(super) fn end_overdue(&mut self) {
        if planted::is(Bug::ResumeAfterDeath) {
            return self.shared.outlive(self.now);
        }
        while let Some(held) = self.shared.overdue(self.now) {
            tracing::info!(incarnation = held.incarnation, "a gateway did not come back in time");
            self.end_session(held);
        }
    }

    pub(super) fn bury(&mut self, incarnation: u64, declared: Box<Declared>, tells: bool) {
        if declared.room() > 0 {
            self.burials.push_back(Burial { incarnation, declared, tells });
        }
    }

    /// Frees a portion of what the dead had declared, and tells consumers.
    pub(super) fn bury_some(&mut self, links: &mut Links, steps: usize) {
        let wanted = self.presence_wanted();
        let each = if wanted { self.records_per_news() } else { 1 };
        for _ in 0..steps.div_ceil(each) {
            let Some(burial) = self.burials.front_mut() else { return };
            let (incarnation, tells) = (burial.incarnation, burial.tells && wanted);
            match burial.declared.bury_one() {
                None => drop(self.burials.pop_front()),
                Some(news) => {
                    self.shared.release_registrations(1);
                    if let Some((event, registered)) = news.filter(|_| tells) {
                        self.presence(links, event, registered, incarnation);
                    }
                }
            }
        }
    }
}

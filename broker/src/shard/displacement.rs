//! What follows from registrations that came into effect: logins that contend with them lose, and
//! consumers hear of them. Of a snapshot's many it follows in portions, on ticks.

use std::time::Duration;

use waybill_routing::{Login, Slot, SlotState};
use waybill_wire::code::Event;
use waybill_wire::digest::Registered;
use waybill_wire::frame::{Displaced, Frame};

use super::gateway::GatewayState;
use super::link::{Life, Link, Part, RoleState};
use super::{Core, Links};
use crate::declared::Declared;
use crate::io::{LinkId, Output};
use crate::limits::{DISPLACED_BYTES, FOLLOW_STEPS, LOSERS_TAKEN, TOLD_WAIT_MS};
use crate::mail::Mail;
use crate::shared::UNPOISONED;
use crate::told::Told;

impl Core {
    /// What a snapshot declared is to be told, but for what was told of the slot it replaced.
    /// While the broker is not ready, it is where users are found, not news.
    pub(super) fn follow_snapshot(&mut self, part: &mut Part, told: Told, comes: bool) {
        let gateway = part.gateway();
        if self.presence_wanted() && self.told_ready {
            let waits = comes.then(|| self.now + Duration::from_millis(TOLD_WAIT_MS));
            return gateway.declared.begin_telling(told, waits);
        }
        let incarnation = gateway.incarnation;
        self.bury(incarnation, Box::new(Declared::told_only(told)), false);
    }

    /// A slot answers from here on.
    pub(super) fn now_in_effect(&mut self, links: &mut Links, part: &mut Part) {
        let now = self.now;
        let allows_all = self.shared.allows_all_logins();
        let gateway = part.gateway();
        let incarnation = gateway.incarnation;
        gateway.answered = true;
        if !allows_all {
            gateway.declared.begin_entering();
        }
        self.shared.readiness(|readiness| readiness.in_effect(now, incarnation));
        let mut budget = FOLLOW_STEPS;
        self.catch_up(links, part, &mut budget);
    }

    /// A portion of what a snapshot, or a resume, has for others.
    pub(super) fn catch_up(&mut self, links: &mut Links, part: &mut Part, budget: &mut usize) {
        let RoleState::Gateway(gateway) = &mut part.role else { return };
        if !gateway.registration.is_live() {
            return;
        }
        gateway.declared.wait_until(self.now);
        let (incarnation, mut freed) = (gateway.incarnation, 0);
        while let Some((event, registered)) = gateway.declared.news(budget, &mut freed) {
            self.presence(links, event, registered, incarnation);
        }
        self.shared.release_registrations(freed);
        while *budget > 0 && part.gateway().declared.is_entering() {
            *budget -= 1;
            if let Some(registered) = part.gateway().declared.enter() {
                self.contend(links, part, Event::LOGIN, registered);
            }
        }
    }

    /// A login comes or goes, where a policy says which of them may stand.
    pub(super) fn contend(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        event: Event,
        registered: Registered,
    ) {
        let Some(login) = self.shared.contender(registered) else { return };
        let slot = part.gateway().slot;
        let losing = {
            let mut contest = self.shared.contest.lock().expect(UNPOISONED);
            if event != Event::LOGIN {
                contest.remove(slot, login);
                Vec::new()
            } else if self.shared.routes.state(slot) == SlotState::Live {
                contest.add(slot, login)
            } else {
                // Another shard has replaced it since, and taken it out of the contest or is about
                // to: it must not come back.
                Vec::new()
            }
        };
        for loser in losing {
            if loser == slot {
                part.gateway().losing = true;
                self.tell_losers(links, part);
            } else {
                self.wake(links, loser);
            }
        }
    }

    /// Lets the shard of another slot know that logins there have lost. A slot without a link is
    /// being suspended, and leaves the contest.
    fn wake(&mut self, links: &mut Links, slot: Slot) {
        match self.shared.link_of(slot) {
            Some(place) if place.shard != self.id => {
                let mail = Mail::Losers { link: Some(place.link), slot };
                self.outputs.push_back(Output::Mail { to: place.shard, mail });
            }
            place => self.woken(links, place.map(|place| place.link), slot),
        }
    }

    /// Logins at a gateway of this shard have lost.
    pub(super) fn woken(&mut self, links: &mut Links, link: Option<LinkId>, slot: Slot) {
        self.shared.contest.lock().expect(UNPOISONED).woken(slot);
        let link = link.and_then(|link| links.find_mut(link));
        if let Some(Link { part, .. }) = link
            && let RoleState::Gateway(gateway) = &mut part.role
        {
            gateway.losing = true;
            self.touch(part);
        }
    }

    /// Looks for losers of which this shard could not be told.
    pub(super) fn look_for_losers(&mut self, part: &mut Part) {
        if self.shared.allows_all_logins() {
            return;
        }
        if let RoleState::Gateway(gateway) = &mut part.role
            && !gateway.losing
        {
            let contest = self.shared.contest.lock().expect(UNPOISONED);
            gateway.losing = contest.has_losers(gateway.slot);
        }
    }

    /// Tells a gateway of its logins that have lost, as many as its link has room for. The others
    /// wait where they are until it has taken these.
    pub(super) fn tell_losers(&mut self, links: &mut Links, part: &mut Part) {
        while part.life == Life::Open && part.outbox.control_bytes() < DISPLACED_BYTES {
            let RoleState::Gateway(gateway) = &mut part.role else { return };
            if !gateway.losing {
                return;
            }
            let slot = gateway.slot;
            let mut contest = self.shared.contest.lock().expect(UNPOISONED);
            let losers = contest.take(slot, LOSERS_TAKEN);
            gateway.losing = contest.has_losers(slot);
            drop(contest);
            for (login, winner) in losers {
                self.put_displaced(links, part, login, winner);
            }
        }
    }

    fn put_displaced(&mut self, links: &mut Links, part: &mut Part, lost: Login, winner: u64) {
        let Login { namespace, uid, device_class, number } = lost;
        let (namespace, uid, login) = (namespace.0, uid.0, number);
        let registered = Registered { namespace, uid, device_class, login };
        let gateway = part.gateway();
        // It may have withdrawn the login since.
        if !gateway.declared.contains(registered) {
            return;
        }
        let incarnation = gateway.incarnation;
        part.put(&Frame::Displaced(Displaced { device_class, namespace, uid, login, winner }));
        self.touch(part);
        self.presence(links, Event::DISPLACED, registered, incarnation);
    }

    /// A slot stops answering: its logins contend no more.
    pub(super) fn leave_contest(&self, gateway: &mut GatewayState) {
        gateway.declared.end_entering();
        self.shared.leave_contest(gateway.slot);
    }
}

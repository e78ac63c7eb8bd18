//! What follows from registrations that came into effect: logins that contend with them lose, and
//! consumers hear of them. Of a snapshot's many it follows in portions, on ticks.

use std::time::Duration;

use waybill_routing::{Displaced, Slot, SlotState};
use waybill_wire::code::Event;
use waybill_wire::digest::Registered;
use waybill_wire::frame::{Displaced as DisplacedFrame, Frame};

use super::gateway::GatewayState;
use super::link::{Life, Part, RoleState};
use super::{Core, Links};
use crate::declared::Declared;
use crate::io::{LinkId, Output};
use crate::limits::{FOLLOW_STEPS, TOLD_WAIT_MS};
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
        let losers = {
            let mut logins = self.shared.logins.lock().expect(UNPOISONED);
            if event != Event::LOGIN {
                logins.remove(slot, login);
                Vec::new()
            } else if self.shared.routes.state(slot) == SlotState::Live {
                logins.add(slot, login)
            } else {
                // Another shard has replaced it since, and taken it out of the contest or is about
                // to: it must not come back.
                Vec::new()
            }
        };
        for loser in losers {
            self.displace(links, part, loser);
        }
    }

    /// Tells the gateway of a login that it has lost.
    fn displace(&mut self, links: &mut Links, part: &mut Part, loser: Displaced) {
        let Displaced { slot, login, winner } = loser;
        let displaced = DisplacedFrame {
            device_class: login.device_class,
            namespace: login.namespace.0,
            uid: login.uid.0,
            login: login.number,
            winner,
        };
        if part.gateway().slot == slot {
            return self.put_displaced(links, part, slot, displaced);
        }
        let Some(place) = self.shared.link_of(slot) else { return };
        if place.shard == self.id {
            return self.displaced_mailed(links, place.link, slot, displaced);
        }
        let mail = Mail::Displaced { link: place.link, slot, displaced };
        self.outputs.push_back(Output::Mail { to: place.shard, mail });
    }

    /// A login at a gateway of this shard has lost.
    pub(super) fn displaced_mailed(
        &mut self,
        links: &mut Links,
        link: LinkId,
        slot: Slot,
        displaced: DisplacedFrame,
    ) {
        if let Some(mut link) = links.remove(&link) {
            self.put_displaced(links, &mut link.part, slot, displaced);
            links.insert(link.part.id, link);
        }
    }

    fn put_displaced(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        slot: Slot,
        displaced: DisplacedFrame,
    ) {
        let DisplacedFrame { namespace, uid, device_class, login, .. } = displaced;
        let registered = Registered { namespace, uid, device_class, login };
        let RoleState::Gateway(gateway) = &part.role else { return };
        // It may have withdrawn the login since.
        let stands = gateway.slot == slot && gateway.declared.contains(registered);
        if part.life != Life::Open || !stands {
            return;
        }
        let incarnation = gateway.incarnation;
        part.put(&Frame::Displaced(displaced));
        self.touch(part);
        self.presence(links, Event::DISPLACED, registered, incarnation);
    }

    /// A slot stops answering: its logins contend no more.
    pub(super) fn leave_contest(&self, gateway: &mut GatewayState) {
        gateway.declared.end_entering();
        self.shared.leave_contest(gateway.slot);
    }
}

//! What links are told of the broker's state: by WELCOME, and by STATE when it changes (SES-14).
//!
//! Readiness is shared by all shards. Each tells its own links as soon as it looks, which it does
//! whenever something happens, and at each tick.

use waybill_wire::code::BrokerState;
use waybill_wire::frame::{Frame, State};
use waybill_wire::session::Phase;

use super::link::{Life, Part};
use super::{Core, Links, Shard};

impl Shard {
    /// Tells every open link that the broker has become ready, once.
    pub(super) fn announce(&mut self) {
        if self.core.told_ready || !self.core.shared.is_ready() {
            return;
        }
        self.core.told_ready = true;
        tracing::info!(shard = self.core.id, "ready");
        self.core.announce_to(&mut self.links);
    }
}

impl Core {
    /// What WELCOME says: the same as every other link of this shard was told.
    pub(super) fn state(&self) -> BrokerState {
        if self.told_ready { BrokerState::READY } else { BrokerState::NOT_READY }
    }

    /// A link that was welcomed by a broker that is not ready learns what it waits for.
    pub(super) fn put_state(&self, part: &mut Part) {
        if !self.told_ready {
            let gateways_missing = self.shared.gateways_missing();
            part.put(&Frame::State(State { state: self.state(), gateways_missing }));
        }
    }

    fn announce_to(&mut self, links: &mut Links) {
        let state = State { state: BrokerState::READY, gateways_missing: 0 };
        for id in links.ids() {
            let Some(link) = links.find_mut(id) else { continue };
            let open = matches!(link.part.session.phase(), Phase::Open | Phase::Draining);
            // A broker that drains has said so, and that is what counts.
            if open && link.part.life == Life::Open && self.drain.is_none() {
                link.part.put(&Frame::State(state));
                self.touch(&mut link.part);
            }
        }
    }
}

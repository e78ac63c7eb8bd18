//! Who comes, goes and is lost, towards consumers.

use waybill_routing::filter::Fields;
use waybill_wire::code::Event;
use waybill_wire::digest::Registered;
use waybill_wire::frame::Presence;

use super::sending::Offer;
use super::{Core, Links};
use crate::shared::Feed;

impl Core {
    /// Whether any consumer wants to hear of presence at all: without one nothing is prepared for
    /// it.
    pub(super) fn presence_wanted(&self) -> bool {
        self.shared.is_wanted(Feed::Presence)
    }

    /// Tells one consumer of each group that offers it what became of one registration of a
    /// gateway. Nobody answers; one that finds no room is counted as dropped.
    pub(super) fn presence(
        &mut self,
        links: &mut Links,
        event: Event,
        registered: Registered,
        incarnation: u64,
    ) {
        let Registered { namespace, uid, device_class, login } = registered;
        let frame = Presence { event, device_class, namespace, uid, login, gateway: incarnation };
        self.chooses_consumers(1);
        let fields = Fields::of_presence(event, &uid, device_class);
        for place in self.shared.consumers_for(Feed::Presence, (namespace, uid), &fields) {
            let offer = Offer::to_consumer();
            self.offer(links, &place, offer, |out| frame.encode(out));
        }
    }
}

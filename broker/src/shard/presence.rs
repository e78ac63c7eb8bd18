//! Who comes, goes and is lost, towards consumers.

use waybill_wire::code::Event;
use waybill_wire::digest::Registered;

use super::{Core, Links};

impl Core {
    /// Whether any consumer wants to hear of presence: without one nothing is prepared for it.
    pub(super) fn presence_wanted(&self) -> bool {
        false
    }

    /// Tells one consumer of each group that offers it what became of a gateway's registration.
    pub(super) fn presence(
        &mut self,
        _links: &mut Links,
        _event: Event,
        _registered: Registered,
        _incarnation: u64,
    ) {
    }
}

//! The offline feed: who was offline for a message, towards the consumers that ask for it, so that
//! another service can reach those users.

use std::borrow::Cow;

use waybill_routing::filter::Fields;
use waybill_wire::code::Kind;
use waybill_wire::limits::PAYLOAD_BYTES_MAX;
use waybill_wire::message::Message;

use super::sending::Offer;
use super::{Core, Links};
use crate::shared::Feed;

impl Core {
    /// Gives the message, narrowed to the users that were offline for it, to one consumer of each
    /// group that offers the feed. Nobody answers; one that finds no room is counted and gone.
    #[inline]
    pub(super) fn tell_offline(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        instance: u64,
        offline: &[u64],
    ) {
        // Of most messages there is nobody, and they pay for no call.
        if let Some(&first) = offline.first() {
            self.tell_some_offline(links, message, instance, (first, offline));
        }
    }

    /// `first` is the first of `offline`.
    #[cold]
    fn tell_some_offline(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        instance: u64,
        (first, offline): (u64, &[u64]),
    ) {
        // What fits into no frame is not told (FRG-10).
        if !self.shared.is_wanted(Feed::Offline) || message.payload.len() > PAYLOAD_BYTES_MAX {
            return;
        }
        self.chooses_consumers(offline.len());
        let mut rising = Cow::Borrowed(offline);
        if !rising.is_sorted() {
            rising.to_mut().sort_unstable();
        }
        let fields = Fields::of_message(Kind::OFFLINE, &rising, message);
        let user = (message.namespace, first);
        for place in self.shared.consumers_for(Feed::Offline, user, &fields) {
            // The time to live is passed on as it came (OFL-2): it is not a delivery that waits.
            let offer = Offer::to_consumer();
            self.offer(links, &place, offer, |out| {
                message.offline_narrowed(instance, offline, out);
            });
        }
    }
}

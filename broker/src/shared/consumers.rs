//! Which links consume, and which of them gets what.

use waybill_wire::digest::mix;

use super::{Place, Shared, UNPOISONED};
use crate::auth::Grant;
use crate::io::LinkId;

#[derive(Clone, Debug)]
pub(crate) struct ConsumerPlace {
    pub(crate) place: Place,
    pub(crate) grant: Grant,
}

impl Shared {
    pub(crate) fn consumer_opened(&self, consumer: ConsumerPlace) {
        self.consumers.write().expect(UNPOISONED).push(consumer);
    }

    pub(crate) fn consumer_closed(&self, shard: u16, link: LinkId) {
        self.consumers.write().expect(UNPOISONED).retain(|it| !it.place.is(shard, link));
    }

    /// The consumer for one user's uplinks: the same as long as the set of consumers is, and
    /// neighbouring users spread over them.
    pub(crate) fn consumer(&self, namespace: u32, uid: u64) -> Option<Place> {
        let consumers = self.consumers.read().expect(UNPOISONED);
        let eligible = || consumers.iter().filter(|it| it.grant.covers(namespace));
        let count = eligible().count() as u64;
        let pick = mix(uid.wrapping_add(u64::from(namespace) << 32)).checked_rem(count)?;
        eligible().nth(usize::try_from(pick).ok()?).map(|it| it.place.clone())
    }
}

//! How much each link holds, in numbers, for whoever checks the bounds of `limits.rs`.

use super::Shard;
use super::link::RoleState;
use crate::config::{BrokerConfig, OutboxPolicy};
use crate::limits::{
    CONTROL_BYTES_MAX, MAIL_BEYOND_PART, RECEIPTS_PENDING_BYTES_MAX, RECEIPTS_PENDING_MAX,
    REPORTS_AWAITED_MAX, UPLINKS_UNANSWERED_MAX, WRITE_BYTES,
};

/// What one link holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of messages that wait, those on their way from other shards included.
    pub outbox_bytes: usize,
    /// Bytes of answers that wait.
    pub control_bytes: usize,
    /// Receipts that are not complete.
    pub receipts: usize,
    /// Bytes of them.
    pub receipt_bytes: usize,
    /// Reports that are owed.
    pub reports: usize,
    /// Uplinks without an answer, asked or owed.
    pub uplinks: usize,
}

impl Load {
    /// Which bound is exceeded, if one is.
    #[must_use]
    pub fn exceeds(&self, config: &BrokerConfig) -> Option<&'static str> {
        let most = config.outbox_bytes_max;
        // What is on its way from other shards may be beyond, where it makes room for itself.
        let drops_oldest = config.outbox_policy == OutboxPolicy::DropOldest;
        let outbox_bytes_max = if drops_oldest { most + most / MAIL_BEYOND_PART } else { most };
        // A link that is about to be ended for it may have the answers of one read more.
        let control_bytes_max = CONTROL_BYTES_MAX + WRITE_BYTES;
        let bounds = [
            ("outbox_bytes_max", self.outbox_bytes, outbox_bytes_max),
            ("CONTROL_BYTES_MAX", self.control_bytes, control_bytes_max),
            ("RECEIPTS_PENDING_MAX", self.receipts, RECEIPTS_PENDING_MAX),
            ("RECEIPTS_PENDING_BYTES_MAX", self.receipt_bytes, RECEIPTS_PENDING_BYTES_MAX),
            ("REPORTS_AWAITED_MAX", self.reports, REPORTS_AWAITED_MAX),
            ("UPLINKS_UNANSWERED_MAX", self.uplinks, UPLINKS_UNANSWERED_MAX),
        ];
        bounds.into_iter().find(|(_, is, most)| is > most).map(|(name, ..)| name)
    }
}

impl Shard {
    /// What each of its links holds.
    pub fn loads(&self) -> impl Iterator<Item = Load> {
        self.links.ids().into_iter().filter_map(|id| self.links.find(id)).map(|link| {
            let outbox = &link.part.outbox;
            let (outbox_bytes, control_bytes) = (outbox.room().waiting(), outbox.control_bytes());
            let mut load = Load { outbox_bytes, control_bytes, ..Load::default() };
            match &link.part.role {
                RoleState::None => {}
                RoleState::Producer(producer) => {
                    (load.receipts, load.receipt_bytes) = producer.receipts.load();
                }
                RoleState::Gateway(gateway) => {
                    (load.reports, load.uplinks) =
                        (gateway.reports.load(), gateway.uplinked.load());
                }
                RoleState::Data(data) => load.reports = data.reports.load(),
                RoleState::Consumer(consumer) => load.uplinks = consumer.owed.load(),
            }
            load
        })
    }
}

//! What a link holds, counted at the end of each turn that touched it and charged to the pools of
//! all links (promise 7); and what follows where a pool has too little left.
//!
//! Messages for it find no room then, by the policy of its outbox; its receipts, reports and
//! uplinks are fewer; its read buffers stay small. Whoever is in the middle of a frame that is
//! larger than its share is not read further until others have given something back; gateways are
//! always read, with four times the share, and ended only beyond that. Never: what is written or
//! read.

use std::time::Duration;

use waybill_wire::code::{ErrorCode, Kind};

use super::link::{Life, Link, Part, RoleState, refused};
use super::parts::Side;
use super::{Core, Links};
use crate::limits::{
    CONTROL_BYTES_LEAST, CONTROL_BYTES_MAX, LINK_BYTES, PARTIAL_BYTES_LEAST, SHORT_MS,
};

/// A gateway's link may have so many shares in the middle of a frame, and in answers.
const GATEWAY_SHARES: usize = 4;

impl Core {
    /// Charges a link with what it holds now, and ends it if that is more than there is for it.
    pub(super) fn account(&mut self, links: &mut Links, link: &mut Link) {
        let Link { deframer, part } = link;
        let share = self.shared.pools.brought.share();
        let is_idle = std::mem::take(&mut part.is_idle);
        part.outbox.heed(self.waiting_share(), is_idle);
        if is_idle || deframer.reserved() > share {
            deframer.trim();
        }
        let brought = deframer.reserved() + part.brought();
        part.charges.brought.set(brought.saturating_sub(LINK_BYTES));
        let free = LINK_BYTES.saturating_sub(brought);
        part.charges.waiting.set(part.waiting().saturating_sub(free));
        if part.life != Life::Open {
            return;
        }
        if part.waits {
            self.read(part);
        }
        if let Some(words) = part.is_beyond(self.now, share) {
            self.fault(links, part, refused(ErrorCode::OVERLOADED, Kind(0), words));
        }
    }

    /// Bytes of messages that may wait for one link, or of what is remembered of them.
    pub(super) fn waiting_share(&self) -> usize {
        self.shared.pools.waiting.share()
    }
}

impl Part {
    /// Bytes of memory that it holds of what it has brought, and of answers to that, those that are
    /// still to be made among them, by what their buffers have room for.
    fn brought(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.held());
        let halfway = self.halfway.as_ref().map_or(0, |halfway| halfway.held());
        let role = match &self.role {
            RoleState::Producer(producer) => {
                producer.assembly.reserved() + producer.receipts.held()
            }
            _ => 0,
        };
        self.reading.held().max(rest) + halfway + role + self.outbox.answers_held()
    }

    /// The same of what waits for it, or for its words.
    fn waiting(&self) -> usize {
        let role = match &self.role {
            RoleState::Gateway(gateway) => gateway.reports.held() + gateway.uplinked.held(),
            RoleState::Data(data) => data.reports.held(),
            RoleState::Consumer(consumer) => consumer.held(),
            RoleState::Producer(_) | RoleState::None => 0,
        };
        self.outbox.held() + role
    }

    /// Why it is to be ended, if it is, where its share of what may be brought is that.
    fn is_beyond(&mut self, now: Duration, share: usize) -> Option<&'static str> {
        let is_gateway = self.side() == Side::Gateways;
        let most = if is_gateway { share.saturating_mul(GATEWAY_SHARES) } else { usize::MAX };
        if self.outbox.control_bytes() > CONTROL_BYTES_MAX.min(most.max(CONTROL_BYTES_LEAST)) {
            return Some("answers pile up: this link asks and does not read");
        }
        if self.partial > most.max(PARTIAL_BYTES_LEAST) {
            return Some(NO_MEMORY);
        }
        let waits = self.waits && self.partial > share.max(PARTIAL_BYTES_LEAST);
        self.short_since = waits.then(|| self.short_since.unwrap_or(now));
        let is_over =
            self.short_since.is_some_and(|at| now - at >= Duration::from_millis(SHORT_MS));
        is_over.then_some(NO_MEMORY)
    }
}

const NO_MEMORY: &str = "there is no memory for the rest of its frame: links_bytes_max";

//! What a link holds, counted at the end of each turn that touched it and charged to the pool of
//! all links (promise 7); and what follows where the pool has too little left.
//!
//! Messages for it find no room then, by the policy of its outbox. Its read buffers stay small, its
//! receipts, reports and uplinks are fewer. Whoever is in the middle of a frame that is larger than
//! its share is not read further until others have given something back; gateways are always read,
//! with four times the share, and ended only beyond that. Never: what is written or read.

use std::time::Duration;

use waybill_wire::code::{ErrorCode, Kind};

use super::link::{Life, Link, Part, RoleState, refused};
use super::parts::Side;
use super::{Core, Links};
use crate::limits::{CONTROL_BYTES_MAX, LINK_BYTES, SHORT_MS};

/// A gateway's link may have so many shares in the middle of a frame, and in answers.
const GATEWAY_SHARES: usize = 4;

/// Bytes that a link may have in waiting answers, however little there is for all: they are within
/// what each link has without being charged for it.
const CONTROL_BYTES_LEAST: usize = 8 << 10;

impl Core {
    /// Charges a link with what it holds now, and ends it if that is more than there is for it.
    pub(super) fn account(&mut self, links: &mut Links, link: &mut Link) {
        let share = self.shared.pool.share();
        let is_idle = std::mem::take(&mut link.part.is_idle);
        link.part.outbox.heed(share, is_idle);
        if is_idle || link.deframer.reserved() > share {
            link.deframer.trim();
        }
        let held = link.deframer.reserved() + link.part.held();
        let part = &mut link.part;
        part.charge.set(held.saturating_sub(LINK_BYTES));
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

    /// Bytes one link may have in one queue.
    pub(super) fn share(&self) -> usize {
        self.shared.pool.share()
    }
}

impl Part {
    /// Bytes of memory it holds, by what its buffers have room for.
    fn held(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.held());
        let halfway = self.halfway.as_ref().map_or(0, |halfway| halfway.held());
        let role = match &self.role {
            RoleState::Producer(producer) => producer.receipts.held(),
            RoleState::Gateway(gateway) => gateway.reports.held() + gateway.uplinked.held(),
            RoleState::Data(data) => data.reports.held(),
            RoleState::Consumer(consumer) => consumer.held(),
            RoleState::None => 0,
        };
        self.outbox.held() + self.reading.held().max(rest) + halfway + role
    }

    /// Why it is to be ended, if it is.
    fn is_beyond(&mut self, now: Duration, share: usize) -> Option<&'static str> {
        let is_gateway = self.side() == Side::Gateways;
        let most = if is_gateway { share.saturating_mul(GATEWAY_SHARES) } else { usize::MAX };
        if self.outbox.control_bytes() > CONTROL_BYTES_MAX.min(most.max(CONTROL_BYTES_LEAST)) {
            return Some("answers pile up: this link asks and does not read");
        }
        if self.partial > most {
            return Some("there is no memory for the rest of its frame: links_bytes_max");
        }
        let waits = !is_gateway && self.waits && self.partial > share;
        self.short_since = waits.then(|| self.short_since.unwrap_or(now));
        let is_over =
            self.short_since.is_some_and(|at| now - at >= Duration::from_millis(SHORT_MS));
        is_over.then_some("there is no memory for the rest of its frame: links_bytes_max")
    }
}

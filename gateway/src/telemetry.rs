//! What happened, as counters that only rise, and their snapshot.
//!
//! The ledger (promise 5) counts messages per connection: every connection a message was addressed
//! to ends up in exactly one of delivered, filtered, repeated, dropped by a cause, in doubt, or
//! still waiting. Each of them is counted where it happens, what waits by the queues themselves;
//! none is derived from the others, so that an equation that holds says something.
//!
//! A message goes from one counter to the next in two steps, on whatever thread. A snapshot that
//! falls in between reads again; one that still does not balance after [`READS_MAX`] never will.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use waybill_wire::code::CloseCode;

use crate::hub::Tally;

/// See the head of the file.
const READS_MAX: usize = 1000;

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        if count > 0 {
            self.0.fetch_add(count, Ordering::Release);
        }
    }

    /// Of a gauge: so many are gone.
    pub(crate) fn sub(&self, count: u64) {
        if count > 0 {
            let before = self.0.fetch_sub(count, Ordering::Release);
            debug_assert!(before >= count, "only what was counted goes");
        }
    }

    pub(crate) fn set(&self, value: usize) {
        self.0.store(value as u64, Ordering::Release);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The counters of a gateway, shared by its tasks.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    pub(crate) messages_in: Counter,
    pub(crate) encodings: Counter,
    pub(crate) targets_missed: Counter,
    pub(crate) filtered: Counter,
    pub(crate) repeated: Counter,
    pub(crate) unready: Counter,
    pub(crate) addressed: Counter,
    pub(crate) delivered: Counter,
    pub(crate) dropped_slow: Counter,
    pub(crate) dropped_pool: Counter,
    pub(crate) dropped_closed: Counter,
    pub(crate) dropped_expired: Counter,
    pub(crate) in_doubt: Counter,
    pub(crate) closed_pool: Counter,
    pub(crate) upgrades: Counter,
    pub(crate) upgrades_refused: Counter,
    pub(crate) logins: Counter,
    pub(crate) readies: Counter,
    pub(crate) uplinks: Counter,
    pub(crate) uplinks_accepted: Counter,
    pub(crate) uplinks_refused: Counter,
    pub(crate) link_losses: Counter,
    pub(crate) displaced: Counter,
    pub(crate) reports: Counter,
    pub(crate) reports_asked: Counter,
    pub(crate) reports_lost: Counter,
    pub(crate) reports_untracked: Counter,
    pub(crate) selected: Counter,
    pub(crate) taggings: Counter,
    pub(crate) taggings_refused: Counter,
    pub(crate) tags_not_kept: Counter,
    links: Mutex<Vec<LinkStats>>,
    /// Gauge: messages in the queues of connections.
    pub(crate) waiting: Counter,
    /// Gauges, set by the task that owns the hub.
    pub(crate) uplinks_waiting: Counter,
    pub(crate) reports_waiting: Counter,
    pub(crate) logged_in: Counter,
    pub(crate) users: Counter,
    pub(crate) tags: Counter,
    pub(crate) links_up: Counter,
    closes: [Counter; CloseCode::ALL.len()],
    closes_other: Counter,
}

impl Telemetry {
    pub(crate) fn count(&self, tally: Tally) {
        self.targets_missed.add(tally.missed);
        self.filtered.add(tally.filtered);
        self.repeated.add(tally.repeated);
        self.unready.add(tally.unready);
    }

    /// An outage at this link has ended.
    pub(crate) fn restored(&self, link: usize, gap: Duration, resumed: bool) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if links.len() <= link {
            links.resize_with(link + 1, LinkStats::default);
        }
        let stats = &mut links[link];
        stats.gaps += 1;
        stats.gap_ms += u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
        let how = if resumed { &mut stats.resumes } else { &mut stats.snapshots };
        *how += 1;
    }

    pub(crate) fn closed(&self, code: CloseCode) {
        let place = CloseCode::ALL.iter().position(|(_, listed)| *listed == code);
        place.map_or(&self.closes_other, |place| &self.closes[place]).add(1);
    }

    pub(crate) fn snapshot(&self, connections: usize, held: usize) -> GatewayStats {
        let ledger = self.ledger_at_rest();
        let closes = CloseCode::ALL.iter().zip(&self.closes);
        let mut closes: BTreeMap<&'static str, u64> =
            closes.map(|((name, _), counter)| (*name, counter.value())).collect();
        closes.insert("other", self.closes_other.value());
        GatewayStats {
            messages_in: self.messages_in.value(),
            messages_selected: self.selected.value(),
            encodings: self.encodings.value(),
            targets_missed: self.targets_missed.value(),
            addressed: ledger.addressed,
            delivered: ledger.delivered,
            filtered: ledger.filtered,
            repeated: ledger.repeated,
            in_doubt: ledger.in_doubt,
            waiting: ledger.waiting,
            dropped: ledger.dropped,
            closed_pool: self.closed_pool.value(),
            bytes_held: held as u64,
            upgrades: self.upgrades.value(),
            upgrades_refused: self.upgrades_refused.value(),
            logins: self.logins.value(),
            readies: self.readies.value(),
            uplinks: ledger.uplinks,
            uplinks_accepted: ledger.uplinks_accepted,
            uplinks_refused: ledger.uplinks_refused,
            uplinks_waiting: ledger.uplinks_waiting,
            closes,
            link_losses: self.link_losses.value(),
            displaced: self.displaced.value(),
            reports: ledger.reports,
            reports_asked: ledger.reports_asked,
            reports_lost: ledger.reports_lost,
            reports_waiting: ledger.reports_waiting,
            reports_untracked: self.reports_untracked.value(),
            links: self.links.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            connections: connections as u64,
            logged_in: self.logged_in.value(),
            users: self.users.value(),
            tags: self.tags.value(),
            taggings: self.taggings.value(),
            taggings_refused: self.taggings_refused.value(),
            tags_not_kept: self.tags_not_kept.value(),
            links_up: self.links_up.value(),
        }
    }

    /// The ledger at a moment when nothing is on its way between two counters, if one is found.
    pub(crate) fn ledger_at_rest(&self) -> Ledger {
        for _ in 1..READS_MAX {
            let ledger = self.ledger();
            if ledger.balances().is_ok() {
                return ledger;
            }
            std::thread::yield_now();
        }
        self.ledger()
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            delivered: self.delivered.value(),
            filtered: self.filtered.value(),
            repeated: self.repeated.value(),
            in_doubt: self.in_doubt.value(),
            dropped: Dropped {
                slow: self.dropped_slow.value(),
                pool: self.dropped_pool.value(),
                closed: self.dropped_closed.value(),
                unready: self.unready.value(),
                expired: self.dropped_expired.value(),
            },
            waiting: self.waiting.value(),
            addressed: self.addressed.value(),
            uplinks_accepted: self.uplinks_accepted.value(),
            uplinks_refused: self.uplinks_refused.value(),
            uplinks_waiting: self.uplinks_waiting.value(),
            uplinks: self.uplinks.value(),
            reports: self.reports.value(),
            reports_lost: self.reports_lost.value(),
            reports_waiting: self.reports_waiting.value(),
            reports_asked: self.reports_asked.value(),
        }
    }
}

/// What must balance, without the rest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    addressed: u64,
    delivered: u64,
    filtered: u64,
    repeated: u64,
    in_doubt: u64,
    waiting: u64,
    dropped: Dropped,
    uplinks: u64,
    uplinks_accepted: u64,
    uplinks_refused: u64,
    uplinks_waiting: u64,
    reports: u64,
    reports_asked: u64,
    reports_lost: u64,
    reports_waiting: u64,
}

impl Ledger {
    /// See [`GatewayStats::balances`].
    pub(crate) fn balances(&self) -> Result<(), String> {
        let Dropped { slow, pool, closed, unready, expired } = self.dropped;
        let dropped = slow + pool + closed + unready + expired;
        let settled = self.delivered + self.filtered + self.repeated + self.in_doubt + dropped;
        equal("messages", self.addressed, settled + self.waiting)?;
        let answered = self.uplinks_accepted + self.uplinks_refused;
        equal("uplinks", self.uplinks, answered + self.uplinks_waiting)?;
        let told = self.reports + self.reports_lost;
        equal("reports", self.reports_asked, told + self.reports_waiting)
    }
}

/// A snapshot of the counters. Unless said otherwise a number only rises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GatewayStats {
    /// Messages from brokers, those in fragments when all of them has come.
    pub messages_in: u64,
    /// Of those in `messages_in`, with a selector.
    pub messages_selected: u64,
    /// Encodings made: at most one per message and subprotocol.
    pub encodings: u64,
    /// Listed UIDs that nobody here has (TGT-8). In mode `broadcast` that is the rule, in mode
    /// `direct` a user who has just left.
    pub targets_missed: u64,
    /// Left side of the ledger: messages times the connections each was addressed to.
    pub addressed: u64,
    /// Written to the connection's socket, whose client had not been heard to close it.
    pub delivered: u64,
    /// Left out by EXCEPT or EXCEPT_SELF, or of a listed user and left out by the selector. Whom a
    /// selector alone leaves out is not addressed.
    pub filtered: u64,
    /// Left out because the connection had this message id already.
    pub repeated: u64,
    /// Part of it was with the kernel when the connection ended, or was heard to end.
    pub in_doubt: u64,
    /// In a connection's queue now; falls again.
    pub waiting: u64,
    /// Not delivered, by cause.
    pub dropped: Dropped,
    /// Connections closed because what they held was needed for others; among `closes` they are
    /// `slow_connection`.
    pub closed_pool: u64,
    /// Bytes of messages and answers that wait to be written, now: see
    /// `limits.connections_bytes_max`.
    pub bytes_held: u64,
    /// Connections upgraded to WebSocket.
    pub upgrades: u64,
    /// Upgrades refused with an HTTP status.
    pub upgrades_refused: u64,
    /// Logins with a valid token.
    pub logins: u64,
    /// Logins answered with *ready*.
    pub readies: u64,
    /// Messages from users.
    pub uplinks: u64,
    /// Of these, taken by a consumer.
    pub uplinks_accepted: u64,
    /// Of these, refused or of unknown fate.
    pub uplinks_refused: u64,
    /// Of these, without an answer; falls again.
    pub uplinks_waiting: u64,
    /// Closes by this side, by their name in the registry; logins refused are among them as
    /// `bad_token`, `token_expired`, `login_timeout`, `not_registered`, `too_many`.
    pub closes: BTreeMap<&'static str, u64>,
    /// Times a link to a broker was lost.
    pub link_losses: u64,
    /// Connections closed because a login with a higher number took over.
    pub displaced: u64,
    /// Reports on deliveries handed to links.
    pub reports: u64,
    /// Deliveries that asked for a report: those above, lost and waiting.
    pub reports_asked: u64,
    /// Of these, being waited for or not taken by their link yet; falls again.
    pub reports_waiting: u64,
    /// Of these, not reported: their link had ended, or took no reports.
    pub reports_lost: u64,
    /// Of these, reported at once with users in doubt, for want of room (`limits.reports_max`).
    pub reports_untracked: u64,
    /// Outages by link, in the order of the links.
    pub links: Vec<LinkStats>,
    /// WebSocket connections now.
    pub connections: u64,
    /// Connections that are logged in now.
    pub logged_in: u64,
    /// Users that are logged in now.
    pub users: u64,
    /// Different tags that connections have now, in all namespaces.
    pub tags: u64,
    /// TAG commands from brokers.
    pub taggings: u64,
    /// Users that one of these was for and that had no room for it.
    pub taggings_refused: u64,
    /// Times a broker told that it does not keep all tags that were declared.
    pub tags_not_kept: u64,
    /// Links to brokers that are up now.
    pub links_up: u64,
}

/// Outages of one link that have ended: users were registered before and were not in effect there
/// meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LinkStats {
    /// How many.
    pub gaps: u64,
    /// Milliseconds of all of them, each from the loss of the link until everything declared was in
    /// effect again. A link that was silent before it was lost (a stopped process, a partition)
    /// counts as lost from the last byte heard on it, if that is two keepalive periods ago or more.
    pub gap_ms: u64,
    /// Of these, ended by a resumed session.
    pub resumes: u64,
    /// Of these, ended by a snapshot.
    pub snapshots: u64,
}

/// Messages that were addressed to a connection and did not reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Dropped {
    /// The connection's queue was full; what was in it then counts too.
    pub slow: u64,
    /// What waited for the connection was needed for others (`limits.connections_bytes_max`).
    pub pool: u64,
    /// The connection ended before it was written.
    pub closed: u64,
    /// The connection had not been told *ready* yet.
    pub unready: u64,
    /// Time to live ran out while it waited.
    pub expired: u64,
}

impl GatewayStats {
    /// Frames that brokers count for this gateway in their ledgers: DELIVERs and TAGs.
    #[must_use]
    pub fn frames_in(&self) -> u64 {
        self.messages_in + self.taggings
    }

    /// Whether the ledger balances (promise 5).
    ///
    /// # Errors
    ///
    /// The equation that fails, with its numbers.
    pub fn balances(&self) -> Result<(), String> {
        self.ledger().balances()?;
        // With the last connection everything that waited has settled.
        match self.connections {
            0 => equal("messages that wait for nobody", self.waiting, 0),
            _ => Ok(()),
        }
    }

    fn ledger(&self) -> Ledger {
        Ledger {
            addressed: self.addressed,
            delivered: self.delivered,
            filtered: self.filtered,
            repeated: self.repeated,
            in_doubt: self.in_doubt,
            waiting: self.waiting,
            dropped: self.dropped,
            uplinks: self.uplinks,
            uplinks_accepted: self.uplinks_accepted,
            uplinks_refused: self.uplinks_refused,
            uplinks_waiting: self.uplinks_waiting,
            reports: self.reports,
            reports_asked: self.reports_asked,
            reports_lost: self.reports_lost,
            reports_waiting: self.reports_waiting,
        }
    }
}

fn equal(what: &str, left: u64, right: u64) -> Result<(), String> {
    if left == right { Ok(()) } else { Err(format!("{what}: {left} is not {right}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_5_what_is_not_counted_does_not_balance() {
        let telemetry = Telemetry::default();
        let told = |telemetry: &Telemetry| telemetry.snapshot(1, 0).balances();
        telemetry.addressed.add(2);
        telemetry.waiting.add(2);
        assert_eq!(told(&telemetry), Ok(()));
        // One leaves its queue and nobody says where to.
        telemetry.waiting.sub(1);
        assert_eq!(told(&telemetry), Err("messages: 2 is not 1".into()));
        telemetry.dropped_closed.add(1);
        assert_eq!(told(&telemetry), Ok(()));
        assert!(telemetry.snapshot(0, 0).balances().is_err(), "it waits for nobody");
        telemetry.uplinks.add(1);
        assert_eq!(told(&telemetry), Err("uplinks: 1 is not 0".into()));
        telemetry.uplinks_waiting.set(1);
        telemetry.reports_asked.set(1);
        assert_eq!(told(&telemetry), Err("reports: 1 is not 0".into()));
    }
}

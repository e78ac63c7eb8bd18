//! PUBLISH: from the header to a plan, from the plan to outboxes, and the receipt.
//!
//! The payload is passed on as bytes and never looked at.

use std::collections::BTreeSet;

use waybill_routing::{Audience, Mode as Lookup, Namespace, Part as Share, Query, Routed};
use waybill_wire::code::{ErrorCode, Fate, Kind, Level, Mode};
use waybill_wire::frame::{FateSet, Frame, Receipt};
use waybill_wire::message::Message;
use waybill_wire::session::support;

use super::link::{Fault, Part, RoleState};
use super::{Core, Links, Offered};
use crate::shared::Found;
use crate::telemetry::count;

impl Core {
    pub(super) fn publish(
        &mut self,
        links: &mut Links,
        part: &mut Part,
        message: &Message<'_>,
    ) -> Result<(), Fault> {
        let RoleState::Producer(producer) = &mut part.role else {
            unreachable!("the session passes PUBLISH from producers only");
        };
        count(&self.counters.publishes, 1);
        producer.sequence.advance(Kind::PUBLISH, message.sequence, message.resend)?;
        let instance = producer.instance;
        if let Some(code) = refusal(message, producer.grant.covers(message.namespace)) {
            count(&self.counters.publishes_refused, 1);
            put_receipt(part, &Receipt { code, ..empty_receipt(message) });
            return Ok(());
        }
        let mut plan = std::mem::take(&mut self.plan);
        self.shared.routes.resolve(&[query(message)], &mut plan);
        let routed = plan.routed(0);
        count(&self.counters.targets_offline, routed.offline().len() as u64);
        let offers = self.deliver(links, message, instance, routed);
        if message.level == Level::ROUTED {
            answer(part, message, routed, &offers);
        }
        self.plan = plan;
        Ok(())
    }

    /// Offers its share to each gateway of the plan; the outcomes in the plan's order.
    fn deliver(
        &mut self,
        links: &mut Links,
        message: &Message<'_>,
        instance: u64,
        routed: Routed<'_>,
    ) -> Vec<Offered> {
        let ttl_ms = message.ttl_ms;
        let offer = |(slot, share)| {
            let place = match self.shared.gateway(slot, message.namespace) {
                Found::At(place) => place,
                Found::NotAllowed => return Offered::NotAllowed,
                Found::Gone => {
                    count(&self.counters.dropped_no_link, 1);
                    return Offered::NoLink;
                }
            };
            self.offer(links, &place, ttl_ms, |out| match share {
                Share::Uids(uids) => message.deliver_narrowed(instance, uids, ttl_ms, out),
                Share::Whole => message.deliver_whole(instance, ttl_ms, out),
            })
        };
        routed.parts().map(offer).collect()
    }
}

/// Why a message cannot be taken at all, if so.
fn refusal(message: &Message<'_>, permitted: bool) -> Option<ErrorCode> {
    if !permitted {
        return Some(ErrorCode::NOT_PERMITTED);
    }
    // Reports of gateways are not merged by this broker yet.
    let missing = support::missing_for(message).is_some() || message.level == Level::DELIVERED;
    missing.then_some(ErrorCode::NOT_SUPPORTED)
}

fn query<'a>(message: &Message<'a>) -> Query<'a> {
    Query {
        namespace: Namespace(message.namespace),
        audience: if message.everyone {
            Audience::Everyone
        } else {
            Audience::Uids(message.targets)
        },
        except: message.except,
        mode: match message.mode {
            Mode::BROADCAST => Lookup::Broadcast,
            Mode::AUTO => Lookup::Auto,
            _ => Lookup::Direct,
        },
    }
}

/// UIDs that no gateway took the frame for: those of whom one had no room, and those whose
/// gateways had all just gone.
#[derive(Default)]
struct Failed {
    dropped: BTreeSet<u64>,
    gone: BTreeSet<u64>,
}

fn failed(routed: Routed<'_>, offers: &[Offered]) -> Failed {
    let mut failed = Failed::default();
    if !offers.iter().any(|offered| matches!(offered, Offered::Full | Offered::NoLink)) {
        return failed;
    }
    let of = |wanted: Offered| {
        let parts = routed.parts().zip(offers).filter(move |(_, offered)| **offered == wanted);
        parts.flat_map(|((_, share), _)| match share {
            Share::Uids(uids) => uids,
            // There is no list to name anybody from; the ledger has the frame.
            Share::Whole => &[],
        })
    };
    let taken: BTreeSet<u64> = of(Offered::Taken).copied().collect();
    failed.dropped = of(Offered::Full).copied().filter(|uid| !taken.contains(uid)).collect();
    let settled = |uid: &u64| taken.contains(uid) || failed.dropped.contains(uid);
    failed.gone = of(Offered::NoLink).copied().filter(|uid| !settled(uid)).collect();
    failed
}

/// The UIDs of a set, each once, in the order of the PUBLISH (PUB-4).
fn in_order(message: &Message<'_>, mut set: BTreeSet<u64>) -> Vec<u64> {
    message.targets.iter().filter(|uid| set.remove(uid)).collect()
}

fn answer(part: &mut Part, message: &Message<'_>, routed: Routed<'_>, offers: &[Offered]) {
    let Failed { dropped, gone } = failed(routed, offers);
    let sent = routed.reached() - dropped.len() - gone.len();
    let mut offline = routed.offline();
    let merged: Vec<u64>;
    if !gone.is_empty() {
        merged = in_order(message, offline.iter().copied().chain(gone).collect());
        offline = &merged;
    }
    let dropped = if dropped.is_empty() { Vec::new() } else { in_order(message, dropped) };
    let sets = [
        (Fate::OFFLINE, ErrorCode(0), offline),
        (Fate::FILTERED, ErrorCode(0), routed.filtered()),
        (Fate::DROPPED, ErrorCode::OUTBOX_FULL, &dropped[..]),
    ];
    let mut named = [FateSet::default(); 3];
    let mut count = 0;
    for (fate, cause, uids) in sets {
        if !uids.is_empty() {
            named[count] = FateSet { fate, cause, uids: uids.into() };
            count += 1;
        }
    }
    let gateways = offers.iter().filter(|&&offered| offered == Offered::Taken).count();
    let receipt = Receipt {
        sent: length(sent),
        offline: length(offline.len()),
        unknown: length(routed.unresolved()),
        filtered: length(routed.filtered().len()),
        dropped: length(dropped.len()),
        gateways: length(gateways),
        fate_sets: (&named[..count]).into(),
        ..empty_receipt(message)
    };
    put_receipt(part, &receipt);
}

fn empty_receipt<'a>(message: &Message<'_>) -> Receipt<'a> {
    Receipt { last: true, stage: Level::ROUTED, sequence: message.sequence, ..Receipt::default() }
}

fn put_receipt(part: &mut Part, receipt: &Receipt<'_>) {
    part.put(&Frame::Receipt(*receipt));
}

/// Lists and slots are far fewer than 2^32.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

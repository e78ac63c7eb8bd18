//! What became of the users of a message when its frames were offered: the receipt of stage
//! `routed`.

use std::borrow::Cow;
use std::collections::BTreeSet;

use waybill_routing::{Part as Share, Routed};
use waybill_wire::code::{ErrorCode, Fate, Level};
use waybill_wire::frame::{FateSet, Receipt};
use waybill_wire::message::Message;

use super::Core;
use super::hops::Trace;
use super::link::Part;
use super::publish::{empty_receipt, hear_offers, length, taken};
use super::sending::Offered;
use crate::merge::Merge;

/// What became of the targets when the frames were offered.
pub(crate) struct Fates<'a> {
    pub(crate) sent: usize,
    /// No gateway had them, or those that had were all just gone.
    pub(crate) offline: Cow<'a, [u64]>,
    /// The except list names them, or no gateway that has them can have a match.
    pub(crate) filtered: Cow<'a, [u64]>,
    /// No gateway took the frame for them.
    pub(crate) dropped: Dropped,
}

/// Those whom no gateway took the frame for, by what the first of these was at one.
#[derive(Default)]
pub(crate) struct Dropped {
    /// The payload is too long for one frame, and the gateway takes no others.
    pub(crate) unsupported: Vec<u64>,
    /// It had no room.
    pub(crate) full: Vec<u64>,
    /// What waits there is too old.
    pub(crate) aged: Vec<u64>,
}

impl Dropped {
    /// How many they are.
    pub(crate) fn len(&self) -> usize {
        self.unsupported.len() + self.full.len() + self.aged.len()
    }
}

impl<'a> Fates<'a> {
    /// Whether some user may be neither sent to nor offline by what was offered.
    pub(super) fn are_mixed(offers: &[Offered]) -> bool {
        use Offered::{Aged, Full, NoLink, NotSupported};
        offers.iter().any(|it| matches!(it, Full | Aged | NoLink | NotSupported))
    }

    /// Those of a message whose users were judged one by one.
    pub(super) fn new(
        message: &Message<'_>,
        routed: Routed<'a>,
        (sent, offline, dropped): (usize, Vec<u64>, Dropped),
        there: Vec<u64>,
    ) -> Self {
        let filtered = with(message, filtered(message, routed), there);
        Self { sent, offline: Cow::Owned(offline), filtered, dropped }
    }

    #[inline]
    pub(crate) fn of(message: &Message<'_>, routed: Routed<'a>, offers: &[Offered]) -> Self {
        if Self::are_mixed(offers) {
            return Self::of_mixed(message, routed, offers);
        }
        let (offline, filtered) = (Cow::Borrowed(routed.offline()), filtered(message, routed));
        Self { sent: routed.reached(), offline, filtered, dropped: Dropped::default() }
    }

    #[cold]
    fn of_mixed(message: &Message<'_>, routed: Routed<'a>, offers: &[Offered]) -> Self {
        let (offline, filtered) = (Cow::Borrowed(routed.offline()), filtered(message, routed));
        let of = |wanted: fn(Offered) -> bool| {
            let parts = routed.parts().zip(offers).filter(move |(_, offered)| wanted(**offered));
            parts.flat_map(|((_, share), _)| match share {
                Share::Uids(uids) => uids,
                // There is no list to name anybody from; the ledger has the frame.
                Share::Whole => &[],
            })
        };
        let mut settled: BTreeSet<u64> = of(Offered::is_taken).copied().collect();
        // Of two causes the lower number counts (REP-6).
        let mut rest = |wanted: fn(Offered) -> bool| -> BTreeSet<u64> {
            of(wanted).copied().filter(|uid| settled.insert(*uid)).collect()
        };
        let unsupported = rest(|it| it == Offered::NotSupported);
        let full = rest(|it| it == Offered::Full);
        let aged = rest(|it| it == Offered::Aged);
        let gone = rest(|it| it == Offered::NoLink);
        let [unsupported, full, aged] = [unsupported, full, aged].map(|it| in_order(message, it));
        let dropped = Dropped { unsupported, full, aged };
        let sent = routed.reached() - dropped.len() - gone.len();
        // Who is at a gateway that can have no match is there all the same.
        let (there, gone): (Vec<u64>, Vec<u64>) =
            gone.into_iter().partition(|uid| routed.filtered_in_part().contains(uid));
        let offline = with(message, offline, gone);
        let filtered = with(message, filtered, there);
        Self { sent, offline, filtered, dropped }
    }

    /// Puts the receipt of stage `routed`, with the message's way so far if it is the last.
    pub(super) fn answer(
        &self,
        core: &Core,
        part: &mut Part,
        message: &Message<'_>,
        routed: Routed<'_>,
        offers: &[Offered],
        trace: Option<&Trace>,
    ) {
        let sets = [
            (Fate::OFFLINE, ErrorCode(0), &*self.offline),
            (Fate::FILTERED, ErrorCode(0), &*self.filtered),
            (Fate::DROPPED, ErrorCode::NOT_SUPPORTED, &self.dropped.unsupported[..]),
            (Fate::DROPPED, ErrorCode::OUTBOX_FULL, &self.dropped.full[..]),
            (Fate::DROPPED, ErrorCode::OUTBOX_AGE, &self.dropped.aged[..]),
        ];
        let mut named = [FateSet::default(); 5];
        let mut count = 0;
        for (fate, cause, uids) in sets {
            if !uids.is_empty() {
                named[count] = FateSet { fate, cause, uids: uids.into() };
                count += 1;
            }
        }
        let receipt = Receipt {
            last: message.level == Level::ROUTED,
            sent: length(self.sent),
            offline: length(self.offline.len()),
            unknown: length(routed.unresolved()),
            filtered: length(self.filtered.len()),
            dropped: length(self.dropped.len()),
            gateways: taken(offers),
            fate_sets: (&named[..count]).into(),
            ..empty_receipt(message)
        };
        core.put_receipt(part, receipt, trace);
    }

    /// What is known already at the level `delivered`, when the parts have been offered.
    pub(super) fn settle(merge: &mut Merge, routed: Routed<'_>, offers: &[Offered]) {
        merge.settle(routed.offline(), Fate::OFFLINE, ErrorCode(0));
        merge.settle(routed.filtered(), Fate::FILTERED, ErrorCode(0));
        // A word of gateways that were not asked (REP-6).
        merge.settle(routed.filtered_in_part(), Fate::FILTERED, ErrorCode(0));
        hear_offers(merge, offers);
    }
}

/// UIDs that nobody was asked for, in the order of the PUBLISH.
#[inline]
fn filtered<'a>(message: &Message<'_>, routed: Routed<'a>) -> Cow<'a, [u64]> {
    let filtered = routed.filtered();
    if message.selector.is_none() || message.except.is_empty() {
        return Cow::Borrowed(filtered);
    }
    Cow::Owned(in_order(message, filtered.iter().copied().collect()))
}

/// More of them, in the order of the PUBLISH.
fn with<'a>(message: &Message<'_>, uids: Cow<'a, [u64]>, more: Vec<u64>) -> Cow<'a, [u64]> {
    if more.is_empty() {
        return uids;
    }
    Cow::Owned(in_order(message, uids.iter().copied().chain(more).collect()))
}

/// The UIDs of a set, each once, in the order of the PUBLISH (PUB-4).
fn in_order(message: &Message<'_>, mut set: BTreeSet<u64>) -> Vec<u64> {
    message.targets.iter().filter(|uid| set.remove(uid)).collect()
}

//! What it costs to get a message there, by each mode: a model, so that `auto` can choose before
//! anything is looked up.
//!
//! Counted is what differs between the modes: work of the broker, bytes on links, and work of
//! gateways until they know who gets it. One nanosecond is worth the same anywhere. What is not
//! known is assumed: half of a list's users are there, each at one gateway and these at as many
//! gateways as there can be; half of the gateways may match a selector.
//!
//! The constants are of micro benches (`waybill-micro`, named beside each: one run of all, nothing
//! else running, docs/decisions/0019), and of the relay of the load bench for what a frame and a
//! byte cost on a socket. Their ratios matter, not their size.

use crate::slots::SlotsView;
use crate::space::Space;
use crate::{Audience, Mode, Query};

/// A UID looked up by the broker, grouped and written: `routing/lookup 1000/1000000`.
const LOOK_UP_NS: u64 = 14;

/// A UID of a list that is not looked up: `selector/list broadcast`.
const LISTED_NS: u64 = 2;

/// A term looked up in the tags and evaluated: what `selector/gateways 16 terms` takes more than `1
/// term`, by term.
const TERM_NS: u64 = 40;

/// A frame encoded, beside its bytes: `wire/encode DELIVER/1`, and 36 ns for its part of a system
/// call.
const FRAME_NS: u64 = 9 + 36;

/// A frame taken up by a gateway, beside its bytes: `wire/decode DELIVER/1`, and the same part.
const GATEWAY_FRAME_NS: u64 = 30 + 36;

/// A UID looked up by a gateway: `selector/hub targets`.
const GATEWAY_UID_NS: u64 = 120;

/// A connection asked whether it matches: `selector/match 3 terms`.
const GATEWAY_MATCH_NS: u64 = 9;

/// A thousand bytes written and read again: what 1,024 bytes cost a relay more than 128.
const LINK_KILOBYTE_NS: u64 = 375;

/// What one mode costs, estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cost {
    /// Gateways that get a frame.
    pub gateways: u64,
    /// Work of the broker, in nanoseconds of a core.
    pub broker_ns: u64,
    /// Bytes on links to gateways.
    pub link_bytes: u64,
    /// Work of all gateways together, in nanoseconds of a core.
    pub gateway_ns: u64,
}

impl Cost {
    /// All of it in nanoseconds of a core.
    #[must_use]
    pub fn total_ns(self) -> u64 {
        self.broker_ns + self.gateway_ns + self.link_bytes * LINK_KILOBYTE_NS / 1_000
    }
}

/// What `auto` takes for a message, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// [`Mode::Direct`] or [`Mode::Broadcast`].
    pub mode: Mode,
    /// Whether the fates of the message's users are asked for, so that it is direct whatever it
    /// costs.
    pub fates_asked: bool,
    /// What it would cost by [`Mode::Direct`].
    pub direct: Cost,
    /// What it would cost by [`Mode::Broadcast`].
    pub broadcast: Cost,
}

/// What a message is, and where it could go.
struct Load {
    targets: u64,
    listed: bool,
    except: u64,
    terms: u64,
    bytes: u64,
    /// Gateways that answer, and those of them with a user in the namespace.
    gateways: u64,
    inhabited: u64,
    /// Users there, each as often as there are gateways that have it.
    users: u64,
}

/// The cheaper mode for this message.
pub(crate) fn weigh(query: &Query<'_>, slots: &SlotsView, space: Option<&Space>) -> Choice {
    let load = Load::of(query, slots, space);
    let (direct, broadcast) = (load.direct(), load.broadcast());
    let is_cheaper = broadcast.total_ns() < direct.total_ns();
    let mode = match is_cheaper && !query.fates_asked {
        true => Mode::Broadcast,
        false => Mode::Direct,
    };
    Choice { mode, fates_asked: query.fates_asked, direct, broadcast }
}

impl Load {
    fn of(query: &Query<'_>, slots: &SlotsView, space: Option<&Space>) -> Self {
        let (listed, targets) = match query.audience {
            Audience::Uids(uids) => (true, uids.len() as u64),
            Audience::Everyone => (false, 0),
        };
        let gateways = slots.count(query.selector.is_some());
        Self {
            targets,
            listed,
            except: query.except.len() as u64,
            terms: query.selector.map_or(0, |selector| selector.terms() as u64),
            bytes: query.bytes as u64,
            gateways,
            inhabited: space.map_or(0, |space| space.inhabited().len() as u64).min(gateways),
            users: space.map_or(0, |space| space.routes() as u64),
        }
    }

    fn direct(&self) -> Cost {
        // In quarters, as half of a half is left of users and gateways that are not known.
        let matching = if self.terms > 0 { 2 } else { 4 };
        let (uids, gateways, looked_up_ns) = match self.listed {
            true if self.inhabited == 0 => (0, 0, self.targets * LOOK_UP_NS),
            true => {
                let there = self.targets * matching / 2;
                let ns = self.targets * LOOK_UP_NS + self.except * LISTED_NS;
                (there, there.min(matching * self.inhabited), ns)
            }
            // Nobody is looked up, so that the except list is passed on.
            false => (matching * self.inhabited * self.except, matching * self.inhabited, 0),
        };
        let asked = self.asked(gateways, uids);
        let at_gateways =
            gateways * GATEWAY_FRAME_NS + uids * GATEWAY_UID_NS + asked * GATEWAY_MATCH_NS;
        Cost {
            gateways: gateways.div_ceil(4),
            broker_ns: looked_up_ns + self.terms * TERM_NS + gateways * FRAME_NS / 4,
            link_bytes: (gateways * self.bytes + 8 * uids) / 4,
            gateway_ns: at_gateways / 4,
        }
    }

    fn broadcast(&self) -> Cost {
        let uids = self.targets + self.except;
        Cost {
            gateways: self.gateways,
            broker_ns: uids * LISTED_NS + self.gateways * FRAME_NS,
            link_bytes: self.gateways * (self.bytes + 8 * uids),
            gateway_ns: self.gateways * (GATEWAY_FRAME_NS + uids * GATEWAY_UID_NS)
                + self.asked(self.inhabited, self.targets.div_ceil(2)) * GATEWAY_MATCH_NS,
        }
    }

    /// Connections that gateways ask whether they match: those of listed users that are there,
    /// otherwise all that these gateways have.
    fn asked(&self, gateways: u64, listed: u64) -> u64 {
        match (self.terms, self.listed) {
            (0, _) => 0,
            (_, true) => listed,
            (_, false) => self.users * gateways / self.inhabited.max(1),
        }
    }
}

//! How large a world is explored, how often each fault may strike in it, and which rule is broken.

use waybill_routing::{Login, Policies};

/// A rule that can be broken, to see that the model notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rule {
    /// A resume is believed without comparing digests.
    StaleDigest,
    /// A removal takes its route away only when the next frame comes.
    LateRemove,
    /// The lower login number wins.
    LowerWins,
    /// Logins of suspended slots still contend.
    SuspendedContend,
    /// The snapshot that ends last wins, not the link whose HELLO came last.
    OlderWins,
    /// A snapshot kills the slot it will replace when it begins.
    GapAtSwap,
    /// A swap lets the new slot's logins contend before the old slot's are gone.
    AddsBeforeRemoves,
    /// An older link's end takes whatever its incarnation has standing.
    EndByIncarnation,
    /// A session may be resumed while its older link is open.
    ResumeWhileOpen,
    /// The resumed slot answers first and is told afterwards what it missed.
    LiveBeforeResume,
}

/// A world. Each number is an upper bound over a whole run; every order of events within them is
/// explored.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) gateways: usize,
    pub(crate) brokers: usize,
    pub(crate) logins: Vec<Login>,
    pub(crate) policies: Policies,
    pub(crate) bounds: Bounds,
    pub(crate) broken: Option<Rule>,
}

/// How often things may happen. `faults` bounds cuts, leaves, deaths and restarts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bounds {
    /// Users log out of their own accord.
    pub(crate) logouts: u8,
    /// Logins that come again after they have gone.
    pub(crate) returns: u8,
    pub(crate) faults: u8,
    /// Links that end at the gateway, or at the broker.
    pub(crate) cuts: u8,
    /// Links that end with SUSPEND.
    pub(crate) leaves: u8,
    /// Gateway processes that die and return.
    pub(crate) deaths: u8,
    /// Brokers that die and return.
    pub(crate) restarts: u8,
    /// RESUMED that a gateway answers with a snapshot although it could resume.
    pub(crate) forgets: u8,
}

impl Scenario {
    pub(crate) fn breaks(&self, rule: Rule) -> bool {
        self.broken == Some(rule)
    }

    /// A login as it is entered into the contest.
    pub(crate) fn contender(&self, index: usize) -> Login {
        self.seen(self.logins[index])
    }

    /// Between a login and how the contest sees it, both ways.
    pub(crate) fn seen(&self, login: Login) -> Login {
        let upside_down = self.breaks(Rule::LowerWins);
        Login { number: if upside_down { u64::MAX - login.number } else { login.number }, ..login }
    }
}

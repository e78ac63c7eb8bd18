//! The oracle: what must hold of a broker after every step, of every step, and in quiet.
//!
//! It looks at answers of the real route table and at what gateways say they declared, never at how
//! the rules came to it.

use std::collections::BTreeSet;

use waybill_routing::{
    Audience, Login, Namespace, Part, Plan, Policy, Query, Slot, fuzzing::uid_bytes,
};
use waybill_wire::code::ErrorCode;
use waybill_wire::targets::UidRun;

use crate::broker::{Broker, Effects, Served};
use crate::frames::{Up, Users};
use crate::scenario::Scenario;

/// What went wrong. It ends the run that shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// A route answered of a slot that no open link has live, or of a user it did not declare.
    FalseRoute,
    /// A declared user of a live link had no route.
    MissingRoute,
    /// A live slot held something else than its gateway says it declared.
    NotAsDeclared,
    /// Digest and registrations did not agree.
    Digest,
    /// A route was lost in a step that takes no route away.
    Vanished,
    /// Somebody was told to go who need not.
    WronglyDisplaced,
    /// A gateway that keeps the rules was refused.
    Refused,
}

/// A route as publishers meet it.
type Answer = (Slot, u64);

/// (incarnation, UID) of every user that a publish to this broker reaches now.
pub(crate) fn reached(scenario: &Scenario, broker: &Broker) -> BTreeSet<(u64, u64)> {
    let incarnation = |slot| {
        let found = broker.links.iter().find(|link| link.session.slot == slot);
        found.map(|link| link.session.incarnation)
    };
    let found = answers(scenario, broker).into_iter();
    found.filter_map(|(slot, uid)| Some((incarnation(slot)?, uid))).collect()
}

fn answers(scenario: &Scenario, broker: &Broker) -> BTreeSet<Answer> {
    let bytes = uid_bytes(scenario.logins.iter().map(|login| login.uid.0));
    let audience = Audience::Uids(UidRun::new(&bytes).expect("whole UIDs"));
    let query = Query::new(Namespace(1), audience);
    let mut plan = Plan::new();
    broker.routes.resolve(&[query], &mut plan);
    let parts = plan.routed(0).parts();
    parts
        .flat_map(|(slot, part)| match part {
            Part::Uids(uids) => uids.iter().map(|uid| (slot, *uid)).collect::<Vec<_>>(),
            Part::Whole => unreachable!("the query has a list"),
        })
        .collect()
}

fn uids(scenario: &Scenario, users: Users) -> BTreeSet<u64> {
    users.iter().map(|index| scenario.logins[index].uid.0).collect()
}

/// What must hold whenever nothing is being done.
pub(crate) fn standing(scenario: &Scenario, broker: &Broker) -> Option<Fault> {
    let answers = answers(scenario, broker);
    let live = || broker.links.iter().filter(|link| link.is_live());
    let declared: BTreeSet<Answer> = live()
        .flat_map(|link| {
            uids(scenario, link.session.all).into_iter().map(|uid| (link.session.slot, uid))
        })
        .collect();
    if !answers.is_subset(&declared) {
        return Some(Fault::FalseRoute);
    }
    if answers != declared {
        return Some(Fault::MissingRoute);
    }
    if live().any(|link| link.session.held != link.session.all) {
        return Some(Fault::NotAsDeclared);
    }
    let mut sessions = broker.links.iter().map(|link| &link.session).chain(&broker.kept);
    let agrees = sessions.all(|held| held.held.digest(&scenario.logins) == held.digest());
    (!agrees).then_some(Fault::Digest)
}

/// What must hold of a step in which a link's frame was handled.
pub(crate) fn step(
    scenario: &Scenario,
    before: &Broker,
    after: &Broker,
    link: Option<&Served>,
    frame: &Up,
    effects: &Effects,
    outcome: Result<(), ErrorCode>,
) -> Option<Fault> {
    if outcome.is_err_and(|code| code != ErrorCode::SUPERSEDED) {
        return Some(Fault::Refused);
    }
    let place = |served: &Served| {
        before
            .links
            .iter()
            .position(|it| it.serial == served.serial && it.gateway == served.gateway)
    };
    let takes_away = |incarnation: u64, uid: u64| {
        let of = |it: &&Served| it.is_live() && it.session.incarnation == incarnation;
        // An older link takes nothing from a newer one.
        let live = before.links.iter().rposition(|it| of(&it));
        let own =
            link.is_some_and(|link| link.session.incarnation == incarnation && place(link) >= live);
        own && match frame {
            Up::Suspend => true,
            Up::Delta { all, .. } | Up::Snapshot { last: true, all, .. } => {
                !uids(scenario, *all).contains(&uid)
            }
            _ => false,
        }
    };
    lost(scenario, before, after, takes_away).or_else(|| displaced(scenario, after, effects))
}

/// What must hold of a step in which a link ended: nobody else's users go.
pub(crate) fn ended(
    scenario: &Scenario,
    before: &Broker,
    after: &Broker,
    link: Option<&Served>,
) -> Option<Fault> {
    let live = link.filter(|link| link.is_live());
    let takes_away = |incarnation: u64, uid: u64| {
        live.is_some_and(|link| {
            link.session.incarnation == incarnation
                && uids(scenario, link.session.held).contains(&uid)
        })
    };
    lost(scenario, before, after, takes_away)
}

fn lost(
    scenario: &Scenario,
    before: &Broker,
    after: &Broker,
    takes_away: impl Fn(u64, u64) -> bool,
) -> Option<Fault> {
    let left = reached(scenario, after);
    let mut gone = reached(scenario, before).into_iter().filter(|user| !left.contains(user));
    gone.any(|(incarnation, uid)| !takes_away(incarnation, uid)).then_some(Fault::Vanished)
}

/// Only a lower login is told to go, by the highest that stands here, and each by its own link.
fn displaced(scenario: &Scenario, after: &Broker, effects: &Effects) -> Option<Fault> {
    let standing = || {
        let live = after.links.iter().filter(|link| link.is_live());
        live.flat_map(|link| link.session.held.iter().map(move |index| (link.session.slot, index)))
    };
    let right = effects.displaced.iter().all(|lost| {
        let rivals = standing().map(|(_, index)| scenario.logins[index]);
        let highest = rivals
            .filter(|rival| contend(scenario, *rival, lost.login))
            .map(|rival| rival.number)
            .max();
        lost.winner > lost.login.number
            && highest == Some(lost.winner)
            && standing()
                .any(|(slot, index)| (slot, scenario.logins[index]) == (lost.slot, lost.login))
    });
    let told = effects.downs.len() >= effects.displaced.len();
    (!right || !told).then_some(Fault::WronglyDisplaced)
}

/// Whether two logins exclude each other.
pub(crate) fn contend(scenario: &Scenario, a: Login, b: Login) -> bool {
    (a.namespace, a.uid) == (b.namespace, b.uid)
        && match scenario.policies.of(a.namespace) {
            Policy::All => false,
            Policy::OnePerDeviceClass => a.device_class == b.device_class,
            Policy::One => true,
        }
}

/// Everything is told and in effect: each broker reaches exactly the gateways' users.
pub(crate) fn complete(scenario: &Scenario, broker: &Broker, users: &[(u64, Users)]) -> bool {
    let wanted: BTreeSet<(u64, u64)> = users
        .iter()
        .flat_map(|(incarnation, users)| {
            uids(scenario, *users).into_iter().map(|uid| (*incarnation, uid))
        })
        .collect();
    reached(scenario, broker) == wanted
}

/// No two logins that exclude each other stand with different numbers.
pub(crate) fn settled(scenario: &Scenario, users: Users) -> bool {
    let logins: Vec<Login> = users.iter().map(|index| scenario.logins[index]).collect();
    logins.iter().all(|a| logins.iter().all(|b| !contend(scenario, *a, *b) || a.number == b.number))
}

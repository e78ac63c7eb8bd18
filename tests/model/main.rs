//! Model checking of what gateways declare: registration, resume and displacement, in every order.
//!
//! The rules run for real where they are values: the route table, the logins, the digest and the
//! registration machine of the wire are those of the product. What is around them, the order of
//! calls in a broker's shard and in a gateway's link, is written again in `broker.rs` and
//! `gateway.rs`, as the contract has it (chapter 6), small enough to be compared by reading.
//!
//! A world has gateways, brokers and users that log in, each login at one gateway at a time. Every
//! frame is processed in a step of its own, every failure is a step, and all orders of steps are
//! explored. What makes it finite ([`Bounds`](scenario::Bounds)): each login comes once (and
//! `returns` times more in all), users log out of their own accord `logouts` times, and `faults`
//! cuts, leaves, deaths and restarts happen in all. Reconnecting, answering and displacing are not
//! bounded: that a world is finite shows that they end.
//!
//! What is taken together, and why nothing is lost by it:
//! - DELTA, or a snapshot's last frame, and the BARRIER after it: nothing may stand between them
//!   that concerns the broker, and a BARRIER changes nothing. WELCOME with the flag and RESUMED
//!   likewise.
//! - IN_EFFECT reaches the gateway at once: later it would only keep versions in the gateway's
//!   memory that no RESUMED asks for.
//! - The end of a link and the next HELLO: a connection that is made late looks like a HELLO that
//!   is long on its way.
//! - Dead slots are swept by one step of budget after each step of their broker: half swept in
//!   between. Other paces are left to the oracle of the route table.
//! - The first login is at the first gateway, and of two worlds that differ by the names of the
//!   brokers one is explored: gateways are alike, and so are brokers.
//!
//! A gateway sends what it has to tell at once, so changes are never folded into one DELTA while
//! the link is up; while it is down they are. States are told apart by 64-bit fingerprints.

mod broker;
mod check;
mod frames;
mod gateway;
mod mutants;
mod part;
mod scenario;
mod world;

use std::time::Instant;

use frames::login;
use scenario::{Bounds, Scenario};
use stateright::{Checker, Model};
use waybill_routing::{Login, Policies, Policy};
use world::World;

/// One user: a lower login, and two that tie, on two kinds of device.
fn rivals() -> (Vec<Login>, Policies) {
    let logins = vec![login(7, 0, 1), login(7, 0, 2), login(7, 1, 2)];
    (logins, Policies::new([], Policy::One))
}

/// Two that contend by class, and a third of the same user that does not.
fn classes() -> (Vec<Login>, Policies) {
    let logins = vec![login(7, 0, 1), login(7, 0, 2), login(7, 1, 1)];
    (logins, Policies::new([], Policy::OnePerDeviceClass))
}

/// One login of one user against another, and a bystander.
fn bystander() -> (Vec<Login>, Policies) {
    let logins = vec![login(7, 0, 1), login(7, 0, 2), login(8, 0, 1)];
    (logins, Policies::new([], Policy::One))
}

/// One fault of any kind.
const ONE_FAULT: Bounds = Bounds {
    logouts: 0,
    returns: 0,
    faults: 1,
    cuts: 1,
    leaves: 1,
    deaths: 1,
    restarts: 1,
    forgets: 0,
};

/// No fault at all.
const CALM: Bounds = Bounds { faults: 0, ..ONE_FAULT };

fn scenario(
    brokers: usize,
    (logins, policies): (Vec<Login>, Policies),
    bounds: Bounds,
) -> Scenario {
    Scenario { gateways: 2, brokers, logins, policies, bounds, broken: None }
}

/// Explores all of it: no counterexample, and, with faults, everything worth seeing was seen.
#[expect(clippy::print_stderr, reason = "the size of what was explored is the result")]
fn explore(name: &str, scenario: Scenario) {
    let started = Instant::now();
    let all_seen = scenario.bounds.faults > 0;
    let checker =
        scenario.checker().threads(2).symmetry_fn(World::representative).spawn_dfs().join();
    eprintln!(
        "{name}: {} states, {} steps, up to {} deep, {:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        started.elapsed()
    );
    for failure in [world::NO_FAULT, world::NEVER_STUCK, world::COMPLETE, world::SETTLED] {
        if let Some(path) = checker.discovery(failure) {
            let fault = path.last_state().fault;
            panic!("{name}: not true that {failure}: {fault:?} by {:#?}", path.into_actions());
        }
    }
    if all_seen {
        checker.assert_properties();
    }
}

#[test]
fn promise_8_two_gateways_and_a_broker_survive_any_one_fault_at_any_point() {
    explore("2 x 1 x 3, one fault", scenario(1, rivals(), ONE_FAULT));
}

#[test]
fn promise_8_two_gateways_two_brokers_and_a_logout_without_faults() {
    explore("2 x 2 x 3, calm", scenario(2, rivals(), Bounds { logouts: 1, ..CALM }));
}

#[test]
#[ignore = "millions of states: cargo test --release --test model -- --ignored --nocapture"]
fn promise_8_two_gateways_and_two_brokers_survive_any_one_fault_at_any_point() {
    explore("2 x 2 x 3, one fault", scenario(2, rivals(), ONE_FAULT));
}

#[test]
#[ignore = "millions of states: cargo test --release --test model -- --ignored --nocapture"]
fn promise_8_two_gateways_and_a_broker_survive_two_cuts_or_a_cut_and_a_death() {
    let bounds = Bounds { faults: 2, cuts: 2, leaves: 0, restarts: 0, ..ONE_FAULT };
    explore("2 x 1 x 3, two cuts or a cut and a death", scenario(1, bystander(), bounds));
}

#[test]
#[ignore = "millions of states: cargo test --release --test model -- --ignored --nocapture"]
fn promise_8_users_that_leave_and_return_and_classes_that_do_not_contend() {
    let bounds = Bounds { logouts: 1, returns: 1, forgets: 1, ..ONE_FAULT };
    explore("2 x 1 x 3, returns", scenario(1, classes(), bounds));
}

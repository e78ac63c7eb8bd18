//! Tests of the test: each rule, when it is broken, is found out.

use stateright::{Checker, HasDiscoveries, Model};

use crate::check::Fault;
use crate::scenario::{Bounds, Rule, Scenario};
use crate::{CALM, ONE_FAULT, rivals, scenario, world};

/// The shortest way to show what a broken rule leads to.
#[track_caller]
fn found(rule: Rule, scenario: Scenario, property: &str, fault: Option<Fault>) {
    let scenario = Scenario { broken: Some(rule), ..scenario };
    let found = HasDiscoveries::AnyFailures;
    let checker = scenario.checker().finish_when(found).spawn_bfs().join();
    let mut failures = checker.discoveries();
    failures.retain(|name, _| {
        [world::NO_FAULT, world::NEVER_STUCK, world::COMPLETE, world::SETTLED].contains(name)
    });
    let path = failures.remove(property);
    let path = path.unwrap_or_else(|| panic!("{rule:?} was not found out: {failures:?}"));
    let got = path.last_state().fault;
    assert_eq!(got, fault, "{rule:?} by {:#?}", path.into_actions());
}

const TWO_CUTS: Bounds =
    Bounds { logouts: 1, faults: 2, cuts: 2, deaths: 0, restarts: 0, leaves: 0, ..ONE_FAULT };

/// One gateway and two logins are enough for most.
fn alone(bounds: Bounds) -> Scenario {
    let mut scenario = Scenario { gateways: 1, ..scenario(1, rivals(), bounds) };
    scenario.logins.truncate(2);
    scenario
}

#[test]
fn finds_stale_digest() {
    found(Rule::StaleDigest, alone(TWO_CUTS), world::NO_FAULT, Some(Fault::MissingRoute));
}

#[test]
fn finds_late_remove() {
    found(
        Rule::LateRemove,
        scenario(1, rivals(), Bounds { logouts: 1, ..CALM }),
        world::NO_FAULT,
        Some(Fault::FalseRoute),
    );
}

#[test]
fn finds_lower_wins() {
    found(
        Rule::LowerWins,
        scenario(1, rivals(), CALM),
        world::NO_FAULT,
        Some(Fault::WronglyDisplaced),
    );
}

#[test]
fn finds_suspended_contend() {
    found(
        Rule::SuspendedContend,
        scenario(1, rivals(), ONE_FAULT),
        world::NO_FAULT,
        Some(Fault::WronglyDisplaced),
    );
}

#[test]
fn finds_older_wins() {
    found(Rule::OlderWins, alone(TWO_CUTS), world::NO_FAULT, Some(Fault::Vanished));
}

#[test]
fn finds_gap_at_swap() {
    found(Rule::GapAtSwap, alone(ONE_FAULT), world::NO_FAULT, Some(Fault::Vanished));
}

#[test]
fn finds_adds_before_removes() {
    found(Rule::AddsBeforeRemoves, alone(TWO_CUTS), world::NO_FAULT, Some(Fault::WronglyDisplaced));
}

#[test]
fn finds_end_by_incarnation() {
    found(Rule::EndByIncarnation, alone(TWO_CUTS), world::NO_FAULT, Some(Fault::Vanished));
}

#[test]
fn finds_resume_while_open() {
    found(Rule::ResumeWhileOpen, alone(ONE_FAULT), world::NO_FAULT, Some(Fault::MissingRoute));
}

#[test]
fn finds_live_before_resume() {
    found(Rule::LiveBeforeResume, alone(ONE_FAULT), world::NO_FAULT, Some(Fault::FalseRoute));
}

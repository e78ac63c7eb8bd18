//! Scenarios that cannot be, and what is said about them; and that those we have can.

use super::*;

const WHOLE: &str = r#"
title = "One user a message"
kind = "throughput"
work = "single"
targets = ["waybill"]
users = [1000]
gateways = [8]
payload_bytes = [16, 128]
repeats = 3
seconds = 1.5
"#;

fn refusal(change: &str) -> String {
    let key = change.split(" =").next().unwrap();
    let kept = WHOLE.lines().filter(|line| !line.starts_with(&format!("{key} =")));
    let text = kept.chain([change]).collect::<Vec<_>>().join("\n");
    Scenario::parse(&text).expect_err(change).to_string()
}

#[test]
fn a_whole_one_is_read() {
    let scenario = Scenario::parse(WHOLE).unwrap();
    assert_eq!(scenario.cases().len(), 2);
    assert_eq!(scenario.window_of(scenario.cases()[0]), 32_768);
    let large = Case { payload_bytes: 1024, ..scenario.cases()[0] };
    assert_eq!(scenario.window_of(large), (4 << 20) / 1032);
}

#[test]
fn values_vary_one_at_a_time_unless_all_combinations_are_asked_for() {
    let sized = WHOLE.replace("users = [1000]", "users = [1000, 5000, 9000]");
    let cases = |text: &str| -> Vec<_> {
        let cases = Scenario::parse(text).unwrap().cases();
        cases.into_iter().map(|case| (case.users, case.payload_bytes)).collect()
    };
    assert_eq!(cases(&sized), [(1000, 16), (1000, 128), (5000, 16), (9000, 16)]);
    assert_eq!(cases(&(sized + "variants = \"all\"\n")).len(), 6);
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    for (text, key) in [
        ("sconds = 3", "sconds"),
        ("[[assert]]\nfigure = \"lost\"\nat_msot = 0", "at_msot"),
        ("[shares]\nsingle = 1\ngroup = 1\nbroadcast = 1\nall = 1", "all"),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(&format!("unknown field `{key}`")), "{refused}");
    }
}

#[test]
fn a_value_that_cannot_be_is_refused_with_its_key() {
    for (text, words) in [
        ("users = []", "users: is empty"),
        ("users = [0]", "users: 0 is not at least 1"),
        ("gateways = [65]", "gateways: 65 is not in 1..=64"),
        ("payload_bytes = [15]", "payload_bytes: 15 is less than 16"),
        ("seconds = 0.0", "seconds: 0 is not above 0"),
        ("seconds = nan", "seconds: NaN is not above 0"),
        ("repeats = 0", "repeats: 0 is not at least 1"),
        ("work = \"mixed\"", "shares: is missing"),
        ("work = \"multi\"", "multi"),
        ("kind = \"latency\"", "rates: is missing"),
        ("rates = [1000.0]", "rates: is for kind = \"latency\" only"),
        ("shares = { single = 1, group = 0, broadcast = 0 }", "shares: is for work = \"mixed\""),
        ("allowed = { redis = [\"lots\"] }", "allowed: \"lots\" is no fault; these are: lost"),
        ("assert = [{ figure = \"lost\" }]", "assert: lost has neither at_most nor at_least"),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(words), "{text}: {refused}");
    }
}

#[test]
fn a_rate_that_cannot_be_is_refused() {
    let text = |rates: &str| {
        let whole = WHOLE.replace("throughput", "latency");
        Scenario::parse(&format!("{whole}\nrates = {rates}"))
    };
    assert_eq!(text("[0.5]").unwrap_err().to_string(), "rates: 0.5 is not at least 1 per second");
    let refused = text("[{ share = 1.5 }]").unwrap_err().to_string();
    assert_eq!(refused, "rates: share 1.5 is not between 0 and 1");
    let scenario = text("[10000.0, { share = 0.5 }, { share = 0.8, of = \"waybill\" }]").unwrap();
    let asked: Vec<String> = scenario.rates.iter().map(RatePlan::asked).collect();
    assert_eq!(asked, ["10000/s", "50% of capacity", "80% of capacity of waybill"]);
}

#[test]
fn a_group_larger_than_the_users_is_refused_also_from_the_command_line() {
    let whole = WHOLE.replace("\"single\"", "\"group\"");
    let scenario = Scenario::parse(&whole).unwrap();
    let overrides = Overrides { users: Some(999), ..Overrides::default() };
    let refused = scenario.with(&overrides).unwrap_err().to_string();
    assert_eq!(refused, "group_uids: 1000 users cannot be drawn once each from 999");
}

#[test]
fn a_check_is_short_and_keeps_the_work() {
    let overrides = Overrides { check: true, ..Overrides::default() };
    for loaded in list().unwrap() {
        let before = loaded.scenario.clone();
        let after = loaded.scenario.with(&overrides).unwrap();
        assert_eq!((after.work, after.kind), (before.work, before.kind), "{}", loaded.name);
        assert!(after.users.iter().all(|users| *users <= CHECK_USERS) && after.repeats == 1);
    }
}

#[test]
fn every_scenario_names_targets_there_are_and_requires_that_nobody_is_left_out() {
    let all = list().unwrap();
    assert!(!all.is_empty());
    for Loaded { name, scenario, .. } in all {
        // Where nothing is published, users connect.
        let silent = ["idle", "storm"].contains(&name.as_str());
        let figure = if silent { fault::REFUSED } else { fault::LOST };
        let required = |it: &Requirement| it.figure == figure && it.at_most == Some(0.0);
        assert!(scenario.assert.iter().any(required), "{name} does not require {figure} = 0");
        crate::targets::named(&scenario.targets).unwrap_or_else(|no| panic!("{name}: {no}"));
    }
}

fn row(target: &str, value: f64) -> Row {
    let text = format!(
        r#"{{"target": "{target}", "driven": "", "repeat": 0, "order": 0, "ok": true, "users": 1,
            "variant": {{"payload_bytes": 16, "users": 1, "gateways": 1, "rate": null}},
            "faults": [], "marks": [], "figures": {{"setup_s": {value}}}, "notes": []}}"#
    );
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_requirement_is_about_every_row_of_its_target() {
    let of = |text: &str| toml::from_str::<Requirement>(text).unwrap();
    let rows = [row("a", 1.0), row("a", 2.0), row("b", 9.0)];
    let most = of("figure = \"setup_s\"\ntarget = \"a\"\nat_most = 2");
    assert!(most.holds(&rows));
    assert_eq!(most.to_string(), "a: setup_s is at most 2");
    assert!(!of("figure = \"setup_s\"\nat_most = 2").holds(&rows));
    assert!(!of("figure = \"setup_s\"\nat_least = 1.5").holds(&rows));
    assert!(!of("figure = \"no_such\"\nat_least = 0").holds(&rows), "not measured is not held");
    let lost = of("figure = \"lost\"\nat_most = 0");
    assert!(lost.holds(&rows));
    let mut spoiled = rows.to_vec();
    let example = "message 7".into();
    spoiled[1].faults.push(crate::tally::Fault { name: "lost".into(), count: 1, example });
    assert!(!lost.holds(&spoiled));
    assert_eq!(lost.to_string(), "lost = 0");
}

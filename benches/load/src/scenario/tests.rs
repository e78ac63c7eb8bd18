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
        ("users = [0]", "users: 0 is not in 1..=1000000000"),
        ("users = [1_000_000_001]", "users: 1000000001 is not in 1..="),
        ("users = [1000, 2000, 1000]", "users: 1000 is there twice"),
        ("gateways = [8, 8]", "gateways: 8 is there twice"),
        ("payload_bytes = [16, 16]", "payload_bytes: 16 is there twice"),
        ("targets = [\"waybill\", \"waybill\"]", "targets: waybill is there twice"),
        ("targets = [\"waybil\"]", "targets: there is no target \"waybil\"; there are waybill,"),
        ("gateways = [65]", "gateways: 65 is not in 1..=64"),
        ("payload_bytes = [15]", "payload_bytes: 15 is not in 16..=1048576"),
        ("payload_bytes = [1_048_577]", "payload_bytes: 1048577 is not in 16..=1048576"),
        ("group_uids = 4097", "group_uids: 4097 is not in 1..=4096"),
        ("groups = 100_001", "groups: 100001 is not in 1..=100000"),
        ("seconds = 0.0", "seconds: 0 is not above 0"),
        ("seconds = nan", "seconds: NaN is not above 0"),
        ("repeats = 0", "repeats: 0 is not in 1..=10000"),
        ("repeats = 10_001", "repeats: 10001 is not in 1..=10000"),
        ("window = 0", "window: 0 is not at least 1"),
        ("work = \"mixed\"", "shares: is missing"),
        ("work = \"multi\"", "multi"),
        ("kind = \"latency\"", "rates: is missing"),
        ("rates = [1000.0]", "rates: is for kind = \"latency\" only"),
        ("shares = { single = 1, group = 0, broadcast = 0 }", "shares: is for work = \"mixed\""),
        ("allowed = { waybill = [\"lots\"] }", "allowed: \"lots\" is no fault; these are: lost"),
        ("allowed = { rediss = [\"lost\"] }", "allowed: there is no target \"rediss\""),
    ] {
        let refused = refusal(text);
        assert!(refused.contains(words), "{text}: {refused}");
    }
}

#[test]
fn a_requirement_that_cannot_be_is_refused() {
    for (text, words) in [
        ("figure = \"lost\"", "assert: lost has neither at_most nor at_least"),
        ("figure = \"lost\", at_most = nan", "assert: lost is compared with nan"),
        ("figure = \"lost\", at_most = 1, at_least = nan", "assert: lost is compared with nan"),
        ("figure = \"lost\", at_most = nan, at_least = 1", "assert: lost is compared with nan"),
        ("figure = \"lost\", at_most = 1, at_least = 2", "at least 2 and at most 1"),
        ("figure = \"lots\", at_most = 1", "assert: lots is no figure of this kind; there are"),
        ("figure = \"p99_us\", at_most = 1", "assert: p99_us is no figure of this kind"),
        ("figure = \"lost\", at_most = 1, target = \"no\"", "assert: there is no target \"no\""),
    ] {
        let refused = refusal(&format!("assert = [{{ {text} }}]"));
        assert!(refused.contains(words), "{text}: {refused}");
    }
}

#[test]
fn a_table_of_a_system_scenario_that_cannot_be_is_refused() {
    let churn = |change: &str| {
        let keys = ["rate = 1e4", "deltas_per_s = 1e4", "users_of_delta = 10", "blocks = 100"];
        let key = change.split(" =").next().unwrap();
        let keys = keys.iter().filter(|it| !it.starts_with(key)).copied();
        format!("measure = \"churn\"\n{}", keys.chain([change]).collect::<Vec<_>>().join("\n"))
    };
    for (table, gateways, words) in [
        (churn("blocks = 1_000_001"), 8, "system: blocks 1000001 is not in 1..=1000000"),
        (churn("rate = 1e10"), 8, "system: rate 10000000000 is not in 1..=1000000000"),
        (churn("deltas_per_s = nan"), 8, "system: deltas_per_s NaN is not in 1..="),
        (churn("users_of_delta = 0"), 8, "system: users_of_delta 0 is not in 1..="),
        (churn("blocks = 100"), 1, "gateways: 1 is not in 2..=64"),
        ("measure = \"slow\"\nrate = 1e3".into(), 1, "gateways: 1 is not in 2..=64"),
        ("measure = \"slow\"\nrate = 0.5".into(), 2, "system: rate 0.5 is not in 1..="),
        ("measure = \"relearn\"\nrate = 9.0".into(), 1, "system: rate 9 is not in 10..="),
        ("measure = \"storm\"\nagain = 101".into(), 1, "system: again 101 is not in 0..=100"),
        ("measure = \"idle\"\nheartbeat_ms = 99".into(), 1, "heartbeat_ms 99 is not in 100..="),
    ] {
        let whole = WHOLE.replace("throughput", "system").replace("[8]", &format!("[{gateways}]"));
        let refused = Scenario::parse(&format!("{whole}[system]\n{table}")).expect_err(&table);
        assert!(refused.to_string().contains(words), "{table}: {refused}");
    }
}

#[test]
fn a_rate_that_cannot_be_is_refused() {
    let text = |rates: &str| {
        let whole = WHOLE.replace("throughput", "latency");
        Scenario::parse(&format!("{whole}\nrates = {rates}"))
    };
    for (rates, words) in [
        ("[0.5]", "rates: 0.5 is not in 1..=1000000000"),
        ("[1e4, 1e4]", "rates: 10000/s is there twice"),
        ("[{ share = 0.5 }, { share = 0.501 }]", "rates: 50% of capacity is there twice"),
        ("[{ share = 0.5, of = \"nope\" }]", "rates: a share of \"nope\", which does not run; add"),
        ("[\"fast\"]", "a rate is a number per second, as 10000, or { share = 0.5 }"),
        ("[{ shar = 0.5 }]", "a rate is a number per second, as 10000, or { share = 0.5 }"),
    ] {
        let refused = text(rates).unwrap_err().to_string();
        assert!(refused.contains(words), "{rates}: {refused}");
    }
    let refused = text("[{ share = 1.5 }]").unwrap_err().to_string();
    assert_eq!(refused, "rates: share 1.5 is not between 0 and 1");
    let scenario = text("[10000.0, { share = 0.5 }, { share = 0.8, of = \"waybill\" }]").unwrap();
    let asked: Vec<String> = scenario.rates.iter().map(RatePlan::asked).collect();
    assert_eq!(asked, ["10000/s", "50% of capacity", "80% of capacity of waybill"]);
    let overrides = Overrides { targets: Some(vec!["relay-epoll".into()]), ..Overrides::default() };
    let refused = scenario.with(&overrides).unwrap_err().to_string();
    assert!(refused.starts_with("rates: a share of \"waybill\", which does not run"), "{refused}");
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
        let figure = match name.as_str() {
            // Where nothing is published, users connect.
            "idle" | "storm" => fault::REFUSED,
            // What is published is more than can come: all of the rest is told of.
            "overload" | "stale" => "unaccounted",
            _ => fault::LOST,
        };
        let required = |it: &Requirement| it.figure == figure && it.at_most == Some(0.0);
        assert!(scenario.assert.iter().any(required), "{name} does not require {figure} = 0");
        crate::targets::named(&scenario.targets).unwrap_or_else(|no| panic!("{name}: {no}"));
    }
}

#[test]
fn what_is_left_out_on_the_command_line_is_not_required() {
    let whole = WHOLE.replace("[\"waybill\"]", "[\"waybill\", \"relay-epoll\"]");
    let text = whole + "assert = [{ figure = \"lost\", target = \"waybill\", at_most = 0 }]\n";
    let scenario = Scenario::parse(&text).unwrap();
    assert_eq!(scenario.assert.len(), 1);
    let targets = Some(vec!["relay-epoll".into()]);
    let scenario = scenario.with(&Overrides { targets, ..Overrides::default() }).unwrap();
    assert_eq!(scenario.assert, []);
}

#[test]
fn numbers_of_users_that_a_check_makes_equal_are_one_variant() {
    let text = WHOLE.replace("users = [1000]", "users = [5000, 1000, 9000]");
    let overrides = Overrides { check: true, ..Overrides::default() };
    let scenario = Scenario::parse(&text).unwrap().with(&overrides).unwrap();
    assert_eq!(scenario.users, [CHECK_USERS, 1000]);
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

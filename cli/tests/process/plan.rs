//! What a deployment needs, and what the settings may take at most.

use serde_json::Value;

use crate::support::Place;

#[test]
fn promise_7_the_sum_of_bounds_is_told_term_by_term() {
    let place = Place::new();
    let file = place.file("w.toml", "[broker]\nlinks_max = 100\nroutes_max = 1000");
    let ended = place.run(&["config", "memory", "--json", "--config", &file]);
    ended.check(0, &[]);
    let roles = ended.json();
    assert_eq!(roles.len(), 2);
    for role in &roles {
        let terms = role["terms"].as_array().unwrap();
        let bytes = |term: &Value| term["count"].as_u64().unwrap() * term["each"].as_u64().unwrap();
        let all: u64 = terms.iter().map(bytes).sum();
        assert_eq!(role["bytes_max"], all, "{role}");
        assert!(terms.iter().all(|term| term["bytes_max"] == bytes(term)), "{role}");
    }
    assert_eq!((&roles[0]["role"], &roles[1]["role"]), (&"broker".into(), &"gateway".into()));
    let routes = |term: &&Value| term["what"] == "routes";
    let routes = roles[0]["terms"].as_array().unwrap().iter().find(routes).unwrap();
    assert_eq!((&routes["count"], &routes["each"]), (&1000.into(), &16.into()));
    let ended = place.run(&["config", "memory", "--config", &file]);
    ended.check(0, &[]);
    let says = |words: &&str| assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    ["broker: at most ", "gateway: at most ", "routes: 1000 routes of 16 B"].iter().for_each(says);
    place.run(&["config", "memory", "--log-level", "error"]).check(0, &[]);
}

#[test]
fn a_plan_says_what_a_deployment_needs() {
    let place = Place::new();
    let asked = "plan --users 1000000 --gateways 10 --rate 100000 --targets 10 --tags 1000";
    let asked: Vec<&str> = asked.split_whitespace().collect();
    let ended = place.run(&[&asked[..], &["--json"]].concat());
    ended.check(0, &[]);
    let plan = &ended.json()[0];
    let (broker, gateway) = (&plan["broker"], &plan["gateway"]);
    assert_eq!(broker["routes_bytes"], 64_000_000);
    assert_eq!(broker["tags_bytes"], 1_000 * (96 + 20));
    assert_eq!((&broker["count"], &broker["links"]), (&2.into(), &18.into()));
    assert_eq!((&gateway["count"], &gateway["connections"]), (&10.into(), &100_000.into()));
    assert_eq!(gateway["connections_bytes_max"], 1 << 30);
    let busy = broker["busy_cores"].as_f64().unwrap();
    let of_message = plan["message_us"].as_f64().unwrap();
    assert!((busy - of_message / 10.0).abs() < 1e-6, "{busy} {of_message}");
    let ended = place.run(&asked);
    ended.check(0, &[]);
    let says = |words: &&str| assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    ["each of 2 brokers", "61.0 MiB routes and registrations", "  links   18"]
        .iter()
        .for_each(says);
}

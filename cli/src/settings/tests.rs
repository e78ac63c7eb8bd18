//! Layers, mistakes and the default file, through the one door that commands use.

use std::ffi::OsString;
use std::path::PathBuf;

use super::layers::{default_table, leaves, merge};
use super::*;

fn load(file: &str, variables: &[(&str, &str)], flags: Flags) -> Loaded {
    let file = File { path: PathBuf::from("w.toml"), table: file.parse().unwrap() };
    let variables =
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    merge(Some(file), variables, flags)
}

/// Everything that is wrong, as `cause / remedy` lines.
fn mistakes(file: &str, variables: &[(&str, &str)]) -> Vec<String> {
    let loaded = load(file, variables, Flags::default());
    let line = |mistake: Mistake| format!("{} / {}", mistake.cause, mistake.remedy);
    loaded.all_mistakes().into_iter().map(line).collect()
}

fn check(file: &str, variables: &[(&str, &str)], expected: &[&[&str]]) {
    let found = mistakes(file, variables);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, words) in found.iter().zip(expected) {
        for word in *words {
            assert!(line.contains(word), "{line:?} lacks {word:?}");
        }
    }
}

#[test]
fn the_default_file_is_the_defaults_and_names_every_key() {
    let table: toml::Table = DEFAULT_FILE.parse().unwrap();
    let (file, defaults) = (leaves(&table), leaves(&default_table()));
    assert_eq!(file, defaults);
    assert!(mistakes(DEFAULT_FILE, &[]).is_empty());
    // A key in a file is no comfort if nothing is said about it.
    let lines: Vec<&str> = DEFAULT_FILE.lines().collect();
    for pair in lines.windows(2) {
        let is_key = !pair[1].starts_with(['#', '[']) && pair[1].contains(" = ");
        assert!(!is_key || pair[0].starts_with('#'), "{} has no comment", pair[1]);
    }
}

#[test]
fn the_later_layer_wins() {
    let file = "[broker]\nshards = 2\nlinks_max = 9\n[log]\nlevel = \"debug\"";
    let variables =
        [("WAYBILL_BROKER__SHARDS", "3"), ("WAYBILL_LOG__LEVEL", "info"), ("PATH", "x")];
    let flags = Flags::default().set("--log-level", "log.level", Some("warn"));
    let loaded = load(file, &variables, flags);
    assert_eq!(loaded.mistakes, []);
    let Settings { broker, log, .. } = &loaded.settings;
    assert_eq!((broker.shards, broker.links_max, log.level.as_str()), (3, 9, "warn"));
    let source = |key: &str| loaded.sources.get(key).map(ToString::to_string);
    assert_eq!(source("broker.links_max").as_deref(), Some("w.toml"));
    assert_eq!(source("broker.shards").as_deref(), Some("WAYBILL_BROKER__SHARDS"));
    assert_eq!(source("log.level").as_deref(), Some("--log-level"));
    assert_eq!(source("broker.listen"), None);
}

#[test]
fn variables_take_the_type_of_their_key() {
    let variables = [
        ("WAYBILL_GATEWAY__BROKER__ADDRESSES", "a:1, b:2"),
        ("WAYBILL_CLIENT__ADDRESSES", "[\"c:3\"]"),
        ("WAYBILL_BROKER__TOKENS", "[{ name = \"n\", token = \"t\" }]"),
        ("WAYBILL_GATEWAY__JWT__SECRET", "12345678901234567890123456789012"),
        ("WAYBILL_GATEWAY__NAMESPACES", "1, 2"),
        ("WAYBILL_RUNTIME", "/somewhere"),
    ];
    let loaded = load("", &variables, Flags::default());
    assert_eq!(loaded.all_mistakes(), []);
    let Settings { broker, gateway, client, .. } = &loaded.settings;
    assert_eq!(gateway.namespaces, [1, 2]);
    assert_eq!(gateway.broker.addresses, ["a:1", "b:2"]);
    assert_eq!(client.addresses, ["c:3"]);
    assert_eq!(broker.tokens[0].name, "n");
    assert_eq!(gateway.jwt.secret.len(), 32);
}

#[test]
fn unknown_names_come_with_the_nearest_known_one() {
    check(
        "[broker]\nshard = 2",
        &[],
        &[&["w.toml: unknown key broker.shard /", "mean broker.shards?"]],
    );
    check("[gatway]\nlisten = 1", &[], &[&["unknown section [gatway]", "mean [gateway]?"]]);
    check("[brokers]\nlisten = 1", &[], &[&["unknown section [brokers]", "mean [broker]?"]]);
    check("[broker.x]\ny = 1", &[], &[&["unknown section [broker.x]"]]);
    check("broker = 1", &[], &[&["broker is a section, not a value"]]);
    check(
        "",
        &[("WAYBILL_BROKER__SHARD", "2")],
        &[&["WAYBILL_BROKER__SHARD /", "WAYBILL_BROKER__SHARDS?"]],
    );
    check("", &[("WAYBILL_RUNTIM", "x")], &[&["mean WAYBILL_RUNTIME?"]]);
    check("", &[("WAYBILL_broker__shards", "2")], &[&["unknown environment variable"]]);
}

#[test]
fn wrong_types_name_key_source_and_what_is_expected() {
    check(
        "[broker]\nshards = \"two\"",
        &[],
        &[&["w.toml: broker.shards has a wrong value", "\"two\"", "expected u16", "whole number"]],
    );
    check(
        "[broker]\nlisten = \"here\"",
        &[],
        &[&["broker.listen", "invalid socket address", "IP:PORT"]],
    );
    check("[broker]\nshards = 70000", &[], &[&["broker.shards", "70000"]]);
    check(
        "[[broker.tokens]]\nname = \"a\"",
        &[],
        &[&["broker.tokens[0]", "missing field `token`"]],
    );
    check("[log]\nformat = \"xml\"", &[], &[&["log.format", "xml", "auto"]]);
    let variables = [("WAYBILL_BROKER__SHARDS", "two")];
    check("", &variables, &[&["WAYBILL_BROKER__SHARDS: broker.shards", "expected a whole number"]]);
}

#[test]
fn every_mistake_is_told_and_ranges_are_among_them() {
    let file = "[broker]\nshards = 0\nlinks_max = 0\ncolour = 1\n\
        [gateway.deadlines]\nlogin_ms = 1\nheartbeat_ms = 1\n\
        [gateway.jwt]\nsecret = \"short\"\n[client]\naddresses = [\"nowhere\"]\n\
        [log]\nlevel = \"inof\"";
    check(
        file,
        &[],
        &[
            &["unknown key broker.colour"],
            &["w.toml: broker.shards = 0 is out of range: 1 to 64"],
            &["broker.links_max = 0"],
            &["gateway.jwt.secret is 5 bytes", "32 bytes or more"],
            &["gateway.deadlines.login_ms is 1"],
            &["gateway.deadlines.heartbeat_ms is 1"],
            &["client.addresses has \"nowhere\", which is not host:port"],
            &["log.level", "\"inof\" is no level: error, warn, info", "off"],
        ],
    );
    check("[broker]\nlisten = \"0.0.0.0:1\"", &[], &[&["broker.listen", "[[broker.tokens]]"]]);
    check(
        "[broker]\nadmin_listen = \"7710\"\ntokens = [{ name = \"n\", token = \"\" }]",
        &[],
        &[&["w.toml: broker.admin_listen", "change broker.admin_listen"], &["broker.tokens"]],
    );
}

#[test]
fn secrets_are_not_repeated() {
    let secret = "not-to-be-seen-not-to-be-seen-not-to-be-seen";
    let file = format!(
        "[gateway.jwt]\nsecret = \"{secret}\"\n[client]\ntoken = \"{secret}\"\n\
         [[broker.tokens]]\nname = \"n\"\ntoken = \"{secret}\""
    );
    let loaded = load(&file, &[], Flags::default());
    assert_eq!(loaded.all_mistakes(), []);
    let shown = format!("{}{}{loaded:?}", as_toml(&loaded), as_json(&loaded));
    assert!(!shown.contains(secret), "{shown}");
    assert!(as_toml(&loaded).contains("secret = \"***\""));
    // As a value of the wrong type, too.
    for file in ["[gateway.jwt]\nsecret = 987654", "[client]\ntoken = [\"987654\"]"] {
        let found = mistakes(file, &[]);
        assert!(found.len() == 1 && !found[0].contains("987654"), "{found:?}");
    }
}

#[test]
fn the_printed_settings_can_be_read_again() {
    let loaded = load("[broker]\nshards = 2", &[], Flags::default());
    let printed = as_toml(&loaded);
    assert!(printed.contains("shards = 2") && printed.contains("# from w.toml"), "{printed}");
    let again = load(&printed, &[], Flags::default());
    assert_eq!(again.mistakes, []);
    assert_eq!(again.settings.broker.shards, 2);
}

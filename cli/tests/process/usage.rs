//! Arguments and settings that cannot be understood: exit 2, and the message names them.

use crate::support::Place;

/// Arguments (blanks between them), and what must be on stderr.
const WRONG: &[(&str, &[&str])] = &[
    ("", &["Usage"]),
    ("launch", &["unrecognized subcommand 'launch'"]),
    ("up --port 1", &["unexpected argument '--port'"]),
    ("up --listen localhost:0", &["--listen", "gateway.listen", "help:", "IP:PORT"]),
    ("up --broker-listen 7711", &["--broker-listen", "broker.listen"]),
    ("broker --listen 0.0.0.0:0", &["--listen", "broker.listen", "tokens"]),
    ("broker --shards 0", &["--shards", "broker.shards = 0", "1 to 64"]),
    ("broker --shards x", &["--shards", "invalid digit"]),
    ("gateway", &["gateway.jwt.secret", "WAYBILL_GATEWAY__JWT__SECRET"]),
    ("gateway --broker nowhere", &["broker.addresses", "host:port"]),
    ("pub hello", &["no audience", "--uid", "--all"]),
    ("pub --uid 1", &["no payload", "--payload-file"]),
    ("pub --uid alice hello", &["--uid", "\"alice\" is not a UID"]),
    ("pub --uid 1, hello", &["--uid", "not a UID"]),
    ("pub --uid= hello", &["--uid", "the UID list is empty"]),
    ("pub --uid 1 --all hello", &["--uid", "--all"]),
    ("pub --uids-file x --all hello", &["--uids-file", "--all"]),
    ("pub --uids-file - --payload-file -", &["--uids-file and --payload-file", "stdin"]),
    ("pub --uids-file - --each-line -", &["--uids-file and --each-line", "stdin"]),
    ("pub --uids-file - hello", &["--uids-file", "holds no UID"]),
    ("pub --uid 1 --lines -", &["--uid", "--lines"]),
    ("pub --all --lines -", &["--all", "--lines"]),
    ("pub --lines - --each-line -", &["--lines", "--each-line"]),
    ("pub --uid 1 --payload-file x hello", &["--payload-file", "[PAYLOAD]"]),
    ("pub --uid 1 --each-line - hello", &["--each-line", "[PAYLOAD]"]),
    ("pub --uid 1 --except x hello", &["--except", "not a UID"]),
    ("pub --uid 1 --namespace -1 hello", &["-1"]),
    ("pub --uid 1 --mode fast hello", &["--mode", "direct, broadcast, auto"]),
    ("pub --uid 1 --priority control hello", &["--priority", "normal, bulk, high"]),
    ("pub --uid 1 --ttl 5 hello", &["--ttl", "ms, s, m, h or d"]),
    ("pub --uid 1 --ttl 0s hello", &["ttl is not in 1 ms"]),
    ("pub --uid 1 --label= hello", &["label 0 has 0 bytes"]),
    ("pub --uid 1 --content-type gif hello", &["--content-type", "protobuf"]),
    ("pub --uid 1 --broker nowhere hello", &["--broker", "client.addresses", "host:port"]),
    ("pub --all --selector vip hello", &["--all", "--selector"]),
    ("pub --selector vip& hello", &["--selector", "a term must stand here, at byte 4"]),
    ("pub --selector= hello", &["--selector", "a term must stand here, at byte 0"]),
    ("tag", &["nobody is named", "--uid", "--uids-file"]),
    ("tag --uid 1", &["no change", "--add", "--remove"]),
    ("tag --uid 1 --add=", &["--add", "\"\" is no tag", "1 to 64 bytes"]),
    ("tag --uid 1 --add a --remove b --remove a", &["--add and --remove", "\"a\""]),
    ("tag --uid x --add a", &["--uid", "not a UID"]),
    ("tag --uids-file - --add a", &["--uids-file", "holds no UID"]),
    ("explain", &["nobody is asked about", "--uid", "--selector"]),
    ("explain --uid 1 --all", &["--uid", "--all"]),
    ("explain --uid 1 --admin nowhere", &["--admin", "HOST:PORT"]),
    ("explain --uid 1 --selector vip&", &["--selector", "a term must stand here, at byte 4"]),
    ("explain --uid 1 --payload-bytes 1048577", &["--payload-bytes", "payload_bytes_max"]),
    ("explain --uid 1 --receipt acknowledged", &["--receipt", "none, routed, delivered"]),
    ("sub", &["--uid"]),
    ("sub --uid 1 --consumer", &["--uid", "--consumer"]),
    ("sub --uid 1 --refuse expired", &["--uid", "--refuse"]),
    ("sub --refuse expired", &["--consumer"]),
    ("sub --consumer --refuse superseded", &["--refuse", "301 to 499"]),
    ("sub --consumer --namespace 1", &["--namespace", "--consumer"]),
    ("sub --uid 1 --count 0", &["--count"]),
    ("sub --uid 1 --timeout soon", &["--timeout", "not a duration"]),
    ("token", &["--uid"]),
    ("token --uid 1", &["no secret", "--secret-file"]),
    ("token --uid 1 --device-class 256", &["--device-class", "256"]),
    ("token --uid 1 --secret-file -", &["the secret has 0 bytes", "32"]),
    ("inspect", &["HEX"]),
    ("inspect 00 --file x", &["HEX", "--file"]),
    ("inspect 0x", &["no bytes"]),
    ("inspect 0", &["odd number"]),
    ("inspect zz", &["'z' in line 1"]),
    ("inspect --file - --format hexagonal", &["--format"]),
    ("config", &["check", "print", "defaults", "memory"]),
    ("plan --users 1 --gateways 1", &["--rate"]),
    ("plan --users 1 --gateways 0 --rate 1", &["--gateways", "1..=65535"]),
    ("plan --users 1 --gateways 1 --rate 1 --targets 4097", &["--targets", "1..=4096"]),
    ("config print --config /nowhere", &["/nowhere", "--config"]),
    ("config print --log-level =", &["--log-level", "log.level"]),
    ("config check --log-level inof", &["--log-level", "\"inof\" is no level", "info, debug"]),
    ("up --log-level zzz", &["--log-level", "\"zzz\" is no level", "error, warn, info"]),
];

#[test]
fn wrong_arguments_are_named() {
    let place = Place::new();
    for (arguments, words) in WRONG {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        place.run(&arguments).check(2, words);
    }
}

#[test]
fn wrong_settings_are_named_by_every_command_that_uses_them() {
    let place = Place::new();
    let file = place.file("w.toml", "[broker]\nshard = 2\nlinks_max = 0\n[gateway.limits]\nx = 1");
    for command in ["up", "broker", "gateway", "pub --uid 1 x", "sub --uid 1", "config print"] {
        let mut arguments: Vec<&str> = command.split_whitespace().collect();
        arguments.extend(["--config", file.as_str()]);
        place.run(&arguments).check(2, &["w.toml", "unknown key broker.shard", "broker.shards?"]);
    }
    let ended = place.run(&["config", "check", "--config", &file]);
    ended.check(2, &["broker.shard ", "broker.links_max = 0", "gateway.limits.x"].map(str::trim));
    let ended = place.run(&["config", "check", "--json", "--config", &file]);
    let told = &ended.json()[0];
    assert_eq!(told["ok"], false);
    assert_eq!(told["mistakes"].as_array().unwrap().len(), 3);
    assert_eq!(told["mistakes"][0]["key"], "broker.shard");

    let broken = place.file("broken.toml", "[broker]\nshards = = 2");
    place.run(&["config", "check", "--config", &broken]).check(2, &["broken.toml, line 2"]);
}

#[test]
fn wrong_variables_are_named() {
    let place = Place::new().variable("WAYBILL_BROKER__SHARD", "2");
    place.run(&["config", "check"]).check(2, &["WAYBILL_BROKER__SHARD", "WAYBILL_BROKER__SHARDS?"]);
    let place = Place::new().variable("WAYBILL_BROKER__SHARDS", "two");
    place.run(&["broker"]).check(2, &["WAYBILL_BROKER__SHARDS", "a whole number"]);
}

#[test]
fn settings_are_shown_with_where_they_come_from() {
    let secret = "0123456789abcdef0123456789abcdef";
    let place = Place::new()
        .variable("WAYBILL_BROKER__LINKS_MAX", "7")
        .variable("WAYBILL_GATEWAY__JWT__SECRET", secret);
    let file = place.file("w.toml", "[broker]\nshards = 2\nlinks_max = 9");
    place.run(&["config", "check", "--config", &file]).check(0, &[]);
    let ended = place.run(&["config", "print", "--config", &file, "--log-level", "debug"]);
    ended.check(0, &[]);
    let line = |key: &str| {
        let found = ended.stdout.lines().find(|line| line.starts_with(key));
        found.unwrap_or_else(|| panic!("no {key}: {}", ended.stdout)).to_string()
    };
    assert!(line("shards = 2 ").ends_with("/w.toml"));
    assert!(line("links_max = 7 ").ends_with("# from WAYBILL_BROKER__LINKS_MAX"));
    assert!(line("level = \"debug\" ").ends_with("# from --log-level"));
    assert!(line("secret = \"***\" ").contains("# from WAYBILL_GATEWAY__JWT__SECRET"));
    assert!(!ended.stdout.contains(secret));
}

#[test]
fn the_default_file_changes_nothing() {
    let place = Place::new();
    let defaults = place.run(&["config", "defaults"]);
    defaults.check(0, &[]);
    let file = place.file("defaults.toml", &defaults.stdout);
    place.run(&["config", "check", "--config", &file]).check(0, &[]);
    let plain = place.run(&["config", "print", "--json"]).json().remove(0);
    let with = place.run(&["config", "print", "--json", "--config", &file]).json().remove(0);
    assert_eq!(plain["settings"], with["settings"]);
    assert_eq!(plain["settings"], place.run(&["config", "defaults", "--json"]).json()[0]);
}

#[test]
fn long_values_are_cut_in_errors() {
    let place = Place::new();
    let uids = place.file("uids", "7".repeat(4 << 20));
    let ended = place.run(&["pub", "--uids-file", &uids, "x"]);
    ended.check(2, &["7777…\" is not a UID", "line 1"]);
    assert!(ended.stderr.len() < 1_000, "{} bytes", ended.stderr.len());
}

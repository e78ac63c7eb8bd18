//! `waybill inspect` against the vectors of the specification.

use serde_json::Value;
use toml::Value as Toml;

use crate::support::Place;
use crate::vectors::{hex, text, vectors};

/// Whether a field as a vector gives it is the one that was shown.
fn equal(given: &Toml, shown: &Value) -> bool {
    match (given, shown) {
        (given, shown) if number(given).is_some() => {
            shown.as_u64().or_else(|| shown.as_str()?.parse().ok()) == number(given)
        }
        (Toml::String(given), shown) => shown.as_str() == Some(given),
        (Toml::Array(given), Value::Array(shown)) => {
            given.len() == shown.len() && given.iter().zip(shown).all(|(a, b)| equal(a, b))
        }
        (Toml::Table(given), shown) => given.iter().all(|(name, given)| match shown.get(name) {
            Some(shown) => equal(given, shown),
            None => false,
        }),
        _ => false,
    }
}

fn number(given: &Toml) -> Option<u64> {
    match given {
        Toml::Integer(number) => u64::try_from(*number).ok(),
        Toml::String(text) => u64::from_str_radix(text.strip_prefix("0x")?, 16).ok(),
        _ => None,
    }
}

#[test]
fn every_valid_vector_is_shown_as_it_says() {
    let place = Place::new();
    for (file, vectors) in vectors("frames") {
        // All of a file as one stream.
        let stream: Vec<&str> = vectors.iter().map(|vector| text(vector, "hex")).collect();
        let arguments = ["inspect", "--json", "--offsets", "-"];
        let ended = place.run_with(&arguments, stream.join("\n").as_bytes());
        ended.check(0, &[]);
        let shown = ended.json();
        assert_eq!(shown.len(), vectors.len(), "{file}");
        let mut at = 0;
        for (vector, shown) in vectors.iter().zip(&shown) {
            let id = text(vector, "id");
            assert_eq!(shown["at"], at, "{id}");
            at += shown["bytes"].as_u64().unwrap();
            for (name, given) in vector["frame"].as_table().unwrap() {
                assert!(equal(given, &shown[name]), "{id}: {name} = {given}: {shown:#}");
                assert!(shown["offsets"][name].as_u64().is_some(), "{id}: {name} has no place");
            }
        }
    }
}

/// Fields whose text is bytes in hexadecimal, not a number.
const IN_HEX: &[&str] = &["credential", "trace", "selector", "payload"];

/// A fixed field lies where `--offsets` says: the bytes there are its value.
#[test]
fn offsets_are_where_the_values_lie() {
    let place = Place::new();
    let mut compared = 0;
    for (_, vectors) in vectors("frames") {
        for vector in vectors {
            let bytes = hex(text(&vector, "hex"));
            let ended = place.run_with(&["inspect", "--json", "--offsets", "-"], &bytes);
            let shown = &ended.json()[0];
            for (name, at) in shown["offsets"].as_object().unwrap() {
                let digits = shown[name].as_str().filter(|_| !IN_HEX.contains(&name.as_str()));
                let Some(value) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
                    continue;
                };
                let at = usize::try_from(at.as_u64().unwrap()).unwrap();
                let found = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                assert_eq!(found, value, "{}: {name} at {at}", text(&vector, "id"));
                compared += 1;
            }
        }
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn every_invalid_vector_is_refused_with_its_error() {
    let place = Place::new();
    for (_, vectors) in vectors("invalid") {
        for vector in vectors {
            let ended = place.run(&["inspect", text(&vector, "hex")]);
            let error = text(&vector, "error");
            assert_eq!(ended.code, Some(1), "{}: {ended:#?}", text(&vector, "id"));
            assert!(
                ended.stderr.contains(&format!(": {error}: ")) && ended.stderr.contains("byte "),
                "{}: {error}: {ended:#?}",
                text(&vector, "id")
            );
        }
    }
}

const PING: &str = "01 04 02 00 00 00 00 00  00 00 00 00 2a 00 00 00";

#[test]
fn people_see_a_block_a_frame() {
    let place = Place::new();
    let publish = "01 10 05 00 03 00 00 00  00 00 01 00 02 00 00 00  01 00 00 00 00 00 00 00 \
                   00 00 00 00 88 13 00 00  e9 03 00 00 00 00 00 00  68 1b 21";
    let ended = place.run(&["inspect", "--offsets", PING, publish]);
    ended.check(0, &[]);
    for line in [
        "PING at byte 0, 16 bytes",
        "PUBLISH at byte 16, 43 bytes",
        "12  token             42",
        "12  mode              auto",
        "28  ttl_ms            5000",
        "32  targets           1001",
        "40  payload           h\\u{1b}!",
    ] {
        assert!(ended.stdout.contains(line), "no {line:?}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\x1b'));
}

/// SEL-13.
#[test]
fn a_selector_is_shown_as_people_write_it() {
    let place = Place::new();
    let publish = "01 10 07 00 00 00 00 00  00 10 00 00 00 00 00 00  01 00 00 00 00 00 00 00 \
                   00 00 00 00 00 00 00 00  0b 00 00 00 00 00 00 00  02 02 01 03 76 69 70 04 \
                   01 01 61 00 00 00 00 00";
    let ended = place.run(&["inspect", "--offsets", publish]);
    ended.check(0, &[]);
    assert!(ended.stdout.contains("32  selector          vip & !a"), "{}", ended.stdout);
    assert_eq!(
        place.run(&["inspect", "--json", publish]).json()[0]["selector"].as_str(),
        Some("0202010376697004010161")
    );
    let wrong = publish.replace("04 01", "04 04");
    place.run(&["inspect", &wrong[..]]).check(1, &["bad_value", "selector node 4", "SEL-3"]);
}

#[test]
fn a_stream_is_shown_up_to_its_mistake() {
    let place = Place::new();
    let wrong = "01 04 02 00 00 00 00 00  00 00 01 00 2a 00 00 00";
    let ended = place.run(&["inspect", "--json", PING, wrong, PING]);
    ended.check(1, &["malformed PING", "in the frame at byte 16", "reserved", "CONV-3"]);
    let shown = ended.json();
    assert_eq!((shown.len(), &shown[1]["error"]), (2, &"reserved".into()));
    // A fixed field is named with its byte.
    let flags = "01 04 02 00 00 00 00 00  01 00 00 00 2a 00 00 00";
    place.run(&["inspect", PING, flags]).check(1, &["malformed PING at byte 24", "unknown_flag"]);
}

#[test]
fn a_frame_that_is_not_whole_is_told() {
    let place = Place::new();
    let ended = place.run(&["inspect", "--json", PING, &PING[..30]]);
    ended.check(1, &["at byte 16, is not whole", "10 of 16 bytes of PING"]);
    assert_eq!(ended.json()[1]["partial"], 10);
    place.run(&["inspect", "01 04"]).check(1, &["2 of the 8 bytes of a prologue"]);
}

#[test]
fn unknown_kinds_that_are_skipped_are_told() {
    let place = Place::new();
    let unknown = "01 f0 02 00 02 00 00 00  00 00 00 00 00 00 00 00  aa bb";
    let ended = place.run(&["inspect", "--json", unknown, PING]);
    ended.check(0, &[]);
    let shown = ended.json();
    assert_eq!((&shown[0]["skipped"], &shown[1]["at"]), (&true.into(), &18.into()));
}

#[test]
fn files_are_read_as_hex_or_as_they_are() {
    let place = Place::new();
    let files = [place.file("a.hex", PING), place.file("a.bin", hex(PING))];
    let shown = files.map(|file| place.run(&["inspect", "--json", "--file", &file]).json());
    assert_eq!(shown[0], shown[1]);
    assert_eq!(shown[0][0]["token"], 42);
    let arguments = ["inspect", "--format", "hex", "--file", "-"];
    place.run_with(&arguments, &hex(PING)).check(2, &["stdin", "--format bin"]);
}

#[test]
fn frames_are_shown_as_they_come() {
    let place = Place::new();
    let mut running = place.start(&["inspect", "--json", "-"]);
    let (first, second) = PING.split_at(20);
    running.write(format!("{PING}\n{first}").as_bytes());
    assert_eq!(running.json()["at"], 0);
    running.write(format!("{second}\n{PING}\n01").as_bytes());
    assert_eq!(
        (running.json()["at"].clone(), running.json()["at"].clone()),
        (16.into(), 32.into())
    );
    let ended = running.end();
    ended.check(1, &["1 of the 8 bytes of a prologue"]);
    assert_eq!(ended.json()[0]["at"], 48);
}

#[test]
fn long_captures_are_whole() {
    let place = Place::new();
    let file = place.file("many.bin", hex(PING).repeat(20_000));
    let shown = place.run(&["inspect", "--json", "--file", &file]).json();
    assert_eq!((shown.len(), &shown[19_999]["at"]), (20_000, &(19_999 * 16).into()));
}

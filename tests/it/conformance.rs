//! Plays the whole dialogues of `protocol-spec/vectors/dialogues/` against a live broker, on every
//! backend. One that needs a capability which this broker does not run is named, and counted.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use waybill_broker::{BrokerConfig, LoginPolicy, TokenConfig};
use waybill_wire::code::{ErrorCode, capability};
use waybill_wire::frame::Frame;
use waybill_wire::limits::GATEWAY_TAGS_MAX;
use waybill_wire::session::support;

use crate::support::{Line, Net, everywhere};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dialogue: Vec<Dialogue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dialogue {
    id: String,
    #[serde(rename = "cites")]
    _cites: Vec<String>,
    #[serde(default, rename = "note")]
    _note: Option<String>,
    /// Capabilities without which it means nothing.
    #[serde(default)]
    needs: Vec<String>,
    /// Capabilities with which it means nothing.
    #[serde(default)]
    lacks: Vec<String>,
    #[serde(default)]
    broker: Settings,
    step: Vec<Step>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    token: Option<String>,
    /// A second one, with the same rights.
    other_token: Option<String>,
    roles: Option<Vec<String>>,
    namespaces: Option<Vec<u32>>,
    /// The policy of all namespaces.
    #[serde(default)]
    logins: LoginPolicy,
    /// How many tags of one gateway it keeps.
    gateway_tags: Option<usize>,
    /// It is not ready at first, and only that many gateways make it so.
    gateways_expected: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    link: String,
    send: Option<String>,
    expect: Option<String>,
    expect_error: Option<String>,
    fatal: Option<bool>,
    #[serde(default)]
    expect_close: bool,
    #[serde(default)]
    close: bool,
    #[serde(default, rename = "note")]
    _note: Option<String>,
}

fn dialogues() -> Vec<Dialogue> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-spec/vectors/dialogues");
    let mut paths: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let parse = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        file.dialogue
    };
    paths.iter().flat_map(parse).collect()
}

/// A byte of a dialogue.
#[derive(Clone, Copy)]
enum Byte {
    Is(u8),
    Any,
    /// It is remembered under this name where it comes first.
    Kept([char; 2]),
}

/// Remembered bytes of one dialogue.
type Memory = HashMap<[char; 2], u8>;

/// Bytes of a vector.
fn pattern(hex: &str) -> Vec<Byte> {
    let digits: String =
        hex.lines().map(|line| line.split('#').next().unwrap()).collect::<String>();
    let digits: Vec<char> = digits.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| match pair {
        ['?', '?'] => Byte::Any,
        [name @ 's'..='z', digit] => Byte::Kept([*name, *digit]),
        [high, low] => {
            let byte = high.to_digit(16).unwrap() * 16 + low.to_digit(16).unwrap();
            Byte::Is(u8::try_from(byte).unwrap())
        }
        _ => panic!("half a byte in {hex}"),
    };
    digits.chunks(2).map(byte).collect()
}

/// Bytes to send.
fn bytes(hex: &str, memory: &Memory) -> Vec<u8> {
    let byte = |byte| match byte {
        Byte::Is(byte) => byte,
        Byte::Kept(name) => memory[&name],
        Byte::Any => panic!("?? is no byte to send"),
    };
    pattern(hex).into_iter().map(byte).collect()
}

fn settings(dialogue: &Dialogue) -> BrokerConfig {
    let Settings { token, other_token, roles, namespaces, logins, .. } = &dialogue.broker;
    let Settings { gateway_tags, gateways_expected, .. } = &dialogue.broker;
    let everything = ["producer", "gateway", "consumer"].map(String::from).to_vec();
    let tokens = token.iter().chain(other_token).map(|token| TokenConfig {
        name: token.clone(),
        token: token.clone(),
        roles: roles.clone().unwrap_or(everything.clone()),
        namespaces: namespaces.clone(),
    });
    BrokerConfig {
        tokens: tokens.collect(),
        keepalive_ms: LONG_MS,
        resume_window_ms: LONG_MS,
        report_timeout_ms: LONG_MS,
        logins_default: *logins,
        gateway_tags_max: gateway_tags.unwrap_or(GATEWAY_TAGS_MAX),
        gateways_expected: gateways_expected.unwrap_or(0),
        ready_quiet_ms: gateways_expected.map_or(0, |_| LONG_MS),
        ready_max_ms: LONG_MS,
        ..BrokerConfig::default()
    }
}

/// No time of the broker's own ends within a dialogue, but for those it is about.
const LONG_MS: u32 = 60_000;

fn play(dialogue: &Dialogue, net: &mut Net) {
    let mut links: HashMap<&str, Line> = HashMap::new();
    let mut memory = Memory::new();
    for (number, step) in dialogue.step.iter().enumerate() {
        let place = format!("{} step {}", dialogue.id, number + 1);
        let link = *links.entry(&step.link).or_insert_with(|| net.connect());
        if let Some(hex) = &step.send {
            net.send(link, &bytes(hex, &memory));
        }
        if let Some(hex) = &step.expect {
            let came = net.bytes(link, pattern(hex).len());
            check(&place, &pattern(hex), &came, &mut memory);
        }
        if let Some(name) = &step.expect_error {
            expect_error(&place, name, step.fatal.unwrap_or(true), net, link);
        }
        if step.close {
            net.close(link);
        }
        if step.expect_close {
            assert_eq!(net.frame(link), None, "{place}: the broker closes");
        }
    }
}

fn check(place: &str, wanted: &[Byte], came: &[u8], memory: &mut Memory) {
    let same = came.iter().zip(wanted).all(|(came, wanted)| match wanted {
        Byte::Is(byte) => byte == came,
        Byte::Any => true,
        Byte::Kept(name) => *memory.entry(*name).or_insert(*came) == *came,
    });
    let show = |byte: &Byte| match byte {
        Byte::Is(byte) => format!("{byte:02x}"),
        Byte::Any => "??".into(),
        Byte::Kept(name) => name.iter().collect(),
    };
    assert!(
        same,
        "{place}:\n  wanted {}\n  came   {}",
        wanted.iter().map(show).collect::<String>(),
        came.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    );
}

fn expect_error(place: &str, name: &str, fatal: bool, net: &mut Net, link: Line) {
    let frame = net.frame(link).unwrap_or_else(|| panic!("{place}: the link ended, no {name}"));
    match Frame::decode(&frame) {
        Ok(Frame::Error(error)) => {
            assert_eq!(error.code.name(), Some(name), "{place}: {error:?}");
            assert_eq!(error.fatal, fatal, "{place}: {error:?}");
            assert!(!error.detail.is_empty(), "{place}: an error says what was wrong");
        }
        other => panic!("{place}: {name} was expected and came {other:?}"),
    }
}

/// The bit of a capability.
fn bit(name: &str) -> u64 {
    let known = capability::ALL.iter().find(|(known, _)| *known == name);
    1 << known.unwrap_or_else(|| panic!("{name} is no capability")).1
}

/// Why a dialogue is not for this broker.
fn not_for(dialogue: &Dialogue, runs: u64) -> Option<String> {
    let of = |names: &[String], here: bool| {
        let found = names.iter().filter(|name| (runs & bit(name) != 0) == here);
        found.cloned().collect::<Vec<_>>().join(" and ")
    };
    let (missing, present) = (of(&dialogue.needs, false), of(&dialogue.lacks, true));
    match (missing.is_empty(), present.is_empty()) {
        (false, _) => Some(format!("this broker does not run {missing}")),
        (_, false) => Some(format!("this broker runs {present}")),
        _ => None,
    }
}

#[test]
fn every_dialogue_goes_as_written() {
    let (mut played, mut left_out) = (0, 0);
    for dialogue in &dialogues() {
        if let Some(why) = not_for(dialogue, support::CAPABILITIES) {
            eprintln!("dialogue {} is not played: {why}", dialogue.id);
            left_out += 1;
            continue;
        }
        eprintln!("dialogue {}", dialogue.id);
        everywhere(&settings(dialogue), |net| play(dialogue, net));
        played += 1;
    }
    eprintln!("{played} dialogues played, {left_out} not");
    assert!(played >= DIALOGUES_MIN, "only {played} dialogues");
}

/// Of those that need nothing, or what every broker of this crate runs.
const DIALOGUES_MIN: usize = 170;

#[derive(Deserialize)]
struct InvalidFile {
    vector: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Invalid {
    id: String,
    error: String,
    hex: String,
}

/// Each invalid frame, sent as a producer, gets the error it names, and costs nobody else anything.
#[test]
fn promise_10_bad_input_costs_only_its_sender() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-spec/vectors/invalid");
    let mut vectors = Vec::new();
    for entry in folder.read_dir().unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        vectors.extend(toml::from_str::<InvalidFile>(&text).unwrap().vector);
    }
    assert!(vectors.len() >= 60, "only {} invalid vectors", vectors.len());
    everywhere(&BrokerConfig::default(), |net| {
        let bystander = crate::talk::Producer::link(net, 77);
        let mut bystander = bystander;
        for vector in &vectors {
            let bytes = bytes(&vector.hex, &Memory::new());
            let link = net.connect();
            net.send(link, &crate::talk::hello(waybill_wire::code::Role::PRODUCER, 5));
            let welcome = net.frame(link).expect("WELCOME");
            assert!(matches!(Frame::decode(&welcome), Ok(Frame::Welcome(_))));
            net.send(link, &bytes);
            expect_error(&vector.id, &vector.error, true, net, link);
            assert_eq!(net.frame(link), None, "{}", vector.id);
            let receipt = bystander.publish(net, &[1], b"still here");
            assert_eq!((receipt.code, &receipt.offline[..]), (ErrorCode(0), &[1][..]));
        }
        let faulted = net.ledger().links_faulted;
        assert_eq!(faulted, vectors.len() as u64);
    });
}

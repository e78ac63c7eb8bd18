//! Replays `protocol-spec/vectors`: hex to fields and fields to hex for every valid frame, the exact
//! error for every invalid one, and each of them again at every split point.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "vectors/build.rs"]
mod build;
#[path = "vectors/describe.rs"]
mod describe;
#[path = "vectors/fields.rs"]
mod fields;
#[path = "vectors/files.rs"]
mod files;

use std::collections::BTreeSet;
use std::time::Duration;

use waybill_wire::code::{ErrorCode, Kind, Role};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Hello, Welcome};
use waybill_wire::session::Step;
use waybill_wire::{Deframer, Frame, Malformed, Session};

use files::{bytes, read_table, text, vectors, vectors_dir};

/// What a deframer makes of these reads: every frame encoded again, or the error and how many bytes
/// it had been given.
fn deframe(reads: &[&[u8]]) -> Result<Vec<u8>, (Malformed, usize)> {
    let mut deframer = Deframer::new();
    let mut out = Vec::new();
    let mut given = 0;
    for read in reads {
        given += read.len();
        let mut rest = *read;
        loop {
            let step = deframer.next(rest).map_err(|error| (error, given))?;
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break };
            let frame = raw.decode().map_err(|error| (error, given))?;
            frame.encode(&mut out).unwrap();
        }
        assert!(deframer.invariants());
        assert!(rest.is_empty());
    }
    Ok(out)
}

#[test]
fn valid_frames_decode_to_their_fields_and_back() {
    for vector in vectors("frames") {
        let (id, bytes) = (text(&vector, "id"), bytes(text(&vector, "hex")));
        let frame = Frame::decode(&bytes).unwrap_or_else(|error| panic!("{id}: {error}"));
        let fields = vector["frame"].as_table().unwrap();
        assert_eq!(describe::describe(&frame), fields::canonical(fields), "{id}");
        let mut again = Vec::new();
        frame.encode(&mut again).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(again, bytes, "{id}: encoding what was decoded");
        let mut built = Vec::new();
        build::encode(fields, &mut built).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(built, bytes, "{id}: encoding the fields");
    }
}

/// What a session passes whatever is in it, it says of the kind alone.
#[test]
fn a_session_knows_what_it_passes() {
    let roles = [Role::PRODUCER, Role::GATEWAY, Role::CONSUMER, Role::LEAF, Role::ADMIN];
    let mut passed = BTreeSet::new();
    for (vector, role) in vectors("frames").iter().flat_map(|it| roles.map(|role| (it, role))) {
        let bytes = bytes(text(vector, "hex"));
        let frame = Frame::decode(&bytes).unwrap();
        let hello = Frame::Hello(Hello { role, ..Hello::default() });
        let mut broker = Session::broker(Duration::ZERO);
        assert!(!broker.passes(frame.kind()), "nothing comes before HELLO");
        broker.handle(Duration::ZERO, &hello).unwrap();
        broker.accept(Duration::ZERO, Duration::ZERO, role);
        let mut initiator = Session::initiator(role, Duration::ZERO);
        let welcome = Frame::Welcome(Welcome { version: 1, ..Welcome::default() });
        initiator.handle(Duration::ZERO, &welcome).unwrap();
        for mut session in [broker, initiator] {
            let passes = session.passes(frame.kind());
            let handled = session.handle(Duration::ZERO, &frame);
            // Of ERRORs those pass that are not fatal.
            if frame.kind() != Kind::ERROR {
                assert_eq!(passes, handled == Ok(Step::Pass), "{}", text(vector, "id"));
            }
            passed.extend(passes.then_some(frame.kind()));
        }
    }
    assert!(passed.contains(&Kind::PUBLISH) && passed.contains(&Kind::DELIVER), "{passed:?}");
}

#[test]
fn valid_frames_decode_the_same_at_every_split() {
    for vector in vectors("frames") {
        let (id, bytes) = (text(&vector, "id"), bytes(text(&vector, "hex")));
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(deframe(&[first, second]).as_deref(), Ok(&bytes[..]), "{id} at {at}");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(deframe(&each).as_deref(), Ok(&bytes[..]), "{id} byte by byte");
    }
}

#[test]
fn invalid_frames_are_refused_with_their_error() {
    let mut wrong = Vec::new();
    for vector in vectors("invalid") {
        let (id, bytes) = (text(&vector, "id"), bytes(text(&vector, "hex")));
        let expected = ErrorCode::from_name(text(&vector, "error")).expect(id);
        let first = deframe(&[&bytes]).map_err(|(error, _)| error);
        match first {
            Err(error) if error.code == expected => {}
            ref other => wrong.push(format!("{id}: expected {expected}, got {other:?}")),
        }
        for at in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(at);
            let result = deframe(&[head, tail]);
            let Err((error, given)) = result else { continue };
            assert_eq!(Err(error), first, "{id} at {at}");
            assert!(given >= 8, "{id}: refused after {given} bytes, before the prologue");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(deframe(&each).map_err(|(error, _)| error), first, "{id} byte by byte");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ids_are_unique() {
    let mut seen = BTreeSet::new();
    for vector in vectors("frames").iter().chain(&vectors("invalid")) {
        let id = text(vector, "id").to_owned();
        assert!(seen.insert(id.clone()), "{id} is there twice");
    }
}

/// DIG-1, DIG-3.
#[test]
fn digests_match() {
    let table = read_table(&vectors_dir().join("digests.toml"));
    let digests = table["digest"].as_array().unwrap();
    assert!(digests.len() >= 5);
    for digest in digests {
        let registrations = digest["registrations"].as_array().unwrap();
        let mut found: Digest = registrations
            .iter()
            .map(|entry| {
                let number = |key: &str| fields::number(&entry[key]);
                Registered {
                    namespace: number("namespace").try_into().unwrap(),
                    uid: number("uid"),
                    device_class: number("device_class").try_into().unwrap(),
                    login: number("login"),
                }
            })
            .collect();
        for tag in digest.get("tags").map_or(&[][..], |tags| tags.as_array().unwrap()) {
            let namespace = fields::number(&tag["namespace"]).try_into().unwrap();
            found.add_tag(namespace, tag["tag"].as_str().unwrap());
        }
        assert_eq!(found.value(), fields::number(&digest["digest"]), "{}", digest["id"]);
    }
}

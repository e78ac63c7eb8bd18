//! Tokens that a gateway accepts.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use waybill_gateway::auth::{TokenError, Verifier};

use crate::support::Place;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_token_says_what_was_asked_for() {
    let place = Place::new();
    let file = place.file("secret", format!("{SECRET}\n"));
    let uid = u64::MAX.to_string();
    let asked = ["token", "--uid", &uid, "--namespace", "7", "--device-class", "3", "--login", "9"];
    let tags = ["--tag", "vip", "--tag", "group:42", "--tag", "vip"];
    let ended = place.run(&[&asked[..], &tags, &["--ttl", "2m", "--secret-file", &file]].concat());
    ended.check(0, &[]);
    let token = ended.stdout.strip_suffix('\n').unwrap();
    let verifier = Verifier::new(SECRET.as_bytes());
    let identity = verifier.verify(token, now_s()).unwrap();
    assert_eq!((identity.uid, identity.namespace), (u64::MAX, 7));
    assert_eq!((identity.device_class, identity.login), (3, 9));
    assert_eq!(identity.tags, ["group:42", "vip"].map(Box::from).into());
    // What every gateway would refuse is not signed (WS-16).
    let no_tag = [&asked[..], &["--tag", "", "--secret-file", &file]].concat();
    place.run(&no_tag).check(2, &["is no tag", "64 bytes"]);
    let many: Vec<String> = (0..257).map(|n| format!("--tag=t{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let many = [&asked[..], &many, &["--secret-file", &file]].concat();
    place.run(&many).check(2, &["257 tags", "at most 256"]);
    assert_eq!(verifier.verify(token, now_s() + 120 + 61), Err(TokenError::Expired));
    assert_eq!(Verifier::new(b"another").verify(token, now_s()), Err(TokenError::Bad));
}

#[test]
fn the_secret_of_an_up_that_has_died_is_not_used() {
    let place = Place::new();
    let mut up = place.up();
    up.json();
    place.run(&["token", "--uid", "1"]).check(0, &[]);
    up.signal(Signal::KILL);
    up.end();
    place.run(&["token", "--uid", "1"]).check(2, &["does not run any more", "waybill up"]);
}

#[test]
fn the_secret_may_come_from_the_settings_or_stdin() {
    let place = Place::new().variable("WAYBILL_GATEWAY__JWT__SECRET", SECRET);
    let from_settings = place.run(&["token", "--uid", "1", "--json"]).json().remove(0);
    let place = Place::new();
    let arguments = ["token", "--uid", "1", "--json", "--secret-file", "-"];
    let from_stdin = place.run_with(&arguments, SECRET.as_bytes()).json().remove(0);
    for told in [from_settings, from_stdin] {
        let token = told["token"].as_str().unwrap();
        assert!(Verifier::new(SECRET.as_bytes()).verify(token, now_s()).is_ok());
        assert_eq!(told["uid"], "1");
    }
}

//! Against a broker that plays a script: one that never answers, one with a foul mouth.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Condvar, Mutex};

use rustix::process::Signal;
use waybill_wire::Deframer;
use waybill_wire::code::{BrokerState, ErrorCode, Kind};
use waybill_wire::frame::{ErrorFrame, Frame, Ping, Pong, Welcome};

use crate::support::{PATIENCE, Place};

/// What it does with a frame: answers to send, and whether the link goes on.
pub(crate) type Script = fn(&Frame<'_>) -> (Vec<u8>, bool);

/// Serves one link after another on a free port; its address.
pub(crate) fn broker(script: Script) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || play(stream, script));
        }
    });
    address
}

fn play(mut stream: TcpStream, script: Script) {
    let (mut deframer, mut bytes) = (Deframer::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        let mut rest = &bytes[..count];
        while let Ok(step) = deframer.next(rest) {
            rest = &rest[step.consumed..];
            let Some(raw) = step.frame else { break };
            let (answer, goes_on) = script(&raw.decode().unwrap());
            if stream.write_all(&answer).is_err() || !goes_on {
                return;
            }
        }
    }
}

/// Welcomes and answers PING, and nothing else.
pub(crate) fn never_answers(frame: &Frame<'_>) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    match frame {
        Frame::Hello(_) => Welcome {
            resumed: false,
            state: BrokerState::READY,
            version: 1,
            shard: 0,
            session: 1,
            capabilities: 0,
            broker: 7,
            shards: 1,
            keepalive_ms: 10_000,
            credit: 0,
            payload_max: 1 << 20,
        }
        .encode(&mut out),
        Frame::Ping(Ping { token }) => Pong { token: *token }.encode(&mut out),
        _ => {}
    }
    (out, true)
}

const FOUL: &str = "\u{1b}[2J\u{9b}31m\nerror: forged\u{202e}; x";

fn refuse(code: ErrorCode) -> (Vec<u8>, bool) {
    let (ref_kind, detail) = (Kind::HELLO, FOUL);
    let error = ErrorFrame { fatal: true, code, ref_kind, reference: 0, retry_after_ms: 0, detail };
    let mut out = Vec::new();
    error.encode(&mut out);
    (out, false)
}

#[test]
fn a_broker_that_never_answers_is_given_up() {
    let place = Place::new();
    let address = broker(never_answers);
    let pub_ = ["pub", "--uid", "1", "--broker", &address, "--timeout", "50ms"];
    let words = ["no receipt came within 50ms", "1 message is in doubt", "--timeout"];
    place.run(&[&pub_[..], &["x"]].concat()).check(1, &words);
    let ended = place.run_with(&[&pub_[..], &["--each-line", "-"]].concat(), b"a\nb\nc\n");
    ended.check(1, &["3 messages are in doubt"]);
}

/// Messages that the broker of the test below has got.
static PUBLISHED: (Mutex<u32>, Condvar) = (Mutex::new(0), Condvar::new());

#[test]
fn a_signal_tells_what_is_in_doubt() {
    let place = Place::new();
    let script: Script = |frame| {
        if matches!(frame, Frame::Publish(_)) {
            *PUBLISHED.0.lock().unwrap() += 1;
            PUBLISHED.1.notify_all();
        }
        never_answers(frame)
    };
    let address = broker(script);
    let file = place.file("lines", "a\nb\n");
    let mut running =
        place.start(&["pub", "--uid", "1", "--broker", &address, "--each-line", &file]);
    let count = PUBLISHED.0.lock().unwrap();
    let waited = PUBLISHED.1.wait_timeout_while(count, PATIENCE, |count| *count < 2);
    assert!(!waited.unwrap().1.timed_out());
    running.signal(Signal::INT);
    running.end().check(1, &["stopped by a signal", "2 messages are in doubt"]);
}

#[test]
fn words_of_a_broker_play_no_tricks_on_the_terminal() {
    let place = Place::new();
    let final_: Script = |_| refuse(ErrorCode::BAD_CREDENTIAL);
    let for_now: Script = |_| refuse(ErrorCode::TOO_MANY_LINKS);
    for (script, count) in [(final_, 1), (for_now, 2)] {
        let address = broker(script);
        for command in [&["pub", "--uid", "1", "x"][..], &["sub", "--uid", "1"]] {
            let two = ["--broker", &address, "--broker", &address];
            let ended = place.run(&[command, &two[..count * 2]].concat());
            ended.check(1, &["\\u{1b}[2J\\u{9b}31m\\nerror: forged\\u{202e}; x"]);
            let raw = ['\u{1b}', '\u{9b}', '\u{202e}'];
            assert!(!ended.stderr.contains(raw), "{ended:#?}");
            assert!(!ended.stderr.contains("\nerror: forged"), "{ended:#?}");
        }
    }
}

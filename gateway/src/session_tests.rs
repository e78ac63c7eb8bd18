//! A session as a dialogue: what happens, at what millisecond, and what must come of it.

use waybill_wire::code::CloseCode;

use super::*;
use crate::auth::{Grant, mint};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const UNIX: u64 = 1_800_000_000;

/// A session and its hands, with limits of 10 s to log in, 7 s to register, 25 s of heartbeat.
struct Case {
    session: Session,
    verifier: Verifier,
    out: Vec<Output>,
}

fn now(ms: u64) -> Now {
    Now { ms, unix_s: UNIX + ms / 1000 }
}

fn opened() -> Case {
    let limits = SessionLimits {
        login_ms: 10_000,
        register_ms: 7_000,
        heartbeat_ms: 25_000,
        close_ms: 5_000,
        uplinks_max: 2,
    };
    Case {
        session: Session::new(Arc::new(limits), Subprotocol::Json, now(0)),
        verifier: Verifier::new(SECRET),
        out: Vec::new(),
    }
}

fn ready() -> Case {
    let mut case = opened();
    case.says(0, &login_text(3600));
    case.session.confirmed(ConnectionId(77), &mut case.out);
    case.out.clear();
    case
}

fn login_text(seconds: i64) -> String {
    let expires_at = UNIX.checked_add_signed(seconds).unwrap();
    let grant = Grant { namespace: 3, uid: 1001, device_class: 1, login: 4, tags: &[], expires_at };
    format!(r#"{{"type":"login","token":"{}"}}"#, mint(SECRET, grant))
}

impl Case {
    fn says(&mut self, ms: u64, text: &str) {
        self.session.heard(now(ms));
        let text = Bytes::copy_from_slice(text.as_bytes());
        self.session.message(true, &text, &self.verifier, now(ms), &mut self.out);
    }

    fn tick(&mut self, ms: u64) {
        self.session.tick(now(ms), &mut self.out);
    }

    /// The outputs since the last look: replies as text, closes as their code.
    fn found(&mut self) -> Vec<String> {
        let text = |output| match output {
            Output::Reply(reply) => {
                let mut out = Vec::new();
                Subprotocol::Json.encode(&reply, &mut out);
                String::from_utf8(out).unwrap()
            }
            Output::Ping => "ping".into(),
            Output::Login(identity) => format!("login {}/{}", identity.namespace, identity.uid),
            Output::Logout => "logout".into(),
            Output::Uplink { id, .. } => format!("uplink {id}"),
            Output::Close { code, reason } => {
                assert!(!reason.is_empty());
                format!("close {code}")
            }
            Output::Abort => "abort".into(),
        };
        self.out.drain(..).map(text).collect()
    }
}

#[test]
fn ws_5_login_then_registration_then_ready() {
    let mut case = opened();
    case.says(5, &login_text(3600));
    assert_eq!(case.found(), ["login 3/1001"]);
    case.session.confirmed(ConnectionId(77), &mut case.out);
    case.session.confirmed(ConnectionId(77), &mut case.out);
    let ready =
        r#"{"type":"ready","uid":"1001","namespace":3,"connection":"77","heartbeat_ms":25000}"#;
    assert_eq!(case.found(), [ready]);
}

#[test]
fn ws_3_the_first_message_is_a_login_and_comes_in_time() {
    for first in [r#"{"type":"ping"}"#, r#"{"type":"send","id":1,"data":""}"#, "{}", "?"] {
        let mut case = opened();
        case.says(0, first);
        assert_eq!(case.found(), ["close bad_message"], "{first}");
    }
    let mut case = opened();
    assert_eq!(case.session.deadline_ms(), 10_000);
    case.tick(9_999);
    assert!(case.found().is_empty());
    case.tick(10_000);
    assert_eq!(case.found(), ["close login_timeout"]);
    assert_eq!(case.session.deadline_ms(), 15_000);
    case.says(11_000, &login_text(3600));
    assert!(case.found().is_empty(), "nothing counts after a close");
    case.tick(15_000);
    assert_eq!(case.found(), ["abort"]);
}

#[test]
fn ws_3_bytes_without_a_login_do_not_extend_the_deadline() {
    let mut case = opened();
    case.session.heard(now(9_000));
    case.tick(10_000);
    assert_eq!(case.found(), ["close login_timeout"]);
}

#[test]
fn ws_4_bad_and_expired_tokens_differ() {
    let mut case = opened();
    case.says(0, r#"{"type":"login","token":"abc"}"#);
    assert_eq!(case.found(), ["close bad_token"]);
    let mut case = opened();
    case.says(0, &login_text(-60));
    assert_eq!(case.found(), ["close token_expired"]);
}

#[test]
fn ws_4_a_connection_ends_with_its_token() {
    let mut case = opened();
    case.says(0, &login_text(10));
    case.session.confirmed(ConnectionId(1), &mut case.out);
    case.out.clear();
    // Traffic keeps the heartbeat quiet; the token runs out at 10 s and the leeway of 60.
    for ms in (10_000..70_000).step_by(10_000) {
        case.session.heard(now(ms));
        case.tick(ms);
        assert!(case.found().is_empty(), "at {ms}");
    }
    case.session.heard(now(69_999));
    assert_eq!(case.session.deadline_ms(), 70_000);
    case.tick(70_000);
    assert_eq!(case.found(), ["logout", "close token_expired"]);
}

#[test]
fn ws_5_a_registration_that_does_not_come() {
    let mut case = opened();
    case.says(1_000, &login_text(3600));
    case.tick(7_999);
    assert_eq!(case.found(), ["login 3/1001"]);
    case.tick(8_000);
    assert_eq!(case.found(), ["logout", "close not_registered"]);
    case.session.confirmed(ConnectionId(1), &mut case.out);
    assert!(case.found().is_empty(), "too late");
}

#[test]
fn a_login_the_hub_refuses_is_not_logged_out() {
    let mut case = opened();
    case.says(0, &login_text(3600));
    case.session.login_refused(LoginRefused::Connections, now(1), &mut case.out);
    assert_eq!(case.found(), ["login 3/1001", "close too_many"]);
    case.session.ended(now(2), &mut case.out);
    assert!(case.found().is_empty());
}

#[test]
fn ws_8_heartbeat() {
    let mut case = ready();
    case.tick(24_999);
    assert!(case.found().is_empty());
    assert_eq!(case.session.deadline_ms(), 25_000);
    case.tick(25_000);
    case.tick(25_001);
    assert_eq!(case.found(), ["ping"], "one is enough");
    assert_eq!(case.session.deadline_ms(), 50_000);
    case.session.heard(now(49_999));
    case.tick(50_000);
    assert!(case.found().is_empty());
    case.tick(74_999);
    case.tick(99_998);
    assert_eq!(case.found(), ["ping"]);
    case.tick(99_999);
    assert_eq!(case.found(), ["logout", "close heartbeat_lost"]);
}

#[test]
fn ws_8_a_client_may_ping() {
    let mut case = ready();
    case.says(1, r#"{"type":"ping"}"#);
    assert_eq!(case.found(), [r#"{"type":"pong"}"#]);
}

#[test]
fn ws_9_sends_are_bounded_and_answered() {
    let mut case = ready();
    for id in 1..=2 {
        assert!(!case.session.is_full());
        case.says(1, &format!(r#"{{"type":"send","id":{id},"data":"x"}}"#));
    }
    assert_eq!(case.found(), ["uplink 1", "uplink 2"]);
    assert!(case.session.is_full());
    case.session.answered(2, ErrorCode(0), now(1), &mut case.out);
    assert!(!case.session.is_full());
    case.session.answered(1, ErrorCode::CONSUMER_LOST, now(1), &mut case.out);
    let lost = r#"{"type":"refused","id":1,"code":405,"reason":"consumer_lost"}"#;
    assert_eq!(case.found(), [r#"{"type":"sent","id":2}"#, lost]);
    case.says(1, r#"{"type":"send","id":4,"data":"x"}"#);
    assert_eq!(case.found(), ["uplink 4"]);
}

#[test]
fn promise_6_a_client_that_is_not_read_is_not_silent() {
    let mut case = ready();
    for id in 1..=2 {
        case.says(0, &format!(r#"{{"type":"send","id":{id},"data":"x"}}"#));
    }
    case.out.clear();
    for ms in [25_000, 50_000, 75_000, 100_000] {
        assert_eq!(case.session.deadline_ms(), ms);
        case.tick(ms);
        assert!(case.found().is_empty());
    }
    // From here on it is read again, and its silence is its own.
    case.session.answered(1, ErrorCode(0), now(120_000), &mut case.out);
    case.out.clear();
    case.tick(144_999);
    assert!(case.found().is_empty());
    case.tick(145_000);
    assert_eq!(case.found(), ["ping"]);
    case.tick(170_000);
    assert_eq!(case.found(), ["logout", "close heartbeat_lost"]);
    // One that ends is read again whatever it waits for: its close frame must be seen.
    let mut case = ready();
    for id in 1..=2 {
        case.says(0, &format!(r#"{{"type":"send","id":{id},"data":"x"}}"#));
    }
    case.session.close(CloseCode::SLOW_CONNECTION, "slow".into(), now(1), &mut case.out);
    assert!(!case.session.is_full());
}

#[test]
fn a_second_login_and_the_wrong_kind_of_message() {
    let mut case = ready();
    case.says(1, &login_text(3600));
    assert_eq!(case.found(), ["logout", "close bad_message"]);
    let mut case = ready();
    let binary = Bytes::from_static(b"\x03");
    case.session.message(false, &binary, &case.verifier, now(1), &mut case.out);
    assert_eq!(case.found(), ["logout", "close bad_message"]);
}

#[test]
fn ws_13_drain() {
    let mut case = ready();
    case.session.drain(5_000, 3_000, now(1_000), &mut case.out);
    assert_eq!(case.found(), [r#"{"type":"drain","reconnect_after_ms":5000}"#]);
    assert_eq!(case.session.deadline_ms(), 4_000);
    case.tick(4_000);
    assert_eq!(case.found(), ["logout", "close draining"]);
    // WS-3: before the login nothing is sent but the close.
    let mut case = opened();
    case.session.drain(5_000, 3_000, now(1_000), &mut case.out);
    assert_eq!(case.found(), ["close draining"]);
}

#[test]
fn each_login_is_logged_out_once_whatever_ends_it() {
    let mut case = ready();
    case.session.close(CloseCode::SLOW_CONNECTION, "slow".into(), now(1), &mut case.out);
    case.session.close(CloseCode::SLOW_CONNECTION, "slow".into(), now(2), &mut case.out);
    case.session.ended(now(3), &mut case.out);
    assert_eq!(case.found(), ["logout", "close slow_connection"]);
    let mut case = ready();
    case.session.ended(now(1), &mut case.out);
    case.session.ended(now(1), &mut case.out);
    assert_eq!(case.found(), ["logout"]);
    assert!(!case.session.is_open());
    case.tick(5_001);
    assert_eq!(case.found(), ["abort"]);
    let mut case = opened();
    case.session.ended(now(1), &mut case.out);
    assert!(case.found().is_empty());
}

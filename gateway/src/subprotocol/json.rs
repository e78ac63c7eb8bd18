//! `waybill.json.v1` (13.1). Numbers of 64 bits are strings of digits (WS-2); a payload is a string
//! where it is UTF-8 and base64 where it is not (WS-7).
//!
//! Requests are read with serde; replies are written by hand, since a message is written once for
//! many receivers and its members come from borrowed parts. Text goes through serde's escape; codes
//! print their registry name, or their number where the registry has none.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::error::Category;
use waybill_wire::code::Encoding;

use super::{BadMessage, Message, Reply, Request, bad};

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Object {
    Login {
        token: String,
    },
    Send {
        id: u32,
        #[serde(default)]
        labels: Vec<String>,
        data: Option<String>,
        data64: Option<String>,
    },
    Ping,
}

pub(super) fn decode(message: &[u8]) -> Result<Request, BadMessage> {
    // serde would take an array of the members' values as well.
    if message.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return bad("not a JSON object");
    }
    // serde's own text may quote the message; a place or a member is enough to find the mistake.
    let object = serde_json::from_slice(message).map_err(|error| {
        let reason = match error.classify() {
            Category::Data => format!("not a message a client sends: {}", mistake(message)),
            _ => not_json(&error),
        };
        BadMessage(reason.into())
    })?;
    Ok(match object {
        Object::Login { token } => Request::Login { token },
        Object::Send { id, labels, data, data64 } => {
            Request::Send { id, labels, payload: payload(data, data64)? }
        }
        Object::Ping => Request::Ping,
    })
}

fn not_json(error: &serde_json::Error) -> String {
    format!("not JSON (line {} column {})", error.line(), error.column())
}

/// The members of all requests, of whatever kind.
#[derive(Deserialize)]
struct Members {
    r#type: Option<Value>,
    token: Option<Value>,
    id: Option<Value>,
    #[expect(dead_code, reason = "here so that a second one is noticed")]
    labels: Option<IgnoredAny>,
    data: Option<Value>,
    data64: Option<Value>,
}

/// Which member keeps JSON from being an [`Object`].
fn mistake(message: &[u8]) -> String {
    let members: Members = match serde_json::from_slice(message) {
        Ok(members) => members,
        // Any value will do, so what is left are members that are there twice. Their names stand
        // between the first two backticks, and are those above.
        Err(error) if error.is_data() => {
            let text = error.to_string();
            return format!("{} is there twice", text.split('`').nth(1).unwrap_or("a member"));
        }
        Err(error) => return not_json(&error),
    };
    let is_text = |member: Option<&Value>| member.is_some_and(Value::is_string);
    let is_id = |id: &Value| id.as_u64().is_some_and(|id| u32::try_from(id).is_ok());
    let reason = match members.r#type.as_ref().and_then(Value::as_str) {
        Some("login") if !is_text(members.token.as_ref()) => "token is not a string",
        Some("send") if !members.id.as_ref().is_some_and(is_id) => {
            "id is not a number from 0 to 4294967295"
        }
        Some("send") if members.data.as_ref().is_some_and(|data| !data.is_string()) => {
            "data is not a string"
        }
        Some("send") if members.data64.as_ref().is_some_and(|data| !data.is_string()) => {
            "data64 is not a string"
        }
        Some("send") => "labels is not an array of strings",
        _ => "type is not login, send or ping",
    };
    reason.to_owned()
}

fn payload(data: Option<String>, data64: Option<String>) -> Result<Bytes, BadMessage> {
    match (data, data64) {
        (Some(data), None) => Ok(Bytes::from(data)),
        (None, Some(data64)) => match STANDARD.decode(data64) {
            Ok(payload) => Ok(Bytes::from(payload)),
            Err(_) => bad("data64 is not padded base64"),
        },
        _ => bad("a send has either data or data64"),
    }
}

pub(super) fn encode(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Ready { uid, namespace, connection, heartbeat_ms } => append(
            out,
            format_args!(
                "{{\"type\":\"ready\",\"uid\":\"{uid}\",\"namespace\":{namespace},\
                 \"connection\":\"{connection}\",\"heartbeat_ms\":{heartbeat_ms}}}"
            ),
        ),
        Reply::Message(message) => encode_message(message, out),
        Reply::Sent { id } => append(out, format_args!("{{\"type\":\"sent\",\"id\":{id}}}")),
        Reply::Refused { id, code } => {
            append(out, format_args!("{{\"type\":\"refused\",\"id\":{id},\"code\":{}", code.0));
            append(out, format_args!(",\"reason\":\"{code}\"}}"));
        }
        Reply::Pong => out.extend_from_slice(b"{\"type\":\"pong\"}"),
        Reply::Drain { reconnect_after_ms } => append(
            out,
            format_args!("{{\"type\":\"drain\",\"reconnect_after_ms\":{reconnect_after_ms}}}"),
        ),
    }
}

fn encode_message(message: &Message<'_>, out: &mut Vec<u8>) {
    out.reserve(128 + message.payload.len());
    append(out, format_args!("{{\"type\":\"message\",\"id\":\"{:016x}", message.origin));
    append(out, format_args!("-{}\"", message.sequence));
    if let Some((content, encoding)) = message.content {
        append(out, format_args!(",\"content\":\"{content}\""));
        if encoding != Encoding::IDENTITY {
            append(out, format_args!(",\"encoding\":\"{encoding}\""));
        }
    }
    if !message.labels.is_empty() {
        out.extend_from_slice(b",\"labels\":");
        json(out, &message.labels);
    }
    if let Some(sender) = message.sender {
        append(out, format_args!(",\"from\":\"{sender}\""));
    }
    match std::str::from_utf8(message.payload) {
        Ok(text) => {
            out.extend_from_slice(b",\"data\":");
            json(out, text);
        }
        Err(_) => {
            append(out, format_args!(",\"data64\":\"{}\"", STANDARD.encode(message.payload)));
        }
    }
    out.push(b'}');
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    out.write_fmt(text).expect("a Vec takes every write");
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("text is always JSON, and a Vec takes every write");
}

#[cfg(test)]
mod tests {
    use waybill_wire::code::{ContentType, ErrorCode};

    use super::*;

    fn check(text: &str, expected: Result<Request, &str>) {
        let found =
            super::super::Subprotocol::Json.decode(&Bytes::copy_from_slice(text.as_bytes()));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
            (found, expected) => panic!("{text}: found {found:?}, expected {expected:?}"),
        }
    }

    fn send(id: u32, labels: &[&str], payload: &'static [u8]) -> Result<Request, &'static str> {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Ok(Request::Send { id, labels, payload: Bytes::from_static(payload) })
    }

    #[test]
    fn requests() {
        check(r#"{"type":"login","token":"abc"}"#, Ok(Request::Login { token: "abc".into() }));
        check(" \n{\"token\":\"a\",\"type\":\"login\"}", Ok(Request::Login { token: "a".into() }));
        check(r#"{"type":"ping"}"#, Ok(Request::Ping));
        check(r#"{"type":"ping","id":"any","more":{"a":[1]}}"#, Ok(Request::Ping));
        check(r#"{"type":"send","id":7,"labels":["chat"],"data":"hi"}"#, send(7, &["chat"], b"hi"));
        check(r#"{"type":"send","id":4294967295,"data":""}"#, send(u32::MAX, &[], b""));
        check(r#"{"type":"send","id":0,"data64":"/wD+"}"#, send(0, &[], b"\xff\x00\xfe"));
        check(r#"{"type":"send","id":0,"data":null,"data64":"AA=="}"#, send(0, &[], b"\0"));
        check(
            r#"{"type":"send","id":1,"data":"\u0000\"\ud83d\ude00"}"#,
            send(1, &[], "\0\"😀".as_bytes()),
        );
    }

    #[test]
    fn what_a_client_must_not_send() {
        for text in ["", "[]", "7", "\"ping\"", "[\"ping\"]", "[\"login\",\"abc\"]", "null"] {
            check(text, Err("not a JSON object"));
        }
        for text in ["{", "{]", r#"{"type":"ping"} x"#, r#"{"type":"ping","a":"\ud800"}"#] {
            check(text, Err("not JSON"));
        }
        for (text, member) in [
            ("{}", "type is not"),
            (r#"{"type":"pong"}"#, "type is not"),
            (r#"{"type":"Ping"}"#, "type is not"),
            (r#"{"type":"pong" x}"#, "not JSON (line 1 column 16)"),
            (r#"{"type":7}"#, "type is not"),
            (r#"{"type":"login"}"#, "token is not"),
            (r#"{"type":"login","token":7}"#, "token is not"),
            (r#"{"type":"login","token":"a","token":"a"}"#, "token is there twice"),
            (r#"{"type":"send","data":"x"}"#, "id is not"),
            (r#"{"type":"send","id":-1,"data":"x"}"#, "id is not"),
            (r#"{"type":"send","id":1.5,"data":"x"}"#, "id is not"),
            (r#"{"type":"send","id":"1","data":"x"}"#, "id is not"),
            (r#"{"type":"send","id":4294967296,"data":"x"}"#, "id is not"),
            (r#"{"type":"send","id":1,"data":{}}"#, "data is not"),
            (r#"{"type":"send","id":1,"data64":7}"#, "data64 is not"),
            (r#"{"type":"send","id":1,"labels":"chat","data":"x"}"#, "labels is not"),
            (r#"{"type":"send","id":1,"labels":null,"data":"x"}"#, "labels is not"),
            (r#"{"type":"send","id":1,"labels":[7],"data":"x"}"#, "labels is not"),
            (
                r#"{"type":"send","id":1,"labels":[],"labels":[],"data":""}"#,
                "labels is there twice",
            ),
            (r#"{"type":"send","id":1,"id":2,"data":"x"}"#, "id is there twice"),
        ] {
            check(text, Err(&format!("not a message a client sends: {member}")));
        }
        check(r#"{"type":"send","id":1}"#, Err("either data or data64"));
        check(r#"{"type":"send","id":1,"data":"","data64":""}"#, Err("either data or data64"));
        check(r#"{"type":"send","id":1,"data64":"AA"}"#, Err("padded base64"));
        check(r#"{"type":"send","id":1,"data64":"_w=="}"#, Err("padded base64"));
        check(r#"{"type":"send","id":1,"data":"","labels":[""]}"#, Err("a label is empty"));
        let long = "x".repeat(65);
        check(
            &format!(r#"{{"type":"send","id":1,"data":"","labels":["{long}"]}}"#),
            Err("label_bytes_max"),
        );
        let many = vec!["\"x\""; 17].join(",");
        check(
            &format!(r#"{{"type":"send","id":1,"data":"","labels":[{many}]}}"#),
            Err("labels_max"),
        );
        let token = "x".repeat(4097);
        check(&format!(r#"{{"type":"login","token":"{token}"}}"#), Err("token_bytes_max"));
    }

    #[test]
    fn what_was_wrong_is_said_without_quoting() {
        let error = decode(br#"{"type":"login","token":{"secret":"hunter2"}}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = decode(br#"{"type":"hunter2"}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn replies() {
        let text = |reply: &Reply<'_>| {
            let mut out = Vec::new();
            encode(reply, &mut out);
            String::from_utf8(out).unwrap()
        };
        let ready = Reply::Ready {
            uid: u64::MAX,
            namespace: u32::MAX,
            connection: 77,
            heartbeat_ms: 25_000,
        };
        assert_eq!(
            text(&ready),
            r#"{"type":"ready","uid":"18446744073709551615","namespace":4294967295,"connection":"77","heartbeat_ms":25000}"#
        );
        assert_eq!(text(&Reply::Sent { id: 7 }), r#"{"type":"sent","id":7}"#);
        assert_eq!(
            text(&Reply::Refused { id: 7, code: ErrorCode::NO_CONSUMER }),
            r#"{"type":"refused","id":7,"code":305,"reason":"no_consumer"}"#
        );
        assert_eq!(
            text(&Reply::Refused { id: 7, code: ErrorCode(399) }),
            r#"{"type":"refused","id":7,"code":399,"reason":"399"}"#
        );
        assert_eq!(text(&Reply::Pong), r#"{"type":"pong"}"#);
        assert_eq!(
            text(&Reply::Drain { reconnect_after_ms: 5000 }),
            r#"{"type":"drain","reconnect_after_ms":5000}"#
        );
    }

    #[test]
    fn messages() {
        let check = |message: &Message<'_>, expected: &str| {
            let mut out = Vec::new();
            encode_message(message, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        let plain = Message { origin: 0x9f, sequence: 12, payload: b"hello", ..Message::default() };
        check(&plain, r#"{"type":"message","id":"000000000000009f-12","data":"hello"}"#);
        let all = Message {
            content: Some((ContentType(0x8001), Encoding::GZIP)),
            labels: vec!["chat", "a\"b"],
            sender: Some(1002),
            payload: b"\xff",
            ..plain.clone()
        };
        check(
            &all,
            r#"{"type":"message","id":"000000000000009f-12","content":"32769","encoding":"gzip","labels":["chat","a\"b"],"from":"1002","data64":"/w=="}"#,
        );
        let text = Message {
            content: Some((ContentType::TEXT, Encoding::IDENTITY)),
            payload: "\u{0}\"\\\n\u{2028}é".as_bytes(),
            ..plain
        };
        check(
            &text,
            "{\"type\":\"message\",\"id\":\"000000000000009f-12\",\"content\":\"text\",\"data\":\"\\u0000\\\"\\\\\\n\u{2028}é\"}",
        );
    }
}

//! Every way a connection ends or does not begin, with the code a client is told.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::StreamExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use waybill_wire::MessageHead;

use crate::support::{BINARY, JSON, SECRET, Site, User, http, login, run, token};

/// Connects, says one thing, and is told why it was closed.
async fn check(site: &Site, subprotocol: &str, message: Message, expected: u16) {
    let shown = format!("{message:?}");
    let mut user = User::connect(site.address(), subprotocol).await;
    user.send(message).await;
    let (code, reason) = user.closed().await;
    assert_eq!(code, expected, "{}: {reason}", &shown[..shown.len().min(200)]);
    assert!(!reason.is_empty() && reason.len() <= 123, "{reason}");
}

#[test]
fn ws_4_tokens() {
    run(async {
        let site = Site::start(|_| {}).await;
        let claims = serde_json::json!({"sub": "1001", "exp": 4_000_000_000u64});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let hs512 = encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap();
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let none = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&claims.to_string()));
        let foreign = EncodingKey::from_secret(b"a secret of somebody else entirely");
        let foreign = encode(&Header::new(Algorithm::HS256), &claims, &foreign).unwrap();
        let no_sub = serde_json::json!({"exp": 4_000_000_000u64});
        let no_sub = encode(&Header::new(Algorithm::HS256), &no_sub, &key).unwrap();
        for bad in ["", "abc", &hs512, &none, &foreign, &no_sub] {
            check(&site, JSON, Message::text(login(bad)), 4500).await;
        }
        check(&site, JSON, Message::text(login(&token(0, 1001, -61))), 4501).await;
        let stats = site.gateway.stats();
        assert_eq!((stats.closes["bad_token"], stats.closes["token_expired"]), (6, 1));
        assert_eq!(stats.logins, 0);
        // Inside the leeway; that the connection then ends with the token is the session's test.
        let mut user = User::connect(site.address(), JSON).await;
        user.say(&login(&token(0, 1001, -30))).await;
        assert_eq!(user.hear().await["type"], "ready");
    });
}

#[test]
fn a_user_of_a_namespace_that_is_not_served_is_never_registered() {
    run(async {
        let mut site = Site::start(|config| config.namespaces = vec![7]).await;
        let mut stranger = User::connect(site.address(), JSON).await;
        stranger.say(&login(&token(0, 1001, 3600))).await;
        let (code, reason) = stranger.closed().await;
        assert_eq!(code, 4500);
        assert!(reason.contains("namespace"), "{reason}");
        // Held: a user who leaves is withdrawn again.
        let _here = site.user_of(7, 1002).await;
        // Registrations go out in order: the stranger's would have come before.
        site.broker.until(|users| users.contains(&(7, 1002)) && !users.contains(&(0, 1001))).await;
        assert_eq!(site.gateway.stats().logins, 1);
    });
}

#[test]
fn ws_3_no_login_in_time() {
    run(async {
        let site = Site::start(|config| config.deadlines.login_ms = 1000).await;
        let mut user = User::connect(site.address(), JSON).await;
        assert_eq!(user.closed().await.0, 4004);
    });
}

#[test]
fn a_socket_without_a_request_ends_when_a_login_would() {
    run(async {
        let site = Site::start(|config| config.deadlines.login_ms = 1000).await;
        for said in [&b""[..], b"GET /ws HTTP/1.1\r\n"] {
            let mut socket = TcpStream::connect(site.address()).await.unwrap();
            socket.write_all(said).await.unwrap();
            assert_eq!(socket.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        }
    });
}

#[test]
fn a_request_that_begins_late_has_no_more_time_than_any() {
    run(async {
        let site = Site::start(|config| config.deadlines.login_ms = 1000).await;
        let mut silent = TcpStream::connect(site.address()).await.unwrap();
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(100) {
            assert_eq!(http(site.address(), "/ledger", "").await.0, 200);
        }
        let mut late = TcpStream::connect(site.address()).await.unwrap();
        assert_eq!(silent.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        // A tenth of its second is left.
        let since = Instant::now();
        late.write_all(b"GET /ws HTTP/1.1\r\n").await.unwrap();
        // An end is one with a reset as well.
        let _ = late.read_to_end(&mut Vec::new()).await;
        let took = since.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn ws_5_no_confirmation_in_time() {
    run(async {
        let mut site = Site::start(|config| config.deadlines.register_ms = 3000).await;
        let mut before = site.user(1).await;
        site.broker.hold(true).await;
        let mut user = User::connect(site.address(), JSON).await;
        user.say(&login(&token(0, 1001, 3600))).await;
        assert_eq!(user.closed().await.0, 4003);
        site.broker.until(|users| !users.contains(&(0, 1001))).await;
        before.say(r#"{"type":"ping"}"#).await;
        assert_eq!(before.hear().await["type"], "pong");
    });
}

#[test]
fn ws_11_messages_that_cannot_be_understood() {
    run(async {
        let site = Site::start(|_| {}).await;
        for text in ["", "?", "[]", "{}", r#"{"type":"ready"}"#, r#"{"type":"ping"}"#] {
            check(&site, JSON, Message::text(text), 4502).await;
        }
        check(&site, JSON, Message::binary(&b"\x03"[..]), 4502).await;
        check(&site, BINARY, Message::text("{}"), 4502).await;
        for bytes in [&b""[..], b"\x03", b"\x7f", b"\x01\x01\0\0", b"\x01\0\xff\xff"] {
            check(&site, BINARY, Message::binary(bytes), 4502).await;
        }
        let not_utf8 = Frame::message(&b"\xff"[..], OpCode::Data(Data::Text), true);
        check(&site, JSON, Message::Frame(not_utf8), 1007).await;
        let reserved = Frame::message(&b""[..], OpCode::Data(Data::Reserved(3)), true);
        check(&site, JSON, Message::Frame(reserved), 1002).await;
        let largest = "x".repeat(65_536);
        check(&site, JSON, Message::text(largest.as_str()), 4502).await;
        check(&site, JSON, Message::text(largest + "x"), 4503).await;
        // Too long by far: it is refused before it was read, and the close arrives all the same.
        check(&site, BINARY, Message::binary(vec![0; 8 << 20]), 4503).await;
        let stats = site.gateway.stats();
        assert_eq!((stats.closes["message_size"], stats.closes["other"]), (2, 2));
    });
}

#[test]
fn a_client_that_does_not_mask_breaks_rfc_6455() {
    run(async {
        let site = Site::start(|_| {}).await;
        let mut raw = User::connect(site.address(), JSON).await.into_raw();
        raw.write_all(b"\x81\x02{}").await.unwrap();
        let mut answer = Vec::new();
        raw.read_to_end(&mut answer).await.unwrap();
        assert_eq!((answer[0], &answer[2..4]), (0x88, &1002u16.to_be_bytes()[..]));
    });
}

#[test]
fn a_client_may_close_first() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut user = site.user(1001).await;
        user.send(Message::Close(None)).await;
        assert!(matches!(user.next().await, Message::Close(_)));
        site.broker.until(|users| users.is_empty()).await;
        assert_eq!(site.gateway.stats().closes.values().sum::<u64>(), 0);
    });
}

#[test]
fn ws_8_silence_is_pinged_and_then_closed() {
    run(async {
        let site = Site::start(|config| {
            // Exact times are the session's tests'. Here an answer has this long to come.
            config.deadlines.heartbeat_ms = 1500;
            // One of the two does not answer the close either.
            config.deadlines.close_ms = 100;
        })
        .await;
        let mut answers = site.user(1001).await;
        let mut raw = site.user(1002).await.into_raw();
        // This one answers pings, as any client does while it reads.
        let alive = tokio::spawn(async move {
            for _ in 0..2 {
                let message = answers.socket.next().await.unwrap().unwrap();
                assert!(matches!(message, Message::Ping(_)), "{message:?}");
            }
            answers.say(r#"{"type":"ping"}"#).await;
            assert_eq!(answers.hear().await["type"], "pong");
        });
        // This one reads and never answers.
        let mut heard = Vec::new();
        raw.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard[..2], [0x89, 0], "an empty Ping");
        assert_eq!((heard[2], &heard[4..6]), (0x88, &4001u16.to_be_bytes()[..]));
        alive.await.unwrap();
    });
}

#[test]
fn ws_12_promise_6_a_slow_connection_is_closed_and_slows_nobody() {
    run(async {
        let mut site = Site::start(|config| config.deadlines.close_ms = 60_000).await;
        let mut slow = site.user(1).await;
        let mut quick = site.user(2).await;
        // A quarter of the queue: the next may come before the gateway has noted that the last
        // was written.
        let payload = vec![b'x'; 16 << 10];
        let mut sequence = 0;
        // Until its socket's buffers are full and then its queue; the other reads each message
        // before the next is sent.
        while site.gateway.stats().closes["slow_connection"] == 0 {
            sequence += 1;
            let head = MessageHead { sequence, ..MessageHead::default() };
            site.broker.deliver(head, &[1, 2], &payload).await;
            assert_eq!(quick.data().await.len(), payload.len());
            // The queue's four, one across the bound, one half written, one the other is reading.
            assert!(site.gateway.stats().waiting <= 7, "promise 7");
        }
        site.broker.until(|users| !users.contains(&(0, 1))).await;
        // What it then reads is whole messages in order, and at last the code.
        let mut read = 0;
        let code = loop {
            match slow.next().await {
                Message::Text(text) => {
                    read += 1;
                    let message: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(message["id"], format!("0000000000000077-{read}"));
                }
                Message::Close(Some(frame)) => break u16::from(frame.code),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(code, 4002);
        assert!(read < sequence);
        let stats = site.gateway.stats();
        assert_eq!((stats.addressed, stats.waiting), (2 * sequence, 0));
        assert_eq!((stats.delivered, stats.dropped.slow), (sequence + read, sequence - read));
        assert_eq!(stats.balances(), Ok(()));
    });
}

#[test]
fn pings_that_are_not_read_are_bounded_too() {
    run(async {
        let site = Site::start(|config| config.limits.queue_bytes_max = 4096).await;
        let mut raw = site.user(1001).await.into_raw();
        let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
        ping.extend([b'x'; 125]);
        let pings = ping.repeat(1000);
        // Writes until the gateway reads no more or has closed.
        while site.gateway.stats().closes["slow_connection"] == 0 {
            if raw.write_all(&pings).await.is_err() {
                break;
            }
        }
        assert_eq!(site.gateway.stats().closes["slow_connection"], 1);
    });
}

#[test]
fn one_connection_too_many() {
    run(async {
        let site = Site::start(|config| config.limits.connections_per_user_max = 1).await;
        let _first = site.user(1001).await;
        let mut second = User::connect(site.address(), JSON).await;
        second.say(&login(&token(0, 1001, 3600))).await;
        let (code, reason) = second.closed().await;
        assert_eq!((code, reason.as_str()), (4005, "the user has too many connections here"));

        let site = Site::start(|config| config.limits.connections_max = 1).await;
        let _first = site.user(1001).await;
        let mut second = User::connect(site.address(), JSON).await;
        let (code, reason) = second.closed().await;
        assert_eq!((code, reason.as_str()), (4005, "the gateway has too many connections"));
    });
}

#[test]
fn ws_1_and_ws_14_before_the_upgrade() {
    run(async {
        let origins = vec!["https://app.example.com".to_owned()];
        let site = Site::start(|config| config.allowed_origins = origins).await;
        let usual = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let json = format!("{usual}Sec-WebSocket-Protocol: chat, {JSON}\r\n");
        let own = format!("Origin: http://{}\r\n", site.address());
        for (headers, status) in [
            (json.clone(), 101),
            (usual.to_owned(), 400),
            (format!("{usual}Sec-WebSocket-Protocol: chat\r\n"), 400),
            (format!("{json}Origin: https://app.example.com\r\n"), 101),
            (format!("{json}{own}"), 101),
            (format!("{json}Origin: https://evil.example.com\r\n"), 403),
            (format!("{json}Origin: null\r\n"), 403),
        ] {
            assert_eq!(http(site.address(), "/ws", &headers).await.0, status, "{headers}");
        }
        assert_eq!(http(site.address(), "/ws", "").await.0, 426);
        assert_eq!(site.gateway.stats().upgrades_refused, 5);
    });
}

#[test]
fn ws_13_drain_sends_everyone_away_and_ends() {
    run(async {
        let mut site = Site::start(|config| config.deadlines.drain_ms = 300).await;
        let mut users = vec![site.user(1).await, site.user(2).await, site.user(3).await];
        let mut silent = User::connect(site.address(), JSON).await;
        site.gateway.drain();
        site.gateway.drain();
        assert_eq!(http(site.address(), "/healthz", "").await.0, 503);
        for user in &mut users {
            let drain = serde_json::json!({"type": "drain", "reconnect_after_ms": 300});
            assert_eq!(user.hear().await, drain);
        }
        for user in &mut users {
            assert_eq!(user.closed().await.0, 4000);
        }
        assert_eq!(silent.closed().await.0, 4000);
        // A client reads on after the close, which completes it.
        for mut user in users.into_iter().chain([silent]) {
            use futures_util::StreamExt as _;
            assert!(user.socket.next().await.is_none());
        }
        site.gateway.closed().await;
        site.broker.until(|users| users.is_empty()).await;
        assert!(TcpStream::connect(site.address()).await.is_err(), "nobody listens");
    });
}

#[test]
fn promise_5_what_comes_while_a_gateway_leaves_is_counted() {
    run(async {
        let mut site = Site::start(|config| config.deadlines.drain_ms = 0).await;
        let mut user = site.user(1).await;
        site.broker.linger().await;
        site.gateway.drain();
        // It is told, and closed; reading on completes that.
        while user.socket.next().await.is_some() {}
        site.broker.left().await;
        let head = MessageHead { sequence: 1, everyone: true, ..MessageHead::default() };
        site.broker.deliver(head, &[], b"for whoever is there").await;
        site.broker.hang_up().await;
        site.gateway.closed().await;
        let stats = site.gateway.stats();
        assert_eq!((stats.messages_in, stats.balances()), (1, Ok(())));
    });
}

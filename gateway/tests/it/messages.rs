//! From a broker's DELIVER to the sockets of exactly the right users.

use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use waybill_gateway::{Gateway, GatewayConfig};
use waybill_wire::MessageHead;
use waybill_wire::code::{ContentType, Encoding};
use waybill_wire::message::{Content, Sender};

use crate::support::{JSON, Site, User, http, login, run, token};

fn head(sequence: u64) -> MessageHead<'static> {
    MessageHead { sequence, ..MessageHead::default() }
}

fn to_everyone(sequence: u64) -> MessageHead<'static> {
    MessageHead { everyone: true, ..head(sequence) }
}

#[test]
fn ws_6_two_connections_of_one_user_get_it_once_and_others_nothing() {
    run(async {
        let site = Site::start(|_| {}).await;
        let (mut first, mut second) = (site.user(1001).await, site.binary_user(1001).await);
        let (mut other, mut namesake) = (site.user(1002).await, site.user_of(5, 1001).await);
        assert_ne!(first.connection, second.connection);
        site.broker.deliver(head(1), &[1001, 1001, 7], b"for 1001").await;
        site.broker.deliver(to_everyone(2), &[], b"for all").await;
        site.broker.deliver(MessageHead { namespace: 5, ..to_everyone(3) }, &[], b"for 5").await;
        assert_eq!((first.data().await, first.data().await), ("for 1001".into(), "for all".into()));
        let message = second.hear_binary().await;
        assert_eq!((message[0], &message[24..]), (0x82, &b"for 1001"[..]));
        assert_eq!(second.hear_binary().await[24..], b"for all"[..]);
        // What was not for them would have come first.
        assert_eq!(other.data().await, "for all");
        assert_eq!(namesake.data().await, "for 5");
        let stats = site.gateway.stats();
        assert_eq!((stats.messages_in, stats.targets_missed), (3, 1));
        assert_eq!((stats.addressed, stats.encodings), (6, 5));
        assert_eq!((stats.logged_in, stats.users, stats.readies), (4, 3, 4));
        assert_eq!(stats.balances(), Ok(()));
    });
}

#[test]
fn ws_7_payload_labels_content_and_sender_arrive_as_they_were() {
    run(async {
        let site = Site::start(|_| {}).await;
        let mut user = site.user(1001).await;
        let labels = ["chat", "é"];
        let content = Content { content_type: ContentType::JSON, encoding: Encoding::GZIP };
        let full = MessageHead {
            labels: (&labels).into(),
            content: Some(content),
            sender: Some(Sender { uid: 1002, connection: 9 }),
            origin: Some(0xabc),
            ..head(12)
        };
        site.broker.deliver(full, &[1001, 1003], b"\xff\0").await;
        let message = user.hear().await;
        let expected = serde_json::json!({
            "type": "message", "id": "0000000000000abc-12", "content": "json", "encoding": "gzip",
            "labels": ["chat", "é"], "from": "1002", "data64": "/wA=",
        });
        assert_eq!(message, expected, "and no trace of UID 1003");
    });
}

#[test]
fn tgt_7_except_and_except_self_are_kept() {
    run(async {
        let site = Site::start(|_| {}).await;
        let mut sender = site.user(1001).await;
        let mut twin = site.user(1001).await;
        let mut excepted = site.user(1002).await;
        let except = [1002];
        let message = MessageHead {
            except: (&except).into(),
            except_self: true,
            sender: Some(Sender { uid: 1001, connection: sender.connection }),
            ..to_everyone(1)
        };
        site.broker.deliver(message, &[], b"not for all").await;
        site.broker.deliver(to_everyone(2), &[], b"for all").await;
        assert_eq!(twin.data().await, "not for all");
        for user in [&mut sender, &mut excepted, &mut twin] {
            assert_eq!(user.data().await, "for all");
        }
        assert_eq!(site.gateway.stats().filtered, 2);
    });
}

#[test]
fn a_message_sent_again_is_not_repeated() {
    run(async {
        let site = Site::start(|_| {}).await;
        let mut early = site.user(1001).await;
        site.broker.deliver(head(1), &[1001], b"one").await;
        assert_eq!(early.data().await, "one");
        let mut late = site.user(1001).await;
        site.broker.deliver(MessageHead { resend: true, ..head(1) }, &[1001], b"one").await;
        site.broker.deliver(head(2), &[1001], b"two").await;
        assert_eq!(early.data().await, "two");
        assert_eq!((late.data().await, late.data().await), ("one".into(), "two".into()));
        assert_eq!(site.gateway.stats().repeated, 1);
    });
}

#[test]
fn promise_3_the_first_copy_that_comes_after_the_one_sent_again_is_not_repeated() {
    run(async {
        let site = Site::start(|_| {}).await;
        let mut user = site.user(1001).await;
        site.broker.deliver(MessageHead { resend: true, ..head(1) }, &[1001], b"one").await;
        site.broker.deliver(head(1), &[1001], b"one").await;
        site.broker.deliver(head(2), &[1001], b"two").await;
        assert_eq!((user.data().await, user.data().await), ("one".into(), "two".into()));
        assert_eq!(site.gateway.stats().repeated, 1);
    });
}

#[test]
fn large_messages_arrive_whole() {
    run(async {
        let site = Site::start(|_| {}).await;
        let (mut json, mut binary) = (site.user(1).await, site.binary_user(2).await);
        // Larger than the queue's bound each: taken one at a time, by an empty queue.
        for (sequence, len) in [(1, 100), (2, 70_000), (3, 1 << 20)] {
            let payload = vec![b'x'; len];
            site.broker.deliver(head(sequence), &[1, 2], &payload).await;
            assert_eq!(json.data().await.len(), len);
            assert_eq!(binary.hear_binary().await.len(), 24 + len);
        }
    });
}

#[test]
fn ws_5_nobody_is_ready_before_a_broker_says_so() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        site.user(1).await;
        site.broker.hold(true).await;
        let mut waiting = User::connect(site.address(), JSON).await;
        waiting.say(&login(&token(0, 1001, 3600))).await;
        site.broker.until(|users| users.contains(&(0, 1001))).await;
        // The broker has it and does not say so: what it sends now is not for this connection.
        site.broker.deliver(head(1), &[1001], b"early").await;
        waiting.say(r#"{"type":"ping"}"#).await;
        assert_eq!(waiting.hear().await["type"], "pong", "no ready, no message");
        site.broker.hold(false).await;
        assert_eq!(waiting.hear().await["type"], "ready");
        site.broker.deliver(head(2), &[1001], b"late").await;
        assert_eq!(waiting.data().await, "late");
    });
}

#[test]
fn users_stay_while_the_broker_is_away_and_logins_wait() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut stays = site.user(1001).await;
        site.broker.hang_up().await;
        site.broker.until(|users| users.is_empty()).await;
        let mut waits = User::connect(site.address(), JSON).await;
        waits.say(&login(&token(0, 1002, 3600))).await;
        for user in [&mut stays, &mut waits] {
            user.say(r#"{"type":"ping"}"#).await;
            assert_eq!(user.hear().await["type"], "pong");
        }
        site.broker.accept_again().await;
        assert_eq!(waits.hear().await["type"], "ready");
        site.broker.until(|users| users.len() == 2).await;
        site.broker.deliver(head(1), &[1001], b"again").await;
        assert_eq!(stays.data().await, "again");
        assert!(site.gateway.stats().link_losses >= 1);
    });
}

#[test]
fn a_broken_socket_withdraws_its_user() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let user = site.user(1001).await;
        let twin = site.user(1001).await;
        drop(user);
        let mut marker = site.user(1002).await;
        site.broker.deliver(head(1), &[1002], b"x").await;
        assert_eq!(marker.data().await, "x");
        site.broker.until(|users| users.contains(&(0, 1001))).await;
        drop(twin);
        site.broker.until(|users| !users.contains(&(0, 1001))).await;
    });
}

#[test]
fn a_message_in_fragments_and_several_in_one_packet_are_read() {
    run(async {
        let site = Site::start(|_| {}).await;
        let mut raw = site.user(1001).await.into_raw();
        let ping = br#"{"type":"ping"}"#;
        let (one, two) = ping.split_at(7);
        let mut bytes = Vec::new();
        // Masked with zeros: text without FIN, a Ping in between, the rest.
        for (opcode, payload) in [(0x01, one), (0x89, &b"x"[..]), (0x80, two), (0x81, &ping[..])] {
            bytes.extend([opcode, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0]);
            bytes.extend(payload);
        }
        raw.write_all(&bytes).await.unwrap();
        let mut user = User {
            socket: tokio_tungstenite::WebSocketStream::from_raw_socket(
                raw,
                tokio_tungstenite::tungstenite::protocol::Role::Client,
                None,
            )
            .await,
            connection: 0,
        };
        assert_eq!(user.hear().await["type"], "pong");
        assert_eq!(user.hear().await["type"], "pong");
        user.send(Message::Close(None)).await;
    });
}

#[test]
fn health_follows_the_link() {
    run(async {
        let site = Site::start(|_| {}).await;
        let _user = site.user(1).await;
        let (status, body) = http(site.address(), "/healthz", "").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &body["status"], &body["links_up"]), (200, &"up".into(), &1.into()));
        let counters = &body["counters"];
        assert_eq!((&counters["readies"], &counters["dropped"]["slow"]), (&1.into(), &0.into()));
        assert_eq!(http(site.address(), "/nothing", "").await.0, 404);
        // A port that nobody listens on any more.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config =
            GatewayConfig { listen: "127.0.0.1:0".parse().unwrap(), ..Default::default() };
        config.jwt.secret = crate::support::SECRET.into();
        config.broker.addresses = vec![free.to_string()];
        let extra = axum::Router::new().route("/extra", axum::routing::get(|| async { "more" }));
        let gateway = Gateway::start(config, Some(extra)).await.unwrap();
        let address = gateway.local_addr();
        let (status, body) = http(address, "/healthz", "").await;
        assert!(body.starts_with(r#"{"status":"no broker","links_up":0,"#), "{status} {body}");
        assert_eq!(status, 503);
        assert_eq!(http(address, "/extra", "").await, (200, "more".into()));
    });
}

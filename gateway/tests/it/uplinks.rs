//! What users send, and the answers.

use futures_util::SinkExt as _;
use tokio_tungstenite::tungstenite::Message;
use waybill_wire::code::ErrorCode;

use crate::support::{Site, run};

#[test]
fn ws_9_a_send_reaches_the_backend_and_is_answered() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut user = site.user_of(3, 1001).await;
        user.say(r#"{"type":"send","id":7,"labels":["chat","x"],"data":"hello"}"#).await;
        let uplink = site.broker.uplinks.recv().await.unwrap();
        assert_eq!((uplink.namespace, uplink.uid), (3, 1001));
        assert_eq!(uplink.connection, user.connection);
        assert_eq!(
            (uplink.labels, uplink.payload),
            (vec!["chat".into(), "x".into()], b"hello".to_vec())
        );
        site.broker.acknowledge(uplink.sequence, ErrorCode(0)).await;
        assert_eq!(user.hear().await, serde_json::json!({"type": "sent", "id": 7}));

        user.say(r#"{"type":"send","id":8,"data64":"/w=="}"#).await;
        let uplink = site.broker.uplinks.recv().await.unwrap();
        assert_eq!(uplink.payload, b"\xff");
        site.broker.acknowledge(uplink.sequence, ErrorCode::NO_CONSUMER).await;
        let refused = serde_json::json!(
            {"type": "refused", "id": 8, "code": 305, "reason": "no_consumer"});
        assert_eq!(user.hear().await, refused);
        let stats = site.gateway.stats();
        assert_eq!((stats.uplinks, stats.uplinks_accepted, stats.uplinks_refused), (2, 1, 1));
    });
}

#[test]
fn ws_9_in_binary() {
    run(async {
        let mut site = Site::start(|_| {}).await;
        let mut user = site.binary_user(1001).await;
        user.send(Message::binary(&b"\x02\x01\0\0\x07\0\0\0\x04chat\xff\0"[..])).await;
        let uplink = site.broker.uplinks.recv().await.unwrap();
        assert_eq!((uplink.labels, uplink.payload), (vec!["chat".into()], b"\xff\0".to_vec()));
        site.broker.acknowledge(uplink.sequence, ErrorCode(0)).await;
        assert_eq!(user.hear_binary().await, b"\x83\0\0\0\x07\0\0\0");
        user.send(Message::binary(&b"\x03"[..])).await;
        assert_eq!(user.hear_binary().await, b"\x85");
    });
}

#[test]
fn ws_9_an_answer_that_does_not_come_is_of_unknown_fate() {
    run(async {
        let mut site = Site::start(|config| config.deadlines.uplink_ms = 100).await;
        let mut user = site.user(1001).await;
        user.say(r#"{"type":"send","id":7,"data":"hello"}"#).await;
        let refused = user.hear().await;
        assert_eq!((&refused["code"], &refused["reason"]), (&405.into(), &"consumer_lost".into()));
        // The answer comes after all, to a question nobody asks any more.
        let uplink = site.broker.uplinks.recv().await.unwrap();
        site.broker.acknowledge(uplink.sequence, ErrorCode(0)).await;
        user.say(r#"{"type":"ping"}"#).await;
        assert_eq!(user.hear().await["type"], "pong");
    });
}

#[test]
fn ws_9_backends_that_never_answer_block_nobody() {
    run(async {
        let mut site = Site::start(|config| {
            config.deadlines.uplink_ms = 100;
            config.limits.uplinks_max = 1;
        })
        .await;
        let mut user = site.user(1001).await;
        for id in 1..=3 {
            user.say(&format!(r#"{{"type":"send","id":{id},"data":"x"}}"#)).await;
            let refused = user.hear().await;
            assert_eq!((&refused["id"], &refused["reason"]), (&id.into(), &"consumer_lost".into()));
            assert_eq!(site.broker.uplinks.recv().await.unwrap().sequence, id);
        }
    });
}

#[test]
fn ws_9_with_too_many_waiting_and_without_a_broker() {
    run(async {
        let mut site = Site::start(|config| {
            config.limits.uplinks_per_connection_max = 1;
            config.deadlines.uplink_ms = 2000;
        })
        .await;
        let mut user = site.user(1001).await;
        for id in [1, 2, 3] {
            let send = format!(r#"{{"type":"send","id":{id},"data":"x"}}"#);
            user.socket.feed(Message::text(send)).await.unwrap();
        }
        user.say(r#"{"type":"ping"}"#).await;
        // Each waits for the one before, and what follows them for all.
        let first = site.broker.uplinks.recv().await.unwrap();
        assert!(site.broker.uplinks.is_empty());
        site.broker.acknowledge(first.sequence, ErrorCode(0)).await;
        assert_eq!(user.hear().await, serde_json::json!({"type": "sent", "id": 1}));
        // The link dies with the second one on it, and no other comes up in time: nobody knows what
        // became of it.
        site.broker.uplinks.recv().await.unwrap();
        site.broker.hang_up().await;
        let refused = user.hear().await;
        assert_eq!((&refused["id"], &refused["reason"]), (&2.into(), &"consumer_lost".into()));
        let refused = user.hear().await;
        assert_eq!((&refused["id"], &refused["reason"]), (&3.into(), &"no_consumer".into()));
        assert_eq!(user.hear().await["type"], "pong");
    });
}

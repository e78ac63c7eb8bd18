//! What waits for a connection: bursts, and messages whose time runs out.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;
use waybill_wire::MessageHead;
use waybill_wire::code::ErrorCode;

use crate::support::{Site, User, run, run_on_one_thread};

async fn hear_all(user: &mut User, payloads: &[&[u8]]) {
    for (number, payload) in (1..).zip(payloads) {
        let message = user.hear_binary().await;
        assert_eq!(message[16..24], u64::to_le_bytes(number), "in order");
        assert_eq!(&message[24..], *payload);
    }
}

#[test]
fn a_burst_to_a_user_who_reads_is_delivered_whole() {
    // One thread: while the switchboard hands out what has arrived, no connection can write.
    run_on_one_thread(async {
        let (small, large) = ([b's'; 300], vec![b'l'; 40 << 10]);
        for payloads in [vec![&small[..]; 256], vec![&small[..]; 2000], vec![&large[..]; 2]] {
            let site = Site::start(|_| {}).await;
            let mut user = site.binary_user(1001).await;
            site.broker.burst(1001, &payloads).await;
            hear_all(&mut user, &payloads).await;
            let stats = site.gateway.stats();
            assert_eq!((stats.delivered, stats.dropped.slow), (payloads.len() as u64, 0));
            assert_eq!(stats.balances(), Ok(()));
        }
    });
}

#[test]
fn a_message_whose_time_ran_out_in_the_queue_is_not_given_to_the_user() {
    run(async {
        let site = Site::start(|config| config.limits.queue_bytes_max = 64 << 20).await;
        let mut stuck = site.user(1).await;
        let mut quick = site.user(2).await;
        let payload = vec![b'x'; 64 << 10];
        let mut sequence = 0;
        let mut next = || {
            sequence += 1;
            MessageHead { sequence, ..MessageHead::default() }
        };
        // Until the first one's socket takes no more.
        while site.gateway.stats().waiting < 64 {
            site.broker.deliver(next(), &[1, 2], &payload).await;
            assert_eq!(quick.data().await.len(), payload.len());
        }
        let brief = |ttl_ms, head| MessageHead { ttl_ms, ..head };
        site.broker.deliver(brief(1, next()), &[1], b"brief").await;
        site.broker.deliver(brief(3_600_000, next()), &[1], b"long").await;
        // Its millisecond passes, counted from when it was handed out for certain.
        site.broker.deliver(next(), &[2], b"tick").await;
        assert_eq!(quick.data().await, "tick");
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(2) {
            site.broker.deliver(next(), &[2], b"tick").await;
            assert_eq!(quick.data().await, "tick");
        }
        loop {
            match stuck.next().await {
                Message::Text(text) if text.contains("long") => break,
                Message::Text(text) => assert!(!text.contains("brief")),
                other => panic!("{other:?}"),
            }
        }
        let stats = site.gateway.stats();
        assert_eq!(stats.dropped.expired, 1);
        assert_eq!(stats.balances(), Ok(()));
    });
}

#[test]
fn promise_6_users_who_do_not_read_pay_for_a_shortage_of_memory_and_no_other() {
    run(async {
        let (most, large) = (16 << 20, 1 << 20);
        let site = Site::start(|config| {
            config.limits.connections_max = 100;
            config.limits.connections_bytes_max = most;
            config.limits.queue_bytes_max = most / 8;
        })
        .await;
        let mut quick = site.binary_user(1).await;
        let mut slow = Vec::new();
        for uid in 10..26 {
            slow.push(site.binary_user(uid).await);
        }
        let payload = vec![b'x'; large];
        let mut sequence = 0;
        // Kernels take some of it for them first.
        while site.gateway.stats().closed_pool < 4 {
            for uid in 10..26 {
                sequence += 1;
                let head = MessageHead { sequence, ..MessageHead::default() };
                site.broker.deliver(head, &[1, uid], &payload).await;
                let message = quick.hear_binary().await;
                assert_eq!(message[16..24], sequence.to_le_bytes(), "all of them, in order");
                let held = site.gateway.stats().bytes_held;
                // What was being encoded when it was used up is beyond.
                assert!(held <= (most + large + 1024) as u64, "{held} bytes are held");
            }
        }
        let stats = site.gateway.stats();
        assert!(stats.dropped.pool > 0, "{stats:?}");
        assert!(stats.closes["slow_connection"] >= stats.closed_pool);
        assert_eq!(stats.balances(), Ok(()));
    });
}

#[test]
fn promise_7_messages_that_clients_do_not_finish_are_bounded_and_others_are_read() {
    run(async {
        let most = 1 << 20;
        let mut site = Site::start(|config| {
            config.limits.connections_max = 100;
            config.limits.connections_bytes_max = most;
            config.limits.queue_bytes_max = most / 8;
        })
        .await;
        let mut quick = site.user(1).await;
        let mut stuck = Vec::new();
        for uid in 10..30 {
            let mut socket = site.user(uid).await.into_raw();
            // The head of a message of 60,000 bytes, its mask 0.
            socket.write_all(&[0x81, 0xfe, 0xea, 0x60, 0, 0, 0, 0]).await.unwrap();
            stuck.push(socket);
        }
        // The oldest go until there is room.
        while site.gateway.stats().closed_pool == 0 {
            tokio::task::yield_now().await;
        }
        for id in 1..=3 {
            let data = "x".repeat(50_000);
            quick.say(&format!(r#"{{"type":"send","id":{id},"data":"{data}"}}"#)).await;
            let uplink = site.broker.uplinks.recv().await.unwrap();
            assert_eq!((uplink.uid, uplink.payload.len()), (1, 50_000));
            site.broker.acknowledge(uplink.sequence, ErrorCode(0)).await;
            assert_eq!(quick.hear().await["type"], "sent");
        }
        let stats = site.gateway.stats();
        assert!(stats.bytes_held <= most as u64 + (132 << 10), "{} bytes", stats.bytes_held);
        assert!((1..20).contains(&stats.closed_pool), "{}", stats.closed_pool);
        assert_eq!(stats.closed_pool, stats.closes["slow_connection"]);
    });
}

//! What waits for a connection: bursts, and messages whose time runs out.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;
use waybill_wire::MessageHead;

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

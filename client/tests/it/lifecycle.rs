//! Attempts, refusals, fail-over, keepalive, drain: what every role has in common.

use std::time::Duration;

use waybill_client::{
    BrokerState, ErrorCode, LinkErrorKind, LinkState, Options, Producer, Publish, PublishError,
};
use waybill_wire::code::{Kind, Role};
use waybill_wire::frame::{Drain, ErrorFrame, Ping, Pong, State, Welcome};
use waybill_wire::{Frame, limits};

use crate::support::{Broker, soon, welcome};

/// Waits until the link's state is what the test is after.
async fn state(producer: &Producer, is: impl FnMut(&LinkState) -> bool) -> LinkState {
    let mut watch = producer.watch();
    soon(watch.wait_for(is)).await.expect("the task lives").clone()
}

fn is_open(state: &LinkState) -> bool {
    matches!(state, LinkState::Open(_))
}

#[tokio::test]
async fn hello_says_who_and_with_what_credential() {
    let broker = Broker::bind().await;
    let options = broker.options().token("secret");
    let (producer, link) = tokio::join!(Producer::connect(options), broker.accept());
    let producer = producer.expect("was welcome");
    assert_eq!((link.role, link.instance), (Role::PRODUCER, producer.instance()));
    assert_eq!(link.credential, b"secret");
    let LinkState::Open(welcomed) = producer.state() else { panic!("is open") };
    assert_eq!((welcomed.session, welcomed.broker), (9, 10));
}

#[tokio::test]
async fn a_final_refusal_is_not_tried_again() {
    for (code, remedy) in [
        (ErrorCode::BAD_CREDENTIAL, "set the right token"),
        (ErrorCode::NOT_PERMITTED, "use one that has both"),
        (ErrorCode::NO_COMMON_VERSION, "update the older one"),
        (ErrorCode::BAD_VALUE, ""),
    ] {
        let broker = Broker::bind().await;
        let refuse = async { broker.greet().await.refuse(code).await };
        let (result, ()) = tokio::join!(Producer::connect(broker.options()), refuse);
        let error = result.expect_err("was refused");
        assert_eq!(error.code(), Some(code));
        let text = error.to_string();
        assert!(text.contains("(because)") && text.ends_with(remedy), "{text}");
    }
}

/// [ERR-4]: what may be tried again, code by code, whether the link was open or not.
#[tokio::test]
async fn every_code_is_either_final_or_tried_again() {
    const FINAL: [&str; 6] = [
        "bad_credential",
        "not_permitted",
        "not_supported",
        "no_common_version",
        "no_session",
        "superseded",
    ];
    let (mut finals, mut retried) = (0, 0);
    for &(name, code) in ErrorCode::ALL {
        let is_final = (101..=199).contains(&code.0) || FINAL.contains(&name);
        for was_open in [false, true] {
            let broker = Broker::bind().await;
            let producer = Producer::start(broker.options()).expect("options work");
            let link = if was_open { broker.accept().await } else { broker.greet().await };
            link.refuse(code).await;
            if is_final {
                let failed = state(&producer, |state| matches!(state, LinkState::Failed(_))).await;
                let LinkState::Failed(error) = failed else { unreachable!() };
                assert_eq!(error.kind, LinkErrorKind::Refused(code), "{name}");
                finals += 1;
            } else {
                let _link = broker.accept().await;
                let now = state(&producer, |s| is_open(s) || matches!(s, LinkState::Failed(_)));
                assert!(is_open(&now.await), "{name}");
                retried += 1;
            }
        }
    }
    assert!(finals > 20 && retried > 20, "{finals} final, {retried} tried again");
}

#[tokio::test]
async fn a_failed_link_fails_what_waits_and_what_comes() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let waiting = producer.send(Publish::to([1])).expect("is kept");
    broker.greet().await.refuse(ErrorCode::BAD_CREDENTIAL).await;
    for outcome in [soon(waiting).await, producer.publish(Publish::to([1])).await] {
        let Err(PublishError::Closed(Some(error))) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind, LinkErrorKind::Refused(ErrorCode::BAD_CREDENTIAL));
    }
    state(&producer, |state| matches!(state, LinkState::Failed(_))).await;
}

#[tokio::test]
async fn connect_tries_each_broker_once() {
    // Nobody listens on the lowest port; one that was just given back may be another test's by now.
    let gone = String::from("127.0.0.1:1");
    let broker = Broker::bind().await;
    let options = Options { brokers: vec![gone.clone(), broker.address()], ..broker.options() };
    let (producer, _link) = tokio::join!(Producer::connect(options), broker.accept());
    let LinkState::Open(welcomed) = producer.expect("the second answers").state() else {
        panic!("is open")
    };
    assert_eq!(*welcomed.address, *broker.address());

    let options = Options { brokers: vec![gone.clone(), gone], ..broker.options() };
    let error = soon(Producer::connect(options)).await.expect_err("nobody answers");
    assert_eq!(error.kind(), Some(LinkErrorKind::Unreachable));
}

#[tokio::test]
async fn a_socket_without_welcome_is_given_up() {
    let broker = Broker::bind().await;
    let connect_timeout = Duration::from_millis(200);
    let options = Options { connect_timeout, ..broker.options() };
    let (result, _silent) = tokio::join!(Producer::connect(options), broker.greet());
    assert_eq!(result.expect_err("no WELCOME").kind(), Some(LinkErrorKind::Timeout));
}

#[tokio::test]
async fn retry_after_is_a_lower_bound() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.greet().await;
    let frame = ErrorFrame {
        fatal: true,
        code: ErrorCode::TOO_MANY_LINKS,
        retry_after_ms: 40,
        ..ErrorFrame::default()
    };
    link.send(&Frame::Error(frame)).await;
    let down = state(&producer, |state| matches!(state, LinkState::Down { .. })).await;
    let LinkState::Down { retry_in, reason, attempts } = down else { unreachable!() };
    assert!(retry_in >= Duration::from_millis(40), "{retry_in:?}");
    assert_eq!(reason.kind, LinkErrorKind::Refused(ErrorCode::TOO_MANY_LINKS));
    assert_eq!(attempts, 1);
    let _link = broker.accept().await;
    state(&producer, is_open).await;
}

#[tokio::test]
async fn malformed_bytes_end_the_link_with_an_error_and_it_reconnects() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    link.send_bytes(&[1, 0x7f, 2, 0, 0, 0, 0, 0]).await;
    let got = link.next().await;
    let Frame::Error(error) = got.frame() else { panic!("no ERROR") };
    assert!(error.fatal);
    assert_eq!((error.code, error.ref_kind), (ErrorCode::UNKNOWN_KIND, Kind(0x7f)));
    let down = state(&producer, |state| matches!(state, LinkState::Down { .. })).await;
    let LinkState::Down { reason, .. } = down else { unreachable!() };
    assert_eq!(reason.kind, LinkErrorKind::Violated(ErrorCode::UNKNOWN_KIND));
    let _link = broker.accept().await;
    state(&producer, is_open).await;
}

#[tokio::test]
async fn frames_are_understood_however_they_are_divided() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    link.stream.set_nodelay(true).expect("a socket");
    let mut bytes = Vec::new();
    Ping { token: 7 }.encode(&mut bytes);
    // A kind that is to be skipped, header and payload.
    bytes.extend_from_slice(&[1, 0x80, 2, 0, 3, 0, 0, 0]);
    bytes.extend_from_slice(&[0; 11]);
    Ping { token: 8 }.encode(&mut bytes);
    for byte in bytes {
        link.send_bytes(&[byte]).await;
        tokio::task::yield_now().await;
    }
    for token in [7, 8] {
        assert_eq!(link.next().await.frame(), Frame::Pong(Pong { token }));
    }
    drop(producer);
}

#[tokio::test]
async fn silence_is_asked_about_and_then_ends_the_link() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept_with(Welcome { keepalive_ms: 100, ..welcome() }).await;
    let mut pings = 0;
    loop {
        let got = link.next().await;
        match got.frame() {
            Frame::Ping(_) => pings += 1,
            Frame::Error(error) => {
                assert_eq!(error.code, ErrorCode::KEEPALIVE_TIMEOUT);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..=limits::MISSED_PINGS_MAX).contains(&pings), "{pings}");
    let down = state(&producer, |state| matches!(state, LinkState::Down { .. })).await;
    assert!(matches!(down, LinkState::Down { reason, .. } if reason.kind == LinkErrorKind::Lost));
}

#[tokio::test]
async fn a_process_that_was_stopped_reads_before_it_judges() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept_with(Welcome { keepalive_ms: 20, ..welcome() }).await;
    state(&producer, is_open).await;
    for token in 0..20 {
        link.send(&Frame::Ping(Ping { token })).await;
        // Nothing of this process runs for longer than missed_pings_max periods.
        let stopped = std::time::Instant::now();
        while stopped.elapsed() < Duration::from_millis(70) {
            std::hint::spin_loop();
        }
        loop {
            match link.next().await.frame() {
                Frame::Pong(pong) if pong.token == token => break,
                Frame::Ping(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_draining_broker_is_left_for_another_without_losing_a_publish() {
    let old = Broker::bind().await;
    let new = Broker::bind().await;
    let options = Options { brokers: vec![old.address(), new.address()], ..old.options() };
    let producer = Producer::start(options).expect("options work");
    let mut link = old.accept().await;
    let first = producer.send(Publish::to([1])).expect("room");
    let got = link.next().await;
    link.send(&Frame::Drain(Drain { deadline_ms: 60_000 })).await;
    state(&producer, |state| {
        matches!(state, LinkState::Open(welcomed) if welcomed.state == BrokerState::DRAINING)
    })
    .await;
    let second = producer.send(Publish::to([2])).expect("room");
    link.all_sent(&got.publish()).await;
    assert_eq!(soon(first).await.expect("served").sent, 1);
    assert_eq!(link.next().await.kind(), Kind::DRAIN);
    link.ended().await;
    drop(link);
    let mut link = new.accept().await;
    let got = link.next().await;
    assert_eq!(got.publish().targets.iter().collect::<Vec<_>>(), [2]);
    link.all_sent(&got.publish()).await;
    assert_eq!(soon(second).await.expect("served").sent, 1);
}

#[tokio::test]
async fn a_change_of_the_brokers_state_is_seen() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    link.send(&Frame::State(State { state: BrokerState::NOT_READY, gateways_missing: 2 })).await;
    state(&producer, |state| {
        matches!(state, LinkState::Open(welcomed) if welcomed.state == BrokerState::NOT_READY)
    })
    .await;
}

#[tokio::test]
async fn close_waits_for_receipts_says_drain_and_leaves() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let waiting = producer.send(Publish::to([1])).expect("room");
    let play = async {
        let got = link.next().await;
        link.all_sent(&got.publish()).await;
        let got = link.next().await;
        assert_eq!(got.kind(), Kind::DRAIN);
        link.ended().await;
        drop(link);
    };
    soon(async { tokio::join!(producer.close(), play) }).await;
    assert_eq!(waiting.await.expect("served before the end").sent, 1);
    assert!(matches!(producer.state(), LinkState::Closed));
    let outcome = producer.publish(Publish::to([1])).await;
    assert!(matches!(outcome, Err(PublishError::Closed(None))), "{outcome:?}");
}

#[tokio::test]
async fn close_does_not_wait_for_ever() {
    let broker = Broker::bind().await;
    let close_timeout = Duration::from_millis(30);
    let options = Options { close_timeout, ..broker.options() };
    let producer = Producer::start(options.clone()).expect("options work");
    let mut silent = broker.accept().await;
    let waiting = producer.send(Publish::to([1])).expect("room");
    silent.next().await;
    soon(producer.close()).await;
    assert_eq!(waiting.await.expect("went out").unknown, [1]);

    // Nor for a broker that is not there.
    let producer = Producer::start(options).expect("options work");
    drop(broker);
    let waiting = producer.send(Publish::to([1])).expect("room");
    soon(producer.close()).await;
    assert!(matches!(waiting.await, Err(PublishError::Closed(_))));
}

#[tokio::test]
async fn dropping_the_last_handle_closes_in_the_background() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let waiting = producer.clone().send(Publish::to([1])).expect("room");
    drop(producer);
    let got = link.next().await;
    link.all_sent(&got.publish()).await;
    assert_eq!(soon(waiting).await.expect("served").sent, 1);
    assert_eq!(link.next().await.kind(), Kind::DRAIN);
    link.ended().await;
}

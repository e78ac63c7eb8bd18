//! The gateway link over a socket.

use bytes::Bytes;
use futures_util::StreamExt;
use waybill_client::gateway::{Change, GatewayEvent, GatewayEvents, GatewayLink};
use waybill_client::gateway::{Registration, Uplink};
use waybill_client::{BrokerState, ErrorCode, LinkErrorKind};
use waybill_wire::code::{Kind, Op, Role};
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::{Drain, InEffect, Ping, UplinkAck, Welcome};
use waybill_wire::{Frame, MessageHead};

use crate::support::{Broker, Link, soon, welcome};

fn user(uid: u64) -> Registration {
    Registration { namespace: 0, uid, device_class: 0, login: 0 }
}

fn digest(uids: impl IntoIterator<Item = u64>) -> u64 {
    let registered = |uid| Registered { uid, ..Registered::default() };
    uids.into_iter().map(registered).collect::<Digest>().value()
}

async fn next(events: &mut GatewayEvents) -> GatewayEvent {
    soon(events.next()).await.expect("the link lives")
}

async fn in_effect(events: &mut GatewayEvents) -> u64 {
    loop {
        match next(events).await {
            GatewayEvent::InEffect { ticket } => return ticket,
            GatewayEvent::Up(_) | GatewayEvent::Down { .. } => {}
            GatewayEvent::Restored { resumed: false, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Reads a snapshot of one frame and confirms it; its UIDs.
async fn snapshot(link: &mut Link) -> Vec<u64> {
    let got = link.next().await;
    let Frame::Snapshot(snapshot) = got.frame() else { panic!("{:?}", got.kind()) };
    assert!(snapshot.first && snapshot.last);
    let uids: Vec<u64> = snapshot.records.iter().map(|record| record.uid).collect();
    let digest = digest(uids.iter().copied());
    link.send(&Frame::InEffect(InEffect { version: snapshot.version, digest })).await;
    uids
}

#[tokio::test]
async fn users_are_declared_confirmed_and_declared_again_on_the_next_link() {
    let broker = Broker::bind().await;
    let (link, mut events) = GatewayLink::start(broker.options(), 0x5eed).expect("options work");
    link.change(1, vec![Change::add(user(1)), Change::add(user(2))]).await.expect("lives");
    let mut broker_link = broker.accept().await;
    assert_eq!((broker_link.role, broker_link.instance), (Role::GATEWAY, 0x5eed));
    assert!(matches!(next(&mut events).await, GatewayEvent::Up(_)));
    assert_eq!(snapshot(&mut broker_link).await, [1, 2]);
    assert_eq!(in_effect(&mut events).await, 1);

    link.change(2, vec![Change::remove(user(1)), Change::add(user(3))]).await.expect("lives");
    let got = broker_link.next().await;
    let Frame::Delta(delta) = got.frame() else { panic!("{:?}", got.kind()) };
    assert_eq!(delta.version, 2);
    let records: Vec<_> = delta.records.iter().map(|record| (record.op, record.uid)).collect();
    assert_eq!(records, [(Op::ADD, 3), (Op::REMOVE, 1)]);
    let got = broker_link.next().await;
    let Frame::Barrier(barrier) = got.frame() else { panic!("{:?}", got.kind()) };
    assert_eq!((barrier.version, barrier.digest), (2, digest([2, 3])));
    // The link dies before it is confirmed: the snapshot of the next one carries it.
    drop(broker_link);
    let down = next(&mut events).await;
    assert!(
        matches!(down, GatewayEvent::Down { reason, .. } if reason.kind == LinkErrorKind::Lost)
    );
    let mut broker_link = broker.accept().await;
    assert_eq!(snapshot(&mut broker_link).await, [2, 3]);
    assert_eq!(in_effect(&mut events).await, 2);
}

#[tokio::test]
async fn a_wrong_digest_ends_the_link_and_a_snapshot_mends_it() {
    let broker = Broker::bind().await;
    let (link, mut events) = GatewayLink::start(broker.options(), 1).expect("options work");
    link.change(1, vec![Change::add(user(1))]).await.expect("lives");
    let mut broker_link = broker.accept().await;
    broker_link.next().await;
    broker_link.send(&Frame::InEffect(InEffect { version: 1, digest: 99 })).await;
    let got = broker_link.next().await;
    let Frame::Error(error) = got.frame() else { panic!("{:?}", got.kind()) };
    assert_eq!(error.code, ErrorCode::DIGEST_MISMATCH);
    broker_link.ended().await;
    let mut broker_link = broker.accept().await;
    assert_eq!(snapshot(&mut broker_link).await, [1]);
    assert_eq!(in_effect(&mut events).await, 1);
}

fn deliver(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let head = MessageHead { sequence, origin: Some(5), ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode(Kind::DELIVER, &[1001], payload, &mut bytes).expect("allowed");
    bytes
}

#[tokio::test]
async fn deliveries_uplinks_and_states_come_through() {
    let broker = Broker::bind().await;
    let (link, mut events) = GatewayLink::start(broker.options(), 1).expect("options work");
    let mut broker_link = broker.accept().await;
    snapshot(&mut broker_link).await;
    assert_eq!(in_effect(&mut events).await, 0);

    broker_link.send_bytes(&deliver(1, b"hello")).await;
    let GatewayEvent::Delivery(delivery) = next(&mut events).await else { panic!("no delivery") };
    assert_eq!(delivery.message().targets.iter().collect::<Vec<_>>(), [1001]);
    assert_eq!(delivery.payload(), Bytes::from_static(b"hello"));

    let uplink = Uplink {
        sequence: 1,
        uid: 7,
        connection: 70,
        labels: vec!["order.paid".into()],
        payload: Bytes::from_static(b"up"),
        ..Uplink::default()
    };
    link.uplink(uplink).await.expect("lives");
    let got = broker_link.next().await;
    let Frame::Uplink(message) = got.frame() else { panic!("{:?}", got.kind()) };
    let sender = message.sender.expect("is named");
    assert_eq!((sender.uid, sender.connection, message.payload), (7, 70, &b"up"[..]));
    assert_eq!(message.labels.iter().collect::<Vec<_>>(), ["order.paid"]);
    assert_eq!(message.origin, None);
    let ack = UplinkAck { code: ErrorCode::NO_CONSUMER, sequence: 1, origin: 1 };
    broker_link.send(&Frame::UplinkAck(ack)).await;
    let answer = next(&mut events).await;
    assert!(matches!(
        answer,
        GatewayEvent::UplinkAck { sequence: 1, code: ErrorCode::NO_CONSUMER }
    ));

    // A gateway stays on a draining broker: it is still served.
    broker_link.send(&Frame::Drain(Drain { deadline_ms: 60_000 })).await;
    let state = next(&mut events).await;
    assert!(matches!(state, GatewayEvent::BrokerState { state: BrokerState::DRAINING, .. }));
    broker_link.send_bytes(&deliver(2, b"still")).await;
    assert!(matches!(next(&mut events).await, GatewayEvent::Delivery(_)));
    drop(broker_link);
    let down = next(&mut events).await;
    assert!(
        matches!(down, GatewayEvent::Down { reason, .. } if reason.kind == LinkErrorKind::Drained)
    );
}

#[tokio::test]
async fn a_slow_application_is_felt_by_the_broker_and_not_timed_out() {
    let broker = Broker::bind().await;
    let (_link, mut events) = GatewayLink::start(broker.options(), 1).expect("options work");
    let mut broker_link = broker.accept_with(Welcome { keepalive_ms: 50, ..welcome() }).await;
    snapshot(&mut broker_link).await;
    // Far more than queue, buffers and kernel hold: the last write ends only if somebody reads.
    let frame = deliver(1, &vec![7; 64 << 10]);
    const COUNT: usize = 1500;
    let write = async {
        for _ in 0..COUNT {
            tokio::io::AsyncWriteExt::write_all(&mut broker_link.stream, &frame).await?;
        }
        std::io::Result::Ok(())
    };
    tokio::pin!(write);
    // Many keepalive periods pass while nobody takes an event.
    let early = tokio::time::timeout(std::time::Duration::from_millis(400), &mut write).await;
    assert!(early.is_err(), "the broker must feel it");
    let read = async {
        let mut delivered = 0;
        while delivered < COUNT {
            match events.next().await.expect("the link lives") {
                GatewayEvent::Delivery(_) => delivered += 1,
                GatewayEvent::Up(_) | GatewayEvent::InEffect { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let (written, ()) = soon(async { tokio::join!(write, read) }).await;
    written.expect("the link lived");
    // PINGs went out all the while.
    broker_link.send(&Frame::Ping(Ping { token: 1 })).await;
    let got = broker_link.next().await;
    assert_eq!(got.kind(), Kind::PING);
}

#[tokio::test]
async fn closing_says_drain_and_ends_the_stream() {
    let broker = Broker::bind().await;
    let (link, mut events) = GatewayLink::start(broker.options(), 1).expect("options work");
    let mut broker_link = broker.accept().await;
    snapshot(&mut broker_link).await;
    assert_eq!(in_effect(&mut events).await, 0);
    let play = async {
        assert_eq!(broker_link.next().await.kind(), Kind::DRAIN);
        // What was on its way still arrives.
        broker_link.send_bytes(&deliver(1, b"last")).await;
        broker_link.ended().await;
        drop(broker_link);
    };
    soon(async { tokio::join!(link.close(), play) }).await;
    assert!(matches!(next(&mut events).await, GatewayEvent::Delivery(_)));
    assert!(soon(events.next()).await.is_none());
    assert!(link.change(1, Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_superseded_link_fails_for_good() {
    let broker = Broker::bind().await;
    let (_link, mut events) = GatewayLink::start(broker.options(), 1).expect("options work");
    broker.accept().await.refuse(ErrorCode::SUPERSEDED).await;
    assert!(matches!(next(&mut events).await, GatewayEvent::Up(_)));
    let failed = next(&mut events).await;
    let GatewayEvent::Failed(error) = failed else { panic!("{failed:?}") };
    assert_eq!(error.code(), Some(ErrorCode::SUPERSEDED));
    assert!(soon(events.next()).await.is_none());
}

#[tokio::test]
async fn an_incarnation_of_zero_is_refused() {
    let broker = Broker::bind().await;
    let error = GatewayLink::start(broker.options(), 0).expect_err("is not random");
    assert_eq!(error.field, "incarnation");
}

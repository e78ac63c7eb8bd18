//! The consumer over a socket.

use futures_util::StreamExt;
use waybill_client::LinkErrorKind;
use waybill_client::{
    Ack, Consumer, ConsumerConfig, ConsumerEvents, ErrorCode, LinkState, Options, UplinkMessage,
};
use waybill_wire::code::{Kind, Role};
use waybill_wire::message::Sender;
use waybill_wire::{Frame, MessageHead};

use crate::support::{Broker, Link, soon};

const MANUAL: ConsumerConfig = ConsumerConfig {
    ack: Ack::Manual,
    groups: Vec::new(),
    presence: false,
    offline: false,
    filters: Vec::new(),
};

async fn uplink(link: &mut Link, sequence: u64) {
    let sender = Some(Sender { uid: 7, connection: 70 });
    let head = MessageHead { sequence, sender, origin: Some(8), ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode_uplink(b"up", &mut bytes).expect("allowed");
    link.send_bytes(&bytes).await;
}

async fn next(uplinks: &mut ConsumerEvents) -> UplinkMessage {
    soon(uplinks.next()).await.expect("the link lives").uplink().expect("from a user")
}

/// Sequence and code of the next answer.
async fn answer(link: &mut Link) -> (u64, ErrorCode) {
    let got = link.next().await;
    let Frame::UplinkAck(ack) = got.frame() else { panic!("{:?}", got.kind()) };
    assert_eq!(ack.origin, 8);
    (ack.sequence, ack.code)
}

#[tokio::test]
async fn messages_are_accepted_as_they_are_taken() {
    let broker = Broker::bind().await;
    let options = ConsumerConfig::default();
    let (consumer, link) =
        tokio::join!(Consumer::connect(broker.options(), options), broker.accept());
    let ((_consumer, mut uplinks), mut link) = (consumer.expect("was welcome"), link);
    assert_eq!(link.role, Role::CONSUMER);
    uplink(&mut link, 3).await;
    let message = next(&mut uplinks).await;
    assert_eq!((message.uid, message.connection, message.origin), (7, 70, 8));
    assert_eq!((message.sequence, &message.payload[..]), (3, &b"up"[..]));
    assert!(message.is_answered());
    assert_eq!(answer(&mut link).await, (3, ErrorCode(0)));
}

#[tokio::test]
async fn the_application_answers_in_its_own_order() {
    let broker = Broker::bind().await;
    let (_consumer, mut uplinks) = Consumer::start(broker.options(), MANUAL).expect("options work");
    let mut link = broker.accept().await;
    for sequence in 1..=4 {
        uplink(&mut link, sequence).await;
    }
    let mut messages = Vec::new();
    for _ in 1..=4 {
        messages.push(next(&mut uplinks).await);
    }
    messages[2].accept();
    assert_eq!(answer(&mut link).await, (3, ErrorCode(0)));
    messages[0].refuse(ErrorCode::EXPIRED);
    assert_eq!(answer(&mut link).await, (1, ErrorCode::EXPIRED));
    messages[1].refuse(ErrorCode::SHUTTING_DOWN);
    assert_eq!(answer(&mut link).await, (2, ErrorCode::NOT_PERMITTED), "only 301-499 may be sent");
    messages[1].accept();
    drop(messages);
    assert_eq!(answer(&mut link).await, (4, ErrorCode::CONSUMER_LOST), "dropped without an answer");
}

#[tokio::test]
async fn no_more_are_taken_than_may_be_unanswered() {
    let broker = Broker::bind().await;
    let options = Options { max_in_flight: 2, ..broker.options() };
    let (_consumer, mut uplinks) = Consumer::start(options, MANUAL).expect("options work");
    let mut link = broker.accept().await;
    for sequence in 1..=3 {
        uplink(&mut link, sequence).await;
    }
    let mut first = next(&mut uplinks).await;
    let _second = next(&mut uplinks).await;
    assert!(futures_util::FutureExt::now_or_never(uplinks.next()).is_none(), "no place is free");
    first.accept();
    assert_eq!(answer(&mut link).await, (1, ErrorCode(0)));
    assert_eq!(next(&mut uplinks).await.sequence, 3);
}

#[tokio::test]
async fn it_reconnects_and_answers_a_copy_by_the_new_link() {
    let broker = Broker::bind().await;
    let (consumer, mut uplinks) = Consumer::start(broker.options(), MANUAL).expect("options work");
    let mut link = broker.accept().await;
    uplink(&mut link, 1).await;
    let mut old = next(&mut uplinks).await;
    drop(link);
    let mut link = broker.accept().await;
    soon(consumer.watch().wait_for(|state| matches!(state, LinkState::Open(_)))).await.expect("up");
    // For nobody: the link it came by is gone. The copy is answered by what is remembered.
    old.accept();
    uplink(&mut link, 1).await;
    assert_eq!(answer(&mut link).await, (1, ErrorCode(0)));
    uplink(&mut link, 2).await;
    next(&mut uplinks).await.refuse(ErrorCode::NOT_SUPPORTED);
    assert_eq!(answer(&mut link).await, (2, ErrorCode::NOT_SUPPORTED));
}

#[tokio::test]
async fn closing_drains_first_and_waits_for_answers() {
    let broker = Broker::bind().await;
    let (consumer, mut uplinks) = Consumer::start(broker.options(), MANUAL).expect("options work");
    let mut link = broker.accept().await;
    uplink(&mut link, 1).await;
    let mut message = next(&mut uplinks).await;
    let play = async {
        assert_eq!(link.next().await.kind(), Kind::DRAIN);
        uplink(&mut link, 2).await;
        assert_eq!(answer(&mut link).await, (2, ErrorCode::NO_CONSUMER));
        message.accept();
        assert_eq!(answer(&mut link).await, (1, ErrorCode(0)));
        link.ended().await;
        drop(link);
    };
    soon(async { tokio::join!(consumer.close(), play) }).await;
    assert!(soon(uplinks.next()).await.is_none());
}

#[tokio::test]
async fn dropping_the_stream_closes_the_link() {
    let broker = Broker::bind().await;
    let (consumer, mut uplinks) = Consumer::start(broker.options(), MANUAL).expect("options work");
    let mut link = broker.accept().await;
    uplink(&mut link, 1).await;
    // Once it is there: a message that was not read yet is the broker's to give up.
    let message = next(&mut uplinks).await;
    drop(uplinks);
    drop(message);
    // A message without an answer is refused, and DRAIN is said.
    let mut kinds = [link.next().await.kind(), link.next().await.kind()];
    kinds.sort();
    assert_eq!(kinds, [Kind::DRAIN, Kind::UPLINK_ACK]);
    link.ended().await;
    drop(link);
    let closed = |state: &LinkState| matches!(state, LinkState::Closed);
    soon(consumer.watch().wait_for(closed)).await.expect("told before the task ended");
}

#[tokio::test]
async fn connect_says_why_not() {
    let broker = Broker::bind().await;
    let refuse = async { broker.greet().await.refuse(ErrorCode::NOT_PERMITTED).await };
    let connect = Consumer::connect(broker.options(), MANUAL);
    let (result, ()) = tokio::join!(connect, refuse);
    let error = result.map(drop).expect_err("was refused");
    assert_eq!(error.kind(), Some(LinkErrorKind::Refused(ErrorCode::NOT_PERMITTED)));
}

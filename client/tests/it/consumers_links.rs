//! A consumer with several brokers: what they bring is merged, and answers go where they belong.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use waybill_client::{
    Ack, Consumer, ConsumerConfig, ConsumerEvent, ConsumerEvents, ErrorCode, Event, Group,
    LinkState, Lookup, Options, Resolver,
};
use waybill_wire::code::{Kind, Op, capability};
use waybill_wire::frame::{Presence, Welcome};
use waybill_wire::message::Sender;
use waybill_wire::{Frame, MessageHead};

use crate::support::{Broker, Link, soon, welcome};

fn manual() -> ConsumerConfig {
    ConsumerConfig { ack: Ack::Manual, ..ConsumerConfig::default() }
}

async fn two() -> (Broker, Broker, Options) {
    let (one, other) = (Broker::bind().await, Broker::bind().await);
    let options = Options { brokers: vec![one.address(), other.address()], ..one.options() };
    (one, other, options)
}

async fn uplink(link: &mut Link, sequence: u64, resend: bool) {
    let sender = Some(Sender { uid: 7, connection: 70 });
    let head = MessageHead { sequence, resend, sender, origin: Some(8), ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode_uplink(b"up", &mut bytes).expect("allowed");
    link.send_bytes(&bytes).await;
}

async fn answer(link: &mut Link) -> (u64, ErrorCode) {
    let got = link.next().await;
    let Frame::UplinkAck(ack) = got.frame() else { panic!("{:?}", got.kind()) };
    (ack.sequence, ack.code)
}

async fn next(events: &mut ConsumerEvents) -> ConsumerEvent {
    soon(events.next()).await.expect("a link lives")
}

#[tokio::test]
async fn each_broker_is_linked_to_by_one_consumer() {
    let (one, other, options) = two().await;
    let (consumer, mut events) = Consumer::start(options, manual()).expect("options work");
    let (mut first, mut second) = tokio::join!(one.accept(), other.accept());
    assert_eq!(first.instance, second.instance, "one life, one number");
    uplink(&mut first, 1, false).await;
    let mut from_first = next(&mut events).await.uplink().expect("from a user");
    uplink(&mut second, 2, false).await;
    next(&mut events).await.uplink().expect("from a user").accept();
    from_first.refuse(ErrorCode::EXPIRED);
    assert_eq!(answer(&mut first).await, (1, ErrorCode::EXPIRED), "by the link it came by");
    assert_eq!(answer(&mut second).await, (2, ErrorCode(0)));
    // One broker that is lost is no outage.
    drop(second);
    let back = other.accept().await;
    assert!(matches!(consumer.state(), LinkState::Open(_)));
    assert_eq!(consumer.watch_links().borrow().len(), 2);
    drop(back);
}

/// The gateway sends again what was unanswered.
#[tokio::test]
async fn an_uplink_that_comes_again_is_answered_as_the_first_and_handed_out_once() {
    let (one, other, options) = two().await;
    let (_consumer, mut events) = Consumer::start(options, manual()).expect("options work");
    let (mut first, mut second) = tokio::join!(one.accept(), other.accept());
    uplink(&mut first, 1, false).await;
    let mut message = next(&mut events).await.uplink().expect("from a user");
    // The first broker dies before the answer; the copy comes by the second.
    drop(first);
    uplink(&mut second, 1, true).await;
    uplink(&mut second, 2, false).await;
    let mut another = next(&mut events).await.uplink().expect("from a user");
    assert_eq!(another.sequence, 2, "the copy is not handed out");
    message.refuse(ErrorCode::NOT_PERMITTED);
    assert_eq!(answer(&mut second).await, (1, ErrorCode::NOT_PERMITTED), "for the copy");
    another.accept();
    assert_eq!(answer(&mut second).await, (2, ErrorCode(0)));
    // Answered already: the answer is remembered.
    uplink(&mut second, 1, true).await;
    assert_eq!(answer(&mut second).await, (1, ErrorCode::NOT_PERMITTED));
}

fn all_capabilities() -> Welcome {
    let capabilities = capability::GROUPS | capability::PRESENCE | capability::OFFLINE;
    Welcome { capabilities, ..welcome() }
}

#[tokio::test]
async fn it_joins_its_groups_and_is_told_presence_once_and_offline_messages() {
    let (one, other, options) = two().await;
    let group = |namespace, name: &str| Group { namespace, name: name.into() };
    let groups = vec![group(3, "billing"), group(4, "audit")];
    let config = ConsumerConfig { groups, presence: true, offline: true, ..manual() };
    let (_consumer, mut events) = Consumer::start(options, config).expect("options work");
    let (mut first, mut second) =
        tokio::join!(one.accept_with(all_capabilities()), other.accept_with(all_capabilities()));
    for link in [&mut first, &mut second] {
        for (namespace, name) in [(3, "billing"), (4, "audit")] {
            let got = link.next().await;
            let Frame::Group(group) = got.frame() else { panic!("{:?}", got.kind()) };
            assert_eq!((group.op, group.namespace, group.name), (Op::ADD, namespace, name));
        }
    }
    let login = |uid| {
        let (event, gateway) = (Event::LOGIN, 9);
        Frame::Presence(Presence { event, device_class: 0, namespace: 3, uid, login: 1, gateway })
    };
    first.send(&login(7)).await;
    let ConsumerEvent::Presence(presence) = next(&mut events).await else { panic!("no login") };
    assert_eq!((presence.event, presence.uid, presence.gateway), (Event::LOGIN, 7, 9));
    second.send(&login(7)).await;
    let head = MessageHead { sequence: 5, origin: Some(6), ..MessageHead::default() };
    let mut bytes = Vec::new();
    head.encode(Kind::OFFLINE, &[1001, 1002], b"order", &mut bytes).expect("allowed");
    second.send_bytes(&bytes).await;
    // The copy of the login would have come first.
    let ConsumerEvent::Offline(message) = next(&mut events).await else { panic!("no message") };
    assert_eq!((message.instance, message.sequence), (6, 5));
    assert_eq!((message.uids, &message.payload[..]), (vec![1001, 1002], &b"order"[..]));
}

#[tokio::test]
async fn groups_that_cannot_be_are_said_at_once() {
    let group = |namespace, name: &str| Group { namespace, name: name.into() };
    for (groups, problem) in [
        (vec![group(1, "")], "0 bytes"),
        (vec![group(1, "a"), group(1, "b")], "namespace 1 is there twice"),
        ((0..65).map(|namespace| group(namespace, "a")).collect(), "65 groups"),
    ] {
        let config = ConsumerConfig { groups, ..manual() };
        let error = Consumer::start(Options::default(), config).expect_err("cannot be");
        assert!(error.to_string().contains(problem), "{error}");
    }
}

/// Answers what the test says.
#[derive(Clone, Debug, Default)]
struct Names(Arc<Mutex<Vec<SocketAddr>>>);

impl Names {
    fn are(&self, brokers: &[&Broker]) {
        let parse = |broker: &&Broker| broker.address().parse().expect("an address");
        *self.0.lock().expect("not poisoned") = brokers.iter().map(parse).collect();
    }
}

impl Resolver for Names {
    fn resolve(&self, _name: String) -> Lookup {
        let addresses = self.0.lock().expect("not poisoned").clone();
        Box::pin(async move { Ok(addresses) })
    }
}

#[tokio::test]
async fn a_name_is_followed_as_its_addresses_change() {
    let (one, other, options) = two().await;
    let names = Names::default();
    names.are(&[&one]);
    let (brokers, dns_refresh) = (vec!["dns:brokers:7711".to_owned()], Duration::from_millis(5));
    let options = Options { brokers, dns_refresh, ..options };
    let resolver = Arc::new(names.clone());
    let started = Consumer::start_with(options, manual(), resolver).expect("options work");
    let (_consumer, mut events) = started;
    let mut first = one.accept().await;
    names.are(&[&other]);
    let mut second = other.accept().await;
    // The one that is no longer listed is left in good order.
    assert_eq!(first.next().await.kind(), Kind::DRAIN);
    first.ended().await;
    uplink(&mut second, 1, false).await;
    next(&mut events).await.uplink().expect("from a user").accept();
    assert_eq!(answer(&mut second).await, (1, ErrorCode(0)));
}

#[tokio::test]
async fn the_stream_ends_when_no_broker_wants_it() {
    let (one, other, options) = two().await;
    let (consumer, mut events) = Consumer::start(options, manual()).expect("options work");
    one.greet().await.refuse(ErrorCode::BAD_CREDENTIAL).await;
    other.greet().await.refuse(ErrorCode::BAD_CREDENTIAL).await;
    assert!(soon(events.next()).await.is_none());
    assert!(matches!(consumer.state(), LinkState::Failed(_)));
}

//! The client crate at real brokers: failing over, going on with a session, lists of any length.

use std::time::Duration;

use futures_util::StreamExt as _;
use waybill_broker::{Broker, BrokerConfig, BrokerHandle, LoginPolicy};
use waybill_client::gateway::{
    Change, Delivery, GatewayCommand, GatewayEvent, GatewayEvents, GatewayLink, Registration,
    Report,
};
use waybill_client::{
    Backoff, ErrorCode, LinkState, Options, Producer, Publish, PublishError, ReceiptLevel,
};
use waybill_wire::code::Fate;

use wire::Wire;

mod links;
mod wire;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("happens soon")
}

/// A broker on a free port, whose ledger balances when the test is over (promise 5).
struct Served(BrokerHandle);

impl Served {
    fn with(config: BrokerConfig) -> Self {
        let listen = ([127, 0, 0, 1], 0).into();
        Self(Broker::start(BrokerConfig { listen, ..config }).expect("a broker starts"))
    }

    fn ready() -> Self {
        Self::with(ready())
    }

    fn address(&self) -> String {
        self.0.local_addr().to_string()
    }
}

fn ready() -> BrokerConfig {
    BrokerConfig { ready_quiet_ms: 0, ..BrokerConfig::default() }
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // Its shards run while it is read: then it has to balance before long.
        let (began, mut balance) = (std::time::Instant::now(), self.0.ledger().balances());
        while balance.is_err() && began.elapsed() < PATIENCE {
            std::thread::yield_now();
            balance = self.0.ledger().balances();
        }
        assert_eq!(balance, Ok(()), "promise 5: {:?}", self.0.ledger());
    }
}

/// Options that reach these, in this order, and try again at once.
fn options<const N: usize>(brokers: [String; N]) -> Options {
    let backoff = Backoff { min: Duration::from_millis(1), max: Duration::from_millis(20) };
    Options { backoff, ..Options::new(brokers) }
}

fn user(uid: u64, login: u64) -> Registration {
    Registration { namespace: 0, uid, device_class: 0, login }
}

fn adds(uids: impl IntoIterator<Item = u64>) -> Vec<Change> {
    uids.into_iter().map(|uid| Change::add(user(uid, 0))).collect()
}

/// A gateway link whose users are in effect.
async fn gateway(
    broker: String,
    incarnation: u64,
    changes: Vec<Change>,
) -> (GatewayLink, GatewayEvents) {
    let (link, mut events) = GatewayLink::start(options([broker]), incarnation).unwrap();
    link.change(1, changes).await.unwrap();
    in_effect(&mut events, 1).await;
    (link, events)
}

async fn next(events: &mut GatewayEvents) -> GatewayEvent {
    soon(events.next()).await.expect("the link lives")
}

async fn in_effect(events: &mut GatewayEvents, wanted: u64) {
    while !matches!(next(events).await, GatewayEvent::InEffect { ticket } if ticket >= wanted) {}
}

async fn delivery(events: &mut GatewayEvents) -> Delivery {
    loop {
        if let GatewayEvent::Delivery(delivery) = next(events).await {
            return delivery;
        }
    }
}

fn id(delivery: &Delivery) -> (Option<u64>, u64, bool) {
    let message = delivery.message();
    (message.origin, message.sequence, message.resend)
}

/// [PUB-3]
#[tokio::test]
async fn a_producer_leaves_a_broker_that_is_not_ready_and_one_that_dies() {
    let waiting = Served::with(BrokerConfig {
        gateways_expected: 1,
        ready_quiet_ms: 60_000,
        ..BrokerConfig::default()
    });
    let other = Served::ready();
    let wire = Wire::to(other.0.local_addr()).await;
    let (_link, mut events) = gateway(other.address(), 5, adds([1])).await;
    let producer = Producer::start(options([waiting.address(), wire.address()])).unwrap();
    let receipt = soon(producer.publish(Publish::to([1]))).await.expect("served by the other");
    assert_eq!((receipt.sent, receipt.gateways, receipt.resent), (1, 1, false));
    delivery(&mut events).await;

    // The other one dies; the first has a gateway by now, so it is ready.
    let (_link, mut events) = gateway(waiting.address(), 5, adds([1])).await;
    drop(wire);
    let receipt = soon(producer.publish(Publish::to([1]))).await.expect("served by the first");
    assert_eq!(receipt.sent, 1);
    delivery(&mut events).await;
    producer.close().await;
}

/// A producer, and a gateway at each of two brokers, the first of which the producer no longer
/// hears.
struct Deaf {
    producer: Producer,
    wire: Wire,
    events: [GatewayEvents; 2],
    _links: [GatewayLink; 2],
    _brokers: [Served; 2],
}

impl Deaf {
    async fn new(adjust: impl FnOnce(Options) -> Options) -> Self {
        let brokers = [Served::ready(), Served::ready()];
        let wire = Wire::to(brokers[0].0.local_addr()).await;
        let (first, one) = gateway(brokers[0].address(), 5, adds([1])).await;
        let (second, two) = gateway(brokers[1].address(), 5, adds([1])).await;
        let options = adjust(options([wire.address(), brokers[1].address()]));
        let producer = Producer::connect(options).await.expect("is welcome");
        wire.mute();
        Self { producer, wire, events: [one, two], _links: [first, second], _brokers: brokers }
    }
}

/// [PUB-5], [DEL-6]: it keeps its message id, so that a gateway hands it to nobody twice.
#[tokio::test]
async fn promise_3_what_was_not_answered_goes_again_by_another_broker_as_the_same_message() {
    let mut deaf = Deaf::new(|options| options).await;
    let pending = deaf.producer.send(Publish::to([1]).payload("once")).unwrap();
    let first = delivery(&mut deaf.events[0]).await;
    drop(deaf.wire);
    let receipt = soon(pending).await.expect("served");
    assert_eq!((receipt.sent, receipt.resent, receipt.in_doubt), (1, true, false));
    let again = delivery(&mut deaf.events[1]).await;
    let (origin, sequence, resend) = id(&first);
    assert!(!resend);
    assert_eq!(id(&again), (origin, sequence, true));
    assert_eq!((origin, sequence), (Some(receipt.instance), receipt.sequence));
}

#[tokio::test]
async fn promise_3_without_a_retry_what_was_in_flight_is_unknown() {
    let never = |options| Options { resend_within: Duration::ZERO, ..options };
    let mut deaf = Deaf::new(never).await;
    let pending = deaf.producer.send(Publish::to([1]).payload("once")).unwrap();
    delivery(&mut deaf.events[0]).await;
    drop(deaf.wire);
    let receipt = soon(pending).await.expect("in doubt is no refusal");
    assert_eq!((receipt.unknown, receipt.in_doubt, receipt.resent), (vec![1], true, false));
    // What the second gateway gets first is the next message.
    let next = soon(deaf.producer.publish(Publish::to([1]))).await.expect("served");
    assert_eq!(id(&delivery(&mut deaf.events[1]).await), (Some(next.instance), 2, false));
}

/// Cuts a gateway's link, with a change meanwhile; whether its session was resumed.
async fn cut_and_come_back(config: BrokerConfig) -> bool {
    let broker = Served::with(config);
    let wire = Wire::to(broker.0.local_addr()).await;
    let (link, mut events) = gateway(wire.address(), 5, adds(1..=1000)).await;
    wire.cut();
    while !matches!(next(&mut events).await, GatewayEvent::Down { .. }) {}
    link.change(2, adds([2000])).await.unwrap();
    let resumed = loop {
        match next(&mut events).await {
            GatewayEvent::Restored { resumed, gap } => {
                assert!(gap < PATIENCE);
                break resumed;
            }
            GatewayEvent::InEffect { .. } => panic!("an outage ends before it"),
            _ => {}
        }
    };
    in_effect(&mut events, 2).await;
    let producer = Producer::connect(options([broker.address()])).await.expect("is welcome");
    let receipt = producer.publish(Publish::to([1, 1000, 1001, 2000])).await.expect("served");
    assert_eq!((receipt.sent, receipt.offline), (3, vec![1001]));
    delivery(&mut events).await;
    producer.close().await;
    resumed
}

#[tokio::test]
async fn a_gateway_whose_connection_was_cut_goes_on_with_its_session() {
    assert!(cut_and_come_back(ready()).await);
}

#[tokio::test]
async fn a_session_that_is_not_kept_is_declared_again() {
    assert!(!cut_and_come_back(BrokerConfig { resume_window_ms: 0, ..ready() }).await);
}

/// Answers each delivery: all were reached, or all dropped.
async fn reporting(link: GatewayLink, mut events: GatewayEvents, drops: bool) {
    while let Some(event) = events.next().await {
        let GatewayEvent::Delivery(delivery) = event else { continue };
        let mut report = Report::on(&delivery);
        let targets = delivery.message().targets;
        match drops {
            true => {
                let drop = |uid| report.add(Fate::DROPPED, ErrorCode::OUTBOX_FULL, uid);
                targets.iter().for_each(drop);
            }
            false => report.reached = u32::try_from(targets.len()).unwrap(),
        }
        let _gone = link.command(GatewayCommand::Report(report)).await;
    }
}

#[tokio::test]
async fn a_hundred_thousand_users_in_one_call_are_summed_and_watched() {
    let broker = Served::ready();
    let every_fiftieth = |from: u64| (0..2_000).map(move |n| from + n * 50);
    let (link, events) = gateway(broker.address(), 5, adds(every_fiftieth(0))).await;
    let reaches = tokio::spawn(reporting(link, events, false));
    let (link, events) = gateway(broker.address(), 6, adds(every_fiftieth(1))).await;
    let drops = tokio::spawn(reporting(link, events, true));

    let producer = Producer::connect(options([broker.address()])).await.expect("is welcome");
    let everybody: Vec<u64> = (0..100_000).collect();
    let publish = Publish::to(everybody).level(ReceiptLevel::Delivered).payload("to many");
    let (mut progress, outcome) = producer.publish_watched(publish);
    let watching = async move {
        let (mut steps, mut last) = (0, *progress.borrow());
        while progress.changed().await.is_ok() {
            let now = *progress.borrow_and_update();
            assert!(now.answered >= last.answered && now.sent >= last.sent, "{now:?} {last:?}");
            (steps, last) = (steps + 1, now);
        }
        (steps, last)
    };
    let (receipt, (steps, last)) = soon(async { tokio::join!(outcome, watching) }).await;
    let receipt = receipt.expect("served");
    assert_eq!((receipt.stage, receipt.sent), (ReceiptLevel::Delivered, 2_000));
    assert_eq!((receipt.dropped_count(), receipt.offline_count()), (2_000, 96_000));
    assert_eq!(receipt.dropped[0].cause, ErrorCode::OUTBOX_FULL);
    assert_eq!((receipt.offline.len(), receipt.unknown_count), (96_000, 0));
    assert!(steps > 1, "it is told how far it has come");
    assert_eq!((last.parts, last.answered, last.sent), (25, 25, 2_000));
    assert_eq!((last.dropped, last.offline), (2_000, 96_000));
    producer.close().await;
    reaches.abort();
    drops.abort();
}

/// The lower login number has to go, wherever it is.
#[tokio::test]
async fn an_exclusive_login_displaces_the_one_at_another_gateway() {
    let broker = Served::with(BrokerConfig { logins_default: LoginPolicy::One, ..ready() });
    let older = vec![Change::add(user(1, 7)), Change::add(user(2, 7))];
    let (_older, mut lost) = gateway(broker.address(), 5, older).await;
    let (_newer, _won) = gateway(broker.address(), 6, vec![Change::add(user(1, 8))]).await;
    match next(&mut lost).await {
        GatewayEvent::Displaced { registration, winner } => {
            assert_eq!((registration, winner), (user(1, 7), 8));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_publish_that_no_broker_takes_says_which_and_why() {
    let waiting = Served::with(BrokerConfig {
        gateways_expected: 2,
        ready_quiet_ms: 60_000,
        ..BrokerConfig::default()
    });
    let publish_timeout = Duration::from_millis(50);
    let options = Options { publish_timeout, ..options([waiting.address()]) };
    let producer = Producer::connect(options).await.expect("is welcome");
    assert!(matches!(producer.state(), LinkState::Open(_)));
    let outcome = soon(producer.publish(Publish::to([1]))).await;
    let Err(PublishError::TimedOut(obstacle)) = outcome else { panic!("{outcome:?}") };
    let words = obstacle.to_string();
    assert!(words.contains(&waiting.address()) && words.contains("2 gateways are missing"));
}

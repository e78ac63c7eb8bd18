//! Publishes and receipts over a socket.

use std::collections::BTreeSet;
use std::time::Duration;

use waybill_client::{
    BrokerState, ErrorCode, Obstacle, Options, Producer, Publish, PublishError, ReceiptLevel,
};
use waybill_wire::Frame;
use waybill_wire::code::{Fate, Level};
use waybill_wire::frame::{FateSet, Receipt, Welcome};

use crate::support::{Broker, soon, welcome};

#[tokio::test]
async fn what_flew_when_the_link_was_cut_is_unknown_and_what_waited_goes_on() {
    let broker = Broker::bind().await;
    let resend_within = Duration::ZERO;
    let options = Options { max_in_flight: 4, resend_within, ..broker.options() };
    let producer = Producer::start(options).expect("options work");
    let waiting: Vec<_> =
        (1..=4).map(|uid| producer.send(Publish::to([uid, 100 + uid])).expect("room")).collect();
    let mut link = broker.accept().await;
    let got = link.next().await;
    link.all_sent(&got.publish()).await;
    for uid in 2..=4 {
        assert_eq!(link.next().await.publish().sequence, uid);
    }
    drop(link);
    let mut outcomes = Vec::new();
    for receipt in waiting {
        outcomes.push(soon(receipt).await.expect("a receipt, in doubt or not"));
    }
    assert_eq!((outcomes[0].sent, outcomes[0].in_doubt), (2, false));
    for (receipt, uid) in outcomes[1..].iter().zip(2..) {
        assert_eq!((receipt.sent, &receipt.unknown[..]), (0, &[uid, 100 + uid][..]));
    }
    // Queued while there is no link: kept for the next one, numbers going on.
    let kept = producer.send(Publish::to([9])).expect("room");
    let mut link = broker.accept().await;
    let got = link.next().await;
    assert_eq!(got.publish().sequence, 5);
    assert!(!got.publish().resend);
    link.all_sent(&got.publish()).await;
    assert_eq!(soon(kept).await.expect("served").sent, 1);
}

#[tokio::test]
async fn ten_thousand_uids_go_in_three_parts_and_come_back_as_one() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    // A UID listed twice is one target, in whichever part the second one would have been.
    let uids: Vec<u64> = (1..=10_000).chain([7, 9_999, 7]).collect();
    let play = async {
        let mut seen = BTreeSet::new();
        let mut named = 0;
        for index in 0..3 {
            let got = link.next().await;
            let publish = got.publish();
            let part = publish.part.expect("is a part");
            assert_eq!((part.list, part.index, part.parts), (1, index, 3));
            assert_eq!(publish.payload, b"to many");
            seen.extend(publish.targets.iter());
            named += publish.targets.len();
            let offline = [publish.targets.iter().next().expect("is not empty")];
            let sets =
                [FateSet { fate: Fate::OFFLINE, cause: ErrorCode(0), uids: (&offline).into() }];
            let receipt = Receipt {
                last: true,
                stage: Level::ROUTED,
                sequence: publish.sequence,
                sent: u32::try_from(publish.targets.len()).expect("fits") - 1,
                offline: 1,
                gateways: 2,
                fate_sets: (&sets).into(),
                ..Receipt::default()
            };
            link.send(&Frame::Receipt(receipt)).await;
        }
        assert_eq!(named, seen.len(), "each once");
        seen.len()
    };
    let publish = producer.publish(Publish::to(uids).payload("to many"));
    let (receipt, seen) = soon(async { tokio::join!(publish, play) }).await;
    let receipt = receipt.expect("served");
    assert_eq!(seen, 10_000);
    assert_eq!((receipt.sequence, receipt.sent, receipt.gateways), (1, 9997, 6));
    assert_eq!(receipt.offline, [1, 4097, 8193]);
}

#[tokio::test]
async fn a_batch_goes_out_before_any_answer_comes() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let batch: Vec<_> = (0..500u64).map(|uid| Publish::to([uid]).payload("x")).collect();
    let play = async {
        let mut publishes = Vec::new();
        for _ in 0..500 {
            publishes.push(link.next().await);
        }
        for got in &publishes {
            link.all_sent(&got.publish()).await;
        }
    };
    let (outcomes, ()) = soon(async { tokio::join!(producer.publish_batch(batch), play) }).await;
    for (outcome, sequence) in outcomes.into_iter().zip(1..) {
        let receipt = outcome.expect("served");
        assert_eq!((receipt.sequence, receipt.sent), (sequence, 1), "in order");
    }
}

#[tokio::test]
async fn a_batch_larger_than_its_bounds_waits_for_receipts() {
    let broker = Broker::bind().await;
    let options = Options { max_in_flight: 3, ..broker.options() };
    let (producer, link) = tokio::join!(Producer::connect(options), broker.accept());
    let (producer, mut link) = (producer.expect("was welcome"), link);
    let mut batch: Vec<_> = (0..20u64).map(|uid| Publish::to([uid])).collect();
    batch[7] = Publish::to([]);
    let play = async {
        for _ in 0..19 {
            let got = link.next().await;
            link.all_sent(&got.publish()).await;
        }
    };
    let (outcomes, ()) = soon(async { tokio::join!(producer.publish_batch(batch), play) }).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(receipt) => assert_eq!(receipt.sent, 1),
            Err(error) => assert!(at == 7 && matches!(error, PublishError::Invalid(_)), "{error}"),
        }
    }
}

#[tokio::test]
async fn batches_of_two_handles_wait_for_each_other() {
    let broker = Broker::bind().await;
    let options = Options { max_in_flight: 3, ..broker.options() };
    let (producer, link) = tokio::join!(Producer::connect(options), broker.accept());
    let (producer, mut link) = (producer.expect("was welcome"), link);
    let batch = || (0..20u64).map(|uid| Publish::to([uid])).collect();
    let other = producer.clone();
    let play = async {
        for _ in 0..40 {
            let got = link.next().await;
            link.all_sent(&got.publish()).await;
        }
    };
    let batches =
        async { tokio::join!(producer.publish_batch(batch()), other.publish_batch(batch()), play) };
    let (one, two, ()) = soon(batches).await;
    for outcome in one.into_iter().chain(two) {
        assert_eq!(outcome.expect("waits while the link is open").sent, 1);
    }
}

#[tokio::test]
async fn bounds_are_errors_for_who_does_not_wait_and_for_who_waits_without_a_link() {
    let broker = Broker::bind().await;
    let options = Options { max_in_flight: 2, ..broker.options() };
    let producer = Producer::start(options).expect("options work");
    let first = producer.send(Publish::to([1])).expect("room");
    let _second = producer.send(Publish::to([2])).expect("room");
    let full = |outcome: Result<_, PublishError>| match outcome {
        Err(PublishError::Overloaded { limit }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(full(producer.send(Publish::to([3])).map(drop)), "max_in_flight");
    assert_eq!(full(producer.publish(Publish::to([3])).await.map(drop)), "max_in_flight");

    // With a link, waiting has an end.
    let mut link = broker.accept().await;
    let got = link.next().await;
    link.next().await;
    let play = async {
        link.all_sent(&got.publish()).await;
        let third = link.next().await;
        link.all_sent(&third.publish()).await;
    };
    let (third, ()) = soon(async { tokio::join!(producer.publish(Publish::to([3])), play) }).await;
    assert_eq!(third.expect("served").sequence, 3);
    assert_eq!(first.await.expect("served").sequence, 1);
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let broker = Broker::bind().await;
    let options = Options { max_pending_bytes: 2 << 20, ..broker.options() };
    let producer = Producer::start(options).expect("options work");
    let large = || Publish::to([1]).payload(vec![0; 1 << 20]);
    let _first = producer.send(large()).expect("room");
    let second = producer.send(large());
    assert!(
        matches!(second, Err(PublishError::Overloaded { limit: "max_pending_bytes" })),
        "{second:?}"
    );
    let many: Vec<u64> = (0..300_000).collect();
    let error = producer.publish(Publish::to(many)).await.expect_err("can never fit");
    assert!(matches!(error, PublishError::Invalid(_)), "{error}");
    let mut link = broker.accept().await;
    assert_eq!(link.next().await.publish().payload.len(), 1 << 20);
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_code() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let play = async {
        let got = link.next().await;
        let (sequence, code) = (got.publish().sequence, ErrorCode::NOT_PERMITTED);
        let stage = Level::ROUTED;
        let receipt = Receipt { last: true, stage, code, sequence, ..Receipt::default() };
        link.send(&Frame::Receipt(receipt)).await;
    };
    let (outcome, ()) =
        soon(async { tokio::join!(producer.publish(Publish::everyone()), play) }).await;
    assert!(matches!(outcome, Err(PublishError::Refused { code: ErrorCode::NOT_PERMITTED })));
}

#[tokio::test]
async fn level_none_is_settled_by_the_write_and_its_refusal_is_counted() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let publish = Publish::to([1]).level(ReceiptLevel::None);
    let receipt = soon(producer.publish(publish)).await.expect("was written");
    assert_eq!((receipt.sequence, receipt.sent), (1, 0));
    let got = link.next().await;
    assert_eq!(got.publish().level, Level::NONE);
    let (stage, code) = (Level::ROUTED, ErrorCode::OVERLOADED);
    let refusal = Receipt { last: true, stage, code, sequence: 1, ..Receipt::default() };
    link.send(&Frame::Receipt(refusal)).await;
    // A later publish is answered after it.
    let play = async {
        let got = link.next().await;
        link.all_sent(&got.publish()).await;
    };
    let (_, ()) = soon(async { tokio::join!(producer.publish(Publish::to([2])), play) }).await;
    assert_eq!(producer.refusals(), 1);
}

/// Nothing else happens on the link: the time that is over has to be noticed by itself.
#[tokio::test]
async fn what_is_not_sent_in_time_is_told_although_the_link_is_silent() {
    let broker = Broker::bind().await;
    let publish_timeout = Duration::from_millis(20);
    let options = Options { publish_timeout, ..broker.options() };
    let producer = Producer::start(options).expect("options work");
    let unready = Welcome { state: BrokerState::NOT_READY, ..welcome() };
    let _link = broker.accept_with(unready).await;
    let outcome = soon(producer.publish(Publish::to([1]))).await;
    let Err(PublishError::TimedOut(Obstacle::NotReady { broker: named, .. })) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(*named, *broker.address());
}

#[tokio::test]
async fn what_waits_for_a_full_window_is_told_so_and_what_fills_it_is_not_lost() {
    let broker = Broker::bind().await;
    let publish_timeout = Duration::from_millis(20);
    let options = Options { publish_timeout, ..broker.options() };
    let producer = Producer::start(options).expect("options work");
    let mut link = broker.accept_with(Welcome { credit: 1, ..welcome() }).await;
    let first = producer.send(Publish::to([1])).expect("room");
    let second = producer.send(Publish::to([2])).expect("room");
    let outcome = soon(second).await;
    assert!(
        matches!(outcome, Err(PublishError::TimedOut(Obstacle::Busy { unanswered: 1, .. }))),
        "{outcome:?}"
    );
    let got = link.next().await;
    link.all_sent(&got.publish()).await;
    assert_eq!(soon(first).await.expect("served").sent, 1);
}

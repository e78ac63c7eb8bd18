//! Selectors on publishes, and changes of tags, over a socket.

use waybill_client::{
    ErrorCode, Producer, Publish, PublishError, ReceiptLevel, Selector, TagChange,
};
use waybill_wire::Frame;
use waybill_wire::code::{Kind, Level, Op};
use waybill_wire::frame::{ErrorFrame, Receipt};

use crate::support::{Broker, Link, soon};

fn selector(text: &str) -> Selector {
    text.parse().expect("is a selector")
}

/// Answers the next TAG: so many were reached, all others are offline.
async fn tagged(link: &mut Link, expected: &[(Op, &str)], sent: u32) -> usize {
    let got = link.next().await;
    let Frame::Tag(tag) = got.frame() else { panic!("{:?}", got.kind()) };
    let changes: Vec<(Op, &str)> = tag.changes.iter().map(|it| (it.op, it.tag)).collect();
    assert_eq!((tag.namespace, &changes[..]), (7, expected));
    let receipt = Receipt {
        last: true,
        stage: Level::DELIVERED,
        sequence: tag.sequence,
        sent,
        offline: u32::try_from(tag.uids.len()).expect("fits") - sent,
        gateways: 1,
        ..Receipt::default()
    };
    link.send(&Frame::Receipt(receipt)).await;
    tag.uids.len()
}

/// MSG-14, TGT-1.
#[tokio::test]
async fn a_selector_goes_with_a_list_and_alone() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let vips = selector("vip & !ios");
    for publish in [
        Publish::to([1, 2]).selector(vips.clone()),
        Publish::matching(vips.clone()).except([3]),
        Publish::everyone().selector(vips.clone()),
    ] {
        let count = publish.targets().map_or(0, <[u64]>::len);
        let pending = producer.send(publish).expect("room");
        let got = link.next().await;
        let message = got.publish();
        assert_eq!(message.selector.map(|it| it.bytes()), Some(vips.as_bytes()));
        assert_eq!((message.targets.len(), message.everyone), (count, false));
        link.all_sent(&message).await;
        assert_eq!(soon(pending).await.expect("served").sent as usize, count);
    }
}

/// Each part of a list that is cut has the selector.
#[tokio::test]
async fn a_list_that_is_cut_keeps_its_selector() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let uids: Vec<u64> = (1..=5_000).collect();
    let publish = Publish::to(uids).selector(selector("vip")).level(ReceiptLevel::Routed);
    let pending = producer.send(publish).expect("room");
    for length in [4096, 904] {
        let got = link.next().await;
        let message = got.publish();
        assert_eq!(message.selector.map(|it| it.to_string()), Some("vip".into()));
        assert_eq!(message.targets.len(), length);
        link.all_sent(&message).await;
    }
    assert_eq!(soon(pending).await.expect("served").sent, 5_000);
}

/// TAG-12, TAG-16, TAG-17, TAG-18.
#[tokio::test]
async fn tags_are_changed_and_the_receipt_says_whose() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let changes = [TagChange::add("vip"), TagChange::remove("trial")];
    let expected = [(Op::ADD, "vip"), (Op::REMOVE, "trial")];
    let uids: Vec<u64> = (1..=4_100).chain([4, 4]).collect();
    let play = async {
        assert_eq!(tagged(&mut link, &expected, 4_000).await, 4096);
        assert_eq!(tagged(&mut link, &expected, 4).await, 4);
    };
    let (receipt, ()) = tokio::join!(producer.tag(7, uids, changes), play);
    let receipt = receipt.expect("in effect");
    assert_eq!((receipt.sent, receipt.offline_count(), receipt.gateways), (4_004, 96, 2));
    assert_eq!(receipt.stage, ReceiptLevel::Delivered);
}

/// TAG-12: by an ERROR; the link lives on.
#[tokio::test]
async fn a_broker_without_tags_is_told_as_that() {
    let broker = Broker::bind().await;
    let producer = Producer::start(broker.options()).expect("options work");
    let mut link = broker.accept().await;
    let play = async {
        let got = link.next().await;
        let error = ErrorFrame {
            code: ErrorCode::NOT_SUPPORTED,
            ref_kind: Kind::TAG,
            reference: got.frame().reference(),
            detail: "does not run here",
            ..ErrorFrame::default()
        };
        link.send(&Frame::Error(error)).await;
    };
    let (outcome, ()) = tokio::join!(producer.tag(7, [1], [TagChange::add("vip")]), play);
    let error = outcome.expect_err("is not supported");
    assert!(matches!(error, PublishError::TagsNotSupported), "{error:?}");
    assert_eq!(error.to_string(), "the broker does not run tags: no tag was changed");
    let pending = producer.send(Publish::to([1])).expect("room");
    let got = link.next().await;
    link.all_sent(&got.publish()).await;
    assert_eq!(soon(pending).await.expect("served").sent, 1);
}

#[tokio::test]
async fn what_the_protocol_does_not_allow_is_not_sent() {
    let producer = Producer::start(Broker::bind().await.options()).expect("options work");
    let refused = producer.tag(0, [], [TagChange::add("vip")]).await.expect_err("for nobody");
    assert!(matches!(refused, PublishError::InvalidTags(_)), "{refused:?}");
    let refused = producer.tag(0, [1], [TagChange::add("a\nb")]).await.expect_err("no tag");
    assert!(refused.to_string().contains("without control characters"), "{refused}");
}

//! Data links of the client crate's gateway at a broker of several shards (6.13).

use std::collections::BTreeMap;

use waybill_broker::BrokerConfig;
use waybill_client::gateway::{GatewayCommand, GatewayEvent, GatewayEvents, GatewayLink, Report};
use waybill_client::{Options, Producer, Publish, ReceiptLevel};

use super::wire::Wire;
use super::{Served, adds, delivery, in_effect, next, options, ready, soon};

const PRODUCERS: u32 = 6;

/// Numbers of data links begin here.
const DATA: u64 = 1 << 63;

fn shards(shards: u16) -> Served {
    Served::with(BrokerConfig { shards, ..ready() })
}

async fn gateway(options: Options) -> (GatewayLink, GatewayEvents) {
    let (link, mut events) = GatewayLink::start(options, 5).unwrap();
    link.change(1, adds([1])).await.unwrap();
    in_effect(&mut events, 1).await;
    (link, events)
}

/// Waits until so many links are open at the broker, and no more.
async fn linked(broker: &Served, wanted: u32) {
    soon(async {
        while broker.0.shared().links() != wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// One after the other, so that each shard gets some.
async fn producers(broker: &Served) -> Vec<Producer> {
    let mut all = Vec::new();
    for _ in 0..PRODUCERS {
        all.push(Producer::connect(options([broker.address()])).await.expect("is welcome"));
    }
    all
}

#[tokio::test]
async fn lnk_5_messages_come_by_the_link_of_the_shard_that_reads_them() {
    for (data_links, wanted) in [(64, 3), (1, 2), (0, 1)] {
        let broker = shards(3);
        let options = Options { data_links, ..options([broker.address()]) };
        let (link, mut events) = gateway(options).await;
        linked(&broker, wanted).await;
        let mut by_link = BTreeMap::<u64, u32>::new();
        for producer in producers(&broker).await {
            let receipt = producer.send(Publish::to([1]).level(ReceiptLevel::Delivered)).unwrap();
            let came = delivery(&mut events).await;
            *by_link.entry(came.link()).or_default() += 1;
            let report = Report { reached: 1, ..Report::on(&came) };
            link.command(GatewayCommand::Report(report)).await.unwrap();
            assert_eq!(soon(receipt).await.expect("is told").sent, 1, "by the link it came by");
            producer.close().await;
        }
        let data = by_link.keys().filter(|link| **link >= DATA).count();
        assert_eq!(data, wanted as usize - 1, "{by_link:?}");
        link.close().await;
        linked(&broker, 0).await;
    }
}

#[tokio::test]
async fn promise_2_order_stays_while_data_links_are_cut() {
    let broker = shards(3);
    let wire = Wire::to(broker.0.local_addr()).await;
    let (link, mut events) = gateway(options([wire.address()])).await;
    linked(&broker, 3).await;
    let producers = producers(&broker).await;
    let (mut last, mut came, mut lost, mut by_data) = (BTreeMap::new(), 0, 0, 0);
    // Of connections the control link's is number 0.
    for cut in 1..25 {
        for _ in 0..20 {
            for producer in &producers {
                let publish = Publish::to([1]).level(ReceiptLevel::None);
                drop(producer.send(publish).expect("there is room"));
            }
        }
        soon(wire.cut_one(cut)).await;
        loop {
            match next(&mut events).await {
                GatewayEvent::Delivery(delivery) => {
                    let (origin, sequence) = {
                        let message = delivery.message();
                        (message.origin, message.sequence)
                    };
                    let before = last.insert(origin, sequence);
                    assert!(before < Some(sequence), "promise 2: {sequence} after {before:?}");
                    (came, by_data) = (came + 1, by_data + u32::from(delivery.link() >= DATA));
                }
                GatewayEvent::DataLinkLost { .. } => {
                    lost += 1;
                    break;
                }
                other => panic!("the session goes on: {other:?}"),
            }
        }
    }
    assert!(lost == 24 && came > 0 && by_data > 0, "{lost} lost, {came} came, {by_data} by them");
    // Nothing is lost where nothing is cut.
    linked(&broker, 3 + PRODUCERS).await;
    for producer in &producers {
        let receipt = soon(producer.publish(Publish::to([1]).payload("last"))).await.unwrap();
        assert_eq!(receipt.sent, 1);
    }
    let mut left = PRODUCERS;
    while left > 0 {
        left -= u32::from(delivery(&mut events).await.payload() == "last");
    }
    link.close().await;
}

#[tokio::test]
async fn promise_8_a_session_that_is_resumed_has_its_data_links_again() {
    let broker = shards(3);
    let wire = Wire::to(broker.0.local_addr()).await;
    let (_link, mut events) = gateway(options([wire.address()])).await;
    linked(&broker, 3).await;
    wire.cut();
    loop {
        if let GatewayEvent::Restored { resumed, .. } = next(&mut events).await {
            assert!(resumed);
            break;
        }
    }
    linked(&broker, 3).await;
    let mut by_data = 0;
    for producer in producers(&broker).await {
        assert_eq!(soon(producer.publish(Publish::to([1]))).await.unwrap().sent, 1);
        by_data += u32::from(delivery(&mut events).await.link() >= DATA);
    }
    assert!(by_data > 0);
}

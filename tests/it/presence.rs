//! Presence towards consumers that do not keep up (PRS-5). Dialogues say what is told, and when.

use std::time::Duration;

use waybill_broker::BrokerConfig;
use waybill_wire::Frame;
use waybill_wire::code::{Event, Op, Role, capability};
use waybill_wire::frame::{Record, Snapshot};

use crate::support::{Backend, Net};
use crate::talk::{encode, link, link_offering};

const USERS: u64 = 12_000;

#[test]
fn promise_5_an_event_that_finds_no_room_is_dropped_and_counted() {
    for seed in 0..4 {
        let config = BrokerConfig {
            outbox_bytes_max: 256 << 10,
            keepalive_ms: 600_000,
            ..BrokerConfig::default()
        };
        let mut net = Net::start(Backend::Sim(1 + u16::try_from(seed % 3).unwrap(), seed), config);
        let consumer = link_offering(&mut net, Role::CONSUMER, 9, capability::PRESENCE);
        net.stall(consumer, true);
        let gateway = link(&mut net, Role::GATEWAY, 1);
        let (op, namespace, device_class) = (Op::ADD, 0, 2);
        let record = |uid| Record { uid, login: 5, namespace, op, device_class };
        let records: Vec<Record> = (1..=USERS).map(record).collect();
        let pieces = records.chunks(4_000).enumerate();
        for (at, records) in pieces {
            let (first, last) = (at == 0, at == 2);
            let snapshot = Snapshot { first, last, version: 1, records: records.into() };
            net.send(gateway, &encode(&Frame::Snapshot(snapshot)));
        }
        let frame = net.frame(gateway).unwrap();
        assert!(matches!(Frame::decode(&frame), Ok(Frame::InEffect(_))));
        net.until(|ledger| ledger.consumers.offered == USERS);
        net.stall(consumer, false);
        net.advance(Duration::from_millis(100));
        let frames = net.ledger().consumers;
        assert!(frames.dropped_outbox_full > 0 && frames.queued > 0, "{frames:?}");
        for _ in 0..frames.queued {
            let frame = net.frame(consumer).expect("a PRESENCE");
            let Ok(Frame::Presence(it)) = Frame::decode(&frame) else { panic!("{frame:02x?}") };
            assert_eq!((it.event, it.login, it.device_class), (Event::LOGIN, 5, 2));
            assert_eq!((it.namespace, it.gateway), (0, 1));
        }
        assert!(net.arrived(consumer).is_none(), "what was dropped does not come");
    }
}

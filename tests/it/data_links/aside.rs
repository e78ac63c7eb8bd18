//! A fence and what has stepped aside behind a large message.

use waybill_broker::limits::FRAGMENT_BYTES;
use waybill_wire::frame::{Frame, Pong};
use waybill_wire::message::MessageHead;

use super::{Control, config, delivered, producer, publish};
use crate::support::simulated;
use crate::talk::encode;

#[test]
fn promise_2_a_data_link_waits_for_what_has_stepped_aside_on_the_control_link() {
    simulated(&config(), |net| {
        let control = Control::link(net, 1, &[1]);
        let (mut from, mut other) = (producer(net, 7, 0), producer(net, 8, 0));
        net.stall(control.line, true);
        from.send_with(net, MessageHead::default(), &[1], &vec![7; 16 * FRAGMENT_BYTES]);
        // More than a write takes when the large one has ended.
        let followers = 12;
        for _ in 0..followers {
            assert_eq!(from.publish(net, &[1], &[8; 60_000]).sent, 1);
        }
        publish(net, &mut other, 1);
        let (data, _) = control.open(net, 0);
        publish(net, &mut from, 1);
        net.stall(control.line, false);
        let mut came = Vec::new();
        loop {
            let frame = net.any_frame(control.line).expect("a frame");
            match Frame::decode(&frame) {
                Ok(Frame::Deliver(it)) if it.fragmented.is_none() => came.push(it.payload.len()),
                Ok(Frame::Ping(ping)) => {
                    net.send(control.line, &encode(&Frame::Pong(Pong { token: ping.token })));
                    break;
                }
                Ok(Frame::Deliver(_) | Frame::Fragment(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        came.sort();
        assert_eq!(came, [&[1][..], &vec![60_000; followers]].concat());
        assert_eq!(delivered(net, data), from.sequence);
    });
}

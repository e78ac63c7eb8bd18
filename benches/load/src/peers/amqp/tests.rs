//! Bytes written out from the specification, section 4.2, and its list of methods.

use super::*;

fn one(bytes: &[u8]) -> Event<'_> {
    for cut in 0..bytes.len() {
        assert_eq!(event(&bytes[..cut]), Ok(None), "cut at {cut}");
    }
    let (event, length) = event(bytes).expect("well formed").expect("whole");
    assert_eq!(length, bytes.len());
    event
}

#[test]
fn the_handshake_is_heard() {
    // 10.10: version 0.9, an empty table, mechanisms, locales.
    let start = b"\x01\x00\x00\x00\x00\x00\x1c\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x00\
        \x00\x00\x00\x05PLAIN\x00\x00\x00\x05en_US\xce";
    assert_eq!(one(start), Event::Start);
    // 10.30: 2047 channels, frames of 131,072 bytes, 60 seconds.
    let tune = b"\x01\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x1e\x07\xff\x00\x02\x00\x00\x00\x3c\xce";
    assert_eq!(one(tune), Event::Tune { channel_max: 2047, frame_max: 131_072 });
    assert_eq!(one(b"\x01\x00\x00\x00\x00\x00\x05\x00\x0a\x00\x29\x00\xce"), Event::Opened);
    let opened = b"\x01\x00\x01\x00\x00\x00\x08\x00\x14\x00\x0b\x00\x00\x00\x00\xce";
    assert_eq!(one(opened), Event::ChannelOpened);
    assert_eq!(one(HEARTBEAT), Event::Heartbeat);
}

#[test]
fn what_is_done_and_what_is_refused_is_heard() {
    // 50.21 queue.bind-ok, 60.21 basic.consume-ok with its tag.
    assert_eq!(one(b"\x01\x00\x01\x00\x00\x00\x04\x00\x32\x00\x15\xce"), Event::Done);
    assert_eq!(one(b"\x01\x00\x01\x00\x00\x00\x06\x00\x3c\x00\x15\x01c\xce"), Event::Done);
    // 10.50: 320, "gone", no method to blame.
    let close = b"\x01\x00\x00\x00\x00\x00\x0f\x00\x0a\x00\x32\x01\x40\x04gone\x00\x00\x00\x00\xce";
    assert_eq!(one(close), Event::Closed { code: 320, words: b"gone" });
    let blocked = b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x3c\x03low\xce";
    assert_eq!(one(blocked), Event::Blocked(b"low"));
}

#[test]
fn set_up_methods_are_as_the_specification_lays_them_out() {
    let mut out = Vec::new();
    tune_ok(&mut out, 1, 131_072);
    let tune = b"\x01\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x1f\x00\x01\x00\x02\x00\x00\x00\x00\xce";
    assert_eq!(out, tune);
    out.clear();
    open(&mut out);
    assert_eq!(out, b"\x01\x00\x00\x00\x00\x00\x08\x00\x0a\x00\x28\x01/\x00\x00\xce");
    out.clear();
    channel_open(&mut out);
    assert_eq!(out, b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce");
    out.clear();
    declare_exchange(&mut out, b"u", Exchange::Direct);
    let exchange = b"\x01\x00\x01\x00\x00\x00\x14\x00\x28\x00\x0a\x00\x00\x01u\x06direct\x04\
        \x00\x00\x00\x00\xce";
    assert_eq!(out, exchange);
    out.clear();
    declare_queue(&mut out, b"g0");
    let queue =
        b"\x01\x00\x01\x00\x00\x00\x0e\x00\x32\x00\x0a\x00\x00\x02g0\x0c\x00\x00\x00\x00\xce";
    assert_eq!(out, queue);
    out.clear();
    bind(&mut out, (b"g0", b"u"), b"7", false);
    let bind = b"\x01\x00\x01\x00\x00\x00\x12\x00\x32\x00\x14\x00\x00\x02g0\x01u\x017\x01\
        \x00\x00\x00\x00\xce";
    assert_eq!(out, bind);
    out.clear();
    consume(&mut out, b"g0");
    let consume = b"\x01\x00\x01\x00\x00\x00\x10\x00\x3c\x00\x14\x00\x00\x02g0\x01c\x06\
        \x00\x00\x00\x00\xce";
    assert_eq!(out, consume);
    out.clear();
    close_ok(&mut out);
    assert_eq!(out, b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce");
}

#[test]
fn the_credential_is_plain_and_blocking_is_asked_for() {
    let mut out = Vec::new();
    start_ok(&mut out, "guest", "guest");
    let expected = b"\x01\x00\x00\x00\x00\x00\x4b\x00\x0a\x00\x0b\
        \x00\x00\x00\x27\x0ccapabilitiesF\x00\x00\x00\x15\x12connection.blockedt\x01\
        \x05PLAIN\x00\x00\x00\x0c\x00guest\x00guest\x05en_US\xce";
    assert_eq!(out, expected);
}

#[test]
fn a_publish_is_method_header_and_body() {
    let mut out = Vec::new();
    publish(&mut out, (b"u", b"7"), NO_PROPERTIES, b"hello", 131_072);
    let expected = b"\x01\x00\x01\x00\x00\x00\x0b\x00\x3c\x00\x28\x00\x00\x01u\x017\x00\xce\
        \x02\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\xce\
        \x03\x00\x01\x00\x00\x00\x05hello\xce";
    assert_eq!(out, expected);
    out.clear();
    publish(&mut out, (b"u", b"7"), NO_PROPERTIES, b"hello", FRAME_BYTES + 4);
    assert!(
        out.ends_with(b"\x03\x00\x01\x00\x00\x00\x04hell\xce\x03\x00\x01\x00\x00\x00\x01o\xce")
    );
}

/// `basic.deliver` by consumer `c`, delivery 1, exchange `u`, key `7`.
const DELIVER: &[u8] =
    b"\x01\x00\x01\x00\x00\x00\x13\x00\x3c\x00\x3c\x01c\x00\x00\x00\x00\x00\x00\x00\x01\x00\
    \x01u\x017\xce";

#[test]
fn a_delivery_is_whole_with_its_last_byte() {
    let content = b"\x02\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\
        \x00\x00\xce\x03\x00\x01\x00\x00\x00\x05hello\xce";
    let bytes = [DELIVER, content].concat();
    let Event::Delivery(delivery) = one(&bytes) else { panic!("a delivery") };
    assert_eq!((delivery.key, delivery.body), (&b"7"[..], &b"hello"[..]));
    assert_eq!(delivery.carbon_copies().count(), 0);
    let empty = b"\x02\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
        \x00\x00\xce";
    let bytes = [DELIVER, empty].concat();
    let Event::Delivery(delivery) = one(&bytes) else { panic!("a delivery") };
    assert_eq!(delivery.body, b"");
}

#[test]
fn carbon_copies_are_an_array_of_long_strings_in_the_headers() {
    let properties = carbon_copies([&b"8"[..], b"19"].into_iter());
    let expected =
        b"\x20\x00\x00\x00\x00\x15\x02CCA\x00\x00\x00\x0dS\x00\x00\x00\x018S\x00\x00\x00\
        \x0219";
    assert_eq!(properties, expected);
    let mut header =
        b"\x02\x00\x01\x00\x00\x00\x27\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
    header.extend_from_slice(&properties);
    header.push(END);
    let bytes = [DELIVER, &header].concat();
    let Event::Delivery(delivery) = one(&bytes) else { panic!("a delivery") };
    let copies: Vec<&[u8]> = delivery.carbon_copies().collect();
    assert_eq!(copies, [&b"8"[..], b"19"]);
    // Behind a content type and an encoding they are found as well.
    let typed = [b"\xe0\x00\x01a\x01b", &expected[2..]].concat();
    let delivery = Delivery { key: b"", properties: &typed, body: b"" };
    assert_eq!(delivery.carbon_copies().count(), 2);
}

#[test]
fn what_is_not_of_the_protocol_is_refused() {
    for bytes in [
        PROTOCOL,
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\x00",
        b"\x01\x00\x00\xff\xff\xff\xff",
        b"\x01\x00\x00\x00\x00\x00\x02\x00\x0a\xce",
        b"\x03\x00\x01\x00\x00\x00\x01x\xce",
        b"\x01\x00\x00\x00\x00\x00\x04\x00\x63\x00\x0a\xce",
    ] {
        assert!(event(bytes).is_err(), "{bytes:?}");
    }
    let body_first = [DELIVER, b"\x03\x00\x01\x00\x00\x00\x01x\xce"].concat();
    assert!(event(&body_first).is_err());
}

//! The methods that set a connection up: connection, channel, exchange, queue, consumer.

use super::{CHANNEL, Event, Fields, METHOD, framed, long_string, short_string};

const CONNECTION: u16 = 10;
const CHANNELS: u16 = 20;
const EXCHANGE: u16 = 40;
const QUEUE: u16 = 50;
const BASIC: u16 = 60;

/// Declared with neither durability nor answers left out; gone when its last queue is.
const AUTO_DELETE_EXCHANGE: u8 = 1 << 2;
const EXCLUSIVE_QUEUE: u8 = 1 << 2;
const AUTO_DELETE_QUEUE: u8 = 1 << 3;
const NO_ACK: u8 = 1 << 1;
const EXCLUSIVE_CONSUMER: u8 = 1 << 2;
const NO_TABLE: [u8; 4] = [0; 4];

fn method(
    out: &mut Vec<u8>,
    channel: u16,
    (class, method): (u16, u16),
    fill: impl FnOnce(&mut Vec<u8>),
) {
    framed(out, METHOD, channel, |out| {
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&method.to_be_bytes());
        fill(out);
    });
}

/// `connection.start-ok` for a user and a password. No capabilities are claimed but
/// `connection.blocked`, so that a server short of memory says so.
pub(crate) fn start_ok(out: &mut Vec<u8>, user: &str, password: &str) {
    let mut capabilities = Vec::new();
    short_string(&mut capabilities, b"connection.blocked");
    capabilities.extend_from_slice(b"t\x01");
    let mut properties = Vec::new();
    short_string(&mut properties, b"capabilities");
    properties.push(b'F');
    long_string(&mut properties, &capabilities);
    method(out, 0, (CONNECTION, 11), |out| {
        long_string(out, &properties);
        short_string(out, b"PLAIN");
        long_string(out, format!("\0{user}\0{password}").as_bytes());
        short_string(out, b"en_US");
    });
}

/// `connection.tune-ok`; no heartbeats.
pub(crate) fn tune_ok(out: &mut Vec<u8>, channel_max: u16, frame_max: u32) {
    method(out, 0, (CONNECTION, 31), |out| {
        out.extend_from_slice(&channel_max.to_be_bytes());
        out.extend_from_slice(&frame_max.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
    });
}

/// `connection.open` of the virtual host `/`.
pub(crate) fn open(out: &mut Vec<u8>) {
    method(out, 0, (CONNECTION, 40), |out| {
        short_string(out, b"/");
        out.extend_from_slice(&[0; 2]); // reserved
    });
}

/// `channel.open`
pub(crate) fn channel_open(out: &mut Vec<u8>) {
    method(out, CHANNEL, (CHANNELS, 10), |out| out.push(0));
}

/// The answer to the server's `connection.close`.
pub(crate) fn close_ok(out: &mut Vec<u8>) {
    method(out, 0, (CONNECTION, 51), |_| {});
}

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// To the queues bound by the message's key.
    Direct,
    /// To every queue bound.
    Fanout,
}

/// `exchange.declare`, not durable.
pub(crate) fn declare_exchange(out: &mut Vec<u8>, name: &[u8], exchange: Exchange) {
    method(out, CHANNEL, (EXCHANGE, 10), |out| {
        out.extend_from_slice(&[0; 2]); // reserved
        short_string(out, name);
        short_string(
            out,
            match exchange {
                Exchange::Direct => b"direct",
                Exchange::Fanout => b"fanout",
            },
        );
        out.push(AUTO_DELETE_EXCHANGE);
        out.extend_from_slice(&NO_TABLE);
    });
}

/// `queue.declare`, not durable, for this connection alone.
pub(crate) fn declare_queue(out: &mut Vec<u8>, name: &[u8]) {
    method(out, CHANNEL, (QUEUE, 10), |out| {
        out.extend_from_slice(&[0; 2]); // reserved
        short_string(out, name);
        out.push(EXCLUSIVE_QUEUE | AUTO_DELETE_QUEUE);
        out.extend_from_slice(&NO_TABLE);
    });
}

/// `queue.bind`; unless `answered`, the server says nothing when it is done.
pub(crate) fn bind(
    out: &mut Vec<u8>,
    (queue, exchange): (&[u8], &[u8]),
    key: &[u8],
    answered: bool,
) {
    method(out, CHANNEL, (QUEUE, 20), |out| {
        out.extend_from_slice(&[0; 2]); // reserved
        short_string(out, queue);
        short_string(out, exchange);
        short_string(out, key);
        out.push(u8::from(!answered));
        out.extend_from_slice(&NO_TABLE);
    });
}

/// `basic.consume` without acknowledgements.
pub(crate) fn consume(out: &mut Vec<u8>, queue: &[u8]) {
    method(out, CHANNEL, (BASIC, 20), |out| {
        out.extend_from_slice(&[0; 2]); // reserved
        short_string(out, queue);
        short_string(out, b"c");
        out.push(NO_ACK | EXCLUSIVE_CONSUMER);
        out.extend_from_slice(&NO_TABLE);
    });
}

/// What a method of the server says; `None` if the bench does not expect it.
pub(super) fn event(class: u16, method: u16, mut fields: Fields<'_>) -> Option<Event<'_>> {
    Some(match (class, method) {
        (CONNECTION, 10) => Event::Start,
        (CONNECTION, 30) => Event::Tune {
            channel_max: u16::from_be_bytes(fields.array()?),
            frame_max: u32::from_be_bytes(fields.array()?),
        },
        (CONNECTION, 41) => Event::Opened,
        (CONNECTION, 50) | (CHANNELS, 40) => Event::Closed {
            code: u16::from_be_bytes(fields.array()?),
            words: fields.short_string()?,
        },
        (CONNECTION, 60) => Event::Blocked(fields.short_string()?),
        (CONNECTION, 61) => Event::Unblocked,
        (CHANNELS, 11) => Event::ChannelOpened,
        (EXCHANGE, 11) | (QUEUE, 11 | 21) | (BASIC, 21) => Event::Done,
        // The server cancelled the consumer: its queue is gone.
        (BASIC, 30) => Event::Closed { code: 0, words: b"the consumer's queue is gone" },
        _ => return None,
    })
}

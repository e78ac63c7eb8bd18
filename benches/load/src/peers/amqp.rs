//! AMQP 0-9-1, as RabbitMQ speaks it: frames out and in. Bytes only, no sockets.
//!
//! After <https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf> and its generated reference. Only
//! what the bench says and hears: set-up methods are in [`methods`], publishing and deliveries
//! here. Written out because a dozen methods are less than what the crates for it bring along
//! (connection URIs and their internationalised host names among them).

mod methods;

pub(crate) use methods::{
    Exchange, bind, channel_open, close_ok, consume, declare_exchange, declare_queue, open,
    start_ok, tune_ok,
};

use super::Malformed;

/// What a client sends first.
pub(crate) const PROTOCOL: &[u8] = b"AMQP\x00\x00\x09\x01";
/// The one channel of each connection here.
pub(crate) const CHANNEL: u16 = 1;
/// A frame's bytes before and after its content.
pub(crate) const FRAME_BYTES: usize = 8;
/// The answer to a heartbeat.
pub(crate) const HEARTBEAT: &[u8] = &[8, 0, 0, 0, 0, 0, 0, END];

const END: u8 = 0xce;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const BASIC: u16 = 60;
const PUBLISH: u16 = 40;
const DELIVER: u16 = 60;
/// Property flags of a content header: `headers`.
const HAS_HEADERS: u16 = 1 << 13;
/// `content-type` and `content-encoding`, which come before it.
const HAS_STRINGS: [u16; 2] = [1 << 15, 1 << 14];
/// No frame here may be larger; RabbitMQ's own proposal is 128 KiB.
const FRAME_BYTES_MAX: usize = 16 << 20;

/// Appends one frame whose content `fill` writes.
pub(super) fn framed(out: &mut Vec<u8>, kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = out.len() - length_at - 4;
    let length = u32::try_from(length).expect("frames are below FRAME_BYTES_MAX");
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    out.push(END);
}

fn short_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(u8::try_from(text.len()).expect("names here have less than 256 bytes"));
    out.extend_from_slice(text);
}

fn long_string(out: &mut Vec<u8>, text: &[u8]) {
    let length = u32::try_from(text.len()).expect("strings here have less than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text);
}

/// The properties of a message that goes to more keys than its own: a `headers` table whose `CC` is
/// the array of these. Made once for a group, used by every [`publish`] to it.
pub(crate) fn carbon_copies<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut items = Vec::new();
    for key in keys {
        items.push(b'S');
        long_string(&mut items, key);
    }
    let mut table = Vec::new();
    short_string(&mut table, b"CC");
    table.push(b'A');
    long_string(&mut table, &items);
    let mut properties = HAS_HEADERS.to_be_bytes().to_vec();
    long_string(&mut properties, &table);
    properties
}

/// The properties of a message that has none: no headers, and transient (`delivery-mode` absent).
pub(crate) const NO_PROPERTIES: &[u8] = &[0, 0];

/// `basic.publish`, not mandatory, with content header and body frames of at most `frame_max`.
pub(crate) fn publish(
    out: &mut Vec<u8>,
    (exchange, key): (&[u8], &[u8]),
    properties: &[u8],
    body: &[u8],
    frame_max: usize,
) {
    framed(out, METHOD, CHANNEL, |out| {
        out.extend_from_slice(&BASIC.to_be_bytes());
        out.extend_from_slice(&PUBLISH.to_be_bytes());
        out.extend_from_slice(&[0; 2]); // reserved
        short_string(out, exchange);
        short_string(out, key);
        out.push(0); // neither mandatory nor immediate
    });
    framed(out, HEADER, CHANNEL, |out| {
        out.extend_from_slice(&BASIC.to_be_bytes());
        out.extend_from_slice(&[0; 2]); // weight
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        out.extend_from_slice(properties);
    });
    for piece in body.chunks(frame_max - FRAME_BYTES) {
        framed(out, BODY, CHANNEL, |out| out.extend_from_slice(piece));
    }
}

/// A message as a consumer gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery<'a> {
    /// The key it was published to.
    pub(crate) key: &'a [u8],
    /// Flags and properties, for [`Delivery::carbon_copies`].
    properties: &'a [u8],
    /// Its body.
    pub(crate) body: &'a [u8],
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// `connection.start`
    Start,
    /// `connection.tune`
    Tune { channel_max: u16, frame_max: u32 },
    /// `connection.open-ok`
    Opened,
    /// `channel.open-ok`
    ChannelOpened,
    /// An exchange, a queue, a binding or a consumer is there.
    Done,
    /// `basic.deliver` with all of its content.
    Delivery(Delivery<'a>),
    /// The server closes the connection or the channel: code and words.
    Closed { code: u16, words: &'a [u8] },
    /// The server takes no more publishes for now, because memory or disk is short.
    Blocked(&'a [u8]),
    /// It takes them again.
    Unblocked,
    /// To be answered by [`HEARTBEAT`].
    Heartbeat,
}

/// One frame: kind and content.
type Frame<'a> = (u8, &'a [u8]);

/// The first frame and its length; `None` while its end is still missing.
fn frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let Some(([kind, _, _, length @ ..], rest)) = bytes.split_first_chunk::<7>() else {
        return Ok(None);
    };
    if *kind == b'A' {
        return Err(Malformed("the server speaks another version of AMQP"));
    }
    let length = usize::try_from(u32::from_be_bytes(*length))
        .ok()
        .filter(|length| *length <= FRAME_BYTES_MAX)
        .ok_or(Malformed("an AMQP frame's length"))?;
    let Some(end) = rest.get(length) else { return Ok(None) };
    if *end != END {
        return Err(Malformed("an AMQP frame without its end"));
    }
    Ok(Some(((*kind, &rest[..length]), length + FRAME_BYTES)))
}

/// The first event and its length; `None` while its end is still missing.
pub(crate) fn event(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Malformed> {
    let Some(((kind, content), length)) = frame(bytes)? else { return Ok(None) };
    match kind {
        METHOD => match Fields(content).method() {
            Some((BASIC, DELIVER, fields)) => delivery(fields, bytes, length),
            Some((class, method, fields)) => {
                let event = methods::event(class, method, fields);
                event
                    .map(|event| Some((event, length)))
                    .ok_or(Malformed("an AMQP method that the bench does not expect"))
            }
            None => Err(Malformed("an AMQP method without its number")),
        },
        8 => Ok(Some((Event::Heartbeat, length))),
        _ => Err(Malformed("an AMQP frame of a kind that the bench does not expect")),
    }
}

/// The content behind a `basic.deliver`: its header, and its body in one frame (what is published
/// here fits in one, and RabbitMQ divides only what does not).
fn delivery<'a>(
    mut fields: Fields<'a>,
    bytes: &'a [u8],
    from: usize,
) -> Result<Option<(Event<'a>, usize)>, Malformed> {
    let short = Malformed("an AMQP delivery that ends too early");
    let mut key = || {
        let (_tag, _delivery, _redelivered) =
            (fields.short_string()?, fields.array::<8>()?, fields.array::<1>()?);
        let _exchange = fields.short_string()?;
        fields.short_string()
    };
    let key = key().ok_or(short)?;
    let Some(((kind, header), header_bytes)) = frame(&bytes[from..])? else { return Ok(None) };
    if kind != HEADER {
        return Err(Malformed("an AMQP delivery without its header"));
    }
    let Some((fixed, properties)) = header.split_first_chunk::<12>() else { return Err(short) };
    let [_, _, _, _, body_bytes @ ..] = *fixed;
    let from = from + header_bytes;
    let mut delivery = Delivery { key, properties, body: &[] };
    if body_bytes == [0; 8] {
        return Ok(Some((Event::Delivery(delivery), from)));
    }
    let Some(((kind, body), length)) = frame(&bytes[from..])? else { return Ok(None) };
    if kind != BODY || body.len() as u64 != u64::from_be_bytes(body_bytes) {
        return Err(Malformed("an AMQP delivery whose body is not one frame"));
    }
    delivery.body = body;
    Ok(Some((Event::Delivery(delivery), from + length)))
}

impl<'a> Delivery<'a> {
    /// The other keys it was published to, in order; none if it has no `CC`.
    pub(crate) fn carbon_copies(&self) -> CarbonCopies<'a> {
        CarbonCopies(self.find_carbon_copies().unwrap_or(Fields(&[])))
    }

    fn find_carbon_copies(&self) -> Option<Fields<'a>> {
        let mut fields = Fields(self.properties);
        let flags = u16::from_be_bytes(fields.array()?);
        for flag in HAS_STRINGS {
            if flags & flag != 0 {
                fields.short_string()?;
            }
        }
        if flags & HAS_HEADERS == 0 {
            return None;
        }
        let mut table = Fields(fields.long_string()?);
        let name = table.short_string()?;
        let [kind] = table.array()?;
        // RabbitMQ passes properties on as they came, so `CC` is still the first.
        (name == b"CC" && kind == b'A').then_some(Fields(table.long_string()?))
    }
}

/// Keys of a `CC`.
pub(crate) struct CarbonCopies<'a>(Fields<'a>);

impl<'a> Iterator for CarbonCopies<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let [kind] = self.0.array()?;
        if kind != b'S' {
            return None;
        }
        self.0.long_string()
    }
}

/// A cursor over fields.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn short_string(&mut self) -> Option<&'a [u8]> {
        let [length] = self.array()?;
        self.bytes(usize::from(length))
    }

    fn long_string(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.array()?);
        self.bytes(usize::try_from(length).ok()?)
    }

    /// Class and method, and the fields behind them.
    fn method(mut self) -> Option<(u16, u16, Self)> {
        let class = u16::from_be_bytes(self.array()?);
        let method = u16::from_be_bytes(self.array()?);
        Some((class, method, self))
    }
}

#[cfg(test)]
mod tests;

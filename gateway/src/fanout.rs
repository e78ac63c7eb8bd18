//! One encoding per subprotocol, however many receivers: the complete WebSocket frame as it goes
//! onto the wire.
//!
//! A server's frames are not masked (RFC 6455, 5.1), so the image of a message is the same for
//! every connection that speaks a subprotocol; they share one [`Bytes`]. Encoding is lazy: a
//! message whose receivers all speak JSON is never written in binary.

use bytes::Bytes;

use crate::subprotocol::{Message, Reply, Subprotocol};

/// A message on its way to any number of connections.
#[derive(Debug)]
pub struct Fanout<'a> {
    reply: Reply<'a>,
    images: Images,
}

/// What was encoded of a message so far, for when it goes on.
#[derive(Debug, Default)]
pub struct Images {
    json: Option<Bytes>,
    binary: Option<Bytes>,
}

impl<'a> Fanout<'a> {
    /// A message nobody has asked for yet.
    #[must_use]
    pub fn new(message: Message<'a>) -> Self {
        Self::again(message, Images::default())
    }

    /// The same message as when these were made.
    #[must_use]
    pub fn again(message: Message<'a>, images: Images) -> Self {
        Self { reply: Reply::Message(message), images }
    }

    /// What was encoded.
    #[must_use]
    pub fn into_images(self) -> Images {
        self.images
    }

    /// The frame for a connection that speaks `subprotocol`; clones of one buffer.
    pub fn frame(&mut self, subprotocol: Subprotocol) -> Bytes {
        let image = match subprotocol {
            Subprotocol::Json => &mut self.images.json,
            Subprotocol::Binary => &mut self.images.binary,
        };
        image.get_or_insert_with(|| frame(subprotocol, &self.reply)).clone()
    }
}

impl Images {
    /// How many encodings were made: at most one per subprotocol.
    #[must_use]
    pub fn encodings(&self) -> u64 {
        u64::from(self.json.is_some()) + u64::from(self.binary.is_some())
    }
}

/// One reply as a complete, unmasked, final WebSocket frame.
#[must_use]
pub fn frame(subprotocol: Subprotocol, reply: &Reply<'_>) -> Bytes {
    // The header's length is known only after the payload's: room for the longest is left in front
    // and what was not needed is cut off.
    let mut image = vec![0; HEADER_BYTES_MAX];
    subprotocol.encode(reply, &mut image);
    let len = (image.len() - HEADER_BYTES_MAX) as u64;
    let (len_code, extended) = match len {
        0..=125 => (len.to_le_bytes()[0], 0),
        126..=0xffff => (126, 2),
        _ => (127, 8),
    };
    let start = HEADER_BYTES_MAX - 2 - extended;
    image[start] = FIN | if subprotocol.is_text() { OPCODE_TEXT } else { OPCODE_BINARY };
    image[start + 1] = len_code;
    image[start + 2..HEADER_BYTES_MAX].copy_from_slice(&len.to_be_bytes()[8 - extended..]);
    // An image lives as long as its slowest reader: it should hold no more than it shows.
    image.shrink_to_fit();
    Bytes::from(image).slice(start..)
}

/// Longest header of an unmasked frame: two bytes and a length of eight (RFC 6455, 5.2).
const HEADER_BYTES_MAX: usize = 10;
const FIN: u8 = 0x80;
const OPCODE_TEXT: u8 = 0x1;
const OPCODE_BINARY: u8 = 0x2;

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::{Message as WsMessage, Role, WebSocket};

    use super::*;

    /// What an independent implementation reads out of a frame.
    fn read(frame: &[u8]) -> WsMessage {
        let stream = std::io::Cursor::new(frame.to_vec());
        WebSocket::from_raw_socket(stream, Role::Client, None).read().unwrap()
    }

    #[test]
    fn a_message_for_many_is_encoded_once_per_subprotocol() {
        let message = Message { origin: 1, sequence: 2, payload: b"hi", ..Message::default() };
        let mut fanout = Fanout::new(message);
        assert_eq!(fanout.images.encodings(), 0);
        let first = fanout.frame(Subprotocol::Json);
        for _ in 0..1000 {
            assert_eq!(fanout.frame(Subprotocol::Json).as_ptr(), first.as_ptr());
        }
        assert_eq!(fanout.images.encodings(), 1);
        let binary = fanout.frame(Subprotocol::Binary);
        assert_eq!(fanout.frame(Subprotocol::Binary).as_ptr(), binary.as_ptr());
        assert_eq!(fanout.images.encodings(), 2);
    }

    #[test]
    fn frames_of_every_length_are_read_back() {
        // 24 bytes of head before the payload in binary: lengths around both borders of RFC 6455.
        for len in [0, 1, 101, 102, 103, 65_511, 65_512, 65_513, 1 << 20] {
            let payload = vec![0xa5; len];
            let message = Message { payload: &payload, ..Message::default() };
            let mut expected = Vec::new();
            Subprotocol::Binary.encode(&Reply::Message(message.clone()), &mut expected);
            let frame = Fanout::new(message.clone()).frame(Subprotocol::Binary);
            assert_eq!(read(&frame), WsMessage::binary(expected));
            let frame = Fanout::new(message).frame(Subprotocol::Json);
            assert!(read(&frame).is_text());
        }
        assert_eq!(frame(Subprotocol::Json, &Reply::Pong)[..2], [0x81, 15]);
        assert_eq!(frame(Subprotocol::Binary, &Reply::Pong)[..], [0x82, 1, 0x85]);
    }
}

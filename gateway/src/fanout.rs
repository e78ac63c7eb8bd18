//! One encoding per subprotocol, however many receivers: the complete WebSocket frame as it goes
//! onto the wire.
//!
//! A server's frames are not masked (RFC 6455, 5.1), so the image of a message is the same for
//! every connection that speaks a subprotocol; they share one [`Bytes`]. Encoding is lazy: a
//! message whose receivers all speak JSON is never written in binary. A long one is written a part
//! at a time (`long.rs`).

mod long;

use std::sync::Arc;

use bytes::Bytes;

use self::long::Long;
use crate::pool::{Image, Pool};
use crate::subprotocol::{Message, Reply, Subprotocol};

/// A message on its way to any number of connections.
#[derive(Debug)]
pub(crate) struct Fanout<'a> {
    reply: Reply<'a>,
    images: Images,
    pool: &'a Arc<Pool>,
}

/// What was encoded of a message so far, for when it goes on.
#[derive(Debug, Default)]
pub(crate) struct Images {
    json: Frame,
    binary: Frame,
}

/// The frame of one subprotocol.
#[derive(Debug, Default)]
enum Frame {
    #[default]
    Unasked,
    Begun(Long),
    Made(Bytes),
}

impl<'a> Fanout<'a> {
    /// The message of which these were made.
    pub(crate) fn new(message: Message<'a>, images: Images, pool: &'a Arc<Pool>) -> Self {
        Self { reply: Reply::Message(message), images, pool }
    }

    /// What was encoded.
    pub(crate) fn into_images(self) -> Images {
        self.images
    }

    /// The frame for a connection that speaks `subprotocol`, clones of one buffer; `None` if it is
    /// a long one that [is not whole yet](Self::go_on).
    #[inline]
    pub(crate) fn frame(&mut self, subprotocol: Subprotocol) -> Option<Bytes> {
        match self.images.of(subprotocol) {
            Frame::Made(bytes) => Some(bytes.clone()),
            _ => self.make(subprotocol),
        }
    }

    /// The same, of one that was not made yet.
    fn make(&mut self, subprotocol: Subprotocol) -> Option<Bytes> {
        let image = self.images.of(subprotocol);
        if matches!(image, Frame::Unasked) {
            let payload = match &self.reply {
                Reply::Message(message) => message.payload.len(),
                _ => 0,
            };
            *image = match payload > LONG_BYTES {
                true => Frame::Begun(Long::new(subprotocol)),
                false => {
                    let (bytes, start) = encode(subprotocol, &self.reply);
                    Frame::Made(Image::new(bytes, self.pool).share(start))
                }
            };
        }
        match image {
            Frame::Made(bytes) => Some(bytes.clone()),
            _ => None,
        }
    }

    /// Makes so many bytes more of a frame that was asked for and is not whole; whether there is
    /// none.
    pub(crate) fn go_on(&mut self, bytes: usize) -> bool {
        let Reply::Message(message) = &self.reply else { return true };
        let frames = [&mut self.images.json, &mut self.images.binary];
        let begun = frames.into_iter().find(|frame| matches!(frame, Frame::Begun(_)));
        let Some(frame) = begun else { return true };
        if let Frame::Begun(long) = frame
            && long.go_on(message, bytes, self.pool)
            && let Frame::Begun(long) = std::mem::take(frame)
            && let Some(image) = long.into_image()
        {
            *frame = Frame::Made(image.share(0));
        }
        false
    }
}

impl Images {
    fn of(&mut self, subprotocol: Subprotocol) -> &mut Frame {
        match subprotocol {
            Subprotocol::Json => &mut self.json,
            Subprotocol::Binary => &mut self.binary,
        }
    }

    /// How many encodings were made: at most one per subprotocol.
    pub(crate) fn encodings(&self) -> u64 {
        let made = |frame: &Frame| u64::from(matches!(frame, Frame::Made(_)));
        made(&self.json) + made(&self.binary)
    }

    /// Whether one was begun.
    pub(crate) fn is_begun(&self) -> bool {
        !matches!((&self.json, &self.binary), (Frame::Unasked, Frame::Unasked))
    }
}

/// One reply as a complete, unmasked, final WebSocket frame.
pub(crate) fn frame(subprotocol: Subprotocol, reply: &Reply<'_>) -> Bytes {
    let (image, start) = encode(subprotocol, reply);
    Bytes::from(image).slice(start..)
}

/// The same as bytes, and where in them it begins.
fn encode(subprotocol: Subprotocol, reply: &Reply<'_>) -> (Vec<u8>, usize) {
    // The header's length is known only after the payload's: room for the longest is left in front
    // and what was not needed is cut off.
    let mut image = vec![0; HEADER_BYTES_MAX];
    subprotocol.encode(reply, &mut image);
    let len = image.len() - HEADER_BYTES_MAX;
    let start = put_header(subprotocol, &mut image, len);
    // An image lives as long as its slowest reader: it should hold no more than it shows.
    image.shrink_to_fit();
    (image, start)
}

/// Puts the header of a frame of so many bytes before what comes after the room for the longest;
/// where it begins.
fn put_header(subprotocol: Subprotocol, image: &mut [u8], len: usize) -> usize {
    let len = len as u64;
    let (len_code, extended) = match len {
        0..=125 => (len.to_le_bytes()[0], 0),
        126..=0xffff => (126, 2),
        _ => (127, 8),
    };
    let start = HEADER_BYTES_MAX - 2 - extended;
    image[start] = FIN | if subprotocol.is_text() { OPCODE_TEXT } else { OPCODE_BINARY };
    image[start + 1] = len_code;
    image[start + 2..HEADER_BYTES_MAX].copy_from_slice(&len.to_be_bytes()[8 - extended..]);
    start
}

/// Bytes of a payload above which its frames are made in parts.
const LONG_BYTES: usize = 64 << 10;

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

    fn pool() -> Arc<Pool> {
        Pool::new(1 << 30, 1, Arc::default())
    }

    /// The frame, made in parts of so many bytes if it is a long one; and in how many.
    fn made(message: &Message<'_>, subprotocol: Subprotocol, part: usize) -> (Bytes, usize) {
        let pool = pool();
        let mut fanout = Fanout::new(message.clone(), Images::default(), &pool);
        let mut parts = 0;
        loop {
            if let Some(frame) = fanout.frame(subprotocol) {
                return (frame, parts);
            }
            assert!(!fanout.go_on(part), "it is not whole");
            parts += 1;
            let images = fanout.into_images();
            fanout = Fanout::new(message.clone(), images, &pool);
        }
    }

    #[test]
    fn a_message_for_many_is_encoded_once_per_subprotocol() {
        let message = Message { origin: 1, sequence: 2, payload: b"hi", ..Message::default() };
        let pool = pool();
        let mut fanout = Fanout::new(message, Images::default(), &pool);
        assert_eq!(fanout.images.encodings(), 0);
        let first = fanout.frame(Subprotocol::Json).unwrap();
        for _ in 0..1000 {
            assert_eq!(fanout.frame(Subprotocol::Json).unwrap().as_ptr(), first.as_ptr());
        }
        assert_eq!(fanout.images.encodings(), 1);
        let binary = fanout.frame(Subprotocol::Binary).unwrap();
        assert_eq!(fanout.frame(Subprotocol::Binary).unwrap().as_ptr(), binary.as_ptr());
        assert_eq!(fanout.images.encodings(), 2);
    }

    #[test]
    fn sec_24_a_long_frame_is_the_same_in_parts_of_any_size() {
        let text = "aé\u{7f}\u{0}\"\\\n\t\u{8}\u{c}\r😀\u{2028}".repeat(4_000).into_bytes();
        let mut cut_short = text.clone();
        cut_short.pop();
        let mut bytes = vec![b'x'; 100_001];
        bytes[70_000] = 0xff;
        let no_begin = [&b"a"[..], &[0x80; 70_000]].concat();
        let none_within = [&text[..], &[0xbf; 70_000], b"a"].concat();
        let filled = [vec![0xa5; 70_000], vec![1; 1 << 17]];
        let mixed = [text, cut_short, bytes, no_begin, none_within];
        for payload in mixed.into_iter().chain(filled) {
            let labels = vec!["a\"b"];
            let message = Message { payload: &payload, labels, origin: 9, ..Message::default() };
            for subprotocol in [Subprotocol::Json, Subprotocol::Binary] {
                let (whole, start) = encode(subprotocol, &Reply::Message(message.clone()));
                for part in [4, 7, 1_000, 1 << 16, 1 << 24] {
                    let (frame, parts) = made(&message, subprotocol, part);
                    assert!(frame == whole[start..], "{subprotocol:?}, parts of {part}");
                    let most = payload.len() / (part - 3).max(1);
                    assert!(parts >= payload.len() / part && parts <= 2 * most + 4, "{parts}");
                }
            }
        }
    }

    #[test]
    fn promise_7_a_long_frame_takes_as_much_as_it_is_long() {
        let (payload, pool) = (vec![1; 1 << 20], pool());
        let message = Message { payload: &payload, ..Message::default() };
        let mut fanout = Fanout::new(message, Images::default(), &pool);
        assert_eq!(fanout.frame(Subprotocol::Json), None);
        while !fanout.go_on(1 << 16) {}
        let frame = fanout.frame(Subprotocol::Json).unwrap();
        assert_eq!((frame.len() >> 20, pool.held()), (6, frame.len()));
    }

    #[test]
    fn frames_of_every_length_are_read_back() {
        // 24 bytes of head before the payload in binary: lengths around both borders of RFC 6455.
        for len in [0, 1, 101, 102, 103, 65_511, 65_512, 65_513, 1 << 20] {
            let payload = vec![0xa5; len];
            let message = Message { payload: &payload, ..Message::default() };
            let mut expected = Vec::new();
            Subprotocol::Binary.encode(&Reply::Message(message.clone()), &mut expected);
            let (frame, _) = made(&message, Subprotocol::Binary, 1 << 16);
            assert_eq!(read(&frame), WsMessage::binary(expected));
            let (frame, _) = made(&message, Subprotocol::Json, 1 << 16);
            assert!(read(&frame).is_text());
        }
        assert_eq!(frame(Subprotocol::Json, &Reply::Pong)[..2], [0x81, 15]);
        assert_eq!(frame(Subprotocol::Binary, &Reply::Pong)[..], [0x82, 1, 0x85]);
    }
}

//! The frame of a message with a long payload, made a part at a time, so that no turn of its maker
//! takes long (SEC-24); and in memory of just its length, however its text is escaped.
//!
//! ```text
//! judged: is it text, and how long will it be?  -->  written: head, payload, tail
//! ```

use std::io::{self, Write};
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{HEADER_BYTES_MAX, put_header};
use crate::pool::{Image, Pool};
use crate::subprotocol::{Message, Reply, Subprotocol};

/// See the module. The message is the same at each call.
#[derive(Debug)]
pub(super) struct Long {
    subprotocol: Subprotocol,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Bytes of the payload that were looked at, all of them text, and of these as JSON.
    Judged { at: usize, escaped: usize },
    /// Bytes of it that are in the image.
    Written { at: usize, body: Body, image: Image },
}

/// How the payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Bytes,
    Text,
    Base64,
}

impl Long {
    /// Nothing of it yet.
    pub(super) fn new(subprotocol: Subprotocol) -> Self {
        Self { subprotocol, stage: Stage::Judged { at: 0, escaped: 0 } }
    }

    /// Looks at, or writes, up to `most` bytes of the payload, at least four; whether all is there.
    pub(super) fn go_on(&mut self, message: &Message<'_>, most: usize, pool: &Arc<Pool>) -> bool {
        let payload = message.payload;
        match &mut self.stage {
            Stage::Judged { at, escaped } if self.subprotocol.is_text() => {
                let body = match next_text(payload, *at, most) {
                    None => Some((Body::Base64, payload.len().div_ceil(3) * 4)),
                    Some(text) => {
                        *escaped += text.bytes().map(escaped_bytes).sum::<usize>();
                        *at += text.len();
                        (*at == payload.len()).then_some((Body::Text, *escaped))
                    }
                };
                if let Some((body, bytes)) = body {
                    self.begin(message, body, bytes, pool);
                }
                false
            }
            Stage::Judged { .. } => {
                self.begin(message, Body::Bytes, payload.len(), pool);
                false
            }
            Stage::Written { at, body, image } => {
                let part = part_of(payload, *at, *body, most);
                *at = part.end;
                body.append(&payload[part], &mut image.bytes);
                let is_done = *at == payload.len();
                if is_done {
                    image.bytes.extend_from_slice(body.tail());
                    debug_assert_eq!(image.bytes.len(), image.bytes.capacity(), "as foretold");
                }
                is_done
            }
        }
    }

    /// The head, with room for the rest.
    fn begin(&mut self, message: &Message<'_>, body: Body, bytes: usize, pool: &Arc<Pool>) {
        let mut head = vec![0; HEADER_BYTES_MAX];
        let empty = Message { payload: &[], ..message.clone() };
        self.subprotocol.encode(&Reply::Message(empty), &mut head);
        if body != Body::Bytes {
            head.truncate(head.len() - EMPTY.len());
            head.extend_from_slice(if body == Body::Text { TEXT } else { BASE64 });
        }
        let len = head.len() - HEADER_BYTES_MAX + bytes + body.tail().len();
        let start = put_header(self.subprotocol, &mut head, len);
        let mut image = Vec::with_capacity(head.len() - start + bytes + body.tail().len());
        image.extend_from_slice(&head[start..]);
        self.stage = Stage::Written { at: 0, body, image: Image::new(image, pool) };
    }

    /// All of it, once [`go_on`](Self::go_on) has said so.
    pub(super) fn into_image(self) -> Option<Image> {
        match self.stage {
            Stage::Written { image, .. } => Some(image),
            Stage::Judged { .. } => None,
        }
    }
}

/// How the JSON of a message ends that has no payload, and what stands before a payload instead.
const EMPTY: &[u8] = b"\"data\":\"\"}";
const TEXT: &[u8] = b"\"data\":\"";
const BASE64: &[u8] = b"\"data64\":\"";

impl Body {
    fn append(self, part: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Bytes => out.extend_from_slice(part),
            Self::Text => {
                let text = std::str::from_utf8(part).expect("it was judged to be text");
                let mut inside = Inside { out, is_begun: false };
                serde_json::to_writer(&mut inside, text).expect("a Vec takes every write");
                // The quote at the end.
                out.pop();
            }
            Self::Base64 => {
                let at = out.len();
                out.resize(at + part.len().div_ceil(3) * 4, 0);
                let written = STANDARD.encode_slice(part, &mut out[at..]);
                debug_assert_eq!(written, Ok(out.len() - at));
            }
        }
    }

    fn tail(self) -> &'static [u8] {
        if self == Self::Bytes { b"" } else { b"\"}" }
    }
}

/// Takes a JSON string but for the quote at its begin.
struct Inside<'a> {
    out: &'a mut Vec<u8>,
    is_begun: bool,
}

impl Write for Inside<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let quote = usize::from(!std::mem::replace(&mut self.is_begun, true));
        self.out.extend_from_slice(&bytes[quote..]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The part from `at` on, of at most that many bytes, that ends where it may be cut.
fn part_of(payload: &[u8], at: usize, body: Body, most: usize) -> Range<usize> {
    let end = payload.len().min(at + most.max(4));
    if end == payload.len() {
        return at..end;
    }
    match body {
        Body::Bytes => at..end,
        Body::Base64 => at..end - (end - at) % 3,
        Body::Text => {
            let is_inner = |byte: u8| byte & 0xc0 == 0x80;
            // Never nothing: what begins a part may be followed by bytes that are no text.
            at..(at + 1..=end).rev().find(|end| !is_inner(payload[*end])).unwrap_or(end)
        }
    }
}

/// The text from `at` on, of at most that many bytes; `None` if there is something else.
fn next_text(payload: &[u8], at: usize, most: usize) -> Option<&str> {
    std::str::from_utf8(&payload[part_of(payload, at, Body::Text, most)]).ok()
}

/// Bytes that a byte of text takes in JSON, as serde writes it.
fn escaped_bytes(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

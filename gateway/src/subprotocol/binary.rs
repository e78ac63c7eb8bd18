//! `waybill.bin.v1` (13.2): little-endian, no padding, the first byte says what it is.
//!
//! Reading takes from the front of a slice and fails in one place when there is too little. A
//! payload is a slice of the message it came in, not a copy.

use bytes::Bytes;
use waybill_wire::code::{ClientMessage, ContentType, Encoding};

use super::{BadMessage, Message, Reply, Request, bad};

/// Bit 0 of MESSAGE's flags: a sender follows.
const FLAG_SENDER: u8 = 1;

pub(super) fn decode(message: &Bytes) -> Result<Request, BadMessage> {
    let mut reader = Reader(message);
    match ClientMessage(reader.u8()?) {
        ClientMessage::LOGIN => {
            reader.reserved(1)?;
            let token_len = reader.u16()?;
            let token = reader.text(token_len.into())?.to_owned();
            reader.end()?;
            Ok(Request::Login { token })
        }
        ClientMessage::SEND => {
            let count = reader.u8()?;
            reader.reserved(2)?;
            let id = reader.u32()?;
            let mut labels = Vec::new();
            for _ in 0..count {
                let label_len = reader.u8()?;
                labels.push(reader.text(label_len.into())?.to_owned());
            }
            Ok(Request::Send { id, labels, payload: message.slice_ref(reader.0) })
        }
        ClientMessage::PING => {
            reader.end()?;
            Ok(Request::Ping)
        }
        _ => bad("not a message a client sends"),
    }
}

/// What has not been read yet.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadMessage> {
        match self.0.split_at_checked(len) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => bad("the message ends too early"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadMessage> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, BadMessage> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, BadMessage> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadMessage> {
        self.array().map(u32::from_le_bytes)
    }

    fn reserved(&mut self, len: usize) -> Result<(), BadMessage> {
        if self.take(len)?.iter().any(|byte| *byte != 0) {
            return bad("a reserved field is not zero");
        }
        Ok(())
    }

    fn text(&mut self, len: usize) -> Result<&'a str, BadMessage> {
        std::str::from_utf8(self.take(len)?).map_err(|_| BadMessage("a text is not UTF-8".into()))
    }

    fn end(&self) -> Result<(), BadMessage> {
        if self.0.is_empty() { Ok(()) } else { bad("there are bytes after the message") }
    }
}

pub(super) fn encode(reply: &Reply<'_>, out: &mut Vec<u8>) {
    match reply {
        Reply::Ready { uid, namespace, connection, heartbeat_ms } => {
            out.extend_from_slice(&[ClientMessage::READY.0, 0, 0, 0]);
            out.extend_from_slice(&heartbeat_ms.to_le_bytes());
            out.extend_from_slice(&uid.to_le_bytes());
            out.extend_from_slice(&connection.to_le_bytes());
            out.extend_from_slice(&namespace.to_le_bytes());
        }
        Reply::Message(message) => encode_message(message, out),
        Reply::Sent { id } => sent(0, *id, out),
        Reply::Refused { id, code } => sent(code.0, *id, out),
        Reply::Pong => out.push(ClientMessage::PONG.0),
        Reply::Drain { reconnect_after_ms } => {
            out.extend_from_slice(&[ClientMessage::DRAIN.0, 0, 0, 0]);
            out.extend_from_slice(&reconnect_after_ms.to_le_bytes());
        }
    }
}

fn sent(code: u16, id: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&[ClientMessage::SENT.0, 0]);
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
}

fn encode_message(message: &Message<'_>, out: &mut Vec<u8>) {
    let (content, encoding) = message.content.unwrap_or((ContentType::OPAQUE, Encoding::IDENTITY));
    let flags = if message.sender.is_some() { FLAG_SENDER } else { 0 };
    let count = u8::try_from(message.labels.len()).expect("the wire has at most labels_max");
    out.reserve(32 + message.payload.len());
    out.extend_from_slice(&[ClientMessage::MESSAGE.0, flags, count, 0]);
    out.extend_from_slice(&content.0.to_le_bytes());
    out.extend_from_slice(&encoding.0.to_le_bytes());
    out.extend_from_slice(&message.origin.to_le_bytes());
    out.extend_from_slice(&message.sequence.to_le_bytes());
    if let Some(sender) = message.sender {
        out.extend_from_slice(&sender.to_le_bytes());
    }
    for label in &message.labels {
        out.push(u8::try_from(label.len()).expect("the wire has at most label_bytes_max"));
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(message.payload);
}

#[cfg(test)]
mod tests {
    use waybill_wire::code::ErrorCode;

    use super::super::Subprotocol;
    use super::*;

    fn check(bytes: &[u8], expected: Result<Request, &str>) {
        match (Subprotocol::Binary.decode(&Bytes::copy_from_slice(bytes)), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{bytes:02x?}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{bytes:02x?}: {error}");
            }
            (found, expected) => panic!("{bytes:02x?}: found {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn requests() {
        check(b"\x01\0\x03\0abc", Ok(Request::Login { token: "abc".into() }));
        check(b"\x01\0\0\0", Ok(Request::Login { token: String::new() }));
        check(b"\x03", Ok(Request::Ping));
        let send = |labels: &[&str], payload| Request::Send {
            id: 0x0102_0304,
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            payload: Bytes::from_static(payload),
        };
        check(b"\x02\0\0\0\x04\x03\x02\x01", Ok(send(&[], b"")));
        check(b"\x02\x02\0\0\x04\x03\x02\x01\x01a\x02bc\xff\0", Ok(send(&["a", "bc"], b"\xff\0")));
    }

    #[test]
    fn what_a_client_must_not_send() {
        for short in [&b""[..], b"\x01", b"\x01\0\x03", b"\x01\0\x03\0ab", b"\x02\0\0\0\x04\x03"] {
            check(short, Err("ends too early"));
        }
        check(b"\x02\x01\0\0\0\0\0\0\x05abcd", Err("ends too early"));
        check(b"\x02\x02\0\0\0\0\0\0\x01a", Err("ends too early"));
        check(b"\x01\x01\0\0", Err("reserved"));
        check(b"\x02\0\0\x01\0\0\0\0", Err("reserved"));
        check(b"\x01\0\x01\0abc", Err("after the message"));
        check(b"\x03\0", Err("after the message"));
        check(b"\x01\0\x01\0\xff", Err("UTF-8"));
        check(b"\x02\x01\0\0\0\0\0\0\x01\xff", Err("UTF-8"));
        check(b"\x02\x01\0\0\0\0\0\0\0", Err("a label is empty"));
        for kind in [0, 4, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0xff] {
            check(&[kind], Err("not a message a client sends"));
        }
    }

    #[test]
    fn replies() {
        let check = |reply: Reply<'_>, expected: &[u8]| {
            let mut out = Vec::new();
            encode(&reply, &mut out);
            assert_eq!(out, expected, "{reply:?}");
        };
        check(
            Reply::Ready { uid: 1001, namespace: 3, connection: 77, heartbeat_ms: 25_000 },
            b"\x81\0\0\0\xa8\x61\0\0\xe9\x03\0\0\0\0\0\0\x4d\0\0\0\0\0\0\0\x03\0\0\0",
        );
        check(Reply::Sent { id: 7 }, b"\x83\0\0\0\x07\0\0\0");
        check(Reply::Refused { id: 7, code: ErrorCode::NO_CONSUMER }, b"\x83\0\x31\x01\x07\0\0\0");
        check(Reply::Pong, b"\x85");
        check(Reply::Drain { reconnect_after_ms: 5000 }, b"\x86\0\0\0\x88\x13\0\0");
        let message = Message { origin: 1, sequence: 2, payload: b"hi", ..Message::default() };
        check(
            Reply::Message(message.clone()),
            b"\x82\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0hi",
        );
        let message = Message {
            content: Some((ContentType::JSON, Encoding::ZSTD)),
            labels: vec!["a", "bc"],
            sender: Some(3),
            ..message
        };
        check(
            Reply::Message(message),
            b"\x82\x01\x02\0\x02\0\x02\0\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01a\x02bchi",
        );
    }
}

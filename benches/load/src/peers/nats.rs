//! The client protocol of NATS: operations out and in. Bytes only, no sockets.
//!
//! After <https://docs.nats.io/reference/reference-protocols/nats-protocol>. Headers (HPUB, HMSG)
//! are neither offered nor used, so a server never sends them.

use memchr::memchr;

use super::{Malformed, decimal};

/// Sent once after the server's INFO. `verbose` off: no +OK for each operation, which the
/// documentation names as the setting for speed; `pedantic` off: no further checks of subjects.
/// `echo` off: a connection's own messages do not come back to it.
pub(crate) const CONNECT: &[u8] = b"CONNECT {\"verbose\":false,\"pedantic\":false,\"echo\":false,\
    \"tls_required\":false,\"headers\":false,\"lang\":\"rust\",\"version\":\"0.1.0\",\
    \"name\":\"waybill-bench\",\"protocol\":1}\r\n";
/// Answered by [`PONG`] after all that came before it.
pub(crate) const PING: &[u8] = b"PING\r\n";
/// The answer to a [`PING`].
pub(crate) const PONG: &[u8] = b"PONG\r\n";

/// `PUB subject length` and the payload, given in pieces.
pub(crate) fn publish(out: &mut Vec<u8>, subject: &[u8], payload: &[&[u8]]) {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(subject);
    out.push(b' ');
    decimal::push(out, payload.iter().map(|piece| piece.len() as u64).sum());
    out.extend_from_slice(b"\r\n");
    for piece in payload {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

/// `SUB subject sid`.
pub(crate) fn subscribe(out: &mut Vec<u8>, subject: &[u8], sid: u64) {
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject);
    out.push(b' ');
    decimal::push(out, sid);
    out.extend_from_slice(b"\r\n");
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation<'a> {
    /// The server's greeting, JSON; also sent later when its cluster changes.
    Info(&'a [u8]),
    /// A message that a subscription matched.
    Message { subject: &'a [u8], payload: &'a [u8] },
    /// To be answered.
    Ping,
    /// The answer to ours.
    Pong,
    /// Only when verbose.
    Ok,
    /// The server closes the connection after most of them, a slow consumer's among them.
    Error(&'a [u8]),
}

/// A control line longer than this is not of this protocol; INFO of a large cluster is a few KiB.
const LINE_BYTES_MAX: usize = 1 << 20;
/// No server takes a larger payload (`max_payload` is at most 64 MiB).
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;

/// The first operation and its length; `None` while its end is still missing.
pub(crate) fn operation(bytes: &[u8]) -> Result<Option<(Operation<'_>, usize)>, Malformed> {
    let Some(end) = memchr(b'\n', bytes) else {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(Malformed("a NATS control line without an end"));
        }
        return Ok(None);
    };
    let Some(line) = bytes[..end].strip_suffix(b"\r") else {
        return Err(Malformed("a NATS control line without its CR"));
    };
    let after = end + 1;
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        return message(bytes, after, arguments);
    }
    let operation = match line {
        b"PING" => Operation::Ping,
        b"PONG" => Operation::Pong,
        b"+OK" => Operation::Ok,
        _ => {
            if let Some(words) = line.strip_prefix(b"-ERR ") {
                Operation::Error(words)
            } else if let Some(info) = line.strip_prefix(b"INFO ") {
                Operation::Info(info)
            } else {
                return Err(Malformed("a NATS operation of unknown name"));
            }
        }
    };
    Ok(Some((operation, after)))
}

/// `MSG subject sid [reply-to] length`, then the payload.
fn message<'a>(
    bytes: &'a [u8],
    from: usize,
    arguments: &'a [u8],
) -> Result<Option<(Operation<'a>, usize)>, Malformed> {
    let mut words = arguments.split(|byte| *byte == b' ');
    let (Some(subject), Some(_sid), Some(mut length)) = (words.next(), words.next(), words.next())
    else {
        return Err(Malformed("a NATS message without its arguments"));
    };
    if let Some(after_reply_to) = words.next() {
        length = after_reply_to;
    }
    let length = decimal::parse(length)
        .filter(|length| *length <= PAYLOAD_BYTES_MAX && words.next().is_none())
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(Malformed("a NATS message's length"))?;
    let to = from + length;
    let Some(end) = bytes.get(to..to + 2) else { return Ok(None) };
    if end != b"\r\n" {
        return Err(Malformed("a NATS message without its end"));
    }
    Ok(Some((Operation::Message { subject, payload: &bytes[from..to] }, to + 2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publish_and_subscribe_write_what_the_documentation_shows() {
        let mut out = Vec::new();
        publish(&mut out, b"FOO", &[b"Hello ", b"NATS!"]);
        subscribe(&mut out, b"FOO", 1);
        publish(&mut out, b"NOTIFY", &[]);
        assert_eq!(out, b"PUB FOO 11\r\nHello NATS!\r\nSUB FOO 1\r\nPUB NOTIFY 0\r\n\r\n");
    }

    #[test]
    fn connect_is_one_line_of_json() {
        let json = CONNECT.strip_prefix(b"CONNECT ").expect("its name");
        let options: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(options["verbose"], false);
        assert_eq!(options["pedantic"], false);
        assert!(CONNECT.ends_with(b"}\r\n") && memchr(b'\n', CONNECT) == Some(CONNECT.len() - 1));
    }

    #[test]
    fn each_operation_reads_and_waits_for_its_last_byte() {
        let hello = Operation::Message { subject: b"FOO.BAR", payload: b"Hello World" };
        let lines = Operation::Message { subject: b"FOO", payload: b"\r\n" };
        let cases: [(&[u8], Operation<'_>); 8] = [
            (b"INFO {\"server_id\":\"a\"} \r\n", Operation::Info(b"{\"server_id\":\"a\"} ")),
            (b"MSG FOO.BAR 9 11\r\nHello World\r\n", hello),
            (b"MSG FOO.BAR 9 GREETING.34 11\r\nHello World\r\n", hello),
            (b"MSG FOO 1 2\r\n\r\n\r\n", lines),
            (b"PING\r\n", Operation::Ping),
            (b"PONG\r\n", Operation::Pong),
            (b"+OK\r\n", Operation::Ok),
            (b"-ERR 'Slow Consumer'\r\n", Operation::Error(b"'Slow Consumer'")),
        ];
        for (bytes, expected) in cases {
            assert_eq!(operation(bytes), Ok(Some((expected, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(operation(&bytes[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_not_of_the_protocol_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200\r\n"[..],
            b"PING\n",
            b"MSG FOO\r\n",
            b"MSG FOO 1 x\r\n",
            b"MSG FOO 1 R 5 6\r\n",
            b"MSG FOO 1 99999999999\r\n",
            b"MSG FOO 1 1\r\nabc",
        ] {
            assert!(operation(bytes).is_err(), "{bytes:?}");
        }
        assert!(operation(&vec![b'M'; LINE_BYTES_MAX + 1]).is_err());
    }
}

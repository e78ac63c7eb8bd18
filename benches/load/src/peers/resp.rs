//! RESP2, the protocol of Redis: commands out, tokens in. Bytes only, no sockets.
//!
//! After <https://redis.io/docs/latest/develop/reference/protocol-spec/>. Arrays come as a count
//! followed by their elements as tokens of their own, so that a long reply is taken as it arrives.

use memchr::memchr;

use super::{Malformed, decimal};

/// A command's head: how many arguments follow, each by [`bulk`].
pub(crate) fn arguments(out: &mut Vec<u8>, count: usize) {
    out.push(b'*');
    decimal::push(out, count as u64);
    out.extend_from_slice(b"\r\n");
}

/// One argument, given in pieces.
pub(crate) fn bulk(out: &mut Vec<u8>, pieces: &[&[u8]]) {
    out.push(b'$');
    decimal::push(out, pieces.iter().map(|piece| piece.len() as u64).sum());
    out.extend_from_slice(b"\r\n");
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

/// A whole command.
pub(crate) fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    arguments(out, words.len());
    for word in words {
        bulk(out, &[word]);
    }
}

/// `PUBLISH channel payload`, the payload in pieces.
pub(crate) fn publish(out: &mut Vec<u8>, channel: &[u8], payload: &[&[u8]]) {
    out.extend_from_slice(b"*3\r\n$7\r\nPUBLISH\r\n");
    bulk(out, &[channel]);
    bulk(out, payload);
}

/// One element of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// `+OK`
    Status(&'a [u8]),
    /// `-ERR words`
    Error(&'a [u8]),
    /// `:7`
    Integer(i64),
    /// `$3 abc`, or none at all (`$-1`).
    Bulk(Option<&'a [u8]>),
    /// `*2`, whose elements follow; a null array counts as empty.
    Array(usize),
}

/// The largest bulk string of Redis (`proto-max-bulk-len`).
const BULK_BYTES_MAX: i64 = 512 << 20;
/// A line longer than this is not of this protocol.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The first token and its length; `None` while its end is still missing.
pub(crate) fn token(bytes: &[u8]) -> Result<Option<(Token<'_>, usize)>, Malformed> {
    let Some(end) = memchr(b'\n', bytes) else {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(Malformed("a RESP line without an end"));
        }
        return Ok(None);
    };
    let Some((kind, line)) = bytes[..end].strip_suffix(b"\r").and_then(<[u8]>::split_first) else {
        return Err(Malformed("a RESP line without its CR or its kind"));
    };
    let after = end + 1;
    let token = match kind {
        b'+' => Token::Status(line),
        b'-' => Token::Error(line),
        b':' => Token::Integer(integer(line)?),
        b'*' => {
            let count = integer(line)?.max(0);
            Token::Array(usize::try_from(count).map_err(|_| Malformed("a RESP array's count"))?)
        }
        b'$' => return string(bytes, after, integer(line)?),
        _ => return Err(Malformed("a RESP token of unknown kind")),
    };
    Ok(Some((token, after)))
}

fn string(bytes: &[u8], from: usize, length: i64) -> Result<Option<(Token<'_>, usize)>, Malformed> {
    if length == -1 {
        return Ok(Some((Token::Bulk(None), from)));
    }
    let length = usize::try_from(length)
        .ok()
        .filter(|_| length <= BULK_BYTES_MAX)
        .ok_or(Malformed("a RESP string's length"))?;
    let to = from + length;
    let Some(end) = bytes.get(to..to + 2) else { return Ok(None) };
    if end != b"\r\n" {
        return Err(Malformed("a RESP string without its end"));
    }
    Ok(Some((Token::Bulk(Some(&bytes[from..to])), to + 2)))
}

fn integer(line: &[u8]) -> Result<i64, Malformed> {
    let (digits, sign) = line.strip_prefix(b"-").map_or((line, 1), |digits| (digits, -1));
    let number = decimal::parse(digits).and_then(|number| i64::try_from(number).ok());
    number.map(|number| number * sign).ok_or(Malformed("a RESP integer"))
}

/// What a connection that subscribes is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Push<'a> {
    /// A message on a channel.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// A subscription is in effect.
    Subscribed,
    /// A reply that is no push: status, number or refusal.
    Reply(Token<'a>),
}

/// The first push and its length; `None` while its end is still missing.
pub(crate) fn push(bytes: &[u8]) -> Result<Option<(Push<'_>, usize)>, Malformed> {
    let Some((head, mut at)) = token(bytes)? else { return Ok(None) };
    match head {
        Token::Array(3) => {}
        Token::Array(_) => return Err(Malformed("a push that has not three elements")),
        reply => return Ok(Some((Push::Reply(reply), at))),
    }
    let mut parts = [Token::Array(0); 3];
    for part in &mut parts {
        let Some((token, length)) = token(&bytes[at..])? else { return Ok(None) };
        *part = token;
        at += length;
    }
    let push = match parts {
        [Token::Bulk(Some(b"message")), Token::Bulk(Some(channel)), Token::Bulk(Some(payload))] => {
            Push::Message { channel, payload }
        }
        [Token::Bulk(Some(b"subscribe")), Token::Bulk(Some(_)), Token::Integer(_)] => {
            Push::Subscribed
        }
        _ => return Err(Malformed("a push of unknown kind")),
    };
    Ok(Some((push, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        // The example of the specification: LLEN mylist.
        let mut out = Vec::new();
        command(&mut out, &[b"LLEN", b"mylist"]);
        assert_eq!(out, b"*2\r\n$4\r\nLLEN\r\n$6\r\nmylist\r\n");
    }

    #[test]
    fn publish_joins_the_pieces_of_a_payload() {
        let mut out = Vec::new();
        publish(&mut out, b"1000000001", &[b"he", b"llo"]);
        let expected = b"*3\r\n$7\r\nPUBLISH\r\n$10\r\n1000000001\r\n$5\r\nhello\r\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn each_kind_of_token_reads() {
        // The specification's own examples.
        let cases: [(&[u8], Token<'_>); 9] = [
            (b"+OK\r\n", Token::Status(b"OK")),
            (b"-Error message\r\n", Token::Error(b"Error message")),
            (b":1000\r\n", Token::Integer(1000)),
            (b":-1\r\n", Token::Integer(-1)),
            (b"$5\r\nhello\r\n", Token::Bulk(Some(b"hello"))),
            (b"$0\r\n\r\n", Token::Bulk(Some(b""))),
            (b"$-1\r\n", Token::Bulk(None)),
            (b"*2\r\n", Token::Array(2)),
            (b"*-1\r\n", Token::Array(0)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(token(bytes), Ok(Some((expected, bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(token(&bytes[..cut]), Ok(None), "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_message_waits_for_its_last_byte_and_leaves_the_next() {
        let bytes = b"*3\r\n$7\r\nmessage\r\n$6\r\nsecond\r\n$7\r\nHel\r\nlo\r\n";
        for cut in 0..bytes.len() {
            assert_eq!(push(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
        let two = [&bytes[..], &bytes[..]].concat();
        let message = Push::Message { channel: b"second", payload: b"Hel\r\nlo" };
        assert_eq!(push(&two), Ok(Some((message, bytes.len()))));
    }

    #[test]
    fn a_subscription_is_confirmed_by_a_push() {
        let bytes = b"*3\r\n$9\r\nsubscribe\r\n$5\r\nfirst\r\n:1\r\n";
        assert_eq!(push(bytes), Ok(Some((Push::Subscribed, bytes.len()))));
        let refused = b"-ERR unknown command\r\n";
        let reply = Push::Reply(Token::Error(b"ERR unknown command"));
        assert_eq!(push(refused), Ok(Some((reply, refused.len()))));
    }

    #[test]
    fn what_is_not_of_the_protocol_is_refused() {
        for bytes in [
            &b"HTTP/1.1 200\r\n"[..],
            b"+OK\n",
            b"\r\n",
            b":x\r\n",
            b"$-2\r\n",
            b"$600000000\r\n",
            b"$2\r\nabc\r\n",
        ] {
            assert!(token(bytes).is_err(), "{bytes:?}");
        }
        assert!(push(b"*1\r\n").is_err());
        assert!(push(b"*3\r\n$7\r\nmessage\r\n:1\r\n:1\r\n").is_err());
        assert!(token(&vec![b'+'; LINE_BYTES_MAX + 1]).is_err());
    }
}

//! Channels of Redis.
//!
//! As the documentation says is fastest: commands are pipelined, many in a write
//! (<https://redis.io/docs/latest/develop/using-commands/pipelining/>); a producer that ignores
//! replies turns them off (<https://redis.io/commands/client-reply/>: sending them "is considered
//! wasteful"); many channels in one SUBSCRIBE. The server keeps nothing on disk, and its limits for
//! slow subscribers are raised (see `servers.rs`); when it closes a connection by them, that is a
//! fault of the run.

use super::super::Malformed;
use super::super::resp::{self, Push, Token};
use super::{Event, Name, Protocol};

/// Redis.
pub(in super::super) struct Channels;

impl Protocol for Channels {
    const SERVER_FIRST: bool = false;
    const BARRIER: Option<&'static [u8]> = None;

    fn greet(out: &mut Vec<u8>, publishes: bool) {
        if publishes {
            resp::command(out, &[b"CLIENT", b"REPLY", b"OFF"]);
        }
    }

    fn subscribe(out: &mut Vec<u8>, _first: u64, names: &[Name]) {
        resp::arguments(out, 1 + names.len());
        resp::bulk(out, &[b"SUBSCRIBE"]);
        for name in names {
            resp::bulk(out, &[name.as_bytes()]);
        }
    }

    fn publish(out: &mut Vec<u8>, name: &[u8], payload: &[&[u8]]) {
        resp::publish(out, name, payload);
    }

    fn event(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Malformed> {
        let Some((push, length)) = resp::push(bytes)? else { return Ok(None) };
        let event = match push {
            Push::Message { channel, payload } => Event::Message { name: channel, payload },
            Push::Subscribed => Event::Subscribed,
            Push::Reply(Token::Error(said)) => Event::Error(said),
            Push::Reply(_) => Event::Other,
        };
        Ok(Some((event, length)))
    }
}

//! Subjects of NATS.
//!
//! As the documentation says is fastest: `verbose` and `pedantic` off
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>), publishes buffered and
//! many in a write, as its clients do (<https://docs.nats.io/using-nats/developer/sending/caches>).
//! The server may keep more for a slow connection than by default, and does without its cache of
//! subjects where each message has another one (see `servers.rs`); when it cuts a slow consumer
//! off, that is a fault of the run.

use super::super::Malformed;
use super::super::nats::{self, Operation};
use super::{Event, Name, Protocol};

/// NATS.
pub(in super::super) struct Subjects;

impl Protocol for Subjects {
    const SERVER_FIRST: bool = true;
    const BARRIER: Option<&'static [u8]> = Some(nats::PING);

    fn greet(out: &mut Vec<u8>, _publishes: bool) {
        out.extend_from_slice(nats::CONNECT);
    }

    fn subscribe(out: &mut Vec<u8>, first: u64, names: &[Name]) {
        for (sid, name) in (first..).zip(names) {
            nats::subscribe(out, name.as_bytes(), sid);
        }
    }

    fn publish(out: &mut Vec<u8>, name: &[u8], payload: &[&[u8]]) {
        nats::publish(out, name, payload);
    }

    fn event(bytes: &[u8]) -> Result<Option<(Event<'_>, usize)>, Malformed> {
        let Some((operation, length)) = nats::operation(bytes)? else { return Ok(None) };
        let event = match operation {
            Operation::Message { subject, payload } => Event::Message { name: subject, payload },
            Operation::Pong => Event::Barrier,
            Operation::Ping => Event::Ping(nats::PONG),
            Operation::Error(said) => Event::Error(said),
            Operation::Info(_) => Event::Hello,
            Operation::Ok => Event::Other,
        };
        Ok(Some((event, length)))
    }
}

//! Drives the relay: publishes as a producer of Waybill does, and reads what each gateway gets.

use std::net::SocketAddr;

use waybill_wire::code::{Kind, Level, Mode};
use waybill_wire::message::MessageHead;
use waybill_wire::targets::UID_BYTES;

use super::frame::{FIXED_BYTES, Frame};
use super::hello::{HELLO_BYTES, Hello};
use crate::driver::{Audience, Driver, Message};
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::tally::Tally;

/// The relay's protocol: a hello, then frames one way.
pub(super) struct RelayDriver {
    address: SocketAddr,
    users: u64,
    gateways: usize,
    /// Sockets of the gateways, at their numbers, and after them the producer's.
    sockets: Vec<Socket>,
    ready: bool,
    /// Fixed parts of messages to users and to everyone.
    users_head: [u8; FIXED_BYTES],
    everyone_head: [u8; FIXED_BYTES],
}

/// The fixed part of a message, to be completed by length, count and sequence.
fn head(everyone: bool) -> [u8; FIXED_BYTES] {
    let mode = if everyone { Mode::BROADCAST } else { Mode::DIRECT };
    let head = MessageHead {
        everyone,
        mode,
        level: Level::NONE,
        namespace: 1,
        sequence: 1,
        ..MessageHead::default()
    };
    let targets: &[u64] = if everyone { &[] } else { &[1] };
    let mut bytes = Vec::new();
    head.encode(Kind::PUBLISH, targets, &[], &mut bytes).expect("a message within every limit");
    *bytes.first_chunk().expect("a message has a fixed part")
}

/// Appends a PUBLISH.
fn put(mut head: [u8; FIXED_BYTES], message: &Message<'_>, out: &mut Vec<u8>) -> Option<()> {
    let uids = match message.audience {
        Audience::Users(uids) => uids,
        Audience::Everyone => &[],
    };
    let payload_bytes = u32::try_from(message.payload.len()).ok()?;
    let words = u16::try_from((FIXED_BYTES + uids.len() * UID_BYTES) / 8).ok()?;
    let count = u16::try_from(uids.len()).ok()?;
    head[2..4].copy_from_slice(&words.to_le_bytes());
    head[4..8].copy_from_slice(&payload_bytes.to_le_bytes());
    head[10..12].copy_from_slice(&count.to_le_bytes());
    head[16..24].copy_from_slice(&(message.number + 1).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend(uids.iter().flat_map(|uid| uid.to_le_bytes()));
    out.extend_from_slice(message.payload);
    Some(())
}

impl RelayDriver {
    /// For a relay that listens there and was started for so many gateways.
    pub(super) fn new(address: SocketAddr, gateways: usize, users: u64) -> Self {
        let (sockets, users_head, everyone_head) = (Vec::new(), head(false), head(true));
        Self { address, users, gateways, sockets, ready: false, users_head, everyone_head }
    }
}

impl Driver for RelayDriver {
    fn connect(&mut self, io: &mut Io) -> Result<(), Failure> {
        let gateways = (0..self.gateways)
            .map(|number| Hello::Gateway(u32::try_from(number).expect("a relay has at most 256")));
        for hello in gateways.chain([Hello::Producer]) {
            let socket = io.open(self.address)?;
            io.out(socket).extend_from_slice(&hello.encode());
            self.sockets.push(socket);
        }
        Ok(())
    }

    fn received(
        &mut self,
        socket: Socket,
        bytes: &[u8],
        _io: &mut Io,
        tally: &mut Tally,
    ) -> Result<usize, Failure> {
        // The first socket of a run is gateway 0's, and so on: `connect` opens no other.
        let gateway = socket.index() - self.sockets[0].index();
        if gateway == self.gateways {
            let Some(bytes) = bytes.first_chunk::<HELLO_BYTES>() else { return Ok(0) };
            self.ready = Hello::decode(*bytes) == Some(Hello::Producer);
            return Ok(HELLO_BYTES);
        }
        let mut at = 0;
        while let Some(frame) = Frame::first(&bytes[at..])? {
            at += frame.bytes.len();
            if frame.everyone {
                tally.broadcast(gateway, frame.payload());
            } else {
                let uids = frame.uids().iter().map(|uid| u64::from_le_bytes(*uid));
                tally.delivered(gateway, frame.payload(), uids);
            }
        }
        Ok(at)
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn users_ready(&self) -> u64 {
        self.users
    }

    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure> {
        let head = match message.audience {
            Audience::Users(_) => self.users_head,
            Audience::Everyone => self.everyone_head,
        };
        let out = io.out(self.sockets[self.gateways]);
        put(head, message, out).ok_or_else(|| Failure::new("a message beyond a frame's limits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_are_the_frames_of_wire() {
        for (number, uids, payload) in
            [(0, vec![7], vec![1; 16]), (6, vec![1, 2, 3], vec![2; 1000]), (9, vec![], vec![3; 20])]
        {
            let everyone = uids.is_empty();
            let audience = if everyone { Audience::Everyone } else { Audience::Users(&uids) };
            let message = Message { number, audience, group: None, payload: &payload };
            let mode = if everyone { Mode::BROADCAST } else { Mode::DIRECT };
            let head = MessageHead {
                everyone,
                mode,
                namespace: 1,
                sequence: number + 1,
                ..MessageHead::default()
            };
            let (mut ours, mut wires) = (Vec::new(), Vec::new());
            put(super::head(everyone), &message, &mut ours).unwrap();
            head.encode_publish(&uids, &payload, &mut wires).unwrap();
            assert_eq!(ours, wires);
        }
    }
}

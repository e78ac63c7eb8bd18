//! The relay on completions: each turn hands the system one receipt and a send for each gateway
//! with something to send, in a single call.
//!
//! The sockets stay blocking for the system's own sake: an order that finds no room, or nothing
//! to read, then waits inside the ring.

use std::io;

use super::epoll::left;
use super::links::Links;
use super::ring::{Done, Ring, numbers};
use super::split::Split;
use super::{READ_BYTES, WAITING_BYTES_MAX};

struct Relay {
    ring: Ring,
    producer: usize,
    waiting: Vec<Vec<u8>>,
    /// Each gateway's other buffer; `None` while it is being sent.
    spares: Vec<Option<Vec<u8>>>,
    /// `None` while it is being filled.
    input: Option<Vec<u8>>,
    split: Split,
}

/// Forwards until the producer or a gateway leaves.
pub(super) fn run(links: &Links, split: Split) -> io::Result<()> {
    let gateways = links.gateways.len();
    let fresh = || Vec::with_capacity(READ_BYTES);
    let mut relay = Relay {
        ring: Ring::new(&numbers(links.gateways.iter().chain([&links.producer])))?,
        producer: gateways,
        waiting: (0..gateways).map(|_| fresh()).collect(),
        spares: (0..gateways).map(|_| Some(fresh())).collect(),
        input: Some(fresh()),
        split,
    };
    loop {
        match relay.turn() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if left(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

impl Relay {
    /// Whether there is a next one.
    fn turn(&mut self) -> io::Result<bool> {
        let outlets = self.waiting.iter_mut().zip(&mut self.spares);
        for (number, (waiting, spare)) in outlets.enumerate() {
            if !waiting.is_empty()
                && let Some(spare) = spare.take()
            {
                self.ring.send(number, std::mem::replace(waiting, spare));
            }
        }
        let has_room = self.waiting.iter().all(|bytes| bytes.len() < WAITING_BYTES_MAX);
        if has_room && let Some(input) = self.input.take() {
            self.ring.receive(self.producer, input);
        }
        self.ring.enter()?;
        while let Some(done) = self.ring.next() {
            if !self.completed(done)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether all are still there.
    fn completed(&mut self, done: Done) -> io::Result<bool> {
        let Done { socket, mut buffer, received, result } = done;
        let bytes = result?;
        if !received {
            // With MSG_WAITALL less than all means that the gateway went away meanwhile.
            let whole = bytes == buffer.len();
            buffer.clear();
            // The one that was sent is still in the cache, so it is the next to be filled.
            let waiting = &mut self.waiting[socket];
            if waiting.is_empty() {
                std::mem::swap(waiting, &mut buffer);
            }
            self.spares[socket] = Some(buffer);
            return Ok(whole);
        }
        if bytes == 0 {
            return Ok(false);
        }
        let taken = self.split.split(&buffer, &mut self.waiting)?;
        buffer.drain(..taken);
        if buffer.len() == buffer.capacity() {
            buffer.reserve(buffer.len());
        }
        self.input = Some(buffer);
        Ok(true)
    }
}

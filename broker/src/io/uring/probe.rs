//! Whether io_uring does here what the backend asks of it: tried with real bytes over loopback.
//!
//! Kernels have had it wrong before, and policies refuse one operation and not another, so nothing
//! is inferred from a version. What is tried is the very code that serves links.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use super::buffers::Sizes;
use super::ring::{Event, Ring};
use super::tag::Place;
use crate::io::LinkId;
use crate::io::choice::Unavailable;

/// Bytes that are sent through.
const BYTES: usize = 1 << 20;

/// So few and so small that they run out, and are used again and again.
const BUFFERS: Sizes = Sizes { least: 2, most: 4, bytes: 4 << 10 };

/// How long nothing may happen, and how often in all something may have to be waited for.
const WAIT: Duration = Duration::from_secs(2);
const WAITS: usize = 10_000;

const ONE: LinkId = LinkId(1);
const OTHER: LinkId = LinkId(2);

/// Sends 1 MiB from one socket to another of the same ring, whole and in order, by a standing order
/// and then by single ones; lets itself be woken; ends an order, and both sockets.
///
/// # Errors
/// The first thing that is not there, or did not work.
pub(crate) fn moves_bytes() -> Result<(), Unavailable> {
    let mut ring = Ring::new(BUFFERS)?;
    ring.begin().map_err(Unavailable::because("a ring that is begun by its thread"))?;
    let (one, other) = pair().map_err(Unavailable::because("two sockets on loopback"))?;
    let mut test = Test { from: ring.adopt(ONE, one), to: ring.adopt(OTHER, other), ring };
    test.transfer(true).map_err(Unavailable::because("1 MiB by a standing order"))?;
    test.stop().map_err(Unavailable::because("a standing order that ends"))?;
    test.transfer(false).map_err(Unavailable::because("1 MiB by single orders"))?;
    test.wake().map_err(Unavailable::because("being woken"))?;
    test.end().map_err(Unavailable::because("the end of a connection"))
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    loop {
        let (other, address) = listener.accept()?;
        // Anybody on this machine may connect.
        if address == one.local_addr()? {
            return Ok((one, other));
        }
    }
}

/// The byte at that place: no two neighbourhoods are alike.
fn pattern(at: usize) -> u8 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed.to_le_bytes()[7]
}

struct Test {
    ring: Ring,
    from: Place,
    to: Place,
}

impl Test {
    fn event(&mut self) -> io::Result<Event> {
        for _ in 0..WAITS {
            if let Some(event) = self.ring.next() {
                return Ok(event);
            }
            self.ring.enter(WAIT)?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn receive(&mut self, by_standing_order: bool) {
        if by_standing_order {
            self.ring.receive_all(self.to);
        } else {
            let buffer = self.ring.buffer();
            self.ring.receive(self.to, buffer);
        }
    }

    fn transfer(&mut self, by_standing_order: bool) -> io::Result<()> {
        self.receive(by_standing_order);
        self.ring.send(self.from, (0..BYTES).map(pattern).collect(), Vec::new());
        let (mut arrived, mut sent) = (0, false);
        while arrived < BYTES || !sent {
            match self.event()? {
                Event::Bytes(OTHER, data) => {
                    let expected = (arrived..arrived + data.len()).map(pattern);
                    if !data.iter().copied().eq(expected) {
                        return Err(other("other bytes arrived than were sent, or in other order"));
                    }
                    arrived += data.len();
                    self.ring.put(data);
                    if !self.ring.receives(self.to) && arrived < BYTES {
                        self.receive(by_standing_order);
                    }
                }
                Event::Starved(OTHER) => self.receive(by_standing_order),
                Event::Sent(ONE, _) => sent = true,
                event => return Err(unexpected(&event)),
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> io::Result<()> {
        if !self.ring.receives(self.to) {
            self.ring.receive_all(self.to);
        }
        self.ring.stop(self.to);
        match self.event()? {
            Event::Stopped(OTHER) => Ok(()),
            event => Err(unexpected(&event)),
        }
    }

    fn wake(&mut self) -> io::Result<()> {
        let mut bell = std::fs::File::from(self.ring.bell()?);
        let before = self.ring.rings();
        bell.write_all(&1_u64.to_ne_bytes())?;
        self.ring.enter(WAIT)?;
        if let Some(event) = self.ring.next() {
            return Err(unexpected(&event));
        }
        if self.ring.rings() == before { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }

    /// The far end sees that it ends, and an order that is under way meanwhile is completed.
    fn end(mut self) -> io::Result<()> {
        self.receive(true);
        self.ring.close(self.from);
        match self.event()? {
            Event::End(OTHER) => {}
            event => return Err(unexpected(&event)),
        }
        self.receive(true);
        self.ring.close(self.to);
        for _ in 0..WAITS {
            if self.ring.is_quiet() {
                return Ok(());
            }
            self.ring.enter(WAIT)?;
            if let Some(event) = self.ring.next() {
                return Err(unexpected(&event));
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn unexpected(event: &Event) -> io::Error {
    match event {
        Event::ReceiveFailed(_, error) | Event::SendFailed(_, error) => {
            error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error)
        }
        Event::Bytes(..) => other("bytes came that nobody sent"),
        Event::End(_) => other("the end came that nobody said"),
        Event::Starved(_) => other("a buffer was wanting where it was not"),
        Event::Stopped(_) => other("an order ended that was to stand"),
        Event::Sent(..) => other("something was sent that nobody ordered"),
        Event::Left(..) => other("a connection left that was to stay"),
    }
}

fn other(words: &'static str) -> io::Error {
    io::Error::other(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ring_is_asked_for_works_wherever_there_is_one() {
        match moves_bytes() {
            Ok(()) => {}
            Err(error) => {
                let refused = error.to_string().starts_with("a ring of one thread");
                assert!(refused, "only a system without io_uring may fail: {error}");
            }
        }
    }
}

//! The relay on readiness: one read, one split, one write for each gateway, and so on.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::links::Links;
use super::split::Split;
use super::{READ_BYTES, WAITING_BYTES_MAX};

/// What has been split for one gateway and not been written yet.
struct Outlet {
    stream: TcpStream,
    written: usize,
    /// The system had no room; it will say when it has.
    blocked: bool,
}

struct Relay {
    poll: Poll,
    events: Events,
    producer: TcpStream,
    outlets: Vec<Outlet>,
    waiting: Vec<Vec<u8>>,
    /// What was read; the first `filled` bytes are the begin of a frame.
    input: Vec<u8>,
    filled: usize,
    readable: bool,
    /// The producer has left; what it sent before may still have to be read.
    ending: bool,
    split: Split,
}

/// Forwards until the producer or a gateway leaves.
pub(super) fn run(links: Links, split: Split) -> io::Result<()> {
    let mut relay = Relay::new(links, split)?;
    loop {
        match relay.turn() {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) if left(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn registered(poll: &Poll, stream: std::net::TcpStream, token: usize) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    let mut stream = TcpStream::from_std(stream);
    let interest = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(token), interest)?;
    Ok(stream)
}

impl Relay {
    fn new(links: Links, split: Split) -> io::Result<Self> {
        let poll = Poll::new()?;
        let gateways = links.gateways.len();
        let producer = registered(&poll, links.producer, gateways)?;
        let mut outlets = Vec::with_capacity(gateways);
        for (number, stream) in links.gateways.into_iter().enumerate() {
            let stream = registered(&poll, stream, number)?;
            outlets.push(Outlet { stream, written: 0, blocked: false });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(gateways + 1),
            producer,
            outlets,
            waiting: vec![Vec::with_capacity(READ_BYTES); gateways],
            input: vec![0; READ_BYTES],
            filled: 0,
            readable: true,
            ending: false,
            split,
        })
    }

    /// Whether there is a next one.
    fn turn(&mut self) -> io::Result<bool> {
        if self.reads() && !self.read()? {
            return Ok(false);
        }
        let mut blocked = false;
        for (outlet, waiting) in self.outlets.iter_mut().zip(&mut self.waiting) {
            outlet.write(waiting)?;
            blocked |= outlet.blocked;
        }
        let reads = self.reads();
        if reads && !blocked { Ok(true) } else { self.wait(reads) }
    }

    /// Whether the producer has, as far as is known, something to read that there is room for.
    fn reads(&self) -> bool {
        self.readable && self.waiting.iter().all(|bytes| bytes.len() < WAITING_BYTES_MAX)
    }

    /// Whether the producer is still there.
    fn read(&mut self) -> io::Result<bool> {
        let read = match self.producer.read(&mut self.input[self.filled..]) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok(true);
            }
            Err(error) => return Err(error),
        };
        let end = self.filled + read;
        // The system had no more: it will say when it has. The end it said already.
        self.readable = end == self.input.len() || self.ending;
        let taken = self.split.split(&self.input[..end], &mut self.waiting)?;
        self.input.copy_within(taken..end, 0);
        self.filled = end - taken;
        if self.filled == self.input.len() {
            self.input.resize(2 * self.filled, 0);
        }
        Ok(true)
    }

    /// Looks what has changed; whether all are still there.
    fn wait(&mut self, at_once: bool) -> io::Result<bool> {
        match self.poll.poll(&mut self.events, at_once.then_some(Duration::ZERO)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            other => other?,
        }
        for event in &self.events {
            match self.outlets.get_mut(event.token().0) {
                Some(_) if event.is_read_closed() => return Ok(false),
                Some(outlet) => outlet.blocked &= !event.is_writable(),
                None => {
                    self.ending |= event.is_read_closed();
                    self.readable |= event.is_readable();
                }
            }
        }
        Ok(true)
    }
}

impl Outlet {
    fn write(&mut self, waiting: &mut Vec<u8>) -> io::Result<()> {
        if self.blocked || waiting.is_empty() {
            return Ok(());
        }
        match self.stream.write(&waiting[self.written..]) {
            Ok(written) => self.written += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        self.blocked = self.written < waiting.len();
        if !self.blocked {
            waiting.clear();
            self.written = 0;
        }
        Ok(())
    }
}

/// The other end went away in the middle of something, as a bench that ends does.
pub(super) fn left(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

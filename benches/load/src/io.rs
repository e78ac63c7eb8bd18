//! The sockets of a run: nonblocking, with an output each that is written in large pieces.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::failure::Failure;

/// Bytes at which an output is written before its turn ends.
pub const WRITE_BYTES: usize = 64 << 10;

/// Most bytes of one write.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// An output with more written bytes at its front than this is moved.
const MOVE_BYTES: usize = 1 << 20;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// One connection. Numbered from 0 in the order of [`Io::open`]; a number is not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket(usize);

impl Socket {
    /// Its number.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

#[derive(Debug)]
struct Line {
    stream: Option<TcpStream>,
    out: Vec<u8>,
    /// Bytes of `out` that the kernel has.
    written: usize,
    /// Whether it is in `Io::dirty`.
    dirty: bool,
    readable: bool,
    writable: bool,
    /// The other end will send no more.
    read_closed: bool,
    /// It is not read, on purpose.
    frozen: bool,
    /// Came in and was not taken yet.
    rest: Vec<u8>,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Bytes(usize),
    Nothing,
    End,
}

/// All sockets of one run.
#[derive(Debug)]
pub struct Io {
    poll: Poll,
    events: Events,
    lines: Vec<Line>,
    dirty: Vec<usize>,
    bytes_in: u64,
    bytes_out: u64,
}

impl Io {
    /// No sockets yet.
    ///
    /// # Errors
    /// The system has no poller to give.
    pub fn new() -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let events = Events::with_capacity(256);
        let (lines, dirty) = (Vec::new(), Vec::new());
        Ok(Self { poll, events, lines, dirty, bytes_in: 0, bytes_out: 0 })
    }

    /// Connects, waiting until the connection is there. Nothing is delayed on it (`TCP_NODELAY`).
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn open(&mut self, address: SocketAddr) -> Result<Socket, Failure> {
        let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .map_err(|error| Failure::from(error).during(format_args!("connecting {address}")))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let at = self.lines.len();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(at), interest)?;
        self.lines.push(Line {
            stream: Some(stream),
            out: Vec::new(),
            written: 0,
            dirty: false,
            readable: true,
            writable: true,
            read_closed: false,
            frozen: false,
            rest: Vec::new(),
        });
        Ok(Socket(at))
    }

    /// The output of a socket, to append to. It is written when it has [`WRITE_BYTES`], or when the
    /// turn ends.
    pub fn out(&mut self, socket: Socket) -> &mut Vec<u8> {
        let line = &mut self.lines[socket.0];
        if !line.dirty {
            line.dirty = true;
            self.dirty.push(socket.0);
        }
        &mut line.out
    }

    /// Bytes of its output that the kernel has not taken.
    #[must_use]
    pub fn queued(&self, socket: Socket) -> usize {
        let line = &self.lines[socket.0];
        line.out.len() - line.written
    }

    /// Closes it; what is queued is lost.
    pub fn close(&mut self, socket: Socket) {
        let line = &mut self.lines[socket.0];
        line.stream = None;
        line.out.clear();
        line.written = 0;
        line.readable = false;
    }

    /// Bytes read and written so far, over all sockets.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes_in + self.bytes_out
    }

    /// How many sockets there have been.
    pub(crate) fn count(&self) -> usize {
        self.lines.len()
    }

    /// Bytes of all outputs that the kernel has not taken.
    pub(crate) fn queued_in_all(&self) -> usize {
        self.dirty.iter().map(|at| self.queued(Socket(*at))).sum()
    }

    pub(crate) fn socket(&self, at: usize) -> Socket {
        debug_assert!(at < self.lines.len());
        Socket(at)
    }

    /// Asks which sockets are ready. `None` waits until one is.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Result<(), Failure> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let line = &mut self.lines[event.token().0];
            line.readable |= event.is_readable() || event.is_error();
            line.writable |= event.is_writable();
            line.read_closed |= event.is_read_closed() || event.is_error();
        }
        Ok(())
    }

    pub(crate) fn is_readable(&self, at: usize) -> bool {
        self.lines[at].is_readable()
    }

    /// Leaves a socket unread, or reads it again.
    pub(crate) fn freeze(&mut self, at: usize, frozen: bool) {
        self.lines[at].frozen = frozen;
    }

    /// Whether a socket has something to be read, or to be written and can be.
    pub(crate) fn has_work(&self) -> bool {
        let to_write = |at: &usize| {
            let line = &self.lines[*at];
            line.writable && line.out.len() > line.written
        };
        self.lines.iter().any(Line::is_readable) || self.dirty.iter().any(to_write)
    }

    /// Reads once, behind what was left before; how many bytes `buffer` has now.
    pub(crate) fn read(&mut self, at: usize, buffer: &mut Vec<u8>) -> Result<Arrived, Failure> {
        let line = &mut self.lines[at];
        let kept = line.rest.len();
        // A frame that fills the buffer and is not whole needs a larger one.
        if buffer.len() < 2 * kept {
            buffer.resize(2 * buffer.len(), 0);
        }
        let Some(stream) = &mut line.stream else {
            line.readable = false;
            return Ok(Arrived::Nothing);
        };
        match stream.read(&mut buffer[kept..]) {
            Ok(0) => {
                line.readable = false;
                Ok(Arrived::End)
            }
            Ok(count) => {
                // Less than was asked for is all there was: the next bytes are told anew. The end
                // that came with them would not be.
                line.readable = count == buffer.len() - kept || line.read_closed;
                self.bytes_in += count as u64;
                buffer[..kept].copy_from_slice(&line.rest);
                line.rest.clear();
                Ok(Arrived::Bytes(kept + count))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                line.readable = false;
                Ok(Arrived::Nothing)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Arrived::Nothing),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                line.readable = false;
                Ok(Arrived::End)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what a driver did not take.
    pub(crate) fn keep(&mut self, at: usize, rest: &[u8]) {
        self.lines[at].rest.extend_from_slice(rest);
    }

    /// Writes outputs of `least` bytes and more; how many bytes the kernel took.
    pub(crate) fn write(&mut self, least: usize) -> Result<usize, Failure> {
        let mut taken = 0;
        let mut dirty = std::mem::take(&mut self.dirty);
        for at in &dirty {
            let line = &mut self.lines[*at];
            if line.writable && line.out.len() - line.written >= least {
                taken += line.write()?;
            }
            line.dirty = !line.out.is_empty();
        }
        dirty.retain(|at| self.lines[*at].dirty);
        debug_assert!(self.dirty.is_empty(), "nothing is appended meanwhile");
        self.dirty = dirty;
        self.bytes_out += taken as u64;
        Ok(taken)
    }
}

impl Line {
    fn is_readable(&self) -> bool {
        self.readable && !self.frozen
    }

    fn write(&mut self) -> Result<usize, Failure> {
        let mut taken = 0;
        if self.stream.is_none() {
            self.written = self.out.len();
        }
        while let Some(stream) = &mut self.stream
            && self.written < self.out.len()
        {
            let end = self.out.len().min(self.written + WRITE_BYTES_MAX);
            match stream.write(&self.out[self.written..end]) {
                Ok(count) => {
                    self.written += count;
                    taken += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The read says that the connection is gone, behind what still came in.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                    ) =>
                {
                    self.written = self.out.len();
                }
                Err(error) => return Err(Failure::from(error).during("writing to the server")),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.written > MOVE_BYTES {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(taken)
    }
}

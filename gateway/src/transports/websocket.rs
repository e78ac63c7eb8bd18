//! One WebSocket: the socket and the library that speaks RFC 6455 on it, around a [`Line`], driven
//! by one task.
//!
//! Inbound frames and all control frames are tungstenite's; it sees memory only, never the socket.
//! Outbound messages are the shared frames of `fanout.rs` and go to the socket as they are. Bytes
//! are read into a buffer of the thread, and nothing is kept for messages that have been written:
//! 10,000 idle connections, logged in, took 2.8 KiB of resident memory each, everything included.
//! Of these [`READ_BUFFER_BYTES`] are what the library insists on and some 130 the timer, one entry
//! of tokio's wheel that is moved only when it fires.
//!
//! Each poll takes from the hub, reads, looks at the time, hands over to the hub and writes, until
//! none of them gets any further, or it has handled [`MESSAGES_MAX`] messages: then all other tasks
//! and sockets get their turn. While the hub's mailbox is full, or the session has as many
//! unanswered *send*s as it may, or too much is held of all connections, the socket is not read.
//!
//! Before its first write a poll asks the kernel itself for what there is to read: under load a
//! client's close may lie there long before the runtime says that the socket is readable, and a
//! message written then would count as delivered to somebody who had left.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use socket2::SockRef;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, Message as WsMessage, Role, WebSocketConfig, WebSocketContext,
};
use waybill_wire::code::CloseCode;
use waybill_wire::limits::CLIENT_MESSAGE_BYTES_MAX;

use super::Outbox;
use super::inbound::Inbound;
use super::line::{Framing, Line};
use super::writer::SLICES_MAX;
use crate::clock::Clock;
use crate::hub::LoginRefused;
use crate::server::Shared;
use crate::session::Session;
use crate::subprotocol::Subprotocol;
use crate::switchboard::FromConnection;

/// Buffer tungstenite allocates for each connection at once. Bytes reach it from the thread's
/// buffer, so a small one costs copies of long messages, not system calls.
const READ_BUFFER_BYTES: usize = 512;

/// The thread's buffer: what one read of a socket can bring.
const SCRATCH_BYTES: usize = 4 << 10;

/// Reads of one round: more may follow once something was written.
const READS_MAX: usize = 4;

/// What a client may have sent, and is not done with, without its being charged.
const BROUGHT_BYTES: usize = 8 << 10;

/// Rounds of one poll before other tasks get their turn.
const ROUNDS_MAX: usize = 8;

/// Messages and control frames of one poll. Small ones cost far more than their bytes do.
const MESSAGES_MAX: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// The connection as a future that ends when it does.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    tcp: TcpStream,
    line: Line<WebSocketContext>,
    /// Bytes that are still to be handed to the library, those that came with the upgrade request
    /// first. Even if there are none the library may hold whole messages of its own.
    rest: Option<Bytes>,
    inbound: Inbound,
    /// The library has had more of a message than each may.
    is_stretched: bool,
    /// What the queue was told of what the client has sent.
    brought: usize,
    /// It waits for memory, or has: see [`Pool::wait`](crate::pool::Pool::wait).
    round: u64,
    /// It is not read for want of memory.
    is_paused: bool,
    reserving: Option<Reserving>,
    timer: Pin<Box<Sleep>>,
    timer_ms: u64,
    reading: Reading,
    ending: Ending,
}

type Reserving = Pin<
    Box<dyn Future<Output = Result<OwnedPermit<FromConnection>, SendError<()>>> + Send + 'static>,
>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Messages,
    /// After a mistake that can't be read past: what comes is thrown away, so that the close frame
    /// is not lost to a reset.
    Discard,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ending {
    Not,
    /// Nothing will be written after what is in the writer.
    Flush,
    /// Our half is shut; the other may still be read.
    Shut,
    /// Nothing more to do on the socket.
    Done,
}

/// What one poll may do, and has done.
struct Turn {
    /// Messages and control frames that may still be handled.
    budget: usize,
    /// The kernel has been seen to hold nothing more.
    is_drained: bool,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        tcp: TcpStream,
        early: &[u8],
        subprotocol: Subprotocol,
    ) -> Self {
        let now = shared.clock.now();
        let session = Session::new(Arc::clone(&shared.session_limits), subprotocol, now);
        let outbox = Outbox::new(subprotocol, Arc::clone(&shared.queues));
        let timer_ms = session.deadline_ms();
        let timer = Box::pin(tokio::time::sleep_until(shared.clock.instant(timer_ms)));
        let mut inbound = Inbound::default();
        inbound.pass(early);
        Self {
            shared,
            tcp,
            line: Line::new(library(), session, Arc::new(outbox)),
            // A slice, even an empty one, would hold hyper's whole buffer of 8 KiB.
            rest: (!early.is_empty()).then(|| Bytes::copy_from_slice(early)),
            inbound,
            is_stretched: false,
            brought: 0,
            round: 0,
            is_paused: false,
            reserving: None,
            timer,
            timer_ms,
            reading: Reading::Messages,
            ending: Ending::Not,
        }
    }

    /// Closes it before it has said anything.
    pub(crate) fn refuse(&mut self, refused: LoginRefused) {
        self.line.close(CloseCode::TOO_MANY, refused.reason().into(), self.shared.clock.now());
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        self.line.outbox()
    }

    /// Reads, and hands over to the hub what that leads to, as long as there is something and the
    /// line takes it.
    fn poll_read(&mut self, context: &mut Context<'_>, turn: &mut Turn) -> bool {
        let mut progress = false;
        for _ in 0..READS_MAX {
            if !self.read_once(context, turn) {
                break;
            }
            progress = true;
            self.poll_hub(context);
        }
        progress
    }

    fn read_once(&mut self, context: &mut Context<'_>, turn: &mut Turn) -> bool {
        if turn.budget == 0 || self.reading == Reading::Ended || !self.line.is_reading() {
            return false;
        }
        let pool = &self.shared.queues.pool;
        if self.is_paused {
            // We did not read, so that silence was ours.
            self.line.heard(self.shared.clock.now());
        }
        self.is_paused = pool.is_over() && self.line.is_open();
        if self.is_paused {
            pool.wait(&mut self.round, context.waker());
            return false;
        }
        if let Some(rest) = self.rest.take() {
            let unread = self.received(&rest, &mut turn.budget);
            self.rest = unread.map(|len| rest.slice(rest.len() - len..));
            return true;
        }
        let is_told = match self.tcp.poll_read_ready(context) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => return self.lost(),
            Poll::Pending => false,
        };
        if !is_told && (turn.is_drained || !self.line.wants_to_write(self.shared.clock.ms())) {
            return false;
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let read = match is_told {
                true => self.tcp.try_read(scratch),
                false => read_now(&self.tcp, scratch),
            };
            turn.is_drained = !matches!(read, Ok(SCRATCH_BYTES));
            match read {
                Ok(0) => self.lost(),
                Ok(len) => {
                    self.line.heard(self.shared.clock.now());
                    self.inbound.pass(&scratch[..len]);
                    self.count_brought();
                    let unread = self.received(&scratch[..len], &mut turn.budget);
                    self.rest =
                        unread.map(|unread| Bytes::copy_from_slice(&scratch[len - unread..len]));
                    true
                }
                // If the readiness was cleared the next round asks again and leaves the waker.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_told,
                Err(_) => self.lost(),
            }
        })
    }

    /// The socket is gone, or the other side will say nothing more.
    fn lost(&mut self) -> bool {
        self.reading = Reading::Ended;
        self.ending = Ending::Done;
        self.line.lost(self.shared.clock.now());
        true
    }

    /// Charges what the library keeps, and what the hub has not taken.
    fn count_brought(&mut self) {
        // Twice: a message in pieces is copied when they are put together.
        let message = 2 * self.inbound.message_bytes().min(CLIENT_MESSAGE_BYTES_MAX);
        self.is_stretched |= message > BROUGHT_BYTES;
        let beyond = (message + self.line.owed_bytes()).saturating_sub(BROUGHT_BYTES);
        let has_ended = self.inbound.take_ended();
        if beyond != self.brought || (has_ended && beyond > 0) {
            self.brought = beyond;
            self.line.outbox().bring(beyond, has_ended, self.shared.clock.ms());
        }
    }

    /// After a long message the library keeps its buffer; nothing is in it between two messages.
    fn renew_library(&mut self) {
        if self.is_stretched && self.inbound.is_between() && self.line.is_open() {
            self.is_stretched = false;
            self.line.framing = library();
        }
    }

    /// Handles the messages in these bytes. If it has to stop before their end: how many bytes the
    /// library has not taken yet.
    fn received(&mut self, bytes: &[u8], budget: &mut usize) -> Option<usize> {
        let mut pipe = Pipe { unread: bytes, written: Vec::new() };
        while self.reading == Reading::Messages {
            if *budget == 0 || self.line.is_full() {
                return Some(pipe.unread.len());
            }
            let read = self.line.framing.read(&mut pipe);
            // Pongs and the answer to a close, before anything this message leads to.
            let now = self.shared.clock.now();
            self.line.control(std::mem::take(&mut pipe.written), now);
            let verifier = &self.shared.verifier;
            match read {
                Ok(WsMessage::Text(text)) => {
                    self.line.message(true, &Bytes::from(text), verifier, now);
                }
                Ok(WsMessage::Binary(bytes)) => self.line.message(false, &bytes, verifier, now),
                Ok(WsMessage::Close(_)) => self.line.closed_by_client(now),
                Ok(_) => {}
                Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.renew_library();
                    break;
                }
                Err(error) => self.read_failed(&error),
            }
            *budget -= 1;
        }
        None
    }

    fn read_failed(&mut self, error: &WsError) {
        let (code, reason) = match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => {
                // Both have said close: the socket ends once our half is written.
                self.reading = Reading::Ended;
                self.ending = self.ending.max(Ending::Flush);
                return;
            }
            WsError::Capacity(_) => {
                let reason = "the message is longer than client_message_bytes_max";
                (CloseCode::MESSAGE_SIZE, reason.to_owned())
            }
            WsError::Utf8(_) => (CloseCode(1007), "a text message is not UTF-8".to_owned()),
            WsError::Protocol(error) => (CloseCode(1002), error.to_string()),
            _ => {
                self.lost();
                return;
            }
        };
        self.reading = Reading::Discard;
        self.line.close(code, reason.into(), self.shared.clock.now());
        self.ending = self.ending.max(Ending::Flush);
    }

    fn poll_time(&mut self, context: &mut Context<'_>) -> bool {
        let due_ms = self.line.deadline_ms();
        if due_ms < self.timer_ms {
            self.arm(due_ms);
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return false;
        }
        self.line.tick(self.shared.clock.now());
        self.arm(self.line.deadline_ms());
        true
    }

    fn arm(&mut self, due_ms: u64) {
        self.timer_ms = due_ms;
        self.timer.as_mut().reset(self.shared.clock.instant(due_ms));
    }

    fn poll_hub(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        while let Some(event) = self.line.pop_to_hub() {
            if let Some(reserving) = &mut self.reserving {
                match reserving.as_mut().poll(context) {
                    Poll::Ready(Ok(permit)) => {
                        permit.send(event);
                        self.reserving = None;
                    }
                    Poll::Ready(Err(_)) => self.hub_gone(),
                    Poll::Pending => {
                        self.line.put_back(event);
                        return progress;
                    }
                }
            } else {
                match self.shared.mailbox.try_send(event) {
                    Ok(()) => {}
                    Err(TrySendError::Full(event)) => {
                        self.line.put_back(event);
                        let mailbox = self.shared.mailbox.clone();
                        self.reserving = Some(Box::pin(mailbox.reserve_owned()));
                    }
                    Err(TrySendError::Closed(_)) => self.hub_gone(),
                }
            }
            progress = true;
        }
        if progress {
            self.line.clear_to_hub();
        }
        progress
    }

    /// The gateway has ended under us.
    fn hub_gone(&mut self) {
        self.reserving = None;
        self.line.clear_to_hub();
        self.ending = Ending::Done;
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> bool {
        let mut progress = false;
        while self.ending < Ending::Shut && self.line.wants_to_write(self.shared.clock.ms()) {
            let Poll::Ready(ready) = self.tcp.poll_write_ready(context) else {
                self.line.blocked(self.shared.clock.ms());
                return progress;
            };
            if ready.is_err() {
                return self.lost();
            }
            match self.write_once() {
                Ok(len) => {
                    self.line.written(len, Clock::wall_us_now);
                    progress = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.lost(),
            }
        }
        if self.ending == Ending::Flush {
            return self.poll_shut(context) || progress;
        }
        progress
    }

    fn write_once(&self) -> io::Result<usize> {
        // Nearly always there is one, which needs no array of slices.
        if let Some(bytes) = self.line.only() {
            return self.tcp.try_write(bytes);
        }
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = self.line.slices(&mut slices);
        self.tcp.try_write_vectored(&slices[..filled])
    }

    fn poll_shut(&mut self, context: &mut Context<'_>) -> bool {
        if Pin::new(&mut self.tcp).poll_shutdown(context).is_pending() {
            return false;
        }
        let both = self.reading == Reading::Ended;
        self.ending = if both { Ending::Done } else { Ending::Shut };
        true
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let connection = &mut *self;
        connection.outbox().register(context.waker());
        let mut turn = Turn { budget: MESSAGES_MAX, is_drained: false };
        for _ in 0..ROUNDS_MAX {
            let (mut progress, mut has_read) = (false, false);
            if connection.ending < Ending::Done {
                progress |= connection.line.take_from_hub(connection.shared.clock.now());
                has_read = connection.poll_read(context, &mut turn);
                progress |= connection.poll_time(context);
            }
            // A logout is said before anything more is written.
            let has_told = connection.poll_hub(context);
            progress |= has_read || has_told;
            if connection.ending < Ending::Done {
                progress |= connection.poll_write(context);
            }
            if connection.line.is_aborted() {
                connection.ending = Ending::Done;
            }
            if connection.ending == Ending::Done {
                connection.line.let_go();
                if !connection.line.owes_hub() {
                    return Poll::Ready(());
                }
            }
            if has_read || has_told {
                connection.count_brought();
            }
            if !progress {
                return Poll::Pending;
            }
            if turn.budget == 0 {
                break;
            }
        }
        // Woken once the tasks that are ready have run and the sockets have been looked at; a plain
        // wake would come before both as long as there are enough of these.
        pin!(tokio::task::yield_now()).poll(context)
    }
}

/// The library, before anything has come.
fn library() -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(CLIENT_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(CLIENT_MESSAGE_BYTES_MAX));
    WebSocketContext::new(Role::Server, Some(config))
}

/// What the kernel holds, whatever the runtime knows of it. That the runtime may still say that
/// there is something does no harm: then nothing is found.
fn read_now(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let socket = SockRef::from(tcp);
    let mut socket: &socket2::Socket = &socket;
    socket.read(buffer)
}

impl Framing for WebSocketContext {
    fn ping(&mut self) -> Vec<u8> {
        let mut pipe = Pipe::default();
        // The pipe takes every write; what can fail is that the other side has closed already.
        let _ = self
            .write(&mut pipe, WsMessage::Ping(Bytes::new()))
            .and_then(|()| self.flush(&mut pipe));
        pipe.written
    }

    fn close(&mut self, code: CloseCode, reason: &str) -> Vec<u8> {
        let mut pipe = Pipe::default();
        let frame = CloseFrame { code: code.0.into(), reason: reason.into() };
        // As above.
        let _ = Self::close(self, &mut pipe, Some(frame));
        pipe.written
    }
}

/// The library's view of the socket: bytes that were read, and a place for those it writes.
#[derive(Default)]
struct Pipe<'a> {
    unread: &'a [u8],
    written: Vec<u8>,
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.unread.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unread.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;

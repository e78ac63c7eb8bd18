//! One connection without its socket: the session, the queue, what is still to be written, and what
//! the hub is still to be told.
//!
//! Whoever owns the socket brings what was read and the time, writes the [slices](Line::slices) and
//! says how far it came. The WebSocket task (`websocket.rs`) is one such owner, the simulator
//! (`sim.rs`) the other, so that both run the same decisions.
//!
//! Every message that was handed to the queue leaves this file by exactly one line of the ledger:
//! delivered (with the kernel), dropped by a cause, or in doubt: the connection ended when only a
//! part of the message was with the kernel.
//!
//! Delivered, and reached in a report, is what was with the kernel *before* the client's close
//! frame or the end of its stream was read. From then on what has not begun is dropped as closed,
//! what has is in doubt, and the hub is told of the logout before anything else is written. Whoever
//! owns the socket reads what is there before it writes. What remains is inherent: a client's close
//! that is still on its way crosses the message, and nobody here can know.
//!
//! Never here: sockets, WebSocket framing beyond asking for it, a clock.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use tracing::debug;
use waybill_wire::code::CloseCode;

use super::writer::{Left, SLICES_MAX, Writer};
use super::{Outbox, Word, bytes};
use crate::auth::Verifier;
use crate::fanout;
use crate::reports::Outcome;
use crate::session::{Now, Output, Session};
use crate::switchboard::FromConnection;
use crate::telemetry::Counter;

/// Who writes control frames, and knows afterwards that they were written.
pub(crate) trait Framing {
    /// A Ping, or nothing if none may follow what was written.
    fn ping(&mut self) -> Vec<u8>;

    /// The close frame, or nothing if there was one. `reason` has at most 123 bytes.
    fn close(&mut self, code: CloseCode, reason: &str) -> Vec<u8>;
}

/// See the head of the file.
pub(crate) struct Line<F> {
    pub(crate) framing: F,
    session: Session,
    outbox: Arc<Outbox>,
    writer: Writer,
    to_hub: VecDeque<FromConnection>,
    is_aborted: bool,
}

impl<F: Framing> Line<F> {
    pub(crate) fn new(framing: F, session: Session, outbox: Arc<Outbox>) -> Self {
        let (writer, to_hub) = (Writer::default(), VecDeque::new());
        Self { framing, session, outbox, writer, to_hub, is_aborted: false }
    }

    pub(crate) fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        self.session.deadline_ms()
    }

    /// Whether what the client sends may be read: the hub has what it said before, and not too many
    /// of its *send*s are unanswered (WS-9).
    pub(crate) fn is_reading(&self) -> bool {
        self.to_hub.is_empty() && !self.session.is_full()
    }

    /// Whether no further message may be handled: see [`Session::is_full`].
    pub(crate) fn is_full(&self) -> bool {
        self.session.is_full()
    }

    /// Whether the socket is to end now, written or not.
    pub(crate) fn is_aborted(&self) -> bool {
        self.is_aborted
    }

    /// What the hub must be told next; one that it does not take yet is [put
    /// back](Self::put_back).
    pub(crate) fn pop_to_hub(&mut self) -> Option<FromConnection> {
        self.to_hub.pop_front()
    }

    pub(crate) fn put_back(&mut self, event: FromConnection) {
        self.to_hub.push_front(event);
    }

    pub(crate) fn owes_hub(&self) -> bool {
        !self.to_hub.is_empty()
    }

    /// Bytes of messages that the hub does not take yet.
    pub(crate) fn owed_bytes(&self) -> usize {
        self.to_hub.iter().map(FromConnection::bytes).sum()
    }

    /// Whether nobody has said close.
    pub(crate) fn is_open(&self) -> bool {
        self.session.is_open()
    }

    /// The hub was told everything, or there is none to tell any more.
    pub(crate) fn clear_to_hub(&mut self) {
        // Nearly all connections are idle at any time, and should hold nothing for it.
        self.to_hub = VecDeque::new();
    }

    /// Calls the session and does what it says.
    fn session(&mut self, now: Now, call: impl FnOnce(&mut Session, &mut Vec<Output>)) {
        let mut out = Vec::new();
        call(&mut self.session, &mut out);
        for output in out {
            self.act(output, now);
        }
    }

    fn act(&mut self, output: Output, now: Now) {
        let outbox = Arc::clone(&self.outbox);
        match output {
            Output::Reply(reply) => {
                let frame = fanout::frame(self.session.subprotocol(), &reply);
                let fits = outbox.charge(frame.len());
                self.writer.push_own(frame);
                self.overrun(!fits, now);
            }
            Output::Ping => {
                let ping = self.framing.ping();
                self.control(ping, now);
            }
            Output::Login(identity) => {
                let registration = (&identity).into();
                let tags = identity.tags;
                self.to_hub.push_back(FromConnection::Login { registration, tags, outbox });
            }
            Output::Logout => self.to_hub.push_back(FromConnection::Logout { outbox }),
            Output::Uplink { id, labels, payload } => {
                self.to_hub.push_back(FromConnection::Uplink { outbox, id, labels, payload });
            }
            Output::Close { code, reason } => self.send_close(code, &reason),
            Output::Abort => self.is_aborted = true,
        }
    }

    /// The last frame: after what waits, unless that is what the connection does not read.
    fn send_close(&mut self, code: CloseCode, reason: &str) {
        debug!(connection = self.outbox.connection().0, %code, "closing");
        self.outbox.telemetry().closed(code);
        for frame in self.outbox.close() {
            self.writer.push_message(frame);
        }
        if code == CloseCode::SLOW_CONNECTION {
            let left = self.writer.give_up_unbegun(|t| self.outbox.settle(t, Outcome::Full));
            self.outbox.telemetry().dropped_slow.add(left.messages);
            self.outbox.release(left);
        }
        let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
        let frame = self.framing.close(code, reason);
        if !frame.is_empty() {
            // Whether it fits changes nothing any more.
            let _ = self.outbox.charge(frame.len());
            self.writer.push_own(frame.into());
        }
    }

    /// A control frame, before what waits.
    pub(crate) fn control(&mut self, frame: Vec<u8>, now: Now) {
        if !frame.is_empty() {
            let fits = self.outbox.charge(frame.len());
            self.writer.push_control(Bytes::from(frame));
            self.overrun(!fits, now);
        }
    }

    fn overrun(&mut self, overrun: bool, now: Now) {
        if overrun && self.session.is_open() {
            self.close(CloseCode::SLOW_CONNECTION, "the connection does not read".into(), now);
        }
    }

    /// Ends the connection for a reason found outside the session.
    pub(crate) fn close(&mut self, code: CloseCode, reason: Cow<'static, str>, now: Now) {
        self.session(now, |session, out| session.close(code, reason, now, out));
    }

    /// Takes what the hub has queued and said. Whether there was anything.
    pub(crate) fn take_from_hub(&mut self, now: Now) -> bool {
        let taken = self.outbox.take();
        let progress = !taken.words.is_empty() || !taken.frames.is_empty();
        for word in taken.words {
            self.session(now, |session, out| match word {
                Word::Confirmed(connection) => session.confirmed(connection, out),
                Word::LoginRefused(refused) => session.login_refused(refused, now, out),
                Word::Displaced { winner } => session.displaced(winner, now, out),
                Word::Answered { id, code } => session.answered(id, code, now, out),
                Word::Drain { reconnect_after_ms, close_in_ms } => {
                    session.drain(reconnect_after_ms, close_in_ms, now, out);
                }
            });
        }
        for frame in taken.frames {
            if self.session.is_open() {
                self.writer.push_message(frame);
            } else {
                let bytes = frame.bytes.len();
                self.outbox.release(Left { messages: 1, bytes, frames: 1, ..Left::default() });
                self.outbox.telemetry().dropped_closed.add(1);
                self.outbox.settle(frame.ticket, Outcome::Gone);
            }
        }
        self.overrun(taken.overrun, now);
        if taken.goes {
            self.go(now);
        }
        progress || taken.goes
    }

    /// What it holds is needed for others. A client that has a part of a frame could read nothing
    /// after it before all of it: then there is no close frame.
    fn go(&mut self, now: Now) {
        let telemetry = Arc::clone(&self.outbox.shared().telemetry);
        telemetry.closed_pool.add(self.session.is_open().into());
        self.give_up(Outcome::Full, &telemetry.dropped_pool);
        let is_last = self.writer.is_begun() || !self.session.is_open();
        let reason = "the gateway needs the memory of what waits: connections_bytes_max";
        self.close(CloseCode::SLOW_CONNECTION, reason.into(), now);
        if is_last {
            self.lost(now);
            self.is_aborted = true;
            // Nothing more is written, and others are told to go in vain while it is held.
            self.let_go();
        }
        self.outbox.gone();
    }

    /// Bytes came, whatever they say (WS-8).
    pub(crate) fn heard(&mut self, now: Now) {
        self.session.heard(now);
    }

    /// A whole message came. Not to be called while the line [is full](Self::is_full).
    pub(crate) fn message(
        &mut self,
        is_text: bool,
        message: &Bytes,
        verifier: &Verifier,
        now: Now,
    ) {
        self.session(now, |session, out| session.message(is_text, message, verifier, now, out));
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.owes_hub() {
            // We do not read, so that silence is ours.
            self.session.heard(now);
        }
        self.session(now, |session, out| session.tick(now, out));
    }

    /// The client sent a close frame. One that closes first reads nothing more: its answer goes out
    /// next. If it answers our close, everything was written before, the close frame last; if the
    /// two crossed, ours is still owed and no message is.
    pub(crate) fn closed_by_client(&mut self, now: Now) {
        if self.session.is_open() {
            return self.lost(now);
        }
        let left = self.writer.give_up_messages(|t| self.outbox.settle(t, Outcome::Gone));
        self.outbox.telemetry().dropped_closed.add(left.messages);
        self.outbox.release(left);
        self.doubt_begun();
    }

    /// The socket is gone, or the other side reads nothing more. Takes nothing more for this
    /// connection, drops what has not begun to be written and doubts what has.
    pub(crate) fn lost(&mut self, now: Now) {
        self.give_up_unbegun();
        self.doubt_begun();
        self.session(now, |session, out| session.ended(now, out));
    }

    /// Whether something waits to be written, once what has expired by now is out (DEL-20).
    pub(crate) fn wants_to_write(&mut self, now_ms: u64) -> bool {
        if self.writer.may_expire(now_ms) {
            let expired = self.writer.expire(now_ms, |t| self.outbox.settle(t, Outcome::Expired));
            self.outbox.telemetry().dropped_expired.add(expired.messages);
            self.outbox.release(expired);
        }
        !self.writer.is_empty()
    }

    /// The bytes to write next, if they are all of one frame and nothing comes after it.
    pub(crate) fn only(&self) -> Option<&[u8]> {
        self.writer.only()
    }

    /// The bytes to write next; the number of slices filled in.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        self.writer.slices(slices)
    }

    /// `len` bytes of the slices are with the kernel. `wall_us` tells the time, where that is to be
    /// known.
    pub(crate) fn written(&mut self, len: usize, wall_us: impl Fn() -> u64) {
        let written = self.writer.advance(len, |t| self.outbox.reached(t, &wall_us));
        self.outbox.telemetry().delivered.add(written.messages);
        self.outbox.release(written);
    }

    /// The kernel takes no more of what waits.
    pub(crate) fn blocked(&self, now_ms: u64) {
        self.outbox.block(now_ms);
    }
}

impl<F> Line<F> {
    /// Nothing more will be written, whatever the hub is still to be told.
    pub(crate) fn let_go(&mut self) {
        self.give_up_unbegun();
        self.doubt_begun();
        self.outbox.release(self.writer.clear());
        self.outbox.gone();
    }

    /// What has not begun to be written never will be.
    fn give_up_unbegun(&mut self) {
        let outbox = Arc::clone(&self.outbox);
        self.give_up(Outcome::Gone, &outbox.telemetry().dropped_closed);
    }

    /// The same, by another cause.
    fn give_up(&mut self, outcome: Outcome, dropped: &Counter) {
        let frames = self.outbox.close();
        let mut left = self.writer.give_up_unbegun(|t| self.outbox.settle(t, outcome));
        frames.iter().for_each(|frame| self.outbox.settle(frame.ticket, outcome));
        left.messages += frames.len() as u64;
        left.frames += frames.len();
        left.bytes += bytes(&frames);
        dropped.add(left.messages);
        self.outbox.release(left);
    }

    /// Of what has begun to be written nobody knows whether the client still reads it.
    fn doubt_begun(&mut self) {
        let begun = self.writer.disown_begun(|t| self.outbox.settle(t, Outcome::InDoubt));
        self.outbox.telemetry().in_doubt.add(begun.messages);
        self.outbox.release(begun);
    }
}

impl<F> Drop for Line<F> {
    /// The last line of this connection's ledger.
    fn drop(&mut self) {
        self.let_go();
    }
}

/// A control frame holds 125 bytes, two of them the code (RFC 6455, 5.5.1).
const CLOSE_REASON_BYTES_MAX: usize = 123;

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;

//! The bytes of one link: a socket, the session on it, and one buffer each way.
//!
//! Writing is gathered: the buffer is filled only when the one before is with the kernel, so frames
//! that come meanwhile go out together in the next write. Nothing here waits but `ready`.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;
use waybill_wire::frame::Hello;
use waybill_wire::limits::DRAFT;
use waybill_wire::{Deframer, Session};

use super::Identity;
use crate::machine::{WRITE_BYTES, Wishes};

/// Bytes asked for by one read: as much as one write of the other end, see [`WRITE_BYTES`].
const READ_BYTES: usize = 64 << 10;

/// A buffer that grew beyond this for one large frame is given back once that frame is written.
const KEPT_BYTES_MAX: usize = 4 * WRITE_BYTES;

/// One socket.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    pub(super) session: Session,
    pub(super) deframer: Deframer,
    /// The last read. Lent out while it is processed.
    pub(super) input: Vec<u8>,
    /// Frames on their way out; the first `written` bytes are with the kernel.
    pub(super) output: Vec<u8>,
    written: usize,
    /// Origin of the session's clock.
    began: Instant,
    paused: bool,
}

impl Transport {
    /// A session on a fresh socket, its HELLO ready to be written.
    pub(super) fn open(
        stream: TcpStream,
        identity: Identity,
        wishes: Wishes,
        token: Option<&str>,
        now: Instant,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let draft = u16::from(DRAFT);
        let hello = Hello {
            role: identity.role,
            version_min: draft,
            version_max: draft,
            instance: identity.instance,
            session: wishes.session,
            capabilities: wishes.capabilities,
            wanted_shard: Hello::ANY_SHARD,
            credential: token.unwrap_or_default().as_bytes(),
            ..Hello::default()
        };
        let mut output = Vec::with_capacity(WRITE_BYTES);
        // Options were checked, so this is not expected; an error ends the attempt.
        hello.encode(&mut output).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            stream,
            session: Session::initiator(identity.role, Duration::ZERO),
            deframer: Deframer::new(),
            input: vec![0; READ_BYTES],
            output,
            written: 0,
            began: now,
            paused: false,
        })
    }

    /// `now` on the session's clock.
    pub(super) fn clock(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// When the session wants to be asked about the time.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.session.deadline().map(|deadline| self.began + deadline)
    }

    /// Whether everything gathered is with the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Writes what the kernel takes now.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.try_write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.output.clear();
        if self.output.capacity() > KEPT_BYTES_MAX {
            self.output.shrink_to(WRITE_BYTES);
        }
        Ok(())
    }

    /// Reads what is there into `input`: its length, 0 at the end of the link, `None` if nothing is
    /// there yet.
    pub(super) fn read(&mut self, now: Instant) -> io::Result<Option<usize>> {
        match self.stream.try_read(&mut self.input) {
            Ok(count) => {
                let now = self.clock(now);
                self.session.received(now);
                Ok(Some(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Says whether this end reads from now on. While it does not, silence is its own doing.
    pub(super) fn set_reading(&mut self, reading: bool, now: Instant) {
        if self.paused == reading {
            let now = self.clock(now);
            match reading {
                true => self.session.resume(now),
                false => self.session.pause(now),
            }
            self.paused = !reading;
        }
    }

    /// Waits until the socket can be read (unless paused) or written (if something waits).
    pub(super) async fn ready(&self) -> io::Result<Ready> {
        let interest = match (self.paused, self.is_flushed()) {
            (false, true) => Interest::READABLE,
            (false, false) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::WRITABLE,
            (true, true) => return std::future::pending().await,
        };
        self.stream.ready(interest).await
    }

    /// Tells the other end that nothing more will come.
    pub(super) async fn shut(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

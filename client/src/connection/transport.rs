//! The bytes of one link: a socket and a buffer to read into. Nothing here waits but `ready`.

use std::io;

use tokio::io::{AsyncWriteExt, Interest, Ready};
use tokio::net::TcpStream;

/// Bytes asked for by one read: as much as one write of the other end, see
/// [`WRITE_BYTES`](crate::machine::WRITE_BYTES).
const READ_BYTES: usize = 64 << 10;

/// One socket.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Transport {
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: vec![0; READ_BYTES] })
    }

    /// Writes what the kernel takes now of these bytes: how many, 0 if it has no room.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.try_write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Reads what is there: nothing at the end of the link, `None` if nothing is there yet.
    pub(super) fn read(&mut self) -> io::Result<Option<&[u8]>> {
        match self.stream.try_read(&mut self.input) {
            Ok(count) => Ok(Some(&self.input[..count])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until the socket can be read, or written, as far as either is wanted.
    pub(super) async fn ready(&self, reading: bool, writing: bool) -> io::Result<Ready> {
        let interest = match (reading, writing) {
            (true, false) => Interest::READABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => return std::future::pending().await,
        };
        self.stream.ready(interest).await
    }

    /// Tells the other end that nothing more will come.
    pub(super) async fn shut(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

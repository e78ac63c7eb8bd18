//! An io_uring that owns the buffers that are under way: the one file with `unsafe`.
//!
//! A buffer goes in with its order and comes back with its completion, as in the broker's seam.
//! While the system may read or write it, it lies in `Ring::under_way` and nobody else can reach
//! it; a ring that is dropped before that gives such buffers up for good. That is the whole
//! argument. *Never:* frames.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// One order that is under way.
struct Order {
    socket: usize,
    buffer: Vec<u8>,
    receives: bool,
}

/// An order that is done.
pub(super) struct Done {
    /// The socket's place in the list the ring was made with.
    pub(super) socket: usize,
    /// The buffer that went in; what was received is at its end.
    pub(super) buffer: Vec<u8>,
    /// Whether it was received or sent.
    pub(super) received: bool,
    /// How many bytes; 0 of a receipt is the end.
    pub(super) result: io::Result<usize>,
}

/// A ring, and what is under way in it.
pub(super) struct Ring {
    ring: IoUring,
    sockets: usize,
    /// At the number that the system gives back with the completion: at most two for each socket.
    under_way: Vec<Option<Order>>,
}

/// Whether this system has what a [`Ring`] needs.
pub(super) fn probe() -> io::Result<()> {
    built(8).map(drop)
}

fn built(entries: u32) -> io::Result<IoUring> {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(2 * entries)
        .build(entries)
}

impl Ring {
    /// A ring for these sockets. It holds on to them by itself.
    pub(super) fn new(sockets: &[RawFd]) -> io::Result<Self> {
        let orders = 2 * sockets.len();
        let entries = u32::try_from(orders.next_power_of_two()).expect("as many as gateways");
        let ring = built(entries)?;
        ring.submitter().register_files(sockets)?;
        let under_way = (0..orders).map(|_| None).collect();
        Ok(Self { ring, sockets: sockets.len(), under_way })
    }

    /// Orders to append what comes to the buffer, as much as it has room for.
    ///
    /// # Panics
    /// If such an order is under way for this socket, or there is no room.
    pub(super) fn receive(&mut self, socket: usize, mut buffer: Vec<u8>) {
        let room = buffer.spare_capacity_mut();
        let length = u32::try_from(room.len()).unwrap_or(u32::MAX);
        assert!(length > 0, "a receipt of nothing looks like the end");
        let fd = types::Fixed(u32::try_from(socket).expect("as many as gateways"));
        let entry = opcode::Recv::new(fd, room.as_mut_ptr().cast(), length).build();
        self.order(Order { socket, buffer, receives: true }, entry);
    }

    /// Orders to send the whole buffer.
    ///
    /// # Panics
    /// If such an order is under way for this socket, or nothing is there.
    pub(super) fn send(&mut self, socket: usize, buffer: Vec<u8>) {
        let length = u32::try_from(buffer.len()).expect("far less than 4 GiB wait for a gateway");
        assert!(length > 0, "nothing to send");
        let fd = types::Fixed(u32::try_from(socket).expect("as many as gateways"));
        let entry = opcode::Send::new(fd, buffer.as_ptr(), length).flags(libc::MSG_WAITALL).build();
        self.order(Order { socket, buffer, receives: false }, entry);
    }

    fn order(&mut self, order: Order, entry: squeue::Entry) {
        let number = 2 * order.socket + usize::from(order.receives);
        assert!(order.socket < self.sockets && self.under_way[number].is_none(), "one at a time");
        // Moving a Vec leaves its bytes where they are.
        self.under_way[number] = Some(order);
        // SAFETY: the entry's pointer and length lie within the allocation of the Vec that was just
        // put into `under_way`. It is taken out of there by `next` alone, when the system has
        // completed the order, and is neither looked at nor changed before; `drop` leaks it.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(number as u64)) };
        pushed.expect("there is an entry for each order that can be under way");
    }

    /// Hands the orders to the system, and waits until one of all is done.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other.map(drop),
        }
    }

    /// The next order that is done.
    pub(super) fn next(&mut self) -> Option<Done> {
        let entry: cqueue::Entry = self.ring.completion().next()?;
        let order =
            usize::try_from(entry.user_data()).ok().and_then(|at| self.under_way.get_mut(at));
        let Order { socket, mut buffer, receives } =
            order.and_then(Option::take).expect("the system completes what was ordered, once");
        let result = usize::try_from(entry.result())
            .map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        if let (true, Ok(bytes)) = (receives, &result) {
            let length = buffer.len() + bytes;
            assert!(length <= buffer.capacity(), "no more than there was room for");
            // SAFETY: the system has written `bytes` bytes from the buffer's old end on, which is
            // where `receive` pointed it to, and they lie within the capacity.
            unsafe { buffer.set_len(length) };
        }
        Some(Done { socket, buffer, received: receives, result })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The system may write into a buffer for a while after the ring is closed.
        for order in self.under_way.drain(..).flatten() {
            std::mem::forget(order.buffer);
        }
    }
}

/// The sockets' numbers with the system, in this order.
pub(super) fn numbers<'a>(
    sockets: impl IntoIterator<Item = &'a std::net::TcpStream>,
) -> Vec<RawFd> {
    sockets.into_iter().map(AsRawFd::as_raw_fd).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn done(ring: &mut Ring) -> Done {
        loop {
            ring.enter().unwrap();
            if let Some(done) = ring.next() {
                return done;
            }
        }
    }

    #[test]
    fn buffers_come_back_with_what_was_received_behind_what_was_in_them() {
        if let Err(error) = probe() {
            return assert_ne!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        let (mut far, near) = pair();
        let mut ring = Ring::new(&numbers([&near])).unwrap();
        let mut buffer = Vec::with_capacity(64);
        buffer.extend_from_slice(b"kept ");
        ring.receive(0, buffer);
        far.write_all(b"come").unwrap();
        let Done { socket, buffer, received, result } = done(&mut ring);
        assert_eq!((socket, received, result.unwrap()), (0, true, 4));
        assert_eq!(buffer, b"kept come");
        ring.send(0, buffer);
        let back = done(&mut ring);
        assert_eq!((back.received, back.result.unwrap()), (false, 9));
        let mut bytes = [0; 9];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"kept come");
        // One that never completes is given up with the ring.
        ring.receive(0, Vec::with_capacity(1));
    }

    #[test]
    #[should_panic(expected = "one at a time")]
    fn a_socket_is_not_received_from_twice_at_once() {
        let (_far, near) = pair();
        probe().expect("one at a time, were it there");
        let mut ring = Ring::new(&numbers([&near])).unwrap();
        ring.receive(0, Vec::with_capacity(1));
        ring.receive(0, Vec::with_capacity(1));
    }
}

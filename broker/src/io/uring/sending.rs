//! One write on its way: the bytes, how much of them the system has taken, and the order for the
//! rest. *Never:* when it is given.
//!
//! Unsafe in one thing: that addresses may move to another thread with what they point to.

#![allow(unsafe_code)]

use std::os::fd::RawFd;

use io_uring::types::Fd;
use io_uring::{opcode, squeue};

use crate::io::{Piece, slices};

/// All of a write goes out, or the order fails; and nobody is killed for it.
const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// Slices of one order; the system takes 1,024. What a write has beyond takes another order.
const SLICES_MAX: usize = 1024;

/// See the module. What an order of [`Sending::rest`] points to lies in `data`, in `pieces` and in
/// the box of `scattered`: moving this leaves all of it where it is.
pub(super) struct Sending {
    data: Vec<u8>,
    pieces: Vec<Piece>,
    /// Bytes in all, and those that are sent.
    all: usize,
    sent: usize,
    scattered: Option<Box<Scattered>>,
}

/// Where the rest lies, as the system wants it.
struct Scattered {
    header: libc::msghdr,
    slices: Vec<libc::iovec>,
}

// SAFETY: its addresses are read by the system alone, and point to what the `Sending` owns that it
// is a part of: they mean the same on every thread.
unsafe impl Send for Scattered {}

impl Sending {
    /// # Panics
    /// If there is nothing to send.
    pub(super) fn new(data: Vec<u8>, pieces: Vec<Piece>) -> Self {
        let all = data.len() + pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>();
        assert!(all > 0, "nothing to send");
        Self { data, pieces, all, sent: 0, scattered: None }
    }

    /// The order to send what is left. This must be kept as it is until that is completed.
    pub(super) fn rest(&mut self, fd: RawFd) -> squeue::Entry {
        if self.pieces.is_empty() {
            let rest = &self.data[self.sent..];
            let length = u32::try_from(rest.len()).unwrap_or(u32::MAX >> 1);
            return opcode::Send::new(Fd(fd), rest.as_ptr(), length).flags(FLAGS).build();
        }
        let mut skip = self.sent;
        let all = slices(&self.data, &self.pieces).filter_map(|slice| {
            let rest = &slice[skip.min(slice.len())..];
            skip -= slice.len() - rest.len();
            (!rest.is_empty()).then_some(rest)
        });
        let slice = |rest: &[u8]| libc::iovec {
            iov_base: rest.as_ptr().cast_mut().cast(),
            iov_len: rest.len(),
        };
        let mut slices: Vec<libc::iovec> = all.take(SLICES_MAX).map(slice).collect();
        // SAFETY: a header of zeros says nothing, which is what is wanted of all but the slices.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = slices.as_mut_ptr();
        header.msg_iovlen = slices.len() as _;
        let scattered = self.scattered.insert(Box::new(Scattered { header, slices }));
        debug_assert!(!scattered.slices.is_empty(), "there is a rest");
        let flags = FLAGS.cast_unsigned();
        opcode::SendMsg::new(Fd(fd), &raw const scattered.header).flags(flags).build()
    }

    /// So much more is sent; whether that is all.
    pub(super) fn advance(&mut self, bytes: usize) -> bool {
        self.sent += bytes;
        self.sent >= self.all
    }

    /// Its own bytes, of a write of which nothing is under way any more.
    pub(super) fn into_data(self) -> Vec<u8> {
        self.data
    }
}

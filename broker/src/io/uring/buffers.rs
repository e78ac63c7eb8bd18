//! The buffers that the system may receive into, of all links of a shard together.
//!
//! Whole `Vec`s lie in a ring of addresses that the system takes from: what it has filled is taken
//! out and handed on as it is, so that no byte is copied, and another takes its place. The ring is
//! kept short, since the system fills its buffers in turn and the nearest cache holds few of them;
//! it grows when there were too few at a moment and shrinks when that was long ago. *Never:* which
//! link gets what.
//!
//! Unsafe, since the system reads the addresses and writes into the buffers behind the compiler's
//! back. A buffer in `given` is touched by nobody else: it is taken out of there only when the
//! system has said that it is done with it. What must hold of the ring's memory is at its place.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The group that receipts name.
pub(super) const GROUP: u16 = 0;

/// How many buffers there may be, and of how many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Buffers in the ring at least, if the system has not taken them just now.
    pub(super) least: u16,
    /// And at most: a power of two up to 32,768.
    pub(super) most: u16,
    /// Bytes of a buffer that is made here. One from elsewhere has as many at least, and four
    /// times as many at most.
    pub(super) bytes: usize,
}

/// The addresses, on pages of their own, as the system wants them.
struct Addresses {
    at: NonNull<BufRingEntry>,
    layout: Layout,
}

// SAFETY: it is the only owner of its allocation, which belongs to no thread.
unsafe impl Send for Addresses {}

/// Bytes of a page, or more, wherever io_uring exists.
const PAGE: usize = 64 << 10;

impl Addresses {
    fn new(count: u16) -> Self {
        let layout = Layout::array::<BufRingEntry>(count.into())
            .and_then(|layout| layout.align_to(PAGE))
            .expect("32,768 entries of 16 bytes at most")
            .pad_to_align();
        // SAFETY: the layout is not empty, since no ring is.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(at) = NonNull::new(memory.cast()) else { handle_alloc_error(layout) };
        Self { at, layout }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout. `Buffers` drops it only when the system has
        // let go of it.
        unsafe { dealloc(self.at.as_ptr().cast(), self.layout) }
    }
}

/// See the module.
pub(super) struct Buffers {
    addresses: Option<Addresses>,
    sizes: Sizes,
    tail: u16,
    // By number; the system may write into these.
    given: Vec<Option<Vec<u8>>>,
    free: Vec<u16>,
    // The next to be given, the last one first: it is the likeliest to be in a cache.
    spare: Vec<Vec<u8>>,
    wanted: u16,
    // Buffers elsewhere that count as if they were in the ring.
    held: u16,
    starved: bool,
}

impl Buffers {
    /// Makes the ring known to the system, and fills it.
    ///
    /// # Panics
    /// If `most` is no power of two up to 32,768, or `least` is 0 or more than that.
    pub(super) fn new(ring: &IoUring, sizes: Sizes) -> io::Result<Self> {
        let Sizes { least, most, bytes } = sizes;
        assert!(most.is_power_of_two() && (1..=most).contains(&least) && bytes > 0);
        let addresses = Addresses::new(most);
        // SAFETY: the memory holds so many entries, is aligned to pages, and stays until `release`
        // has told the system to forget it, or for good.
        unsafe {
            let at = addresses.at.as_ptr() as u64;
            ring.submitter().register_buf_ring_with_flags(at, most, GROUP, 0)?;
        }
        let mut buffers = Self {
            addresses: Some(addresses),
            sizes,
            tail: 0,
            given: (0..most).map(|_| None).collect(),
            free: (0..most).rev().collect(),
            spare: Vec::new(),
            wanted: least,
            held: 0,
            starved: false,
        };
        buffers.fill();
        Ok(buffers)
    }

    /// So many of its buffers are full, and nobody has taken what is in them: with those in the
    /// ring they are no more than there may be.
    pub(super) fn hold(&mut self, held: usize) {
        self.held = u16::try_from(held).unwrap_or(u16::MAX);
    }

    /// How many are to be in the ring.
    fn length(&self) -> usize {
        self.wanted.min(self.sizes.most.saturating_sub(self.held)).into()
    }

    fn in_ring(&self) -> usize {
        self.given.len() - self.free.len()
    }

    /// Takes in a buffer that somebody is done with.
    pub(super) fn put(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        if !(self.sizes.bytes..=4 * self.sizes.bytes).contains(&buffer.capacity()) {
            return;
        }
        if self.in_ring() < self.length() {
            self.give(buffer);
        } else if self.spare.len() < self.sizes.least.into() {
            self.spare.push(buffer);
        }
    }

    /// A buffer that is not in the ring.
    pub(super) fn spare(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.sizes.bytes))
    }

    /// Brings the ring to its length.
    pub(super) fn fill(&mut self) {
        while self.in_ring() < self.length() {
            let buffer = self.spare();
            self.give(buffer);
        }
    }

    fn give(&mut self, mut buffer: Vec<u8>) {
        let Some(number) = self.free.pop() else { return };
        let Some(addresses) = &self.addresses else { return };
        let mask = self.sizes.most - 1;
        let room = u32::try_from(buffer.capacity()).unwrap_or(u32::MAX);
        let address = buffer.as_mut_ptr() as u64;
        // Moving a Vec leaves its bytes where they are.
        self.given[usize::from(number)] = Some(buffer);
        // SAFETY: the place is below the number of entries. The system does not look at it: it lies
        // at the tail, and there are fewer entries between head and tail than places. The tail is
        // where io_uring has it, in the reserved part of the first entry, and is written after the
        // entry. The entry describes the allocation that was just put into `given`.
        unsafe {
            let entry = &mut *addresses.at.as_ptr().add((self.tail & mask).into());
            entry.set_addr(address);
            entry.set_len(room);
            entry.set_bid(number);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(addresses.at.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// The buffer of that number, which the system has filled with so many bytes.
    ///
    /// # Panics
    /// If the system does not have it, or says that it holds more than it has room for.
    pub(super) fn take(&mut self, number: u16, bytes: usize) -> Vec<u8> {
        let given = self.given.get_mut(usize::from(number)).and_then(Option::take);
        let mut buffer = given.expect("the system completes with a buffer it was given, once");
        self.free.push(number);
        assert!(bytes <= buffer.capacity(), "no more than there was room for");
        // SAFETY: the system has written so many bytes from its start on, and will not touch it any
        // more: it has said so with the number.
        unsafe { buffer.set_len(bytes) };
        buffer
    }

    /// There were too few.
    pub(super) fn starve(&mut self) {
        self.starved = true;
        self.wanted = self.wanted.saturating_mul(2).min(self.sizes.most);
    }

    /// To be called from time to time: there are fewer if they have sufficed since the last call.
    pub(super) fn relax(&mut self) {
        if !std::mem::take(&mut self.starved) {
            self.wanted = (self.wanted / 2).max(self.sizes.least);
        }
    }

    /// Frees everything, if the system will receive nothing more; else gives it up for good.
    pub(super) fn release(&mut self, ring: &IoUring, is_quiet: bool) {
        let forgotten = is_quiet && ring.submitter().unregister_buf_ring(GROUP).is_ok();
        if !forgotten {
            std::mem::forget(self.addresses.take());
            self.given.drain(..).for_each(std::mem::forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_its_length_and_what_is_too_much_is_freed() {
        let Ok(ring) = IoUring::new(4) else { return };
        let sizes = Sizes { least: 2, most: 8, bytes: 16 };
        let mut buffers = Buffers::new(&ring, sizes).unwrap();
        assert_eq!((buffers.in_ring(), buffers.spare.len()), (2, 0));
        (0..5).for_each(|_| buffers.put(Vec::with_capacity(16)));
        assert_eq!((buffers.in_ring(), buffers.spare.len()), (2, 2), "and one was freed");
        buffers.put(Vec::with_capacity(3));
        buffers.put(Vec::with_capacity(65));
        (0..9).for_each(|_| buffers.starve());
        buffers.fill();
        assert_eq!((buffers.in_ring(), buffers.spare.len()), (8, 0), "the most there may be");
        assert_eq!(buffers.take(0, 16).len(), 16);
        buffers.relax();
        buffers.fill();
        assert_eq!(buffers.in_ring(), 8, "it was starved not long ago");
        buffers.relax();
        let five = buffers.take(5, 0);
        buffers.put(five);
        assert_eq!((buffers.in_ring(), buffers.spare.len()), (7, 1), "four are enough now");
        for number in [1, 2, 3, 4] {
            buffers.take(number, 1);
        }
        buffers.hold(5);
        buffers.fill();
        assert_eq!(buffers.in_ring(), 3, "and five are full");
        buffers.release(&ring, true);
    }

    #[test]
    #[should_panic(expected = "a buffer it was given, once")]
    fn a_buffer_is_not_taken_twice() {
        let ring = IoUring::new(4).expect("a buffer it was given, once, were there a ring");
        let mut buffers = Buffers::new(&ring, Sizes { least: 2, most: 2, bytes: 1 }).unwrap();
        buffers.take(1, 1);
        buffers.take(1, 1);
    }
}

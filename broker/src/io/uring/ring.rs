//! One shard's io_uring: the sockets, and all memory that the system may touch on their behalf.
//!
//! What is under way is known here by the socket's place, its generation and the kind of order,
//! which the system gives back with the result. A socket that is closed keeps its place until
//! nothing of it is under way any more, so no result ever meets another socket, and no buffer is
//! freed that the system may still write into or read from. *Never:* what a link is, when to read.
//!
//! Unsafe, since orders hold addresses. That what they point to stays is said at each place.

#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::buffers::{Buffers, GROUP, Sizes};
use super::sending::Sending;
use super::tag::{GENERATIONS, Kind, Place, tagged, untagged};
use crate::io::choice::Unavailable;
use crate::io::{LinkId, Piece};

/// Orders that the system is given in one call, at most; more take another call.
const ORDERS: u32 = 256;

/// Results that may wait for us. A turn leaves one for each buffer and each send; what exceeds it
/// the system keeps elsewhere, at a price.
const RESULTS: u32 = 8 * ORDERS;

/// How long a ring that ends waits for a next result, and how often, before it gives the memory of
/// what is still under way up for good.
const END_WAIT: Duration = Duration::from_millis(100);
const END_WAITS: usize = 50;

/// Of the order that belongs to no socket.
const NOWHERE: Place = Place { slot: u32::MAX, generation: 0 };

/// What happened to a link.
#[derive(Debug)]
pub(super) enum Event {
    /// Bytes came.
    Bytes(LinkId, Vec<u8>),
    /// Nothing more will come.
    End(LinkId),
    /// It is not received from any more, since there was no buffer.
    Starved(LinkId),
    /// It is not received from any more, as was asked, or as the system wanted it.
    Stopped(LinkId),
    /// All was sent.
    Sent(LinkId, Vec<u8>),
    /// What was ordered to be received failed.
    ReceiveFailed(LinkId, io::Error),
    /// What was ordered to be sent failed, in full or in part.
    SendFailed(LinkId, io::Error),
    /// Nothing of it is under way any more, and here is its socket.
    Left(LinkId, TcpStream),
}

/// What is counted besides what links are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Incidents {
    /// Sends that took several orders.
    pub(super) short_sends: u64,
    /// Turns that found results for which there had been no room.
    pub(super) overflows: u64,
    /// Results for a socket that had left its place.
    pub(super) stale: u64,
}

#[derive(Default)]
enum Receipt {
    #[default]
    None,
    /// Once, into this.
    Into(Vec<u8>),
    /// Into the buffers that are there for all, until it is told to stop, or there is none.
    Standing,
}

/// What becomes of a socket as soon as nothing of it is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Stays,
    Closes,
    Leaves,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    link: u64,
    socket: Option<TcpStream>,
    receipt: Receipt,
    sends: Option<Sending>,
    cancels: u32,
    fate: Fate,
}

impl Slot {
    fn is_quiet(&self) -> bool {
        matches!(self.receipt, Receipt::None) && self.sends.is_none() && self.cancels == 0
    }
}

/// See the module.
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    slots: Vec<Slot>,
    free: Vec<u32>,
    // Orders that the system has not made room for yet.
    waiting: VecDeque<squeue::Entry>,
    // The next event.
    left: Option<(LinkId, TcpStream)>,
    bell: OwnedFd,
    rings: u64,
    overflows: bool,
    incidents: Incidents,
}

impl Ring {
    /// A ring that no thread owns yet; [`Ring::begin`] makes it that of the calling one.
    pub(super) fn new(sizes: Sizes) -> Result<Self, Unavailable> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(RESULTS)
            .build(ORDERS)
            .map_err(Unavailable::because("a ring of one thread that defers its work"))?;
        let has = ring.params();
        if !(has.is_feature_nodrop() && has.is_feature_ext_arg() && has.is_feature_fast_poll()) {
            let unsupported = io::ErrorKind::Unsupported.into();
            return Err(Unavailable::because("results kept, waits with a limit")(unsupported));
        }
        let buffers = Buffers::new(&ring, sizes)
            .map_err(Unavailable::because("a ring of buffers to receive into"))?;
        Ok(Self {
            ring,
            buffers,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            left: None,
            bell: event().map_err(Unavailable::because("a descriptor to be woken by"))?,
            rings: 0,
            overflows: false,
            incidents: Incidents::default(),
        })
    }

    /// To be called once, by the thread that will use it.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        self.watch_bell();
        Ok(())
    }

    /// Something to write 8 bytes to from any thread, as a number that is not 0, so that the thread
    /// that waits in [`Ring::enter`] goes on.
    pub(super) fn bell(&self) -> io::Result<OwnedFd> {
        self.bell.try_clone()
    }

    /// How often it has rung; several times at once count as one.
    pub(super) fn rings(&self) -> u64 {
        self.rings
    }

    /// Whether all sockets are closed and nothing of them is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// What there was since the last call.
    pub(super) fn take_incidents(&mut self) -> Incidents {
        std::mem::take(&mut self.incidents)
    }

    /// Takes a socket in, which has to be a blocking one: an order that cannot be carried out at
    /// once would else fail.
    pub(super) fn adopt(&mut self, link: LinkId, socket: TcpStream) -> Place {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer sockets than that")
        });
        let slot = &mut self.slots[at as usize];
        (slot.link, slot.socket) = (link.0, Some(socket));
        Place { slot: at, generation: slot.generation }
    }

    fn slot(&mut self, place: Place) -> &mut Slot {
        let slot = &mut self.slots[place.slot as usize];
        assert!(slot.generation == place.generation && slot.fate == Fate::Stays, "it is gone");
        slot
    }

    /// Orders to receive once, into this.
    ///
    /// # Panics
    /// If it is received from already, or there is no room.
    pub(super) fn receive(&mut self, place: Place, mut buffer: Vec<u8>) {
        buffer.clear();
        let room = u32::try_from(buffer.capacity()).unwrap_or(u32::MAX >> 1);
        assert!(room > 0, "a receipt of nothing looks like the end");
        let slot = self.slot(place);
        assert!(matches!(slot.receipt, Receipt::None), "one at a time");
        let at = buffer.as_mut_ptr();
        // Moving a Vec leaves its bytes where they are.
        slot.receipt = Receipt::Into(buffer);
        let entry = opcode::Recv::new(Fd(slot.fd()), at, room).build();
        // SAFETY: the entry's pointer and length are those of the Vec in the slot's `receipt`. It
        // is neither looked at nor changed until `received` takes it out, when the system has
        // completed the order; the slot is not given up before that. A ring that ends before gives
        // the Vec up for good.
        unsafe { self.push(entry.user_data(tagged(place, Kind::Receive))) }
    }

    /// Orders to receive whatever comes, into buffers of [`Ring::put`].
    ///
    /// # Panics
    /// If it is received from already.
    pub(super) fn receive_all(&mut self, place: Place) {
        let slot = self.slot(place);
        assert!(matches!(slot.receipt, Receipt::None), "one at a time");
        slot.receipt = Receipt::Standing;
        let entry = opcode::RecvMulti::new(Fd(slot.fd()), GROUP).build();
        // SAFETY: the order has no address: the system takes those of `buffers`, which stay until
        // nothing of any socket is under way.
        unsafe { self.push(entry.user_data(tagged(place, Kind::Receive))) }
    }

    /// Whether it is received from.
    pub(super) fn receives(&self, place: Place) -> bool {
        !matches!(self.slots[place.slot as usize].receipt, Receipt::None)
    }

    /// Orders to receive no more. What has come by then still comes as an event, and then that it
    /// has stopped.
    pub(super) fn stop(&mut self, place: Place) {
        self.slot(place).cancels += 1;
        let which = opcode::AsyncCancel::new(tagged(place, Kind::Receive)).build();
        // SAFETY: the order has no address.
        unsafe { self.push(which.user_data(tagged(place, Kind::Cancel))) }
    }

    /// Takes in a buffer for receipts.
    pub(super) fn put(&mut self, buffer: Vec<u8>) {
        self.buffers.put(buffer);
    }

    /// A buffer for [`Ring::receive`].
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.spare()
    }

    /// So many full buffers wait elsewhere.
    pub(super) fn hold(&mut self, held: usize) {
        self.buffers.hold(held);
    }

    /// There are to be more buffers: there was none for a link that needs one.
    pub(super) fn starve(&mut self) {
        self.buffers.starve();
    }

    /// To be called from time to time: as many buffers as were needed lately are enough.
    pub(super) fn relax(&mut self) {
        self.buffers.relax();
    }

    /// Orders to send all of it.
    ///
    /// # Panics
    /// If something is being sent already, or there is nothing.
    pub(super) fn send(&mut self, place: Place, data: Vec<u8>, pieces: Vec<Piece>) {
        let slot = self.slot(place);
        assert!(slot.sends.is_none(), "one at a time");
        slot.sends = Some(Sending::new(data, pieces));
        self.send_rest(place);
    }

    fn send_rest(&mut self, place: Place) {
        let slot = &mut self.slots[place.slot as usize];
        let fd = slot.fd();
        let Some(sending) = &mut slot.sends else { return };
        let entry = sending.rest(fd);
        // SAFETY: the entry's addresses are those of what the slot's `sends` owns. It is neither
        // looked at nor changed until `sent` takes it out, when the system has completed the order;
        // the slot is not given up before that, and moving the slot leaves what it owns where it
        // is. A ring that ends before gives it up for good.
        unsafe { self.push(entry.user_data(tagged(place, Kind::Send))) }
    }

    /// Ends our direction, after what was sent.
    pub(super) fn shutdown(&mut self, place: Place) -> io::Result<()> {
        match &self.slot(place).socket {
            Some(socket) => socket.shutdown(Shutdown::Write),
            None => Ok(()),
        }
    }

    /// Closes a socket as soon as nothing of it is under way. No event of it follows.
    pub(super) fn close(&mut self, place: Place) {
        let slot = self.slot(place);
        slot.fate = Fate::Closes;
        if slot.is_quiet() {
            return drop(self.vacate(place.slot));
        }
        let fd = Fd(slot.fd());
        slot.cancels += 1;
        if let Some(socket) = &slot.socket {
            // That it is not connected any more is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
        let which = opcode::AsyncCancel2::new(CancelBuilder::fd(fd).all()).build();
        // SAFETY: the order has no address.
        unsafe { self.push(which.user_data(tagged(place, Kind::Cancel))) }
    }

    /// Gives a socket back: now, or as an event when nothing of it is under way any more. What was
    /// received until then comes before that.
    pub(super) fn leave(&mut self, place: Place) -> Option<TcpStream> {
        if self.receives(place) {
            self.stop(place);
        }
        let slot = self.slot(place);
        slot.fate = Fate::Leaves;
        if slot.is_quiet() { self.vacate(place.slot) } else { None }
    }

    fn vacate(&mut self, at: u32) -> Option<TcpStream> {
        let slot = &mut self.slots[at as usize];
        let generation = slot.generation.wrapping_add(1) & GENERATIONS;
        let left = std::mem::replace(slot, Slot { generation, ..Slot::default() });
        self.free.push(at);
        left.socket
    }

    /// Closes everything; whether nothing is under way any more.
    fn end(&mut self) -> bool {
        for at in 0..self.slots.len() {
            let Slot { generation, fate, socket, .. } = &self.slots[at];
            if socket.is_some() && *fate == Fate::Stays {
                let slot = u32::try_from(at).expect("fewer sockets than that");
                self.close(Place { slot, generation: *generation });
            }
        }
        for _ in 0..END_WAITS {
            while self.next().is_some() {}
            if self.is_quiet() {
                return true;
            }
            if let Err(error) = self.enter(END_WAIT) {
                tracing::error!(%error, "io_uring cannot be ended in order");
                return false;
            }
        }
        tracing::error!("io_uring has not completed all orders; their memory stays taken");
        false
    }

    fn watch_bell(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.bell.as_raw_fd()), libc::POLLIN as _).multi(true);
        // SAFETY: the order has no address.
        unsafe { self.push(entry.build().user_data(tagged(NOWHERE, Kind::Bell))) }
    }

    /// # Safety
    /// Whatever the entry's addresses point to must stay, untouched, until it is completed.
    unsafe fn push(&mut self, entry: squeue::Entry) {
        self.waiting.push_back(entry);
        // SAFETY: as the callers promise, this one and those before it.
        while unsafe { self.push_waiting() }.is_err() {
            // There is room again when the system has taken over what is there. If it does not,
            // for want of memory, the next turn tries again.
            if self.ring.submit().is_err() {
                return;
            }
        }
    }

    /// # Safety
    /// As for [`Ring::push`], for all that wait.
    unsafe fn push_waiting(&mut self) -> Result<(), squeue::PushError> {
        let mut orders = self.ring.submission();
        while let Some(entry) = self.waiting.front() {
            // SAFETY: as the caller promises.
            unsafe { orders.push(entry) }?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Hands the orders to the system, and waits that long for a result if none is there.
    pub(super) fn enter(&mut self, wait: Duration) -> io::Result<()> {
        self.buffers.fill();
        // SAFETY: those that wait came through `push`, whose callers have promised.
        let all = unsafe { self.push_waiting() }.is_ok();
        let entered = if wait.is_zero() || !all {
            let (submitter, orders, _) = self.ring.split();
            if orders.is_empty() && !orders.taskrun() && !orders.cq_overflow() {
                return Ok(());
            }
            submitter.submit()
        } else {
            let wait = Timespec::from(wait);
            let submitter = self.ring.submitter();
            submitter.submit_with_args(1, &SubmitArgs::new().timespec(&wait))
        };
        let overflows = self.ring.submission().cq_overflow();
        if overflows && !self.overflows {
            self.incidents.overflows += 1;
        }
        self.overflows = overflows;
        match entered {
            Err(error) if !passes(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// What happened, one by one.
    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((link, socket)) = self.left.take() {
                return Some(Event::Left(link, socket));
            }
            let entry = self.ring.completion().next()?;
            let Some((place, kind)) = untagged(entry.user_data()) else { continue };
            if kind == Kind::Bell {
                self.rings += 1;
                if !cqueue::more(entry.flags()) && entry.result() >= 0 {
                    self.watch_bell();
                }
                continue;
            }
            let known = self.slots.get(place.slot as usize);
            if known.is_none_or(|slot| slot.generation != place.generation) {
                self.incidents.stale += 1;
                continue;
            }
            let event = match kind {
                Kind::Receive => self.received(place, &entry),
                Kind::Send => self.sent(place, entry.result()),
                Kind::Cancel | Kind::Bell => {
                    self.slots[place.slot as usize].cancels -= 1;
                    None
                }
            };
            let slot = &self.slots[place.slot as usize];
            let (fate, link) = (slot.fate, LinkId(slot.link));
            if fate != Fate::Stays
                && slot.is_quiet()
                && let Some(socket) = self.vacate(place.slot)
                && fate == Fate::Leaves
            {
                self.left = Some((link, socket));
            }
            match event {
                Some(Event::Bytes(_, buffer)) if fate == Fate::Closes => self.buffers.put(buffer),
                Some(_) if fate != Fate::Closes => return event,
                _ => {}
            }
        }
    }

    fn received(&mut self, place: Place, entry: &cqueue::Entry) -> Option<Event> {
        let (result, flags) = (entry.result(), entry.flags());
        let bytes = usize::try_from(result).unwrap_or(0);
        let mut buffer =
            cqueue::buffer_select(flags).map(|number| self.buffers.take(number, bytes));
        let slot = &mut self.slots[place.slot as usize];
        let link = LinkId(slot.link);
        if !cqueue::more(flags)
            && let Receipt::Into(mut own) = std::mem::take(&mut slot.receipt)
        {
            assert!(bytes <= own.capacity(), "no more than there was room for");
            // SAFETY: the system has written so many bytes from the buffer's start on, which is
            // where `receive` pointed it to, and will not touch it any more.
            unsafe { own.set_len(bytes) };
            buffer = Some(own);
        }
        match buffer {
            Some(buffer) if bytes > 0 => return Some(Event::Bytes(link, buffer)),
            Some(buffer) => self.buffers.put(buffer),
            None => {}
        }
        Some(match -result {
            0 => Event::End(link),
            libc::ENOBUFS => Event::Starved(link),
            libc::ECANCELED => Event::Stopped(link),
            error => Event::ReceiveFailed(link, io::Error::from_raw_os_error(error)),
        })
    }

    fn sent(&mut self, place: Place, result: i32) -> Option<Event> {
        let slot = &mut self.slots[place.slot as usize];
        let link = LinkId(slot.link);
        let mut sending = slot.sends.take()?;
        let Ok(bytes) = usize::try_from(result) else {
            return Some(Event::SendFailed(link, io::Error::from_raw_os_error(-result)));
        };
        if sending.advance(bytes) {
            return Some(Event::Sent(link, sending.into_data()));
        }
        if slot.fate != Fate::Stays {
            return None;
        }
        if bytes == 0 {
            return Some(Event::SendFailed(link, io::ErrorKind::WriteZero.into()));
        }
        slot.sends = Some(sending);
        self.incidents.short_sends += 1;
        self.send_rest(place);
        None
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let is_quiet = self.end();
        self.buffers.release(&self.ring, is_quiet);
        for slot in &mut self.slots {
            // The system may read or write these for a while after the ring is closed.
            if let Some(sending) = slot.sends.take() {
                std::mem::forget(sending);
            }
            if let Receipt::Into(buffer) = std::mem::take(&mut slot.receipt) {
                std::mem::forget(buffer);
            }
        }
    }
}

impl Slot {
    fn fd(&self) -> RawFd {
        self.socket.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }
}

/// Whether to go on: nothing came in time, a signal did, or results have to be taken out first.
fn passes(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM)
    )
}

fn event() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: it takes no address.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;

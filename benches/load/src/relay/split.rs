//! Which bytes go to which gateway: a message for a UID to gateway `uid % gateways`.
//!
//! Works on whole batches. Frames in a row for the same gateway are copied as one run; a list is
//! dealt out into a bucket for each gateway and each bucket is written as one frame. Of the header
//! only what dividing a list changes is rewritten: its length and the count of UIDs.

use std::io;

use waybill_wire::limits::TARGETS_MAX;
use waybill_wire::planted::{Deed, Fault};
use waybill_wire::targets::UID_BYTES;

use super::frame::Frame;

/// UIDs from one bucket to the next: room for a whole list, and a bit more, so that the buckets do
/// not begin in the same lines of the cache.
const BUCKET: usize = TARGETS_MAX + 24;

/// Gateways, by the rule alone.
pub(super) struct Split {
    gateways: usize,
    /// All ones below the number of gateways, if that is a power of two.
    mask: Option<u8>,
    /// UIDs as they lie on the wire, `BUCKET` places for each gateway.
    buckets: Vec<[u8; UID_BYTES]>,
    filled: [u16; super::GATEWAYS_MAX],
    fault: Option<Fault>,
    /// Messages up to the next that a fault is committed on.
    until_fault: u64,
}

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Gateway(u8),
    Everyone,
    List,
}

impl Split {
    /// For 1 to 256 gateways.
    pub(super) fn new(gateways: usize, fault: Option<Fault>) -> Self {
        let mask = u8::try_from(gateways - 1).ok().filter(|_| gateways.is_power_of_two());
        Self {
            gateways,
            mask,
            buckets: vec![[0; UID_BYTES]; BUCKET * gateways],
            filled: [0; super::GATEWAYS_MAX],
            fault,
            until_fault: fault.map_or(u64::MAX, |fault| fault.every),
        }
    }

    /// Appends each whole frame of `input` to what waits for its gateways; how many bytes that was.
    pub(super) fn split(&mut self, input: &[u8], waiting: &mut [Vec<u8>]) -> io::Result<usize> {
        let (mut at, mut run) = (0, 0);
        let mut run_to = To::List;
        while let Some(frame) = Frame::first(&input[at..])? {
            let to = self.direction(&frame);
            self.until_fault -= 1;
            let faulty = self.until_fault == 0;
            if to != run_to || to == To::List || faulty {
                copy(&input[run..at], run_to, waiting);
                (run, run_to) = (at, to);
            }
            at += frame.bytes.len();
            if faulty {
                self.commit(&frame, to, waiting);
                run = at;
            } else if to == To::List {
                self.deal(&frame, 0);
                self.write(&frame, waiting);
                run = at;
            }
        }
        copy(&input[run..at], run_to, waiting);
        Ok(at)
    }

    #[inline]
    fn direction(&self, frame: &Frame<'_>) -> To {
        match (frame.everyone, frame.targets) {
            (true, _) => To::Everyone,
            (false, 1) => To::Gateway(self.gateway(&frame.uids()[0])),
            (false, _) => To::List,
        }
    }

    #[inline]
    fn gateway(&self, uid: &[u8; UID_BYTES]) -> u8 {
        match self.mask {
            Some(mask) => uid[0] & mask,
            // A remainder of at most 255 is its lowest byte.
            None => (u64::from_le_bytes(*uid) % self.gateways as u64).to_le_bytes()[0],
        }
    }

    /// Puts each UID into its gateway's bucket, or that of the gateway so many after it.
    fn deal(&mut self, frame: &Frame<'_>, after: usize) {
        self.filled[..self.gateways].fill(0);
        for uid in frame.uids() {
            let mut gateway = usize::from(self.gateway(uid));
            if after > 0 {
                gateway = (gateway + after) % self.gateways;
            }
            let filled = &mut self.filled[gateway];
            self.buckets[gateway * BUCKET + usize::from(*filled)] = *uid;
            *filled += 1;
        }
    }

    /// A frame for each gateway with something in its bucket.
    fn write(&self, frame: &Frame<'_>, waiting: &mut [Vec<u8>]) {
        let before = frame.before_uids();
        let shares = self.filled.iter().zip(self.buckets.chunks(BUCKET));
        for ((count, bucket), out) in shares.zip(waiting) {
            if *count == 0 {
                continue;
            }
            let (start, uids) = (out.len(), &bucket[..usize::from(*count)]);
            let header_bytes = before + uids.len() * UID_BYTES;
            let words = u16::try_from(header_bytes / 8).expect("no more than in the one that came");
            out.reserve(header_bytes + frame.payload().len());
            out.extend_from_slice(&frame.bytes[..before]);
            out[start + 2..start + 4].copy_from_slice(&words.to_le_bytes());
            out[start + 10..start + 12].copy_from_slice(&count.to_le_bytes());
            out.extend_from_slice(uids.as_flattened());
            out.extend_from_slice(frame.payload());
        }
    }

    #[cold]
    fn commit(&mut self, frame: &Frame<'_>, to: To, waiting: &mut [Vec<u8>]) {
        let Some(Fault { deed, every }) = self.fault else { return };
        self.until_fault = every;
        let (times, after) = match deed {
            Deed::Drop => (0, 0),
            Deed::Twice => (2, 0),
            Deed::Wrong => (1, 1),
        };
        for _ in 0..times {
            match to {
                To::Everyone => copy(frame.bytes, to, waiting),
                To::Gateway(_) | To::List => {
                    self.deal(frame, after);
                    self.write(frame, waiting);
                }
            }
        }
    }
}

#[inline]
fn copy(run: &[u8], to: To, waiting: &mut [Vec<u8>]) {
    match to {
        To::Gateway(gateway) => waiting[usize::from(gateway)].extend_from_slice(run),
        To::Everyone => waiting.iter_mut().for_each(|out| out.extend_from_slice(run)),
        To::List => debug_assert!(run.is_empty(), "a list is never part of a run"),
    }
}

#[cfg(test)]
mod tests;

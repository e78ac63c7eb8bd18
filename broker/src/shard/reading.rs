//! A link's read buffer: where it is, and how large the next one is. It grows while reads fill it
//! and shrinks when they no longer do, so that a busy link makes few system calls and an idle one
//! holds little. Never: what is in it.

use crate::limits::{READ_BYTES, READ_BYTES_MIN, SMALL_READS};

/// See the module.
pub(super) struct Reading {
    place: Place,
    /// Bytes of the next buffer.
    wanted: usize,
    /// Reads in a row that half of it would have done for.
    small: u32,
    /// What the one that is here or on its way has room for.
    capacity: usize,
}

enum Place {
    /// With the backend.
    Ordered,
    /// Here: there is no read on its way.
    Held(Vec<u8>),
    /// The peer will send nothing more.
    Ended,
}

impl Default for Reading {
    fn default() -> Self {
        Self { place: Place::Held(Vec::new()), wanted: READ_BYTES_MIN, small: 0, capacity: 0 }
    }
}

impl Reading {
    /// A read brought so many bytes into a buffer of that capacity.
    pub(super) fn brought(&mut self, bytes: usize, capacity: usize) {
        if bytes >= capacity {
            self.wanted = (2 * capacity).clamp(READ_BYTES_MIN, READ_BYTES);
            self.small = 0;
        } else if bytes <= self.wanted / 2 && self.wanted > READ_BYTES_MIN {
            self.small += 1;
            if self.small >= SMALL_READS {
                self.wanted /= 2;
                self.small = 0;
            }
        } else {
            self.small = 0;
        }
    }

    /// What was read is served: the buffer is free.
    pub(super) fn returned(&mut self, mut buffer: Vec<u8>) {
        buffer.clear();
        self.place = Place::Held(buffer);
    }

    pub(super) fn end(&mut self) {
        self.place = Place::Ended;
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.place, Place::Ended)
    }

    /// Bytes of memory of the buffer, wherever it is.
    pub(super) fn held(&self) -> usize {
        self.capacity
    }

    /// The buffer for a read, if none is on its way and one makes sense. It is a small one where
    /// the link's share of the pool is less than that.
    pub(super) fn next_buffer(&mut self, share: usize) -> Option<Vec<u8>> {
        let Place::Held(buffer) = &mut self.place else { return None };
        let mut buffer = std::mem::take(buffer);
        self.place = Place::Ordered;
        let wanted = if share < self.wanted { READ_BYTES_MIN } else { self.wanted };
        if buffer.capacity() != wanted {
            buffer = Vec::with_capacity(wanted);
        }
        self.capacity = buffer.capacity();
        Some(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads that bring as much as there is room for, up to `most`; the capacity of the last.
    fn after(reading: &mut Reading, reads: usize, most: usize) -> usize {
        let mut last = 0;
        for _ in 0..reads {
            let buffer = reading.next_buffer(READ_BYTES).unwrap();
            last = buffer.capacity();
            assert!((READ_BYTES_MIN..=READ_BYTES).contains(&last));
            reading.brought(most.min(last), last);
            reading.returned(buffer);
        }
        last
    }

    #[test]
    fn the_buffer_follows_what_reads_bring() {
        let mut reading = Reading::default();
        assert_eq!(after(&mut reading, 1, 0), READ_BYTES_MIN);
        assert_eq!(after(&mut reading, 10, usize::MAX), READ_BYTES, "it grows with full reads");
        assert_eq!(
            after(&mut reading, 100, READ_BYTES - 1),
            READ_BYTES,
            "and stays for large ones"
        );
        let few = SMALL_READS as usize - 1;
        for _ in 0..10 {
            assert_eq!(after(&mut reading, few, 40), READ_BYTES, "a few small ones do not count");
            after(&mut reading, 1, READ_BYTES);
        }
        let many = 10 * SMALL_READS as usize;
        assert_eq!(after(&mut reading, many, 40), READ_BYTES_MIN, "many do");
    }

    #[test]
    fn promise_7_buffers_stay_small_where_there_is_little_for_all() {
        let mut reading = Reading::default();
        after(&mut reading, 10, usize::MAX);
        let buffer = reading.next_buffer(READ_BYTES - 1).unwrap();
        assert_eq!((buffer.capacity(), reading.held()), (READ_BYTES_MIN, READ_BYTES_MIN));
        reading.returned(buffer);
        assert_eq!(after(&mut reading, 1, 0), READ_BYTES, "it is as large as it was, afterwards");
    }

    #[test]
    fn one_buffer_is_out_at_a_time() {
        let mut reading = Reading::default();
        let buffer = reading.next_buffer(READ_BYTES).unwrap();
        assert!(reading.next_buffer(READ_BYTES).is_none());
        reading.returned(buffer);
        assert!(reading.next_buffer(READ_BYTES).is_some());
        reading.end();
        assert!(reading.has_ended() && reading.next_buffer(READ_BYTES).is_none());
    }
}

//! Where a client's bytes stand among its frames: how much the library keeps of a message that is
//! not whole, for which it reserves memory as soon as a frame is announced.
//!
//! Never here: what is right or wrong about a frame; the library judges.

/// Bytes of a header at most: two, a length of eight, a mask (RFC 6455, 5.2).
const HEAD_BYTES_MAX: usize = 14;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of the header that have come; none once it is whole.
    have: usize,
    /// Bytes of the frame's payload that have not come.
    left: u64,
    /// Of the message that is not whole, with all of the frame that was announced.
    message: u64,
    /// Whether there is one.
    is_within: bool,
    /// One has ended since this was asked last.
    has_ended: bool,
}

impl Inbound {
    /// These bytes come next.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.head[self.have] = *first;
                self.have += 1;
                bytes = rest;
                if self.have == self.head_bytes() {
                    self.begin();
                }
            } else {
                let some = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= some as u64;
                bytes = &bytes[some..];
            }
            if self.left == 0 && self.have == 0 && self.is_last() {
                (self.message, self.is_within, self.has_ended) = (0, false, true);
            }
        }
    }

    /// Bytes of the message that is not whole, at least those that have come.
    pub(crate) fn message_bytes(&self) -> usize {
        usize::try_from(self.message).unwrap_or(usize::MAX)
    }

    /// Whether a message has ended since this was asked last.
    pub(crate) fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.has_ended)
    }

    /// Whether the last byte was that of a whole message, or of a control frame between two.
    pub(crate) fn is_between(&self) -> bool {
        self.left == 0 && self.have == 0 && !self.is_within
    }

    fn head_bytes(&self) -> usize {
        if self.have < 2 {
            return HEAD_BYTES_MAX;
        }
        let mask = if self.head[1] & 0x80 != 0 { 4 } else { 0 };
        2 + mask + self.length_bytes()
    }

    fn length_bytes(&self) -> usize {
        match self.head[1] & 0x7f {
            127 => 8,
            126 => 2,
            _ => 0,
        }
    }

    fn begin(&mut self) {
        let long = self.head[2..2 + self.length_bytes()].iter();
        let len = match self.length_bytes() {
            0 => u64::from(self.head[1] & 0x7f),
            _ => long.fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        (self.have, self.left) = (0, len);
        if !self.is_control() {
            self.message = self.message.saturating_add(len);
            self.is_within = true;
        }
    }

    fn is_control(&self) -> bool {
        self.head[0] & 0x08 != 0
    }

    /// Whether the frame is the last of its message.
    fn is_last(&self) -> bool {
        self.head[0] & 0x80 != 0 && !self.is_control()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, len: usize) -> Vec<u8> {
        let mut frame = match len {
            0..126 => vec![first, 0x80 | u8::try_from(len).unwrap()],
            126..0x10000 => {
                [&[first, 0xfe][..], &u16::try_from(len).unwrap().to_be_bytes()].concat()
            }
            _ => [&[first, 0xff][..], &(len as u64).to_be_bytes()].concat(),
        };
        frame.extend([0xff; 4]);
        frame.resize(frame.len() + len, 0x81);
        frame
    }

    #[test]
    fn promise_7_a_message_counts_from_its_announcement_to_its_end() {
        let frames = [
            (0x82, 0, 0, 0),
            // Nothing of it has come, and there will be more.
            (0x02, 0, 0, 0),
            (0x80, 7, 7, 0),
            (0x82, 5, 5, 0),
            // In three pieces, a Ping between them.
            (0x02, 200, 200, 200),
            (0x89, 3, 200, 200),
            (0x00, 70_000, 70_200, 70_200),
            (0x80, 9, 70_209, 0),
            (0x88, 2, 0, 0),
            (0x82, 125, 125, 0),
        ];
        for step in [1, 2, 3, 7, 1 << 20] {
            let mut inbound = Inbound::default();
            for (first, len, during, after) in frames {
                let bytes = frame(first, len);
                let (all_but_one, last) = bytes.split_at(bytes.len() - 1);
                all_but_one.chunks(step).for_each(|part| inbound.pass(part));
                if len > 0 {
                    assert_eq!(inbound.message_bytes(), during, "{first:x} {len}");
                }
                assert!(!inbound.is_between());
                assert!(!inbound.take_ended());
                inbound.pass(last);
                assert_eq!(inbound.message_bytes(), after, "{first:x} {len}");
                let is_first = (first, len) == (0x02, 0);
                assert_eq!(inbound.is_between(), after == 0 && !is_first);
                assert_eq!(inbound.take_ended(), first & 0x88 == 0x80);
            }
        }
        let mut inbound = Inbound::default();
        inbound.pass(&frames.map(|(first, len, ..)| frame(first, len)).concat());
        assert!(inbound.is_between());
    }
}

//! The first bytes on a connection to the relay: who it is.

/// Length of a hello.
pub const HELLO_BYTES: usize = 8;

const MARK: [u8; 3] = *b"WBR";

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Sends frames. It is sent its own hello back when every gateway is there.
    Producer,
    /// Gets the frames of this number.
    Gateway(u32),
}

impl Hello {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; HELLO_BYTES] {
        let (role, number) = match self {
            Self::Producer => (b'p', 0),
            Self::Gateway(number) => (b'g', number),
        };
        let [a, b, c] = MARK;
        let [d, e, f, g] = u32::to_le_bytes(number);
        [a, b, c, role, d, e, f, g]
    }

    /// What the bytes say, if anything.
    #[must_use]
    pub fn decode(bytes: [u8; HELLO_BYTES]) -> Option<Self> {
        let [a, b, c, role, number @ ..] = bytes;
        match ([a, b, c] == MARK, role) {
            (true, b'p') => Some(Self::Producer),
            (true, b'g') => Some(Self::Gateway(u32::from_le_bytes(number))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_comes_back_as_it_went() {
        for hello in [Hello::Producer, Hello::Gateway(0), Hello::Gateway(255)] {
            assert_eq!(Hello::decode(hello.encode()), Some(hello));
        }
        assert_eq!(Hello::decode(*b"WBRx\0\0\0\0"), None);
        assert_eq!(Hello::decode(*b"GET / HT"), None);
    }
}

//! Decimal numbers in ASCII: how every text protocol here writes a UID and a length.

/// Digits of `u64::MAX`.
pub(crate) const DIGITS_MAX: usize = 20;

/// A number's digits, without a heap.
#[derive(Clone, Copy)]
pub(crate) struct Decimal {
    digits: [u8; DIGITS_MAX],
    from: usize,
}

impl Decimal {
    /// The shortest way to write the number.
    pub(crate) fn new(mut number: u64) -> Self {
        let mut digits = [b'0'; DIGITS_MAX];
        let mut from = DIGITS_MAX;
        loop {
            from -= 1;
            digits[from] = b'0' + u8::try_from(number % 10).expect("below ten");
            number /= 10;
            if number == 0 {
                return Self { digits, from };
            }
        }
    }

    /// Its digits.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

/// Appends the digits of a number.
pub(crate) fn push(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(Decimal::new(number).as_bytes());
}

/// The number these digits say; `None` unless all are digits, there is one, and it fits.
pub(crate) fn parse(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = u64::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back_as_written() {
        for number in [0, 9, 10, 1_000_000_000, 4_294_967_296, u64::MAX] {
            let written = Decimal::new(number);
            assert_eq!(written.as_bytes(), number.to_string().as_bytes());
            assert_eq!(parse(written.as_bytes()), Some(number));
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for digits in [&b""[..], b"-1", b"1a", b" 1", b"18446744073709551616", b"1:"] {
            assert_eq!(parse(digits), None, "{digits:?}");
        }
    }
}

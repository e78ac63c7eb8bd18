//! A sum of bounds, term by term: the most memory that a broker or a gateway may take. Which terms
//! there are is said by each of them.

/// One term of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// What takes the memory.
    pub what: &'static str,
    /// How many of it there may be.
    pub count: u64,
    /// What there may be that many of.
    pub of: &'static str,
    /// Bytes of each, at most.
    pub each: u64,
}

/// A number of bytes or things as wide as the sum.
#[must_use]
pub fn wide(number: usize) -> u64 {
    number as u64
}

impl Term {
    /// So many of something, of at most so many bytes each.
    #[must_use]
    pub fn new(what: &'static str, count: u64, of: &'static str, each: u64) -> Self {
        Self { what, count, of, each }
    }

    /// Bytes of all, at most; as many as there are numbers if it is more.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// Bytes of all terms.
#[must_use]
pub fn sum(terms: &[Term]) -> u64 {
    terms.iter().fold(0, |sum, term| sum.saturating_add(term.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promise_7_a_sum_beyond_all_numbers_is_the_greatest() {
        let term = Term { what: "", count: u64::MAX, of: "", each: 2 };
        assert_eq!(sum(&[term, term]), u64::MAX);
        assert_eq!(sum(&[Term { count: 3, ..term }, Term { count: 4, ..term }]), 14);
    }
}

//! Why something could not be done, in words for a person.

use std::fmt::Display;

/// What went wrong, and where it matters, what to do about it.
///
/// A failure ends a run. A delivery that is not as it should be is a fault instead, and is counted
/// by the [`Tally`](crate::tally::Tally).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// A failure in these words.
    pub fn new(words: impl Display) -> Self {
        Self(words.to_string())
    }

    /// The same with what was being done in front.
    #[must_use]
    pub fn during(self, what: impl Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

//! Order of the sequences on one link (PUB-1, UP-1).

use crate::code::{ErrorCode, Kind};
use crate::error::{Breach, Violation};

/// The highest sequence seen on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sequence {
    last: u64,
}

impl Sequence {
    /// The highest sequence seen; 0 before the first.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A frame with this sequence came. One sent again may have any.
    ///
    /// # Errors
    /// `sequence_order` if it is not above the highest and was not sent again.
    pub fn advance(&mut self, kind: Kind, sequence: u64, resend: bool) -> Result<(), Violation> {
        if sequence <= self.last && !resend {
            let what = Breach::NotAbove("sequence", sequence, self.last);
            let code = ErrorCode::SEQUENCE_ORDER;
            return Err(Violation { code, kind, reference: sequence, what });
        }
        self.last = self.last.max(sequence);
        Ok(())
    }
}

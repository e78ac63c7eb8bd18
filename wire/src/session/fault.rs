//! Why a link ends from this end: what a fatal ERROR is made of.

use std::fmt;

use crate::code::{ErrorCode, Kind};
use crate::error::{Malformed, Violation};

/// Why this end ends the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other end's bytes.
    Malformed(Malformed),
    /// The other end's order of frames, or its silence.
    Violation(Violation),
    /// A decision of this end.
    Refused(Refusal),
}

/// A decision to end a link whose bytes and order are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Refusal {
    /// Why.
    pub code: ErrorCode,
    /// Kind of the frame it is about; 0 for none.
    pub kind: Kind,
    /// Sequence or version of that frame; 0 for none.
    pub reference: u64,
    /// Lower bound for the next attempt; 0 for no advice.
    pub retry_after_ms: u32,
    /// For a person.
    pub detail: &'static str,
}

impl Fault {
    /// Refusal of a HELLO.
    #[must_use]
    pub fn refuse_hello(code: ErrorCode, detail: &'static str) -> Self {
        let kind = Kind::HELLO;
        Self::Refused(Refusal { code, kind, reference: 0, retry_after_ms: 0, detail })
    }

    /// The code to report.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(malformed) => malformed.code,
            Self::Violation(violation) => violation.code,
            Self::Refused(refusal) => refusal.code,
        }
    }

    /// Kind of the frame it is about; 0 for none.
    #[must_use]
    pub fn ref_kind(&self) -> Kind {
        match self {
            Self::Malformed(malformed) => malformed.kind,
            Self::Violation(violation) => violation.kind,
            Self::Refused(refusal) => refusal.kind,
        }
    }

    /// Sequence or version of that frame. A malformed frame's is not trusted, so it is 0.
    #[must_use]
    pub fn reference(&self) -> u64 {
        match self {
            Self::Malformed(_) => 0,
            Self::Violation(violation) => violation.reference,
            Self::Refused(refusal) => refusal.reference,
        }
    }

    /// Lower bound for the next attempt; 0 for no advice.
    #[must_use]
    pub fn retry_after_ms(&self) -> u32 {
        match self {
            Self::Malformed(_) | Self::Violation(_) => 0,
            Self::Refused(refusal) => refusal.retry_after_ms,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Violation(violation) => violation.fmt(f),
            Self::Refused(refusal) => f.write_str(refusal.detail),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

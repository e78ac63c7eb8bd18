//! Versions of what a gateway declares, at the broker's end (REG-1 to REG-5).
//!
//! ```text
//!  empty --SNAPSHOT FIRST--> filling --SNAPSHOT LAST--> live --DELTA--> live
//!  empty --SNAPSHOT FIRST and LAST--> live
//! ```
//!
//! It holds versions only; the registrations and their digest are the caller's.

use crate::code::{ErrorCode, Kind};
use crate::error::{Breach, Violation};

/// What one gateway session has declared, by version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Registration {
    phase: Phase,
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Empty,
    Filling,
    Live,
}

/// What a SNAPSHOT frame did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// More frames of this snapshot follow.
    More,
    /// It was the last: the slot goes live and IN_EFFECT is due (REG-2).
    Complete,
}

impl Registration {
    /// Last version received, 0 before the first (REG-1).
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether a snapshot has ended, so that the slot takes deliveries.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// A SNAPSHOT frame came (REG-2, REG-4).
    ///
    /// # Errors
    /// `unexpected_frame`, if it does not go on with an open snapshot or begin the only one.
    pub fn snapshot(&mut self, first: bool, last: bool, version: u64) -> Result<Filled, Violation> {
        let kind = Kind::SNAPSHOT;
        match (self.phase, first) {
            (Phase::Empty, true) => self.version = version,
            (Phase::Filling, false) if version == self.version => {}
            (Phase::Filling, false) => {
                let what = Breach::Due("version of SNAPSHOT", version, self.version);
                let code = ErrorCode::UNEXPECTED_FRAME;
                return Err(Violation { code, kind, reference: version, what });
            }
            (Phase::Filling, true) => {
                return Err(unexpected(kind, version, "FIRST came while a snapshot is open"));
            }
            (Phase::Live, true) => {
                return Err(unexpected(kind, version, "FIRST came after a snapshot has ended"));
            }
            (Phase::Empty | Phase::Live, false) => {
                return Err(unexpected(kind, version, "no snapshot is open to go on with"));
            }
        }
        self.phase = if last { Phase::Live } else { Phase::Filling };
        Ok(if last { Filled::Complete } else { Filled::More })
    }

    /// A DELTA came (REG-3).
    ///
    /// # Errors
    /// `unexpected_frame` before the first snapshot has ended, `version_gap` if its version is not
    /// one above the last.
    pub fn delta(&mut self, version: u64) -> Result<(), Violation> {
        let kind = Kind::DELTA;
        if self.phase != Phase::Live {
            return Err(unexpected(kind, version, "DELTA came before a snapshot has ended"));
        }
        if self.version.checked_add(1) != Some(version) {
            return Err(gap(kind, "version of DELTA", version, self.version.saturating_add(1)));
        }
        self.version = version;
        Ok(())
    }

    /// A BARRIER came, and `digest` is that of what the broker has (REG-5).
    ///
    /// # Errors
    /// `unexpected_frame` within a snapshot, `version_gap` for another version than the last one,
    /// `digest_mismatch` if the gateway has declared something else than the broker has.
    pub fn barrier(&self, version: u64, declared: u64, digest: u64) -> Result<(), Violation> {
        let kind = Kind::BARRIER;
        if self.phase == Phase::Filling {
            return Err(unexpected(kind, version, "BARRIER came while a snapshot is open"));
        }
        if version != self.version {
            return Err(gap(kind, "version of BARRIER", version, self.version));
        }
        if declared != digest {
            let what = Breach::Due("digest", declared, digest);
            let code = ErrorCode::DIGEST_MISMATCH;
            return Err(Violation { code, kind, reference: version, what });
        }
        Ok(())
    }
}

fn unexpected(kind: Kind, reference: u64, words: &'static str) -> Violation {
    let what = Breach::Words(words);
    Violation { code: ErrorCode::UNEXPECTED_FRAME, kind, reference, what }
}

fn gap(kind: Kind, field: &'static str, version: u64, due: u64) -> Violation {
    let what = Breach::Due(field, version, due);
    Violation { code: ErrorCode::VERSION_GAP, kind, reference: version, what }
}

//! Versions of what a gateway declares, at the broker's end (REG-1 to REG-5, RES-3 to RES-9, TAG-4
//! to TAG-5).
//!
//! ```text
//!  empty --SNAPSHOT FIRST--> filling --SNAPSHOT LAST--> live --DELTA, TAG_DELTA--> live
//!  filling --TAG_DELTA of the same version--> filling
//!  live --SUSPEND--> suspended
//!  empty --SNAPSHOT FIRST and LAST--> live
//!  resuming --DELTA, TAG_DELTA--> resuming --RESUME--> live
//!  resuming --SNAPSHOT, before any delta--> as from empty
//! ```
//!
//! It holds versions only; registrations, tags and their digest are the caller's, and so is
//! `digest_mismatch` of a tag that is declared twice or removed without having been (TAG-6).

use crate::code::{ErrorCode, Kind, Op};
use crate::error::{Breach, Violation};
use crate::frame::{Resume, TagDelta};

/// What one gateway session has declared, by version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Registration {
    phase: Phase,
    version: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
enum Phase {
    #[default]
    Empty,
    Filling,
    Live,
    /// The link goes on with a suspended session; `moved`: a delta has been applied since.
    Resuming {
        moved: bool,
    },
    Suspended,
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
    /// Of a link that goes on with a suspended session, whose last version was `version` (RES-3).
    #[must_use]
    pub fn resuming(version: u64) -> Self {
        Self { phase: Phase::Resuming { moved: false }, version }
    }

    /// Last version received, 0 before the first (REG-1).
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the slot takes deliveries: a snapshot has ended, or RESUME was right.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// Whether RESUMED was sent and neither RESUME nor SNAPSHOT has come.
    #[must_use]
    pub fn is_resuming(&self) -> bool {
        matches!(self.phase, Phase::Resuming { .. })
    }

    /// Whether SUSPEND has come on this link.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.phase == Phase::Suspended
    }

    /// A SNAPSHOT frame came (REG-2, REG-4, RES-6). While resuming, the first one gives the
    /// suspended registrations up: a fresh slot is filled in their place.
    ///
    /// # Errors
    /// `unexpected_frame`, if it does not go on with an open snapshot or begin the only one.
    pub fn snapshot(&mut self, first: bool, last: bool, version: u64) -> Result<Filled, Violation> {
        let kind = Kind::SNAPSHOT;
        match (self.phase, first) {
            (Phase::Empty | Phase::Resuming { moved: false }, true) => self.version = version,
            (Phase::Filling, false) if version == self.version => {}
            (Phase::Filling, false) => {
                let what = Breach::Due("version of SNAPSHOT", version, self.version);
                let code = ErrorCode::UNEXPECTED_FRAME;
                return Err(Violation { code, kind, reference: version, what });
            }
            (Phase::Filling, true) => {
                return Err(unexpected(kind, version, "FIRST came while a snapshot is open"));
            }
            (Phase::Resuming { moved: true }, true) => {
                return Err(unexpected(kind, version, "FIRST came after a delta of a resume"));
            }
            (Phase::Live | Phase::Suspended, true) => {
                return Err(unexpected(kind, version, "FIRST came after a snapshot has ended"));
            }
            (_, false) => {
                return Err(unexpected(kind, version, "no snapshot is open to go on with"));
            }
        }
        self.phase = if last { Phase::Live } else { Phase::Filling };
        Ok(if last { Filled::Complete } else { Filled::More })
    }

    /// A DELTA came (REG-3, RES-5).
    ///
    /// # Errors
    /// `unexpected_frame` before the first snapshot has ended and after SUSPEND, `version_gap` if
    /// its version is not one above the last.
    pub fn delta(&mut self, version: u64) -> Result<(), Violation> {
        let kind = Kind::DELTA;
        match self.phase {
            Phase::Live | Phase::Resuming { .. } => {}
            Phase::Suspended => {
                return Err(unexpected(kind, version, "DELTA came after SUSPEND"));
            }
            Phase::Empty | Phase::Filling => {
                return Err(unexpected(kind, version, "DELTA came before a snapshot has ended"));
            }
        }
        self.advance(kind, "version of DELTA", version)
    }

    /// A TAG_DELTA came on a link that agreed on `tags` (TAG-4, TAG-5). Within a snapshot it says
    /// which tags go live with it.
    ///
    /// # Errors
    /// `unexpected_frame` before the first snapshot has begun, after SUSPEND, and within a snapshot
    /// with another version or an op `remove`; `version_gap` if its version is not one above the
    /// last.
    pub fn tag_delta(&mut self, frame: &TagDelta<'_>) -> Result<(), Violation> {
        let (kind, version) = (Kind::TAG_DELTA, frame.version);
        match self.phase {
            Phase::Live | Phase::Resuming { .. } => {
                self.advance(kind, "version of TAG_DELTA", version)
            }
            Phase::Filling if version != self.version => {
                let what = Breach::Due("version of TAG_DELTA", version, self.version);
                let code = ErrorCode::UNEXPECTED_FRAME;
                Err(Violation { code, kind, reference: version, what })
            }
            Phase::Filling if frame.tag_records.iter().any(|record| record.op != Op::ADD) => {
                Err(unexpected(kind, version, "a snapshot has no tag to remove"))
            }
            Phase::Filling => Ok(()),
            Phase::Suspended => Err(unexpected(kind, version, "TAG_DELTA came after SUSPEND")),
            Phase::Empty => Err(unexpected(kind, version, "TAG_DELTA came before a snapshot")),
        }
    }

    /// The version after this one is in effect.
    fn advance(&mut self, kind: Kind, field: &'static str, version: u64) -> Result<(), Violation> {
        if self.version.checked_add(1) != Some(version) {
            return Err(gap(kind, field, version, self.version.saturating_add(1)));
        }
        self.version = version;
        if let Phase::Resuming { moved } = &mut self.phase {
            *moved = true;
        }
        Ok(())
    }

    /// A BARRIER came, and `digest` is that of what the broker has (REG-5).
    ///
    /// # Errors
    /// `unexpected_frame` within a snapshot or a resume and after SUSPEND, `version_gap` for
    /// another version than the last one, `digest_mismatch` if the gateway has declared something
    /// else than the broker has.
    pub fn barrier(&self, version: u64, declared: u64, digest: u64) -> Result<(), Violation> {
        let kind = Kind::BARRIER;
        let words = match self.phase {
            Phase::Filling => Some("BARRIER came while a snapshot is open"),
            Phase::Resuming { .. } => Some("BARRIER came before RESUME"),
            Phase::Suspended => Some("BARRIER came after SUSPEND"),
            Phase::Empty | Phase::Live => None,
        };
        if let Some(words) = words {
            return Err(unexpected(kind, version, words));
        }
        if version != self.version {
            return Err(gap(kind, "version of BARRIER", version, self.version));
        }
        agree(kind, version, declared, digest)
    }

    /// RESUME came for `session`, which this link goes on with, and `digest` is that of what the
    /// broker has (RES-7). If it is right the slot goes live and IN_EFFECT is due.
    ///
    /// # Errors
    /// `unexpected_frame` on a link that resumes nothing or another session, `version_gap` for
    /// another version than the last one, `digest_mismatch` if the gateway has declared something
    /// else than the broker has: the slot must die then.
    pub fn resume(&mut self, frame: &Resume, session: u64, digest: u64) -> Result<(), Violation> {
        let (kind, version) = (Kind::RESUME, frame.version);
        if !self.is_resuming() {
            return Err(unexpected(kind, version, "RESUME came and nothing is being resumed"));
        }
        if frame.session != session {
            return Err(unexpected(kind, version, "RESUME names another session"));
        }
        if version != self.version {
            return Err(gap(kind, "version of RESUME", version, self.version));
        }
        agree(kind, version, frame.digest, digest)?;
        self.phase = Phase::Live;
        Ok(())
    }

    /// SUSPEND came: nothing more may be declared on this link (RES-10).
    ///
    /// # Errors
    /// `unexpected_frame` unless the slot is live.
    pub fn suspend(&mut self) -> Result<(), Violation> {
        if !self.is_live() {
            return Err(unexpected(Kind::SUSPEND, 0, "SUSPEND came and the slot is not live"));
        }
        self.phase = Phase::Suspended;
        Ok(())
    }
}

fn agree(kind: Kind, version: u64, declared: u64, digest: u64) -> Result<(), Violation> {
    if declared != digest {
        let what = Breach::Due("digest", declared, digest);
        let code = ErrorCode::DIGEST_MISMATCH;
        return Err(Violation { code, kind, reference: version, what });
    }
    Ok(())
}

fn unexpected(kind: Kind, reference: u64, words: &'static str) -> Violation {
    let what = Breach::Words(words);
    Violation { code: ErrorCode::UNEXPECTED_FRAME, kind, reference, what }
}

fn gap(kind: Kind, field: &'static str, version: u64, due: u64) -> Violation {
    let what = Breach::Due(field, version, due);
    Violation { code: ErrorCode::VERSION_GAP, kind, reference: version, what }
}

//! What was told since the last version the broker is known to hold: enough to go on with a
//! suspended session from whatever version it had reached.
//!
//! Invariant: with a base, `deltas` holds every version after it, dense and rising; `records` is
//! the sum of theirs and at most [`RECORDS_KEPT_MAX`].

use std::collections::VecDeque;

use waybill_wire::frame::Record;

use super::tags::TagUpdate;

/// Records of deltas that are kept until the broker confirms them: 24 bytes each if they are
/// registrations, 32 and a text of at most 80 if tags, so 7 MiB at most. A gateway that is further
/// ahead of its broker than that sends a snapshot after an outage instead.
const RECORDS_KEPT_MAX: usize = 1 << 16;

/// A version and the digest of everything up to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    version: u64,
    digest: u64,
}

/// A DELTA or TAG_DELTA that was told.
#[derive(Debug)]
struct Told {
    point: Point,
    records: Kind,
}

#[derive(Debug)]
enum Kind {
    Registrations(Box<[Record]>),
    Tags(Box<[TagUpdate]>),
}

/// A record that the broker does not hold.
#[derive(Clone, Copy, Debug)]
pub(super) enum Undone<'a> {
    Registration(&'a Record),
    Tag(&'a TagUpdate),
}

/// The memory of one session.
#[derive(Debug, Default)]
pub(super) struct History {
    base: Option<Point>,
    deltas: VecDeque<Told>,
    records: usize,
    /// Versions up to here are not remembered: a base has to be this one or later.
    forgotten: u64,
}

impl History {
    /// A new session: nothing to go on from.
    pub(super) fn restart(&mut self) {
        *self = Self { forgotten: u64::MAX, ..Self::default() };
    }

    /// Whether there is a version to go on from.
    pub(super) fn is_useful(&self) -> bool {
        self.base.is_some()
    }

    /// The last frame of the snapshot was told.
    pub(super) fn snapshot(&mut self, version: u64, digest: u64) {
        self.base = Some(Point { version, digest });
        self.forgotten = version;
    }

    /// A DELTA was told.
    pub(super) fn delta(&mut self, version: u64, digest: u64, records: &[Record]) {
        self.told(version, digest, Kind::Registrations(records.into()));
    }

    /// A TAG_DELTA was told.
    pub(super) fn tag_delta(&mut self, version: u64, digest: u64, records: &[TagUpdate]) {
        self.told(version, digest, Kind::Tags(records.into()));
    }

    fn told(&mut self, version: u64, digest: u64, records: Kind) {
        self.records += records.len();
        if self.records > RECORDS_KEPT_MAX {
            self.base = None;
            self.deltas.clear();
            self.records = 0;
            self.forgotten = version;
            return;
        }
        let point = Point { version, digest };
        self.deltas.push_back(Told { point, records });
    }

    /// The broker confirmed this version: nothing before it will be asked for.
    pub(super) fn confirmed(&mut self, version: u64, digest: u64) {
        if version < self.forgotten {
            return;
        }
        while let Some(told) = self.deltas.pop_front_if(|told| told.point.version <= version) {
            self.records -= told.records.len();
        }
        self.base = Some(Point { version, digest });
    }

    /// Goes back to this version: calls `undo` for each record told since, the last one first. Says
    /// whether that was possible; if not, nothing was undone.
    pub(super) fn rewind(
        &mut self,
        version: u64,
        digest: u64,
        mut undo: impl FnMut(Undone<'_>),
    ) -> bool {
        let point = Point { version, digest };
        let known = self.base == Some(point)
            || (self.base.is_some() && self.deltas.iter().any(|told| told.point == point));
        if !known {
            return false;
        }
        while let Some(told) = self.deltas.pop_back_if(|told| told.point.version > version) {
            self.records -= told.records.len();
            match &told.records {
                Kind::Registrations(records) => {
                    records.iter().rev().for_each(|record| undo(Undone::Registration(record)));
                }
                Kind::Tags(records) => {
                    records.iter().rev().for_each(|record| undo(Undone::Tag(record)));
                }
            }
        }
        true
    }
}

impl Kind {
    fn len(&self) -> usize {
        match self {
            Self::Registrations(records) => records.len(),
            Self::Tags(records) => records.len(),
        }
    }
}

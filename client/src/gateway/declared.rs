//! What a gateway has declared, and which part of it the broker of the present link has been told.
//!
//! A snapshot is not a copy: a cursor walks the ordered set while it keeps changing. A change ahead
//! of the cursor will be met by it; a change behind it is kept as a delta. So one set and the few
//! changes of the moment are all the memory there is, however large the gateway.
//!
//! Invariant: told = declared behind the cursor - `adds` + `removes`; the digest is that of told.

use std::collections::BTreeSet;
use std::ops::Bound;

use waybill_wire::code::Op;
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::Record;
use waybill_wire::limits::RECORDS_MAX;

use super::history::History;

/// One login of one user at this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Registration {
    /// The tenant.
    pub namespace: u32,
    /// The user.
    pub uid: u64,
    /// Class of device, for policies of one login per class.
    pub device_class: u8,
    /// Login number, 0 = none.
    pub login: u64,
}

impl Registration {
    /// As the digest takes it.
    fn registered(&self) -> Registered {
        let Self { namespace, uid, device_class, login } = *self;
        Registered { namespace, uid, device_class, login }
    }

    fn from_record(record: &Record) -> Self {
        let Record { uid, login, namespace, device_class, .. } = *record;
        Self { namespace, uid, device_class, login }
    }

    /// As it goes on the wire.
    fn record(&self, op: Op) -> Record {
        let Self { namespace, uid, device_class, login } = *self;
        Record { uid, login, namespace, op, device_class }
    }
}

/// A registration that comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Add or remove; anything else changes nothing.
    pub op: Op,
    /// Which.
    pub registration: Registration,
}

impl Change {
    /// It comes.
    #[must_use]
    pub fn add(registration: Registration) -> Self {
        Self { op: Op::ADD, registration }
    }

    /// It goes.
    #[must_use]
    pub fn remove(registration: Registration) -> Self {
        Self { op: Op::REMOVE, registration }
    }
}

/// The declared set, and where the telling stands.
#[derive(Debug, Default)]
pub(super) struct Declared {
    registrations: BTreeSet<Registration>,
    /// Told neither nor forgotten: behind the cursor and declared, not yet told.
    adds: BTreeSet<Registration>,
    /// Behind the cursor, told, no longer declared.
    removes: BTreeSet<Registration>,
    cursor: Cursor,
    told: Digest,
}

/// How far the snapshot of this link has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Cursor {
    /// Nothing told yet.
    #[default]
    Start,
    /// Everything up to and with this one was looked at.
    Behind(Registration),
    /// The snapshot has ended: everything is behind.
    End,
}

/// The records of the next frame to tell the broker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Part of the snapshot.
    Snapshot { first: bool, last: bool },
    /// Changes since.
    Delta,
}

impl Declared {
    /// A new link: the broker knows nothing, the snapshot starts.
    pub(super) fn start(&mut self) {
        self.adds.clear();
        self.removes.clear();
        self.cursor = Cursor::Start;
        self.told = Digest::default();
    }

    /// The broker holds what it had been told up to this version: what came after counts as not
    /// told. Whether that is known; if not, nothing has changed.
    pub(super) fn rewind(&mut self, history: &mut History, version: u64, digest: u64) -> bool {
        history.rewind(version, digest, |record| {
            let registration = Registration::from_record(record);
            let (mended, noted) = match record.op {
                Op::ADD => {
                    self.told.remove(registration.registered());
                    (&mut self.removes, &mut self.adds)
                }
                _ => {
                    self.told.add(registration.registered());
                    (&mut self.adds, &mut self.removes)
                }
            };
            // Either it changed back meanwhile, or it has to be told again.
            if !mended.remove(&registration) {
                noted.insert(registration);
            }
        })
    }

    /// Whether the snapshot of this session has been told to its end.
    pub(super) fn is_past_snapshot(&self) -> bool {
        self.cursor == Cursor::End
    }

    /// Takes over one change. One that changes nothing is nothing.
    pub(super) fn apply(&mut self, change: Change) {
        let Change { op, registration } = change;
        let (mended, noted) = match op {
            Op::ADD if self.registrations.insert(registration) => {
                (&mut self.removes, &mut self.adds)
            }
            Op::REMOVE if self.registrations.remove(&registration) => {
                (&mut self.adds, &mut self.removes)
            }
            _ => return,
        };
        let behind = match self.cursor {
            Cursor::Start => false,
            Cursor::Behind(at) => registration <= at,
            Cursor::End => true,
        };
        if behind && !mended.remove(&registration) {
            noted.insert(registration);
        }
    }

    /// Whether the broker has been told everything.
    pub(super) fn is_told(&self) -> bool {
        self.cursor == Cursor::End && self.adds.is_empty() && self.removes.is_empty()
    }

    /// Digest of what the broker has been told on this link.
    pub(super) fn digest(&self) -> u64 {
        self.told.value()
    }

    /// Fills `records` with what goes into the next frame, or says that all is told.
    ///
    /// Additions go before removals: a user whose login number changes is never without a route.
    pub(super) fn next_batch(&mut self, records: &mut Vec<Record>) -> Option<Batch> {
        records.clear();
        if self.cursor != Cursor::End {
            return Some(self.next_part(records));
        }
        while records.len() < RECORDS_MAX {
            let Some(registration) = self.adds.pop_first() else { break };
            self.tell(Op::ADD, registration, records);
        }
        while records.len() < RECORDS_MAX {
            let Some(registration) = self.removes.pop_first() else { break };
            self.tell(Op::REMOVE, registration, records);
        }
        (!records.is_empty()).then_some(Batch::Delta)
    }

    fn next_part(&mut self, records: &mut Vec<Record>) -> Batch {
        let (first, from) = match self.cursor {
            Cursor::Behind(at) => (false, Bound::Excluded(at)),
            Cursor::Start | Cursor::End => (true, Bound::Unbounded),
        };
        let mut rest = self.registrations.range((from, Bound::Unbounded));
        let mut at = None;
        for registration in rest.by_ref().take(RECORDS_MAX) {
            self.told.add(registration.registered());
            records.push(registration.record(Op::ADD));
            at = Some(*registration);
        }
        let last = rest.next().is_none();
        self.cursor = match at {
            Some(at) if !last => Cursor::Behind(at),
            _ => Cursor::End,
        };
        Batch::Snapshot { first, last }
    }

    fn tell(&mut self, op: Op, registration: Registration, records: &mut Vec<Record>) {
        match op {
            Op::ADD => self.told.add(registration.registered()),
            _ => self.told.remove(registration.registered()),
        }
        records.push(registration.record(op));
    }
}

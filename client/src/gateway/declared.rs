//! What a gateway has declared, and which part of it the broker of the present link has been told.
//!
//! A snapshot is not a copy: a cursor walks the ordered sets, registrations first, while they keep
//! changing. A change ahead of the cursor will be met by it; a change behind it is kept as a delta.
//! So one set of each and the few changes of the moment are all the memory there is, however large
//! the gateway.
//!
//! Tags are told where the link agreed on them; elsewhere they are kept, and have no part in what
//! is told, nor in its digest (DIG-3, TAG-7).
//!
//! Invariant: told = declared behind the cursor - `adds` + `removes`; the digest is that of told.

use std::collections::BTreeSet;
use std::ops::Bound;

use waybill_wire::code::Op;
use waybill_wire::digest::{Digest, Registered};
use waybill_wire::frame::Record;
use waybill_wire::limits::TAG_RECORDS_MAX;
use waybill_wire::selector::is_tag;

use super::history::{History, Undone};
use super::tags::{DeclaredTag, TagUpdate};

/// Registrations in one frame, of `records_max` there may be. A broker serves whole frames, and
/// messages wait for one meanwhile: 1.2 to 1.6 ms for one of 4,096, and an eighth of that for this.
const RECORDS_TOGETHER: usize = 512;

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

/// The declared sets, and where the telling stands.
#[derive(Debug, Default)]
pub(super) struct Declared {
    registrations: Kept<Registration>,
    tags: Kept<DeclaredTag>,
    /// Whether tags are told in this session, and how many the broker has been told.
    tells_tags: bool,
    tags_told: usize,
    cursor: Cursor,
    told: Digest,
}

/// A declared set, and what of its part behind the cursor is told otherwise.
#[derive(Debug)]
struct Kept<T> {
    all: BTreeSet<T>,
    /// Told neither nor forgotten: behind the cursor and declared, not yet told.
    adds: BTreeSet<T>,
    /// Behind the cursor, told, no longer declared.
    removes: BTreeSet<T>,
}

/// How far the snapshot of this link has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Cursor {
    /// Nothing told yet.
    #[default]
    Start,
    /// Every registration up to and with this one was looked at.
    Behind(Registration),
    /// All were, and every tag up to and with this one.
    Tags(Option<DeclaredTag>),
    /// The snapshot has ended: everything is behind.
    End,
}

/// What the next frame to tell the broker is made of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Batch {
    /// Registrations, part of the snapshot.
    Snapshot { first: bool, last: bool },
    /// Tags, part of the snapshot.
    SnapshotTags,
    /// Changes of registrations since.
    Delta,
    /// Changes of tags since.
    TagDelta,
}

/// Room for what goes into a frame; a batch is in the one or in the other.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) registrations: Vec<Record>,
    pub(super) tags: Vec<TagUpdate>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { all: BTreeSet::new(), adds: BTreeSet::new(), removes: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Kept<T> {
    fn restart(&mut self) {
        self.adds.clear();
        self.removes.clear();
    }

    /// Takes over one change; whether it changed anything.
    fn apply(&mut self, op: Op, item: &T) -> bool {
        match op {
            Op::ADD => self.all.insert(item.clone()),
            Op::REMOVE => self.all.remove(item),
            _ => false,
        }
    }

    /// It has to be told, unless it changes back what was to be.
    fn note(&mut self, op: Op, item: T) {
        let (mended, noted) = match op {
            Op::ADD => (&mut self.removes, &mut self.adds),
            _ => (&mut self.adds, &mut self.removes),
        };
        if !mended.remove(&item) {
            noted.insert(item);
        }
    }

    /// What has to be told next, additions before removals.
    fn pop(&mut self) -> Option<(Op, T)> {
        let add = self.adds.pop_first().map(|item| (Op::ADD, item));
        add.or_else(|| self.removes.pop_first().map(|item| (Op::REMOVE, item)))
    }

    fn after(&self, item: Option<&T>) -> std::collections::btree_set::Range<'_, T> {
        let from = item.map_or(Bound::Unbounded, Bound::Excluded);
        self.all.range((from, Bound::Unbounded))
    }

    fn is_told(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty()
    }
}

impl Declared {
    /// A new session: the broker knows nothing, the snapshot starts.
    pub(super) fn start(&mut self, tells_tags: bool) {
        self.registrations.restart();
        self.tags.restart();
        self.tells_tags = tells_tags;
        self.tags_told = 0;
        self.cursor = Cursor::Start;
        self.told = Digest::default();
    }

    /// The broker holds what it had been told up to this version: what came after counts as not
    /// told. Whether the session can go on from there; if not it has to [`start`](Self::start).
    pub(super) fn rewind(
        &mut self,
        history: &mut History,
        version: u64,
        digest: u64,
        tells_tags: bool,
    ) -> bool {
        let known = history.rewind(version, digest, |undone| match undone {
            Undone::Registration(record) => {
                let registration = Registration::from_record(record);
                match record.op {
                    Op::ADD => self.told.remove(registration.registered()),
                    _ => self.told.add(registration.registered()),
                }
                self.registrations.note(record.op, registration);
            }
            Undone::Tag(TagUpdate { op, tag }) => {
                let undo = if *op == Op::ADD { Op::REMOVE } else { Op::ADD };
                count(&mut self.told, &mut self.tags_told, undo, tag);
                self.tags.note(*op, tag.clone());
            }
        });
        if !known {
            return false;
        }
        match (self.tells_tags, tells_tags) {
            // The broker that took tags has some, and would have to forget them (TAG-8).
            (true, false) if self.tags_told > 0 => return false,
            (true, false) => self.tags.restart(),
            (false, true) => self.tags.adds.clone_from(&self.tags.all),
            _ => {}
        }
        self.tells_tags = tells_tags;
        true
    }

    /// Whether the snapshot of this session has been told to its end.
    pub(super) fn is_past_snapshot(&self) -> bool {
        self.cursor == Cursor::End
    }

    /// Takes over one change. One that changes nothing is nothing.
    pub(super) fn apply(&mut self, change: Change) {
        let Change { op, registration } = change;
        let behind = match &self.cursor {
            Cursor::Start => false,
            Cursor::Behind(at) => registration <= *at,
            Cursor::Tags(_) | Cursor::End => true,
        };
        if self.registrations.apply(op, &registration) && behind {
            self.registrations.note(op, registration);
        }
    }

    /// As [`apply`](Self::apply). What is no tag (TAG-1) can't be told and is not declared.
    pub(super) fn apply_tag(&mut self, update: TagUpdate) {
        let TagUpdate { op, tag } = update;
        if !is_tag(&tag.text) {
            tracing::error!(text = &*tag.text, "not a tag");
            return;
        }
        let behind = match &self.cursor {
            Cursor::Start | Cursor::Behind(_) => false,
            Cursor::Tags(at) => at.as_ref().is_some_and(|at| tag <= *at),
            Cursor::End => true,
        };
        if self.tags.apply(op, &tag) && behind && self.tells_tags {
            self.tags.note(op, tag);
        }
    }

    /// Whether the broker has been told everything.
    pub(super) fn is_told(&self) -> bool {
        self.cursor == Cursor::End && self.registrations.is_told() && self.tags.is_told()
    }

    /// Digest of what the broker has been told on this link.
    pub(super) fn digest(&self) -> u64 {
        self.told.value()
    }

    /// Fills `records` with what goes into the next frame, or says that all is told.
    ///
    /// Additions go before removals: a user whose login number changes is never without a route.
    pub(super) fn next_batch(&mut self, records: &mut Records) -> Option<Batch> {
        records.registrations.clear();
        records.tags.clear();
        match &self.cursor {
            Cursor::Start => return Some(self.next_part(None, records)),
            Cursor::Behind(at) => return Some(self.next_part(Some(*at), records)),
            Cursor::Tags(at) => {
                let at = at.clone();
                return Some(self.next_tags(at.as_ref(), records));
            }
            Cursor::End => {}
        }
        while records.registrations.len() < RECORDS_TOGETHER {
            let Some((op, registration)) = self.registrations.pop() else { break };
            match op {
                Op::ADD => self.told.add(registration.registered()),
                _ => self.told.remove(registration.registered()),
            }
            records.registrations.push(registration.record(op));
        }
        if !records.registrations.is_empty() {
            return Some(Batch::Delta);
        }
        while records.tags.len() < TAG_RECORDS_MAX {
            let Some((op, tag)) = self.tags.pop() else { break };
            count(&mut self.told, &mut self.tags_told, op, &tag);
            records.tags.push(TagUpdate { op, tag });
        }
        (!records.tags.is_empty()).then_some(Batch::TagDelta)
    }

    /// The registrations after this one. Tags come after all of them, before an empty frame that
    /// ends the snapshot (TAG-5).
    fn next_part(&mut self, after: Option<Registration>, records: &mut Records) -> Batch {
        let mut rest = self.registrations.after(after.as_ref());
        let mut at = after;
        for registration in rest.by_ref().take(RECORDS_TOGETHER) {
            self.told.add(registration.registered());
            records.registrations.push(registration.record(Op::ADD));
            at = Some(*registration);
        }
        let ended = rest.next().is_none();
        let tags = self.tells_tags && !self.tags.all.is_empty();
        self.cursor = match at {
            Some(at) if !ended => Cursor::Behind(at),
            _ if tags => Cursor::Tags(None),
            _ => Cursor::End,
        };
        Batch::Snapshot { first: after.is_none(), last: ended && !tags }
    }

    /// The tags after this one, or the end of the snapshot.
    fn next_tags(&mut self, after: Option<&DeclaredTag>, records: &mut Records) -> Batch {
        for tag in self.tags.after(after).take(TAG_RECORDS_MAX) {
            count(&mut self.told, &mut self.tags_told, Op::ADD, tag);
            records.tags.push(TagUpdate::add(tag.clone()));
        }
        match records.tags.last() {
            Some(last) => {
                self.cursor = Cursor::Tags(Some(last.tag.clone()));
                Batch::SnapshotTags
            }
            None => {
                self.cursor = Cursor::End;
                Batch::Snapshot { first: false, last: true }
            }
        }
    }
}

/// The broker is told a change of a tag.
fn count(told: &mut Digest, tags: &mut usize, op: Op, tag: &DeclaredTag) {
    match op {
        Op::ADD => {
            told.add_tag(tag.namespace, &tag.text);
            *tags += 1;
        }
        _ => {
            told.remove_tag(tag.namespace, &tag.text);
            *tags -= 1;
        }
    }
}

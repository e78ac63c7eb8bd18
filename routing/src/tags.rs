//! (namespace, tag) -> the slots that declared it, shared by all shards: readers never wait.
//!
//! The highest bits of a tag's keyed hash choose a part, the lowest ones a bucket in it. A change
//! copies one bucket, some twenty tags, and puts the copy in its place; a part that has many tags
//! for its buckets is built anew with twice as many. So nothing larger than a part is ever copied,
//! and what is read is a bucket as it was at one moment.
//!
//! Measured against crates, 10^7 tags at one gateway each, bytes a tag and ns of a look-up that
//! misses the caches: this one 25 and 870, with the text; `scc::HashIndex` 60 and 610, `papaya` 63
//! and 4,500, with 128 bits of hash for it. With locks, so that readers wait: `hashbrown` in 4,096
//! shards 61 and 530. None of them can be swept from where the last portion ended.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use triomphe::ThinArc;
use waybill_wire::digest::mix;

use crate::Namespace;
use crate::sync::{ArcSwapAny, Mutex, MutexGuard, own_value, size};

mod bucket;
mod declare;
#[cfg(all(test, loom))]
mod orders;
mod set;

use bucket::{Bucket, Bytes, Key, Record};

/// Tags for a bucket, on average, beyond which a part gets twice as many buckets.
const CROWDED: usize = size(24, 24, 1);

/// Tags a part has if there are as many as there may be: what is built anew at a time.
const PART_TAGS: usize = 4_096;

/// What a sweep takes for each tag that it looks at, where a bucket of routes takes 1.
const TAG_STEPS: usize = 3;

/// Most parts.
const PARTS_MAX: usize = 1 << 12;

/// Every tag that is kept.
#[derive(Debug)]
pub(crate) struct TagIndex {
    key: u64,
    /// None before the first tag: a broker without tags, of which model checkers make many, has
    /// no memory for them.
    parts: OnceLock<Box<[Part]>>,
    /// Different tags.
    tags: AtomicUsize,
    /// The most there may be of them.
    max: usize,
}

/// A bucket that is replaced as a whole. Readers see the old one or the new one and never wait.
type Place = ArcSwapAny<Option<Bytes>>;

type Buckets = ThinArc<(), Place>;

#[derive(Debug, Default)]
struct Part {
    /// A power of two of them; none before the first tag.
    buckets: ArcSwapAny<Option<Buckets>>,
    writing: Mutex<Writing>,
}

/// What whoever changes a part has.
#[derive(Debug, Default)]
struct Writing {
    /// Different tags of the part.
    tags: usize,
    /// Working space, empty between two changes.
    slots: Vec<u16>,
    record: Vec<u8>,
    bytes: Vec<u8>,
}

/// What became of a tag that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The slot has it now.
    New,
    /// The slot had it.
    Already,
    /// It is one more tag than there may be.
    NoRoom,
}

/// How far a sweep came: a part and a bucket in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cursor {
    part: usize,
    bucket: usize,
    /// Buckets of that part: if it has others now, it is looked at from its beginning.
    of: usize,
}

impl TagIndex {
    /// An empty index for `max` different tags. `key` is to be drawn at random, so that nobody
    /// knows it.
    pub(crate) fn new(key: u64, max: usize) -> Self {
        Self { key, parts: OnceLock::new(), tags: AtomicUsize::new(0), max }
    }

    /// The same again, while nobody changes anything.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(self.key, self.max);
        for (namespace, tag, slot) in self.all() {
            copy.add(namespace, &tag, slot);
        }
        copy
    }

    /// Different tags, those of dead slots included until they are swept.
    pub(crate) fn tags(&self) -> usize {
        self.tags.load(Ordering::Acquire)
    }

    /// Gives a slot a tag.
    pub(crate) fn add(&self, namespace: Namespace, tag: &str, slot: u16) -> Added {
        let key = self.key(namespace, tag);
        let make = || (0..self.parts_in_all()).map(|_| Part::default()).collect();
        let part = part(self.parts.get_or_init(make), key.hash);
        let mut writing = part.lock();
        let buckets = part.buckets_for_one_more(&writing, self.key);
        let place = of(&buckets, key);
        let old = own_value(place);
        let old = view(&old);
        let Writing { tags, slots, record, bytes } = &mut *writing;
        record.clear();
        match old.find(key) {
            Some((_, set)) if set.contains(slot) => return Added::Already,
            Some((at, set)) => {
                slots.clear();
                set.list(slots);
                slots.push(slot);
                Record::write(namespace, key.text, slots, record);
                old.replaced(at, record, bytes);
            }
            None => {
                let fits = |tags: usize| (tags < self.max).then_some(tags + 1);
                let room = self.tags.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
                if room.is_err() {
                    return Added::NoRoom;
                }
                *tags += 1;
                Record::write(namespace, key.text, &[slot], record);
                old.with(key, record, bytes);
            }
        }
        place.store(shared(bytes));
        Added::New
    }

    /// Takes a tag from a slot; whether it had it.
    pub(crate) fn remove(&self, namespace: Namespace, tag: &str, slot: u16) -> bool {
        let key = self.key(namespace, tag);
        let Some(part) = self.part(key.hash) else { return false };
        let mut writing = part.lock();
        let Some(buckets) = own_value(&part.buckets) else { return false };
        let place = of(&buckets, key);
        let old = own_value(place);
        let old = view(&old);
        let Some((at, set)) = old.find(key).filter(|(_, set)| set.contains(slot)) else {
            return false;
        };
        let Writing { tags, slots, record, bytes } = &mut *writing;
        slots.clear();
        set.list(slots);
        slots.retain(|there| *there != slot);
        if slots.is_empty() {
            *tags -= 1;
            self.tags.fetch_sub(1, Ordering::AcqRel);
            old.without(at, bytes);
        } else {
            record.clear();
            Record::write(namespace, key.text, slots, record);
            old.replaced(at, record, bytes);
        }
        place.store(shared(bytes));
        true
    }

    /// Tells words of 64 slots and the bits of those that have the tag, dead ones included; a word
    /// may be told in several pieces.
    #[inline]
    pub(crate) fn find(&self, namespace: Namespace, tag: &str, told: impl FnMut(usize, u64)) {
        let key = self.key(namespace, tag);
        let Some(part) = self.part(key.hash) else { return };
        let buckets = part.buckets.load();
        let Some(buckets) = &*buckets else { return };
        let bytes = of(buckets, key).load();
        if let Some((_, set)) = view(&bytes).find(key) {
            set.words(told);
        }
    }

    /// Whether a slot has a tag.
    pub(crate) fn has(&self, namespace: Namespace, tag: &str, slot: u16) -> bool {
        let mut has = false;
        self.find(namespace, tag, |word, bits| {
            has |= word == usize::from(slot / 64) && bits >> (slot % 64) & 1 != 0;
        });
        has
    }

    /// Takes the tags of dead slots out of the buckets from a place on, as many as `budget` lasts
    /// for, of which each takes some for each of its tags; tells `removed` the slot of each, and
    /// returns where to go on, or `None` at the end. What one call
    /// did not look at may grow, but no dead slot gets more.
    pub(crate) fn sweep(
        &self,
        mut at: Cursor,
        budget: &mut usize,
        is_dead: impl Fn(u16) -> bool,
        mut removed: impl FnMut(u16),
    ) -> Option<Cursor> {
        while *budget > 0 {
            let part = self.parts().get(at.part)?;
            let mut writing = part.lock();
            let buckets = part.buckets.load();
            let buckets = buckets.as_ref().map_or(&[][..], |buckets| &buckets.slice);
            let len = buckets.len();
            if at.of != len {
                (at.bucket, at.of) = (0, len);
            }
            *budget -= 1;
            while at.bucket < len && *budget > 0 {
                let place = &buckets[at.bucket];
                let tags = view(&place.load()).len();
                let gone = writing.sweep(place, &is_dead, &mut removed);
                self.tags.fetch_sub(gone, Ordering::AcqRel);
                *budget = budget.saturating_sub(1 + TAG_STEPS * tags);
                at.bucket += 1;
            }
            if at.bucket == len {
                at = Cursor { part: at.part + 1, ..Cursor::default() };
            }
        }
        (at.part < self.parts().len()).then_some(at)
    }

    /// Every tag of every slot, in no order.
    pub(crate) fn all(&self) -> Vec<(Namespace, String, u16)> {
        let mut all = Vec::new();
        let mut slots = Vec::new();
        for part in self.parts() {
            let buckets = part.buckets.load();
            for place in buckets.iter().flat_map(|buckets| &buckets.slice) {
                for record in view(&place.load()).all() {
                    slots.clear();
                    record.set.list(&mut slots);
                    let text = String::from_utf8(record.text.into()).expect("it was a str");
                    all.extend(slots.iter().map(|slot| (record.namespace, text.clone(), *slot)));
                }
            }
        }
        all
    }

    /// Panics unless the index is consistent; how many tags each slot has.
    pub(crate) fn invariants(&self) -> BTreeMap<u16, usize> {
        let mut held: BTreeMap<u16, usize> = BTreeMap::new();
        let mut all = self.all();
        let pairs = all.len();
        all.iter().for_each(|(_, _, slot)| *held.entry(*slot).or_default() += 1);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), pairs, "a slot has a tag once");
        all.dedup_by(|a, b| (a.0, &a.1) == (b.0, &b.1));
        assert_eq!(all.len(), self.tags());
        let in_parts = self.parts().iter().map(|part| part.lock().tags);
        assert_eq!(all.len(), in_parts.sum::<usize>());
        held
    }

    fn key<'a>(&self, namespace: Namespace, tag: &'a str) -> Key<'a> {
        let text = tag.as_bytes();
        Key { hash: hash(self.key, namespace, text), namespace, text }
    }

    /// Parts there are with the first tag.
    fn parts_in_all(&self) -> usize {
        self.max.div_ceil(PART_TAGS).next_power_of_two().clamp(1, PARTS_MAX)
    }

    fn parts(&self) -> &[Part] {
        self.parts.get().map_or(&[], |parts| parts)
    }

    /// Where a tag is, if any is anywhere.
    fn part(&self, hash: u64) -> Option<&Part> {
        self.parts.get().map(|parts| part(parts, hash))
    }
}

impl Part {
    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().expect("no invariant broke in an earlier call")
    }

    /// The buckets, twice as many as before if they are crowded.
    fn buckets_for_one_more(&self, writing: &Writing, key: u64) -> Buckets {
        let buckets = match own_value(&self.buckets) {
            Some(buckets) if writing.tags < CROWDED * buckets.slice.len() => return buckets,
            Some(crowded) => doubled(&crowded.slice, key),
            None => ThinArc::from_header_and_iter((), std::iter::once(Place::default())),
        };
        self.buckets.store(Some(buckets.clone()));
        buckets
    }
}

/// The part that the highest bits of a hash choose.
fn part(parts: &[Part], hash: u64) -> &Part {
    &parts[low_bits(hash.rotate_left(parts.len().ilog2()), parts.len())]
}

/// The lowest bits of a hash, as an index of one of `len` things, a power of two.
#[inline]
fn low_bits(hash: u64, len: usize) -> usize {
    let bits = hash & (len as u64 - 1);
    usize::try_from(bits).expect("it is below a usize")
}

/// The place where a tag lies.
fn of<'a>(buckets: &'a Buckets, key: Key<'_>) -> &'a Place {
    &buckets.slice[low_bits(key.hash, buckets.slice.len())]
}

/// What bytes say; none are an empty bucket.
fn view(bytes: &Option<Bytes>) -> Bucket<'_> {
    Bucket(bytes.as_ref().map_or(&[], |bytes| &bytes.slice))
}

/// Bytes for readers to see; an empty bucket needs none.
fn shared(bytes: &[u8]) -> Option<Bytes> {
    (Bucket(bytes).len() > 0).then(|| ThinArc::from_header_and_slice((), bytes))
}

/// Twice as many buckets: the next bit of a tag's hash says whether it moves.
fn doubled(buckets: &[Place], key: u64) -> Buckets {
    let mut places: Vec<Place> = Vec::with_capacity(2 * buckets.len());
    let mut bytes = Vec::new();
    for moving in [false, true] {
        for place in buckets {
            let old = own_value(place);
            let old = view(&old);
            let moves = |record: &Record<'_>| {
                let hash = hash(key, record.namespace, record.text);
                low_bits(hash, 2 * buckets.len()) >= buckets.len()
            };
            let here = old.records().zip(old.all()).filter(|(_, record)| moves(record) == moving);
            let here: Vec<(u8, &[u8])> = here.map(|(bytes, _)| bytes).collect();
            bucket::write(&here, &mut bytes);
            places.push(Place::new(shared(&bytes)));
        }
    }
    ThinArc::from_header_and_iter((), places.into_iter())
}

impl Writing {
    /// Takes dead slots out of a bucket; how many tags are gone with them.
    fn sweep(
        &mut self,
        place: &Place,
        is_dead: impl Fn(u16) -> bool,
        removed: &mut impl FnMut(u16),
    ) -> usize {
        let old = own_value(place);
        let bucket = view(&old);
        let mut gone = 0;
        let mut left: Vec<(u8, Cow<'_, [u8]>)> = Vec::new();
        let mut hit = false;
        for ((mark, bytes), record) in bucket.records().zip(bucket.all()) {
            self.slots.clear();
            record.set.list(&mut self.slots);
            let before = self.slots.len();
            self.slots.retain(|slot| {
                let dead = is_dead(*slot);
                if dead {
                    removed(*slot);
                }
                !dead
            });
            hit |= self.slots.len() < before;
            if self.slots.len() == before {
                left.push((mark, bytes.into()));
            } else if self.slots.is_empty() {
                gone += 1;
            } else {
                let mut bytes = Vec::new();
                Record::write(record.namespace, record.text, &self.slots, &mut bytes);
                left.push((mark, bytes.into()));
            }
        }
        if hit {
            bucket::write(&left, &mut self.bytes);
            place.store(shared(&self.bytes));
        }
        self.tags -= gone;
        gone
    }
}

/// Keyed: who does not know the key can't choose tags that lie in one place.
#[inline]
fn hash(key: u64, namespace: Namespace, text: &[u8]) -> u64 {
    let begin = mix(key ^ (u64::from(namespace.0) << 8 | text.len() as u64));
    let (words, rest) = text.as_chunks();
    let hash = words.iter().fold(begin, |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix((hash ^ u64::from_le_bytes(last)).wrapping_add(key.rotate_left(32)))
}

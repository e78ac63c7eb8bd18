//! A few tags and their slots in one string of bytes, which is never changed: a change makes
//! another one. Tags are of many tenants, and most are short and of one gateway: so a tag takes its
//! text and seven bytes.
//!
//! Layout: the number of tags (u16), a byte of each one's hash, the length of each one's record
//! (u16), the records. A record: the length of the text (7 bits) and whether the slots are a bitmap
//! (1 bit), the namespace (a byte, or 255 and four bytes), the text, the slots.

use std::ops::Range;

use triomphe::ThinArc;

use super::set::{self, Set};
use crate::Namespace;

/// A tag and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key<'a> {
    pub(super) hash: u64,
    pub(super) namespace: Namespace,
    pub(super) text: &'a [u8],
}

impl Key<'_> {
    /// The byte that stands for it where tags are told apart quickly. None of the bits that choose
    /// a bucket.
    fn mark(self) -> u8 {
        let [.., mark, _, _] = self.hash.to_le_bytes();
        mark
    }
}

/// The bytes, shared by who reads them: one allocation with its count of readers and its length.
pub(super) type Bytes = ThinArc<(), u8>;

/// What they say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<'a>(pub(super) &'a [u8]);

/// A tag as it lies there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) namespace: Namespace,
    pub(super) text: &'a [u8],
    pub(super) set: Set<'a>,
}

/// In the first byte of a record: its slots are a bitmap.
const MANY: u8 = 0x80;

/// In the second byte: the namespace follows in four.
const LONG: u8 = u8::MAX;

const COUNT: usize = 2;

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let (namespace, rest) = match bytes[1] {
            LONG => {
                let (number, rest) = bytes[2..].split_first_chunk().expect("it is written so");
                (u32::from_le_bytes(*number), rest)
            }
            short => (u32::from(short), &bytes[2..]),
        };
        let (text, set) = rest.split_at(usize::from(bytes[0] & !MANY));
        let namespace = Namespace(namespace);
        Self { namespace, text, set: Set::read(set, bytes[0] & MANY != 0) }
    }

    /// Appends a record with these slots.
    pub(super) fn write(namespace: Namespace, text: &[u8], slots: &[u16], bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.push(u8::try_from(text.len()).expect("a tag has at most 64 bytes"));
        match u8::try_from(namespace.0) {
            Ok(short) if short != LONG => bytes.push(short),
            _ => {
                bytes.push(LONG);
                bytes.extend(namespace.0.to_le_bytes());
            }
        }
        bytes.extend(text);
        if set::write(slots, bytes) {
            bytes[start] |= MANY;
        }
    }
}

/// Overwrites `bytes` with a bucket of these records, each with the mark of its key.
pub(super) fn write<R: AsRef<[u8]>>(records: &[(u8, R)], bytes: &mut Vec<u8>) {
    bytes.clear();
    let count = u16::try_from(records.len()).expect("a part gets more buckets long before");
    bytes.extend(count.to_le_bytes());
    bytes.extend(records.iter().map(|(mark, _)| mark));
    bytes.extend(records.iter().flat_map(|(_, record)| length(record.as_ref())));
    records.iter().for_each(|(_, record)| bytes.extend(record.as_ref()));
}

impl<'a> Bucket<'a> {
    /// How many tags it has.
    pub(super) fn len(self) -> usize {
        let [low, high, ..] = *self.0 else { return 0 };
        usize::from(u16::from_le_bytes([low, high]))
    }

    fn marks(self) -> &'a [u8] {
        self.0.get(COUNT..COUNT + self.len()).unwrap_or_default()
    }

    fn lengths(self) -> &'a [[u8; 2]] {
        let len = self.len();
        self.0.get(COUNT + len..COUNT + 3 * len).unwrap_or_default().as_chunks().0
    }

    fn bodies(self) -> &'a [u8] {
        self.0.get(COUNT + 3 * self.len()..).unwrap_or_default()
    }

    /// The bytes of each record with its mark, in order.
    pub(super) fn records(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = self.bodies();
        self.marks().iter().zip(self.lengths()).map(move |(mark, length)| {
            let (record, behind) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
            rest = behind;
            (*mark, record)
        })
    }

    /// What lies there, in order.
    pub(super) fn all(self) -> impl Iterator<Item = Record<'a>> {
        self.records().map(|(_, record)| Record::read(record))
    }

    /// The tag's place and slots.
    #[inline]
    pub(super) fn find(self, key: Key<'_>) -> Option<(usize, Set<'a>)> {
        let mark = key.mark();
        let mut alike = self.marks().iter().enumerate().filter(|(_, there)| **there == mark);
        alike.find_map(|(at, _)| {
            let Range { start, end } = self.place(at);
            let record = Record::read(&self.bodies()[start..end]);
            let same = record.text == key.text && record.namespace == key.namespace;
            same.then_some((at, record.set))
        })
    }

    /// Overwrites `bytes` with the same and another record behind the others.
    pub(super) fn with(self, key: Key<'_>, record: &[u8], bytes: &mut Vec<u8>) {
        bytes.clear();
        let count = u16::try_from(self.len() + 1).expect("a part gets more buckets long before");
        bytes.extend(count.to_le_bytes());
        bytes.extend(self.marks());
        bytes.push(key.mark());
        bytes.extend(self.lengths().as_flattened());
        bytes.extend(length(record));
        bytes.extend(self.bodies());
        bytes.extend(record);
    }

    /// Overwrites `bytes` with the same and other bytes for the record at a place.
    pub(super) fn replaced(self, at: usize, record: &[u8], bytes: &mut Vec<u8>) {
        let Range { start, end } = self.place(at);
        let lengths = COUNT + self.len();
        bytes.clear();
        bytes.extend(&self.0[..lengths + 2 * at]);
        bytes.extend(length(record));
        bytes.extend(self.lengths()[at + 1..].as_flattened());
        bytes.extend(&self.bodies()[..start]);
        bytes.extend(record);
        bytes.extend(&self.bodies()[end..]);
    }

    /// Overwrites `bytes` with the same without the record at a place.
    pub(super) fn without(self, at: usize, bytes: &mut Vec<u8>) {
        let Range { start, end } = self.place(at);
        let count = u16::try_from(self.len() - 1).expect("it was one more");
        bytes.clear();
        bytes.extend(count.to_le_bytes());
        bytes.extend(&self.marks()[..at]);
        bytes.extend(&self.marks()[at + 1..]);
        bytes.extend(self.lengths()[..at].as_flattened());
        bytes.extend(self.lengths()[at + 1..].as_flattened());
        bytes.extend(&self.bodies()[..start]);
        bytes.extend(&self.bodies()[end..]);
    }

    /// Where a record lies in the bodies.
    fn place(self, at: usize) -> Range<usize> {
        let length = |length: &[u8; 2]| usize::from(u16::from_le_bytes(*length));
        let start = self.lengths()[..at].iter().map(length).sum();
        start..start + length(&self.lengths()[at])
    }
}

/// The length of a record, as bytes.
fn length(record: &[u8]) -> [u8; 2] {
    // 8,192 bytes of a bitmap of 65,536 slots, 64 of text and 6 more.
    u16::try_from(record.len()).expect("a record has at most 8,262 bytes").to_le_bytes()
}

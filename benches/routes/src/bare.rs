//! The least that a look-up of a list can be: hash, one line, compare, count, copy. One thread,
//! room for twice as many, no namespaces, nobody who comes twice, no slot that dies: what the table
//! costs beside this is what it does more.

use std::hint::select_unpredictable;
use std::sync::RwLock;

use waybill_wire::digest::mix;

use crate::layout::{Layout, Reader};

/// Users in a line, as in a bucket of the table.
const ENTRIES: usize = 6;

/// UIDs whose lines are touched ahead, as many as the table asks for together.
const TOGETHER: usize = 16;

/// The slot of an entry that is none. It is counted like the others: no gateway has it.
const EMPTY: u16 = u16::MAX;

#[derive(Clone)]
#[repr(C, align(64))]
struct Line {
    uids: [u64; ENTRIES],
    slots: [u16; ENTRIES],
    /// Whether users of it are in the next one.
    is_over: bool,
}

const NO_LINE: Line = Line { uids: [0; ENTRIES], slots: [EMPTY; ENTRIES], is_over: false };

struct Lines {
    lines: Vec<Line>,
    users: usize,
    key: u64,
}

/// The layout.
pub(crate) struct Bare {
    /// Locked for a list.
    lines: RwLock<Lines>,
    gateways: usize,
}

impl Bare {
    pub(crate) fn new(gateways: u16) -> Self {
        let lines = Lines { lines: vec![NO_LINE], users: 0, key: rand::random() };
        Self { lines: RwLock::new(lines), gateways: gateways.into() }
    }
}

impl Lines {
    /// As the table hashes.
    #[inline(always)]
    fn home(&self, uid: u64) -> usize {
        let factor = mix(self.key.wrapping_add(GOLDEN)) | 1;
        let hash = folded(folded(uid ^ self.key, factor) ^ self.key.rotate_left(32), GOLDEN);
        usize::try_from(hash).expect("64 bits") & (self.lines.len() - 1)
    }

    fn put(&mut self, uid: u64, slot: u16) {
        let mut at = self.home(uid);
        loop {
            let next = (at + 1) & (self.lines.len() - 1);
            let line = &mut self.lines[at];
            if let Some(free) = line.slots.iter().position(|slot| *slot == EMPTY) {
                (line.uids[free], line.slots[free]) = (uid, slot);
                return;
            }
            line.is_over = true;
            at = next;
        }
    }

    fn add(&mut self, uid: u64, slot: u16) {
        self.users += 1;
        if 2 * self.users > ENTRIES * self.lines.len() {
            let twice = vec![NO_LINE; 2 * self.lines.len()];
            for line in std::mem::replace(&mut self.lines, twice) {
                let both = line.uids.into_iter().zip(line.slots);
                both.filter(|(_, slot)| *slot != EMPTY).for_each(|(uid, slot)| self.put(uid, slot));
            }
        }
        self.put(uid, slot);
    }

    #[inline(always)]
    fn find(&self, home: usize, uid: u64) -> u16 {
        let line = &self.lines[home];
        let mut entry = 0;
        for at in 1..ENTRIES {
            entry = select_unpredictable(line.uids[at] == uid, at, entry);
        }
        match line.uids[entry] == uid {
            true => line.slots[entry],
            false => self.find_behind(home, uid),
        }
    }

    #[cold]
    fn find_behind(&self, mut at: usize, uid: u64) -> u16 {
        while self.lines[at].is_over {
            at = (at + 1) & (self.lines.len() - 1);
            let line = &self.lines[at];
            if let Some(entry) = line.uids.iter().position(|there| *there == uid) {
                return line.slots[entry];
            }
        }
        EMPTY
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn folded(one: u64, other: u64) -> u64 {
    let (low, high) = one.carrying_mul(other, 0);
    low ^ high
}

impl Layout for Bare {
    fn add(&self, gateway: u16, uids: &[u64]) {
        let mut lines = self.lines.write().expect("nobody panicked");
        uids.iter().for_each(|uid| lines.add(*uid, gateway));
    }

    fn reader(&self) -> Box<dyn Reader + '_> {
        let counts = vec![0; self.gateways];
        Box::new(BareReader { bare: self, counts, firsts: Vec::new(), targets: Vec::new() })
    }
}

struct BareReader<'a> {
    bare: &'a Bare,
    counts: Vec<u32>,
    firsts: Vec<u16>,
    targets: Vec<u64>,
}

impl Reader for BareReader<'_> {
    fn list(&mut self, uids: &[u64]) -> usize {
        let Self { bare, counts, firsts, targets } = self;
        let lines = bare.lines.read().expect("nobody panicked");
        counts.fill(0);
        firsts.clear();
        let mut homes = [0; TOGETHER];
        let mut touched = 0;
        for (home, uid) in homes.iter_mut().zip(uids) {
            *home = lines.home(*uid);
            touched ^= lines.lines[*home].uids[0];
        }
        let ahead = uids.iter().skip(TOGETHER).chain(std::iter::repeat(&uids[0]));
        firsts.extend(uids.iter().zip(ahead).enumerate().map(|(at, (uid, next))| {
            let home = &mut homes[at % TOGETHER];
            let slot = lines.find(*home, *uid);
            *home = lines.home(*next);
            touched ^= lines.lines[*home].uids[0];
            if let Some(count) = counts.get_mut(usize::from(slot)) {
                *count += 1;
            }
            slot
        }));
        let mut found = 0;
        for count in counts.iter_mut() {
            (*count, found) = (found, found + *count);
        }
        targets.resize(found as usize, 0);
        for (uid, slot) in uids.iter().zip(&*firsts) {
            if let Some(next) = counts.get_mut(usize::from(*slot)) {
                targets[*next as usize] = *uid;
                *next += 1;
            }
        }
        std::hint::black_box((&targets, touched));
        found as usize
    }

    fn singles(&mut self, uids: &[u64]) -> usize {
        uids.iter().map(|uid| self.list(std::slice::from_ref(uid))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_found_at_their_gateway_and_nobody_else() {
        let bare = Bare::new(3);
        for gateway in 0..3 {
            bare.add(gateway, &(1..=1_000).map(|n| 3 * n + u64::from(gateway)).collect::<Vec<_>>());
        }
        let mut reader = bare.reader();
        assert_eq!(reader.list(&(3..3_003).collect::<Vec<_>>()), 3_000);
        assert_eq!(reader.list(&(3_003..6_000).collect::<Vec<_>>()), 0);
        assert_eq!(reader.singles(&[4, 9_999, 5]), 2);
        let lines = bare.lines.read().expect("nobody panicked");
        assert!((3..3_003).all(|uid| u64::from(lines.find(lines.home(uid), uid)) == uid % 3));
    }
}

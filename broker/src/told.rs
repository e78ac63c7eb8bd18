//! What consumers were told of slots that others have replaced since, to be compared with what
//! stands now.
//!
//! It passes from slot to slot by moving whole sets, whatever their size: a takeover must not walk
//! through a million users. What in those sets was never told is taken out later, one by one.
//!
//! Invariants: what was told in a piece is below what was told in the next; `len` is the sum of the
//! pieces' lengths; pieces from `untrimmed` on hold nothing but what was told, and are not empty.

use std::collections::{BTreeSet, VecDeque};

use waybill_wire::digest::Registered;

use crate::declared::Upto;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pieces: VecDeque<Piece>,
    untrimmed: usize,
    len: usize,
}

/// A set of which was told what is not beyond `upto`.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    set: BTreeSet<Registered>,
    upto: Upto,
}

impl From<BTreeSet<Registered>> for Told {
    fn from(set: BTreeSet<Registered>) -> Self {
        Self::default().after(set, Upto::All)
    }
}

impl Told {
    /// This, after what was told of `set`, all of which is below.
    pub(crate) fn after(mut self, set: BTreeSet<Registered>, upto: Upto) -> Self {
        self.len += set.len();
        self.pieces.push_front(Piece { set, upto });
        self.untrimmed += 1;
        self
    }

    /// Registrations that take up room, those that were not told included.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Takes out one registration that was not told, if there is any.
    pub(crate) fn trim(&mut self) -> bool {
        while let Some(at) = self.untrimmed.checked_sub(1) {
            let Piece { set, upto } = &mut self.pieces[at];
            if set.last().is_some_and(|last| !upto.is_past(*last)) {
                set.pop_last();
                self.len -= 1;
                return true;
            }
            if set.is_empty() {
                self.pieces.remove(at);
            }
            self.untrimmed = at;
        }
        false
    }

    /// The lowest that was told. Everything that was not has been trimmed before.
    pub(crate) fn first(&self) -> Option<Registered> {
        debug_assert_eq!(self.untrimmed, 0, "first trim, then look");
        self.pieces.front()?.set.first().copied()
    }

    /// Takes that out.
    pub(crate) fn pop_first(&mut self) -> Option<Registered> {
        debug_assert_eq!(self.untrimmed, 0, "first trim, then take");
        let set = &mut self.pieces.front_mut()?.set;
        let first = set.pop_first();
        if set.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= usize::from(first.is_some());
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u64) -> Registered {
        Registered { namespace: 0, uid, device_class: 0, login: 0 }
    }

    fn set(uids: &[u64]) -> BTreeSet<Registered> {
        uids.iter().copied().map(of).collect()
    }

    #[test]
    fn what_was_told_comes_in_order_and_the_rest_is_trimmed_away() {
        let mut it = Told::from(set(&[7, 9])).after(set(&[4, 5, 6, 8]), Upto::Here(of(5)));
        it = it.after(set(&[6]), Upto::Nothing).after(set(&[1, 2, 9]), Upto::Here(of(3)));
        assert_eq!(it.len(), 10);
        let trimmed = std::iter::repeat_with(|| it.trim()).take_while(|trimmed| *trimmed).count();
        assert_eq!((trimmed, it.len(), it.first()), (4, 6, Some(of(1))));
        let told: Vec<_> = std::iter::from_fn(|| it.pop_first()).map(|it| it.uid).collect();
        assert_eq!(told, [1, 2, 4, 5, 7, 9]);
        assert_eq!(it, Told::default());
    }

    #[test]
    fn what_is_put_before_a_remainder_is_trimmed_alone() {
        let mut it = Told::from(set(&[3, 4]));
        assert!(!it.trim());
        assert_eq!(it.pop_first(), Some(of(3)));
        it = it.after(set(&[1, 9]), Upto::Here(of(2)));
        assert!(it.trim() && !it.trim());
        assert_eq!(
            (it.pop_first(), it.pop_first(), it.pop_first()),
            (Some(of(1)), Some(of(4)), None)
        );
    }
}

//! Which gateways may match a selector: set algebra over 64 slots at a time.
//!
//! What the slots of each term are is asked of the index once for a message. Then every word of 64
//! slots is worked out on its own, and only words with a slot that comes into question are. So a
//! thousand gateways cost sixteen runs through the operators, and a few gateways as many at most.

use waybill_wire::selector::{Node, Selector};

use crate::slots::{SlotsView, Word};
use crate::tags::TagIndex;
use crate::{Namespace, Program};

/// Working space; holds nothing between two queries.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    program: Program,
    terms: usize,
    /// For each word of slots those of each term.
    declared: Vec<u64>,
    /// For each word of slots those that may match, once it was asked for.
    known: Vec<Option<u64>>,
}

impl Reach {
    /// Asks for the slots of each term that decides anything.
    pub(crate) fn begin(
        &mut self,
        (namespace, selector): (Namespace, Selector<'_>),
        index: &TagIndex,
        slots: &SlotsView,
    ) {
        self.program.compile(selector);
        self.terms = selector.terms();
        let asked = self.program.asked();
        let words = slots.len().div_ceil(64);
        self.known.clear();
        self.known.resize(words, None);
        self.declared.clear();
        self.declared.resize(words * self.terms, 0);
        let tags = selector.nodes().filter_map(|node| match node {
            Node::Tag(text) => Some(text),
            Node::And(_) | Node::Or(_) | Node::Not => None,
        });
        for (term, text) in tags.enumerate().filter(|(term, _)| asked >> term & 1 != 0) {
            index.find(namespace, text, |word, bits| {
                // Of a slot that was opened after the view was taken there is no word.
                if let Some(declared) = self.declared.get_mut(word * self.terms + term) {
                    *declared |= bits;
                }
            });
        }
    }

    /// Whether a slot answers and may match. The first of each 64 is worked out for all of them.
    #[inline]
    pub(crate) fn may(&mut self, slots: &SlotsView, slot: u16) -> bool {
        let word = usize::from(slot / 64);
        let known = match self.known.get(word) {
            Some(Some(known)) => *known,
            Some(None) => {
                let of_64 = self.of_64(slots, word);
                *self.known[word].insert(of_64)
            }
            // It was opened after the view was taken.
            None => return false,
        };
        known >> (slot % 64) & 1 != 0
    }

    /// Of these 64 slots that answer, those that may match; nobody, where there are none.
    #[inline]
    pub(crate) fn of_64(&self, slots: &SlotsView, word: usize) -> u64 {
        let Word { tagged, every_tag, .. } = slots.word(word);
        if tagged == 0 {
            return 0;
        }
        let from = word * self.terms;
        tagged & (every_tag | self.program.may_of_64(&self.declared[from..from + self.terms]))
    }
}

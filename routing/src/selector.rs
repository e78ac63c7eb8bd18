//! Selectors made ready to be evaluated: for one connection, and for gateways by what they
//! declared.
//!
//! A term is a bit of a word, in the order of the selector. An `and` or `or` looks at all its terms
//! at once, however many it has, and a `not` costs nothing: it is in what is looked for. So a
//! selector of sixteen terms under one operator costs what one of a single term does.
//!
//! What a gateway may match (\[SEL-9\]) is the same expression with every `not` pushed down to a
//! term: there it says nothing, as a declared tag is one of some connection and not of all. What is
//! left has no `not` in it. So more declared tags never make it untrue, a tag that is asked for
//! only by a `not` is never looked up, and where every tag counts as declared it is true.

use waybill_wire::limits::SELECTOR_DEPTH_MAX;
use waybill_wire::selector::{Node, Selector};

use crate::scratch::Bits;

/// A selector ready to be evaluated. Reused: compiling allocates nothing once the largest selector
/// has been seen.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// For a connection; operands before their operator, which is last.
    exact: Vec<Step>,
    /// For a gateway, in the same order; none if every gateway may match.
    may: Vec<Group>,
}

/// An operator and its operands: all of them must be as wanted, or (`invert`) not all.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Terms among the operands, and those of them that must be true.
    terms: u64,
    terms_wanted: u64,
    /// Earlier steps among the operands, and those of them that must be true.
    steps: u64,
    steps_wanted: u64,
    invert: bool,
}

/// An operator without `not` below it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Group {
    /// Whether one operand is enough.
    pub(crate) any: bool,
    /// Terms among the operands.
    pub(crate) terms: u64,
    /// Earlier groups among the operands.
    pub(crate) groups: u64,
}

/// An operator whose operands are being read.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    or: bool,
    /// Whether there is a `not` right before it.
    negated: bool,
    /// Whether there is an odd number of them before it and those around it.
    odd: bool,
    left: u8,
    step: Step,
    group: Group,
    /// Whether the operator is true of every gateway, or (an `and`) has an operand that is not.
    always: bool,
    bound: bool,
    /// Groups there were before it.
    groups_before: usize,
}

impl Program {
    /// A program that no selector was compiled to yet, with no memory. It matches nobody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Overwrites the program with this selector. The term with bit k of a mask is the k-th
    /// [`Node::Tag`] of [`Selector::nodes`].
    pub fn compile(&mut self, selector: Selector<'_>) {
        self.exact.clear();
        self.may.clear();
        // One more than there are operators around a term: the whole is an `and` of one operand.
        let mut open = [Open::default(); SELECTOR_DEPTH_MAX + 1];
        open[0] = Open { left: 1, ..Open::default() };
        let (mut depth, mut term, mut negated) = (0, 0, false);
        for node in selector.nodes() {
            match node {
                Node::Not => negated = !negated,
                Node::And(left) | Node::Or(left) => {
                    let (or, odd) = (matches!(node, Node::Or(_)), open[depth].odd ^ negated);
                    depth += 1;
                    let groups_before = self.may.len();
                    open[depth] = Open { or, negated, odd, left, groups_before, ..Open::default() };
                    negated = false;
                }
                Node::Tag(_) => {
                    open[depth].term(term, negated);
                    (term, negated) = (term + 1, false);
                    while open[depth].left == 0 && depth > 0 {
                        self.close(&mut open[..=depth]);
                        depth -= 1;
                    }
                }
            }
        }
        self.end(open[0]);
    }

    /// Takes a complete operator, the last one, into the one around it.
    fn close(&mut self, open: &mut [Open]) {
        let [.., outer, inner] = open else { unreachable!("the outermost is not closed") };
        outer.left -= 1;
        let mut step = inner.step;
        step.invert = inner.or ^ inner.negated;
        outer.step.steps |= 1 << self.exact.len();
        outer.step.steps_wanted |= u64::from(!outer.or) << self.exact.len();
        self.exact.push(step);
        if inner.is_always() {
            self.may.truncate(inner.groups_before);
            outer.free();
        } else {
            outer.bound = true;
            outer.group.groups |= 1 << self.may.len();
            self.may.push(inner.group());
        }
    }

    /// The outermost operator has one operand: it is there for a selector that is a term alone.
    fn end(&mut self, whole: Open) {
        if whole.step.terms != 0 {
            self.exact.push(whole.step);
            if !whole.is_always() {
                self.may.push(whole.group());
            }
        }
    }

    /// Whether a connection matches (\[SEL-5\]) that has exactly the tags whose terms are bits of
    /// `mask`. Bits of no term do not matter.
    #[inline]
    #[must_use]
    pub fn matches(&self, mask: u64) -> bool {
        let (mut results, mut result) = (0, false);
        for (at, step) in self.exact.iter().enumerate() {
            let terms = (mask & step.terms) ^ step.terms_wanted;
            let steps = (results & step.steps) ^ step.steps_wanted;
            result = (terms | steps == 0) ^ step.invert;
            results |= u64::from(result) << at;
        }
        result
    }

    /// Whether some connection of a gateway may match (\[SEL-9\]) that declared exactly the tags
    /// whose terms are bits of `mask`.
    #[inline]
    #[must_use]
    pub fn may(&self, mask: u64) -> bool {
        let (mut results, mut result) = (0, !self.exact.is_empty());
        for (at, group) in self.may.iter().enumerate() {
            result = match group.any {
                true => (mask & group.terms) | (results & group.groups) != 0,
                false => (!mask & group.terms) | (!results & group.groups) == 0,
            };
            results |= u64::from(result) << at;
        }
        result
    }

    /// Terms that decide whether a gateway may match, as bits; no others need to be looked up. None
    /// if every gateway may.
    #[inline]
    pub(crate) fn asked(&self) -> u64 {
        self.may.iter().fold(0, |terms, group| terms | group.terms)
    }

    /// What decides whether a gateway may match; operands before their operator, which is last.
    pub(crate) fn groups(&self) -> &[Group] {
        &self.may
    }

    /// [`Program::may`] for 64 gateways at a time: `declared` has the gateways of each term.
    #[inline]
    pub(crate) fn may_of_64(&self, declared: &[u64]) -> u64 {
        let mut results = [0; u64::BITS as usize];
        let mut result = if self.exact.is_empty() { 0 } else { u64::MAX };
        for (at, group) in self.may.iter().enumerate() {
            result = if group.any { 0 } else { u64::MAX };
            let mut take = |word: u64| match group.any {
                true => result |= word,
                false => result &= word,
            };
            Bits(group.terms).for_each(|term| take(declared[term]));
            Bits(group.groups).for_each(|group| take(results[group]));
            results[at] = result;
        }
        result
    }
}

impl Open {
    fn term(&mut self, term: u32, negated: bool) {
        self.left -= 1;
        self.step.terms |= 1 << term;
        // An `or` is looked at as "not all are other than wanted".
        self.step.terms_wanted |= u64::from(!negated ^ self.or) << term;
        if negated ^ self.odd {
            self.free();
        } else {
            self.bound = true;
            self.group.terms |= 1 << term;
        }
    }

    /// With an odd number of `not`s before it an `or` is an `and` of what is not.
    fn any(&self) -> bool {
        self.or ^ self.odd
    }

    /// An operand is true of every gateway.
    fn free(&mut self) {
        self.always |= self.any();
    }

    fn is_always(&self) -> bool {
        self.always || !self.bound
    }

    fn group(&self) -> Group {
        Group { any: self.any(), ..self.group }
    }
}

//! The filters of one consumer's link, by namespace: what it wants of all that it would get.

use std::collections::BTreeMap;
use std::sync::Arc;

use waybill_routing::filter::{self, Fields};
use waybill_wire::filter::Expression;
use waybill_wire::limits::{FILTER_TERMS_MAX, FILTERS_MAX};

#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    // By namespace, then by the consumer's own number. No namespace is empty.
    installed: BTreeMap<u32, BTreeMap<u32, Arc<Expression>>>,
}

impl Filters {
    /// Whether one of its filters is true, or there is none in the namespace.
    pub(super) fn want(&self, namespace: u32, fields: &Fields<'_>) -> bool {
        let here = self.installed.get(&namespace);
        here.is_none_or(|here| here.values().any(|it| filter::is_true(it, fields)))
    }

    /// Terms of all of them.
    pub(super) fn terms(&self) -> usize {
        self.installed.values().flat_map(BTreeMap::values).map(|it| it.terms()).sum()
    }

    /// Installs an expression, in the place of the one with the same number; or names the limit
    /// that this would go beyond.
    pub(super) fn install(
        &mut self,
        namespace: u32,
        number: u32,
        expression: Expression,
    ) -> Result<(), &'static str> {
        let here = self.installed.get(&namespace);
        let others = here.into_iter().flatten().filter(|(other, _)| **other != number);
        let terms: usize = others.map(|(_, it)| it.terms()).sum();
        if terms + expression.terms() > FILTER_TERMS_MAX {
            return Err("the filters of one namespace may have filter_terms_max 64 terms together");
        }
        let is_new = here.is_none_or(|here| !here.contains_key(&number));
        let all: usize = self.installed.values().map(BTreeMap::len).sum();
        if is_new && all >= FILTERS_MAX {
            return Err("a link may have filters_max 64 filters");
        }
        self.installed.entry(namespace).or_default().insert(number, Arc::new(expression));
        Ok(())
    }

    /// Takes a filter away, if it is there.
    pub(super) fn remove(&mut self, namespace: u32, number: u32) {
        if let Some(here) = self.installed.get_mut(&namespace) {
            here.remove(&number);
            if here.is_empty() {
                self.installed.remove(&namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use waybill_wire::code::Event;

    use super::*;

    fn install(filters: &mut Filters, namespace: u32, number: u32, text: &str) -> bool {
        let expression = waybill_wire::filter::parse(text).unwrap();
        filters.install(namespace, number, expression).is_ok()
    }

    #[test]
    fn promise_7_a_link_has_so_many_filters_and_terms_and_no_more() {
        let mut filters = Filters::default();
        let row = |terms| vec!["uid=1"; terms].join("|");
        assert!(install(&mut filters, 7, 1, &row(63)) && install(&mut filters, 7, 2, "uid=9"));
        assert!(!install(&mut filters, 7, 3, "uid=9"));
        assert!(!install(&mut filters, 7, 2, &row(2)), "what stands there stays");
        assert!(install(&mut filters, 7, 1, &row(62)) && install(&mut filters, 7, 3, "uid=9"));
        for namespace in 8..69 {
            assert!(install(&mut filters, namespace, 1, "uid=1"));
        }
        assert!(!install(&mut filters, 69, 1, "uid=1") && install(&mut filters, 68, 1, "uid=2"));
    }

    #[test]
    fn flt_5_with_none_in_a_namespace_all_is_wanted_and_with_some_what_one_is_true_for() {
        let mut filters = Filters::default();
        let wanted = |filters: &Filters, namespace, uid: u64| {
            filters.want(namespace, &Fields::of_presence(Event::LOGIN, &uid, 0))
        };
        assert!(install(&mut filters, 7, 1, "uid=1") && install(&mut filters, 7, 2, "uid=2"));
        assert_eq!([1, 2, 3].map(|uid| wanted(&filters, 7, uid)), [true, true, false]);
        assert!(wanted(&filters, 8, 3));
        filters.remove(7, 1);
        filters.remove(7, 2);
        filters.remove(7, 2);
        assert!(wanted(&filters, 7, 3));
    }
}

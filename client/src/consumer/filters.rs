//! What a consumer wants of all that it would get: filters as the application lists them, and the
//! changes that make a broker's equal to the list.

use std::collections::BTreeMap;

use waybill_wire::code::Op;
use waybill_wire::filter;
use waybill_wire::limits::{FILTER_TERMS_MAX, FILTERS_MAX};

use crate::options::OptionsError;

/// What a consumer wants of one namespace: that for which this expression is true, and that for
/// which another one of the list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The tenant.
    pub namespace: u32,
    /// Over header fields and labels, `kind=uplink & label=order.*`: chapter 5.2 of the protocol.
    pub expression: String,
}

/// A list that was checked. Filters are numbered within their namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filters {
    wanted: BTreeMap<(u32, u32), Expression>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expression {
    text: String,
    terms: usize,
}

/// A FILTER to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) op: Op,
    pub(super) namespace: u32,
    pub(super) number: u32,
    pub(super) expression: String,
}

impl Filters {
    /// The list, if a broker can take it.
    pub(super) fn check(list: &[Filter]) -> Result<Self, OptionsError> {
        let wrong = |problem: String| OptionsError { field: "filters", problem };
        if list.len() > FILTERS_MAX {
            let count = list.len();
            return Err(wrong(format!("{count} filters, a link may have {FILTERS_MAX}")));
        }
        let mut wanted: BTreeMap<(u32, u32), Expression> = BTreeMap::new();
        for Filter { namespace, expression } in list {
            let parsed = filter::parse(expression)
                .map_err(|error| wrong(format!("{expression:?}: {error}")))?;
            let here = || wanted.range((*namespace, 0)..=(*namespace, u32::MAX));
            let number = here().next_back().map_or(1, |((_, last), _)| last + 1);
            let terms: usize = here().map(|(_, other)| other.terms).sum();
            if terms + parsed.terms() > FILTER_TERMS_MAX {
                let limit = FILTER_TERMS_MAX;
                return Err(wrong(format!(
                    "the filters of namespace {namespace} have more than {limit} terms together"
                )));
            }
            let expression = Expression { text: expression.clone(), terms: parsed.terms() };
            wanted.insert((*namespace, number), expression);
        }
        Ok(Self { wanted })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What changes `self` into `wanted`, in an order in which no limit is broken on the way and no
    /// namespace that has filters before and after is without.
    pub(super) fn changes_to(&self, wanted: &Self) -> Vec<Change> {
        let terms = |of: &Self, at: &(u32, u32)| of.wanted.get(at).map_or(0, |it| it.terms);
        let mut places: Vec<&(u32, u32)> = self.wanted.keys().chain(wanted.wanted.keys()).collect();
        places.sort_unstable();
        places.dedup();
        places.retain(|at| self.wanted.get(at) != wanted.wanted.get(at));
        // Numbers begin with 1 in each namespace, so that the first is replaced and never removed
        // as long as there is any.
        let grows = |at: &(u32, u32)| (terms(wanted, at) > terms(self, at), *at);
        places.sort_by_key(|at| grows(at));
        let change = |at: &(u32, u32)| {
            let expression = wanted.wanted.get(at);
            Change {
                op: if expression.is_some() { Op::ADD } else { Op::REMOVE },
                namespace: at.0,
                number: at.1,
                expression: expression.map_or_else(String::new, |it| it.text.clone()),
            }
        };
        places.into_iter().map(change).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(list: &[(u32, &str)]) -> Filters {
        let filter = |(namespace, expression): &(u32, &str)| Filter {
            namespace: *namespace,
            expression: (*expression).to_owned(),
        };
        Filters::check(&list.iter().map(filter).collect::<Vec<_>>()).expect("they are allowed")
    }

    fn row(terms: usize) -> String {
        vec!["uid=1"; terms].join("|")
    }

    #[test]
    fn a_list_that_no_broker_takes_is_refused_with_its_fault() {
        let one = |expression: &str| Filter { namespace: 7, expression: expression.to_owned() };
        let problem = |list: &[Filter]| Filters::check(list).expect_err("refused").problem;
        assert!(problem(&[one("kind=publish")]).contains("at byte 5"));
        assert!(problem(&[one(&row(60)), one(&row(5))]).contains("more than 64 terms"));
        let many: Vec<Filter> =
            (0..65).map(|namespace| Filter { namespace, ..one("uid=1") }).collect();
        assert!(problem(&many).contains("65 filters"));
    }

    #[test]
    fn changes_lead_from_one_list_to_the_other_and_break_no_limit_on_the_way() {
        let (long, short) = (row(60), "uid=2");
        let lists = [
            filters(&[]),
            filters(&[(7, &long), (7, short)]),
            filters(&[(7, short), (7, &long)]),
            filters(&[(7, short), (8, short)]),
            filters(&[(8, &long)]),
        ];
        for (from, to) in lists.iter().flat_map(|from| lists.iter().map(move |to| (from, to))) {
            let mut now = from.wanted.clone();
            for Change { op, namespace, number, expression } in from.changes_to(to) {
                if op == Op::ADD {
                    let terms = filter::parse(&expression).expect("was checked").terms();
                    now.insert((namespace, number), Expression { text: expression, terms });
                } else {
                    assert!(now.remove(&(namespace, number)).is_some());
                }
                for tenant in [7, 8] {
                    let here = now.range((tenant, 0)..=(tenant, u32::MAX));
                    assert!(here.map(|(_, it)| it.terms).sum::<usize>() <= FILTER_TERMS_MAX);
                    let has = |of: &Filters| of.wanted.contains_key(&(tenant, 1));
                    assert!(!has(from) || !has(to) || now.contains_key(&(tenant, 1)));
                }
            }
            assert_eq!(now, to.wanted);
        }
    }
}

//! Rows of a run put together: by scenario, variant and target, over all repeats.
//!
//! What is quoted is decided here, so that terminal and page cannot differ. A repeat that failed
//! the check is never part of a figure. Where the generator was busy in any repeat, nothing that
//! depends on its pace is quoted, not even from the other repeats: those would be the slow ones.

use std::collections::{BTreeMap, BTreeSet};

use super::figures::{Figure, figures_of};
use super::{Ratio, Spread};
use crate::results::mark::GENERATOR_BUSY;
use crate::results::{Row, ScenarioResult, Variant, figure};

/// The target that ratios are of.
pub const SUBJECT: &str = "waybill";

/// With fewer users, what a server reserves for its connections weighs more than its routes.
const ROUTES_MIN: u64 = 100_000;

/// Figures of a delivery that have a counterpart of a message.
const OF_DELIVERY: [&str; 2] = [figure::DELIVERIES_PER_S, figure::CPU_US_PER_DELIVERY];

/// All repeats of all targets in one variant of a scenario.
#[derive(Clone, Debug)]
pub struct Table<'a> {
    /// What varies within the scenario.
    pub variant: &'a Variant,
    /// One for each target, Waybill first, then the ceiling, then the others by name.
    pub entries: Vec<Entry<'a>>,
}

impl<'a> Table<'a> {
    /// The tables of a scenario, in the order in which its variants come.
    #[must_use]
    pub fn of(scenario: &'a ScenarioResult) -> Vec<Self> {
        let mut tables: Vec<Self> = Vec::new();
        for row in &scenario.rows {
            let at = tables.iter().position(|table| is_same(table.variant, &row.variant));
            let at = at.unwrap_or_else(|| {
                tables.push(Self { variant: &row.variant, entries: Vec::new() });
                tables.len() - 1
            });
            tables[at].add(row);
        }
        for table in &mut tables {
            table.entries.sort_by_key(|entry| order_of(entry.target));
        }
        tables
    }

    fn add(&mut self, row: &'a Row) {
        match self.entries.iter_mut().find(|entry| entry.target == row.target) {
            Some(entry) => entry.rows.push(row),
            None => self.entries.push(Entry { target: &row.target, rows: vec![row] }),
        }
    }

    /// The figures that any target has here. Those of a delivery are left out where each message is
    /// one: they would say everything twice.
    #[must_use]
    pub fn figures(&self, scenario: &ScenarioResult) -> Vec<Figure> {
        let each_is_one = self.entries.iter().all(Entry::delivers_each_once);
        let mut figures = figures_of(scenario);
        let rates = figures.iter().any(|figure| figure.key == figure::MESSAGES_PER_S);
        figures.retain(|figure| {
            let repeated = rates && each_is_one && OF_DELIVERY.contains(&figure.key.as_str());
            !repeated && self.entries.iter().any(|entry| entry.cell(figure) != Cell::Missing)
        });
        figures
    }

    /// The entry of a target.
    #[must_use]
    pub fn entry(&self, target: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.target == target)
    }
}

/// Whether rows of two variants belong together: what was asked for is the same. A share of each
/// target's own capacity is another rate for each.
#[must_use]
pub fn is_same(one: &Variant, other: &Variant) -> bool {
    let asked = |variant: &Variant| variant.rate.as_ref().map(|rate| rate.asked.clone());
    let without = |variant: &Variant| Variant { rate: None, ..variant.clone() };
    asked(one) == asked(other) && without(one) == without(other)
}

/// Where a target stands among the others: what is measured, the ceiling, and then by name.
#[must_use]
pub fn order_of(target: &str) -> (u8, String) {
    let place = match target {
        SUBJECT => 0,
        _ if target.starts_with(SUBJECT) => 1,
        _ if target.starts_with("relay") => 2,
        _ => 3,
    };
    (place, target.to_owned())
}

/// What there is to say of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell {
    /// It was not measured.
    Missing,
    /// It was, but the generator was busy, so it says how fast that was.
    Withheld,
    /// Its repeats.
    Quoted(Spread),
}

impl Cell {
    /// The repeats, where they are quoted.
    #[must_use]
    pub fn quoted(&self) -> Option<Spread> {
        if let Self::Quoted(spread) = self { Some(*spread) } else { None }
    }
}

/// A fault, over all repeats of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSum {
    /// Its name.
    pub name: String,
    /// How often it occurred.
    pub count: u64,
    /// In how many repeats.
    pub repeats: usize,
    /// The first of it.
    pub example: String,
    /// Whether the scenario allows it: no repeat failed that had it.
    pub allowed: bool,
}

/// All repeats of one target in one variant.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub target: &'a str,
    /// Its rows.
    pub rows: Vec<&'a Row>,
}

impl<'a> Entry<'a> {
    /// Rows that passed the check.
    pub fn passed(&self) -> impl Iterator<Item = &'a Row> + Clone + '_ {
        self.rows.iter().copied().filter(|row| row.ok)
    }

    /// How many repeats failed the check.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.rows.len() - self.passed().count()
    }

    /// Whether the generator was busy in a repeat that counts.
    #[must_use]
    pub fn generator_was_busy(&self) -> bool {
        self.passed().any(|row| row.marks.iter().any(|mark| mark == GENERATOR_BUSY))
    }

    /// What there is to say of a figure.
    #[must_use]
    pub fn cell(&self, figure: &Figure) -> Cell {
        if figure.key == figure::BYTES_PER_ROUTE && self.users() < ROUTES_MIN {
            return Cell::Missing;
        }
        let values: Vec<f64> = self.passed().filter_map(|row| figure.of(row)).collect();
        match Spread::of(&values) {
            None => Cell::Missing,
            Some(_) if figure.hurried && self.generator_was_busy() => Cell::Withheld,
            Some(spread) => Cell::Quoted(spread),
        }
    }

    /// How many times the other's figure this one's is, paired by repeat. None where either is not
    /// quoted, or no repeat has both.
    #[must_use]
    pub fn ratio_to(&self, other: &Entry<'_>, figure: &Figure) -> Option<Ratio> {
        self.cell(figure).quoted().and(other.cell(figure).quoted())?;
        let pairs = self.passed().filter_map(|row| {
            let partner = other.passed().find(|other| other.repeat == row.repeat)?;
            Some((figure.of(row)?, figure.of(partner)?))
        });
        Ratio::paired(&pairs.collect::<Vec<_>>())
    }

    /// The same against this target in another run: nothing is paired there.
    #[must_use]
    pub fn ratio_to_run(&self, before: &Entry<'_>, figure: &Figure) -> Option<Ratio> {
        self.cell(figure).quoted().and(before.cell(figure).quoted())?;
        let values = |entry: &Entry<'_>| entry.passed().filter_map(|row| figure.of(row)).collect();
        let (after, before): (Vec<f64>, Vec<f64>) = (values(self), values(before));
        Ratio::unpaired(&after, &before)
    }

    /// Its faults, by name.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultSum> {
        let mut sums: BTreeMap<&str, FaultSum> = BTreeMap::new();
        for row in &self.rows {
            for (at, fault) in row.faults.iter().enumerate() {
                let again = row.faults[..at].iter().any(|other| other.name == fault.name);
                let sum = sums.entry(&fault.name).or_insert_with(|| FaultSum {
                    name: fault.name.clone(),
                    count: 0,
                    repeats: 0,
                    example: fault.example.clone(),
                    allowed: true,
                });
                sum.count = sum.count.saturating_add(fault.count);
                sum.repeats += usize::from(!again);
                sum.allowed &= row.ok;
            }
        }
        sums.into_values().collect()
    }

    /// Marks of its rows, each with the number of repeats that have it.
    #[must_use]
    pub fn marks(&self) -> BTreeMap<&'a str, usize> {
        count_of(self.rows.iter().flat_map(|row| &row.marks))
    }

    /// Notes of its rows, each with the number of repeats that have it.
    #[must_use]
    pub fn notes(&self) -> BTreeMap<&'a str, usize> {
        count_of(self.rows.iter().flat_map(|row| &row.notes))
    }

    /// Whether it had as many deliveries as messages, to a thousandth.
    fn delivers_each_once(&self) -> bool {
        self.rows.iter().all(|row| {
            let figure = |key: &str| row.figures.get(key).copied();
            let rates = figure(figure::MESSAGES_PER_S).zip(figure(figure::DELIVERIES_PER_S));
            rates.is_none_or(|(messages, deliveries)| (deliveries / messages - 1.0).abs() < 1e-3)
        })
    }

    /// How many users it was set up with: the fewest of all repeats that came so far, or 0.
    #[must_use]
    pub fn users(&self) -> u64 {
        let users = self.rows.iter().map(|row| row.users);
        users.filter(|users| *users > 0).min().unwrap_or(0)
    }

    /// At which rate messages came, in an open loop: the median of its repeats.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        let rates = self.passed().filter_map(|row| Some(row.variant.rate.as_ref()?.per_s));
        Some(Spread::of(&rates.collect::<Vec<_>>())?.median)
    }
}

fn count_of<'a>(words: impl Iterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    words.for_each(|word| *counts.entry(word.as_str()).or_insert(0) += 1);
    counts
}

/// Every target that a run has rows or a word of, in the order in which targets stand.
#[must_use]
pub fn targets_of(scenarios: &[ScenarioResult]) -> Vec<&str> {
    let rows = scenarios.iter().flat_map(|scenario| &scenario.rows);
    let targets: BTreeSet<&str> = rows.map(|row| row.target.as_str()).collect();
    let mut targets: Vec<&str> = targets.into_iter().collect();
    targets.sort_by_key(|target| order_of(target));
    targets
}

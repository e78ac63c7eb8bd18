//! The page with plots.

use crate::results::Results;

/// One self-contained HTML page.
#[must_use]
pub fn html(results: &Results) -> String {
    format!("<!doctype html><title>{}</title>\n", results.started)
}

/// Ratios of two runs.
#[must_use]
pub fn compare(before: &Results, after: &Results) -> String {
    format!("{} -> {}\n", before.started, after.started)
}

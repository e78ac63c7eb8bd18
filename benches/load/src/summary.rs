//! The table on the terminal.

use crate::results::Results;

/// A line for each row.
#[must_use]
pub fn text(results: &Results) -> String {
    let mut text = String::new();
    for scenario in &results.scenarios {
        for row in &scenario.rows {
            text += &format!("{} {} {}", scenario.name, row.target, row.variant);
            for (name, value) in &row.figures {
                text += &format!(" {name}={value:.4}");
            }
            if let Some(latency) = &row.latency_us {
                text += &format!(" p50={} p99={} us", latency.p50, latency.p99);
            }
            text += &format!(" {}\n", row.marks.join(" "));
        }
        for skipped in &scenario.skipped {
            text += &format!("{} {} skipped: {}\n", scenario.name, skipped.target, skipped.reason);
        }
    }
    text
}

//! What is printed at the end: one table, and the same as JSON.

use std::io::Write;

use serde_json::{Map, Value, json};

/// Lines under headings, and the values behind them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    text: String,
    values: Map<String, Value>,
}

impl Report {
    /// A new heading.
    pub(crate) fn heading(&mut self, words: &str) {
        self.text += &format!("\n{words}\n");
    }

    /// A row of the table.
    pub(crate) fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        self.text += &format!("  {name:<58} {value}\n");
    }

    /// A value of the JSON.
    pub(crate) fn value(&mut self, name: &str, value: Value) {
        self.values.insert(name.into(), value);
    }

    /// Least, median, 99th percentile, greatest, in milliseconds.
    pub(crate) fn times(&mut self, section: &str, name: &str, micros: &[u64]) {
        let mut sorted = micros.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| {
            let index = sorted.len().saturating_sub(1) * percent / 100;
            sorted.get(index).copied().unwrap_or_default() as f64 / 1e3
        };
        let count = sorted.len();
        let value =
            format!("{:.1} / {:.1} / {:.1} / {:.1} ms ({count})", at(0), at(50), at(99), at(100));
        self.row(&format!("{name}: least / p50 / p99 / max"), value);
        let value = json!({ "count": count, "least_ms": at(0), "p50_ms": at(50),
                            "p99_ms": at(99), "max_ms": at(100) });
        let section = self.values.entry(section).or_insert_with(|| json!({}));
        section[name] = value;
    }

    /// Prints the table.
    pub(crate) fn print(&self) {
        say(&self.text);
    }

    /// The JSON.
    pub(crate) fn json(self) -> Value {
        Value::Object(self.values)
    }
}

/// A line of data, on stdout.
pub(crate) fn say(words: &str) {
    // Whoever reads it may have stopped.
    let _nobody_reads = writeln!(std::io::stdout(), "{words}");
}

/// A line of talk, on stderr.
pub(crate) fn talk(words: &str) {
    let _nobody_reads = writeln!(std::io::stderr(), "{words}");
}

//! The figures as a table for a terminal and for Markdown.

use crate::measure::{Measured, Spread};

const HEAD: [&str; 12] = [
    "layout",
    "users",
    "gateways",
    "B/route",
    "at most",
    "M adds/s",
    "longest step us",
    "of 10^6 over 200 us",
    "single ns",
    "read of 1,000 ns",
    "list of 1,000 ns",
    "growing: p50 ns, p99.99 us, max us",
];

/// All cases, a line each.
pub(crate) fn of(all: &[Measured]) -> String {
    let rows: Vec<[String; 12]> = all.iter().map(row).collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].len()).chain([HEAD[at].len()]);
        cells.max().expect("the head is there")
    };
    let widths: [usize; 12] = std::array::from_fn(width);
    let line = |cells: [&str; 12]| {
        let padded = (0..).zip(cells).map(|(at, cell): (usize, _)| match at {
            0 => format!("{cell:<0$}", widths[at]),
            _ => format!("{cell:>0$}", widths[at]),
        });
        format!("| {} |", padded.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.map(|width| "-".repeat(width));
    let mut lines = vec![line(HEAD), line(rule.each_ref().map(String::as_str))];
    lines.extend(rows.iter().map(|row| line(row.each_ref().map(String::as_str))));
    lines.join("\n")
}

fn row(case: &Measured) -> [String; 12] {
    let spread = |spread: &Spread| {
        format!("{:.1} ({:.1}-{:.1})", spread.median, spread.lowest, spread.highest)
    };
    [
        case.layout.clone(),
        case.users.to_string(),
        case.gateways.to_string(),
        format!("{:.1}", case.bytes_per_route),
        format!("{:.1}", case.bytes_per_route_peak),
        format!("{:.2}", case.builds_per_second / 1e6),
        format!("{:.0}", case.longest_step_us),
        format!("{:.1}", case.long_steps_per_million),
        spread(&case.single_ns),
        spread(&case.read_ns),
        spread(&case.list_ns),
        format!(
            "{:.0}, {:.1}, {:.0}",
            case.growing_p50_ns, case.growing_p9999_us, case.growing_max_us
        ),
    ]
}

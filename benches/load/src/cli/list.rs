//! What `list` says: the scenarios there are, how long each takes, and the targets.

use std::fmt::Write;

use crate::failure::Failure;
use crate::scenario::{self, Kind, Loaded, Scenario};
use crate::targets;

/// All of it, as text for a terminal.
pub(super) fn text() -> Result<String, Failure> {
    let mut text = String::from("Scenarios:\n");
    for Loaded { name, scenario, .. } in scenario::list()? {
        let targets = scenario.targets.join(" ");
        let _infallible = writeln!(
            text,
            "  {name:<18}{}\n{:20}{}\n{:20}{targets}",
            scenario.title,
            "",
            length(&scenario),
            ""
        );
    }
    text += "\nTargets:\n";
    for target in targets::all() {
        let _infallible = writeln!(text, "  {:<22}{}", target.name, target.driven);
    }
    Ok(text)
}

/// How much a whole run of it is. How long set-ups take is the machine's and the targets' affair.
fn length(scenario: &Scenario) -> String {
    let rows = scenario.rows_most();
    let seconds = rows as f64 * (scenario.warm_up_seconds + scenario.seconds);
    let length = if seconds < 100.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    };
    // Several parts of such a row may be measured.
    let about = if scenario.kind == Kind::System { "at least" } else { "about" };
    format!("up to {rows} rows, {about} {length} and their set-ups")
}

//! Counts the instructions of every micro bench, compares them with `benches/instructions.toml`.
//!
//! `waybill-micro [--accept] [PART OF A NAME...]`. Exit codes: 0 nothing grew, 1 something did, 2
//! it could not be found out. Called through `bash .ci/instructions`, which installs valgrind.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use waybill_micro::baseline::{Baseline, Finding, TOLERANCE_PERCENT, Verdict};
use waybill_micro::{Case, SEED, count, counted_cases};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../instructions.toml");
const RUSTC: &str = env!("WAYBILL_MICRO_RUSTC");
const TARGET: &str = env!("WAYBILL_MICRO_TARGET");
const ACCEPT: &str = "bash .ci/instructions --accept";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cases = counted_cases();
    if let [flag, name] = &arguments[..]
        && flag == "--run"
    {
        let Some(case) = cases.iter().find(|case| case.name == *name) else {
            return cannot(&format!("there is no case {name:?}"));
        };
        count::run(case);
        return ExitCode::SUCCESS;
    }
    let (flags, parts): (Vec<_>, Vec<_>) =
        arguments.iter().partition(|argument| argument.starts_with('-'));
    if let Some(unknown) = flags.iter().find(|flag| **flag != "--accept") {
        return cannot(&format!("{unknown}: only --accept and parts of names are known"));
    }
    let chosen: Vec<&Case> =
        cases.iter().filter(|case| parts.is_empty() || named(case, &parts)).collect();
    if chosen.is_empty() {
        return cannot("no case has such a name");
    }
    if cfg!(debug_assertions) {
        return cannot("counts are those of a release build: bash .ci/instructions");
    }
    let accept = !flags.is_empty();
    match gate(&chosen, chosen.len() < cases.len(), accept) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(words) => cannot(&words),
    }
}

fn named(case: &Case, parts: &[&String]) -> bool {
    parts.iter().any(|part| case.name.contains(part.as_str()))
}

/// Whether the counts of these cases pass.
fn gate(cases: &[&Case], partial: bool, accept: bool) -> Result<bool, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let profiles = program.with_file_name("instructions");
    say(&format!("{} cases, inputs from seed {SEED:#x}, {RUSTC}, {TARGET}", cases.len()));
    let names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    let now = count::count(&program, &names, &profiles).map_err(|error| error.to_string())?;
    let read = fs::read_to_string(BASELINE).map_err(|error| format!("{BASELINE}: {error}"));
    let before = read.and_then(|text| Baseline::parse(&text));
    if accept {
        let mut instructions = now;
        if partial {
            let mut kept = before?;
            if (kept.rustc.as_str(), kept.target.as_str()) != (RUSTC, TARGET) {
                return Err(format!(
                    "the baseline was made by {}: accept all cases, not some",
                    kept.rustc
                ));
            }
            kept.instructions.extend(instructions);
            instructions = kept.instructions;
        }
        let accepted = Baseline { rustc: RUSTC.into(), target: TARGET.into(), instructions };
        fs::write(BASELINE, accepted.render()).map_err(|error| format!("{BASELINE}: {error}"))?;
        say("benches/instructions.toml has the counts of now; say in the commit why they grew");
        return Ok(true);
    }
    let before = before?;
    let findings = before.compare(&now, partial);
    table(cases, &findings);
    if before.target != TARGET {
        say(&format!("The baseline is for {}: nothing to compare on {TARGET}.", before.target));
        return Ok(true);
    }
    Ok(judge(&before, &findings, &profiles))
}

fn table(cases: &[&Case], findings: &[Finding]) {
    let head = ["instructions", "each", "baseline", "change"];
    say(&format!("{:<36}{:>14}{:>10}{:>14}{:>10}", "case", head[0], head[1], head[2], head[3]));
    for Finding { case, before, now, .. } in findings {
        let elements = cases.iter().find(|one| one.name == *case).map(|one| one.elements as u64);
        let each = now.zip(elements).map(|(now, elements)| now / elements);
        let shown = |count: &Option<u64>| count.map_or("-".into(), |count| count.to_string());
        let change = change(*before, *now);
        let (now, each, before) = (shown(now), shown(&each), shown(before));
        say(&format!("{case:<36}{now:>14}{each:>10}{before:>14}{change:>10}"));
    }
}

/// In percent of what it was.
fn change(before: Option<u64>, now: Option<u64>) -> String {
    let Some((before, now)) = before.zip(now) else { return "-".into() };
    let change = (now as f64 / before as f64 - 1.0) * 100.0;
    format!("{change:+.1} %")
}

/// Says what is wrong and what to do; whether nothing is.
fn judge(before: &Baseline, findings: &[Finding], profiles: &Path) -> bool {
    for Finding { case, before, now, verdict } in findings {
        let counts = format!("{} -> {}", before.unwrap_or(0), now.unwrap_or(0));
        let change = change(*before, *now);
        match verdict {
            Verdict::Same => {}
            Verdict::More => {
                let profile = count::profile(profiles, case);
                say(&format!(
                    "FAILED {case}: {counts} instructions ({change}), more than \
                     {TOLERANCE_PERCENT} % over the baseline\n       where they are: \
                     callgrind_annotate {}",
                    profile.display()
                ));
            }
            Verdict::Fewer => say(&format!(
                "better {case}: {counts} instructions ({change}); renew the baseline, or it will \
                 hide the next growth: {ACCEPT}"
            )),
            Verdict::New => say(&format!("FAILED {case} is not in the baseline yet: {ACCEPT}")),
            Verdict::Gone => say(&format!("FAILED {case} is in the baseline alone: {ACCEPT}")),
        }
    }
    let failed = findings.iter().filter(|finding| finding.verdict.fails()).count();
    if before.rustc != RUSTC {
        say(&format!(
            "The baseline was made by {}, this by {RUSTC}. If a count of an unchanged tree moved, \
             the compiler did it: renew the baseline in a commit of its own.",
            before.rustc
        ));
    }
    if failed > 0 {
        say(&format!(
            "{failed} of {} cases failed. Make it cheaper; or, if the cost is meant, say why in \
             the commit and renew benches/instructions.toml with: {ACCEPT}",
            findings.len()
        ));
    } else {
        say("No case is more than the tolerance over its baseline.");
    }
    failed == 0
}

fn say(words: &str) {
    let _nobody_reads = writeln!(std::io::stdout(), "{words}");
}

fn cannot(words: &str) -> ExitCode {
    let _nobody_reads = writeln!(std::io::stderr(), "waybill-micro: {words}");
    ExitCode::from(2)
}

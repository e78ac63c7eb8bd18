//! The committed counts, and what a new count means beside them.
//!
//! Counts belong to a compiler and a target. With another compiler they are still compared: what
//! grows by a tenth with it costs users a tenth, and a gate that opens with every release of Rust
//! would be none. The verdict names both compilers, so that nobody looks for the cause in the
//! wrong place. With another target nothing can be compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

/// More than this over the baseline fails; as much below it asks for a new baseline. In percent.
pub const TOLERANCE_PERCENT: u64 = 10;

/// Counts that are agreed on, and what they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// What `rustc --version` said.
    pub rustc: String,
    /// The target it compiled for.
    pub target: String,
    /// Instructions of one run, by case.
    pub instructions: BTreeMap<String, u64>,
}

/// What is to be said of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was, within the tolerance.
    Same,
    /// Over the tolerance: fails.
    More,
    /// So much below that the baseline would hide the next growth: told, does not fail.
    Fewer,
    /// The baseline does not have it: fails, since nothing would notice when it grows.
    New,
    /// Only the baseline has it: fails, since nothing may leave the gate unseen.
    Gone,
}

impl Verdict {
    /// Whether a change with it may not go in as it is.
    #[must_use]
    pub fn fails(self) -> bool {
        matches!(self, Self::More | Self::New | Self::Gone)
    }
}

/// A case, its count then and now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name.
    pub case: String,
    /// Instructions by the baseline.
    pub before: Option<u64>,
    /// Instructions counted now.
    pub now: Option<u64>,
    /// What that means.
    pub verdict: Verdict,
}

impl Baseline {
    /// Reads the committed file.
    ///
    /// # Errors
    /// Words on what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error| format!("{error}"))?;
        let word = |key: &str| {
            let word = table.get(key).and_then(Value::as_str);
            word.map(String::from).ok_or_else(|| format!("{key} must be a string"))
        };
        let counts = table.get("instructions").and_then(Value::as_table);
        let counts = counts.ok_or("[instructions] is missing")?;
        let count = |(case, value): (&String, &Value)| {
            let count = value.as_integer().and_then(|count| u64::try_from(count).ok());
            let count = count.filter(|count| *count > 0);
            count.map(|count| (case.clone(), count)).ok_or_else(|| format!("{case}: no count"))
        };
        let instructions = counts.iter().map(count).collect::<Result<_, _>>()?;
        Ok(Self { rustc: word("rustc")?, target: word("target")?, instructions })
    }

    /// The file, as [`Self::parse`] reads it.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::from(
            "# Instructions of one run of each micro bench, as callgrind counts them. Made by\n\
             # `bash .ci/instructions --accept`; a commit that does so says why counts may grow.\n",
        );
        let Self { rustc, target, instructions } = self;
        let _infallible =
            write!(text, "rustc = {rustc:?}\ntarget = {target:?}\n\n[instructions]\n");
        for (case, count) in instructions {
            let _infallible = writeln!(text, "{case:?} = {count}");
        }
        text
    }

    /// What `now` means beside this: a finding for each case of either, by name. `partial` if only
    /// some cases were counted, so that those that are missing have not gone.
    #[must_use]
    pub fn compare(&self, now: &BTreeMap<String, u64>, partial: bool) -> Vec<Finding> {
        let mut findings: Vec<Finding> = now
            .iter()
            .map(|(case, &count)| {
                let before = self.instructions.get(case).copied();
                let verdict = before.map_or(Verdict::New, |before| verdict(before, count));
                Finding { case: case.clone(), before, now: Some(count), verdict }
            })
            .collect();
        let gone =
            self.instructions.iter().filter(|(case, _)| !partial && !now.contains_key(*case));
        findings.extend(gone.map(|(case, &count)| {
            let (before, verdict) = (Some(count), Verdict::Gone);
            Finding { case: case.clone(), before, now: None, verdict }
        }));
        findings.sort_by(|a, b| a.case.cmp(&b.case));
        findings
    }
}

fn verdict(before: u64, now: u64) -> Verdict {
    let (hundred, now) = (u128::from(before) * 100, u128::from(now) * 100);
    let tolerance = u128::from(before) * u128::from(TOLERANCE_PERCENT);
    if now > hundred + tolerance {
        Verdict::More
    } else if now + tolerance < hundred {
        Verdict::Fewer
    } else {
        Verdict::Same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(case, count)| ((*case).into(), *count)).collect()
    }

    fn baseline(instructions: &[(&str, u64)]) -> Baseline {
        let instructions = counts(instructions);
        Baseline { rustc: "rustc 1.95.0".into(), target: "x86_64".into(), instructions }
    }

    #[test]
    fn a_tenth_is_tolerated_and_nothing_more() {
        for (now, expected) in [
            (1_000, Verdict::Same),
            (1_100, Verdict::Same),
            (1_101, Verdict::More),
            (u64::MAX, Verdict::More),
            (900, Verdict::Same),
            (899, Verdict::Fewer),
        ] {
            let findings = baseline(&[("a", 1_000)]).compare(&counts(&[("a", now)]), false);
            let (case, before, now) = ("a".into(), Some(1_000), Some(now));
            assert_eq!(findings, [Finding { case, before, now, verdict: expected }]);
        }
        assert!(Verdict::More.fails() && !Verdict::Same.fails() && !Verdict::Fewer.fails());
    }

    #[test]
    fn a_case_that_comes_or_goes_fails_unless_only_some_are_counted() {
        let baseline = baseline(&[("gone", 1), ("stays", 1)]);
        let now = counts(&[("new", 5), ("stays", 1)]);
        let verdicts = |partial| -> Vec<Verdict> {
            baseline.compare(&now, partial).iter().map(|finding| finding.verdict).collect()
        };
        assert_eq!(verdicts(false), [Verdict::Gone, Verdict::New, Verdict::Same]);
        assert_eq!(verdicts(true), [Verdict::New, Verdict::Same]);
        assert!(Verdict::Gone.fails() && Verdict::New.fails());
    }

    #[test]
    fn what_is_written_is_read() {
        let written = baseline(&[("wire/decode PUBLISH/1", 12_345), ("routing/lookup 1/10000", 7)]);
        assert_eq!(Baseline::parse(&written.render()), Ok(written));
    }

    #[test]
    fn a_broken_file_is_refused() {
        let good = baseline(&[("a", 1)]).render();
        for (from, to) in [("rustc =", "x ="), ("[instructions]", "[x]"), ("= 1\n", "= 0\n")] {
            assert!(Baseline::parse(&good.replace(from, to)).is_err(), "{from} as {to}");
        }
        assert!(Baseline::parse("=").is_err());
    }

    /// The gate has no hole: every case is in the committed file, and nothing else is.
    #[test]
    fn the_committed_file_has_every_case() {
        let committed = Baseline::parse(include_str!("../../instructions.toml")).unwrap();
        let cases = crate::counted_cases();
        let names: std::collections::BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
        let listed = committed.instructions.keys().collect();
        assert_eq!(names, listed, "bash .ci/instructions --accept");
    }
}

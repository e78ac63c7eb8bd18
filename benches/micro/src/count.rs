//! Instructions of a case, counted by callgrind: the program runs itself under valgrind, once for
//! each case, and only what `counted_from_here` calls is counted.
//!
//! An own runner of a page, because the well-kept one (gungraun 0.20) would cost more than it saves
//! here: its runner took 115 s of processor time to build without optimisation, in 172 crates; and
//! its baselines are profiles on one disk, so the file of committed numbers, the comparison and the
//! acceptance in [`crate::baseline`] would be needed all the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::{Case, Work, opaque};

/// The function that callgrind counts in, whichever way the compiler mangles it.
const COUNTED: &str = "*counted_from_here*";

/// glibc picks its copying by the processor, and the instructions of one that fills memory in a
/// single instruction are counted by the byte: a DELIVER to 1,000 users took 10,064 instructions
/// with it and 2,942 without. This chooses the same on every x86-64.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-ERMS,-FSRM";

/// What can go wrong with counting, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// There is no valgrind.
    #[error("valgrind cannot be run ({0}): bash .ci/instructions installs it")]
    Valgrind(io::Error),
    /// A case did not end well under valgrind.
    #[error("{case} failed under valgrind: {words}")]
    Case {
        /// Which.
        case: String,
        /// What it said.
        words: String,
    },
    /// No count was found.
    #[error("{case}: no instruction was counted; is {COUNTED} still a function of its own?")]
    Nothing {
        /// Of which case.
        case: String,
    },
    /// The folder for profiles cannot be used.
    #[error("{path}: {error}")]
    Profiles {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Does the case once to warm it and once to be counted. For the program under valgrind.
pub fn run(case: &Case) {
    let mut work = case.work();
    work.prepare();
    opaque(work.run());
    work.prepare();
    counted_from_here(work.as_mut());
}

/// Not inlined, and nothing after it is its last act: so callgrind sees it begin and end.
#[inline(never)]
fn counted_from_here(work: &mut dyn Work) {
    let elements = opaque(work.run());
    opaque(elements);
}

/// Instructions of each case, by name. `program` is called with `--run NAME`, as many at once as
/// there are processors; profiles are left in `profiles`.
///
/// # Errors
/// The first case that could not be counted.
pub fn count(
    program: &Path,
    cases: &[&str],
    profiles: &Path,
) -> Result<BTreeMap<String, u64>, CountError> {
    let refused = |error| CountError::Profiles { path: profiles.into(), error };
    fs::create_dir_all(profiles).map_err(refused)?;
    let (next, counted) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let count = count_one(program, case, profiles);
                    let mut counted = counted.lock().expect("nobody panics with it");
                    counted.push(count.map(|count| ((*case).to_owned(), count)));
                }
            });
        }
    });
    counted.into_inner().expect("nobody panics with it").into_iter().collect()
}

/// Where the profile of a case is left.
#[must_use]
pub fn profile(profiles: &Path, case: &str) -> PathBuf {
    profiles.join(format!("{}.callgrind", case.replace(['/', ' '], "_")))
}

fn count_one(program: &Path, case: &str, profiles: &Path) -> Result<u64, CountError> {
    let path = profile(profiles, case);
    let mut out_file = std::ffi::OsString::from("--callgrind-out-file=");
    out_file.push(&path);
    let done = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")])
        .arg(out_file)
        .arg(program)
        .args(["--run", case])
        .env("GLIBC_TUNABLES", TUNABLES)
        .stdin(Stdio::null())
        .output()
        .map_err(CountError::Valgrind)?;
    if !done.status.success() {
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        return Err(CountError::Case { case: case.into(), words });
    }
    let refused = |error| CountError::Profiles { path: path.clone(), error };
    let profile = fs::read_to_string(&path).map_err(refused)?;
    total(&profile).ok_or_else(|| CountError::Nothing { case: case.into() })
}

/// The total of a profile; `None` if nothing was counted.
fn total(profile: &str) -> Option<u64> {
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals:"))?;
    totals.trim().parse().ok().filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_profile_is_found() {
        let profile = "version: 1\nevents: Ir\nsummary: 7\n\nfn=(1) a\n0 7\ntotals: 7\n";
        assert_eq!(total(profile), Some(7));
        assert_eq!(total(&profile.replace('7', "0")), None, "nothing counted is no count");
        assert_eq!(total("version: 1\n"), None);
    }
}

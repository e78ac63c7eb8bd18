//! Ctrl-C, SIGTERM and the end of a terminal: the first ends the run in good order, so that servers
//! and folders go and what was measured is kept; a second one ends it at once.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::Failure;

/// Exit code of a program that SIGINT ended, as shells say it: 128 + 2.
const ENDED: i32 = 130;

/// Between two looks of code that waits for something else.
const LOOK: Duration = Duration::from_millis(50);

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on these signals only ask for an end. SIGHUP stays ignored where it was: whoever gave
/// `nohup` wants the run to outlive the terminal.
///
/// # Errors
/// The system refuses.
pub fn listen() -> Result<(), Failure> {
    let asked = ASKED.get_or_init(Arc::default);
    let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
        // In this order: the second signal finds the flag of the first.
        signal_hook::flag::register_conditional_shutdown(signal, ENDED, Arc::clone(asked))?;
        signal_hook::flag::register(signal, Arc::clone(asked))?;
    }
    Ok(())
}

/// Whether this process was started with a signal ignored; no, if the system does not tell.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// Whether the end was asked for.
#[must_use]
pub fn asked() -> bool {
    ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed))
}

/// Refuses to go on once the end was asked for.
///
/// # Errors
/// It was.
pub fn check() -> Result<(), Failure> {
    if asked() { Err(Failure::new("interrupted")) } else { Ok(()) }
}

/// Waits until the end is asked for.
pub(crate) async fn wait() {
    while !asked() {
        tokio::time::sleep(LOOK).await;
    }
}

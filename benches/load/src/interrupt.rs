//! Ctrl-C and SIGTERM: the first ends the run in good order, so that servers and folders go and
//! what was measured is kept; a second one ends it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::Failure;

/// Exit code of a program that SIGINT ended, as shells say it: 128 + 2.
const ENDED: i32 = 130;

/// Between two looks of code that waits for something else.
const LOOK: Duration = Duration::from_millis(50);

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on the two signals only ask for an end.
///
/// # Errors
/// The system refuses.
pub fn listen() -> Result<(), Failure> {
    let asked = ASKED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the second signal finds the flag of the first.
        signal_hook::flag::register_conditional_shutdown(signal, ENDED, Arc::clone(asked))?;
        signal_hook::flag::register(signal, Arc::clone(asked))?;
    }
    Ok(())
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

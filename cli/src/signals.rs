//! Asking a process to stop: the first signal drains, the second exits now.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Outcome};

/// SIGTERM and SIGINT (Ctrl-C) from here on.
pub(crate) struct Stops {
    term: Signal,
    int: Signal,
}

impl Stops {
    /// Begins to listen; before this a signal ends the process as it always does.
    pub(crate) fn listen() -> Outcome<Self> {
        let on = |kind| {
            signal(kind).map_err(|error| {
                Failure::failed(format_args!("cannot listen for signals: {error}"), "see the cause")
            })
        };
        Ok(Self { term: on(SignalKind::terminate())?, int: on(SignalKind::interrupt())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

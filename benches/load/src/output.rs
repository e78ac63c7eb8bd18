//! The only place of the bench that prints: data to stdout, talk to stderr.
//!
//! Progress is talk: one line that replaces itself on a terminal, a line for each row elsewhere.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::failure::Failure;

/// Writes text that ends its own lines to stdout. A reader that has gone is an ordinary end.
///
/// # Errors
/// The system's, for anything else.
pub fn text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Writes one line to stderr.
pub fn talk(words: impl Display) {
    let _nobody_listens = writeln!(io::stderr().lock(), "{words}");
}

/// How far a run is, on stderr.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Progress {
    /// Looks whether stderr is a terminal.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal() }
    }

    /// What is being done: shown instead of the last words, on a terminal only.
    pub fn show(&mut self, words: impl Display) {
        if self.terminal {
            let mut out = io::stderr().lock();
            let _nobody_listens = write!(out, "\r\x1b[2K{words}").and_then(|()| out.flush());
        }
    }

    /// What was done: a line, where there is no terminal.
    pub fn done(&mut self, words: impl Display) {
        if !self.terminal {
            talk(words);
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        self.show("");
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

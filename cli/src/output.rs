//! The only place that prints: data to stdout, talk to stderr.
//!
//! stdout is written here and not by `println!`, which panics when the reader has gone: a closed
//! stdout is an ordinary end (`waybill sub | head -1`). Every line is flushed, since whoever reads
//! a pipe waits for it. Talk never fails: a program without a stderr still does its work.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::{Failure, Outcome};

/// Whether data is for people or for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Lines for people.
    Human,
    /// One JSON value per line.
    Json,
}

impl Form {
    pub(crate) fn is_json(self) -> bool {
        self == Self::Json
    }
}

/// Writes one line of data.
pub(crate) fn line(text: impl Display) -> Outcome {
    write_out(format_args!("{text}\n"))
}

/// Writes text that ends its own lines.
pub(crate) fn text(text: &str) -> Outcome {
    write_out(format_args!("{text}"))
}

/// Writes one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}"), REPORT))?;
    line(text)
}

const REPORT: &str = "this is a mistake in waybill; please report it";

fn write_out(what: std::fmt::Arguments<'_>) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_fmt(what).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::failed(
            format!("cannot write to stdout: {error}"),
            "check where it is redirected to",
        ),
    })
}

/// Says something to the person at the terminal.
pub(crate) fn talk(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Tells why a command ended.
pub(crate) fn talk_failure(failure: &Failure) {
    let Some(words) = failure.words() else { return };
    let (red, plain) = if colours() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    talk(format_args!("{red}error:{plain} {}\n  help: {}", words.cause, words.remedy));
}

/// Whether stderr may be coloured: a terminal, and NO_COLOR is unset or empty (no-color.org).
pub(crate) fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

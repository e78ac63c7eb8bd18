//! The only place that prints: data to stdout, talk to stderr.
//!
//! stdout is written here and not by `println!`, which panics when the reader has gone: a closed
//! stdout is an ordinary end (`waybill sub | head -1`). Every line is flushed, since whoever reads
//! a pipe waits for it; a [`Page`] is before its owner waits. Talk never
//! fails: a program without a stderr still does its work.
//!
//! Words of peers and of files end up in talk, so all of it goes through [`printable`] here.

use std::borrow::Cow;
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

/// Lines of data that are written together: for what comes in pieces of many lines.
#[derive(Default)]
pub(crate) struct Page(String);

/// A page is written when it has so many bytes, whatever its owner does.
const PAGE_BYTES_MAX: usize = 64 << 10;

impl Page {
    /// Adds one line.
    pub(crate) fn line(&mut self, line: impl Display) -> Outcome {
        self.0.extend([&line.to_string(), "\n"]);
        if self.0.len() < PAGE_BYTES_MAX { Ok(()) } else { self.write() }
    }

    /// Adds one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Outcome {
        self.line(json_text(value)?)
    }

    /// Writes what there is.
    pub(crate) fn write(&mut self) -> Outcome {
        let written = if self.0.is_empty() { Ok(()) } else { text(&self.0) };
        self.0.clear();
        written
    }
}

/// Writes text that ends its own lines.
pub(crate) fn text(text: &str) -> Outcome {
    write_out(format_args!("{text}"))
}

/// Writes one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Outcome {
    line(json_text(value)?)
}

fn json_text(value: &impl Serialize) -> Outcome<String> {
    serde_json::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot write JSON: {error}"), REPORT))
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

/// Says something to the person at the terminal, in one line whatever the text holds.
pub(crate) fn talk(text: impl Display) {
    say("", &text.to_string());
}

/// The same for several lines, all of them our own words.
pub(crate) fn talk_lines(text: impl Display) {
    for line in text.to_string().lines() {
        talk(line);
    }
}

/// `before` is ours and may hold colours.
fn say(before: &str, text: &str) {
    let _ = writeln!(io::stderr().lock(), "{before}{}", printable(text));
}

/// Whether somebody looks at stderr: then long work shows how far it has come.
pub(crate) fn shows_progress() -> bool {
    io::stderr().is_terminal()
}

/// Shows how far it has come, in the place of what was shown before; our own words.
pub(crate) fn progress(text: impl Display) {
    let _ = write!(io::stderr().lock(), "\r\x1b[K{text}");
}

/// What is said next begins a line of its own.
pub(crate) fn progress_ended() {
    let _ = write!(io::stderr().lock(), "\r\x1b[K");
}

/// Tells why a command ended.
pub(crate) fn talk_failure(failure: &Failure) {
    let Some(words) = failure.words() else { return };
    let (red, plain) = if colours() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    say(&format!("{red}error:{plain} "), &shortened(&words.cause, TALK_CHARS_MAX));
    for line in words.shown.iter().flatten() {
        say("  ", line);
    }
    say("  help: ", &shortened(&words.remedy, TALK_CHARS_MAX));
}

/// Longest cause or remedy: what somebody else wrote into it may be of any length.
const TALK_CHARS_MAX: usize = 2_000;

/// Text of at most so many characters; an ellipsis stands for the rest.
pub(crate) fn shortened(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// What somebody typed, or wrote into a file, as an error repeats it.
pub(crate) fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text, QUOTED_CHARS_MAX))
}

/// Characters of a mistyped value that are enough to recognise it.
const QUOTED_CHARS_MAX: usize = 60;

/// Text that cannot play tricks on a terminal: control and format characters become escapes.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_format(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters without a shape that reorder, hide or break what stands around them. The two joiners
/// (U+200C, U+200D) do neither; scripts and emoji need them.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A number of bytes for people: three digits or four, and the unit.
pub(crate) fn bytes_in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1 << 10 {
        return format!("{bytes} B");
    }
    let (mut scaled, mut unit) = (bytes as f64 / 1024.0, 0);
    while scaled >= 1024.0 && unit + 1 < UNITS.len() {
        (scaled, unit) = (scaled / 1024.0, unit + 1);
    }
    let digits = if scaled < 9.995 { 2 } else { usize::from(scaled < 99.95) };
    format!("{scaled:.digits$} {}", UNITS[unit])
}

/// Whether stderr may be coloured: a terminal, and NO_COLOR is unset or empty (no-color.org).
pub(crate) fn colours() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_plays_tricks_on_a_terminal() {
        assert_eq!(printable("a\x1b[2J\u{9b}\n\t\u{7f}"), "a\\u{1b}[2J\\u{9b}\\n\\t\\u{7f}");
        for c in "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{feff}\u{2028}".chars() {
            assert_eq!(printable(&format!("a{c}b")), format!("a{}b", c.escape_default()));
        }
        let ordinary = "ä ش 日本 👩\u{200d}🚀 \"quoted\" \\";
        assert_eq!(printable(ordinary), ordinary);
    }

    #[test]
    fn bytes_are_told_in_a_unit_that_fits() {
        let told = [0, 1023, 1024, 1536, 10 << 20, 300 << 30, u64::MAX].map(bytes_in_words);
        let expected =
            ["0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 MiB", "300 GiB", "16384 PiB"];
        assert_eq!(told, expected);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(quoted(&"ä".repeat(60)), format!("{:?}", "ä".repeat(60)));
        assert_eq!(quoted(&"ä".repeat(61)), format!("\"{}…\"", "ä".repeat(60)));
    }
}

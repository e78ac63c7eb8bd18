//! What a command reads: files, or stdin as `-`.
//!
//! stdin is read on a thread of its own and handed over through a short channel, so that a slow
//! reader of ours stops whoever writes, and a silent terminal does not keep the program from
//! ending.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use tokio::sync::mpsc;

use crate::failure::{Failure, Outcome};
use crate::parse;

/// Lines read ahead of their use.
const LINES_MAX: usize = 256;

/// Longest line: a payload of the greatest size in base64, with room for a long UID list beside it.
const LINE_BYTES_MAX: u64 = 24 << 20;

/// Longest file of UIDs: some 50 million of them.
const UIDS_BYTES_MAX: usize = 1 << 30;

/// A file, or stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input(String);

/// For clap.
pub(crate) fn input(name: &str) -> Result<Input, String> {
    if name.is_empty() { Err("no file is named".into()) } else { Ok(Input(name.into())) }
}

/// One line without its end, or why there is none.
pub(crate) type Line = io::Result<Vec<u8>>;

impl Input {
    pub(crate) fn stdin() -> Self {
        Self("-".into())
    }

    pub(crate) fn is_stdin(&self) -> bool {
        self.0 == "-"
    }

    /// As told to people.
    pub(crate) fn name(&self) -> &str {
        if self.is_stdin() { "stdin" } else { &self.0 }
    }

    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        if self.is_stdin() {
            return Ok(Box::new(io::stdin()));
        }
        File::open(Path::new(&self.0)).map(|file| Box::new(file) as _)
    }

    /// All of it, at most `bytes_max`.
    pub(crate) fn read_all(&self, bytes_max: usize) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        let read =
            self.open().and_then(|input| input.take(bytes_max as u64 + 1).read_to_end(&mut bytes));
        read.map_err(|error| self.failure(&error))?;
        if bytes.len() > bytes_max {
            return Err(Failure::failed(
                format_args!("{} has more than {bytes_max} bytes", self.name()),
                "that is more than can be used here; give less",
            ));
        }
        Ok(bytes)
    }

    /// The UIDs in it, one a line; empty lines are passed over, but not an empty list. `flag` named
    /// it.
    pub(crate) fn uids(&self, flag: &str) -> Outcome<Vec<u64>> {
        let (name, mut uids) = (self.name(), Vec::new());
        let bytes = self.read_all(UIDS_BYTES_MAX)?;
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let text = String::from_utf8_lossy(line);
            let text = text.trim();
            if !text.is_empty() {
                let uid = parse::uid(text).map_err(|problem| {
                    let number = index + 1;
                    Failure::usage(
                        format_args!("{flag}: line {number} of {name}: {problem}"),
                        "write one UID a line",
                    )
                })?;
                uids.push(uid);
            }
        }
        if uids.is_empty() {
            return Err(Failure::usage(
                format_args!("{flag}: {name} holds no UID; an empty list never means everyone"),
                "put one UID a line into it",
            ));
        }
        Ok(uids)
    }

    /// Its lines as they come.
    pub(crate) fn lines(&self) -> Outcome<mpsc::Receiver<Line>> {
        let input = self.open().map_err(|error| self.failure(&error))?;
        let (sender, receiver) = mpsc::channel(LINES_MAX);
        std::thread::spawn(move || {
            let mut input = BufReader::new(input);
            while let Some(line) = next_line(&mut input) {
                let failed = line.is_err();
                if sender.blocking_send(line).is_err() || failed {
                    break;
                }
            }
        });
        Ok(receiver)
    }

    pub(crate) fn failure(&self, error: &io::Error) -> Failure {
        let remedy = match error.kind() {
            io::ErrorKind::InvalidData => {
                "that is more than a message can hold; give shorter lines"
            }
            _ => "check the path and its permissions",
        };
        Failure::failed(format_args!("cannot read {}: {error}", self.name()), remedy)
    }
}

fn next_line(input: &mut impl BufRead) -> Option<Line> {
    let mut line = Vec::new();
    match input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
        Ok(0) => return None,
        Ok(_) => {}
        Err(error) => return Some(Err(error)),
    }
    if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
        let words = format!("a line is longer than {} MiB", LINE_BYTES_MAX >> 20);
        return Some(Err(io::Error::new(io::ErrorKind::InvalidData, words)));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(Ok(line))
}

/// At most one argument may read stdin.
pub(crate) fn one_stdin(inputs: &[(&'static str, Option<&Input>)]) -> Outcome {
    let readers: Vec<&str> = inputs
        .iter()
        .filter(|(_, input)| input.is_some_and(Input::is_stdin))
        .map(|(flag, _)| *flag)
        .collect();
    match readers.as_slice() {
        [] | [_] => Ok(()),
        [first, second, ..] => Err(Failure::usage(
            format_args!("{first} and {second} both read stdin"),
            "put one of the two into a file",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_only() {
        let mut text = &b"a\r\n\n b \nlast"[..];
        let lines: Vec<_> =
            std::iter::from_fn(|| next_line(&mut text)).map(Result::unwrap).collect();
        assert_eq!(lines, [&b"a"[..], b"", b" b ", b"last"]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_a_matter_of_permissions() {
        let text = vec![b'x'; (24 << 20) + 1];
        let error = next_line(&mut &text[..]).unwrap().unwrap_err();
        let failure = Input::stdin().failure(&error);
        let words = failure.words().unwrap();
        assert_eq!(words.cause, "cannot read stdin: a line is longer than 24 MiB");
        assert!(words.remedy.contains("shorter lines"));
    }

    #[test]
    fn two_readers_of_stdin_are_named() {
        let (stdin, file) = (Input("-".into()), Input("x".into()));
        assert!(one_stdin(&[("--a", Some(&stdin)), ("--b", Some(&file)), ("--c", None)]).is_ok());
        let failure = one_stdin(&[("--a", Some(&stdin)), ("--c", Some(&stdin))]).unwrap_err();
        assert_eq!(failure.words().unwrap().cause, "--a and --c both read stdin");
    }
}

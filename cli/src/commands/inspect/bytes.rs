//! Bytes from what a person gives: hexadecimal text, or the bytes themselves.

use crate::failure::{Failure, Outcome};
use crate::input::Input;

/// How the bytes of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Hexadecimal if all of it is, else binary.
    Auto,
    /// Hexadecimal text.
    Hex,
    /// The bytes themselves.
    Bin,
}

/// Most bytes that are read.
const BYTES_MAX: usize = 1 << 30;

pub(super) fn of_input(input: &Input, format: Format) -> Outcome<Vec<u8>> {
    let bytes = input.read_all(BYTES_MAX)?;
    if format == Format::Bin {
        return Ok(bytes);
    }
    // No frame is text: its first byte is the version, a control character for a long time to come.
    let parsed = match std::str::from_utf8(&bytes) {
        Ok(text) => of_hex(text),
        Err(_) => Err("it is not text".into()),
    };
    match parsed {
        Ok(bytes) => Ok(bytes),
        Err(_) if format == Format::Auto => Ok(bytes),
        Err(problem) => Err(Failure::usage(
            format_args!("{}: {problem}", input.name()),
            "give hexadecimal text, or --format bin",
        )),
    }
}

/// Pairs of digits; white space, comments from `#` to the end of the line and `0x` are passed over.
pub(super) fn of_hex(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut high = None;
    for (index, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        for word in code.split_whitespace() {
            for c in word.strip_prefix("0x").unwrap_or(word).chars() {
                let digit = c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let Some(digit) = digit else {
                    let line = index + 1;
                    return Err(format!("{c:?} in line {line} is no hexadecimal digit"));
                };
                match high.take() {
                    None => high = Some(digit << 4),
                    Some(high) => bytes.push(high | digit),
                }
            }
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => Err("an odd number of hexadecimal digits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_with_white_space_and_comments() {
        assert_eq!(of_hex("01 0aFF # eleven\n0x20"), Ok(vec![1, 10, 255, 32]));
        assert_eq!(of_hex(""), Ok(vec![]));
        assert_eq!(of_hex("0"), Err("an odd number of hexadecimal digits".into()));
        assert_eq!(of_hex("00\n0g"), Err("'g' in line 2 is no hexadecimal digit".into()));
    }
}

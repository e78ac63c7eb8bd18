//! Bytes from what a person gives: hexadecimal text, or the bytes themselves; as they come.

use crate::failure::{Failure, Outcome};
use crate::input::Input;

/// How the bytes of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// Hexadecimal if it begins like that, else binary.
    Auto,
    /// Hexadecimal text.
    Hex,
    /// The bytes themselves.
    Bin,
}

/// Most bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Reads an input to its end and hands over the bytes of each piece. `wait` is called before each
/// read, which may last.
pub(super) fn of_input(
    input: &Input,
    format: Format,
    mut wait: impl FnMut() -> Outcome,
    mut take: impl FnMut(&[u8]) -> Outcome,
) -> Outcome {
    let mut reader = input.open().map_err(|error| input.failure(&error))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut hex = (format == Format::Hex).then(Hex::default);
    let mut undecided = format == Format::Auto;
    let wrong = |problem| {
        Failure::usage(
            format_args!("{}: {problem}", input.name()),
            "give hexadecimal text, or --format bin",
        )
    };
    loop {
        wait()?;
        let count = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(input.failure(&error)),
        };
        let piece = &chunk[..count];
        if std::mem::take(&mut undecided) && looks_like_hex(piece[0]) {
            hex = Some(Hex::default());
        }
        match &mut hex {
            None => take(piece)?,
            Some(hex) => take(&hex.feed(piece).map_err(wrong)?)?,
        }
    }
    take(&hex.unwrap_or_default().end().map_err(wrong)?)
}

/// No frame is text: its first byte is the version, a control character for a long time to come.
fn looks_like_hex(first: u8) -> bool {
    first.is_ascii_hexdigit() || first.is_ascii_whitespace() || first == b'#'
}

/// The bytes of a whole text.
pub(super) fn of_hex(text: &str) -> Result<Vec<u8>, String> {
    let mut hex = Hex::default();
    let mut bytes = hex.feed(text.as_bytes())?;
    bytes.extend(hex.end()?);
    Ok(bytes)
}

/// Pairs of digits; white space, comments from `#` to the end of the line and `0x` are passed over.
#[derive(Default)]
struct Hex {
    /// Line ends seen.
    lines: usize,
    in_comment: bool,
    in_word: bool,
    /// A 0 that begins a word: an `x` after it makes it no digit.
    zero: bool,
    high: Option<u8>,
}

impl Hex {
    /// The bytes that are complete after this piece.
    fn feed(&mut self, text: &[u8]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::with_capacity(text.len() / 2 + 1);
        for &c in text {
            let zero = std::mem::take(&mut self.zero);
            if zero && c == b'x' {
                continue;
            }
            if zero {
                self.digit(0, &mut bytes);
            }
            self.lines += usize::from(c == b'\n');
            match c {
                b'\n' => (self.in_comment, self.in_word) = (false, false),
                _ if self.in_comment => {}
                b'#' => self.in_comment = true,
                _ if c.is_ascii_whitespace() => self.in_word = false,
                b'0' if !self.in_word => (self.in_word, self.zero) = (true, true),
                _ => {
                    self.in_word = true;
                    let digit = char::from(c).to_digit(16).and_then(|it| u8::try_from(it).ok());
                    let Some(digit) = digit else {
                        let (shown, line) = (c.escape_ascii(), self.lines + 1);
                        return Err(format!("'{shown}' in line {line} is no hexadecimal digit"));
                    };
                    self.digit(digit, &mut bytes);
                }
            }
        }
        Ok(bytes)
    }

    fn digit(&mut self, digit: u8, bytes: &mut Vec<u8>) {
        match self.high.take() {
            None => self.high = Some(digit << 4),
            Some(high) => bytes.push(high | digit),
        }
    }

    /// The last byte, if it was held.
    fn end(mut self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        if self.zero {
            self.digit(0, &mut bytes);
        }
        match self.high {
            None => Ok(bytes),
            Some(_) => Err("an odd number of hexadecimal digits".into()),
        }
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
        assert_eq!(of_hex("1 0x2 0x 30 0#0x9"), Err("an odd number of hexadecimal digits".into()));
        assert_eq!(of_hex("1 0x2 # \u{e4} x"), Ok(vec![0x12]));
    }

    #[test]
    fn pieces_may_end_anywhere() {
        let text = b"01 0aFF # 0x\n0x20 0x0 0";
        for at in 0..text.len() {
            let mut hex = Hex::default();
            let parts = [&text[..at], &text[at..]].map(|part| hex.feed(part).unwrap());
            let bytes = [parts.concat(), hex.end().unwrap()].concat();
            assert_eq!(bytes, [1, 10, 255, 32, 0], "{at}");
        }
    }
}

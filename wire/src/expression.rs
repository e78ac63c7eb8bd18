//! Boolean expressions as people write them: the grammar of selectors and filters (5.1, 5.2).
//!
//! ```text
//! expression = blank, or, blank
//! or         = and, { blank, "|", blank, and }
//! and        = not, { blank, "&", blank, not }
//! not        = "!", blank, not | "(", blank, or, blank, ")" | term
//! ```
//!
//! A language brings its own `term`. What is read is a list of [`Node`]s in prefix order, of the
//! shape that the binary form has: no `and` in an `and`, no `or` in an `or`, no `not` in a `not`.
//! The stack is bounded by the parentheses that may be open, the list by the terms.

use std::fmt;

use crate::code::ErrorCode;

/// One node of an expression in prefix order: an operator comes before its operands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Node<T> {
    /// A term of the language.
    Term(T),
    /// That many operands follow, 2 or more, and all must be true.
    And(u8),
    /// That many operands follow, 2 or more, and one must be true.
    Or(u8),
    /// One operand follows and must not be true.
    Not,
}

/// Text that is no expression: what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextError {
    /// `limit`, `not_utf8` or `bad_expression`.
    pub code: ErrorCode,
    /// Bytes from the start of the text to the first that can't be; at most the text's length.
    pub position: usize,
    /// Registry name and value of the limit that was broken.
    pub limit: Option<(&'static str, usize)>,
    /// What is wrong there, in words for a person.
    pub words: &'static str,
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words)?;
        if let Some((name, value)) = self.limit {
            write!(f, " {name} {value}")?;
        }
        write!(f, ", at byte {}", self.position)
    }
}

impl std::error::Error for TextError {}

/// Bounds of one language.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of the text.
    pub(crate) bytes: (&'static str, usize),
    /// Terms.
    pub(crate) terms: (&'static str, usize),
    /// Parentheses open at once.
    pub(crate) depth: (&'static str, usize),
}

/// Reads a whole text; `term` reads a term where one begins, or says what is there instead.
pub(crate) fn read<'t, T>(
    text: &'t [u8],
    bounds: Bounds,
    term: impl FnMut(&mut Reader<'t>) -> Result<T, TextError>,
) -> Result<Vec<Node<T>>, TextError> {
    let (_, bytes_max) = bounds.bytes;
    if text.len() > bytes_max {
        return Err(above(bytes_max, bounds.bytes, "the text is longer than"));
    }
    let text = std::str::from_utf8(text).map_err(|error| TextError {
        code: ErrorCode::NOT_UTF8,
        position: error.valid_up_to(),
        limit: None,
        words: "the text is not UTF-8",
    })?;
    let reader = Reader { text, at: 0 };
    let mut parser = Parser { reader, bounds, term, nodes: Vec::new(), terms: 0, open: 0 };
    parser.row(Row::Or)?;
    let reader = parser.reader;
    match reader.peek() {
        None => Ok(parser.nodes),
        Some(b')') => Err(reader.wrong("this parenthesis closes nothing")),
        Some(_) => Err(reader.wrong("an operator, & or |, must stand between two terms")),
    }
}

/// A limit that is broken at `position`.
pub(crate) fn above(
    position: usize,
    limit: (&'static str, usize),
    words: &'static str,
) -> TextError {
    TextError { code: ErrorCode::LIMIT, position, limit: Some(limit), words }
}

/// A text and how much of it has been read.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'t> {
    text: &'t str,
    at: usize,
}

/// A word, or what stands between quotes, still with its backslashes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Literal<'t> {
    raw: &'t str,
    escapes: usize,
}

impl Literal<'_> {
    /// Bytes of what it says.
    pub(crate) fn len(self) -> usize {
        self.raw.len() - self.escapes
    }

    /// What it says.
    pub(crate) fn text(self) -> String {
        let mut escaped = false;
        let keeps = |character: &char| {
            escaped = self.escapes > 0 && *character == '\\' && !escaped;
            !escaped
        };
        self.raw.chars().filter(keeps).collect()
    }

    /// The bytes of what it says. A backslash stands before a byte of ASCII only.
    pub(crate) fn bytes(self) -> impl Iterator<Item = u8> {
        let mut bytes = self.raw.bytes();
        let escapes = self.escapes > 0;
        std::iter::from_fn(move || match bytes.next()? {
            b'\\' if escapes => bytes.next(),
            byte => Some(byte),
        })
    }
}

/// Whether a word may have this byte in it.
pub(crate) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"_-.:/@#+%=".contains(&byte)
}

impl<'t> Reader<'t> {
    /// How much has been read, in bytes.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Reads this byte of ASCII if it comes next.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
        let comes = self.peek() == Some(byte);
        self.at += usize::from(comes);
        comes
    }

    pub(crate) fn blanks(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    /// Reads all bytes that come next and are so. A character of several bytes is all so or not.
    pub(crate) fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'t str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| !is(byte)).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// Reads a word; an empty one, where none stands.
    pub(crate) fn word(&mut self) -> &'t str {
        self.take_while(is_word_byte)
    }

    /// Reads a word, or something in quotes.
    pub(crate) fn literal(&mut self) -> Result<Literal<'t>, TextError> {
        if self.take(b'"') {
            return self.quoted();
        }
        match self.word() {
            "" => Err(self.wrong("a term must stand here")),
            raw => Ok(Literal { raw, escapes: 0 }),
        }
    }

    /// What follows the quote that has been read, and the one that closes it.
    fn quoted(&mut self) -> Result<Literal<'t>, TextError> {
        let (start, mut escapes) = (self.at, 0);
        loop {
            match self.peek() {
                Some(b'"') if self.at == start => {
                    return Err(self.wrong("nothing stands between the quotes"));
                }
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Literal { raw, escapes });
                }
                Some(b'\\') => {
                    if !matches!(self.text.as_bytes().get(self.at + 1), Some(b'"' | b'\\')) {
                        return Err(self.wrong("a backslash stands before a quote or a backslash"));
                    }
                    escapes += 1;
                    self.at += 2;
                }
                Some(byte) if byte.is_ascii_control() => {
                    return Err(self.wrong("a control character can't be in quotes"));
                }
                Some(_) => self.at += 1,
                None => return Err(self.wrong("a quote is not closed")),
            }
        }
    }

    /// What comes next can't stand here.
    pub(crate) fn wrong(&self, words: &'static str) -> TextError {
        self.wrong_at(self.at, words)
    }

    pub(crate) fn wrong_at(&self, position: usize, words: &'static str) -> TextError {
        TextError { code: ErrorCode::BAD_EXPRESSION, position, limit: None, words }
    }
}

/// Operands with the same sign between them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Or,
    And,
}

struct Parser<'t, T, F> {
    reader: Reader<'t>,
    bounds: Bounds,
    term: F,
    nodes: Vec<Node<T>>,
    terms: usize,
    open: usize,
}

impl<'t, T, F> Parser<'t, T, F>
where
    F: FnMut(&mut Reader<'t>) -> Result<T, TextError>,
{
    fn row(&mut self, row: Row) -> Result<(), TextError> {
        let (start, mut operands) = (self.nodes.len(), 0u8);
        loop {
            self.reader.blanks();
            let at = self.nodes.len();
            let sign = match row {
                Row::Or => {
                    self.row(Row::And)?;
                    b'|'
                }
                Row::And => {
                    self.negated()?;
                    b'&'
                }
            };
            // No more than there are terms, which are counted.
            operands += self.absorb(at, row);
            self.reader.blanks();
            if !self.reader.take(sign) {
                break;
            }
        }
        if operands > 1 {
            let node = match row {
                Row::Or => Node::Or(operands),
                Row::And => Node::And(operands),
            };
            self.nodes.insert(start, node);
        }
        Ok(())
    }

    /// How many operands of a row the one at `at` is: one of the row's own kind gives its own.
    fn absorb(&mut self, at: usize, row: Row) -> u8 {
        match (&self.nodes[at], row) {
            (&Node::Or(operands), Row::Or) | (&Node::And(operands), Row::And) => {
                self.nodes.remove(at);
                operands
            }
            _ => 1,
        }
    }

    fn negated(&mut self) -> Result<(), TextError> {
        let mut negated = false;
        while self.reader.take(b'!') {
            self.reader.blanks();
            negated = !negated;
        }
        let at = self.nodes.len();
        self.operand()?;
        if negated && matches!(self.nodes[at], Node::Not) {
            self.nodes.remove(at);
        } else if negated {
            self.nodes.insert(at, Node::Not);
        }
        Ok(())
    }

    fn operand(&mut self) -> Result<(), TextError> {
        let start = self.reader.position();
        if !self.reader.take(b'(') {
            let term = (self.term)(&mut self.reader)?;
            self.terms += 1;
            if self.terms > self.bounds.terms.1 {
                return Err(above(start, self.bounds.terms, "this is one term more than"));
            }
            self.nodes.push(Node::Term(term));
            return Ok(());
        }
        if self.open == self.bounds.depth.1 {
            return Err(above(start, self.bounds.depth, "this is one parenthesis more than"));
        }
        self.open += 1;
        self.row(Row::Or)?;
        if !self.reader.take(b')') {
            return Err(self.reader.wrong("an operator or a closing parenthesis must stand here"));
        }
        self.open -= 1;
        Ok(())
    }
}

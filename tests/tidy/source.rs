//! Just enough of Rust's grammar to tell code from words: where comments, strings, functions and
//! tests begin and end. No macro is expanded and no type is known.

use std::ops::Range;

use crate::tree::File;

/// A source file with its comments and the contents of its strings blanked.
pub(crate) struct Source {
    /// As long as the text, with its line ends in their places.
    pub(crate) code: String,
    /// Byte ranges of what is compiled for tests only.
    tests: Vec<Range<usize>>,
}

/// A function, from `fn` to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) lines: usize,
}

impl Source {
    pub(crate) fn of(file: &File) -> Self {
        let code = blank(&file.text);
        // A program that lasts for minutes of real time is none.
        let is_test = (file.is_in(&["tests"]) && !file.is_in(&["tests/endure"]))
            || file.path.contains("/tests/")
            || file.path.ends_with("/tests.rs")
            || file.path.ends_with("_tests.rs");
        let mut tests = Vec::new();
        if is_test {
            tests.push(0..code.len());
        }
        for (at, _) in code.match_indices("#[cfg(test)]") {
            tests.push(at..end_of_item(&code, at).unwrap_or(code.len()));
        }
        Self { code, tests }
    }

    pub(crate) fn is_test(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// Lines that are compiled outside of tests, comments among them.
    pub(crate) fn lines_outside_tests(&self) -> usize {
        let mut start = 0;
        let mut lines = 0;
        for line in self.code.split_inclusive('\n') {
            lines += usize::from(!self.is_test(start));
            start += line.len();
        }
        lines
    }

    /// Line of a byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        1 + self.code[..at].matches('\n').count()
    }

    /// Places of a name or path that does not go on to either side.
    pub(crate) fn places(&self, name: &str) -> Vec<usize> {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        let found = self.code.match_indices(name).filter(|&(at, _)| {
            let before = self.code[..at].chars().next_back();
            let after = self.code[at + name.len()..].chars().next();
            let begins_earlier = name.starts_with(part) && before.is_some_and(part);
            let ends_later = name.ends_with(part) && after.is_some_and(part);
            !begins_earlier && !ends_later
        });
        found.map(|(at, _)| at).collect()
    }

    pub(crate) fn functions(&self) -> Vec<Function> {
        let named = |at: usize| {
            let rest = self.code[at + 2..].trim_start();
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            (end > 0).then(|| &rest[..end])
        };
        let function = |at: usize| {
            let (name, end) = (named(at)?, end_of_item(&self.code, at)?);
            let lines = self.code[at..end].matches('\n').count() + 1;
            Some(Function { name: name.into(), line: self.line(at), lines })
        };
        self.places("fn").into_iter().filter_map(function).collect()
    }
}

/// The end of the item that begins here: after its block, or after its semicolon.
fn end_of_item(code: &str, start: usize) -> Option<usize> {
    let (mut round, mut curly) = (0_usize, 0_usize);
    for (offset, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.checked_sub(1)?,
            b'{' => curly += 1,
            b'}' => {
                curly = curly.checked_sub(1)?;
                if curly == 0 && round == 0 {
                    return Some(offset + 1);
                }
            }
            b';' if round == 0 && curly == 0 => return Some(offset + 1),
            _ => {}
        }
    }
    None
}

fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kept, dropped) = token(rest, code.chars().next_back());
        code.push_str(&rest[..kept]);
        let blanked = &rest[kept..kept + dropped];
        code.extend(blanked.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        rest = &rest[kept + dropped..];
        debug_assert!(kept + dropped >= first.len_utf8());
    }
    debug_assert_eq!(code.len(), text.len());
    code
}

/// Bytes to keep, and bytes after them to blank.
fn token(rest: &str, before: Option<char>) -> (usize, usize) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    if rest.starts_with("//") {
        return (0, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (0, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (0, string(rest));
    }
    let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if let (false, Some(length)) = (in_name, raw_string(rest)) {
        return (0, length);
    }
    if rest.starts_with('\'') {
        return character(rest).map_or((1, 0), |length| (0, length));
    }
    (first, 0)
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a raw string, of bytes or of text, if one begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = ["br", "cr", "r"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let open = rest.len() - after.len() + hashes + 1;
    if !after[hashes..].starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    Some(rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len()))
}

/// Length of a character literal; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        let (after, _) = chars.nth(1)?;
        return rest[after..].find('\'').map(|at| after + at + 1);
    }
    let (at, quote) = chars.next()?;
    (quote == '\'').then_some(at + 1)
}

mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(&File { path: "room/src/a.rs".into(), text: text.into() })
    }

    #[test]
    fn words_are_no_code() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("b\"c") + d"#, "f(      ) + d"),
            (r##"f(r#"b"c"#)"##, "f(        )"),
            (r"('{', '\'', '\u{7d}')", "(   ,     ,         )"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("for r in bar {}", "for r in bar {}"),
        ] {
            assert_eq!(source(text).code, code, "{text}");
        }
    }

    #[test]
    fn functions_end_at_their_brace() {
        let text = "fn one() -> [u8; 2] {\n  if a { b }\n}\ntrait T {\n  fn two();\n}\n";
        let name = String::from;
        assert_eq!(
            source(text).functions(),
            [
                Function { name: name("one"), line: 1, lines: 3 },
                Function { name: name("two"), line: 5, lines: 1 },
            ]
        );
        assert_eq!(source("type F = fn(u8) -> u8;").functions(), []);
    }

    #[test]
    fn tests_are_known_as_tests() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\nfn c() {}\n";
        let source = source(text);
        assert_eq!(source.lines_outside_tests(), 2);
        assert_eq!(source.places("fn").iter().filter(|at| source.is_test(**at)).count(), 1);
    }

    #[test]
    fn names_are_whole() {
        assert_eq!(source("unsafe_code; x.unsafe; unsafe { }").places("unsafe").len(), 2);
        assert_eq!(source("x.await; await_all").places(".await").len(), 1);
    }
}

//! A text on one line, and on the next a mark under the place where it is wrong.
//!
//! The text is somebody's: it is made printable, and of a long one only what is around the place is
//! shown. Columns are counted as terminals do, two for the wide characters of East Asia.

use crate::output::printable;

/// Columns shown before the place, and from it on.
const BEFORE_MAX: usize = 50;
const AFTER_MAX: usize = 25;

/// Stands for what is not shown.
const CUT: &str = "…";

/// The two lines; `position` is a byte of `text`, or its length.
pub(crate) fn pointed(text: &str, position: usize) -> [String; 2] {
    let (mut before, mut after) = (Vec::new(), String::new());
    let mut after_columns = 0;
    for (at, character) in text.char_indices() {
        let shown = printable(character.encode_utf8(&mut [0; 4]));
        let columns = shown.chars().map(columns).sum::<usize>();
        if at < position {
            before.push((shown, columns));
        } else if after_columns + columns <= AFTER_MAX {
            after_columns += columns;
            after.push_str(&shown);
        } else {
            after.push_str(CUT);
            break;
        }
    }
    let mut width = 0;
    let kept = before.iter().rev().take_while(|(_, columns)| {
        width += columns;
        width <= BEFORE_MAX
    });
    let kept = kept.count();
    let shown = &before[before.len() - kept..];
    let cut = if kept < before.len() { CUT } else { "" };
    let width: usize =
        cut.chars().count() + shown.iter().map(|(_, columns)| columns).sum::<usize>();
    let shown: String = shown.iter().map(|(shown, _)| &shown[..]).collect();
    [format!("{cut}{shown}{after}"), format!("{}^", " ".repeat(width))]
}

/// Columns that a terminal gives a character: the blocks of Unicode's East Asian Width "wide", near
/// enough for a mark below.
fn columns(character: char) -> usize {
    let wide = matches!(character,
        '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{fe30}'..='\u{fe6f}' | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}' | '\u{1f300}'..='\u{1faff}' | '\u{20000}'..='\u{3fffd}');
    1 + usize::from(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, position: usize, expected: [&str; 2]) {
        assert_eq!(pointed(text, position), expected, "{text:?} at {position}");
    }

    #[test]
    fn the_mark_stands_under_the_place() {
        check("a b", 2, ["a b", "  ^"]);
        check("a | ", 4, ["a | ", "    ^"]);
        check("", 0, ["", "^"]);
        check("ä b", 3, ["ä b", "  ^"]);
        check("上海 b", 7, ["上海 b", "     ^"]);
        check("a\nb\u{1b}c", 4, ["a\\nb\\u{1b}c", "          ^"][..].try_into().unwrap());
    }

    #[test]
    fn a_long_text_is_shown_around_the_place() {
        let text = format!("{} {}", "a".repeat(80), "b".repeat(80));
        let expected =
            [format!("…{} {}…", "a".repeat(49), "b".repeat(25)), format!("{}^", " ".repeat(51))];
        assert_eq!(pointed(&text, 81), expected);
    }
}

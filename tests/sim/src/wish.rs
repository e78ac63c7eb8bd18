//! Selectors as a run makes them up, and judges them: an expression over a few tags, with an answer
//! of its own for what is not known. It shares nothing with the product but the text.

use std::fmt;

use crate::chance::Chance;

/// Tags that users have and get while faults happen.
pub(crate) const TAGS: u8 = 6;

/// The tag that everybody is given at the end.
pub(crate) const LAST_TAG: u8 = TAGS;

/// Which connections a message is for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Has(u8),
    Not(Box<Wish>),
    All(Vec<Wish>),
    Any(Vec<Wish>),
}

/// How a tag is written.
pub(crate) fn text_of(tag: u8) -> String {
    format!("t:{tag}")
}

impl Wish {
    /// Any that is no deeper than this.
    pub(crate) fn any(chance: &mut Chance, depth: usize) -> Self {
        let inner = |chance: &mut Chance| Self::any(chance, depth - 1);
        match if depth == 0 { 0 } else { chance.below(5) } {
            0 | 1 => Self::Has(u8::try_from(chance.below(TAGS.into())).expect("a few")),
            2 => Self::Not(Box::new(inner(chance))),
            3 => Self::All((0..chance.between(2, 3)).map(|_| inner(chance)).collect()),
            _ => Self::Any((0..chance.between(2, 3)).map(|_| inner(chance)).collect()),
        }
    }

    /// Whether it is true of a connection, by what is known of its tags; `None` if that depends on
    /// what is not known.
    pub(crate) fn judge(&self, has: &impl Fn(u8) -> Option<bool>) -> Option<bool> {
        let unless = |of: &[Self], decides: bool| {
            let mut all = Some(!decides);
            for one in of {
                match one.judge(has) {
                    Some(value) if value == decides => return Some(decides),
                    None => all = None,
                    Some(_) => {}
                }
            }
            all
        };
        match self {
            Self::Has(tag) => has(*tag),
            Self::Not(inner) => inner.judge(has).map(|value| !value),
            Self::All(of) => unless(of, false),
            Self::Any(of) => unless(of, true),
        }
    }

    fn list(f: &mut fmt::Formatter<'_>, of: &[Self], between: &str) -> fmt::Result {
        for (place, one) in of.iter().enumerate() {
            write!(f, "{}{one}", if place == 0 { "(" } else { between })?;
        }
        write!(f, ")")
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Has(tag) => f.write_str(&text_of(*tag)),
            Self::Not(inner) => write!(f, "!({inner})"),
            Self::All(of) => Self::list(f, of, " & "),
            Self::Any(of) => Self::list(f, of, " | "),
        }
    }
}

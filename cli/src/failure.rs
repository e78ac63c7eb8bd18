//! How a command ends when it does not succeed: an exit code, a cause and a remedy.
//!
//! One line says what happened and one what to do about it; both go to stderr in `main`. Exit code
//! 1 is a command that failed, 2 one that could not be understood (arguments, settings), 3 a
//! question whose answer is no.

use std::fmt::Display;

use crate::pointed::pointed;

/// The result of a command and of its steps.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command ends early.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It was understood and could not be done: exit 1.
    Failed(Words),
    /// Its arguments or settings cannot be used: exit 2.
    Usage(Words),
    /// It has said all there is to say and exits with 1.
    Said,
    /// It was done, and what it has told is that nobody would be reached: exit 3.
    Nobody,
    /// Nobody reads stdout any more: end without a word.
    StdoutClosed,
}

/// What is told about a failure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// What happened: one line.
    pub(crate) cause: String,
    /// What to do about it: one line.
    pub(crate) remedy: String,
    /// What it is about, with a mark under the place.
    pub(crate) shown: Option<[String; 2]>,
}

impl Failure {
    pub(crate) fn failed(cause: impl Display, remedy: impl Display) -> Self {
        Self::Failed(Words::new(cause, remedy))
    }

    pub(crate) fn usage(cause: impl Display, remedy: impl Display) -> Self {
        Self::Usage(Words::new(cause, remedy))
    }

    /// A text in the arguments that is wrong at one of its bytes.
    pub(crate) fn usage_at(
        cause: impl Display,
        remedy: impl Display,
        (text, position): (&str, usize),
    ) -> Self {
        Self::Usage(Words { shown: Some(pointed(text, position)), ..Words::new(cause, remedy) })
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::StdoutClosed => 0,
            Self::Failed(_) | Self::Said => 1,
            Self::Usage(_) => 2,
            Self::Nobody => 3,
        }
    }

    pub(crate) fn words(&self) -> Option<&Words> {
        match self {
            Self::Failed(words) | Self::Usage(words) => Some(words),
            Self::Said | Self::Nobody | Self::StdoutClosed => None,
        }
    }
}

impl Words {
    fn new(cause: impl Display, remedy: impl Display) -> Self {
        Self { cause: cause.to_string(), remedy: remedy.to_string(), shown: None }
    }
}

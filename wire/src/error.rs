//! What can be wrong with bytes, with their order, and with what a caller wants to send.
//!
//! [`Malformed`] blames the sender's bytes (codes 101-199), [`Violation`] the order of its frames
//! (2xx), [`Unencodable`] the caller of this crate. "More bytes are needed" is not an error. All
//! are `Copy` and allocate nothing; `Display` is one sentence for a person, ending in the id of the
//! requirement that was broken, and is what goes into an ERROR's `detail`.

use std::fmt;

use crate::code::{ErrorCode, Kind};

/// Bytes that the contract refuses (codes 101-199).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The code to report.
    pub code: ErrorCode,
    /// Requirement that was broken, such as `FRAME-4`.
    pub rule: &'static str,
    /// Kind byte as received; 0 if the version is not spoken, so that it says nothing (SES-13).
    pub kind: Kind,
    /// The field and what is wrong with it.
    pub what: What,
}

/// A field, its value, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    /// Name of the field or part in the specification.
    pub field: &'static str,
    /// Value it has.
    pub value: u64,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Above a limit: its registry name and value.
    Above(&'static str, u64),
    /// Below a minimum: its name and value.
    Below(&'static str, u64),
    /// Not a registered value.
    Unregistered,
    /// A part needs more bytes than are left; `value` is what it needs.
    Leaves(u64),
    /// Bytes that must be zero are not.
    NotZero,
    /// Text that is not UTF-8.
    NotText,
    /// Another rule, said in words: "must ...".
    Must(&'static str),
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, problem } = self;
        match problem {
            Problem::Above(name, limit) => write!(f, "{field} {value} is above {name} {limit}"),
            Problem::Below(name, limit) => write!(f, "{field} {value} is below {name} {limit}"),
            Problem::Unregistered => write!(f, "{field} {value} is not registered"),
            Problem::Leaves(left) => {
                write!(f, "{field} needs {value} bytes where the header has {left} left")
            }
            Problem::NotZero => write!(f, "{field} must be zero and is {value:#x}"),
            Problem::NotText => write!(f, "{field} is not UTF-8 from its byte {value} on"),
            Problem::Must(words) => write!(f, "{field} {value} must {words}"),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.what, self.rule)
    }
}

impl std::error::Error for Malformed {}

/// A frame that may not come now, or a silence that was too long (codes 201-299), or a request that
/// ends the link although its bytes are right (3xx to 5xx in answer to HELLO, for one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The code to report.
    pub code: ErrorCode,
    /// Kind of the frame it is about; 0 for none.
    pub kind: Kind,
    /// Sequence or version of that frame; 0 for none.
    pub reference: u64,
    /// What is wrong.
    pub what: Breach,
}

/// What is wrong with a frame's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// Said in words.
    Words(&'static str),
    /// A frame of this kind may not be sent by this end, said in words.
    Sender(&'static str),
    /// A number is not the one that was due: field, value, value due.
    Due(&'static str, u64, u64),
    /// A number is not above the last one: field, value, last value.
    NotAbove(&'static str, u64, u64),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Breach::Words(words) => f.write_str(words)?,
            Breach::Sender(who) => write!(f, "{} may not be sent by a {who}", self.kind)?,
            Breach::Due(field, value, due) => {
                write!(f, "{field} {value} came where {due} was due")?;
            }
            Breach::NotAbove(field, value, last) => {
                write!(f, "{field} {value} is not above the last one, {last}")?;
            }
        }
        write!(f, " [{}]", self.code)
    }
}

impl std::error::Error for Violation {}

/// A frame that the caller asked for and the contract does not allow. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unencodable {
    /// Code that a receiver would have reported.
    pub code: ErrorCode,
    /// Requirement that would be broken.
    pub rule: &'static str,
    /// Kind of the frame.
    pub kind: Kind,
    /// The field, its value and the limit.
    pub what: What,
}

impl From<Malformed> for Unencodable {
    fn from(Malformed { code, rule, kind, what }: Malformed) -> Self {
        Self { code, rule, kind, what }
    }
}

impl fmt::Display for Unencodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot encode {}: {} [{}]", self.kind, self.what, self.rule)
    }
}

impl std::error::Error for Unencodable {}

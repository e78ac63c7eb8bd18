//! A selector as the application holds it: bytes that have been checked, and are shared.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use waybill_wire::code::ErrorCode;
use waybill_wire::error::{Problem, What};
use waybill_wire::limits::SELECTOR_BYTES_MAX;
use waybill_wire::selector::{self, Flaw, TextError};

/// Which connections a message is for, by their tags:
/// `group:42 & (geo:sh | geo:bj) & !platform:ios`.
///
/// `!` binds closest, then `&`, then `|`. A tag that has anything but letters, digits, and
/// `_ - . : / @ # + % =` in it stands in quotes.
///
/// ```
/// use waybill_client::{Publish, Selector};
/// let selector: Selector = "group:42 & !\"muted today\"".parse().unwrap();
/// let publish = Publish::matching(selector).payload("news");
/// assert!(publish.check().is_ok());
/// let wrong = "group:42 muted".parse::<Selector>().unwrap_err();
/// assert_eq!(wrong.position, 9);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Selector(Bytes);

impl Selector {
    /// The selector that this text says.
    ///
    /// # Errors
    ///
    /// Where the text can't be a selector, in bytes from its start, and why; or the limit that it
    /// breaks.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        selector::parse(text).map(|bytes| Self(bytes.into()))
    }

    /// The selector with these bytes, which are those of the protocol.
    ///
    /// # Errors
    ///
    /// The first rule of the protocol that they break.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, Flaw> {
        let bytes = bytes.into();
        if bytes.len() > SELECTOR_BYTES_MAX {
            let problem = Problem::Above("selector_bytes_max", SELECTOR_BYTES_MAX as u64);
            let what = What { field: "bytes of a selector", value: bytes.len() as u64, problem };
            return Err(Flaw { code: ErrorCode::LIMIT, rule: "MSG-6", what });
        }
        selector::Selector::check(&bytes)?;
        Ok(Self(bytes))
    }

    /// Its bytes, as they go into a message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the codec takes it.
    pub(crate) fn checked(&self) -> selector::Selector<'_> {
        selector::Selector::check(&self.0).expect("it was checked when it was made")
    }
}

impl FromStr for Selector {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        Self::parse(text)
    }
}

/// The plainest text that says the same.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.checked().fmt(f)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.checked(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_are_the_same_selector() {
        let selector = Selector::parse("vip&!(ios)").expect("is one");
        assert_eq!(selector.to_string(), "vip & !ios");
        assert_eq!(Selector::from_bytes(selector.as_bytes().to_vec()), Ok(selector));
    }

    #[test]
    fn what_no_message_may_carry_is_refused_here() {
        let wrong = Selector::from_bytes(&b"\x04\x04\x01\x01a"[..]).expect_err("not of a not");
        assert_eq!((wrong.code, wrong.rule), (ErrorCode::BAD_VALUE, "SEL-3"));
        let term = [&[1, 64][..], &[b'l'; 64]].concat();
        let long = [&[3, 64][..], &term.repeat(64)].concat();
        let wrong = Selector::from_bytes(long).expect_err("is too long");
        assert_eq!(
            wrong.to_string(),
            "bytes of a selector 4226 is above selector_bytes_max 4096 [MSG-6]"
        );
    }
}

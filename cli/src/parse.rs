//! Values people type: UID lists, durations, the registry's names.
//!
//! Each parser's error names what is possible. They serve clap, lines of `pub --lines` and
//! files of UIDs alike, so that a value means the same wherever it stands.

use std::time::Duration;

use waybill_client::{ReceiptLevel, Selector, TextError};
use waybill_wire::code::{ContentType, ErrorCode, Mode, PRIVATE_USE, Priority};
use waybill_wire::limits::TAG_BYTES_MAX;
use waybill_wire::selector::is_tag;

use crate::failure::{Failure, Outcome};
use crate::output::quoted;

/// One UID in decimal.
pub(crate) fn uid(text: &str) -> Result<u64, String> {
    // `parse` would also take a leading plus sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = digits.then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| {
        format!("{} is not a UID: a whole number from 0 to {}", quoted(text), u64::MAX)
    })
}

/// UIDs separated by commas, at least one.
pub(crate) fn uids(text: &str) -> Result<Uids, String> {
    if text.trim().is_empty() {
        return Err("the UID list is empty: name at least one UID".into());
    }
    text.split(',').map(|part| uid(part.trim())).collect::<Result<_, _>>().map(Uids)
}

/// One value of a flag that takes a comma list; clap would take a plain `Vec` for a repeated value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uids(pub(crate) Vec<u64>);

/// The UIDs of a flag given several times.
pub(crate) fn joined(lists: &[Uids]) -> Vec<u64> {
    lists.iter().flat_map(|list| list.0.iter().copied()).collect()
}

/// A tag.
pub(crate) fn tag(text: &str) -> Result<String, String> {
    match is_tag(text) {
        true => Ok(text.into()),
        false => Err(format!(
            "{} is no tag: 1 to {TAG_BYTES_MAX} bytes without control characters",
            quoted(text)
        )),
    }
}

/// A selector; the error of a mistaken one shows where it is.
pub(crate) fn selector(flag: &str, text: &str) -> Outcome<Selector> {
    text.parse().map_err(|error: TextError| {
        Failure::usage_at(
            format_args!("{flag}: {error}"),
            "write tags with &, |, ! and parentheses, as in 'group:42 & !(ios | \"two words\")'",
            (text, error.position),
        )
    })
}

/// A duration such as `500ms`, `5s`, `2m`, `1h` or `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{} is not a duration: a whole number and ms, s, m, h or d", quoted(text));
    let at = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}

/// A mode by its registry name.
pub(crate) fn mode(name: &str) -> Result<Mode, String> {
    Mode::from_name(name).ok_or_else(|| no_such("mode", name, Mode::ALL.iter().map(|(n, _)| *n)))
}

/// What a producer is told.
pub(crate) fn receipt(name: &str) -> Result<ReceiptLevel, String> {
    let levels = [
        ("none", ReceiptLevel::None),
        ("routed", ReceiptLevel::Routed),
        ("delivered", ReceiptLevel::Delivered),
    ];
    let found = levels.iter().find(|(known, _)| *known == name);
    found
        .map(|(_, level)| *level)
        .ok_or_else(|| no_such("receipt", name, levels.iter().map(|(known, _)| *known)))
}

/// A priority a producer may use.
pub(crate) fn priority(name: &str) -> Result<Priority, String> {
    let usable = || Priority::ALL.iter().filter(|(_, priority)| *priority != Priority::CONTROL);
    let found = usable().find(|(known, _)| *known == name);
    found
        .map(|(_, priority)| *priority)
        .ok_or_else(|| no_such("priority", name, usable().map(|(known, _)| *known)))
}

/// A content type by its registry name, or a number for private use.
pub(crate) fn content_type(name: &str) -> Result<ContentType, String> {
    let private = || name.parse().ok().filter(|number| *number >= PRIVATE_USE).map(ContentType);
    ContentType::from_name(name).or_else(private).ok_or_else(|| {
        let names = ContentType::ALL.iter().map(|(known, _)| *known);
        format!("{}, or a number from {PRIVATE_USE} to 65535", no_such("content type", name, names))
    })
}

/// An error code by its registry name or its number.
pub(crate) fn error_code(name: &str) -> Result<ErrorCode, String> {
    let number = || name.parse().ok().filter(|number| *number != 0).map(ErrorCode);
    ErrorCode::from_name(name).or_else(number).ok_or_else(|| {
        format!("{} is no error code: a name of the registry, or a number", quoted(name))
    })
}

fn no_such<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    format!("{} is no {what}: {}", quoted(name), known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_lists() {
        assert_eq!(uids("1001"), Ok(Uids(vec![1001])));
        assert_eq!(uids("1, 18446744073709551615"), Ok(Uids(vec![1, u64::MAX])));
        for wrong in ["", " ", ",", "1,", "-1", "+1", "1.0", "18446744073709551616", "alice"] {
            assert!(uids(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [("500ms", 500), ("5s", 5000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for wrong in ["", "5", "s", "5 s", "-1s", "1.5s", "5w", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_of_the_registry() {
        assert_eq!(mode("auto"), Ok(Mode::AUTO));
        assert_eq!(mode("x"), Err("\"x\" is no mode: direct, broadcast, auto".into()));
        assert_eq!(priority("high"), Ok(Priority::HIGH));
        let error = priority("control").unwrap_err();
        assert_eq!(error, "\"control\" is no priority: normal, bulk, high");
        assert_eq!(content_type("json"), Ok(ContentType::JSON));
        assert_eq!(content_type("40000"), Ok(ContentType(40_000)));
        assert!(content_type("6").is_err());
        assert_eq!(error_code("no_consumer"), Ok(ErrorCode::NO_CONSUMER));
        assert!(error_code("0").is_err());
    }
}

//! What is asked: a message without its payload, as JSON, and the PUBLISH it would be.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use waybill_wire::code::{Kind, Level, Mode};
use waybill_wire::limits::{EXCEPT_MAX, PAYLOAD_BYTES_MAX, SELECTOR_TEXT_BYTES_MAX, TARGETS_MAX};
use waybill_wire::message::MessageHead;
use waybill_wire::selector::{self, Selector};
use waybill_wire::targets::Uids;

/// Bytes of a question as JSON, at most: both lists at their limit with 24 bytes for each UID, a
/// selector each of whose bytes is escaped, and the rest.
pub const QUESTION_BYTES_MAX: usize =
    24 * (TARGETS_MAX + EXCEPT_MAX) + 6 * SELECTOR_TEXT_BYTES_MAX + 1_024;

/// A message that somebody could publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Question {
    /// The tenant.
    pub namespace: u32,
    /// Who it is for: 1 to `targets_max` users.
    pub users: Vec<UserId>,
    /// It is for everyone in the namespace; without a list.
    pub everyone: bool,
    /// Only for connections that match, of the list or of everyone.
    pub selector: Option<String>,
    /// Users that get nothing.
    pub except: Vec<UserId>,
    /// `direct`, `broadcast` or `auto`.
    pub mode: String,
    /// What the producer would be told: `none`, `routed` or `delivered`.
    pub receipt: String,
    /// Bytes of its payload.
    pub payload_bytes: usize,
}

impl Default for Question {
    /// As a publish that says nothing of it.
    fn default() -> Self {
        Self {
            namespace: 0,
            users: Vec::new(),
            everyone: false,
            selector: None,
            except: Vec::new(),
            mode: "direct".into(),
            receipt: "routed".into(),
            payload_bytes: 0,
        }
    }
}

/// A UID as it stands in JSON: written as a string, since not every reader of JSON has 64-bit
/// numbers, read from a string or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub u64);

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u64),
            Text(String),
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
        let uid = match Either::deserialize(deserializer) {
            Ok(Either::Number(uid)) => Some(uid),
            // `parse` would also take a leading plus sign.
            Ok(Either::Text(text)) => text.parse().ok().filter(|_| digits(&text)),
            Err(_) => None,
        };
        let words = || D::Error::custom(format_args!("no UID: 0 to {}, in decimal", u64::MAX));
        uid.map(Self).ok_or_else(words)
    }
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Mistake {
    /// The field of the question; empty if it is none, or all of it.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
    /// The byte of a selector's text at which it is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
}

impl Mistake {
    pub(crate) fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into(), position: None }
    }
}

impl Question {
    /// The PUBLISH it would be, but for its payload.
    pub(super) fn publish(&self) -> Result<Vec<u8>, Mistake> {
        self.check()?;
        let selector = match self.selector.as_deref().map(selector::parse).transpose() {
            Ok(bytes) => bytes,
            Err(error) => {
                let position = Some(error.position);
                return Err(Mistake { position, ..Mistake::new("selector", error.to_string()) });
            }
        };
        let selector = selector.as_deref().map(Selector::check).transpose();
        let selector = selector.map_err(|flaw| Mistake::new("selector", flaw.to_string()))?;
        let plain = |users: &[UserId]| users.iter().map(|user| user.0).collect::<Vec<_>>();
        let (users, except) = (plain(&self.users), plain(&self.except));
        let head = MessageHead {
            everyone: users.is_empty() && selector.is_none(),
            mode: mode(&self.mode)?,
            level: level(&self.receipt)?,
            sequence: 1,
            namespace: self.namespace,
            selector,
            except: Uids::Slice(&except),
            ..MessageHead::default()
        };
        let mut out = Vec::new();
        let encoded = head.encode(Kind::PUBLISH, &users[..], &[], &mut out);
        encoded.map_err(|error| Mistake::new("", error.to_string()))?;
        Ok(out)
    }

    fn check(&self) -> Result<(), Mistake> {
        let no = |field: &str, reason: String| Err(Mistake::new(field, reason));
        if self.users.is_empty() && !self.everyone && self.selector.is_none() {
            let words = "nobody is asked about: give users, a selector, or everyone = true";
            return no("users", words.into());
        }
        if self.everyone && !self.users.is_empty() {
            return no("everyone", "it excludes users: leave out one of the two".into());
        }
        let limits = [
            ("users", self.users.len(), "targets_max", TARGETS_MAX),
            ("except", self.except.len(), "except_max", EXCEPT_MAX),
            ("payload_bytes", self.payload_bytes, "payload_bytes_max", PAYLOAD_BYTES_MAX),
        ];
        for (field, value, name, most) in limits {
            if value > most {
                return no(field, format!("{value} is above {name}, which is {most}"));
            }
        }
        Ok(())
    }
}

fn mode(name: &str) -> Result<Mode, Mistake> {
    Mode::from_name(name).ok_or_else(|| no_such("mode", name, Mode::ALL.iter().map(|it| it.0)))
}

fn level(name: &str) -> Result<Level, Mistake> {
    let known = [Level::NONE, Level::ROUTED, Level::DELIVERED];
    let found = known.into_iter().find(|level| level.name() == Some(name));
    found.ok_or_else(|| no_such("receipt", name, known.iter().filter_map(|it| it.name())))
}

fn no_such<'a>(field: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Mistake {
    let known: Vec<&str> = known.collect();
    Mistake::new(field, format!("there is no {name:?}: {}", known.join(", ")))
}

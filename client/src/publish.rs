//! A publish as the application sees it, and the rules it is held to before anything is queued.
//!
//! A UID list may be of any length here; the producer's machine cuts it into parts of `targets_max`
//! and sums their receipts. Stored class and level acknowledged are not offered: a broker of this
//! draft refuses them.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use waybill_wire::code::{ContentType, Encoding, Mode, PRIVATE_USE, Priority};
use waybill_wire::limits::{
    EXCEPT_MAX, LABEL_BYTES_MAX, LABELS_MAX, MESSAGE_BYTES_MAX, TARGETS_MAX,
};
use waybill_wire::message::Content;

use crate::error::InvalidPublish;
use crate::selector::Selector;

/// Who a publish is for, apart from [`Publish::except`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// These users. An empty list is an error, never everyone.
    Uids(Vec<u64>),
    /// Every user of the namespace.
    Everyone,
    /// The connections that a selector is true for.
    Matching(Selector),
    /// Of these users the connections that a selector is true for. An empty list is an error, never
    /// everyone who matches.
    UidsMatching(Vec<u64>, Selector),
}

/// What the producer wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ReceiptLevel {
    /// Nothing: the publish is settled when it has been written to the socket. A refusal is counted
    /// and logged.
    None,
    /// What the broker did with each target.
    #[default]
    Routed,
    /// What gateways did with each target.
    Delivered,
}

/// One message and who it is for.
///
/// ```
/// # use std::time::Duration;
/// use waybill_client::Publish;
/// let publish = Publish::to([1001, 1002])
///     .payload("order 7 was paid")
///     .label("order.paid")
///     .ttl(Duration::from_secs(30));
/// assert!(publish.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The tenant.
    pub namespace: u32,
    /// Who it is for.
    pub audience: Audience,
    /// UIDs taken away from the audience, at most `except_max`.
    pub except: Vec<u64>,
    /// How it gets there; changes the cost, never the recipients.
    pub mode: Mode,
    /// What the producer wants to be told.
    pub level: ReceiptLevel,
    /// Priority; `control` is not allowed.
    pub priority: Priority,
    /// Time to live from the broker's receipt on, whole milliseconds; `None` = no limit.
    pub ttl: Option<Duration>,
    /// What the message is about, for consumers' filters: at most `labels_max` of 1 to
    /// `label_bytes_max` bytes.
    pub labels: Vec<String>,
    /// What the payload is, and how it is compressed.
    pub content: Option<Content>,
    /// Trace id, opaque. With one the receipt says when the message passed where:
    /// [`Receipt::hops`](crate::Receipt::hops).
    pub trace: Option<[u8; 16]>,
    /// Key under which it may take the place of a message that waits for a slow gateway, in the
    /// same namespace, with the same priority and audience.
    pub conflate: Option<u64>,
    /// The message itself, at most `payload_bytes_max` bytes; shared, not copied, until it is
    /// written.
    pub payload: Bytes,
}

impl Publish {
    /// A publish with an empty payload for these users of namespace 0.
    #[must_use]
    pub fn to(uids: impl Into<Vec<u64>>) -> Self {
        Self::new(Audience::Uids(uids.into()))
    }

    /// A publish with an empty payload for everyone in namespace 0.
    #[must_use]
    pub fn everyone() -> Self {
        Self::new(Audience::Everyone)
    }

    /// A publish with an empty payload for the connections in namespace 0 that a selector is true
    /// for.
    #[must_use]
    pub fn matching(selector: Selector) -> Self {
        Self::new(Audience::Matching(selector))
    }

    fn new(audience: Audience) -> Self {
        Self {
            namespace: 0,
            audience,
            except: Vec::new(),
            mode: Mode::DIRECT,
            level: ReceiptLevel::default(),
            priority: Priority::NORMAL,
            ttl: None,
            labels: Vec::new(),
            content: None,
            trace: None,
            conflate: None,
            payload: Bytes::new(),
        }
    }

    /// Takes repeated UIDs out of a list that will be cut into parts: a UID listed twice is one
    /// target (TGT-2), but a broker sees one part at a time.
    pub(crate) fn name_each_once(&mut self) {
        if let Audience::Uids(uids) | Audience::UidsMatching(uids, _) = &mut self.audience
            && uids.len() > TARGETS_MAX
        {
            let mut seen = HashSet::with_capacity(uids.len());
            uids.retain(|uid| seen.insert(*uid));
        }
    }

    /// In this namespace.
    #[must_use]
    pub fn namespace(self, namespace: u32) -> Self {
        Self { namespace, ..self }
    }

    /// Of those it is for, to the connections that a selector is true for: of a list that is the
    /// intersection, of everyone it is whoever matches. A selector given before is replaced.
    #[must_use]
    pub fn selector(self, selector: Selector) -> Self {
        let audience = match self.audience {
            Audience::Uids(uids) | Audience::UidsMatching(uids, _) => {
                Audience::UidsMatching(uids, selector)
            }
            Audience::Everyone | Audience::Matching(_) => Audience::Matching(selector),
        };
        Self { audience, ..self }
    }

    /// Without these users.
    #[must_use]
    pub fn except(self, except: impl Into<Vec<u64>>) -> Self {
        Self { except: except.into(), ..self }
    }

    /// Carried so.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// With this receipt.
    #[must_use]
    pub fn level(self, level: ReceiptLevel) -> Self {
        Self { level, ..self }
    }

    /// With this priority.
    #[must_use]
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Dropped as expired when it has waited so long.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { ttl: Some(ttl), ..self }
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.labels.push(label.into());
        self
    }

    /// With a statement of what the payload is.
    #[must_use]
    pub fn content(self, content_type: ContentType, encoding: Encoding) -> Self {
        Self { content: Some(Content { content_type, encoding }), ..self }
    }

    /// With a trace id, so that its receipt says when it passed where. Gateways are asked at level
    /// delivered only.
    #[must_use]
    pub fn trace(self, trace: [u8; 16]) -> Self {
        Self { trace: Some(trace), ..self }
    }

    /// With this conflation key: where a link to a gateway is slow, the message takes the place of
    /// one that waits for it with the same namespace, key, priority and audience.
    #[must_use]
    pub fn conflate(self, key: u64) -> Self {
        Self { conflate: Some(key), ..self }
    }

    /// With this payload.
    #[must_use]
    pub fn payload(self, payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// Whether the protocol allows this publish. Every way of sending checks by itself.
    ///
    /// # Errors
    ///
    /// The first rule that is broken; a limit is named with its value.
    pub fn check(&self) -> Result<(), InvalidPublish> {
        if self.targets().is_some_and(<[u64]>::is_empty) {
            return Err(InvalidPublish::EmptyAudience);
        }
        if self.except.len() > EXCEPT_MAX {
            let count = self.except.len();
            return Err(InvalidPublish::Except { count, max: EXCEPT_MAX });
        }
        if self.payload.len() > MESSAGE_BYTES_MAX {
            let bytes = self.payload.len();
            return Err(InvalidPublish::Payload { bytes, max: MESSAGE_BYTES_MAX });
        }
        self.check_labels()?;
        self.check_values()?;
        match self.ttl {
            Some(ttl) if !(1..=u128::from(u32::MAX)).contains(&ttl.as_millis()) => {
                Err(InvalidPublish::Ttl)
            }
            _ => Ok(()),
        }
    }

    fn check_labels(&self) -> Result<(), InvalidPublish> {
        if self.labels.len() > LABELS_MAX {
            return Err(InvalidPublish::Labels { count: self.labels.len(), max: LABELS_MAX });
        }
        match self.labels.iter().position(|l| !(1..=LABEL_BYTES_MAX).contains(&l.len())) {
            Some(index) => {
                let bytes = self.labels[index].len();
                Err(InvalidPublish::Label { index, bytes, max: LABEL_BYTES_MAX })
            }
            None => Ok(()),
        }
    }

    fn check_values(&self) -> Result<(), InvalidPublish> {
        let Content { content_type, encoding } = self.content.unwrap_or_default();
        let allowed = [
            ("mode", u64::from(self.mode.0), self.mode.is_registered()),
            (
                "priority",
                u64::from(self.priority.0),
                self.priority.is_registered() && self.priority != Priority::CONTROL,
            ),
            (
                "content_type",
                u64::from(content_type.0),
                content_type.is_registered() || content_type.0 >= PRIVATE_USE,
            ),
            (
                "encoding",
                u64::from(encoding.0),
                encoding.is_registered() || encoding.0 >= PRIVATE_USE,
            ),
        ];
        match allowed.into_iter().find(|(.., fine)| !fine) {
            Some((field, value, _)) => Err(InvalidPublish::Value { field, value }),
            None => Ok(()),
        }
    }

    /// The UID list, or `None` for everyone and for a selector alone.
    #[must_use]
    pub fn targets(&self) -> Option<&[u64]> {
        match &self.audience {
            Audience::Uids(uids) | Audience::UidsMatching(uids, _) => Some(uids),
            Audience::Everyone | Audience::Matching(_) => None,
        }
    }

    /// The selector, if there is one.
    #[must_use]
    pub fn matched_by(&self) -> Option<&Selector> {
        match &self.audience {
            Audience::Uids(_) | Audience::Everyone => None,
            Audience::Matching(selector) | Audience::UidsMatching(_, selector) => Some(selector),
        }
    }

    /// Bytes it is counted with against [`Options::max_pending_bytes`](crate::Options): what it
    /// keeps in memory until it is settled, and at least the bookkeeping of a small one.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        let targets = self.targets().map_or(0, <[u64]>::len) + self.except.len();
        let labels: usize = self.labels.iter().map(String::len).sum();
        let selector = self.matched_by().map_or(0, |selector| selector.as_bytes().len());
        size_of::<Self>() + 8 * targets + labels + selector + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(publish: &Publish, expected: &str) {
        let error = publish.check().expect_err("is not allowed");
        assert_eq!(error.to_string(), expected);
    }

    fn vip() -> Selector {
        "vip".parse().expect("is a selector")
    }

    /// MSG-14.
    #[test]
    fn a_selector_narrows_whoever_it_is_for() {
        let selected = Publish::to([1, 2]).selector(vip());
        assert_eq!(selected.audience, Audience::UidsMatching(vec![1, 2], vip()));
        assert_eq!((selected.targets(), selected.matched_by()), (Some(&[1, 2][..]), Some(&vip())));
        let alone = Publish::everyone().selector(vip());
        assert_eq!(alone.audience, Publish::matching(vip()).audience);
        assert_eq!((alone.targets(), alone.matched_by()), (None, Some(&vip())));
        let other: Selector = "!vip".parse().expect("is a selector");
        assert_eq!(alone.selector(other.clone()).audience, Audience::Matching(other));
        check(
            &Publish::to([]).selector(vip()),
            "the audience is empty: name at least one UID, or everyone() if that is meant",
        );
    }

    #[test]
    fn what_is_allowed() {
        let ids: Vec<u64> = (0..100_000).collect();
        for publish in [
            Publish::to([1]),
            Publish::to(ids),
            Publish::everyone().except([1]),
            Publish::to([1]).selector(vip()),
            Publish::matching(vip()).except([1]),
            Publish::to([1]).content(ContentType(0x8000), Encoding(0xffff)),
            Publish::to([1]).payload(vec![0; MESSAGE_BYTES_MAX]),
            Publish::to([1]).ttl(Duration::from_millis(u64::from(u32::MAX))),
        ] {
            assert_eq!(publish.check(), Ok(()));
        }
    }

    #[test]
    fn an_error_names_the_limit() {
        let one = || Publish::to([1]);
        check(
            &Publish::to([]),
            "the audience is empty: name at least one UID, or everyone() if that is meant",
        );
        check(&one().except(vec![0; 4097]), "4097 UIDs in except, except_max is 4096");
        check(
            &one().payload(vec![0; MESSAGE_BYTES_MAX + 1]),
            "payload of 16777217 bytes, the limit is 16777216",
        );
        let labels = (0..17).fold(one(), |publish, n| publish.label(n.to_string()));
        check(&labels, "17 labels, labels_max is 16");
        check(&one().label("a").label(""), "label 1 has 0 bytes, 1 to 64 are allowed");
        check(&one().label("a".repeat(65)), "label 0 has 65 bytes, 1 to 64 are allowed");
        check(&one().mode(Mode(3)), "mode 3 is not allowed in a publish");
        check(&one().priority(Priority::CONTROL), "priority 3 is not allowed in a publish");
        check(
            &one().content(ContentType(6), Encoding::IDENTITY),
            "content_type 6 is not allowed in a publish",
        );
        check(
            &one().ttl(Duration::from_micros(999)),
            "ttl is not in 1 ms to 4294967295 ms; leave it out for no limit",
        );
    }
}

//! What a link tells its owner about itself: its state, and why it is not open.
//!
//! The same [`LinkError`] serves for a link that will be tried again (`Down`) and for one that will
//! not (`Failed`); only the state says which.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use waybill_wire::code::{BrokerState, ErrorCode};

/// Where a link is in its life.
///
/// ```text
///  Connecting --> Open --> Down --> Connecting ...      until
///             \-> Down                                  Failed | Closed
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// An attempt is under way.
    Connecting,
    /// The broker said WELCOME.
    Open(Welcomed),
    /// Not connected; the next attempt begins after `retry_in`.
    Down {
        /// Why the last link or attempt ended.
        reason: LinkError,
        /// Delay before the next attempt.
        retry_in: Duration,
        /// Attempts that failed one after another; 0 if the link was open.
        attempts: u32,
    },
    /// The link is not tried again: the broker said something that trying again does not mend.
    Failed(LinkError),
    /// Closed by its owner.
    Closed,
}

/// What WELCOME told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Welcomed {
    /// The broker's address, as in [`Options::brokers`](crate::Options::brokers).
    pub address: Arc<str>,
    /// Random number of this life of the broker.
    pub broker: u64,
    /// Id of this session.
    pub session: u64,
    /// Whether it is the session that was asked for, which goes on; else it is a new one.
    pub resumed: bool,
    /// State the broker was in.
    pub state: BrokerState,
    /// Shard that serves this link.
    pub shard: u16,
    /// Number of shards.
    pub shards: u16,
    /// Capabilities the broker runs of those offered.
    pub capabilities: u64,
    /// Largest payload the broker takes, in bytes.
    pub payload_max: u32,
    /// Frames the broker lets the initiator have unanswered; 0 = not limited.
    pub credit: u32,
}

#[cfg(test)]
impl Welcomed {
    pub(crate) fn for_tests() -> Self {
        Self {
            address: "b:1".into(),
            broker: 1,
            session: 2,
            resumed: false,
            state: BrokerState::READY,
            shard: 0,
            shards: 1,
            capabilities: 0,
            payload_max: 1 << 20,
            credit: 0,
        }
    }
}

/// Why a link ended, or an attempt did not become one.
#[derive(Clone, Debug)]
pub struct LinkError {
    /// What happened.
    pub kind: LinkErrorKind,
    /// The broker's address, as in [`Options::brokers`](crate::Options::brokers).
    pub broker: Arc<str>,
    /// The broker's words, for people.
    pub detail: Option<Box<str>>,
    source: Option<Arc<io::Error>>,
}

/// What ended a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkErrorKind {
    /// The name did not resolve or the connection was not accepted.
    Unreachable,
    /// No WELCOME within [`Options::connect_timeout`](crate::Options::connect_timeout).
    Timeout,
    /// The transport failed, or the broker closed it without a word.
    Lost,
    /// The broker ended it with this code.
    Refused(ErrorCode),
    /// The broker broke the contract; we ended it with this code.
    Violated(ErrorCode),
    /// The broker asked to leave.
    Drained,
    /// The broker takes no publishes yet, and another one of the list may.
    NotReady,
    /// The owner closed it.
    Closed,
}

impl LinkError {
    pub(crate) fn new(kind: LinkErrorKind, broker: &Arc<str>) -> Self {
        Self { kind, broker: Arc::clone(broker), detail: None, source: None }
    }

    /// A link that nobody wants any more.
    pub(crate) fn closed() -> Self {
        Self::new(LinkErrorKind::Closed, &Arc::from(""))
    }

    pub(crate) fn with_detail(mut self, detail: &str) -> Self {
        self.detail = (!detail.is_empty()).then(|| detail.into());
        self
    }

    pub(crate) fn with_source(mut self, source: io::Error) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The code of the protocol behind it, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self.kind {
            LinkErrorKind::Refused(code) | LinkErrorKind::Violated(code) => Some(code),
            _ => None,
        }
    }

    /// Whether the link is not tried again ([ERR-4]). Malformed codes count when the broker sent
    /// them: then our bytes are wrong everywhere. When its bytes are, another broker's may be
    /// right.
    pub(crate) fn is_final(&self) -> bool {
        match self.kind {
            LinkErrorKind::Refused(code) => !code.reconnects(),
            LinkErrorKind::Violated(code) => code == ErrorCode::NO_COMMON_VERSION,
            kind => kind == LinkErrorKind::Closed,
        }
    }

    /// What a person can do about it.
    fn remedy(&self) -> &'static str {
        match self.kind {
            LinkErrorKind::Unreachable => "check the address and that the broker runs",
            LinkErrorKind::Timeout => "is this the broker's port, and is it overloaded?",
            LinkErrorKind::Refused(ErrorCode::BAD_CREDENTIAL) => "set the right token",
            LinkErrorKind::Refused(ErrorCode::NOT_PERMITTED) => {
                "this token lacks the role or the namespace; use one that has both"
            }
            LinkErrorKind::Refused(ErrorCode::NO_COMMON_VERSION)
            | LinkErrorKind::Violated(ErrorCode::NO_COMMON_VERSION) => {
                "client and broker speak different drafts; update the older one"
            }
            LinkErrorKind::Refused(ErrorCode::SUPERSEDED) => {
                "another link of this incarnation has taken over"
            }
            LinkErrorKind::Refused(ErrorCode::TOO_MANY_LINKS) => {
                "raise the broker's limit or use fewer links"
            }
            LinkErrorKind::Violated(_) => "is this the broker's port, and of the same version?",
            LinkErrorKind::Refused(_)
            | LinkErrorKind::Lost
            | LinkErrorKind::Drained
            | LinkErrorKind::NotReady
            | LinkErrorKind::Closed => "",
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broker = &self.broker;
        match self.kind {
            LinkErrorKind::Unreachable => write!(f, "cannot reach broker {broker}")?,
            LinkErrorKind::Timeout => write!(f, "no WELCOME from broker {broker} in time")?,
            LinkErrorKind::Lost => write!(f, "lost broker {broker}")?,
            LinkErrorKind::Refused(code) => write!(f, "broker {broker} ended the link: {code}")?,
            LinkErrorKind::Violated(code) => {
                write!(f, "broker {broker} broke the protocol: {code}")?;
            }
            LinkErrorKind::Drained => write!(f, "broker {broker} is draining")?,
            LinkErrorKind::NotReady => write!(f, "broker {broker} is not ready yet")?,
            LinkErrorKind::Closed => f.write_str("the link was closed")?,
        }
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        match self.remedy() {
            "" => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

impl std::error::Error for LinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// The link is closed or has failed for good: nothing is sent on it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the link is closed; its last state says why")]
pub struct LinkGone;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: LinkErrorKind, detail: &str, expected: &str) {
        let error = LinkError::new(kind, &Arc::from("b:1")).with_detail(detail);
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn an_error_names_cause_and_remedy() {
        check(
            LinkErrorKind::Refused(ErrorCode::BAD_CREDENTIAL),
            "expired",
            "broker b:1 ended the link: bad_credential (expired); set the right token",
        );
        check(
            LinkErrorKind::Unreachable,
            "",
            "cannot reach broker b:1; check the address and that the broker runs",
        );
        check(LinkErrorKind::Lost, "", "lost broker b:1");
    }
}

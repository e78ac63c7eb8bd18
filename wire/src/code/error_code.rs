//! Error codes of chapter 9: names, classes and what the other end does about them.

use super::code;

code! {
    /// What went wrong, in ERROR, RECEIPT, UPLINK_ACK and fate sets. The hundreds tell the class.
    ErrorCode(u16) {
        UNSUPPORTED_VERSION = 101 "unsupported_version",
        UNKNOWN_KIND = 102 "unknown_kind",
        HEADER_SIZE = 103 "header_size",
        PAYLOAD_SIZE = 104 "payload_size",
        UNKNOWN_FLAG = 105 "unknown_flag",
        RESERVED = 106 "reserved",
        BAD_VALUE = 107 "bad_value",
        LIMIT = 108 "limit",
        LENGTH = 109 "length",
        PADDING = 110 "padding",
        NOT_UTF8 = 111 "not_utf8",
        AUDIENCE = 112 "audience",
        PAYLOAD_NOT_ALLOWED = 113 "payload_not_allowed",
        UNKNOWN_EXTENSION = 114 "unknown_extension",
        UNEXPECTED_FRAME = 201 "unexpected_frame",
        WRONG_ROLE = 202 "wrong_role",
        VERSION_GAP = 203 "version_gap",
        DIGEST_MISMATCH = 204 "digest_mismatch",
        SEQUENCE_ORDER = 205 "sequence_order",
        HELLO_TIMEOUT = 206 "hello_timeout",
        KEEPALIVE_TIMEOUT = 207 "keepalive_timeout",
        SLOW_LINK = 208 "slow_link",
        FRAGMENT_ORDER = 209 "fragment_order",
        BAD_CREDENTIAL = 301 "bad_credential",
        NOT_PERMITTED = 302 "not_permitted",
        NOT_SUPPORTED = 303 "not_supported",
        NO_COMMON_VERSION = 304 "no_common_version",
        NO_CONSUMER = 305 "no_consumer",
        HOP_LIMIT = 306 "hop_limit",
        EXPIRED = 307 "expired",
        BAD_EXPRESSION = 308 "bad_expression",
        NO_SESSION = 309 "no_session",
        CONFLATED = 310 "conflated",
        NOT_READY = 401 "not_ready",
        OVERLOADED = 402 "overloaded",
        OUTBOX_FULL = 403 "outbox_full",
        TOO_MANY_LINKS = 404 "too_many_links",
        CONSUMER_LOST = 405 "consumer_lost",
        CONNECTION_TAGS = 406 "connection_tags",
        GATEWAY_TAGS = 407 "gateway_tags",
        BROKER_TAGS = 408 "broker_tags",
        DATA_LINK_LOST = 409 "data_link_lost",
        OUTBOX_AGE = 410 "outbox_age",
        SHUTTING_DOWN = 501 "shutting_down",
        SUPERSEDED = 502 "superseded",
    }
}

/// Whether the same request may succeed another time (ERR-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same bytes fail again.
    Never,
    /// The same request may succeed later, on the same link.
    Later,
    /// Reconnect, to another broker if there is one.
    Elsewhere,
}

/// The classes of ERR-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 101-199: the sender's bytes are wrong.
    Malformed,
    /// 201-299: the sender's order of frames, or its silence.
    Violation,
    /// 301-399: not allowed or not possible.
    Refused,
    /// 401-499: nobody's fault, try again later.
    Overload,
    /// 501-599: reconnect.
    GoingAway,
    /// Outside the registered hundreds.
    Unknown,
}

impl ErrorCode {
    /// Class by the hundreds, which unregistered codes have too.
    #[must_use]
    pub const fn class(self) -> Class {
        match self.0 {
            101..=199 => Class::Malformed,
            201..=299 => Class::Violation,
            301..=399 => Class::Refused,
            401..=499 => Class::Overload,
            501..=599 => Class::GoingAway,
            _ => Class::Unknown,
        }
    }

    /// Whether the code says that bytes were wrong (101-199).
    #[must_use]
    pub const fn is_malformed(self) -> bool {
        matches!(self.class(), Class::Malformed)
    }

    /// Whether the code says that the order of frames was wrong, or silence too long (201-299).
    #[must_use]
    pub const fn is_violation(self) -> bool {
        matches!(self.class(), Class::Violation)
    }

    /// Whether an ERROR with this code is FATAL wherever it is sent (ERR-3).
    #[must_use]
    pub const fn is_always_fatal(self) -> bool {
        matches!(self.class(), Class::Malformed | Class::Violation | Class::GoingAway)
    }

    /// The registry's `retry`. An unregistered code answers by its class.
    #[must_use]
    pub const fn retry(self) -> Retry {
        match self {
            Self::VERSION_GAP
            | Self::DIGEST_MISMATCH
            | Self::HELLO_TIMEOUT
            | Self::KEEPALIVE_TIMEOUT
            | Self::SLOW_LINK => Retry::Elsewhere,
            Self::NO_CONSUMER => Retry::Later,
            Self::SUPERSEDED => Retry::Never,
            other => match other.class() {
                Class::Overload => Retry::Later,
                Class::GoingAway => Retry::Elsewhere,
                _ => Retry::Never,
            },
        }
    }

    /// Whether an initiator whose link ended with this code reconnects by itself (ERR-4).
    #[must_use]
    pub const fn reconnects(self) -> bool {
        let barred = matches!(
            self,
            Self::BAD_CREDENTIAL
                | Self::NOT_PERMITTED
                | Self::NOT_SUPPORTED
                | Self::NO_COMMON_VERSION
                | Self::NO_SESSION
                | Self::SUPERSEDED
        );
        !barred && !self.is_malformed()
    }
}

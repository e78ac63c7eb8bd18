//! The two languages clients speak, as values: what a client says and what it is told.
//!
//! [`Subprotocol::decode`] turns one WebSocket message into a [`Request`];
//! [`Subprotocol::encode`] turns a [`Reply`] into the payload of one. The layouts are chapter 13 of
//! the contract: `json.rs` and `binary.rs`, one file per language, same meaning.
//!
//! Never here: WebSocket framing, sockets, what a request leads to.

mod binary;
mod json;

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;
use waybill_wire::code::{ContentType, Encoding, ErrorCode};
use waybill_wire::limits::{LABEL_BYTES_MAX, LABELS_MAX, TOKEN_BYTES_MAX};

/// A language, agreed during the upgrade (WS-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subprotocol {
    /// `waybill.json.v1`: text messages, each a JSON object.
    Json,
    /// `waybill.bin.v1`: binary messages.
    Binary,
}

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Who it is; the first message of a connection.
    Login {
        /// The token, not yet looked into; at most `token_bytes_max` bytes.
        token: String,
    },
    /// A message to the backend.
    Send {
        /// The client's number for it, which comes back in the answer.
        id: u32,
        /// Labels within the limits of LABELS.
        labels: Vec<String>,
        /// The payload, byte for byte.
        payload: Bytes,
    },
    /// A sign of life that wants an answer.
    Ping,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Registered: every message published from here on is for this connection.
    Ready {
        /// The user, as the token says.
        uid: u64,
        /// The tenant.
        namespace: u32,
        /// Number of this connection.
        connection: u64,
        /// Silence, in milliseconds, after which the gateway pings.
        heartbeat_ms: u32,
    },
    /// A message for the user.
    Message(Message<'a>),
    /// A consumer has the *send* of this id.
    Sent {
        /// The client's number.
        id: u32,
    },
    /// No consumer has the *send* of this id, or it is not known whether one has.
    Refused {
        /// The client's number.
        id: u32,
        /// Why.
        code: ErrorCode,
    },
    /// Answer to [`Request::Ping`].
    Pong,
    /// The gateway is going away.
    Drain {
        /// Milliseconds of which a client waits a random part before it connects again.
        reconnect_after_ms: u32,
    },
}

/// A message for users: nothing in it depends on which of its receivers gets it, and no target is
/// part of it (TGT-7).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Message<'a> {
    /// Producer instance, the first half of the message id.
    pub origin: u64,
    /// Producer sequence, the second half.
    pub sequence: u64,
    /// What the payload is and how it is compressed, if the producer said.
    pub content: Option<(ContentType, Encoding)>,
    /// What the message is about.
    pub labels: Vec<&'a str>,
    /// UID of the user it comes from, if a user sent it.
    pub sender: Option<u64>,
    /// The payload, byte for byte.
    pub payload: &'a [u8],
}

/// A client's message can't be understood; says what was wrong, without repeating what was said.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct BadMessage(pub Cow<'static, str>);

impl Subprotocol {
    /// The name in `Sec-WebSocket-Protocol`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "waybill.json.v1",
            Self::Binary => "waybill.bin.v1",
        }
    }

    /// The first subprotocol a client offers that there is (WS-1). `offers` are the values of its
    /// `Sec-WebSocket-Protocol` headers, each a list separated by commas.
    pub fn choose<'a>(offers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        offers.into_iter().flat_map(|list| list.split(',')).find_map(|name| match name.trim() {
            "waybill.json.v1" => Some(Self::Json),
            "waybill.bin.v1" => Some(Self::Binary),
            _ => None,
        })
    }

    /// Whether its messages travel as WebSocket text.
    #[must_use]
    pub fn is_text(self) -> bool {
        self == Self::Json
    }

    /// What a client's message says. For JSON `message` must be UTF-8, which the WebSocket layer
    /// has made sure of.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] if it is not one of this subprotocol, or beyond a limit.
    pub fn decode(self, message: &Bytes) -> Result<Request, BadMessage> {
        let request = match self {
            Self::Json => json::decode(message)?,
            Self::Binary => binary::decode(message)?,
        };
        request.check()?;
        Ok(request)
    }

    /// Appends the payload of the WebSocket message that says `reply`.
    pub fn encode(self, reply: &Reply<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::encode(reply, out),
            Self::Binary => binary::encode(reply, out),
        }
    }
}

impl Request {
    /// Limits that both languages share.
    fn check(&self) -> Result<(), BadMessage> {
        match self {
            Self::Login { token } if token.len() > TOKEN_BYTES_MAX => {
                bad("the token is longer than token_bytes_max")
            }
            Self::Send { labels, .. } if labels.len() > LABELS_MAX => {
                bad("there are more labels than labels_max")
            }
            Self::Send { labels, .. } if labels.iter().any(String::is_empty) => {
                bad("a label is empty")
            }
            Self::Send { labels, .. } if labels.iter().any(|l| l.len() > LABEL_BYTES_MAX) => {
                bad("a label is longer than label_bytes_max")
            }
            _ => Ok(()),
        }
    }
}

fn bad<T>(reason: &'static str) -> Result<T, BadMessage> {
    Err(BadMessage(Cow::Borrowed(reason)))
}

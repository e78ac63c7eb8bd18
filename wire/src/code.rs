//! The numbers of `registry.toml`, as open newtypes: an unknown value survives decoding where the
//! contract accepts one, and is refused where it does not; it is never undefined.
//!
//! `Debug` and `Display` print the registry's name. Each type lists its entries in `ALL`, and
//! `tests/registry.rs` compares these lists with the registry in both directions. Limits are in
//! [`crate::limits`]; kinds have more columns and are in a file of their own.

mod error_code;
mod kind;

pub use error_code::{Class as ErrorClass, ErrorCode, Retry};
pub use kind::{Kind, Senders, Status};

/// One newtype with its registry entries.
macro_rules! code {
    ($(#[$meta:meta])* $name:ident($int:ty) { $($entry:ident = $value:literal $spec:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl $name {
            $(
                #[doc = concat!("`", $spec, "` of the registry.")]
                pub const $entry: Self = Self($value);
            )+

            /// Every registry entry, by its name there.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($spec, Self::$entry),)+];

            /// The registry's name, or `None` for a value that is not registered.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$entry => Some($spec),)+
                    _ => None,
                }
            }

            /// Whether the registry has this value.
            #[must_use]
            pub const fn is_registered(self) -> bool {
                self.name().is_some()
            }

            /// The value with this registry name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|(spec, _)| *spec == name).map(|(_, code)| *code)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}({:#x})", stringify!($name), self.0),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }
    };
}
use code;

code! {
    /// Who an initiator is, as it says in HELLO.
    Role(u8) {
        PRODUCER = 1 "producer",
        GATEWAY = 2 "gateway",
        CONSUMER = 3 "consumer",
        LEAF = 4 "leaf",
        ADMIN = 5 "admin",
    }
}

code! {
    /// State of a broker, in WELCOME and STATE.
    BrokerState(u8) {
        READY = 1 "ready",
        NOT_READY = 2 "not_ready",
        DRAINING = 3 "draining",
    }
}

code! {
    /// How a message gets to its audience; never who that is (TGT-6).
    Mode(u8) {
        DIRECT = 0 "direct",
        BROADCAST = 1 "broadcast",
        AUTO = 2 "auto",
    }
}

code! {
    /// Whether a message is pushed live or stored first.
    Class(u8) {
        LIVE = 0 "live",
        STORED = 1 "stored",
    }
}

code! {
    /// What a producer wants to be told about a message; also the `stage` of a receipt.
    Level(u8) {
        NONE = 0 "none",
        ROUTED = 1 "routed",
        DELIVERED = 2 "delivered",
        ACKNOWLEDGED = 3 "acknowledged",
    }
}

code! {
    /// Priority of a message. The numbers are not in the order of urgency: see [`Priority::rank`].
    Priority(u8) {
        NORMAL = 0 "normal",
        BULK = 1 "bulk",
        HIGH = 2 "high",
        CONTROL = 3 "control",
    }
}

impl Priority {
    /// Place in the order of MSG-1, from 0 for what is written first (`control`) to 3 (`bulk`).
    #[must_use]
    pub const fn rank(self) -> u8 {
        match self {
            Self::CONTROL => 0,
            Self::HIGH => 1,
            Self::BULK => 3,
            _ => 2,
        }
    }
}

code! {
    /// What became of a target that was not *sent*.
    Fate(u8) {
        OFFLINE = 1 "offline",
        UNKNOWN = 2 "unknown",
        FILTERED = 3 "filtered",
        DROPPED = 4 "dropped",
    }
}

code! {
    /// What a traced message passed, in a hop time.
    TraceHop(u8) {
        BROKER_IN = 1 "broker_in",
        ROUTED = 2 "routed",
        WRITTEN = 3 "written",
        GATEWAY_IN = 4 "gateway_in",
        SOCKET = 5 "socket",
    }
}

code! {
    /// What a record does: add or remove.
    Op(u8) {
        ADD = 1 "add",
        REMOVE = 2 "remove",
    }
}

code! {
    /// First byte of a node of a selector (5.1).
    SelectorNode(u8) {
        TAG = 1 "tag",
        AND = 2 "and",
        OR = 3 "or",
        NOT = 4 "not",
    }
}

code! {
    /// What PRESENCE tells.
    Event(u8) {
        LOGIN = 1 "login",
        LOGOUT = 2 "logout",
        DISPLACED = 3 "displaced",
        LOST = 4 "lost",
    }
}

code! {
    /// What CREDIT is for.
    Lane(u8) {
        LIVE = 0 "live",
        UPLINK = 1 "uplink",
        STORED = 2 "stored",
    }
}

/// First of the private-use values of content types and encodings ([MSG-10]).
pub const PRIVATE_USE: u16 = 0x8000;

code! {
    /// What a payload is; values from [`PRIVATE_USE`] on are private use.
    ContentType(u16) {
        OPAQUE = 0 "opaque",
        TEXT = 1 "text",
        JSON = 2 "json",
        CBOR = 3 "cbor",
        MSGPACK = 4 "msgpack",
        PROTOBUF = 5 "protobuf",
    }
}

code! {
    /// How a payload is compressed; values from [`PRIVATE_USE`] on are private use.
    Encoding(u16) {
        IDENTITY = 0 "identity",
        GZIP = 1 "gzip",
        ZSTD = 2 "zstd",
        DEFLATE = 3 "deflate",
        BROTLI = 4 "brotli",
    }
}

code! {
    /// Close codes of the gateway's WebSocket.
    CloseCode(u16) {
        DRAINING = 4000 "draining",
        HEARTBEAT_LOST = 4001 "heartbeat_lost",
        SLOW_CONNECTION = 4002 "slow_connection",
        NOT_REGISTERED = 4003 "not_registered",
        LOGIN_TIMEOUT = 4004 "login_timeout",
        TOO_MANY = 4005 "too_many",
        BAD_TOKEN = 4500 "bad_token",
        TOKEN_EXPIRED = 4501 "token_expired",
        BAD_MESSAGE = 4502 "bad_message",
        MESSAGE_SIZE = 4503 "message_size",
        DISPLACED = 4504 "displaced",
    }
}

impl CloseCode {
    /// Whether a client that was closed so connects again by itself: 4000-4499 do, 4500-4999 do not.
    #[must_use]
    pub const fn reconnects(self) -> bool {
        self.0 < 4500
    }
}

code! {
    /// First byte of a message of the binary client subprotocol; 0x80 and above come from the gateway.
    ClientMessage(u8) {
        LOGIN = 0x01 "LOGIN",
        SEND = 0x02 "SEND",
        PING = 0x03 "PING",
        READY = 0x81 "READY",
        MESSAGE = 0x82 "MESSAGE",
        SENT = 0x83 "SENT",
        PONG = 0x85 "PONG",
        DRAIN = 0x86 "DRAIN",
    }
}

/// A role is not known by this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownRole;

impl std::fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("no such role; roles are producer, gateway, consumer, leaf and admin")
    }
}

impl std::error::Error for UnknownRole {}

impl std::str::FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Self::from_name(name).ok_or(UnknownRole)
    }
}

/// Bits of a constant table: values, and the list `ALL` of names and bit numbers.
macro_rules! bits {
    ($(#[$meta:meta])* $module:ident: $int:ty { $($entry:ident = $bit:literal $spec:literal,)+ }) => {
        $(#[$meta])*
        pub mod $module {
            $(
                #[doc = concat!("`", $spec, "`, bit ", stringify!($bit), ".")]
                pub const $entry: $int = 1 << $bit;
            )+

            /// Every registry entry: its name there and its bit number.
            pub const ALL: &[(&str, u32)] = &[$(($spec, $bit),)+];

            /// All defined bits.
            pub const MASK: $int = $($entry |)+ 0;
        }
    };
}

bits! {
    /// What an initiator offers and a broker runs. Unknown bits are ignored (SES-8).
    capability: u64 {
        FRAGMENTS = 0 "fragments",
        CREDIT = 1 "credit",
        RESUME = 2 "resume",
        TAGS = 3 "tags",
        STORED = 4 "stored",
        GROUPS = 5 "groups",
        PRESENCE = 6 "presence",
        REPORTS = 7 "reports",
        OFFLINE = 8 "offline",
        TRACE = 9 "trace",
        FILTERS = 10 "filters",
        LINKS = 11 "links",
    }
}

/// Values of the `flags` field, kind by kind.
pub mod flags {
    bits! {
        /// Flags of PUBLISH, DELIVER and UPLINK. Sections lie in bit order.
        message: u16 {
            RESEND = 0 "RESEND",
            EVERYONE = 1 "EVERYONE",
            EXCEPT_SELF = 2 "EXCEPT_SELF",
            ORIGIN = 3 "ORIGIN",
            TRACE = 4 "TRACE",
            CONFLATE = 5 "CONFLATE",
            SENDER = 6 "SENDER",
            PART = 7 "PART",
            CONTENT = 8 "CONTENT",
            FRAGMENTED = 9 "FRAGMENTED",
            HISTORY = 10 "HISTORY",
            LABELS = 11 "LABELS",
            SELECTOR = 12 "SELECTOR",
            EXCEPT = 13 "EXCEPT",
            EXTENSIONS = 14 "EXTENSIONS",
        }
    }

    bits! {
        /// Flags of HELLO.
        link: u16 { DATA = 0 "DATA", }
    }

    bits! {
        /// Flags of WELCOME.
        welcome: u16 { RESUMED = 0 "RESUMED", }
    }

    bits! {
        /// Flags of ERROR.
        error: u16 { FATAL = 0 "FATAL", }
    }

    bits! {
        /// Flags of RECEIPT.
        receipt: u16 { FINAL = 0 "FINAL", TRACE = 1 "TRACE", }
    }

    bits! {
        /// Flags of REPORT.
        report: u16 { TRACE = 0 "TRACE", }
    }

    bits! {
        /// Flags of FRAGMENT.
        fragment: u16 { LAST = 0 "LAST", }
    }

    bits! {
        /// Flags of SNAPSHOT.
        snapshot: u16 { FIRST = 0 "FIRST", LAST = 1 "LAST", }
    }

    bits! {
        /// Flags of ACK.
        ack: u16 { CUMULATIVE = 0 "CUMULATIVE", }
    }
}

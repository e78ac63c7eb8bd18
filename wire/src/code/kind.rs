//! Frame kinds: number, who may send them, and whether their behaviour runs in this draft.

use super::Role;
use crate::session::support::needed_for;

/// The kind byte of a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Kind(pub u8);

/// Whether the behaviour behind a kind runs in this draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Now,
    /// The layout is fixed; a broker of this draft answers `not_supported` (SES-7).
    Later,
}

/// Who may send a kind: a set of roles and the broker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Senders(u8);

/// The registry's `kinds`, entry for entry.
macro_rules! kinds {
    ($($entry:ident = $value:literal $from:literal $status:ident,)+) => {
        impl Kind {
            $(
                #[doc = concat!("`", stringify!($entry), "`, sent by `", $from, "` (registry letters).")]
                pub const $entry: Self = Self($value);
            )+

            /// Every registry entry, by its name there.
            pub const ALL: &'static [(&'static str, Self)] =
                &[$((stringify!($entry), Self::$entry),)+];

            /// The registry's name, or `None` for an unknown kind.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$entry => Some(stringify!($entry)),)+
                    _ => None,
                }
            }
        }

        /// One byte a kind: [`Senders`] bits, [`NOW`] and [`NEEDS`]. Zero: unknown kind.
        const TABLE: [u8; 256] = {
            let mut table = [0; 256];
            $(
                table[$value] = letters($from) | status_bit(Status::$status);
                if needed_for(Kind::$entry) != 0 {
                    table[$value] |= NEEDS;
                }
            )+
            table
        };
    };
}

kinds! {
    HELLO = 0x01 "pgcla" Now,
    WELCOME = 0x02 "b" Now,
    STATE = 0x03 "b" Now,
    PING = 0x04 "pgclab" Now,
    PONG = 0x05 "pgclab" Now,
    DRAIN = 0x06 "pgclab" Now,
    ERROR = 0x07 "pgclab" Now,
    CREDIT = 0x08 "pgclab" Later,
    PUBLISH = 0x10 "p" Now,
    DELIVER = 0x11 "b" Now,
    FRAGMENT = 0x12 "pgb" Now,
    RECEIPT = 0x13 "b" Now,
    REPORT = 0x14 "g" Now,
    UPLINK = 0x15 "gb" Now,
    UPLINK_ACK = 0x16 "cb" Now,
    DELTA = 0x20 "g" Now,
    SNAPSHOT = 0x21 "g" Now,
    BARRIER = 0x22 "g" Now,
    IN_EFFECT = 0x23 "b" Now,
    SUSPEND = 0x24 "g" Now,
    RESUME = 0x25 "g" Now,
    RESUMED = 0x26 "b" Now,
    DISPLACED = 0x27 "b" Now,
    TAG_DELTA = 0x28 "g" Now,
    FILTER = 0x29 "c" Now,
    GROUP = 0x2a "c" Now,
    TAG = 0x2b "pb" Now,
    PRESENCE = 0x2c "b" Now,
    PRESENCE_QUERY = 0x2d "pc" Later,
    OFFLINE = 0x2e "b" Now,
    FETCH = 0x30 "gc" Later,
    PAGE_END = 0x31 "b" Later,
    ACK = 0x32 "g" Later,
}

const LETTERS: &[u8; 6] = b"pgclab";
const BROKER: u8 = 1 << 5;
/// It runs where a capability does.
const NEEDS: u8 = 1 << 6;
const NOW: u8 = 1 << 7;

const fn letters(from: &str) -> u8 {
    let from = from.as_bytes();
    let mut bits = 0;
    let mut letter = 0;
    while letter < LETTERS.len() {
        let mut at = 0;
        while at < from.len() {
            if from[at] == LETTERS[letter] {
                bits |= 1 << letter;
            }
            at += 1;
        }
        letter += 1;
    }
    bits
}

const fn status_bit(status: Status) -> u8 {
    match status {
        Status::Now => NOW,
        Status::Later => 0,
    }
}

impl Kind {
    /// First kind that a receiver skips if it does not know it (FRAME-3).
    pub const SKIPPABLE: Self = Self(0x80);

    /// Whether the registry has this kind.
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.senders().0 != 0
    }

    /// Whether an unknown frame of this kind is skipped without an answer.
    #[must_use]
    pub const fn is_skipped(self) -> bool {
        !self.is_known() && self.0 >= Self::SKIPPABLE.0
    }

    /// Who may send it; nobody, for an unknown kind.
    #[must_use]
    pub const fn senders(self) -> Senders {
        Senders(TABLE[self.0 as usize] & !(NOW | NEEDS))
    }

    /// Whether its behaviour runs in this draft.
    #[must_use]
    pub const fn supported(self) -> Status {
        if TABLE[self.0 as usize] & NOW != 0 { Status::Now } else { Status::Later }
    }

    /// Whether its behaviour runs in this draft on each link, whatever was agreed on.
    #[must_use]
    pub const fn runs_everywhere(self) -> bool {
        TABLE[self.0 as usize] & (NOW | NEEDS) == NOW
    }

    /// Whether frames of this kind may have a payload (FRAME-8).
    #[must_use]
    pub const fn carries_payload(self) -> bool {
        matches!(
            self,
            Self::PUBLISH | Self::DELIVER | Self::UPLINK | Self::FRAGMENT | Self::OFFLINE
        )
    }

    /// The kind with this registry name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(spec, _)| *spec == name).map(|(_, kind)| *kind)
    }
}

impl Senders {
    /// Whether an initiator of this role may send it.
    #[must_use]
    pub const fn contains(self, role: Role) -> bool {
        matches!(role.0, 1..=5) && self.0 & (1 << (role.0 - 1)) != 0
    }

    /// Whether the broker may send it.
    #[must_use]
    pub const fn broker(self) -> bool {
        self.0 & BROKER != 0
    }
}

impl std::fmt::Debug for Senders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The letters of the registry's `from`.
impl std::fmt::Display for Senders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        LETTERS
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.0 & (1 << bit) != 0)
            .try_for_each(|(_, letter)| write!(f, "{}", char::from(*letter)))
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "kind {:#04x}", self.0),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

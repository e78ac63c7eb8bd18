//! Session frames (7.1).

use crate::code::{BrokerState, ErrorCode, Kind, Lane, Role, flags};
use crate::error::{Malformed, Unencodable};
use crate::limits::{CREDENTIAL_BYTES_MAX, DETAIL_BYTES_MAX, PAYLOAD_BYTES_MAX};
use crate::read::{Reader, u16_at, u32_at, u64_at};
use crate::write::Writer;

/// HELLO, the initiator's first frame.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hello<'a> {
    /// Flag DATA: this is a data link of `session`.
    pub data: bool,
    /// Who is calling.
    pub role: Role,
    /// Lowest draft it speaks, not 0.
    pub version_min: u16,
    /// Highest draft it speaks.
    pub version_max: u16,
    /// Random number of this life of the process, not 0.
    pub instance: u64,
    /// 0, or the session to join or resume.
    pub session: u64,
    /// Bits of [`crate::code::capability`].
    pub capabilities: u64,
    /// Leaves of one group are alternatives; 0 for none.
    pub route_group: u32,
    /// Shard it would like, or [`Hello::ANY_SHARD`].
    pub wanted_shard: u16,
    /// Credential, opaque.
    pub credential: &'a [u8],
}

/// A credential shows its length only, so that no log holds one (ERR-6).
impl std::fmt::Debug for Hello<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("data", &self.data)
            .field("role", &self.role)
            .field("version_min", &self.version_min)
            .field("version_max", &self.version_max)
            .field("instance", &self.instance)
            .field("session", &self.session)
            .field("capabilities", &self.capabilities)
            .field("route_group", &self.route_group)
            .field("wanted_shard", &self.wanted_shard)
            .field("credential_len", &self.credential.len())
            .finish()
    }
}

impl<'a> Hello<'a> {
    /// `wanted_shard` of a link that has no wish.
    pub const ANY_SHARD: u16 = 0xFFFF;

    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<48>()?;
        let set = reader.flags(flags::link::MASK)?;
        reader.reserved(fixed[11])?;
        let hello = Self {
            data: set & flags::link::DATA != 0,
            role: Role(fixed[10]),
            version_min: u16_at(fixed, 12),
            version_max: u16_at(fixed, 14),
            instance: u64_at(fixed, 16),
            session: u64_at(fixed, 24),
            capabilities: u64_at(fixed, 32),
            route_group: u32_at(fixed, 40),
            wanted_shard: u16_at(fixed, 44),
            credential: &[],
        };
        reader.registered(hello.role.is_registered(), "role", hello.role.0)?;
        reader.not_zero("SES-5", "version_min", hello.version_min)?;
        reader.not_zero("SES-5", "version_max", hello.version_max)?;
        reader.not_zero("FRAME-9", "instance", hello.instance)?;
        let length = u16_at(fixed, 46);
        let value = ("credential_len", u64::from(length));
        reader.at_most("FRAME-9", value, ("credential_bytes_max", CREDENTIAL_BYTES_MAX))?;
        let (credential, padding) = reader.take_padded("credential", usize::from(length))?;
        reader.padding(padding)?;
        reader.end()?;
        let value = ("version_min", u64::from(hello.version_min));
        let holds = hello.version_min <= hello.version_max;
        reader.must(holds, "SES-5", value, "not be greater than version_max")?;
        reader.no_payload()?;
        Ok(Self { credential, ..hello })
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// A credential that is too long, an instance of 0, or versions in the wrong order.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Unencodable> {
        let set = if self.data { flags::link::DATA } else { 0 };
        let mut writer = Writer::new(Kind::HELLO, set, out);
        let length = self.credential.len();
        if writer.within("credential_len", length, ("credential_bytes_max", CREDENTIAL_BYTES_MAX)) {
            writer.u8(self.role.0).u8(0).u16(self.version_min).u16(self.version_max);
            writer.u64(self.instance).u64(self.session).u64(self.capabilities);
            writer.u32(self.route_group).u16(self.wanted_shard).count16(length);
            writer.bytes(self.credential).pad();
        }
        writer.finish_header()
    }
}

/// WELCOME, the broker's answer to a HELLO it accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Welcome {
    /// Flag RESUMED: the session named in HELLO goes on.
    pub resumed: bool,
    /// The broker's state.
    pub state: BrokerState,
    /// Draft spoken from here on, not 0.
    pub version: u16,
    /// Shard that serves this link.
    pub shard: u16,
    /// Id of this session, not 0.
    pub session: u64,
    /// Bits of [`crate::code::capability`] that the broker runs, of those offered.
    pub capabilities: u64,
    /// Random number of this life of the broker.
    pub broker: u64,
    /// Number of shards, not 0.
    pub shards: u16,
    /// Keepalive period; 0 for none.
    pub keepalive_ms: u32,
    /// Frames the initiator may have unanswered; 0 for no such limit.
    pub credit: u32,
    /// Largest payload this broker accepts.
    pub payload_max: u32,
}

impl Welcome {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<56>()?;
        let set = reader.flags(flags::welcome::MASK)?;
        reader.reserved(fixed[11])?;
        reader.reserved(u16_at(fixed, 42))?;
        let welcome = Self {
            resumed: set & flags::welcome::RESUMED != 0,
            state: BrokerState(fixed[10]),
            version: u16_at(fixed, 12),
            shard: u16_at(fixed, 14),
            session: u64_at(fixed, 16),
            capabilities: u64_at(fixed, 24),
            broker: u64_at(fixed, 32),
            shards: u16_at(fixed, 40),
            keepalive_ms: u32_at(fixed, 44),
            credit: u32_at(fixed, 48),
            payload_max: u32_at(fixed, 52),
        };
        reader.registered(welcome.state.is_registered(), "state", welcome.state.0)?;
        reader.not_zero("FRAME-9", "version", welcome.version)?;
        reader.not_zero("FRAME-9", "session", welcome.session)?;
        reader.not_zero("FRAME-9", "shards", welcome.shards)?;
        let value = ("payload_max", u64::from(welcome.payload_max));
        reader.at_most("FRAME-9", value, ("payload_bytes_max", PAYLOAD_BYTES_MAX))?;
        reader.finish()?;
        Ok(welcome)
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let set = if self.resumed { flags::welcome::RESUMED } else { 0 };
        let mut writer = Writer::new(Kind::WELCOME, set, out);
        writer.u8(self.state.0).u8(0).u16(self.version).u16(self.shard);
        writer.u64(self.session).u64(self.capabilities).u64(self.broker);
        writer.u16(self.shards).u16(0).u32(self.keepalive_ms).u32(self.credit);
        writer.u32(self.payload_max);
        writer.finish_fixed();
    }
}

/// STATE, a change of the broker's state (SES-14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct State {
    /// The new state.
    pub state: BrokerState,
    /// How many gateways it waits for, as far as known.
    pub gateways_missing: u32,
}

impl State {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<16>()?;
        reader.flags(0)?;
        reader.reserved(fixed[11])?;
        let state = BrokerState(fixed[10]);
        reader.registered(state.is_registered(), "state", state.0)?;
        reader.finish()?;
        Ok(Self { state, gateways_missing: u32_at(fixed, 12) })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::STATE, 0, out);
        writer.u8(self.state.0).u8(0).u32(self.gateways_missing);
        writer.finish_fixed();
    }
}

/// Frames that hold one u32 after a reserved field.
macro_rules! word_frame {
    ($(#[$meta:meta])* $name:ident $kind:ident { $(#[$field_meta:meta])* $field:ident }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        pub struct $name {
            $(#[$field_meta])*
            pub $field: u32,
        }

        impl $name {
            pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
                let fixed = reader.fixed::<16>()?;
                reader.flags(0)?;
                reader.reserved(u16_at(fixed, 10))?;
                reader.finish()?;
                Ok(Self { $field: u32_at(fixed, 12) })
            }

            /// Appends the frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let mut writer = Writer::new(Kind::$kind, 0, out);
                writer.u16(0).u32(self.$field);
                writer.finish_fixed();
            }
        }
    };
}
pub(super) use word_frame;

word_frame! {
    /// PING: answer me.
    Ping PING {
        /// Comes back in the PONG.
        token
    }
}

word_frame! {
    /// PONG: the answer to a PING.
    Pong PONG {
        /// The PING's.
        token
    }
}

word_frame! {
    /// DRAIN: start nothing new and leave (SES-11).
    Drain DRAIN {
        /// How long the other end may take.
        deadline_ms
    }
}

/// ERROR: something was refused, or the link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ErrorFrame<'a> {
    /// Flag FATAL: the last frame of its sender.
    pub fatal: bool,
    /// What happened, not 0.
    pub code: ErrorCode,
    /// Kind of the frame it is about; 0 for none.
    pub ref_kind: Kind,
    /// Sequence or version of that frame; 0 for none.
    pub reference: u64,
    /// Lower bound for the next attempt; 0 for no advice.
    pub retry_after_ms: u32,
    /// For a person. Written up to `detail_bytes_max`, cut at a character.
    pub detail: &'a str,
}

impl<'a> ErrorFrame<'a> {
    pub(super) fn read(mut reader: Reader<'a>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<32>()?;
        let set = reader.flags(flags::error::MASK)?;
        reader.reserved(fixed[13])?;
        reader.reserved(u32_at(fixed, 28))?;
        let code = ErrorCode(u16_at(fixed, 10));
        reader.not_zero("FRAME-9", "code", code.0)?;
        let length = u16_at(fixed, 14);
        let value = ("detail_len", u64::from(length));
        reader.at_most("FRAME-9", value, ("detail_bytes_max", DETAIL_BYTES_MAX))?;
        let (detail, padding) = reader.take_padded("detail", usize::from(length))?;
        let detail = reader.text("detail", detail)?;
        reader.padding(padding)?;
        reader.finish()?;
        Ok(Self {
            fatal: set & flags::error::FATAL != 0,
            code,
            ref_kind: Kind(fixed[12]),
            reference: u64_at(fixed, 16),
            retry_after_ms: u32_at(fixed, 24),
            detail,
        })
    }

    /// The non-fatal answer to a frame whose feature this end does not run (SES-7).
    #[must_use]
    pub fn not_supported(ref_kind: Kind, reference: u64, detail: &'a str) -> Self {
        let code = ErrorCode::NOT_SUPPORTED;
        Self { fatal: false, code, ref_kind, reference, retry_after_ms: 0, detail }
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let set = if self.fatal { flags::error::FATAL } else { 0 };
        let detail = &self.detail[..self.detail.floor_char_boundary(DETAIL_BYTES_MAX)];
        let mut writer = Writer::new(Kind::ERROR, set, out);
        writer.u16(self.code.0).u8(self.ref_kind.0).u8(0).count16(detail.len());
        writer.u64(self.reference).u32(self.retry_after_ms).u32(0);
        writer.bytes(detail.as_bytes()).pad();
        writer.finish_fixed();
    }
}

/// CREDIT: the sender may have this many frames more unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Credit {
    /// What for.
    pub lane: Lane,
    /// Frames added.
    pub frames: u32,
}

impl Credit {
    pub(super) fn read(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let fixed = reader.fixed::<16>()?;
        reader.flags(0)?;
        reader.reserved(fixed[11])?;
        let lane = Lane(fixed[10]);
        reader.registered(lane.is_registered(), "lane", lane.0)?;
        reader.finish()?;
        Ok(Self { lane, frames: u32_at(fixed, 12) })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(Kind::CREDIT, 0, out);
        writer.u8(self.lane.0).u8(0).u32(self.frames);
        writer.finish_fixed();
    }
}

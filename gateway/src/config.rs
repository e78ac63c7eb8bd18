//! What a gateway is told: one struct per concern, each field with a working default.
//!
//! The doc comments are the reference. Durations are integers with their unit in the name, sizes
//! are bytes. Unknown keys are refused while reading, impossible values by
//! [`GatewayConfig::validate`], which names key, value and what is allowed. Two keys have no usable
//! default, since no secret may: `broker.token` (empty: none is presented) and `jwt.secret`.
//!
//! Never here: reading files or the environment; that is for whoever starts the gateway.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use waybill_wire::limits::{CONNECTION_TAGS_MAX, GATEWAY_TAGS_MAX};

use crate::auth::Verifier;
use crate::hub::{Bounds, TagBounds};
use crate::session::SessionLimits;
use crate::transports::origin::Origin;
use crate::upstream::UplinkBounds;

/// Settings of one gateway process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address and port to listen on for HTTP and WebSocket. Port 0 takes a free one. Default
    /// `127.0.0.1:7712`.
    pub listen: SocketAddr,
    /// The way to the brokers.
    pub broker: BrokerConfig,
    /// Login tokens.
    pub jwt: JwtConfig,
    /// How long things may take.
    pub deadlines: DeadlineConfig,
    /// How much there may be of things.
    pub limits: LimitConfig,
    /// Origins of browsers that may connect besides the gateway's own, as browsers write them:
    /// `https://app.example.com`, with the port if it is not the scheme's. Default: none.
    pub allowed_origins: Vec<String>,
    /// Namespaces whose users may log in; a login token of another is refused (`bad_token`). Set it
    /// to those of `broker.token`: a broker ends the link of a gateway that registers a user it has
    /// no right to, and that link is not tried again. Default: none, which means all.
    pub namespaces: Vec<u32>,
}

/// The way to the brokers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Brokers as `host:port`, at least one entry; the gateway links to each. `dns:host:port`
    /// stands for every address that the host has. Default `127.0.0.1:7711`.
    pub addresses: Vec<String>,
    /// Milliseconds between two look-ups of a `dns:` entry: a new address is linked to, one that
    /// thirty look-ups in a row did not find is left. 100 to 3,600,000, default 10,000.
    pub dns_refresh_ms: u64,
    /// Milliseconds for one attempt to link: name, TCP handshake and the broker's welcome together.
    /// After a partition the first attempt that can succeed comes at most this and the back-off (5
    /// seconds at most) after its end. 100 to 600,000, default 2,000: one lost SYN is made good by
    /// then.
    pub connect_timeout_ms: u64,
    /// Credential presented to them; empty presents none. Default empty.
    pub token: String,
    /// Whether brokers that run tags are told which ones connections have. Without, a broker sends
    /// no message with a selector here. Default true.
    pub tags: bool,
    /// Links to one broker beside the first, on which messages come, one for each of its other
    /// shards as far as there are so many: 0 to 64, default 16. What a further shard has, or any
    /// if it is 0, comes by the first: brokers hand it from shard to shard. Each adds up to 61 MiB
    /// to what a gateway may take.
    pub data_links: u16,
}

/// Login tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// How tokens are signed. `HS256` is the only one there is; what a token says of itself is
    /// compared with this and never followed. Default `HS256`.
    pub algorithm: String,
    /// The shared secret, at least 32 bytes (RFC 7518, 3.2: as long as the hash). No default.
    pub secret: String,
}

/// How long things may take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadlineConfig {
    /// Milliseconds from the upgrade to a login; also for a request head. 100 to 600,000, default
    /// 10,000.
    pub login_ms: u64,
    /// Milliseconds from the login until the registration is in effect at a broker. While no broker
    /// is linked, new logins wait this long. 100 to 600,000, default 10,000.
    pub register_ms: u64,
    /// Milliseconds from a user's *send* to its answer. 100 to 600,000, default 10,000.
    pub uplink_ms: u64,
    /// Milliseconds of silence after which a Ping is sent; after twice that the connection is lost.
    /// 100 to 600,000, default 25,000: below the 30 s after which common proxies drop a silent
    /// connection.
    pub heartbeat_ms: u64,
    /// Milliseconds a closing connection is given to take its close frame and answer it. 100 to
    /// 60,000, default 5,000.
    pub close_ms: u64,
    /// Milliseconds from a delivery whose producer asks for level delivered to the report on it;
    /// users not heard of by then are reported as unknown. Keep it below the brokers'
    /// `report_timeout_ms`. 100 to 60,000, default 2,000.
    pub report_ms: u64,
    /// Milliseconds for which a client's socket may be idle before the system probes it; three
    /// probes without an answer, a third of this apart, end it. Rounded to seconds. 0 (never) to
    /// 7,200,000, default 3,000.
    pub tcp_keepalive_ms: u64,
    /// Milliseconds for which what was sent to a client may stay without its acknowledgement before
    /// the system ends the socket; on Linux that includes a client that is alive and does not read.
    /// 0 (the system's own) to 7,200,000, default 30,000.
    pub tcp_user_timeout_ms: u64,
    /// Milliseconds over which a draining gateway spreads its closes; clients are told to come back
    /// after a random part of it. 0 to 3,600,000, default 5,000.
    pub drain_ms: u64,
}

/// How much there may be of things. With the constants beside them they bound a gateway's memory
/// (promise 7). This is the whole sum; it is a bound, not what is used:
///
/// ```text
/// connections_bytes_max                         messages and answers that wait to be written, and
///                                               what clients have sent beyond 8 KiB each
/// + brokers x 7 x 16 MiB                        what was being encoded when that is used up
/// + 256 x 256 KiB                               what tasks read before it is counted
/// + (connections_max + 1,024) x 20 KiB          sockets: the head of a request, and later session,
///                                               library, registration, and what was read
/// + connections_max x 256 bytes                 who has to go, where too much is held
/// + (4,096 + 256) x 64 KiB                      the mailbox, and what a turn takes from it
/// + recent_messages_max x (16 x 8 + 128) bytes  message ids and the UIDs they were for,
/// + 32 KiB                                      one list more: the newest stays
/// + recent_messages_max x (16 x 32 + 256) bytes who was reached by those that asked, afterwards
/// + 2 x reports_max x 96 bytes                  who was reached, until it is reported
/// + uplink_bytes_max                            what has no answer, to be sent again
/// + uplinks_max x 256 bytes                     who waits for an answer, and on which link
/// + tags_held_max x 2 x 136 bytes               who has which tag, less than half of it; what TAG
///                                               said of them, also when it took all away
/// + tags_max x 512 bytes                        tags that connections have, and since when
/// + for each broker:
///   (1 + data_links) x 33 MiB                   messages of which fragments are missing
///   (1 + data_links) x ( one message of 16.1 MiB
///     + one frame of 1.1 MiB + 64 KiB )         what a link reads, and what that brings
///   (1 + data_links) x ( 256 x 40 KiB + 1 MiB + 64 KiB )
///   + 15 MiB                                    reports that it sends, and a write
///   16 MiB                                      events not taken yet, of all its links
///   16 MiB + 256 x 64 KiB + 64 KiB              uplinks and commands on their way
///   connections_max x 128 bytes                 registrations declared
///   (65,536 + 256) x 64 bytes                   changes it is behind with
///   tags_max x 256 bytes                        tags declared, and those it is behind with
///   7 MiB                                       what is remembered to go on with a session
///   one message of 16.1 MiB + 2.5 MiB           one that is handed out in parts, and to whom
///   connections_max x 80                        who was met before it was encoded
///   connections_max x 80 + reports_max x 64     its users, if somebody wants to know of them
/// ```
///
/// An encoded message is its payload, 16 MiB at most, in binary; in JSON 4/3 of it as base64, or up
/// to 6 times text that is all control characters. One for many is shared by their queues, and
/// counted once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    /// WebSocket connections. One more is accepted and closed with `too_many`. 1 to 16,777,215,
    /// default 100,000.
    pub connections_max: usize,
    /// Connections of one user at this gateway. 1 to 4,096, default 64.
    pub connections_per_user_max: usize,
    /// Bytes waiting to be written to one connection whose socket takes no more; beyond, it is
    /// closed with `slow_connection`. The message that crosses the bound before that is known is
    /// still taken, else one larger than this could never be delivered; so the true bound is this
    /// and one encoded message. 1,024 to 67,108,864, default 65,536.
    pub queue_bytes_max: usize,
    /// Bytes that all connections hold together: messages and answers that wait to be written, one
    /// message for many counted once, and what clients have sent of messages that are not whole.
    /// While there are more nothing is taken from brokers and clients, and connections that have
    /// not got on for the longest are closed with `slow_connection`, at once; beyond it is only
    /// what was being encoded. At least 8 times
    /// `queue_bytes_max` and 2,048 times `connections_max`; 1,048,576 to 1,099,511,627,776, default
    /// 1,073,741,824.
    pub connections_bytes_max: usize,
    /// Unanswered *send*s of one connection; it is not read while there are as many. 1 to 65,536,
    /// default 32.
    pub uplinks_per_connection_max: usize,
    /// Unanswered *send*s of all connections; more are refused as `overloaded`. 1 to 1,048,576,
    /// default 16,384.
    pub uplinks_max: usize,
    /// Bytes of unanswered *send*s, which are kept to be sent again when a link ends; more are
    /// refused as `overloaded`. 131,072 to 1,073,741,824, default 16,777,216.
    pub uplink_bytes_max: usize,
    /// Message ids kept to recognise a message that a producer sent again, at most once per
    /// connection; and as many deliveries that were reported on, so that the report on one that
    /// comes again can say who was reached before. 0 to 1,048,576 (0 recognises none), default
    /// 16,384.
    pub recent_messages_max: usize,
    /// Deliveries and TAG commands that wait to be reported on, and their users, counted together;
    /// beyond, one is reported at once and the users it was queued for as unknown. 1 to 16,777,216,
    /// default 1,048,576.
    pub reports_max: usize,
    /// Tags of one connection, and tags that backends have given to or taken from one login. A
    /// login with more is closed with `too_many`, a TAG that would make more is refused for that
    /// user. 0 to 256, default 256.
    pub tags_per_connection_max: usize,
    /// Tags of all connections, counted for each of them, and as many that backends have given to
    /// or taken from logins; beyond, a login and a TAG that gives tags are refused in the same way.
    /// A TAG that only takes tags away is not. 0 to 4,294,967,296, default 4,194,304.
    pub tags_held_max: usize,
    /// Different tags of all connections; a login and a TAG that would make more are refused in the
    /// same way. 0 to 1,048,576, default 1,048,576.
    pub tags_max: usize,
}

impl GatewayConfig {
    /// Checks every value.
    ///
    /// # Errors
    ///
    /// The first value that is not allowed, with its key and what is. Secrets are not repeated.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.broker.validate()?;
        self.jwt.validate()?;
        self.deadlines.validate()?;
        self.limits.validate()?;
        for origin in &self.allowed_origins {
            if Origin::parse(origin).is_none() {
                return Err(ConfigError {
                    key: "allowed_origins",
                    value: format!("{origin:?}"),
                    allowed: "scheme://host or scheme://host:port, without a path".into(),
                });
            }
        }
        Ok(())
    }
}

/// What the parts inside are told of it.
impl GatewayConfig {
    pub(crate) fn session_limits(&self) -> SessionLimits {
        let Self { deadlines, limits, .. } = self;
        SessionLimits {
            login_ms: deadlines.login_ms,
            register_ms: deadlines.register_ms,
            heartbeat_ms: deadlines.heartbeat_ms,
            close_ms: deadlines.close_ms,
            uplinks_max: limits.uplinks_per_connection_max,
        }
    }

    pub(crate) fn uplink_bounds(&self) -> UplinkBounds {
        UplinkBounds {
            count_max: self.limits.uplinks_max,
            bytes_max: self.limits.uplink_bytes_max,
            wait_ms: self.deadlines.uplink_ms,
        }
    }

    pub(crate) fn report_bounds(&self) -> crate::reports::Bounds {
        crate::reports::Bounds {
            places: self.limits.reports_max,
            past: self.limits.recent_messages_max,
            report_ms: self.deadlines.report_ms,
        }
    }

    pub(crate) fn verifier(&self) -> Verifier {
        Verifier::new(self.jwt.secret.as_bytes()).only(&self.namespaces)
    }

    pub(crate) fn hub_bounds(&self) -> Bounds {
        Bounds {
            connections: self.limits.connections_max,
            per_user: self.limits.connections_per_user_max,
            recent: self.limits.recent_messages_max,
            tags: TagBounds {
                of_connection: self.limits.tags_per_connection_max,
                declared: self.limits.tags_max,
                held: self.limits.tags_held_max,
            },
        }
    }
}

impl BrokerConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let wrong = |value: String| ConfigError {
            key: "broker.addresses",
            value,
            allowed: "a list of at least one host:port or dns:host:port".into(),
        };
        if self.addresses.is_empty() {
            return Err(wrong("[]".into()));
        }
        for address in &self.addresses {
            if !waybill_client::is_host_port(address) {
                return Err(wrong(format!("{address:?}")));
            }
        }
        in_range("broker.dns_refresh_ms", self.dns_refresh_ms, 100, 3_600_000)?;
        in_range("broker.data_links", self.data_links.into(), 0, DATA_LINKS_MAX.into())?;
        in_range("broker.connect_timeout_ms", self.connect_timeout_ms, 100, 600_000)?;
        let bytes_max = waybill_wire::limits::CREDENTIAL_BYTES_MAX;
        if self.token.len() > bytes_max {
            return Err(ConfigError {
                key: "broker.token",
                value: format!("{} bytes", self.token.len()),
                allowed: format!("0 to {bytes_max} bytes"),
            });
        }
        Ok(())
    }
}

impl JwtConfig {
    /// Least length of a secret, in bytes.
    pub const SECRET_BYTES_MIN: usize = 32;

    fn validate(&self) -> Result<(), ConfigError> {
        if self.algorithm != "HS256" {
            return Err(ConfigError {
                key: "jwt.algorithm",
                value: format!("{:?}", self.algorithm),
                allowed: "\"HS256\"".into(),
            });
        }
        if self.secret.len() < Self::SECRET_BYTES_MIN {
            return Err(ConfigError {
                key: "jwt.secret",
                value: format!("{} bytes", self.secret.len()),
                allowed: format!("{} bytes or more", Self::SECRET_BYTES_MIN),
            });
        }
        Ok(())
    }
}

impl DeadlineConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        in_range("deadlines.login_ms", self.login_ms, 100, 600_000)?;
        in_range("deadlines.register_ms", self.register_ms, 100, 600_000)?;
        in_range("deadlines.uplink_ms", self.uplink_ms, 100, 600_000)?;
        in_range("deadlines.heartbeat_ms", self.heartbeat_ms, 100, 600_000)?;
        in_range("deadlines.close_ms", self.close_ms, 100, 60_000)?;
        in_range("deadlines.report_ms", self.report_ms, 100, 60_000)?;
        in_range("deadlines.tcp_keepalive_ms", self.tcp_keepalive_ms, 0, 7_200_000)?;
        in_range("deadlines.tcp_user_timeout_ms", self.tcp_user_timeout_ms, 0, 7_200_000)?;
        in_range("deadlines.drain_ms", self.drain_ms, 0, 3_600_000)
    }
}

impl LimitConfig {
    /// Most connections there can be: an index and a login's number share 64 bits.
    pub const CONNECTIONS_MAX: usize = (1 << 24) - 1;
    /// So many bytes of each connection fit into what all may hold.
    pub const CONNECTION_BYTES_LEAST: usize = 2 << 10;

    fn validate(&self) -> Result<(), ConfigError> {
        let range = |key, value: usize, min: u64, max: u64| in_range(key, value as u64, min, max);
        let connections_max = Self::CONNECTIONS_MAX as u64;
        range("limits.connections_max", self.connections_max, 1, connections_max)?;
        range("limits.connections_per_user_max", self.connections_per_user_max, 1, 4096)?;
        range("limits.queue_bytes_max", self.queue_bytes_max, 1024, 64 << 20)?;
        range("limits.connections_bytes_max", self.connections_bytes_max, 1 << 20, 1 << 40)?;
        self.validate_pool()?;
        range("limits.uplinks_per_connection_max", self.uplinks_per_connection_max, 1, 1 << 16)?;
        range("limits.uplinks_max", self.uplinks_max, 1, 1 << 20)?;
        range("limits.uplink_bytes_max", self.uplink_bytes_max, 128 << 10, 1 << 30)?;
        range("limits.recent_messages_max", self.recent_messages_max, 0, 1 << 20)?;
        range("limits.reports_max", self.reports_max, 1, 1 << 24)?;
        let of_connection_max = CONNECTION_TAGS_MAX as u64;
        let of_connection = self.tags_per_connection_max;
        range("limits.tags_per_connection_max", of_connection, 0, of_connection_max)?;
        range("limits.tags_held_max", self.tags_held_max, 0, 1 << 32)?;
        range("limits.tags_max", self.tags_max, 0, GATEWAY_TAGS_MAX as u64)
    }

    /// What all may hold together has to do for some, and a little of it for each.
    fn validate_pool(&self) -> Result<(), ConfigError> {
        for (times, key, value) in [
            (QUEUES_LEAST, "limits.queue_bytes_max", self.queue_bytes_max),
            (Self::CONNECTION_BYTES_LEAST, "limits.connections_max", self.connections_max),
        ] {
            let least = value.saturating_mul(times);
            if self.connections_bytes_max < least {
                return Err(ConfigError {
                    key: "limits.connections_bytes_max",
                    value: self.connections_bytes_max.to_string(),
                    allowed: format!("{least} or more, {times} times {key} ({value})"),
                });
            }
        }
        Ok(())
    }
}

/// So many full queues fit into what all connections may hold.
const QUEUES_LEAST: usize = 8;

/// As many as a broker has shards, if it can.
const DATA_LINKS_MAX: u16 = 64;

fn in_range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError { key, value: value.to_string(), allowed: format!("{min} to {max}") })
}

/// A value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key} is {value}; allowed: {allowed}")]
pub struct ConfigError {
    /// The key, with a dot between section and name.
    pub key: &'static str,
    /// What it was; of secrets only the length.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7712)),
            broker: BrokerConfig::default(),
            jwt: JwtConfig::default(),
            deadlines: DeadlineConfig::default(),
            limits: LimitConfig::default(),
            allowed_origins: Vec::new(),
            namespaces: Vec::new(),
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            addresses: vec!["127.0.0.1:7711".into()],
            dns_refresh_ms: 10_000,
            connect_timeout_ms: 2_000,
            token: String::new(),
            tags: true,
            data_links: 16,
        }
    }
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self { algorithm: "HS256".into(), secret: String::new() }
    }
}

impl Default for DeadlineConfig {
    fn default() -> Self {
        Self {
            login_ms: 10_000,
            register_ms: 10_000,
            uplink_ms: 10_000,
            heartbeat_ms: 25_000,
            close_ms: 5_000,
            report_ms: 2_000,
            tcp_keepalive_ms: 3_000,
            tcp_user_timeout_ms: 30_000,
            drain_ms: 5_000,
        }
    }
}

impl Default for LimitConfig {
    fn default() -> Self {
        Self {
            connections_max: 100_000,
            connections_per_user_max: 64,
            queue_bytes_max: 64 << 10,
            connections_bytes_max: 1 << 30,
            uplinks_per_connection_max: 32,
            uplinks_max: 16_384,
            uplink_bytes_max: 16 << 20,
            recent_messages_max: 16_384,
            reports_max: 1 << 20,
            tags_per_connection_max: CONNECTION_TAGS_MAX,
            tags_held_max: 1 << 22,
            tags_max: GATEWAY_TAGS_MAX,
        }
    }
}

// Written by hand so that no log line can hold a secret.
impl std::fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerConfig").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for JwtConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JwtConfig").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working() -> GatewayConfig {
        let mut config = GatewayConfig::default();
        config.jwt.secret = "0123456789abcdef0123456789abcdef".into();
        config
    }

    #[test]
    fn the_defaults_want_a_secret_and_nothing_else() {
        assert_eq!(working().validate(), Ok(()));
        let error = GatewayConfig::default().validate().unwrap_err();
        assert_eq!(error.to_string(), "jwt.secret is 0 bytes; allowed: 32 bytes or more");
    }

    #[test]
    fn a_wrong_value_is_named_with_what_is_allowed() {
        type Spoil = fn(&mut GatewayConfig);
        let wrong: [(&str, Spoil); 21] = [
            ("broker.addresses", |c| c.broker.addresses.clear()),
            ("broker.addresses", |c| c.broker.addresses.push("localhost".into())),
            ("broker.connect_timeout_ms", |c| c.broker.connect_timeout_ms = 99),
            ("broker.data_links", |c| c.broker.data_links = 65),
            ("broker.token", |c| c.broker.token = "x".repeat(4097)),
            ("jwt.algorithm", |c| c.jwt.algorithm = "RS256".into()),
            ("jwt.secret", |c| c.jwt.secret = "short".into()),
            ("deadlines.login_ms", |c| c.deadlines.login_ms = 0),
            ("deadlines.register_ms", |c| c.deadlines.register_ms = 99),
            ("deadlines.uplink_ms", |c| c.deadlines.uplink_ms = 600_001),
            ("deadlines.heartbeat_ms", |c| c.deadlines.heartbeat_ms = 0),
            ("limits.connections_max", |c| c.limits.connections_max = 0),
            ("limits.connections_per_user_max", |c| c.limits.connections_per_user_max = 0),
            ("limits.queue_bytes_max", |c| c.limits.queue_bytes_max = 1023),
            ("limits.connections_bytes_max", |c| c.limits.connections_bytes_max = 1 << 19),
            ("limits.connections_bytes_max", |c| c.limits.connections_max = 1 << 20),
            ("limits.connections_bytes_max", |c| {
                (c.limits.queue_bytes_max, c.limits.connections_bytes_max) = (1 << 20, 7 << 20);
            }),
            ("limits.uplinks_max", |c| c.limits.uplinks_max = 0),
            ("limits.tags_per_connection_max", |c| c.limits.tags_per_connection_max = 257),
            ("limits.tags_max", |c| c.limits.tags_max = 1_048_577),
            ("allowed_origins", |c| c.allowed_origins.push("app.example.com".into())),
        ];
        for (key, spoil) in wrong {
            let mut config = working();
            spoil(&mut config);
            let error = config.validate().unwrap_err();
            assert_eq!(error.key, key);
            assert!(!error.allowed.is_empty());
        }
        let mut config = working();
        config.jwt.algorithm = "none".into();
        let text = config.validate().unwrap_err().to_string();
        assert_eq!(text, "jwt.algorithm is \"none\"; allowed: \"HS256\"");
    }

    #[test]
    fn a_bound_that_does_not_fit_another_is_told_with_both() {
        let mut config = working();
        config.limits.queue_bytes_max = 64 << 20;
        assert_eq!(config.validate(), Ok(()));
        config.limits.connections_max = 1_000_000;
        let text = config.validate().unwrap_err().to_string();
        let expected = "limits.connections_bytes_max is 1073741824; allowed: 2048000000 or more, \
                        2048 times limits.connections_max (1000000)";
        assert_eq!(text, expected);
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        let config: GatewayConfig = toml::from_str("[limits]\nconnections_max = 5").unwrap();
        assert_eq!(config.limits.connections_max, 5);
        assert_eq!(config.limits.queue_bytes_max, 65_536);
        assert!(toml::from_str::<GatewayConfig>("[limits]\nconnection_max = 5").is_err());
        assert!(toml::from_str::<GatewayConfig>("verbose = true").is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = working();
        config.broker.token = "broker-secret".into();
        let shown = format!("{config:?}");
        assert!(!shown.contains("broker-secret") && !shown.contains("0123456789abcdef"), "{shown}");
    }
}

//! Settings of a broker, with defaults that work on one machine.
//!
//! The doc comments are the reference. Nothing here reads a file, a flag or the environment: that
//! is the program's business. A file with an unknown key does not deserialise.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use waybill_routing::{Limits, Namespace, Policies, Policy};
use waybill_wire::code::Role;
use waybill_wire::limits::{BROKER_TAGS_MAX, GATEWAY_TAGS_MAX};

pub use crate::outbox::Policy as OutboxPolicy;

/// Settings of one broker process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerConfig {
    /// Address and port to listen on. Port 0 takes a free one. Without a token in `tokens` only a
    /// loopback address is accepted.
    pub listen: SocketAddr,
    /// Threads, each with its own event loop and links: 1 to 64.
    pub shards: u16,
    /// What moves the bytes: `uring` (Linux 6.1 and newer), `tokio` (everywhere), or `auto`:
    /// `uring` where the system lets it and it passes a test at the start, else `tokio`.
    pub io: IoChoice,
    /// Most links at once, over all shards: 1 to 1,000,000.
    pub links_max: u32,
    /// Milliseconds of silence after which a link is asked for a sign of life; after three times
    /// as many it is ended. 100 to 600,000, or 0 for never. Default 1,000: a peer that vanished is
    /// gone in 3 s.
    pub keepalive_ms: u32,
    /// Milliseconds a connection is idle before the system asks the other one for a sign of life,
    /// three times, a third as long apart: 1,000 to 7,200,000, or 0 for never. Default 3,000.
    pub tcp_keepalive_ms: u32,
    /// Milliseconds for which sent bytes may stay unacknowledged before the system gives the
    /// connection up (Linux): 1,000 to 3,600,000, or 0 for the system's own. Default 30,000. A peer
    /// that lives and does not read, as one the broker has paused, runs into it too, so it is only
    /// what is left where `keepalive_ms` does not count.
    pub tcp_user_timeout_ms: u32,
    /// Milliseconds a gateway has to report what became of a message whose producer wants to know:
    /// 100 to 600,000. Default 5,000. After that its part of the receipt is unknown.
    pub report_timeout_ms: u32,
    /// Milliseconds a consumer has to answer an uplink: 100 to 3,600,000. Default 30,000. After
    /// that the answer is that the consumer was lost. Longer than the gateways'
    /// `deadlines.uplink_ms`, when a user is not waiting any more.
    pub uplink_timeout_ms: u32,
    /// Address and port for `GET /healthz`, `GET /ledger` and `POST /explain`; port 0 takes a free
    /// one. Only a loopback address is accepted, since whoever asks is answered. Empty, the
    /// default: nobody is.
    pub admin_listen: String,
    /// Bytes that may wait for one link before frames for it are refused: 262,144 to 1 GiB. A link
    /// is accounted twice as much, since what is being written no longer counts as waiting.
    pub outbox_bytes_max: usize,
    /// Bytes of memory that all links together may hold: 64 MiB to 1 TiB. Three quarters are for
    /// what waits to be written or is being written, and receipts, reports and uplinks that wait;
    /// a quarter for what links bring: frames that are not whole, large read buffers, answers. Of
    /// the one half is dealt out evenly among `links_max`, of the other an eighth; beyond that a
    /// link may have an eighth of what is left of the rest in one queue, so that some is left for
    /// those that read. Beyond its share the same happens as at the bound of one link. Buffers
    /// double as they grow, so the process may take twice as much at a moment.
    pub links_bytes_max: usize,
    /// What happens to messages for a gateway when a bound of its outbox is reached, after those
    /// whose time to live ran out were dropped and those with a conflation key have replaced older
    /// ones: `refuse` the new one (its producer is told at once), `drop_oldest`, those of the
    /// lowest priority first, or `close` the link: the gateway comes back and goes on with what is
    /// new.
    pub outbox_policy: OutboxPolicy,
    /// Milliseconds that a message may wait for a gateway, or a write to it, before that policy
    /// acts, whatever the outbox holds: 1,000 to 600,000, or 0 for any time. It is looked at ten
    /// times a second, and with an error of a sixteenth.
    pub outbox_age_max_ms: u32,
    /// Milliseconds for which what a gateway registered is kept when its link has gone, so that it
    /// can go on with it: 0 to 600,000. Its users are offline meanwhile.
    pub resume_window_ms: u32,
    /// Milliseconds without a new gateway after which a starting broker takes those that are in
    /// effect for all there are, and answers publishes: 0 to 600,000. It should be longer than
    /// gateways' longest pause between two attempts to link. 0: it answers at once, and says
    /// `offline` of users whose gateway has not come back yet; for tests, and a broker that no
    /// gateway outlives.
    pub ready_quiet_ms: u32,
    /// Milliseconds after its start when a broker answers in any case: 1 to 3,600,000.
    pub ready_max_ms: u32,
    /// Gateways that are expected: a starting broker answers as soon as as many are in effect. 0 to
    /// 65,536, 0 if that is not known.
    pub gateways_expected: u32,
    /// Which logins of one user may stand at once, in namespaces that `logins` does not name:
    /// `all`, `one_per_device_class` or `one`. The higher login number wins.
    pub logins_default: LoginPolicy,
    /// The same for single namespaces.
    pub logins: Vec<LoginsConfig>,
    /// Milliseconds that links have to leave when the broker is told to stop: 0 to 3,600,000.
    pub drain_ms: u32,
    /// Gateways that may be known at once, those being forgotten included: 1 to 65,535.
    pub gateways_max: u32,
    /// Data links that one gateway may have, each to another shard: 0 to 64. A shard to which it
    /// has none hands what it reads for that gateway to the shard of the gateway's first link. 0:
    /// none run.
    pub data_links_max: u16,
    /// Routes, and registrations they follow from, that may be held at once: 1 to 1,000,000,000.
    pub routes_max: usize,
    /// Tags of one gateway that are kept, to tell whom a selector may be for: 0 to 1,048,576. A
    /// gateway that declares more gets every message with a selector that is for its users, and
    /// finds out by itself who matches.
    pub gateway_tags_max: usize,
    /// Different tags that are kept in all, of any number of gateways: 0 to 16,777,216. The same
    /// holds for a gateway that declares one more.
    pub tags_max: usize,
    /// Who may link. Empty: anybody on this machine, and nobody from elsewhere.
    pub tokens: Vec<TokenConfig>,
}

/// What moves the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IoChoice {
    /// `Uring` where it can be used, else `Tokio`.
    #[default]
    Auto,
    /// io_uring, or the broker does not start.
    Uring,
    /// Readiness, by tokio.
    Tokio,
}

/// More shards than that there are not.
const SHARDS_MAX: u16 = 64;

/// One to each shard.
const DATA_LINKS_MAX: u16 = SHARDS_MAX;

/// Which logins of one user may stand at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoginPolicy {
    /// Any number.
    #[default]
    All,
    /// One for each device class.
    OnePerDeviceClass,
    /// One, whatever the device class.
    One,
}

impl From<LoginPolicy> for Policy {
    fn from(policy: LoginPolicy) -> Self {
        match policy {
            LoginPolicy::All => Self::All,
            LoginPolicy::OnePerDeviceClass => Self::OnePerDeviceClass,
            LoginPolicy::One => Self::One,
        }
    }
}

/// The policy of one namespace.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LoginsConfig {
    /// The namespace.
    pub namespace: u32,
    /// What holds there.
    pub policy: LoginPolicy,
}

/// One credential and what it allows.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Name of the holder, for logs.
    pub name: String,
    /// The secret, 1 to 4,096 bytes; at least 16 outside of tests.
    pub token: String,
    /// Roles it may take: `producer`, `gateway`, `consumer`. Default: all three.
    #[serde(default = "TokenConfig::all_roles")]
    pub roles: Vec<String>,
    /// Namespaces it may use. Default: all.
    #[serde(default)]
    pub namespaces: Option<Vec<u32>>,
}

impl TokenConfig {
    fn all_roles() -> Vec<String> {
        ["producer", "gateway", "consumer"].map(String::from).to_vec()
    }
}

impl std::fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenConfig")
            .field("name", &self.name)
            .field("roles", &self.roles)
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7711)),
            shards: 1,
            io: IoChoice::Auto,
            links_max: 16_384,
            keepalive_ms: 1_000,
            tcp_keepalive_ms: 3_000,
            tcp_user_timeout_ms: 30_000,
            report_timeout_ms: 5_000,
            uplink_timeout_ms: 30_000,
            admin_listen: String::new(),
            outbox_bytes_max: 32 << 20,
            links_bytes_max: 1 << 30,
            outbox_policy: OutboxPolicy::Refuse,
            outbox_age_max_ms: 30_000,
            resume_window_ms: 10_000,
            ready_quiet_ms: 6_000,
            ready_max_ms: 60_000,
            gateways_expected: 0,
            logins_default: LoginPolicy::All,
            logins: Vec::new(),
            drain_ms: 5_000,
            gateways_max: 4_096,
            data_links_max: DATA_LINKS_MAX,
            routes_max: 1 << 24,
            gateway_tags_max: GATEWAY_TAGS_MAX,
            tags_max: 1 << 20,
            tokens: Vec::new(),
        }
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A number outside its range.
    #[error("{key} = {value} is out of range: {least} to {most}")]
    Range {
        /// The key.
        key: &'static str,
        /// What it was set to.
        value: u64,
        /// Least allowed value.
        least: u64,
        /// Greatest allowed value.
        most: u64,
    },
    /// An address that others can reach, without a credential.
    #[error(
        "listen = \"{0}\" is reachable from outside, and no token is configured: put one into \
         broker.tokens, or listen on 127.0.0.1"
    )]
    OpenToAll(SocketAddr),
    /// An admin address that is none, or that others can reach.
    #[error("admin_listen = \"{0}\" must be a loopback address with a port, as 127.0.0.1:7710")]
    Admin(String),
    /// A namespace with two policies.
    #[error("logins[{index}]: namespace {namespace} has a policy already; each has one")]
    LoginsTwice {
        /// Place in the list, from 0.
        index: usize,
        /// The namespace.
        namespace: u32,
    },
    /// A token that cannot be used.
    #[error("tokens[{index}] (name \"{name}\"): {problem}")]
    Token {
        /// Place in the list, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl BrokerConfig {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used, with its key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let range = |key, value: u64, least, most| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(ConfigError::Range { key, value, least, most })
            }
        };
        range("shards", self.shards.into(), 1, SHARDS_MAX.into())?;
        range("links_max", self.links_max.into(), 1, 1_000_000)?;
        if self.keepalive_ms != 0 {
            range("keepalive_ms", self.keepalive_ms.into(), 100, 600_000)?;
        }
        if self.tcp_keepalive_ms != 0 {
            range("tcp_keepalive_ms", self.tcp_keepalive_ms.into(), 1_000, 7_200_000)?;
        }
        if self.tcp_user_timeout_ms != 0 {
            range("tcp_user_timeout_ms", self.tcp_user_timeout_ms.into(), 1_000, 3_600_000)?;
        }
        range("report_timeout_ms", self.report_timeout_ms.into(), 100, 600_000)?;
        range("uplink_timeout_ms", self.uplink_timeout_ms.into(), 100, 3_600_000)?;
        self.admin_address()?;
        range("outbox_bytes_max", self.outbox_bytes_max as u64, 262_144, 1 << 30)?;
        range("links_bytes_max", self.links_bytes_max as u64, 64 << 20, 1 << 40)?;
        if self.outbox_age_max_ms != 0 {
            range("outbox_age_max_ms", self.outbox_age_max_ms.into(), 1_000, 600_000)?;
        }
        range("resume_window_ms", self.resume_window_ms.into(), 0, 600_000)?;
        range("ready_quiet_ms", self.ready_quiet_ms.into(), 0, 600_000)?;
        range("ready_max_ms", self.ready_max_ms.into(), 1, 3_600_000)?;
        range("gateways_expected", self.gateways_expected.into(), 0, 65_536)?;
        range("drain_ms", self.drain_ms.into(), 0, 3_600_000)?;
        range("gateways_max", self.gateways_max.into(), 1, Limits::SLOTS_MAX.into())?;
        range("data_links_max", self.data_links_max.into(), 0, DATA_LINKS_MAX.into())?;
        range("routes_max", self.routes_max as u64, 1, 1_000_000_000)?;
        range("gateway_tags_max", self.gateway_tags_max as u64, 0, GATEWAY_TAGS_MAX as u64)?;
        range("tags_max", self.tags_max as u64, 0, BROKER_TAGS_MAX as u64)?;
        for (index, token) in self.tokens.iter().enumerate() {
            token.validate().map_err(|problem| ConfigError::Token {
                index,
                name: token.name.clone(),
                problem,
            })?;
        }
        self.validate_tokens_differ()?;
        self.validate_logins_differ()?;
        if self.tokens.is_empty() && !self.listen.ip().is_loopback() {
            return Err(ConfigError::OpenToAll(self.listen));
        }
        Ok(())
    }
}

impl BrokerConfig {
    /// Where health and ledger are told, if anywhere.
    ///
    /// # Errors
    ///
    /// What is set is no loopback address with a port.
    pub fn admin_address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.admin_listen.is_empty() {
            return Ok(None);
        }
        let address: Option<SocketAddr> = self.admin_listen.parse().ok();
        match address.filter(|address| address.ip().is_loopback()) {
            Some(address) => Ok(Some(address)),
            None => Err(ConfigError::Admin(self.admin_listen.clone())),
        }
    }

    /// For how long a message may wait for a gateway, if that is bounded.
    #[must_use]
    pub fn outbox_age_max(&self) -> Option<Duration> {
        let age_max = Duration::from_millis(self.outbox_age_max_ms.into());
        (!age_max.is_zero()).then_some(age_max)
    }

    /// What holds for each namespace.
    #[must_use]
    pub fn policies(&self) -> Policies {
        let named = self.logins.iter().map(|it| (Namespace(it.namespace), it.policy.into()));
        Policies::new(named, self.logins_default.into())
    }

    fn validate_logins_differ(&self) -> Result<(), ConfigError> {
        for (index, entry) in self.logins.iter().enumerate() {
            let namespace = entry.namespace;
            if self.logins[..index].iter().any(|other| other.namespace == namespace) {
                return Err(ConfigError::LoginsTwice { index, namespace });
            }
        }
        Ok(())
    }

    /// Two entries with one secret would make it a matter of order whose rights count.
    fn validate_tokens_differ(&self) -> Result<(), ConfigError> {
        for (index, token) in self.tokens.iter().enumerate() {
            let mut others = self.tokens[..index].iter();
            if let Some(other) = others.find(|other| other.token == token.token) {
                let problem =
                    format!("has the same token as \"{}\": each needs its own", other.name);
                return Err(ConfigError::Token { index, name: token.name.clone(), problem });
            }
        }
        Ok(())
    }
}

impl TokenConfig {
    fn validate(&self) -> Result<(), String> {
        let most = waybill_wire::limits::CREDENTIAL_BYTES_MAX;
        if self.token.is_empty() || self.token.len() > most {
            return Err(format!("token has {} bytes: 1 to {most} are possible", self.token.len()));
        }
        self.parsed_roles().map(|_| ())
    }

    /// The roles as protocol numbers.
    ///
    /// # Errors
    ///
    /// A sentence that names the role that does not exist and those that do.
    pub(crate) fn parsed_roles(&self) -> Result<Vec<Role>, String> {
        let role = |name: &String| match name.as_str() {
            "producer" => Ok(Role::PRODUCER),
            "gateway" => Ok(Role::GATEWAY),
            "consumer" => Ok(Role::CONSUMER),
            other => {
                Err(format!("role \"{other}\" does not exist: producer, gateway and consumer do"))
            }
        };
        self.roles.iter().map(role).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut BrokerConfig)) -> Result<(), String> {
        let mut config = BrokerConfig::default();
        change(&mut config);
        config.validate().map_err(|error| error.to_string())
    }

    fn token(token: &str, roles: &[&str]) -> TokenConfig {
        let roles = roles.iter().map(ToString::to_string).collect();
        TokenConfig { name: "it".into(), token: token.into(), roles, namespaces: None }
    }

    #[test]
    fn tcp_12_without_a_token_only_this_machine_is_served() {
        let open = "0.0.0.0:7711".parse().unwrap();
        let refused = with(|config| config.listen = open).unwrap_err();
        assert!(refused.contains("0.0.0.0:7711") && refused.contains("token"), "{refused}");
        let guarded = with(|config| {
            config.listen = open;
            config.tokens = vec![token("a secret of some length", &["producer"])];
        });
        assert_eq!(guarded, Ok(()));
        for local in ["127.0.0.1:0", "127.9.9.9:7711", "[::1]:7711"] {
            assert_eq!(with(|config| config.listen = local.parse().unwrap()), Ok(()), "{local}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_range() {
        let check = |key: &str, change: fn(&mut BrokerConfig)| {
            let refused = with(change).unwrap_err();
            assert!(refused.starts_with(key) && refused.contains(" to "), "{key}: {refused}");
        };
        check("shards = 0", |config| config.shards = 0);
        check("shards = 65", |config| config.shards = 65);
        check("links_max = 0", |config| config.links_max = 0);
        check("keepalive_ms = 99", |config| config.keepalive_ms = 99);
        check("tcp_keepalive_ms = 1", |config| config.tcp_keepalive_ms = 1);
        check("tcp_user_timeout_ms = 999", |config| config.tcp_user_timeout_ms = 999);
        check("report_timeout_ms = 99", |config| config.report_timeout_ms = 99);
        check("uplink_timeout_ms = 99", |config| config.uplink_timeout_ms = 99);
        check("outbox_bytes_max = 1", |config| config.outbox_bytes_max = 1);
        check("links_bytes_max = 67108863", |config| config.links_bytes_max = (64 << 20) - 1);
        check("outbox_age_max_ms = 999", |config| config.outbox_age_max_ms = 999);
        check("outbox_age_max_ms = 600001", |config| config.outbox_age_max_ms = 600_001);
        check("resume_window_ms = 600001", |config| config.resume_window_ms = 600_001);
        check("ready_quiet_ms = 600001", |config| config.ready_quiet_ms = 600_001);
        check("ready_max_ms = 0", |config| config.ready_max_ms = 0);
        check("gateways_expected = 65537", |config| config.gateways_expected = 65_537);
        check("drain_ms = 3600001", |config| config.drain_ms = 3_600_001);
        check("gateways_max = 0", |config| config.gateways_max = 0);
        check("gateways_max = 65536", |config| config.gateways_max = 65_536);
        check("routes_max = 0", |config| config.routes_max = 0);
        check("gateway_tags_max = 1048577", |config| config.gateway_tags_max = 1_048_577);
        check("tags_max = 16777217", |config| config.tags_max = 16_777_217);
        assert_eq!(with(|config| config.keepalive_ms = 0), Ok(()), "0 is never");
    }

    #[test]
    fn health_and_ledger_are_told_on_this_machine_only() {
        for wrong in ["0.0.0.0:7710", "192.0.2.1:7710", "127.0.0.1", "here"] {
            let refused = with(|config| config.admin_listen = wrong.into()).unwrap_err();
            assert!(refused.contains(wrong) && refused.contains("loopback"), "{refused}");
        }
        assert_eq!(with(|config| config.admin_listen = "[::1]:0".into()), Ok(()));
    }

    #[test]
    fn a_namespace_has_one_policy() {
        let of = |namespace| LoginsConfig { namespace, policy: LoginPolicy::One };
        assert_eq!(with(|config| config.logins = vec![of(1), of(2)]), Ok(()));
        let refused = with(|config| config.logins = vec![of(1), of(2), of(1)]).unwrap_err();
        assert!(refused.contains("logins[2]") && refused.contains("namespace 1"), "{refused}");
    }

    #[test]
    fn two_tokens_may_not_be_the_same() {
        let refused = with(|config| {
            config.tokens =
                vec![token("swordfish", &["producer"]), token("swordfish", &["gateway"])];
        });
        let refused = refused.unwrap_err();
        assert!(refused.contains("tokens[1]") && !refused.contains("swordfish"), "{refused}");
    }

    #[test]
    fn a_token_that_cannot_be_used_is_named_and_never_shown() {
        for (secret, roles, names) in [
            ("", &["producer"][..], "0 bytes"),
            ("swordfish", &["prodcer"], "prodcer"),
            ("swordfish", &["admin"], "admin"),
        ] {
            let refused = with(|config| config.tokens = vec![token(secret, roles)]).unwrap_err();
            assert!(refused.contains(names) && refused.contains("tokens[0]"), "{refused}");
            assert!(!refused.contains("swordfish"), "{refused}");
        }
        assert!(!format!("{:?}", token("swordfish", &[])).contains("swordfish"));
    }
}

//! What a link needs to know before it starts: where, who, how patient, how much to hold.
//!
//! Every field has a default that works against a broker on this machine. [`Options::check`] names
//! the field that is wrong; a link checks before it opens anything.

use std::time::Duration;

use thiserror::Error;
use waybill_wire::limits::{CREDENTIAL_BYTES_MAX, HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX};

use crate::backoff::Backoff;
use crate::discovery::DNS_PREFIX;

/// Port a broker listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7711;

/// Least value of [`Options::max_pending_bytes`]: the largest frame there can be, so that no
/// message is impossible to send for lack of room.
pub const PENDING_BYTES_MIN: usize = HEADER_BYTES_MAX + PAYLOAD_BYTES_MAX;

/// Largest value of [`Options::max_in_flight`] and [`Options::max_pending_bytes`]: what the
/// counters that guard them can hold on every platform.
pub const COUNT_MAX: usize = (u32::MAX >> 3) as usize;

/// As many as a broker has shards, if it can.
const DATA_LINKS: u16 = 64;

/// How a link is made and what it may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Brokers as `host:port`, at least one; names are resolved at each attempt. `dns:host:port`
    /// stands for every address the name has. A producer or gateway link uses the first that
    /// answers and moves on to the next when it fails; a consumer links to each.
    pub brokers: Vec<String>,
    /// Credential presented in HELLO.
    pub token: Option<String>,
    /// Time for one attempt: name, TCP handshake and WELCOME together. After a partition it and the
    /// back-off bound how long a link takes to come back.
    pub connect_timeout: Duration,
    /// Bounds of the delay between attempts.
    pub backoff: Backoff,
    /// What was in flight when a link died is sent again on the next one, if that opens within
    /// this time; 0 = never: then its fate is told as unknown at once. Gateways serve nobody twice
    /// who is still in their memory of recent messages, so this should not be long (producer).
    pub resend_within: Duration,
    /// A publish that could not be sent for so long fails: no broker, or none that is ready
    /// (producer).
    pub publish_timeout: Duration,
    /// How often names with `dns:` are looked up again (consumer).
    pub dns_refresh: Duration,
    /// Time [`close`](crate::Producer::close) gives to what is in flight.
    pub close_timeout: Duration,
    /// Whether to declare tags of connections to brokers that take them, and to be sent messages
    /// with a selector (gateway).
    pub tags: bool,
    /// Most data links to a broker beside the control link, one to each of its other shards; 0 =
    /// none (gateway).
    pub data_links: u16,
    /// Most publishes without a receipt (producer), uplinks without an answer (gateway, consumer).
    pub max_in_flight: usize,
    /// Most bytes of targets and payload of unsettled publishes (producer); of uplinks waiting to
    /// be written, and again of events waiting to be taken (gateway); of messages waiting to be
    /// taken (consumer).
    pub max_pending_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: vec![format!("127.0.0.1:{DEFAULT_PORT}")],
            token: None,
            connect_timeout: Duration::from_secs(2),
            backoff: Backoff::default(),
            resend_within: Duration::from_secs(5),
            publish_timeout: Duration::from_secs(30),
            dns_refresh: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            tags: false,
            data_links: DATA_LINKS,
            max_in_flight: 16_384,
            max_pending_bytes: 32 << 20,
        }
    }
}

impl Options {
    /// The defaults, with these brokers.
    pub fn new<B: Into<String>>(brokers: impl IntoIterator<Item = B>) -> Self {
        Self { brokers: brokers.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The same options with a credential.
    #[must_use]
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(token.into()), ..self }
    }

    /// Whether these options can work.
    ///
    /// # Errors
    ///
    /// The first field that cannot, and why.
    pub fn check(&self) -> Result<(), OptionsError> {
        let wrong = |field, problem: String| Err(OptionsError { field, problem });
        if self.brokers.is_empty() {
            return wrong("brokers", "empty: name at least one host:port".into());
        }
        for broker in &self.brokers {
            if !is_host_port(broker) {
                return wrong("brokers", format!("{broker:?} is not host:port"));
            }
        }
        let token = self.token.as_ref().map_or(0, String::len);
        if token > CREDENTIAL_BYTES_MAX {
            let max = CREDENTIAL_BYTES_MAX;
            return wrong("token", format!("{token} bytes, credential_bytes_max is {max}"));
        }
        for (field, time) in [
            ("connect_timeout", self.connect_timeout),
            ("close_timeout", self.close_timeout),
            ("publish_timeout", self.publish_timeout),
            ("dns_refresh", self.dns_refresh),
            ("backoff.min", self.backoff.min),
        ] {
            if time.is_zero() {
                return wrong(field, "must be longer than 0".into());
            }
        }
        if self.backoff.max < self.backoff.min {
            return wrong("backoff.max", "shorter than backoff.min".into());
        }
        for (field, count, min) in [
            ("max_in_flight", self.max_in_flight, 1),
            ("max_pending_bytes", self.max_pending_bytes, PENDING_BYTES_MIN),
        ] {
            if !(min..=COUNT_MAX).contains(&count) {
                return wrong(field, format!("{count} is not in {min}..={COUNT_MAX}"));
            }
        }
        Ok(())
    }
}

/// Whether this can be an entry of [`Options::brokers`]: a host and a port, with or without
/// `dns:`. Nothing is resolved.
///
/// ```
/// use waybill_client::is_host_port;
/// assert!(is_host_port("broker.internal:7711") && is_host_port("[::1]:7711"));
/// assert!(is_host_port("dns:brokers.internal:7711") && !is_host_port("dns:7711"));
/// assert!(!is_host_port("broker.internal") && !is_host_port(":7711"));
/// ```
#[must_use]
pub fn is_host_port(address: &str) -> bool {
    let address = address.strip_prefix(DNS_PREFIX).unwrap_or(address);
    let parts = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    parts.is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// A field of [`Options`] that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("option {field}: {problem}")]
pub struct OptionsError {
    /// Name of the field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work() {
        assert_eq!(Options::default().check(), Ok(()));
        assert_eq!(Options::new(["broker.internal:7711", "[::1]:7711"]).check(), Ok(()));
    }

    #[test]
    fn an_error_names_the_field() {
        type Spoil = fn(&mut Options);
        let wrong: [(&str, Spoil); 13] = [
            ("brokers", |o| o.brokers.clear()),
            ("brokers", |o| o.brokers.push("localhost".into())),
            ("brokers", |o| o.brokers.push(":7711".into())),
            ("brokers", |o| o.brokers.push("localhost:70000".into())),
            ("token", |o| o.token = Some("x".repeat(4097))),
            ("connect_timeout", |o| o.connect_timeout = Duration::ZERO),
            ("close_timeout", |o| o.close_timeout = Duration::ZERO),
            ("publish_timeout", |o| o.publish_timeout = Duration::ZERO),
            ("backoff.min", |o| o.backoff.min = Duration::ZERO),
            ("backoff.max", |o| o.backoff.max = Duration::from_millis(1)),
            ("max_in_flight", |o| o.max_in_flight = 0),
            ("max_in_flight", |o| o.max_in_flight = usize::MAX),
            ("max_pending_bytes", |o| o.max_pending_bytes = 1 << 20),
        ];
        for (field, spoil) in wrong {
            let mut options = Options::default();
            spoil(&mut options);
            assert_eq!(options.check().map_err(|error| error.field), Err(field));
        }
    }
}

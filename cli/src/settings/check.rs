//! Whether values make sense: ranges, and what one value demands of another.
//!
//! The crates that are configured judge their own settings and tell the first mistake. Here that
//! key is put back to its default and they are asked again, so that every mistake is told.

use waybill_broker::{BrokerConfig, ConfigError as BrokerError};
use waybill_gateway::GatewayConfig;

use crate::logs;
use crate::output::quoted;

use super::layers::{Mistake, Sources, default_table, leaves, put, variable_name};
use super::{ClientSettings, LogSettings, Settings};

/// A part of the settings that a command uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// `[broker]`.
    Broker,
    /// `[gateway]`, with a secret.
    Gateway,
    /// `[gateway]`, of which the secret may be missing.
    GatewayButSecret,
    /// `[client]`.
    Client,
    /// `[log]`.
    Log,
}

/// A secret that stands in where none is configured and none is used.
fn filler_secret() -> String {
    "0".repeat(waybill_gateway::config::JwtConfig::SECRET_BYTES_MIN)
}

/// Every mistake in one part.
pub(super) fn part(part: Part, settings: &Settings, sources: &Sources) -> Vec<Mistake> {
    let found = match part {
        Part::Broker => all(&settings.broker, "broker", broker_mistake),
        Part::Gateway => all(&settings.gateway, "gateway", gateway_mistake),
        Part::GatewayButSecret => {
            let mut gateway = settings.gateway.clone();
            if gateway.jwt.secret.is_empty() {
                gateway.jwt.secret = filler_secret();
            }
            all(&gateway, "gateway", gateway_mistake)
        }
        Part::Client => client_mistakes(&settings.client),
        Part::Log => log_mistakes(&settings.log),
    };
    found.into_iter().map(|found| told(found, sources)).collect()
}

/// A mistake without its source: dotted key, what is wrong, what to do.
struct Found {
    key: String,
    problem: String,
    remedy: Option<String>,
}

fn told(found: Found, sources: &Sources) -> Mistake {
    let Found { key, problem, remedy } = found;
    let place = sources.get(&key).map_or("default".to_string(), ToString::to_string);
    let remedy = remedy.unwrap_or_else(|| match sources.get(&key) {
        Some(source) => format!("change {key} in {source}"),
        None => format!("set {key} in the settings file, or {}", variable_name(&key)),
    });
    Mistake { cause: format!("{place}: {problem}"), remedy, key }
}

/// Asks for the first mistake, mends it, and asks again.
fn all<C>(config: &C, section: &str, first: impl Fn(&C) -> Option<Found>) -> Vec<Found>
where
    C: Clone + serde::Serialize + serde::de::DeserializeOwned,
{
    let defaults = leaves(&default_table());
    let mut config = config.clone();
    let mut found: Vec<Found> = Vec::new();
    while let Some(mistake) = first(&config) {
        let seen = found.iter().any(|known| known.key == mistake.key);
        let default = defaults.get(&mistake.key).cloned();
        let key = mistake.key.strip_prefix(section).map(|rest| rest.trim_start_matches('.').into());
        if !seen {
            found.push(mistake);
        }
        let mended = default.zip(key).and_then(|(default, key): (_, String)| {
            let default = match key.as_str() {
                "jwt.secret" => filler_secret().into(),
                _ => default,
            };
            let mut table = toml::Table::try_from(&config).ok()?;
            put(&mut table, &key, default);
            toml::Value::Table(table).try_into().ok()
        });
        match mended {
            Some(mended) if !seen => config = mended,
            _ => break,
        }
    }
    found
}

/// A list and tables of one name are more than TOML allows.
const ADD_TOKEN: &str = "add a token under [[broker.tokens]] (and take out a line tokens = [] that \
                         is there), or listen on 127.0.0.1";

fn broker_mistake(config: &BrokerConfig) -> Option<Found> {
    let error = config.validate().err()?;
    let (key, remedy) = match &error {
        BrokerError::Range { key, least, most, .. } => {
            (*key, Some(format!("set broker.{key} to a value from {least} to {most}")))
        }
        BrokerError::OpenToAll(_) => ("listen", Some(ADD_TOKEN.into())),
        BrokerError::Admin(_) => ("admin_listen", None),
        BrokerError::LoginsTwice { .. } => ("logins", None),
        BrokerError::Token { .. } => ("tokens", None),
    };
    Some(Found { key: format!("broker.{key}"), problem: format!("broker.{error}"), remedy })
}

fn gateway_mistake(config: &GatewayConfig) -> Option<Found> {
    let error = config.validate().err()?;
    let key = format!("gateway.{}", error.key);
    let remedy = if key == "gateway.jwt.secret" && config.jwt.secret.is_empty() {
        format!("set it in the settings file, or {}", variable_name(&key))
    } else {
        format!("set {key} to one of: {}", error.allowed)
    };
    Some(Found { problem: format!("gateway.{error}"), remedy: Some(remedy), key })
}

fn client_mistakes(client: &ClientSettings) -> Vec<Found> {
    let mut found = Vec::new();
    for address in &client.addresses {
        if !waybill_client::is_host_port(address) {
            found.push(Found {
                key: "client.addresses".into(),
                problem: format!(
                    "client.addresses has {}, which is not host:port",
                    quoted(address)
                ),
                remedy: Some("write it as host:port, such as 127.0.0.1:7711".into()),
            });
        }
    }
    let timeout = client.connect_timeout_ms;
    if !(1..=600_000).contains(&timeout) {
        found.push(Found {
            key: "client.connect_timeout_ms".into(),
            problem: format!("client.connect_timeout_ms = {timeout} is out of range: 1 to 600000"),
            remedy: None,
        });
    }
    let bytes_max = waybill_wire::limits::CREDENTIAL_BYTES_MAX;
    if client.token.len() > bytes_max {
        let bytes = client.token.len();
        found.push(Found {
            key: "client.token".into(),
            problem: format!("client.token has {bytes} bytes: 0 to {bytes_max} are possible"),
            remedy: None,
        });
    }
    found
}

fn log_mistakes(log: &LogSettings) -> Vec<Found> {
    let problem = logs::filter(&log.level).err().filter(|_| log.level != "auto");
    let found = problem.map(|problem| Found {
        key: "log.level".into(),
        problem: format!("log.level = {}: {problem}", quoted(&log.level)),
        remedy: Some(
            "use auto, error, warn, info, debug, trace, off, or a filter such as \
             info,waybill_broker=debug"
                .into(),
        ),
    });
    found.into_iter().collect()
}

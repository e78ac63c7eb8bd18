//! Settings of every command: one TOML file, then the environment, then flags, the later winning.
//!
//! What the keys mean, and which values they take, stands with the structs of the crates they
//! configure. Here is how the layers become one ([`layers`]), what is wrong with them ([`check`])
//! and how they are shown ([`show`]). Nothing else reads settings from a file or the environment.

mod check;
mod layers;
mod nearest;
mod show;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Outcome};

pub(crate) use check::Part;
pub(crate) use layers::{Flags, Mistake};
pub(crate) use show::{as_json, as_toml};

/// The commented file of all defaults.
pub(crate) const DEFAULT_FILE: &str = include_str!("../assets/waybill.default.toml");

/// All settings there are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// The broker.
    pub(crate) broker: waybill_broker::BrokerConfig,
    /// The gateway.
    pub(crate) gateway: waybill_gateway::GatewayConfig,
    /// Commands that link to a broker.
    pub(crate) client: ClientSettings,
    /// Logs.
    pub(crate) log: LogSettings,
}

/// How `pub` and `sub` get to a broker.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClientSettings {
    /// Brokers as `host:port`. Empty: that of the running `waybill up`, else `127.0.0.1:7711`.
    pub(crate) addresses: Vec<String>,
    /// Credential presented to them; empty presents none.
    pub(crate) token: String,
    /// Milliseconds for one attempt to link: 1 to 600,000.
    pub(crate) connect_timeout_ms: u64,
}

/// What is logged, to stderr.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSettings {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,waybill_broker=debug`.
    /// `auto` is `info` for `broker` and `gateway`, `warn` for `up`; `pub` and `sub` tell what
    /// becomes of their link themselves, so theirs is `error` without that.
    pub(crate) level: String,
    /// `text`, `json`, or `auto`: text on a terminal, else JSON.
    pub(crate) format: LogFormat,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self { addresses: Vec::new(), token: String::new(), connect_timeout_ms: 2_000 }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: "auto".into(), format: LogFormat::Auto }
    }
}

// Written by hand so that no log line can hold the token.
impl std::fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientSettings").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// The effective settings, and where each value came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    pub(crate) sources: layers::Sources,
    /// Everything that is wrong in the layers themselves: names and types, not yet ranges.
    pub(crate) mistakes: Vec<Mistake>,
}

impl Loaded {
    /// Reads every layer. Mistakes are collected, so that `config check` can tell them all.
    pub(crate) fn read(file: Option<&Path>, flags: Flags) -> Outcome<Self> {
        let file = file.map(read_file).transpose()?;
        Ok(layers::merge(file, std::env::vars_os(), flags))
    }

    /// The settings, if nothing is wrong with their names, types and the parts that are used.
    pub(crate) fn usable(mut self, parts: &[Part]) -> Outcome<Self> {
        for part in parts {
            self.mistakes.extend(check::part(*part, &self.settings, &self.sources));
        }
        match self.mistakes.first() {
            None => Ok(self),
            Some(first) => Err(Failure::usage(&first.cause, &first.remedy)),
        }
    }

    /// Everything that is wrong, in every part.
    pub(crate) fn all_mistakes(&self) -> Vec<Mistake> {
        let parts = [Part::Broker, Part::GatewayButSecret, Part::Client, Part::Log];
        let judged =
            parts.iter().flat_map(|part| check::part(*part, &self.settings, &self.sources));
        self.mistakes.iter().cloned().chain(judged).collect()
    }

    /// Whether a layer gives this key.
    pub(crate) fn gives(&self, key: &str) -> bool {
        self.sources.contains_key(key)
    }
}

/// A settings file, read but not judged.
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) table: toml::Table,
}

fn read_file(path: &Path) -> Outcome<File> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(
            format_args!("cannot read settings from {shown}: {error}"),
            "check --config and WAYBILL_CONFIG",
        )
    })?;
    let table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        let cause = error.message().lines().collect::<Vec<_>>().join(", ");
        Failure::usage(
            format_args!("{shown}, line {line}: {cause}"),
            "the file must be TOML; `waybill config defaults` prints one to start from",
        )
    })?;
    Ok(File { path: path.into(), table })
}

#[cfg(test)]
mod tests;

//! Logs: to stderr, text on a terminal and JSON lines elsewhere, as `[log]` says.
//!
//! Never tokens or payloads: the crates that log see to that, nothing here could.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::output;
use crate::settings::{Loaded, LogFormat};

/// Begins to log. `auto` is the level that stands for `log.level = "auto"`.
pub(crate) fn start(loaded: &Loaded, auto: &str) {
    let log = &loaded.settings.log;
    // RUST_LOG is what people are used to; a setting made for this program is the nearer one.
    let usual = std::env::var("RUST_LOG").ok().filter(|_| !loaded.gives("log.level"));
    let level = usual.as_deref().unwrap_or(&log.level);
    let level = if level == "auto" { auto } else { level };
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new(auto));
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call, as in tests, keeps the first subscriber.
    let _already_set =
        if json { logs.json().try_init() } else { logs.with_ansi(output::colours()).try_init() };
}

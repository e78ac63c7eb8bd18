//! Logs: to stderr, text on a terminal and JSON lines elsewhere, as `[log]` says.
//!
//! Never tokens or payloads: the crates that log see to that, nothing here could.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::output::{self, quoted};
use crate::settings::{Loaded, LogFormat};

/// For commands that tell themselves what becomes of their link.
pub(crate) const ERRORS_BUT_OF_LINKS: &str = "error,waybill_client::connection=off";

/// Whether logs are JSON lines, among which no other line belongs.
static ARE_JSON: AtomicBool = AtomicBool::new(false);

/// Begins to log. `auto` is the level that stands for `log.level = "auto"`.
pub(crate) fn start(loaded: &Loaded, auto: &str) {
    let log = &loaded.settings.log;
    // RUST_LOG is what people are used to; a setting made for this program is the nearer one.
    let usual = std::env::var("RUST_LOG").ok().filter(|_| !loaded.gives("log.level"));
    let level = usual.as_deref().unwrap_or(&log.level);
    let level = if level == "auto" { auto } else { level };
    let filter = filter(level).unwrap_or_else(|problem| {
        // Not ours alone, hence no reason to end.
        output::talk(format_args!("note: RUST_LOG = {} is passed over: {problem}", quoted(level)));
        EnvFilter::new(auto)
    });
    let json = match log.format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    ARE_JSON.store(json, Ordering::Relaxed);
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A second call, as in tests, keeps the first subscriber.
    let _already_set =
        if json { logs.json().try_init() } else { logs.with_ansi(output::colours()).try_init() };
}

/// Says what a server does now: among JSON logs as one of them, else as talk.
pub(crate) fn announce(words: &str) {
    match ARE_JSON.load(Ordering::Relaxed) {
        true => tracing::info!("{words}"),
        false => output::talk(words),
    }
}

/// A filter. A bare word must be a level: elsewhere it may be a target too, so that a mistyped
/// level is one that nothing logs under.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, String> {
    // Spans may have commas of their own.
    let bare =
        text.split(',').map(str::trim).filter(|part| !text.contains('[') && !part.is_empty());
    for word in bare.filter(|part| !part.contains('=')) {
        if word.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "{} is no level: error, warn, info, debug, trace, off are (a target takes one: \
                 target=level)",
                quoted(word)
            ));
        }
    }
    EnvFilter::try_new(text).map_err(|error| format!("it is no filter: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_word_is_a_level() {
        for right in ["info", "WARN", "off", "info,waybill_broker=debug", "a[b{c=1}]=info"] {
            assert!(filter(right).is_ok(), "{right}");
        }
        assert!(filter(ERRORS_BUT_OF_LINKS).is_ok());
        for wrong in ["inof", "zzz", "info,waybill_broker", "waybill_broker=inof"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
        assert!(filter("inof").unwrap_err().contains("\"inof\" is no level: error, warn"));
    }
}

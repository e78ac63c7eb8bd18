//! The `waybill` program: arguments and settings in, one command run, an exit code out.
//!
//! Exit codes: 0 done, 1 failed, 2 not understood (arguments, settings), 3 the answer is no. stdout
//! carries data, stderr talk. What a command does is in its file under `commands/`; what more than
//! one needs is beside this file. Brokers, gateways and links come from their crates, nothing of
//! them is decided here.

mod admin;
mod commands;
mod demo;
mod failure;
mod input;
mod links;
mod logs;
mod output;
mod parse;
mod pointed;
mod runtime_file;
mod servers;
mod settings;
mod signals;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use commands::Command;
use failure::Outcome;
use output::Form;
use settings::{Flags, Loaded, Part};

/// A push broker that reads the waybill and never opens the box.
///
/// Try it: `waybill up` in one terminal, then `waybill pub --uid 1001 hello` in another.
#[derive(Debug, Parser)]
#[command(name = "waybill", version = VERSION, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// With the commit it was built from, where the build knew it.
const VERSION: &str = env!("VERSION_AND_COMMIT");

const EXIT_CODES: &str = "\
Settings: a TOML file (--config), then WAYBILL_<SECTION>__<KEY> in the environment, then flags; \
the later wins.
Exit codes: 0 done, 1 failed, 2 arguments or settings not understood; `explain` has one more.";

/// Where help lists what every command takes.
const EVERYWHERE: &str = "With every command";

/// What every command takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// Settings file (TOML); `waybill config defaults` prints one to start from.
    #[arg(long, value_name = "FILE", env = "WAYBILL_CONFIG", global = true,
          help_heading = EVERYWHERE)]
    config: Option<PathBuf>,
    /// Data as JSON, one value per line.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    json: bool,
    /// What to log to stderr: error, warn, info, debug, trace, or a filter as in RUST_LOG.
    #[arg(long, global = true, value_name = "LEVEL", help_heading = EVERYWHERE)]
    log_level: Option<String>,
}

impl Common {
    pub(crate) fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Human }
    }

    /// The settings with the flags of a command on top; nothing judged but names and types.
    pub(crate) fn load(&self, flags: Flags) -> Outcome<Loaded> {
        let flags = flags.set("--log-level", "log.level", self.log_level.clone());
        Loaded::read(self.config.as_deref(), flags)
    }

    /// The settings of a command that uses these parts; logs begin at the level `auto`.
    pub(crate) fn settings(&self, flags: Flags, parts: &[Part], auto: &str) -> Outcome<Loaded> {
        let loaded = self.load(flags)?.usable(&[&[Part::Log], parts].concat())?;
        logs::start(&loaded, auto);
        Ok(loaded)
    }
}

/// Names a fault to be committed, as `drop:1000000`.
#[cfg(feature = "planted")]
const PLANTED: &str = "WAYBILL_PLANTED";

/// Plants the fault that the environment names, if it names one.
#[cfg(feature = "planted")]
fn plant() -> Outcome<()> {
    use waybill_wire::planted::{Fault, plant_fault};
    let Some(text) = std::env::var_os(PLANTED) else { return Ok(()) };
    let fault: Result<Fault, _> = text.to_string_lossy().parse();
    let fault = fault.map_err(|words| failure::Failure::usage(PLANTED, words))?;
    output::talk(format!("{PLANTED}: this broker is wrong on purpose: {fault:?}"));
    assert!(plant_fault(fault), "the first of this process");
    Ok(())
}

#[cfg(not(feature = "planted"))]
const fn plant() -> Outcome<()> {
    Ok(())
}

fn main() -> ExitCode {
    let Arguments { common, command } = Arguments::parse();
    match plant().and_then(|()| command.run(&common)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::talk_failure(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}

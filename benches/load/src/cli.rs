//! Arguments and commands. Exit codes: 0, 1 for a run that failed, 2 for a wrong call.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::failure::Failure;
use crate::interrupt;
use crate::machine;
use crate::output;
use crate::process;
use crate::relay;
use crate::report::{compare, html, terminal};
use crate::results::Results;
use crate::run::{self, Settings};
use crate::scenario::{self, Loaded, Overrides};
use crate::waybill;

mod files;
mod list;

use files::{Output, Outputs, read};

const EXIT_CODES: &str = "\
Exit codes: 0; 1 for a run that failed its check or an assertion, was interrupted, or whose files
could not be written; 2 for a wrong call, or one that cannot be done here.";

/// Says how fast Waybill is, and how fast the alternatives are on the same work; every delivery is
/// checked. Without a command: `direct` with 128-byte payloads and 100,000 users, Waybill alone.
#[derive(Debug, Parser)]
#[command(name = "waybill-bench", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs scenarios.
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Lists the scenarios there are, with their targets and lengths, and how targets are driven.
    List,
    /// Prints the ratios of two runs.
    Compare {
        /// The run to compare with.
        before: PathBuf,
        /// The run that is compared.
        after: PathBuf,
    },
    /// Makes a page of a run.
    Report {
        /// The run.
        results: PathBuf,
        /// Where the page goes.
        #[arg(long, value_name = "FILE")]
        html: PathBuf,
    },
    /// The ceiling, as a process: what the targets `relay-epoll` and `relay-uring` start.
    #[command(hide = true)]
    Relay(relay::Options),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Scenarios by name, as `list` shows them, or files of them.
    #[arg(required = true, value_name = "NAME|FILE")]
    scenarios: Vec<String>,
    /// Only these targets, by the names that `list` shows; default: the scenario's.
    #[arg(long, value_delimiter = ',', value_name = "NAME,...")]
    targets: Option<Vec<String>>,
    /// Times each target runs; default: the scenario's, and 1 with --check.
    #[arg(long, value_name = "N")]
    repeats: Option<usize>,
    /// Seconds that are measured; default: the scenario's, and 0.5 with --check.
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Users, instead of all numbers of them in the scenario: its other variants stay.
    #[arg(long, value_name = "N")]
    users: Option<u64>,
    /// Bytes of payloads, instead of all sizes in the scenario: its other variants stay.
    #[arg(long, value_name = "N")]
    payload: Option<usize>,
    /// A short pass with 2,000 users, or --users: what is wrong is found, not how fast it is.
    #[arg(long)]
    check: bool,
    /// Writes everything that was measured, over what stands in the file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page with plots, over what stands in the file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Pins nothing; the generator sleeps when it has nothing to do.
    #[arg(long)]
    free: bool,
    /// The `waybill` program; default: the one beside this.
    #[arg(long, value_name = "PATH")]
    waybill: Option<PathBuf>,
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            output::talk(format_args!("error: {failure}"));
            ExitCode::from(2)
        }
    }
}

/// Whether all went as it should.
fn dispatch(cli: Cli) -> Result<bool, Failure> {
    match cli.command {
        None => canonical(),
        Some(Command::Run(args)) => run(&args),
        Some(Command::List) => output::text(&list::text()?).map(|()| true),
        Some(Command::Compare { before, after }) => {
            output::text(&compare::runs(&read(&before)?, &read(&after)?))?;
            Ok(true)
        }
        Some(Command::Report { results, html }) => {
            report(&results, &html)?;
            Ok(true)
        }
        Some(Command::Relay(options)) => {
            relay::run(&options, &mut std::io::stdout())?;
            Ok(true)
        }
    }
}

/// One payload and one number of users of `direct`, Waybill alone: two figures.
fn canonical() -> Result<bool, Failure> {
    let overrides = Overrides {
        targets: Some(vec!["waybill".into()]),
        users: Some(100_000),
        payload_bytes: Some(128),
        ..Overrides::default()
    };
    let loaded = with(scenario::load("direct")?, &overrides)?;
    let settings = Settings { free: false, check: false, waybill: beside()? };
    let loaded = [loaded];
    is_ready(&loaded, &settings)?;
    interrupt::listen()?;
    let results = run::run(&loaded, &settings, &command_line())?;
    run::complain(&results);
    let whole = || terminal::run(&results);
    output::text(&terminal::two_figures(&results).unwrap_or_else(whole))?;
    Ok(results.is_ok())
}

fn run(args: &RunArgs) -> Result<bool, Failure> {
    let overrides = Overrides {
        targets: args.targets.clone(),
        repeats: args.repeats,
        seconds: args.seconds,
        users: args.users,
        payload_bytes: args.payload,
        check: args.check,
    };
    let load = |name: &String| with(scenario::load(name)?, &overrides);
    let scenarios: Vec<Loaded> = args.scenarios.iter().map(load).collect::<Result<_, _>>()?;
    let waybill = match &args.waybill {
        Some(path) => std::path::absolute(path)?,
        None => beside()?,
    };
    let settings = Settings { free: args.free, check: args.check, waybill };
    is_ready(&scenarios, &settings)?;
    let outputs = Outputs::open(args.json.as_deref(), args.html.as_deref())?;
    interrupt::listen()?;
    let results = run::run(&scenarios, &settings, &command_line())?;
    let mut unwritten = outputs.write(|| to_json(&results), || html::page(&results));
    unwritten.extend(output::text(&terminal::run(&results)).err());
    run::complain(&results);
    for failure in &unwritten {
        output::talk(format_args!("error: {failure}"));
    }
    Ok(results.is_ok() && unwritten.is_empty())
}

/// Refuses a run that would fail at its first server.
fn is_ready(scenarios: &[Loaded], settings: &Settings) -> Result<(), Failure> {
    for (at, Loaded { name, file, .. }) in scenarios.iter().enumerate() {
        if let Some(same) = scenarios[..at].iter().find(|one| one.name == *name) {
            let words = format!("scenario {name}: there twice, {} and {file}", same.file);
            return Err(Failure::new(words));
        }
    }
    let mut targets = scenarios.iter().flat_map(|loaded| &loaded.scenario.targets);
    if targets.any(|name| waybill::is_driven_by(name)) {
        waybill::version(&settings.waybill).map_err(|failure| {
            let remedy = "`cargo build --release -p waybill` makes one beside a bench of that \
                          profile; or name one with --waybill PATH";
            Failure::new(format_args!("the waybill program cannot be run: {failure}; {remedy}"))
        })?;
    }
    if !settings.free && machine::two_cores().is_some() && process::find("taskset").is_none() {
        let words = "taskset is not on PATH, and pins servers to their core: install util-linux, \
                     or give `run` --free, which pins nothing";
        return Err(Failure::new(words));
    }
    Ok(())
}

fn report(results: &Path, html: &Path) -> Result<(), Failure> {
    let page = html::page(&read(results)?);
    let output = Output::open(html)?;
    output.is_not(&File::open(results)?, "the results")?;
    output.write(&page)
}

fn with(loaded: Loaded, overrides: &Overrides) -> Result<Loaded, Failure> {
    let scenario = loaded.scenario.with(overrides)?;
    Ok(Loaded { scenario, ..loaded })
}

/// The `waybill` program beside this one.
fn beside() -> Result<PathBuf, Failure> {
    Ok(std::env::current_exe()?.with_file_name("waybill"))
}

/// This command, as it can be given again.
fn command_line() -> String {
    let mut words = std::env::args();
    let _path = words.next();
    ["waybill-bench".to_string()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
}

fn to_json(results: &Results) -> Result<String, Failure> {
    serde_json::to_string_pretty(results).map(|text| text + "\n").map_err(Failure::new)
}

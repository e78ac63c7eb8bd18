//! `waybill-routes`: the route table beside what it could be made of, by number of users. Each case
//! has a process of its own, so that memory is counted from nothing.

mod bare;
mod failure;
mod group;
mod layout;
mod measure;
mod plot;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;

use crate::failure::Failure;
use crate::layout::Name;
use crate::measure::{Case, Measured};

/// Measures layouts of the route table: bytes a route, build rate, longest step of growth, cost of
/// look-ups, also while another thread adds users.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Layouts to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Name::ALL)]
    layouts: Vec<Name>,
    /// Numbers of users
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    users: Vec<u64>,
    /// Numbers of gateways
    #[arg(long, value_delimiter = ',', default_values_t = [100])]
    gateways: Vec<u16>,
    /// Of the random users that are looked up
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw cost against number of users, as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Measure the one case named, in this process, and print it as JSON
    #[arg(long, hide = true)]
    here: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _nobody_to_tell = writeln!(std::io::stderr(), "error: {failure}");
            ExitCode::from(if matches!(failure, Failure::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let cases = cases(arguments)?;
    if let (true, [case]) = (arguments.here, &cases[..]) {
        let measured = measure::run(*case)?;
        return out(&serde_json::to_string(&measured).expect("numbers and names"));
    }
    let mut all = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let talk = format!("{}/{}: {}", at + 1, cases.len(), named(case));
        let _nobody_to_tell = writeln!(std::io::stderr(), "{talk}");
        all.push(apart(case)?);
    }
    out(&table::of(&all))?;
    if let Some(path) = &arguments.json {
        write(path, &serde_json::to_string_pretty(&all).expect("numbers and names"))?;
    }
    if let Some(path) = &arguments.plot {
        write(path, &plot::of(&all)?)?;
    }
    Ok(())
}

fn cases(arguments: &Arguments) -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for &users in &arguments.users {
        for &gateways in &arguments.gateways {
            // Fewer, and a random list of a thousand would have too many twice.
            if gateways == 0 || users < 100_000 {
                let usage = format!(
                    "{users} users at {gateways} gateways can't be measured: --users takes 100000 \
                     and more, --gateways 1 and more"
                );
                return Err(Failure::Usage(usage));
            }
            let seed = arguments.seed;
            let case = |layout: &Name| Case { layout: *layout, users, gateways, seed };
            cases.extend(arguments.layouts.iter().map(case));
        }
    }
    Ok(cases)
}

fn named(case: &Case) -> String {
    format!("{} with {} users at {} gateways", case.layout, case.users, case.gateways)
}

/// Measures a case in a process of its own.
fn apart(case: &Case) -> Result<Measured, Failure> {
    let start = |source| Failure::Start { case: named(case), source };
    let program = std::env::current_exe().map_err(start)?;
    let child = Command::new(program)
        .args(["--here", "--layouts", &case.layout.to_string()])
        .args(["--users", &case.users.to_string(), "--gateways", &case.gateways.to_string()])
        .args(["--seed", &case.seed.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(start)?;
    let failed = |how: String| Failure::Case { case: named(case), how };
    if !child.status.success() {
        return Err(failed(child.status.to_string()));
    }
    serde_json::from_slice(&child.stdout).map_err(|error| failed(error.to_string()))
}

fn out(text: &str) -> Result<(), Failure> {
    let path = || PathBuf::from("standard output");
    writeln!(std::io::stdout(), "{text}").map_err(|source| Failure::Write { path: path(), source })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|source| Failure::Write { path: path.into(), source })
}

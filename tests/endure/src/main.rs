//! `waybill-endure`: real `waybill` processes under faults, judged by an outside record.
//!
//! Nothing here looks into a process: users, producers and the consumer are clients like any other,
//! and what they saw is compared with what the processes say of themselves. Exit codes: 0 clean,
//! 1 a promise was broken, 2 it could not be run.

mod chaos;
mod clock;
mod death;
mod faults;
mod judge;
mod ledgers;
mod load;
mod net;
mod played;
mod readings;
mod record;
mod report;
mod servers;
mod users;
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Hurts real `waybill` processes and judges what their users saw.
#[derive(Debug, Parser)]
#[command(name = "waybill-endure")]
struct Arguments {
    #[command(flatten)]
    common: chaos::Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A cluster under load; every process is killed and stopped in turn, pairs are parted.
    Chaos(chaos::Args),
    /// A gateway with 100,000 users dies and returns; what the others' users notice.
    Death(death::Args),
    /// Plays that gateway; `death` starts it.
    #[command(hide = true)]
    Played(played::Args),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            report::talk(&format!("no runtime: {error}"));
            return ExitCode::from(2);
        }
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = command(&arguments) => ended,
            // What was started and made is taken down when the command is dropped.
            stopped = stopped() => Err(stopped),
        }
    });
    // Tasks hold what has to be taken down.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            report::talk(&error);
            ExitCode::from(2)
        }
    }
}

async fn command(arguments: &Arguments) -> Result<bool, String> {
    match &arguments.command {
        Command::Chaos(args) => chaos::run(args, &arguments.common).await,
        Command::Death(args) => death::run(args, &arguments.common).await,
        Command::Played(args) => played::run(args).await,
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn stopped() -> String {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "stopped by Ctrl-C".into(),
        _ = terminate.recv() => "stopped by SIGTERM".into(),
    }
}

//! The commands: one file each, with its arguments and what it does.

mod broker;
mod config;
mod explain;
mod gateway;
mod inspect;
mod plan;
mod publish;
mod sub;
mod tag;
mod token;
mod up;

use clap::Subcommand;

use crate::Common;
use crate::failure::{Failure, Outcome};

pub(crate) use publish::receipt_json;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a broker, a gateway and a demo page in one process, with nothing to configure.
    Up(up::Args),
    /// Run a broker.
    Broker(broker::Args),
    /// Run a gateway.
    Gateway(gateway::Args),
    /// Publish messages to users.
    Pub(Box<publish::Args>),
    /// Give users tags, or take them away.
    Tag(tag::Args),
    /// Show what users, or backends, receive.
    Sub(sub::Args),
    /// Tell where a message would go, and why not there.
    Explain(explain::Args),
    /// Print a login token for a user.
    Token(token::Args),
    /// Show the fields of frames.
    Inspect(inspect::Args),
    /// Check and show settings.
    Config(config::Args),
    /// Tell what memory, links and cores a deployment needs.
    Plan(plan::Args),
}

impl Command {
    pub(crate) fn run(self, common: &Common) -> Outcome {
        match self {
            Self::Up(args) => many_threads(up::run(args, common)),
            Self::Broker(args) => many_threads(broker::run(args, common)),
            Self::Gateway(args) => many_threads(gateway::run(args, common)),
            Self::Pub(args) => one_thread(publish::run(*args, common)),
            Self::Tag(args) => one_thread(tag::run(args, common)),
            Self::Sub(args) => one_thread(sub::run(args, common)),
            Self::Explain(args) => one_thread(explain::run(args, common)),
            Self::Token(args) => token::run(&args, common),
            Self::Inspect(args) => inspect::run(&args, common),
            Self::Config(args) => config::run(&args, common),
            Self::Plan(args) => plan::run(&args, common),
        }
    }
}

fn many_threads(command: impl Future<Output = Outcome>) -> Outcome {
    run_on(tokio::runtime::Builder::new_multi_thread(), command)
}

fn one_thread(command: impl Future<Output = Outcome>) -> Outcome {
    run_on(tokio::runtime::Builder::new_current_thread(), command)
}

fn run_on(mut builder: tokio::runtime::Builder, command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = builder.enable_all().build().map_err(|error| {
        Failure::failed(format_args!("cannot start a runtime: {error}"), "see the cause")
    })?;
    let outcome = runtime.block_on(command);
    // A thread that waits for stdin must not keep the program from ending.
    runtime.shutdown_background();
    outcome
}

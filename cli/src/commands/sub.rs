//! `waybill sub`: what users receive, or with --consumer what backends receive.
//!
//! For users it links as a gateway does and registers them; nothing is taken from anybody, since a
//! user may be at several gateways. For backends it is one of the consumers, so it shares the
//! users' messages with the others. Reconnecting is the client crate's.

mod consumer;
mod users;

use std::time::Duration;

use serde_json::{Map, Value};
use waybill_wire::code::{ErrorClass, ErrorCode};

use crate::Common;
use crate::failure::{Failure, Outcome};
use crate::links::{self, LinkArgs, content_json, payload_json};
use crate::logs;
use crate::output::{self, Form};
use crate::parse::{self, Uids};
use crate::settings::Part;
use crate::signals::Stops;

/// Arguments of `waybill sub`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waybill sub --uid 1001,1002
  waybill sub --uid 1001 --count 1 --timeout 5s --json
  waybill sub --consumer
  waybill sub --consumer --group audit --presence --offline --json
  waybill sub --consumer --filter 'kind=uplink & (label=order.* | uid=1000..1999)'

Says on stderr when it listens. With several --broker a consumer links to each; for users one is \
linked to, the first that answers; who is shown here has been reached, as a --receipt delivered \
says. Consumers of one --group share the users' messages, each group \
gets all of them. \
Exit 0: stopped, or --count was reached, or --timeout passed with no --count. Exit 1: the link \
failed, or --timeout passed before --count was reached.")]
pub(crate) struct Args {
    /// Users to receive for: one, or several with commas; may be repeated.
    #[arg(long, value_name = "UIDS", value_parser = parse::uids,
          required_unless_present = "consumer", conflicts_with = "consumer")]
    uid: Vec<Uids>,
    /// Receive what users send to backends, and accept it.
    #[arg(long)]
    consumer: bool,
    /// Refuse with this code of the registry (301-499) instead, such as not_permitted.
    #[arg(long, value_name = "CODE", value_parser = refusal, requires = "consumer",
          conflicts_with = "uid")]
    refuse: Option<ErrorCode>,
    /// Be one of the consumers of this name in --namespace, instead of those without a name.
    #[arg(long, value_name = "NAME", requires = "consumer", conflicts_with = "uid")]
    group: Option<String>,
    /// Show who comes and goes too.
    #[arg(long, requires = "consumer", conflicts_with = "uid")]
    presence: bool,
    /// Show messages too that found users offline.
    #[arg(long, requires = "consumer", conflicts_with = "uid")]
    offline: bool,
    /// Show only that for which this expression over header fields is true, or another --filter;
    /// of --namespace, all of any other.
    #[arg(long, value_name = "EXPRESSION", requires = "consumer", conflicts_with = "uid")]
    filter: Vec<String>,
    /// The tenant of the users, or of the --group and each --filter.
    #[arg(long, value_name = "N", default_value_t = 0)]
    namespace: u32,
    /// Stop after so many messages; what --presence and --offline show counts too.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after so long, counted from listening: 500ms, 5s, 2m, 1h.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    link: LinkArgs,
}

fn refusal(name: &str) -> Result<ErrorCode, String> {
    let code = parse::error_code(name)?;
    match code.class() {
        ErrorClass::Refused | ErrorClass::Overload => Ok(code),
        _ => Err(format!("{name} is no refusal: codes 301 to 499 are")),
    }
}

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let loaded = common.settings(args.link.flags(), &[Part::Client], logs::ERRORS_BUT_OF_LINKS)?;
    let target = links::target(&loaded)?;
    let mut stops = Stops::listen()?;
    let mut shown = Shown::new(&args, common.form());
    let receive = async {
        match args.consumer {
            true => consumer::run(&args, &target, &mut shown).await,
            false => users::run(&args, &target, &mut shown).await,
        }
    };
    // Dropping what receives closes its link.
    tokio::select! {
        outcome = receive => outcome,
        () = stops.next() => Ok(()),
    }
}

/// Shows messages and knows when there were enough.
struct Shown {
    form: Form,
    count: u64,
    wanted: Option<u64>,
    timeout: Option<Duration>,
    deadline: Option<tokio::time::Instant>,
}

impl Shown {
    fn new(args: &Args, form: Form) -> Self {
        Self { form, count: 0, wanted: args.count, timeout: args.timeout, deadline: None }
    }

    /// Says that messages come from now on; the time begins to run the first time.
    fn listening(&mut self, who: &str) {
        output::talk(format_args!("listening for {who}; Ctrl-C ends"));
        if self.deadline.is_none() {
            self.deadline = self.timeout.map(|timeout| tokio::time::Instant::now() + timeout);
        }
    }

    /// Waits until time is up; for ever if there is no limit.
    async fn time_is_up(&self) {
        match self.deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }

    /// How it ends when time is up.
    fn timed_out(&self) -> Outcome {
        let Some(wanted) = self.wanted else { return Ok(()) };
        let (count, timeout) = (self.count, self.timeout.unwrap_or_default());
        Err(Failure::failed(
            format_args!("{count} of {wanted} messages came within {timeout:?}"),
            "give a longer --timeout, or a smaller --count",
        ))
    }

    /// Shows one; whether it was the last that was wanted.
    fn show(
        &mut self,
        human: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Outcome<bool> {
        match self.form {
            Form::Human => output::line(human())?,
            Form::Json => output::json(&json())?,
        }
        self.count += 1;
        Ok(self.wanted.is_some_and(|wanted| self.count >= wanted))
    }
}

/// Adds labels, content and payload as the gateway's JSON subprotocol writes them.
fn describe(
    object: &mut Map<String, Value>,
    labels: Vec<String>,
    content: Option<waybill_wire::message::Content>,
    payload: &[u8],
) {
    if !labels.is_empty() {
        object.insert("labels".into(), labels.into());
    }
    if let Some(content) = content {
        let [content_type, encoding] = content_json(content.content_type, content.encoding);
        object.extend(content_type.map(|value| ("content".into(), value)));
        object.extend(encoding.map(|value| ("encoding".into(), value)));
    }
    let (name, value) = payload_json(payload);
    object.insert(name.into(), value);
}

/// Labels for people, with a blank before them.
fn labels_text(labels: &[String]) -> String {
    match labels {
        [] => String::new(),
        labels => format!(" [{}]", labels.join(" ")),
    }
}

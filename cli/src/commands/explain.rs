//! `waybill explain`: where a message would go, and why not there.
//!
//! The broker's admin address is asked; the message is not sent. How the answer looks is in
//! [`told`].

mod told;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use waybill_broker::explain::answer::{Explanation, Reached};
use waybill_broker::explain::question::{Mistake, Question, UserId};
use waybill_client::ReceiptLevel;
use waybill_wire::code::Mode;
use waybill_wire::limits::{EXCEPT_MAX, PAYLOAD_BYTES_MAX, TARGETS_MAX};

use super::publish::stage;
use crate::Common;
use crate::admin::{self, Address};
use crate::failure::{Failure, Outcome};
use crate::input::{Input, input};
use crate::logs;
use crate::output;
use crate::parse::{self, Uids};

/// Arguments of `waybill explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waybill explain --uid 1001
  waybill explain --uid 1001,1002 --except 1002 --selector 'vip & !ios'
  waybill explain --all --mode auto --receipt none --payload-bytes 500
  waybill explain --admin 127.0.0.1:7710 --uids-file members.txt --json

Nothing is sent. What is told is what the broker would do just now with such a message from a \
producer that may publish to the namespace. Of a selector the broker knows what a gateway's \
connections have together: `may` means that the gateway would be asked and decides for each \
connection. Of long lists 20 are shown, those that would not be reached first; --json has what the \
broker tells: up to 1,024 users and 128 gateways, and counts of the rest.

Exit 0: somebody would be reached, or may be. Exit 3: nobody would be, at any broker asked. \
Exit 1: a broker could not be asked.")]
pub(crate) struct Args {
    /// Users it is for: one, or several with commas; may be repeated.
    #[arg(long, value_name = "UIDS", value_parser = parse::uids)]
    uid: Vec<Uids>,
    /// File with users it is for, one UID a line (- for stdin).
    #[arg(long, value_name = "FILE", value_parser = input)]
    uids_file: Option<Input>,
    /// It is for everyone in the namespace.
    #[arg(long, conflicts_with_all = ["uid", "uids_file", "selector"])]
    all: bool,
    /// It is for connections whose tags match, of --uid and --uids-file or of everyone.
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Users to leave out: one, or several with commas; may be repeated.
    #[arg(long, value_name = "UIDS", value_parser = parse::uids)]
    except: Vec<Uids>,
    /// The tenant.
    #[arg(long, value_name = "N", default_value_t = 0)]
    namespace: u32,
    /// How it gets there: direct, broadcast, auto.
    #[arg(long, value_name = "MODE", default_value = "direct", value_parser = parse::mode)]
    mode: Mode,
    /// What its producer would be told: none, routed, delivered. `auto` has a choice with none.
    #[arg(long, value_name = "LEVEL", default_value = "routed", value_parser = parse::receipt)]
    receipt: ReceiptLevel,
    /// Bytes of its payload.
    #[arg(long, value_name = "N", default_value_t = 0)]
    payload_bytes: usize,
    /// Admin address of a broker (its broker.admin_listen) as host:port; repeat it for more.
    /// Default: broker.admin_listen of the settings, else the running `waybill up`.
    #[arg(long, value_name = "HOST:PORT", value_parser = admin::address)]
    admin: Vec<String>,
    /// Give up on a broker when it has taken so long: 500ms, 5s, 2m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse::duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let question = question(&args)?;
    let loaded = common.settings(crate::Flags::default(), &[], logs::ERRORS_BUT_OF_LINKS)?;
    let body = serde_json::to_vec(&question).map_err(|error| {
        Failure::failed(error, "this is a mistake in waybill; please report it")
    })?;
    let (mut best, mut failed) = (Reached::Nobody, false);
    for address in admin::addresses(&args.admin, &loaded)? {
        match ask(&address, &body, args.timeout).await {
            Ok(explanation) => {
                best = best.max(explanation.reached);
                tell(common, &address, &question, &explanation)?;
            }
            Err(failure) => {
                output::talk_failure(&failure);
                failed = true;
            }
        }
    }
    match best {
        _ if failed => Err(Failure::Said),
        Reached::Nobody => Err(Failure::Nobody),
        Reached::Some | Reached::All => Ok(()),
    }
}

fn question(args: &Args) -> Outcome<Question> {
    let mut users = parse::joined(&args.uid);
    if let Some(file) = &args.uids_file {
        users.extend(file.uids("--uids-file")?);
    }
    let except = parse::joined(&args.except);
    if users.is_empty() && !args.all && args.selector.is_none() {
        let remedy = "give --uid, --uids-file, --selector, or --all";
        return Err(Failure::usage("no audience: nobody is asked about", remedy));
    }
    if let Some(text) = &args.selector {
        // The broker reads it again; a mistake is shown here.
        let _ = parse::selector("--selector", text)?;
    }
    for (what, value, name, most, remedy) in [
        ("users", users.len(), "targets_max", TARGETS_MAX, "ask about a part of them at a time"),
        ("users in --except", except.len(), "except_max", EXCEPT_MAX, "except fewer"),
        (
            "bytes in --payload-bytes",
            args.payload_bytes,
            "payload_bytes_max",
            PAYLOAD_BYTES_MAX,
            "ask about a frame: larger messages leave in fragments, each a frame of its own",
        ),
    ] {
        if value > most {
            return Err(Failure::usage(format_args!("{value} {what}, {name} is {most}"), remedy));
        }
    }
    let ids = |uids: Vec<u64>| uids.into_iter().map(UserId).collect();
    Ok(Question {
        namespace: args.namespace,
        users: ids(users),
        everyone: args.all,
        selector: args.selector.clone(),
        except: ids(except),
        mode: args.mode.to_string(),
        receipt: stage(args.receipt).into(),
        payload_bytes: args.payload_bytes,
    })
}

/// An answer that is no explanation.
#[derive(Deserialize)]
struct Refusal {
    error: Mistake,
}

async fn ask(address: &Address, body: &[u8], within: Duration) -> Outcome<Explanation> {
    let (status, answer) = address.post("/explain", body.to_vec(), within).await?;
    if status.is_success() {
        let explanation = serde_json::from_slice(&answer);
        return explanation
            .map_err(|error| address.failure(&format!("its answer is not understood ({error})")));
    }
    let Ok(Refusal { error }) = serde_json::from_slice(&answer) else {
        return Err(address.failure(&format!("it answers {status}; is it of an older version?")));
    };
    let Mistake { field, reason, .. } = &error;
    let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
    Err(address.failure(&format!("it refuses the question: {field}{reason}")))
}

/// What one broker told, for programs.
#[derive(Serialize)]
struct Told<'a> {
    admin: &'a str,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

fn tell(
    common: &Common,
    address: &Address,
    question: &Question,
    explanation: &Explanation,
) -> Outcome {
    if common.form().is_json() {
        return output::json(&Told { admin: &address.name, explanation });
    }
    let mut page = output::Page::default();
    for line in told::lines(&address.name, question, explanation) {
        page.line(line)?;
    }
    page.write()
}

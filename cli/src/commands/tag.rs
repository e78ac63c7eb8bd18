//! `waybill tag`: gives users tags, or takes them away, while they are online; and says whose were
//! changed.
//!
//! One request of any length: the client cuts it and sums the receipts.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use waybill_client::{Producer, PublishError, Receipt, TagChange};
use waybill_wire::limits::TAG_CHANGES_MAX;

use super::publish::{counts_text, is_well, late, receipt_json};
use crate::Common;
use crate::failure::{Failure, Outcome};
use crate::input::{Input, input};
use crate::links::{self, LinkArgs};
use crate::logs;
use crate::output::{self, Form, quoted};
use crate::parse::{self, Uids};
use crate::settings::Part;
use crate::signals::Stops;

/// Arguments of `waybill tag`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waybill tag --uid 1001 --add vip --remove trial
  waybill tag --uids-file members.txt --add group:42
  waybill pub --selector 'group:42 & vip' hello

The receipt comes when the change is in effect: what the same broker gets from then on is decided \
by it, for each user that it counts as changed. Users that are offline get no tag, and a tag given \
so ends with the user's login.

Exit 0: the tags of everybody who is online were changed; the receipt names who is offline. \
Exit 1: it was refused or not sent in time, a user had no room for another tag, or what became of \
it is unknown. Then it may be given again: made twice, a change changes nothing.")]
pub(crate) struct Args {
    /// Users whose tags are changed: one, or several with commas; may be repeated.
    #[arg(long, value_name = "UIDS", value_parser = parse::uids)]
    uid: Vec<Uids>,
    /// File with users, one UID a line (- for stdin).
    #[arg(long, value_name = "FILE", value_parser = input)]
    uids_file: Option<Input>,
    /// A tag they get, such as vip or group:42; may be repeated.
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    add: Vec<String>,
    /// A tag they lose; may be repeated.
    #[arg(long, value_name = "TAG", value_parser = parse::tag)]
    remove: Vec<String>,
    /// The tenant.
    #[arg(long, value_name = "N", default_value_t = 0)]
    namespace: u32,
    /// Give up when it has taken so long: 500ms, 5s, 2m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse::duration)]
    timeout: Duration,
    #[command(flatten)]
    link: LinkArgs,
}

/// What was not sent in time fails by itself, a little earlier, with the reason.
const SETTLING: Duration = Duration::from_millis(250);

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let (uids, changes) = (uids(&args)?, changes(&args)?);
    let loaded = common.settings(args.link.flags(), &[Part::Client], logs::ERRORS_BUT_OF_LINKS)?;
    let target = links::target(&loaded)?;
    let mut options = target.options.clone();
    options.publish_timeout = args.timeout.max(Duration::from_millis(1));
    let producer = Producer::connect(options).await;
    let producer = producer.map_err(|error| target.connect_failure(&error))?;
    tokio::spawn(links::tell_changes(producer.watch()));
    let mut stops = Stops::listen()?;
    let asked = producer.tag(args.namespace, uids, changes);
    let outcome = tokio::select! {
        outcome = timeout(args.timeout + SETTLING, asked) => outcome,
        () = stops.next() => return Err(in_doubt("stopped by a signal")),
    };
    let Ok(outcome) = outcome else {
        return Err(in_doubt(&format!("no receipt came within {:?}", args.timeout)));
    };
    producer.close().await;
    tell(common.form(), &outcome)?;
    match outcome {
        Ok(receipt) if is_well(&receipt) => Ok(()),
        Ok(_) => Err(Failure::Said),
        Err(error) => Err(Failure::failed(&error, remedy(&error))),
    }
}

fn in_doubt(cause: &str) -> Failure {
    Failure::failed(
        format_args!("{cause}; the tags may or may not be changed"),
        "give it again: made twice, a change changes nothing",
    )
}

fn uids(args: &Args) -> Outcome<Vec<u64>> {
    let mut uids = parse::joined(&args.uid);
    if let Some(file) = &args.uids_file {
        uids.extend(file.uids("--uids-file")?);
    }
    if uids.is_empty() {
        return Err(Failure::usage("nobody is named", "give --uid or --uids-file"));
    }
    Ok(uids)
}

/// First those that are taken, then those that are given: no tag is both, so that the order makes
/// no difference.
fn changes(args: &Args) -> Outcome<Vec<TagChange>> {
    let removed: HashSet<&String> = args.remove.iter().collect();
    if let Some(both) = args.add.iter().find(|tag| removed.contains(tag)) {
        return Err(Failure::usage(
            format_args!("--add and --remove both name {}", quoted(both)),
            "leave out one of the two",
        ));
    }
    let removed = args.remove.iter().map(TagChange::remove);
    let changes: Vec<TagChange> = removed.chain(args.add.iter().map(TagChange::add)).collect();
    match changes.len() {
        0 => Err(Failure::usage("no change: no tag is named", "give --add or --remove")),
        1..=TAG_CHANGES_MAX => Ok(changes),
        count => Err(Failure::usage(
            format_args!("{count} changes, tag_changes_max is {TAG_CHANGES_MAX}"),
            "give them in several calls",
        )),
    }
}

fn tell(form: Form, outcome: &Result<Receipt, PublishError>) -> Outcome {
    match (form, outcome) {
        (Form::Json, Ok(receipt)) => output::json(&receipt_json(receipt)),
        (Form::Json, Err(error)) => {
            let code = match error {
                PublishError::Refused { code } => Some(code.to_string()),
                PublishError::TagsNotSupported => Some("not_supported".into()),
                _ => None,
            };
            output::json(&json!({ "error": error.to_string(), "code": code }))
        }
        (Form::Human, Ok(receipt)) => {
            output::line(counts_text(format!("changed {}", receipt.sent), receipt))
        }
        (Form::Human, Err(_)) => Ok(()),
    }
}

fn remedy(error: &PublishError) -> &'static str {
    match error {
        PublishError::TagsNotSupported => "name a broker that runs tags with --broker",
        PublishError::Refused { .. } => "its code in protocol-spec/09-errors.md says when to retry",
        PublishError::TimedOut(obstacle) => late(obstacle),
        _ => "see the link's error",
    }
}

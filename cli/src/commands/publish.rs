//! `waybill pub`: messages to users, and what became of each.
//!
//! Messages are sent without waiting for the receipt of the one before; receipts are told in the
//! order of the messages ([`pump`]). What a message is comes from [`messages`], how its receipt
//! looks is in [`told`], and the way of a traced message in [`way`]. Lists of any length are cut by
//! the client, which sums their receipts.

mod messages;
mod pump;
mod told;
mod way;

use std::time::Duration;

use waybill_client::{Obstacle, Options, Producer, PublishError, ReceiptLevel};
use waybill_wire::code::{ContentType, ErrorCode, Mode, Priority};

use crate::Common;
use crate::failure::{Failure, Outcome};
use crate::input::{Input, input};
use crate::links::{self, LinkArgs};
use crate::logs;
use crate::output;
use crate::parse::{self, Uids};
use crate::settings::Part;
use crate::signals::Stops;

use messages::Messages;
use pump::Pump;
use told::Told;

pub(crate) use told::{counts_text, is_well, receipt_json, stage};

/// Arguments of `waybill pub`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  waybill pub --uid 1001 hello
  waybill pub --uid 1001,1002 --ttl 5s --label order.paid --payload-file order.json
  tail -f app.log | waybill pub --all --each-line -
  waybill pub --selector 'group:42 & !platform:ios' hello
  waybill pub --uid 1001 --trace hello  # when did it pass where
  waybill pub --lines batch.jsonl     # {\"uids\":[\"1001\"],\"data\":\"hello\",\"ttl\":\"5s\"}

A line of --lines is a JSON object: `uids` (strings or numbers), `selector`, both, or `all`: true; \
`data` (text) or `data64` (base64); and, over what the flags say, `except`, `namespace`, `mode`, \
`priority`, `ttl`, `conflate_key`, `labels`, `content_type`. Blank lines are passed over.

With several --broker the first that answers and is ready is used, and the next when it is lost: \
what was on its way then is sent again if that succeeds within 5 s, else its fate is unknown; \
gateways hand it to nobody twice. A broker that has just started is not ready before it knows who \
is online: messages wait for it, or go to another one.

Exit 0: every message was routed, or delivered if that was asked for, even if nobody it was for is \
online: the receipt says so. \
Exit 1: a message was refused or not sent in time, was dropped for a target, or its fate is \
unknown; --timeout passed, or a signal stopped it: then it says how many messages are in doubt.")]
pub(crate) struct Args {
    /// The payload.
    payload: Option<String>,
    /// Users to send to: one, or several with commas; may be repeated.
    #[arg(long, value_name = "UIDS", value_parser = parse::uids)]
    uid: Vec<Uids>,
    /// File with users to send to, one UID a line (- for stdin).
    #[arg(long, value_name = "FILE", value_parser = input)]
    uids_file: Option<Input>,
    /// Send to everyone in the namespace.
    #[arg(long, conflicts_with_all = ["uid", "uids_file", "selector"])]
    all: bool,
    /// Send to connections whose tags match, of --uid and --uids-file or of everyone:
    /// 'group:42 & (geo:sh | geo:bj) & !ios'.
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Users to leave out: one, or several with commas; may be repeated.
    #[arg(long, value_name = "UIDS", value_parser = parse::uids)]
    except: Vec<Uids>,
    /// The tenant.
    #[arg(long, value_name = "N", default_value_t = 0)]
    namespace: u32,
    /// How it gets there; never changes who gets it: direct, broadcast, auto.
    #[arg(long, value_name = "MODE", default_value = "direct", value_parser = parse::mode)]
    mode: Mode,
    /// normal, bulk or high.
    #[arg(long, value_name = "PRIORITY", default_value = "normal", value_parser = parse::priority)]
    priority: Priority,
    /// What is told of each message: none (it was written), routed (what the broker did with each
    /// user), delivered (what gateways did). [default: routed; delivered with --trace]
    #[arg(long, value_name = "LEVEL", value_parser = parse::receipt)]
    receipt: Option<ReceiptLevel>,
    /// Tell when each message passed where: producer, broker, and with --receipt delivered gateway
    /// and socket, each by its own clock. Each gets a random trace id.
    #[arg(long)]
    trace: bool,
    /// Dropped when it has waited so long: 500ms, 5s, 2m, 1h, 7d.
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    ttl: Option<Duration>,
    /// Where a gateway reads too slowly, the message takes the place of one that waits for it with
    /// the same key, namespace, priority and audience: 0 to 18446744073709551615. Not for payloads
    /// above 64 KiB, which leave in fragments.
    #[arg(long, value_name = "KEY")]
    conflate_key: Option<u64>,
    /// What it is about, such as order.paid; may be repeated.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// What the payload is: text, json, cbor, msgpack, protobuf, opaque, or a private number.
    #[arg(long, value_name = "TYPE", value_parser = parse::content_type)]
    content_type: Option<ContentType>,
    /// File with the payload (- for stdin).
    #[arg(long, value_name = "FILE", value_parser = input,
          conflicts_with_all = ["payload", "lines", "each_line"])]
    payload_file: Option<Input>,
    /// File with a message per line, as JSON (- for stdin).
    #[arg(long, value_name = "FILE", value_parser = input,
          conflicts_with_all = ["payload", "each_line", "uid", "uids_file", "all"])]
    lines: Option<Input>,
    /// File of which each line is the payload of a message of its own (- for stdin).
    #[arg(long, value_name = "FILE", value_parser = input, conflicts_with = "payload")]
    each_line: Option<Input>,
    /// Give up when receipts are due and none comes for so long, or when a message cannot be sent
    /// for so long since no broker takes it: 500ms, 5s, 2m, 1h.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse::duration)]
    timeout: Duration,
    #[command(flatten)]
    link: LinkArgs,
}

impl Args {
    fn level(&self) -> ReceiptLevel {
        let default = if self.trace { ReceiptLevel::Delivered } else { ReceiptLevel::Routed };
        self.receipt.unwrap_or(default)
    }
}

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let mut messages = Messages::new(&args)?;
    let loaded = common.settings(args.link.flags(), &[Part::Client], logs::ERRORS_BUT_OF_LINKS)?;
    let target = links::target(&loaded)?;
    // What was never sent fails by itself, with the reason; 0 is no time, and none is not allowed.
    let publish_timeout = args.timeout.max(Duration::from_millis(1));
    let options = Options { publish_timeout, ..target.options.clone() };
    let producer = Producer::connect(options).await;
    let producer = producer.map_err(|error| target.connect_failure(&error))?;
    tokio::spawn(links::tell_changes(producer.watch()));
    // Until here a signal ends the program: nothing was sent that could be in doubt.
    let mut stops = Stops::listen()?;
    let mut told = Told::new(common.form());
    let pump = Pump::new(&producer, &mut told, args.timeout);
    let (outcome, orderly) = pump.run(&mut messages, &mut stops).await;
    if orderly {
        producer.close().await;
    }
    outcome?;
    if told.all_well() { Ok(()) } else { Err(Failure::Said) }
}

/// A line on stderr for each message that cannot be sent.
fn complain(error: &PublishError) {
    let remedy = match error {
        PublishError::Invalid(_) => "change the message; nothing of it was sent",
        PublishError::Refused { code: ErrorCode::NOT_SUPPORTED } => {
            "this broker does not run what the message asks for, such as --selector; leave it out, \
             or name another broker with --broker"
        }
        PublishError::Refused { .. } => "its code in protocol-spec/09-errors.md says when to retry",
        PublishError::Overloaded { .. } => "try again later",
        PublishError::TimedOut(obstacle) => late(obstacle),
        _ => "see the link's error",
    };
    output::talk_failure(&Failure::failed(error, remedy));
}

/// What to do about what was not sent in time.
pub(crate) fn late(obstacle: &Obstacle) -> &'static str {
    match obstacle {
        Obstacle::NotReady { .. } => {
            "nothing of it was sent; start the gateways, name a broker that is ready with \
             --broker, or give a longer --timeout"
        }
        Obstacle::Busy { .. } => {
            "nothing of it was sent, those before it are not lost; send less at once, ask for a \
             lower --receipt, or give a longer --timeout"
        }
        Obstacle::Draining { .. } => {
            "nothing of it was sent; send it to another broker with --broker"
        }
        _ => "nothing of it was sent; see that the broker runs, then send it again",
    }
}

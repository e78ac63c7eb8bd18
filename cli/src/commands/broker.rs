//! `waybill broker`: a broker alone.

use serde_json::json;

use crate::Common;
use crate::failure::Outcome;
use crate::output;
use crate::servers::{Running, start_broker};
use crate::settings::{Flags, Part};
use crate::signals::Stops;

/// Arguments of `waybill broker`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Settings: [broker]. SIGTERM or Ctrl-C drains, a second one ends it now. With --json one line on \
stdout says when it listens: {\"event\":\"ready\",\"broker\":\"ADDRESS\",\"admin\":\"ADDRESS\"}; \
admin is null unless broker.admin_listen is set.")]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes a free one. Default 127.0.0.1:7711.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Threads, each with its own event loop and links. Default 1.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
}

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let flags = Flags::default().set("--listen", "broker.listen", args.listen).set(
        "--shards",
        "broker.shards",
        args.shards.map(i64::from),
    );
    let loaded = common.settings(flags, &[Part::Broker], "info")?;
    let mut stops = Stops::listen()?;
    let broker = start_broker(loaded.settings.broker, "--listen")?;
    let address = broker.local_addr().to_string();
    if common.form().is_json() {
        let admin = broker.admin_addr().map(|address| address.to_string());
        output::json(&json!({ "event": "ready", "broker": address, "admin": admin }))?;
    } else {
        output::talk(format_args!("broker listens on {address}"));
        if let Some(admin) = broker.admin_addr() {
            output::talk(format_args!(
                "/healthz, /ledger and `waybill explain` are on http://{admin}"
            ));
        }
    }
    Running { gateway: None, broker: Some(broker) }.until_stopped(&mut stops).await
}

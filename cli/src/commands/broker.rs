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
stdout says when it listens: {\"event\":\"ready\",\"broker\":\"ADDRESS\",\"admin\":\"ADDRESS\",\
\"io\":\"uring\"}; admin is null unless broker.admin_listen is set, io is what --io came to: \
uring or tokio.")]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes a free one. Default 127.0.0.1:7711.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Threads, each with its own event loop and links. Default 1.
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// What moves the bytes. auto: io_uring where the system lets the broker use it and it passes a
    /// test at the start (Linux 6.1 and newer; containers block it by default), else tokio; uring:
    /// io_uring, or an error; tokio: the portable one. /healthz says which runs, and why. Default
    /// auto.
    #[arg(long, value_name = "auto|uring|tokio", value_parser = ["auto", "uring", "tokio"])]
    io: Option<String>,
}

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let flags = Flags::default()
        .set("--listen", "broker.listen", args.listen)
        .set("--shards", "broker.shards", args.shards.map(i64::from))
        .set("--io", "broker.io", args.io);
    let loaded = common.settings(flags, &[Part::Broker], "info")?;
    let mut stops = Stops::listen()?;
    let broker = start_broker(loaded.settings.broker, "--listen")?;
    let address = broker.local_addr().to_string();
    if common.form().is_json() {
        let admin = broker.admin_addr().map(|address| address.to_string());
        let io = broker.backend().name;
        output::json(&json!({ "event": "ready", "broker": address, "admin": admin, "io": io }))?;
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

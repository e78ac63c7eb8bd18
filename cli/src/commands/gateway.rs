//! `waybill gateway`: a gateway alone.

use serde_json::json;

use crate::Common;
use crate::failure::Outcome;
use crate::output;
use crate::servers::{Running, start_gateway};
use crate::settings::{Flags, Part};
use crate::signals::Stops;

/// Arguments of `waybill gateway`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Settings: [gateway]; gateway.jwt.secret has no default. SIGTERM or Ctrl-C drains, a second one \
ends it now. With --json one line on stdout says when it listens: \
{\"event\":\"ready\",\"gateway\":\"ADDRESS\"}.")]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes a free one. Default 127.0.0.1:7712.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Broker as host:port, or dns:host:port for every address of that name; repeat it for each: a
    /// gateway links to all of them. Default 127.0.0.1:7711.
    #[arg(long = "broker", value_name = "HOST:PORT")]
    brokers: Vec<String>,
}

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let flags = Flags::default().set("--listen", "gateway.listen", args.listen).list(
        "--broker",
        "gateway.broker.addresses",
        &args.brokers,
    );
    let loaded = common.settings(flags, &[Part::Gateway], "info")?;
    let mut stops = Stops::listen()?;
    let gateway = start_gateway(loaded.settings.gateway, None, "--listen").await?;
    let address = gateway.local_addr().to_string();
    if common.form().is_json() {
        output::json(&json!({ "event": "ready", "gateway": address }))?;
    } else {
        output::talk(format_args!("gateway listens on {address}"));
    }
    Running { gateway: Some(gateway), broker: None }.until_stopped(&mut stops).await
}

//! `waybill up`: broker, gateway and demo page in one process, put together so that nothing needs
//! to be configured.
//!
//! What holds them together is made here and told to nobody but this user: the secret of the login
//! tokens, and the broker's credential if the broker wants any. The runtime file has both.

use serde_json::json;
use tracing::warn;
use waybill_broker::TokenConfig;
use waybill_client::{Options, Producer};

use crate::Common;
use crate::demo::{self, Demo};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::runtime_file::{self, Runtime};
use crate::servers::{Running, start_broker, start_gateway};
use crate::settings::{Flags, Loaded, Part, Settings};
use crate::signals::Stops;

/// Arguments of `waybill up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Needs no settings; those of [broker] and [gateway] count. Other terminals find it by a private \
runtime file: `waybill pub --uid 1001 hello` and `waybill token --uid 1001` just work. The demo \
page is there only on a loopback address. Ctrl-C or SIGTERM drains, a second one ends it now. With \
--json one line on stdout says when it is ready: \
{\"event\":\"ready\",\"broker\":\"ADDRESS\",\"gateway\":\"ADDRESS\",\
\"admin\":\"ADDRESS\",\"page\":\"URL\",\"runtime\":\"PATH\"}; \
page is null if there is none.")]
pub(crate) struct Args {
    /// Address and port of gateway and demo page; port 0 takes a free one. Default 127.0.0.1:7712.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address and port of the broker; port 0 takes a free one. Default 127.0.0.1:7711.
    #[arg(long, value_name = "IP:PORT")]
    broker_listen: Option<String>,
}

/// Where the broker's admin routes are unless that is configured: on any free port.
const ADMIN_LISTEN: &str = "127.0.0.1:0";

/// Time that users, and then links, are given to leave, unless it is configured: a person at a
/// terminal waits for it.
const DRAIN_MS: u32 = 500;

pub(crate) async fn run(args: Args, common: &Common) -> Outcome {
    let flags = Flags::default().set("--listen", "gateway.listen", args.listen).set(
        "--broker-listen",
        "broker.listen",
        args.broker_listen,
    );
    let parts = [Part::Broker, Part::GatewayButSecret];
    let Parts { settings, credential } = put_together(common.settings(flags, &parts, "warn")?);
    let mut stops = Stops::listen()?;

    let Settings { broker, mut gateway, .. } = settings;
    let broker = start_broker(broker, "--broker-listen")?;
    let broker_address = broker.local_addr().to_string();
    let admin = broker.admin_addr().map(|address| address.to_string()).unwrap_or_default();
    gateway.broker.addresses = vec![broker_address.clone()];
    let secret = gateway.jwt.secret.clone();
    let is_local = gateway.listen.ip().is_loopback();
    let demo = match is_local {
        true => Some(demo(&broker_address, &credential, &secret)?),
        false => None,
    };
    let gateway = start_gateway(gateway, demo, "--listen").await?;
    let gateway_address = gateway.local_addr().to_string();
    let page = is_local.then(|| format!("http://{gateway_address}/"));

    let path = runtime_file::path();
    if let Ok(Some(other)) = runtime_file::read(&path)
        && other.is_running()
    {
        warn!(
            pid = other.pid,
            broker = other.broker,
            "another `waybill up` is running; commands in other terminals go to this one from here \
             on: name a file for each with {}",
            runtime_file::VARIABLE
        );
    }
    let runtime = Runtime {
        pid: std::process::id(),
        broker: broker_address.clone(),
        admin,
        page: page.clone().unwrap_or_default(),
        secret,
        token: credential,
    };
    let _removed_at_the_end = runtime_file::write(&path, &runtime)?;
    if common.form().is_json() {
        output::json(&json!({
            "event": "ready",
            "broker": broker_address,
            "gateway": gateway_address,
            "admin": runtime.admin,
            "page": page,
            "runtime": path,
        }))?;
    }
    greet(&broker_address, &gateway_address, page.as_deref());
    Running { gateway: Some(gateway), broker: Some(broker) }.until_stopped(&mut stops).await
}

/// Settings that fit each other, and the credential that the parts use.
struct Parts {
    settings: Settings,
    credential: String,
}

fn put_together(loaded: Loaded) -> Parts {
    let drains = [loaded.gives("broker.drain_ms"), loaded.gives("gateway.deadlines.drain_ms")];
    let loaded_expects = loaded.gives("broker.gateways_expected");
    let mut settings = loaded.settings;
    if !drains[0] {
        settings.broker.drain_ms = DRAIN_MS;
    }
    if !drains[1] {
        settings.gateway.deadlines.drain_ms = DRAIN_MS.into();
    }
    if !loaded_expects {
        // There is one gateway, and it is in this process.
        settings.broker.gateways_expected = 1;
    }
    if settings.broker.admin_listen.is_empty() {
        // For `waybill explain`, which finds it by the runtime file.
        settings.broker.admin_listen = ADMIN_LISTEN.into();
    }
    if settings.gateway.jwt.secret.is_empty() {
        settings.gateway.jwt.secret = random_secret();
    }
    let mut credential = String::new();
    if !settings.broker.tokens.is_empty() {
        // The configured ones may lack a role or a namespace; our own parts need all of them.
        credential = random_secret();
        settings.broker.tokens.push(TokenConfig {
            name: "waybill up".into(),
            token: credential.clone(),
            roles: ["producer", "gateway", "consumer"].map(String::from).into(),
            namespaces: None,
        });
    }
    settings.gateway.broker.token.clone_from(&credential);
    Parts { settings, credential }
}

/// 256 bits in hexadecimal.
fn random_secret() -> String {
    rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn demo(broker: &str, credential: &str, secret: &str) -> Outcome<axum::Router> {
    let mut options = Options::new([broker]);
    options.token = (!credential.is_empty()).then(|| credential.to_string());
    let producer = Producer::start(options).map_err(|error| {
        Failure::failed(error, "this is a mistake in waybill; please report it")
    })?;
    Ok(demo::routes(Demo { secret: secret.to_string(), producer }))
}

fn greet(broker: &str, gateway: &str, page: Option<&str>) {
    let first = match page {
        Some(page) => format!(
            "waybill is up: broker on {broker}, demo page at\n\n  {page}\n\n\
             Try next:\n  open {page}?uid=1001 and {page}?uid=1002 in two tabs"
        ),
        None => format!(
            "waybill is up: broker on {broker}, gateway on {gateway} (no demo page: it hands out \
             tokens, so it is there on a loopback address only)\n\nTry next:\n  \
             waybill token --uid 1001"
        ),
    };
    output::talk_lines(format_args!(
        "{first}\n  \
         waybill pub --uid 1001 hello\n  \
         waybill pub --all 'hello, everyone'\n  \
         waybill sub --uid 1003\n  \
         waybill sub --consumer\n  \
         waybill explain --uid 1001\n\nCtrl-C stops it."
    ));
}

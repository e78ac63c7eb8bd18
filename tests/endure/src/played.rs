//! `played`: a gateway with more users than a process has file descriptors. It declares them to
//! every broker through the client crate, answers deliveries with reports, and says on stdout what
//! happens to its links.

use futures_util::StreamExt;
use serde_json::json;
use tokio::task::JoinSet;
use waybill_client::Options;
use waybill_client::gateway::{
    Change, GatewayCommand, GatewayEvent, GatewayEvents, GatewayLink, Registration, Report,
};

use crate::clock::millis_since_1970;
use crate::report::say;
use crate::servers::TOKEN;
use crate::world::{LARGE, NAMESPACES};

/// Registrations in one change.
const CHUNK: u64 = 2_048;

/// What `played` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    users: u64,
    #[arg(long = "broker")]
    brokers: Vec<String>,
}

/// Runs until it is killed.
pub(crate) async fn run(args: &Args) -> Result<bool, String> {
    let incarnation = rand::random_range(1..=u64::MAX);
    let mut tasks = JoinSet::new();
    for (index, broker) in args.brokers.iter().enumerate() {
        let mut options = Options::new([broker.clone()]).token(TOKEN);
        options.backoff.max = std::time::Duration::from_secs(5);
        let started = GatewayLink::start(options, incarnation);
        let (link, events) = started.map_err(|error| error.to_string())?;
        let (declaring, users) = (link.clone(), args.users);
        tasks.spawn(async move { declare(&declaring, users).await });
        tasks.spawn(listen(link, events, index, users.div_ceil(CHUNK)));
    }
    while tasks.join_next().await.is_some() {}
    Err("every link has failed".into())
}

async fn declare(link: &GatewayLink, users: u64) {
    for chunk in 0..users.div_ceil(CHUNK) {
        let uids = chunk * CHUNK..((chunk + 1) * CHUNK).min(users);
        let add = |uid| {
            let (namespace, uid) = (NAMESPACES[0], LARGE + uid);
            Change::add(Registration { namespace, uid, device_class: 0, login: 0 })
        };
        if link.change(chunk + 1, uids.map(add).collect()).await.is_err() {
            return;
        }
    }
}

async fn listen(link: GatewayLink, mut events: GatewayEvents, broker: usize, last: u64) {
    let tell = |what: &str, more: serde_json::Value| {
        let at = millis_since_1970();
        say(&json!({ "at": at, "broker": broker, "event": what, "more": more }).to_string());
    };
    tell("started", json!(null));
    while let Some(event) = events.next().await {
        match event {
            GatewayEvent::Up(welcomed) => tell("up", json!(format!("{welcomed:?}"))),
            GatewayEvent::Down { reason, .. } => tell("down", json!(reason.to_string())),
            GatewayEvent::InEffect { ticket } if ticket == last => tell("in_effect", json!(null)),
            GatewayEvent::Restored { gap, resumed } => {
                tell("restored", json!({ "gap_ms": gap.as_millis(), "resumed": resumed }));
            }
            GatewayEvent::Delivery(delivery) => {
                let mut report = Report::on(&delivery);
                report.reached = u32::try_from(delivery.message().targets.len()).unwrap_or(0);
                let _gone = link.command(GatewayCommand::Report(report)).await;
            }
            GatewayEvent::Failed(error) => tell("failed", json!(error.to_string())),
            _ => {}
        }
    }
}

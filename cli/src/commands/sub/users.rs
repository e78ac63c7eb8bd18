//! What users receive: a gateway link with these users registered.
//!
//! As in a gateway, each target is checked against the users that are here, whatever the broker
//! sent: a broadcast reaches every gateway.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use waybill_client::Wall;
use waybill_client::gateway::{
    Change, Delivery, GatewayCommand, GatewayEvent, GatewayEvents, GatewayLink, Registration,
    Report,
};
use waybill_wire::Message;
use waybill_wire::code::{ErrorCode, Fate, Level};

use super::{Args, Shown, describe, labels_text};
use crate::failure::{Failure, Outcome};
use crate::links::{Target, message_id, payload_text, tell_down, uids_json};
use crate::output::printable;
use crate::parse;

pub(super) async fn run(args: &Args, target: &Target, shown: &mut Shown) -> Outcome {
    let mut uids = parse::joined(&args.uid);
    uids.sort_unstable();
    uids.dedup();
    let incarnation = rand::random_range(1..=u64::MAX);
    let (link, mut events) = GatewayLink::start(target.options.clone(), incarnation)
        .map_err(|error| Failure::usage(error, "check [client] in the settings, and --broker"))?;
    let users = Users { namespace: args.namespace, uids };
    // Told to every broker that is linked to, now and later.
    link.change(1, users.changes()).await.map_err(|error| Failure::failed(error, "try again"))?;
    let outcome = users.show(&link, &mut events, target, shown).await;
    link.close().await;
    outcome
}

struct Users {
    namespace: u32,
    /// In order, each once.
    uids: Vec<u64>,
}

impl Users {
    fn changes(&self) -> Vec<Change> {
        let registration = |uid: &u64| Registration {
            namespace: self.namespace,
            uid: *uid,
            device_class: 0,
            login: 0,
        };
        self.uids.iter().map(registration).map(Change::add).collect()
    }

    async fn show(
        &self,
        link: &GatewayLink,
        events: &mut GatewayEvents,
        target: &Target,
        shown: &mut Shown,
    ) -> Outcome {
        let mut attempts_left = target.options.brokers.len();
        loop {
            let event = tokio::select! {
                () = shown.time_is_up() => return shown.timed_out(),
                event = events.next() => event,
            };
            match event {
                Some(GatewayEvent::InEffect { ticket: 1.. }) => {
                    attempts_left = usize::MAX;
                    shown.listening(&self.names());
                }
                Some(GatewayEvent::Delivery(delivery)) => {
                    let enough = self.delivery(&delivery, shown)?;
                    if let Some(mut report) = self.report(&delivery) {
                        if delivery.message().trace.is_some() {
                            tell_hops(&mut report, &delivery);
                        }
                        // A link that has gone needs none.
                        let _gone = link.command(GatewayCommand::Report(report)).await;
                    }
                    if enough {
                        return Ok(());
                    }
                }
                Some(GatewayEvent::Down { reason, retry_in }) => {
                    attempts_left -= 1;
                    if attempts_left == 0 {
                        return Err(target.failure(&reason));
                    }
                    tell_down(&reason, retry_in);
                }
                Some(GatewayEvent::Failed(reason)) => return Err(target.failure(&reason)),
                Some(_) => {}
                None => return Err(Failure::failed("the link has ended", "try again")),
            }
        }
    }

    fn names(&self) -> String {
        const SHOWN: usize = 8;
        let names: Vec<String> = self.uids.iter().take(SHOWN).map(u64::to_string).collect();
        match self.uids.len().saturating_sub(SHOWN) {
            0 => names.join(" "),
            more => format!("{} and {more} more", names.join(" ")),
        }
    }

    /// Shows a delivery if it is for one of the users.
    fn delivery(&self, delivery: &Delivery, shown: &mut Shown) -> Outcome<bool> {
        let message = delivery.message();
        let targets = self.served(&message);
        if targets.is_empty() {
            return Ok(false);
        }
        let id = message_id(message.origin.unwrap_or_default(), message.sequence);
        shown.show(|| text(&message, &id, &targets), || object(&message, &id, &targets))
    }

    /// What is said of a message whose producer wants to know: who is shown here was reached.
    fn report(&self, delivery: &Delivery) -> Option<Report> {
        let message = delivery.message();
        if message.level != Level::DELIVERED {
            return None;
        }
        let mut report = Report::on(delivery);
        let is_here = message.namespace == self.namespace;
        let except: BTreeSet<u64> = message.except.iter().collect();
        if message.everyone {
            let users = if is_here { &self.uids[..] } else { &[] };
            let excepted = users.iter().filter(|uid| except.contains(uid)).count();
            let count = |users: usize| u32::try_from(users).unwrap_or(u32::MAX);
            report.reached = count(users.len() - excepted);
            report.count(Fate::FILTERED, count(excepted));
            return Some(report);
        }
        let targets: BTreeSet<u64> = message.targets.iter().collect();
        for uid in targets {
            if except.contains(&uid) {
                report.add(Fate::FILTERED, ErrorCode(0), uid);
            } else if is_here && self.uids.binary_search(&uid).is_ok() {
                report.reached += 1;
            } else {
                report.add(Fate::OFFLINE, ErrorCode(0), uid);
            }
        }
        Some(report)
    }

    /// Which of the users a message is for.
    fn served(&self, message: &Message<'_>) -> Vec<u64> {
        if message.namespace != self.namespace {
            return Vec::new();
        }
        let targets: Vec<u64> = message.targets.iter().collect();
        let except: Vec<u64> = message.except.iter().collect();
        let is_for =
            |uid: &u64| (message.everyone || targets.contains(uid)) && !except.contains(uid);
        self.uids.iter().copied().filter(is_for).collect()
    }
}

/// When it came, and that by now it is shown to whom it reached.
fn tell_hops(report: &mut Report, delivery: &Delivery) {
    let wall = Wall::now();
    report.gateway_in_us = wall.time_us(delivery.received_at());
    if report.reached > 0 {
        report.socket_us = wall.time_us(Instant::now().into_std());
    }
}

fn text(message: &Message<'_>, id: &str, targets: &[u64]) -> String {
    let to: Vec<String> = targets.iter().map(u64::to_string).collect();
    let labels: Vec<String> = message.labels.iter().map(printable).collect();
    let (to, labels) = (to.join(","), labels_text(&labels));
    let from = message.sender.map_or(String::new(), |sender| format!(" from {}", sender.uid));
    format!("{to} <- {id}{from}{labels} {}", payload_text(message.payload))
}

fn object(message: &Message<'_>, id: &str, targets: &[u64]) -> Value {
    let mut object = Map::new();
    object.insert("namespace".into(), message.namespace.into());
    object.insert("id".into(), id.into());
    object.insert("targets".into(), uids_json(targets).into());
    if message.everyone {
        object.insert("everyone".into(), true.into());
    }
    if let Some(sender) = message.sender {
        object.insert("from".into(), json!(sender.uid.to_string()));
    }
    let labels = message.labels.iter().map(String::from).collect();
    describe(&mut object, labels, message.content, message.payload);
    Value::Object(object)
}

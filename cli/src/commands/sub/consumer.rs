//! What backends receive: a consumer at every broker of the list that accepts, or refuses, every
//! message; and, if it asks for them, who comes and goes and what found its users offline.

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use waybill_client::{
    Ack, Consumer, ConsumerConfig, ConsumerEvent, Filter, Group, LinkState, OfflineMessage,
    PresenceEvent, UplinkMessage,
};

use super::{Args, Shown, describe, labels_text};
use crate::failure::{Failure, Outcome};
use crate::links::{self, Target, message_id, payload_text, uids_json};
use crate::output::printable;

pub(super) async fn run(args: &Args, target: &Target, shown: &mut Shown) -> Outcome {
    if args.namespace != 0 && args.group.is_none() && args.filter.is_empty() {
        return Err(Failure::usage(
            "--namespace of --consumer says where its --group or --filter is, and there is none",
            "give one, or leave --namespace out to get every namespace you may see",
        ));
    }
    let config = config(args);
    config.check().map_err(|error| Failure::usage(error, "see `waybill sub --help`"))?;
    let (consumer, mut events) = Consumer::connect(target.options.clone(), config)
        .await
        .map_err(|error| target.connect_failure(&error))?;
    tokio::spawn(links::tell_changes_of_all(consumer.watch_links()));
    shown.listening("messages from users");
    let outcome = loop {
        let event = tokio::select! {
            () = shown.time_is_up() => break shown.timed_out(),
            event = events.next() => event,
        };
        let Some(event) = event else { break Err(ended(&consumer, target)) };
        match show(event, args, shown) {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    // Waits for the answers to be written.
    consumer.close().await;
    outcome
}

fn config(args: &Args) -> ConsumerConfig {
    let namespace = args.namespace;
    let group = |name: &String| Group { namespace, name: name.clone() };
    let filter = |text: &String| Filter { namespace, expression: text.clone() };
    ConsumerConfig {
        ack: Ack::Manual,
        groups: args.group.iter().map(group).collect(),
        presence: args.presence,
        offline: args.offline,
        filters: args.filter.iter().map(filter).collect(),
    }
}

/// Shows one event; whether it was the last that was wanted.
fn show(event: ConsumerEvent, args: &Args, shown: &mut Shown) -> Outcome<bool> {
    match event {
        ConsumerEvent::Uplink(mut message) => {
            // Shown first: what is accepted is in good hands.
            let enough = shown.show(|| text(&message), || object(&message))?;
            match args.refuse {
                Some(code) => message.refuse(code),
                None => message.accept(),
            }
            Ok(enough)
        }
        ConsumerEvent::Presence(event) => {
            shown.show(|| presence_text(&event), || presence_object(&event))
        }
        ConsumerEvent::Offline(message) => {
            shown.show(|| offline_text(&message), || offline_object(&message))
        }
        _ => Ok(false),
    }
}

fn ended(consumer: &Consumer, target: &Target) -> Failure {
    match consumer.state() {
        LinkState::Failed(error) => target.failure(&error),
        _ => Failure::failed("the link has ended", "try again"),
    }
}

fn text(message: &UplinkMessage) -> String {
    let labels: Vec<String> = message.labels.iter().map(|label| printable(label)).collect();
    let (uid, labels) = (message.uid, labels_text(&labels));
    format!("{uid} ->{labels} {}", payload_text(&message.payload))
}

fn presence_text(event: &PresenceEvent) -> String {
    let PresenceEvent { event, uid, device_class, login, gateway, .. } = *event;
    format!("{uid} {event}, device class {device_class}, login {login}, gateway {gateway:016x}")
}

fn presence_object(event: &PresenceEvent) -> Value {
    let PresenceEvent { event, namespace, uid, device_class, login, gateway } = *event;
    json!({
        "presence": event.to_string(),
        "namespace": namespace,
        "uid": uid.to_string(),
        "device_class": device_class,
        "login": login.to_string(),
        "gateway": format!("{gateway:016x}"),
    })
}

fn offline_text(message: &OfflineMessage) -> String {
    let labels: Vec<String> = message.labels.iter().map(|label| printable(label)).collect();
    let (uids, labels) = (uids_json(&message.uids).join(" "), labels_text(&labels));
    format!("offline: {uids} <-{labels} {}", payload_text(&message.payload))
}

fn offline_object(message: &OfflineMessage) -> Value {
    let mut object = Map::new();
    object.insert("offline".into(), uids_json(&message.uids).into());
    object.insert("namespace".into(), message.namespace.into());
    object.insert("id".into(), message_id(message.instance, message.sequence).into());
    if message.resend {
        object.insert("resend".into(), true.into());
    }
    describe(&mut object, message.labels.clone(), message.content, &message.payload);
    Value::Object(object)
}

fn object(message: &UplinkMessage) -> Value {
    let mut object = Map::new();
    object.insert("namespace".into(), message.namespace.into());
    object.insert("id".into(), message_id(message.origin, message.sequence).into());
    object.insert("from".into(), json!(message.uid.to_string()));
    object.insert("connection".into(), json!(message.connection.to_string()));
    describe(&mut object, message.labels.clone(), message.content, &message.payload);
    Value::Object(object)
}

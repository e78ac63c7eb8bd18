//! What backends receive: a consumer that accepts, or refuses, every message.

use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use waybill_client::{Ack, Consumer, ConsumerOptions, LinkState, UplinkMessage};

use super::{Args, Shown, describe, labels_text};
use crate::failure::{Failure, Outcome};
use crate::links::{self, Target, message_id, payload_text};
use crate::output::printable;

pub(super) async fn run(args: &Args, target: &Target, shown: &mut Shown) -> Outcome {
    let options = ConsumerOptions { ack: Ack::Manual };
    let (consumer, mut uplinks) = Consumer::connect(target.options.clone(), options)
        .await
        .map_err(|error| target.connect_failure(&error))?;
    tokio::spawn(links::tell_changes(consumer.watch()));
    shown.listening("messages from users");
    let outcome = loop {
        let message = tokio::select! {
            () = shown.time_is_up() => break shown.timed_out(),
            message = uplinks.next() => message,
        };
        let Some(mut message) = message else { break Err(ended(&consumer, target)) };
        // Shown first: what is accepted is in good hands.
        let enough = shown.show(|| text(&message), || object(&message));
        match (&enough, args.refuse) {
            (Err(_), _) => {}
            (Ok(_), Some(code)) => message.refuse(code),
            (Ok(_), None) => message.accept(),
        }
        match enough {
            Ok(false) => {}
            Ok(true) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    // Waits for the answers to be written.
    consumer.close().await;
    outcome
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

fn object(message: &UplinkMessage) -> Value {
    let mut object = Map::new();
    object.insert("namespace".into(), message.namespace.into());
    object.insert("id".into(), message_id(message.origin, message.sequence).into());
    object.insert("from".into(), json!(message.uid.to_string()));
    object.insert("connection".into(), json!(message.connection.to_string()));
    describe(&mut object, message.labels.clone(), message.content, &message.payload);
    Value::Object(object)
}

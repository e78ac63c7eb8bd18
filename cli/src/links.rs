//! Linking to a broker as a client: where it is, with which credential, and what to say about it.
//!
//! Flags, environment and file come first; else the running `waybill up` is found by its runtime
//! file; else the default address. Connecting, reconnecting and back-off are the client crate's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use waybill_client::consumer::BrokerLink;
use waybill_client::{BrokerState, ConnectError, LinkError, LinkState, Options, Welcomed};
use waybill_wire::code::{ContentType, Encoding};

use crate::failure::{Failure, Outcome};
use crate::output::{self, printable};
use crate::runtime_file;
use crate::settings::{Flags, Loaded};

/// Flags of every command that links to a broker.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LinkArgs {
    /// Broker as host:port, or dns:host:port for every address of that name; repeat it for more.
    /// Default: the running `waybill up`, else 127.0.0.1:7711.
    #[arg(long = "broker", value_name = "HOST:PORT")]
    brokers: Vec<String>,
}

impl LinkArgs {
    pub(crate) fn flags(&self) -> Flags {
        Flags::default().list("--broker", "client.addresses", &self.brokers)
    }
}

/// Where to link to, and how that was found out.
pub(crate) struct Target {
    pub(crate) options: Options,
    from_runtime: bool,
}

/// The link options that settings and runtime file amount to.
pub(crate) fn target(loaded: &Loaded) -> Outcome<Target> {
    let client = &loaded.settings.client;
    let runtime = match client.addresses.is_empty() {
        true => runtime_file::read(&runtime_file::path())?,
        false => None,
    };
    let mut options = Options {
        connect_timeout: Duration::from_millis(client.connect_timeout_ms),
        ..Options::default()
    };
    let mut token = client.token.clone();
    let from_runtime = runtime.is_some();
    if let Some(runtime) = runtime {
        options.brokers = vec![runtime.broker];
        if token.is_empty() {
            token = runtime.token;
        }
    } else if !client.addresses.is_empty() {
        options.brokers.clone_from(&client.addresses);
    }
    options.token = (!token.is_empty()).then_some(token);
    Ok(Target { options, from_runtime })
}

impl Target {
    /// Why the first link did not come about.
    pub(crate) fn failure(&self, error: &LinkError) -> Failure {
        let text = error.to_string();
        // The broker's own words, in parentheses, may hold anything.
        let parts = text.rsplit_once("; ").filter(|(_, remedy)| !remedy.ends_with(')'));
        let (cause, remedy) = parts.unwrap_or((&text, "see the broker's log"));
        if self.from_runtime {
            let path = runtime_file::path();
            let shown = path.display();
            return Failure::failed(
                cause,
                format_args!("{remedy}; the address is from {shown}: does `waybill up` still run?"),
            );
        }
        let hint = match error.code() {
            None => "; `waybill up` starts one, --broker names another",
            Some(_) => "",
        };
        Failure::failed(cause, format_args!("{remedy}{hint}"))
    }

    /// The same for errors of `connect`.
    pub(crate) fn connect_failure(&self, error: &ConnectError) -> Failure {
        match error {
            ConnectError::Link(error) => self.failure(error),
            other => Failure::usage(other, "check [client] in the settings, and --broker"),
        }
    }
}

/// Says on stderr which broker is linked to, and whether it takes no messages yet.
fn tell_linked(how: &str, welcomed: &Welcomed) {
    let broker = &welcomed.address;
    let unready = match welcomed.state {
        BrokerState::NOT_READY => ", which is not ready yet: messages wait",
        _ => "",
    };
    output::talk(format_args!("{how} to broker {broker}{unready}"));
}

/// Says on stderr which broker is linked to, when that was lost and is back, and when one that was
/// not ready is.
pub(crate) async fn tell_changes(mut states: watch::Receiver<LinkState>) {
    let (mut how, mut open) = ("linked", None);
    loop {
        match &*states.borrow_and_update() {
            LinkState::Down { reason, retry_in, .. } => {
                tell_down(reason, *retry_in);
                (how, open) = ("linked again", None);
            }
            LinkState::Open(welcomed) => {
                match open {
                    None => tell_linked(how, welcomed),
                    Some(BrokerState::NOT_READY) if welcomed.state == BrokerState::READY => {
                        output::talk(format_args!("broker {} is ready now", welcomed.address));
                    }
                    Some(_) => {}
                }
                open = Some(welcomed.state);
            }
            _ => {}
        }
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// The same for a consumer, which has a link to each broker.
pub(crate) async fn tell_changes_of_all(mut links: watch::Receiver<Vec<BrokerLink>>) {
    let mut lost = BTreeSet::new();
    loop {
        for BrokerLink { broker, state, .. } in links.borrow_and_update().iter() {
            match state {
                LinkState::Down { reason, retry_in, .. } if lost.insert(Arc::clone(broker)) => {
                    tell_down(reason, *retry_in);
                }
                LinkState::Failed(reason) if lost.insert(Arc::clone(broker)) => {
                    output::talk(format_args!("{reason}; not tried again"));
                }
                LinkState::Open(_) if lost.remove(broker) => {
                    output::talk(format_args!("linked again to broker {broker}"));
                }
                _ => {}
            }
        }
        if links.changed().await.is_err() {
            return;
        }
    }
}

/// Says on stderr that a link is down and tried again.
pub(crate) fn tell_down(reason: &LinkError, retry_in: Duration) {
    output::talk(format_args!("{reason}; trying again in {} ms", retry_in.as_millis()));
}

/// A payload as JSON: text if it is, else base64, as in the gateway's JSON subprotocol (WS-7).
pub(crate) fn payload_json(payload: &[u8]) -> (&'static str, Value) {
    use base64::Engine;
    match std::str::from_utf8(payload) {
        Ok(text) => ("data", text.into()),
        Err(_) => ("data64", base64::engine::general_purpose::STANDARD.encode(payload).into()),
    }
}

/// A payload for people: text without control characters, else its size and first bytes.
pub(crate) fn payload_text(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) => printable(text),
        Err(_) => {
            let shown = payload.iter().take(BYTES_SHOWN);
            let hex: Vec<String> = shown.map(|byte| format!("{byte:02x}")).collect();
            let more = if payload.len() > BYTES_SHOWN { " ..." } else { "" };
            format!("({} bytes) {}{more}", payload.len(), hex.join(" "))
        }
    }
}

/// Bytes of a binary payload that are shown to people.
const BYTES_SHOWN: usize = 32;

/// Names of content type and encoding, numbers as text for private use; `None` for the default.
pub(crate) fn content_json(content_type: ContentType, encoding: Encoding) -> [Option<Value>; 2] {
    let content = Some(json!(content_type.to_string()));
    let encoding = (encoding != Encoding::IDENTITY).then(|| json!(encoding.to_string()));
    [content, encoding]
}

/// UIDs as JSON: strings, since not every reader of JSON has 64-bit numbers.
pub(crate) fn uids_json(uids: &[u64]) -> Vec<String> {
    uids.iter().map(u64::to_string).collect()
}

/// A message id as it is written everywhere: instance in hexadecimal, hyphen, sequence.
pub(crate) fn message_id(instance: u64, sequence: u64) -> String {
    format!("{instance:016x}-{sequence}")
}

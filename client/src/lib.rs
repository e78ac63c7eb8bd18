//! Producers, gateway links and consumers for Waybill.
//!
//! Three handles, each to a task that owns one socket and keeps it: [`Producer`] publishes and gets
//! receipts, [`GatewayLink`](gateway::GatewayLink) declares users and gets their messages,
//! [`Consumer`] receives what users send. All reconnect by themselves, with back-off and through
//! the list of brokers, until the broker says something that trying again does not mend. The
//! protocol's part of each is a pure machine; `connection.rs` is the one place with a socket and a
//! clock.
//!
//! Nothing here is unbounded, prints, parses flags or has global state.
//!
//! ```no_run
//! use std::time::Duration;
//! use waybill_client::{ConnectError, Options, Producer, Publish, PublishError};
//!
//! # #[derive(Debug)] enum Error { Connect(ConnectError), Publish(PublishError) }
//! # impl From<ConnectError> for Error { fn from(e: ConnectError) -> Self { Self::Connect(e) } }
//! # impl From<PublishError> for Error { fn from(e: PublishError) -> Self { Self::Publish(e) } }
//! # async fn example() -> Result<(), Error> {
//! let producer = Producer::connect(Options::new(["broker-a:7711", "broker-b:7711"])).await?;
//! let publish = Publish::to([1001, 1002]).payload("hello").ttl(Duration::from_secs(30));
//! let receipt = producer.publish(publish).await?;
//! assert_eq!(receipt.sent as usize + receipt.offline.len(), 2);
//! producer.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The other end, see [`GatewayLink`](gateway::GatewayLink):
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use futures_util::StreamExt;
//! use waybill_client::Options;
//! use waybill_client::gateway::{Change, GatewayEvent, GatewayLink, Registration};
//!
//! let (link, mut events) = GatewayLink::start(Options::default(), 0x5eed)?;
//! let user = Registration { namespace: 0, uid: 1001, device_class: 0, login: 0 };
//! link.change(1, vec![Change::add(user)]).await?;
//! while let Some(event) = events.next().await {
//!     if let GatewayEvent::Delivery(delivery) = event {
//!         let uids: Vec<u64> = delivery.message().targets.iter().collect();
//!         let payload = delivery.payload();
//!         // ... to those of `uids` that are connected here
//! #       let _ = (uids, payload);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod connection;
pub mod consumer;
mod discovery;
mod error;
mod finder;
pub mod gateway;
mod hops;
mod link;
mod machine;
mod options;
mod outlet;
mod producer;
mod publish;
mod receipt;
mod selector;
#[cfg(feature = "sim")]
pub mod sim;
mod tags;
mod wall;

pub use backoff::Backoff;
pub use consumer::{
    Ack, Consumer, ConsumerConfig, ConsumerEvent, ConsumerEvents, Filter, Group, OfflineMessage,
    PresenceEvent, UplinkMessage,
};
pub use discovery::{DNS_PREFIX, Discovery, Found};
pub use error::{ConnectError, InvalidPublish, InvalidTags, Obstacle, PublishError};
pub use finder::{Finder, Lookup, Resolver, SystemResolver};
pub use hops::{Hop, Place};
pub use link::{LinkError, LinkErrorKind, LinkGone, LinkState, Welcomed};
pub use options::{
    COUNT_MAX, DEFAULT_PORT, Options, OptionsError, PENDING_BYTES_MIN, is_host_port,
};
pub use producer::{PendingReceipt, Producer};
pub use publish::{Audience, Publish, ReceiptLevel};
pub use receipt::{Dropped, HOPS_MAX, Progress, Receipt};
pub use selector::Selector;
pub use tags::TagChange;
pub use wall::Wall;
// Words of the protocol that appear in this interface.
pub use waybill_wire::code::{
    BrokerState, ContentType, Encoding, ErrorCode, Event, Mode, Op, Priority,
};
pub use waybill_wire::message::{Content, Message};
pub use waybill_wire::selector::{Flaw, TextError};

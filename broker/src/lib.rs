//! The broker: shards with a synchronous brain, bounded outboxes and I/O backends.
//!
//! A shard's brain ([`shard::Shard`]) is pure state: inputs and times go in, orders come out
//! ([`io`]). It runs on io_uring or on tokio in production and on a seeded simulator in tests.
//! [`Broker::start`] is the one door for programs. Never here: gateways' WebSockets, clients'
//! retries, the meaning of payloads.

mod admin;
pub mod auth;
pub mod config;
mod declared;
pub mod explain;
pub mod io;
pub mod ledger;
pub mod limits;
pub mod mail;
pub mod memory;
pub mod merge;
pub mod outbox;
pub mod pool;
pub mod readiness;
mod server;
pub mod shard;
pub mod shared;
pub mod telemetry;
mod told;

pub use config::{BrokerConfig, ConfigError, IoChoice, LoginPolicy, LoginsConfig, TokenConfig};
pub use ledger::{Frames, IoEvents, Ledger};
pub use server::{Broker, BrokerHandle, ShardFailed, StartError};

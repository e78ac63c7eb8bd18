//! The gateway: it holds end users' WebSockets, tells brokers who is here, and hands each message
//! to the connections it is for.
//!
//! [`Gateway::start`] runs one. Inside, the parts that decide are pure machines, which take the
//! time as an argument: [`session`] (one connection's life), [`hub`] (who is here), [`upstream`]
//! (what the brokers have been told); `switchboard.rs` joins the last two. Around them:
//! `transports.rs` and `http.rs` (sockets), `server.rs` (tasks). [`subprotocol`] and `fanout.rs`
//! are what clients read and write; [`auth`] is whom they are.
//!
//! Never here: the broker's crate, the layout of broker frames, a payload looked into beyond
//! whether it is UTF-8.

pub mod auth;
mod clock;
pub mod config;
mod fanout;
mod http;
pub mod hub;
mod links;
pub mod memory;
mod pool;
mod recent;
mod reports;
mod server;
pub mod session;
mod shortage;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod subprotocol;
mod switchboard;
mod tags;
mod telemetry;
mod ticket;
mod transports;
pub mod upstream;

pub use config::{ConfigError, GatewayConfig};
pub use server::{Gateway, GatewayHandle, StartError};
pub use telemetry::{Dropped, GatewayStats};

//! The gateway from outside: the contract's vectors, and real sockets between a scripted broker and
//! clients of another WebSocket implementation.
//!
//! One binary for all of it. Nothing waits for time to pass: each wait is for an event, under one
//! deadline that only a broken test meets.

// Clippy knows tests by their attribute; here everything is one.
#![expect(clippy::unwrap_used)]

mod broker;
mod brokers;
mod closing;
mod messages;
mod queues;
mod support;
mod tags;
mod uplinks;
mod vectors;

//! The program as a process: arguments, exit codes, what it prints, signals, and several of it
//! together. Nothing waits for time to pass: a test waits for a line of output or for an end.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod backends;
mod closed;
mod conflating;
mod consumer;
mod explain;
mod hostile;
mod inspect;
mod large;
mod plan;
mod receipts;
mod scripted;
mod selecting;
mod servers;
mod several;
mod support;
mod tagging;
mod tags;
mod three_gateways;
mod together;
mod token;
mod trace;
mod usage;
mod users;
mod vectors;
mod wire;

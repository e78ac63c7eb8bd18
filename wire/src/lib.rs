//! The Waybill protocol in Rust: codec, deframer and session machine.
//!
//! The text of the contract is `protocol-spec/`. This crate has no I/O, no clock, no random source
//! and no logger: bytes and times come in as arguments, bytes and verdicts go out as values.

pub mod targets;

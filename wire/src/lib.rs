//! The Waybill protocol in Rust: codec, deframer and session machine.
//!
//! The text of the contract is `protocol-spec/`. This crate has no I/O, no clock, no random source
//! and no logger: bytes and times come in as arguments, bytes and verdicts go out as values.
//! Decoding borrows, encoding appends to a caller's buffer; a frame costs no allocation.

pub mod code;
pub mod error;
pub mod frame;
pub mod limits;
pub mod list;
pub mod message;
pub mod prologue;
mod read;
pub mod targets;
mod write;

pub use error::{Malformed, Unencodable, Violation};
pub use frame::Frame;
pub use message::{Message, MessageHead};

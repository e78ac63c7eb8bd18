//! The Waybill protocol in Rust: codec, deframer and session machine.
//!
//! The text of the contract is `protocol-spec/`. This crate has no I/O, no clock, no random source
//! and no logger: bytes and times come in as arguments, bytes and verdicts go out as values.
//! Decoding borrows, encoding appends to a caller's buffer; a frame costs no allocation.

pub mod assembly;
pub mod code;
pub mod deframe;
pub mod digest;
pub mod error;
pub mod expression;
pub mod filter;
pub mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod list;
pub mod memory;
pub mod message;
pub mod planted;
pub mod prologue;
mod read;
pub mod selector;
pub mod session;
pub mod targets;
mod write;

pub use assembly::Assembly;
pub use deframe::Deframer;
pub use digest::Digest;
pub use error::{Malformed, Unencodable, Violation};
pub use frame::Frame;
pub use message::{Message, MessageHead};
pub use selector::Selector;
pub use session::Session;

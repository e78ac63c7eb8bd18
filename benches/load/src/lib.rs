//! The load bench: the same work, checked message by message, for Waybill and for what people
//! would pick instead.
//!
//! One thread generates, receives and checks. It owns every socket; a [`Driver`](driver::Driver) is
//! the protocol of one target without I/O, so that each target costs the generator about the same.
//! What a message is and whom it is for follows from its number alone ([`work`]), so that the
//! [`tally`] can judge every delivery. *Never here:* the broker and gateway crates; what is
//! measured are processes.

pub mod cli;
pub mod clock;
pub mod driver;
pub mod engine;
pub mod failure;
pub mod interrupt;
pub mod io;
pub mod machine;
pub mod output;
pub mod peers;
pub mod process;
pub mod relay;
pub mod report;
pub mod results;
pub mod run;
pub mod scenario;
pub mod summary;
pub mod system;
pub mod tally;
pub mod targets;
pub mod waybill;
pub mod work;

//! The Waybill protocol in Rust: codec, deframer and session machine, with no I/O and no clock.

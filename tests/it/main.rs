//! Whole-system tests: they see the crates as a user does, on every I/O backend.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod chaos;
mod conformance;
mod overload;
mod promises;
mod rights;
mod support;
mod talk;

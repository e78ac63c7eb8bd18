//! Whole-system tests: they see the crates as a user does, on every I/O backend.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stderr, reason = "the backend and seed of a failure are in its output")]

mod batches;
mod chaos;
mod churn;
mod clients;
mod conformance;
mod consumers;
mod data_links;
mod differential;
mod endings;
mod explain;
mod explain_http;
mod fragments;
mod hops;
mod large;
mod ledgers;
mod links;
mod liveness;
mod logins;
mod outbox;
mod outrun;
mod overload;
mod parcels;
mod parts;
mod presence;
mod promises;
mod readiness;
mod receipts;
mod resume;
mod rights;
mod runs;
mod selectors;
mod storm;
mod support;
mod taggings;
mod talk;

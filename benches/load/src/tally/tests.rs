//! The tally against a naive one.

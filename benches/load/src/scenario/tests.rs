//! Scenarios that cannot be, and what is said about them.

//! Rules of the repository, as tests: who may depend on whom, which names belong in which room, how
//! large things may grow, whether the documents are true.
//!
//! Each test collects every breach and says what to do about it. What is checked is what lies in
//! the folder, committed or not.

mod docs;
mod edges;
mod names;
mod sizes;
mod source;
mod spec;
mod traces;
mod tree;

/// Fails with one line for each breach.
#[track_caller]
fn check(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} breaches:\n  {}", breaches.len(), breaches.join("\n  "));
}

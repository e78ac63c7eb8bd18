//! What a run looks like: text for a terminal, a page, and a run beside an earlier one.
//!
//! Which figures are quoted and which differences stand is decided in [`summary`](crate::summary);
//! here it is only said.

pub mod compare;
mod grid;
pub mod html;
mod method;
mod remarks;
pub mod terminal;
mod words;

#[cfg(test)]
mod example;

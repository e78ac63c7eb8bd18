//! What can go wrong, and what to do about it.

use std::path::PathBuf;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The system does not tell how much memory this process has.
    #[error("/proc/self/status can't be read ({0}): this bench needs Linux with /proc mounted")]
    Memory(#[source] std::io::Error),
    /// A line is missing there.
    #[error("/proc/self/status has no line `{name}`: this bench needs Linux with /proc mounted")]
    NoMemory { name: &'static str },
    /// The process of a case.
    #[error("the process that was to measure {case} did not start: {source}")]
    Start { case: String, source: std::io::Error },
    /// It ended otherwise than well.
    #[error("measuring {case} failed ({how}): with that many users memory may be short")]
    Case { case: String, how: String },
    /// A file of results.
    #[error("{path} can't be written: {source}", path = path.display())]
    Write { path: PathBuf, source: std::io::Error },
    /// The plot.
    #[error("the plot can't be drawn: {0}")]
    Plot(String),
    /// What is asked for makes no sense.
    #[error("{0}")]
    Usage(String),
}

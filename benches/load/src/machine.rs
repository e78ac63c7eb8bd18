//! Facts about the machine, for every result.

use std::fs;

use crate::results::Machine;

/// Reads them. What cannot be found out is called `unknown`, or is 0.
#[must_use]
pub fn facts(pinned: bool) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
        line.map(|line| line.trim().to_string())
    };
    let unknown = || "unknown".to_string();
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 =
        memory.and_then(|words| words.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let release = read("/proc/sys/kernel/osrelease");
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(unknown),
        cores: cores(),
        memory_bytes: kib << 10,
        kernel: format!("Linux {}", release.trim()),
        placement: if pinned { "pinned" } else { "free" }.into(),
    }
}

/// Cores this process may use.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A core for the bench and one for servers; `None` where there is only one.
#[must_use]
pub fn two_cores() -> Option<(usize, usize)> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    let mut usable = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    Some((usable.next()?, usable.next()?))
}

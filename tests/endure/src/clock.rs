//! The clock of a run: microseconds since it began. The one place here that reads the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since the run began.
pub(crate) type Micros = u64;

/// One second.
pub(crate) const SECOND: Micros = 1_000_000;

/// Started once, copied to whoever stamps something.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Seconds since 1970, for login tokens.
pub(crate) fn since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970: what two processes can compare.
pub(crate) fn millis_since_1970() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// A time as people read it.
pub(crate) fn seconds(micros: Micros) -> String {
    format!("{:.3} s", Duration::from_micros(micros).as_secs_f64())
}

//! The one place of this crate that asks what time it is. Machines are told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use waybill_client::Wall;

use crate::session::Now;

/// Milliseconds count from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        // A system clock before 1970 makes every token look unexpired for ever; 0 is as good.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { ms: self.ms(), unix_s: unix.as_secs() }
    }

    pub(crate) fn ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since a moment that a link has noted.
    pub(crate) fn since_ms(moment: std::time::Instant) -> u64 {
        let since = Instant::now().saturating_duration_since(Instant::from_std(moment));
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Microseconds since 1970 at a moment that a link has noted. Looks at the wall clock: for
    /// traced messages only.
    pub(crate) fn wall_us(moment: std::time::Instant) -> u64 {
        Wall::now().time_us(moment)
    }

    /// Microseconds since 1970 now; as above.
    pub(crate) fn wall_us_now() -> u64 {
        Self::wall_us(Instant::now().into_std())
    }

    /// The instant at which [`now`](Self::now) reaches `ms`, or a year from now if that is
    /// earlier: a timer that fires too early is set again.
    pub(crate) fn instant(&self, ms: u64) -> Instant {
        const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;
        self.start + Duration::from_millis(ms.min(self.ms().saturating_add(YEAR_MS)))
    }
}

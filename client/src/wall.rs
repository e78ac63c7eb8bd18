//! How moments become times of the wall clock, for traced messages.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the wall clock says at a moment, and so at every other one. Meant for single moments: it
/// knows nothing of a clock that is set later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wall {
    moment: Instant,
    since_1970: Duration,
}

impl Wall {
    /// Looks at both clocks, a few times: the look counts in which least time passed between them.
    #[must_use]
    pub fn now() -> Self {
        const LOOKS: usize = 4;
        let look = |_| {
            let before = tokio::time::Instant::now().into_std();
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let apart = tokio::time::Instant::now().into_std() - before;
            (apart, before + apart / 2, wall)
        };
        let (_, moment, since_1970) = (1..LOOKS).map(look).fold(look(0), Ord::min);
        Self { moment, since_1970 }
    }

    /// It is so many microseconds past 1970 at that moment; for simulators.
    #[must_use]
    pub fn at(moment: Instant, time_us: u64) -> Self {
        Self { moment, since_1970: Duration::from_micros(time_us) }
    }

    /// Microseconds since 1970-01-01 00:00 UTC at that moment; not 0.
    #[must_use]
    pub fn time_us(&self, moment: Instant) -> u64 {
        let after = moment.saturating_duration_since(self.moment);
        let before = self.moment.saturating_duration_since(moment);
        let since_1970 = (self.since_1970 + after).saturating_sub(before);
        u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_tells_times_before_and_after_its_moment() {
        let now = Instant::now() + Duration::from_secs(10);
        let wall = Wall::at(now, 5_000_000);
        assert_eq!(wall.time_us(now), 5_000_000);
        assert_eq!(wall.time_us(now + Duration::from_micros(7)), 5_000_007);
        assert_eq!(wall.time_us(now - Duration::from_secs(1)), 4_000_000);
        assert_eq!(wall.time_us(now - Duration::from_secs(9)), 1, "0 is no time on the wire");
    }

    #[test]
    fn a_wall_is_the_clock_of_the_system() {
        let before = SystemTime::now();
        let wall = Wall::now().time_us(tokio::time::Instant::now().into_std());
        let after = SystemTime::now();
        let wall = UNIX_EPOCH + Duration::from_micros(wall);
        // The clock may be looked at in the middle of a preemption.
        let error = Duration::from_secs(1);
        assert!(before <= wall + error && wall <= after + error);
    }
}

//! Silence on a link: when to ask, and when to give up (SES-9, SES-10).
//!
//! Silence is counted from `heard`. While this end has stopped reading, that count stands still:
//! the link cannot time out, but PINGs still go out, since the other end counts this end's silence.
//! So they do from an end that reads now and then: what it reads may have waited for long, and the
//! other end's PING may wait behind it.

use std::time::Duration;

use crate::limits::MISSED_PINGS_MAX;

/// Periods without a byte after which the other end has been asked and has not answered.
const SILENT_PERIODS: u32 = 2;

/// Invariant: `heard <= ask_at`, or this end `held_back`.
#[derive(Debug)]
pub(super) struct Keepalive {
    /// Zero: no keepalive.
    period: Duration,
    heard: Duration,
    ask_at: Duration,
    paused: Option<Duration>,
    /// This end has stopped reading since its last PING, if only for a while.
    held_back: bool,
    token: u32,
    /// Token of a mark that has not been answered.
    mark: Option<u32>,
}

/// What the silence means.
pub(super) enum Life {
    /// Nothing is due.
    Quiet,
    /// Send a PING with this token.
    Ask(u32),
    /// The other end is gone.
    Over,
}

impl Keepalive {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            period: Duration::ZERO,
            heard: now,
            ask_at: now,
            paused: None,
            held_back: false,
            token: 0,
            mark: None,
        }
    }

    pub(super) fn start(&mut self, now: Duration, period: Duration) {
        self.period = period;
        self.received(now);
    }

    pub(super) fn received(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
        if !self.held_back {
            self.ask_at = self.heard.saturating_add(self.period);
        }
    }

    pub(super) fn pause(&mut self, now: Duration) {
        self.paused.get_or_insert(now);
        self.held_back = true;
    }

    pub(super) fn resume(&mut self, now: Duration) {
        if let Some(since) = self.paused.take() {
            // What was heard after the pause began has moved `heard` already.
            let unheard = now.saturating_sub(since.max(self.heard));
            self.heard = self.heard.saturating_add(unheard);
            self.ask_at = self.ask_at.max(self.heard);
        }
    }

    /// The token of a PING that is due now for its own sake; `None` while the last such is
    /// unanswered. It also asks about the silence, so that no other PING is due soon.
    pub(super) fn mark(&mut self, now: Duration) -> Option<u32> {
        if self.mark.is_some() {
            return None;
        }
        self.ask_at = self.ask_at.max(now.saturating_add(self.period));
        self.held_back = self.paused.is_some();
        self.token = self.token.wrapping_add(1);
        self.mark = Some(self.token);
        self.mark
    }

    pub(super) fn answered(&mut self, token: u32) {
        if self.mark == Some(token) {
            self.mark = None;
        }
    }

    fn over_at(&self) -> Duration {
        self.heard.saturating_add(self.period.saturating_mul(MISSED_PINGS_MAX))
    }

    /// Since when nothing has come, if that is for longer than a PING may take to be due: then one
    /// is unanswered. `None` while this end does not read.
    pub(super) fn silent_since(&self, now: Duration) -> Option<Duration> {
        let is_silent = now.saturating_sub(self.heard) > self.period.saturating_mul(SILENT_PERIODS);
        (is_silent && self.paused.is_none() && !self.period.is_zero()).then_some(self.heard)
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        if self.period.is_zero() {
            None
        } else if self.paused.is_some() {
            Some(self.ask_at)
        } else {
            Some(self.ask_at.min(self.over_at()))
        }
    }

    pub(super) fn poll(&mut self, now: Duration) -> Life {
        if self.period.is_zero() {
            Life::Quiet
        } else if self.paused.is_none() && now >= self.over_at() {
            Life::Over
        } else if now >= self.ask_at {
            self.ask_at = now.saturating_add(self.period);
            self.held_back = self.paused.is_some();
            self.token = self.token.wrapping_add(1);
            Life::Ask(self.token)
        } else {
            Life::Quiet
        }
    }
}

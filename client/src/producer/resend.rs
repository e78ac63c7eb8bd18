//! Parts that were transmitted and have to be transmitted again: their link died before the
//! answer, or a broker that was not ready refused them.
//!
//! They keep their sequences and go before anything new, in order. Those in doubt are worth it for
//! a short while only: gateways remember a bounded number of messages.

use std::collections::VecDeque;
use std::time::Instant;

use super::job::Flight;

/// Invariant: sequences rise; `due` is the earliest of the times, exactly.
#[derive(Debug, Default)]
pub(super) struct Again {
    flights: VecDeque<(Instant, Flight)>,
    due: Option<Instant>,
}

impl Again {
    pub(super) fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// When the first of them has waited too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Takes one over, to be given up at `until`.
    pub(super) fn push(&mut self, until: Instant, flight: Flight) {
        let sequence = flight.sequence;
        let at = self.flights.partition_point(|(_, other)| other.sequence < sequence);
        self.flights.insert(at, (until, flight));
        self.due = Some(self.due.map_or(until, |due| due.min(until)));
    }

    /// The one to go first.
    pub(super) fn front(&self) -> Option<&Flight> {
        self.flights.front().map(|(_, flight)| flight)
    }

    /// Takes the first one out.
    pub(super) fn pop(&mut self) -> Option<Flight> {
        let (until, flight) = self.flights.pop_front()?;
        // Most were lost together and share their time: then nothing has to be looked through.
        let next = self.flights.front().map(|(until, _)| *until);
        if self.due == Some(until) && next != Some(until) {
            self.find_due();
        }
        Some(flight)
    }

    /// Takes out those that have waited too long, in order.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Flight> {
        if self.due.is_none_or(|due| due > now) {
            return Vec::new();
        }
        let flights = std::mem::take(&mut self.flights);
        let (late, rest): (VecDeque<_>, _) = flights.into_iter().partition(|(at, _)| *at <= now);
        self.flights = rest;
        self.find_due();
        late.into_iter().map(|(_, flight)| flight).collect()
    }

    /// Takes all out, in order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Flight> {
        self.due = None;
        std::mem::take(&mut self.flights).into_iter().map(|(_, flight)| flight)
    }

    fn find_due(&mut self) {
        self.due = self.flights.iter().map(|(until, _)| *until).min();
    }
}

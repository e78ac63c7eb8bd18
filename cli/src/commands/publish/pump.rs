//! Messages out, receipts in: many under way at once, each told in the order of the messages.
//!
//! A broker may be alive and still never answer. Patience begins anew with each receipt; when it
//! ends, or when somebody stops the program, what has no answer is counted as in doubt.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use waybill_client::{Audience, PendingReceipt, Producer, Progress, Publish, PublishError};
use waybill_wire::limits::TARGETS_MAX;

use super::messages::Messages;
use super::told::{self, Told};
use super::way::TraceId;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::signals::Stops;

/// Messages under way at once: enough to fill a link, few enough to stop soon.
const WINDOW: usize = 1024;

/// What patience is stretched by: a message that could not be sent fails when the same time is up,
/// and that tells more than that there was no receipt.
const SETTLING: Duration = Duration::from_millis(250);

pub(super) struct Pump<'a> {
    producer: &'a Producer,
    told: &'a mut Told,
    flights: VecDeque<Flight>,
    patience: Duration,
    /// When patience with the oldest flight ends.
    due: Instant,
    given_up: bool,
}

/// A message under way, or one that did not get that far.
struct Flight {
    /// Line of the input it was read from.
    line: Option<u64>,
    /// Who it is for, if that is no list: nobody is counted then.
    uncounted: Option<&'static str>,
    trace: Option<TraceId>,
    sent: Result<PendingReceipt, PublishError>,
    /// How far a long list has come, if somebody looks.
    progress: Option<watch::Receiver<Progress>>,
}

impl<'a> Pump<'a> {
    pub(super) fn new(producer: &'a Producer, told: &'a mut Told, patience: Duration) -> Self {
        let (flights, due) = (VecDeque::new(), Instant::now() + patience);
        Self { producer, told, flights, patience, due, given_up: false }
    }

    /// Sends every message and tells what became of it. After an error, whether it is worth
    /// waiting for what is still under way.
    pub(super) async fn run(
        mut self,
        messages: &mut Messages,
        stops: &mut Stops,
    ) -> (Outcome, bool) {
        let outcome = tokio::select! {
            outcome = self.all(messages) => outcome,
            () = stops.next() => {
                Err(self.give_up("stopped by a signal", "sent again, they may come twice"))
            }
        };
        (outcome, !self.given_up)
    }

    async fn all(&mut self, messages: &mut Messages) -> Outcome {
        let mut ended = Ok(());
        let mut more = true;
        while more || !self.flights.is_empty() {
            let room = self.flights.len() < WINDOW;
            tokio::select! {
                biased;
                answered = self.answer(), if !self.flights.is_empty() => answered?,
                message = messages.next(), if more && room => match message {
                    Ok(Some(publish)) => self.send(messages.line(), publish).await?,
                    Ok(None) => more = false,
                    Err(failure) => (more, ended) = (false, Err(failure)),
                }
            }
        }
        ended
    }

    /// Waits for the outcome of the oldest flight, which stays in its place until then.
    async fn answer(&mut self) -> Outcome {
        let Some(oldest) = self.flights.front_mut() else { return Ok(()) };
        let outcome = match &mut oldest.sent {
            Ok(pending) => loop {
                tokio::select! {
                    outcome = timeout_at(self.due + SETTLING, &mut *pending) => break outcome,
                    progress = advanced(&mut oldest.progress) => {
                        self.due = Instant::now() + self.patience;
                        output::progress(progress_text(progress));
                    }
                }
            },
            Err(error) => Ok(Err(error.clone())),
        };
        if oldest.progress.is_some() {
            output::progress_ended();
        }
        let Ok(outcome) = outcome else {
            let cause = format!("no receipt came within {:?}", self.patience);
            return Err(self.give_up(&cause, "see the broker's log, or give a longer --timeout"));
        };
        self.due = Instant::now() + self.patience;
        let told = self.flights.pop_front().map(|flight| flight.tell(self.told, &outcome));
        told.unwrap_or(Ok(()))
    }

    /// Sends one, after as many receipts as it takes to make room for it.
    async fn send(&mut self, line: Option<u64>, publish: Publish) -> Outcome {
        let (uncounted, trace) = (uncounted(&publish.audience), publish.trace);
        loop {
            let watched = publish.targets().is_some_and(|uids| uids.len() > TARGETS_MAX);
            let sent = match watched && output::shows_progress() {
                true => self.producer.send_watched(publish.clone()).map(|(at, to)| (Some(at), to)),
                false => self.producer.send(publish.clone()).map(|pending| (None, pending)),
            };
            match sent {
                Err(PublishError::Overloaded { .. }) if !self.flights.is_empty() => {
                    self.answer().await?;
                }
                sent => {
                    if self.flights.is_empty() {
                        self.due = Instant::now() + self.patience;
                    }
                    let (progress, sent) = match sent {
                        Ok((progress, pending)) => (progress, Ok(pending)),
                        Err(error) => (None, Err(error)),
                    };
                    self.flights.push_back(Flight { line, uncounted, trace, sent, progress });
                    return Ok(());
                }
            }
        }
    }

    /// Tells what was answered behind the oldest, and counts what was not.
    fn give_up(&mut self, cause: &str, remedy: &str) -> Failure {
        self.given_up = true;
        let mut in_doubt = 0;
        for mut flight in std::mem::take(&mut self.flights) {
            let outcome = match &mut flight.sent {
                Ok(pending) => pending.now_or_never(),
                Err(error) => Some(Err(error.clone())),
            };
            match outcome.map(|outcome| flight.tell(self.told, &outcome)) {
                Some(Ok(())) => {}
                Some(Err(failure)) => return failure,
                None => in_doubt += 1,
            }
        }
        let (are, they) = match in_doubt {
            0 => {
                return Failure::failed(
                    format_args!("{cause}; no message is in doubt"),
                    "every message that was sent has its receipt; send the rest",
                );
            }
            1 => ("message is", "it"),
            _ => ("messages are", "they"),
        };
        Failure::failed(
            format_args!("{cause}; {in_doubt} {are} in doubt: {they} may or may not be routed"),
            remedy,
        )
    }
}

fn uncounted(audience: &Audience) -> Option<&'static str> {
    match audience {
        Audience::Everyone => Some("to everyone"),
        Audience::Matching(_) => Some("to everyone who matches"),
        Audience::Uids(_) | Audience::UidsMatching(..) => None,
    }
}

/// The next step of what is watched; never, if nothing is.
async fn advanced(watched: &mut Option<watch::Receiver<Progress>>) -> Progress {
    if let Some(progress) = watched
        && progress.changed().await.is_ok()
    {
        return *progress.borrow_and_update();
    }
    std::future::pending().await
}

fn progress_text(progress: Progress) -> String {
    let Progress { parts, answered, sent, offline, dropped, unknown, .. } = progress;
    format!(
        "{answered} of {parts} parts: sent {sent}, offline {offline}, dropped {dropped}, \
         unknown {unknown}"
    )
}

impl Flight {
    fn tell(&self, told: &mut Told, outcome: &told::Outcome) -> Outcome {
        told.tell(self.line, self.uncounted, self.trace.as_ref(), outcome)
    }
}

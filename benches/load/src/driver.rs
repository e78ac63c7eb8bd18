//! What a target is to the engine: a protocol without I/O.

use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::failure::Failure;
use crate::io::{Io, Socket};
use crate::tally::Tally;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience<'a> {
    /// These users, at least one, none of them twice.
    Users(&'a [u64]),
    /// Every gateway.
    Everyone,
}

/// One message to be published.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its number: 0 for the first of a run, then one more each.
    pub number: u64,
    /// Whom it is for.
    pub audience: Audience<'a>,
    /// Index of the prepared group that `audience` is, for drivers that prepare something for it.
    pub group: Option<usize>,
    /// What is delivered, unchanged.
    pub payload: &'a [u8],
}

/// The protocol of one target. Bytes come in, bytes are appended to outputs of [`Io`]; the engine
/// does the rest.
///
/// User `k` has the UID [`uid_of`](crate::work::uid_of)`(k)` and lives on gateway `uid % gateways`.
/// One producer connection; gateways have one each, or what the target needs.
pub trait Driver {
    /// Opens sockets and appends what a handshake begins with.
    ///
    /// # Errors
    /// The server cannot be reached.
    fn connect(&mut self, io: &mut Io) -> Result<(), Failure>;

    /// Bytes came in on a socket: takes whole frames, tells `tally` of deliveries, answers by `io`;
    /// how many bytes it took. What it leaves comes again, with more behind it. The default is for
    /// a driver that opens no socket of [`Io`].
    ///
    /// # Errors
    /// The server said something that ends the run.
    fn received(
        &mut self,
        socket: Socket,
        _bytes: &[u8],
        _io: &mut Io,
        _tally: &mut Tally,
    ) -> Result<usize, Failure> {
        Err(Failure::new(format_args!("nobody reads connection {}", socket.index())))
    }

    /// Handshakes, subscriptions, registrations are confirmed by the server.
    fn is_ready(&self) -> bool;

    /// Called at every turn until ready: appends more of a long set-up where
    /// [`Io::queued`] has become short.
    ///
    /// # Errors
    /// The set-up cannot be done.
    fn set_up(&mut self, _io: &mut Io) -> Result<(), Failure> {
        Ok(())
    }

    /// How many users are set up: all `k` below it are confirmed. Once ready, this is how many the
    /// run has.
    fn users_ready(&self) -> u64;

    /// Time or memory for the set-up is used up: those users have to do that are confirmed, or are
    /// under way. It becomes ready as soon as these are.
    fn stop_set_up(&mut self) {}

    /// Puts one message (or its look-up) into the output of the producer's socket.
    ///
    /// # Errors
    /// The message cannot be written.
    fn publish(&mut self, message: &Message<'_>, io: &mut Io) -> Result<(), Failure>;

    /// End of a batch of publishes: look-ups that wait for company go now.
    fn flush(&mut self, _io: &mut Io) {}

    /// Some ten times a second, for what is due by time.
    fn tick(&mut self, _now: Instant, _io: &mut Io) {}

    /// Once every turn, for a driver that does I/O of its own; whether there was something to do.
    ///
    /// # Errors
    /// As of [`Driver::received`].
    fn turn(&mut self, _clock: &Clock, _tally: &mut Tally) -> Result<bool, Failure> {
        Ok(false)
    }

    /// Waits for I/O of its own, at most so long; whether it did. Others are waited for by the
    /// engine.
    fn wait(&mut self, _at_most: Duration) -> bool {
        false
    }

    /// A run is over and nothing has come for a while: what this driver waited for besides
    /// deliveries and did not get is a fault.
    fn finish(&mut self, _tally: &mut Tally) {}

    /// The server ended a connection. An `Err`, the default, ends the run; `Ok` lets it go on, with
    /// what is lost as a fault.
    ///
    /// # Errors
    /// The run cannot go on without it.
    fn ended(&mut self, socket: Socket, _tally: &mut Tally) -> Result<(), Failure> {
        Err(Failure::new(format_args!("the server closed connection {}", socket.index())))
    }
}

//! Drives one link over its socket, from HELLO to its end: read a batch, hand it over, write a
//! batch. What any of it means is decided in `core.rs`.
//!
//! Each turn sends what there is, hands events out, and waits for the first of: bytes, room for
//! events, commands, the owner's wish to close, a deadline.

use std::io;

use tokio::time::Instant;

use super::{COMMANDS_PER_TURN, Connection, Transport, until};
use crate::link::LinkError;
use crate::machine::Machine;
use crate::outlet::Outlet;

impl<M, O> Connection<M, O>
where
    M: Machine + Send + 'static,
    M::Command: Send,
    M::Event: Send,
    O: Outlet<M::Event> + 'static,
{
    /// Runs the link until it ends; why it did.
    pub(super) async fn pump(&mut self, mut transport: Transport) -> LinkError {
        loop {
            if let Err(error) = self.turn(&mut transport).await {
                // The link is over either way; the ERROR that may be left is a courtesy.
                let _courtesy = transport.write(self.core.rest());
                return self.core.cause(error);
            }
        }
    }

    async fn turn(&mut self, transport: &mut Transport) -> Result<(), LinkError> {
        // Before a PONG says that it was taken in.
        self.flush_events();
        if let Err(error) = self.send(transport) {
            // The broker's reason may have come before its reset.
            self.receive(transport)?;
            return Err(self.core.lost(Some(error)));
        }
        self.flush_events();
        self.advance(transport).await?;
        // A time that was over may have settled something; nothing else need happen for long.
        self.flush_events();
        self.wait(transport).await
    }

    /// Writes until there is nothing to say or the kernel has no room.
    fn send(&mut self, transport: &Transport) -> io::Result<()> {
        loop {
            let output = self.core.output(Instant::now().into_std());
            if output.is_empty() {
                return Ok(());
            }
            match transport.write(output)? {
                0 => return Ok(()),
                count => self.core.written(count),
            }
        }
    }

    /// Whatever is due without anything having come in.
    async fn advance(&mut self, transport: &mut Transport) -> Result<(), LinkError> {
        let now = Instant::now().into_std();
        if self.core.judges_silence(now) {
            // A process that was stopped for a while has not been reading: what lies in the kernel
            // counts before the silence does.
            self.receive(transport)?;
        }
        if self.core.advance(now)? {
            transport.shut().await.map_err(|error| self.core.lost(Some(error)))?;
        }
        Ok(())
    }

    async fn wait(&mut self, transport: &mut Transport) -> Result<(), LinkError> {
        if self.core.is_busy() {
            return Ok(());
        }
        let now = Instant::now().into_std();
        let (reading, writing) = (self.core.set_reading(now), !self.core.rest().is_empty());
        let deadline = self.core.deadline(now).map(Instant::from_std);
        let closing = self.core.close_at().is_some();
        tokio::select! {
            ready = transport.ready(reading, writing) => match ready {
                Ok(ready) if ready.is_readable() || ready.is_read_closed() => {
                    self.receive(transport)
                }
                Ok(_) => Ok(()),
                Err(error) => Err(self.core.lost(Some(error))),
            },
            () = self.outlet.room(), if self.core.is_held() => Ok(()),
            count = self.commands.recv_many(&mut self.taken, COMMANDS_PER_TURN),
                if self.core.wants_commands() =>
            {
                self.take_commands(count);
                Ok(())
            }
            Ok(()) = self.closing.changed(), if !closing => {
                self.begin_close();
                Ok(())
            }
            () = until(deadline) => Ok(()),
        }
    }

    /// Reads once and hands over what came.
    fn receive(&mut self, transport: &mut Transport) -> Result<(), LinkError> {
        match transport.read() {
            Ok(None) => Ok(()),
            Ok(Some([])) => Err(self.core.lost(None)),
            Ok(Some(bytes)) => {
                let handled = self.core.received(Instant::now().into_std(), bytes);
                self.publish_state();
                handled
            }
            Err(error) => Err(self.core.lost(Some(error))),
        }
    }
}

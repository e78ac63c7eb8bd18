//! Where a machine's events go: to the application, which may be slow.
//!
//! The connection offers one event at a time and does not read the socket while one is refused.

use std::future::Future;

use tokio::sync::mpsc;

/// Takes events as long as it has room.
pub(crate) trait Outlet<E>: Send {
    /// Takes the event, or gives it back for lack of room.
    fn offer(&mut self, event: E) -> Result<(), E>;

    /// Waits until an offer may be taken.
    fn room(&mut self) -> impl Future<Output = ()> + Send;

    /// Whether nobody takes events any more.
    fn is_gone(&self) -> bool;
}

/// A bounded queue to a stream.
#[derive(Debug)]
pub(crate) struct Queue<E>(pub(crate) mpsc::Sender<E>);

impl<E: Send> Outlet<E> for Queue<E> {
    fn offer(&mut self, event: E) -> Result<(), E> {
        match self.0.try_send(event) {
            Err(mpsc::error::TrySendError::Full(event)) => Err(event),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }

    async fn room(&mut self) {
        // The slot is given back at once; the task is the only sender, so it stays free.
        let _slot = self.0.reserve().await;
    }

    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

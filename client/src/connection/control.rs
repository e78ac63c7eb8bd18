//! The handles' side of a connection: its state, and the wish to close it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::error::ConnectError;
use crate::link::{LinkError, LinkState};

/// Shared by all handles of a link.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    state: watch::Receiver<LinkState>,
    close: Arc<watch::Sender<bool>>,
}

impl Control {
    pub(crate) fn new(state: watch::Receiver<LinkState>, close: watch::Sender<bool>) -> Self {
        Self { state, close: Arc::new(close) }
    }

    pub(crate) fn state(&self) -> LinkState {
        self.state.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// Whether nothing will be sent on this link any more.
    pub(crate) fn is_over(&self) -> bool {
        let over = matches!(*self.state.borrow(), LinkState::Failed(_) | LinkState::Closed);
        over || *self.close.borrow()
    }

    /// Why it failed for good, if it did.
    pub(crate) fn failure(&self) -> Option<LinkError> {
        match &*self.state.borrow() {
            LinkState::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// Waits for the first WELCOME, until each of `brokers` was tried once; closes on failure.
    pub(crate) async fn opened(&self, brokers: usize) -> Result<(), ConnectError> {
        let mut state = self.watch();
        let decided = state.wait_for(|state| match state {
            LinkState::Connecting => false,
            LinkState::Down { attempts, .. } => *attempts as usize >= brokers,
            LinkState::Open(_) | LinkState::Failed(_) | LinkState::Closed => true,
        });
        let error = match decided.await.as_deref() {
            Ok(LinkState::Open(_)) => return Ok(()),
            Ok(LinkState::Down { reason, .. } | LinkState::Failed(reason)) => reason.clone(),
            Ok(LinkState::Connecting | LinkState::Closed) | Err(_) => LinkError::closed(),
        };
        self.close.send_replace(true);
        Err(ConnectError::Link(error))
    }

    /// Asks the task to end.
    pub(crate) fn begin_close(&self) {
        self.close.send_replace(true);
    }

    /// Asks the task to end and waits for it.
    pub(crate) async fn close(&self) {
        self.close.send_replace(true);
        let mut state = self.watch();
        let over = |state: &LinkState| matches!(state, LinkState::Failed(_) | LinkState::Closed);
        // An error says that the task is gone, which is what was waited for.
        let _over = state.wait_for(over).await;
    }
}

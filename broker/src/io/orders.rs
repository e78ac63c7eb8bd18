//! What a shard is told from outside its thread, and the mail it could not hand over yet: the same
//! for every backend with threads. Never: how a thread is woken.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::debug;

use super::{Input, LinkId, socket};
use crate::limits::FRAMES_PER_INPUT;
use crate::mail::Mail;

/// Orders from outside a shard that may wait for it. Mail beyond it waits with its sender.
pub(crate) const ORDERS_WAITING_MAX: usize = 1024;

/// What a shard is told from outside its thread.
#[derive(Debug)]
pub(crate) enum Order {
    /// Serve this connection.
    Accept(TcpStream),
    /// Go on with a link of another shard ([`Input::Adopted`]).
    Adopt {
        /// Its socket.
        stream: TcpStream,
        /// For that input.
        peer: Option<Arc<str>>,
        /// For that input.
        data: Vec<u8>,
    },
    /// Mail from another shard.
    Mail(Mail),
    /// Let the links leave within that many milliseconds, then end.
    Drain(u32),
}

impl Order {
    /// As how many inputs of a turn it counts.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Mail(Mail::Parcel(parcel)) => parcel.frames().div_ceil(FRAMES_PER_INPUT).max(1),
            _ => 1,
        }
    }

    /// What the brain is told of it. `take_up` sets a connection up and gives it a number, or says
    /// that there is none to be served.
    pub(super) fn into_input(
        self,
        take_up: impl FnOnce(TcpStream) -> Option<LinkId>,
    ) -> Option<Input> {
        match self {
            Self::Accept(stream) => {
                let peer = socket::peer(&stream);
                let link = take_up(stream)?;
                debug!(link = link.0, "link accepted");
                Some(Input::Accepted { link, peer })
            }
            Self::Adopt { stream, peer, data } => {
                let link = take_up(stream)?;
                debug!(link = link.0, "link adopted");
                Some(Input::Adopted { link, peer, data })
            }
            Self::Mail(mail) => Some(Input::Mail(mail)),
            Self::Drain(deadline_ms) => Some(Input::Drain { deadline_ms }),
        }
    }
}

/// Mail and links for other shards, in order for each. Mail is bounded by the outboxes it has
/// reserved room in, and links are.
pub(super) struct Backlog {
    others: Vec<mpsc::Sender<Order>>,
    waiting: Vec<VecDeque<Order>>,
}

impl Backlog {
    /// Nothing waits. `others` are the shards by number, the own one among them.
    pub(super) fn new(others: Vec<mpsc::Sender<Order>>) -> Self {
        let waiting = others.iter().map(|_| VecDeque::new()).collect();
        Self { others, waiting }
    }

    /// Puts an order behind what waits for that shard.
    pub(super) fn push(&mut self, to: u16, order: Order) {
        self.waiting[usize::from(to)].push_back(order);
    }

    /// Where a shard takes orders, for one that need not wait behind others.
    pub(super) fn shard(&self, to: u16) -> mpsc::Sender<Order> {
        self.others[usize::from(to)].clone()
    }

    /// Hands over what the others have room for; tells of mail for a shard that has ended.
    pub(super) fn send(&mut self, mut undeliverable: impl FnMut(&Mail)) {
        for (to, waiting) in self.others.iter().zip(&mut self.waiting) {
            while let Some(order) = waiting.pop_front() {
                match to.try_send(order) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(order)) => {
                        waiting.push_front(order);
                        break;
                    }
                    // That shard has drained: its links are gone, and so is what was for them.
                    Err(mpsc::error::TrySendError::Closed(Order::Mail(mail))) => {
                        undeliverable(&mail);
                    }
                    // It serves nobody: the connection ends.
                    Err(mpsc::error::TrySendError::Closed(_)) => {}
                }
            }
        }
    }

    /// The first shard that something waits for.
    pub(super) fn full(&self) -> Option<&mpsc::Sender<Order>> {
        let mut pairs = self.others.iter().zip(&self.waiting);
        pairs.find(|(_, waiting)| !waiting.is_empty()).map(|(to, _)| to)
    }

    /// Waits until a shard for which something is waiting has room for it.
    pub(super) async fn some_room(&self) {
        match self.full() {
            // An error means that it has drained, which the next attempt finds out as well.
            Some(to) => drop(to.reserve().await),
            None => std::future::pending().await,
        }
    }
}

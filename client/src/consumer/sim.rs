//! The whole consumer as the simulator drives it: the real machine of each link, and the real place
//! where the links meet. Only the tasks between them are left out.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::mpsc;
use waybill_wire::code::Role;

use super::filters::Filters;
use super::machine::{Command, ConsumerMachine};
use super::merge::{Inlet, Merged};
use super::{ConsumerConfig, ConsumerEvent};
use crate::connection::{Identity, LinkCore};
use crate::options::Options;
use crate::outlet::{Queuing, queue};
use crate::sim::Link;

/// A consumer with a link to each of some brokers.
#[derive(Debug)]
pub struct Consumer {
    links: Vec<OneLink>,
    events: Queuing<ConsumerEvent>,
}

#[derive(Debug)]
struct OneLink {
    core: LinkCore<ConsumerMachine>,
    inlet: Inlet,
    answers: mpsc::Receiver<Command>,
}

impl Consumer {
    /// A consumer with this random number of its life, not 0, and a link for each of the options,
    /// which must pass [`Options::check`], as `config` must pass its own. The first options bound
    /// what waits to be taken.
    ///
    /// # Panics
    ///
    /// Without any options, or with a config that [`ConsumerConfig::check`] refuses.
    #[must_use]
    pub fn new(options: &[Options], config: &ConsumerConfig, instance: u64) -> Self {
        let Options { max_in_flight, max_pending_bytes, .. } = options[0];
        let (events, taken) = queue(max_in_flight, max_pending_bytes);
        let filters = Arc::new(Filters::check(&config.filters).expect("checked by the caller"));
        let merged = Merged::default();
        let identity = Identity { role: Role::CONSUMER, instance };
        let link = |(number, options): (u64, &Options)| {
            let (answers, inbox) = mpsc::channel(options.max_in_flight);
            let core = LinkCore::new(
                ConsumerMachine::new(config, Arc::clone(&filters)),
                identity,
                options,
            );
            let (events, merged) = (events.another(), merged.clone());
            OneLink { core, inlet: Inlet { number, events, answers, merged }, answers: inbox }
        };
        Self { links: (1..).zip(options).map(link).collect(), events: taken }
    }

    /// Moves what a link has brought to the application's queue, and answers to the link: `true` if
    /// the link has something to write now.
    pub fn turn(&mut self, now: Instant, link: usize) -> bool {
        let OneLink { core, inlet, answers } = &mut self.links[link];
        while let Some(received) = core.poll_event() {
            if let Err(received) = inlet.offer_at(now, received) {
                core.hold(received);
                break;
            }
        }
        let mut any = false;
        while let Ok(answer) = answers.try_recv() {
            core.command(now, answer);
            any = true;
        }
        any
    }

    /// What the application takes next.
    pub fn poll(&mut self) -> Option<ConsumerEvent> {
        match self.events.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => event,
            Poll::Pending => None,
        }
    }

    /// A link.
    pub fn link(&mut self, link: usize) -> &mut dyn Link {
        &mut self.links[link].core
    }
}

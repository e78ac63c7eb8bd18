//! A newer link of a gateway takes over from an older one: order along a path is kept (promise 2).
//!
//! The older link is written out, or has a second to be; only then the newer one gets messages.

use waybill_wire::code::Kind;

use super::gateway::superseded;
use super::link::{Life, Part};
use super::{Core, Links};
use crate::io::{LinkId, Output};
use crate::limits::LINGER_MS;
use crate::mail::{Mail, Successor};
use crate::shared::Place;

impl Core {
    /// Ends the older link once it is written out; whether the newer one has to wait for that.
    pub(super) fn supersede_at(&mut self, links: &mut Links, older: &Place, newer: LinkId) -> bool {
        let successor = Successor { shard: self.id, link: newer };
        if older.shard == self.id {
            return self.supersede(links, older.link, successor);
        }
        let mail = Mail::Supersede { link: older.link, successor };
        self.outputs.push_back(Output::Mail { to: older.shard, mail });
        true
    }

    fn supersede(&mut self, links: &mut Links, older: LinkId, successor: Successor) -> bool {
        let Some(mut link) = links.remove(&older) else { return false };
        if link.part.life == Life::Open {
            self.dismiss(links, &mut link.part, superseded(Kind(0)), LINGER_MS);
        }
        let waits = link.part.life == Life::Closing;
        if waits {
            link.part.successor = Some(successor);
        }
        links.insert(older, link);
        waits
    }

    pub(super) fn supersede_mailed(
        &mut self,
        links: &mut Links,
        older: LinkId,
        successor: Successor,
    ) {
        if !self.supersede(links, older, successor) {
            self.release_at(links, successor);
        }
    }

    /// The link that is ending has nothing more to write: the one that took over may begin.
    pub(super) fn release_successor(&mut self, links: &mut Links, part: &mut Part) {
        if let Some(successor) = part.successor.take() {
            self.release_at(links, successor);
        }
    }

    fn release_at(&mut self, links: &mut Links, successor: Successor) {
        let Successor { shard, link } = successor;
        if shard == self.id {
            self.release(links, link);
        } else {
            self.outputs.push_back(Output::Mail { to: shard, mail: Mail::Release { link } });
        }
    }

    pub(super) fn release(&mut self, links: &mut Links, newer: LinkId) {
        if let Some(link) = links.get_mut(&newer) {
            link.part.held = false;
            self.touch(&mut link.part);
        }
    }
}

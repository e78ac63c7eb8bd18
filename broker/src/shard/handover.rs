//! A newer link of a gateway takes over from older ones: order along a path is kept (promise 2).
//!
//! An older link is written out, or has a second to be; only then the newer one gets messages.

use std::time::Duration;

use waybill_wire::code::Kind;

use super::gateway::superseded;
use super::link::{Life, Part, RoleState};
use super::{Core, Links};
use crate::io::{LinkId, Output};
use crate::limits::LINGER_MS;
use crate::mail::{Mail, Writer};

impl Core {
    /// The link's slot answers from here on. Older links end once they are written out, and this
    /// one waits for that.
    pub(super) fn take_over(&mut self, links: &mut Links, part: &mut Part) {
        let (incarnation, session) = (part.gateway().incarnation, part.gateway().session);
        let control = self.writer(part);
        let older = self.shared.path_joined(incarnation, control);
        part.path = Some(incarnation);
        part.held = !older.is_empty();
        for data in self.shared.data_links(session) {
            if self.shared.path_joined_by_data(incarnation, control, data) {
                self.release_one(links, data);
            }
        }
        for Writer { shard, link } in older {
            if shard == self.id {
                self.supersede(links, link);
            } else {
                self.outputs.push_back(Output::Mail { to: shard, mail: Mail::Supersede { link } });
            }
        }
    }

    /// Ends an older link: within a second, also where it is ending already (REG-8). A data link
    /// that is not ends with its control link.
    pub(super) fn supersede(&mut self, links: &mut Links, older: LinkId) {
        let Some(mut link) = links.remove(older) else { return };
        let part = &mut link.part;
        if part.life == Life::Open && !matches!(part.role, RoleState::Data(_)) {
            self.dismiss(links, part, superseded(Kind(0)), LINGER_MS);
        } else if part.life == Life::Closing {
            part.linger = part.linger.min(self.now + Duration::from_millis(LINGER_MS));
        }
        links.insert(older, link);
    }

    /// The link has nothing more to write: the one that took over may begin.
    pub(super) fn release_successor(&mut self, links: &mut Links, part: &mut Part) {
        let Some(incarnation) = part.path.take() else { return };
        for next in self.shared.path_left(incarnation, self.writer(part)) {
            self.release_one(links, next);
        }
    }

    fn release_one(&mut self, links: &mut Links, Writer { shard, link }: Writer) {
        if shard == self.id {
            self.release(links, link);
        } else {
            self.outputs.push_back(Output::Mail { to: shard, mail: Mail::Release { link } });
        }
    }

    pub(super) fn release(&mut self, links: &mut Links, newer: LinkId) {
        if let Some(link) = links.find_mut(newer) {
            link.part.held = false;
            self.touch(&mut link.part);
        }
    }

    pub(super) fn writer(&self, part: &Part) -> Writer {
        Writer { shard: self.id, link: part.id }
    }
}

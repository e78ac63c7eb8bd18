//! Which links of each life of a gateway still have something to write, in the order in which they
//! took over from each other. Links of one session, the control link and its data links, write side
//! by side; those of a newer one only when those before it have written all: a path moves only
//! after the old one has drained or died, however many links of that life have come since (promise
//! 2).

use std::collections::BTreeMap;

use super::{Shared, UNPOISONED};
use crate::mail::Writer;

#[derive(Debug, Default)]
pub(super) struct Paths {
    by_incarnation: BTreeMap<u64, Vec<Together>>,
}

/// The links of one session, as long as they write.
#[derive(Debug)]
struct Together {
    control: Writer,
    links: Vec<Writer>,
}

impl Paths {
    fn join(&mut self, incarnation: u64, control: Writer) -> Vec<Writer> {
        let sessions = self.by_incarnation.entry(incarnation).or_default();
        let older = sessions.iter().flat_map(|it| it.links.iter().copied()).collect();
        sessions.push(Together { control, links: vec![control] });
        older
    }

    /// Whether it may write.
    fn join_data(&mut self, incarnation: u64, control: Writer, data: Writer) -> bool {
        let Some(sessions) = self.by_incarnation.get_mut(&incarnation) else { return false };
        let Some(at) = sessions.iter().position(|it| it.control == control) else { return false };
        if !sessions[at].links.contains(&data) {
            sessions[at].links.push(data);
        }
        at == 0
    }

    fn leave(&mut self, incarnation: u64, link: Writer) -> Vec<Writer> {
        let Some(sessions) = self.by_incarnation.get_mut(&incarnation) else { return Vec::new() };
        let first = sessions.first().map(|it| it.control);
        for session in sessions.iter_mut() {
            session.links.retain(|other| *other != link);
        }
        sessions.retain(|session| !session.links.is_empty());
        let Some(next) = sessions.first() else {
            self.by_incarnation.remove(&incarnation);
            return Vec::new();
        };
        if Some(next.control) == first { Vec::new() } else { next.links.clone() }
    }
}

impl Shared {
    /// A control link takes over: those that are written out, or given up, with their data links,
    /// before it may write.
    pub(crate) fn path_joined(&self, incarnation: u64, control: Writer) -> Vec<Writer> {
        self.paths.lock().expect(UNPOISONED).join(incarnation, control)
    }

    /// A data link of that control link: whether it may write. `false` also if the control link has
    /// not taken over; when it does, this is to be said again.
    pub(crate) fn path_joined_by_data(
        &self,
        incarnation: u64,
        control: Writer,
        data: Writer,
    ) -> bool {
        self.paths.lock().expect(UNPOISONED).join_data(incarnation, control, data)
    }

    /// A link has nothing more to write, or has gone: those that may begin now.
    pub(crate) fn path_left(&self, incarnation: u64, link: Writer) -> Vec<Writer> {
        self.paths.lock().expect(UNPOISONED).leave(incarnation, link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::LinkId;

    fn links<const N: usize>() -> [Writer; N] {
        std::array::from_fn(|at| Writer { shard: 0, link: LinkId(at as u64) })
    }

    #[test]
    fn promise_2_only_the_oldest_writes_whichever_ends_between() {
        let [a, b, c] = links();
        let mut paths = Paths::default();
        assert_eq!(paths.join(7, a), []);
        assert_eq!(paths.join(7, b), [a]);
        assert_eq!(paths.leave(7, b), [], "the oldest is still written");
        assert_eq!(paths.join(7, c), [a]);
        assert_eq!(paths.join(8, b), [], "another life");
        assert_eq!(paths.leave(7, a), [c]);
        assert_eq!(paths.leave(7, c), []);
        assert_eq!(paths.leave(8, b), []);
        assert!(paths.by_incarnation.is_empty());
    }

    #[test]
    fn promise_2_data_links_write_beside_their_control_link_and_after_those_of_an_older_session() {
        let [a, of_a, b, of_b, more_of_b] = links();
        let mut paths = Paths::default();
        assert!(!paths.join_data(7, a, of_a), "its session has nothing in effect");
        assert_eq!(paths.join(7, a), []);
        assert!(paths.join_data(7, a, of_a) && paths.join_data(7, a, of_a));
        assert_eq!(paths.join(7, b), [a, of_a]);
        assert!(!paths.join_data(7, b, of_b));
        assert_eq!(paths.leave(7, a), [], "its data link still writes");
        assert_eq!(paths.leave(7, of_a), [b, of_b]);
        assert!(paths.join_data(7, b, more_of_b));
        assert_eq!(paths.leave(7, of_b), []);
        assert_eq!(paths.leave(7, b), []);
        assert_eq!(paths.leave(7, more_of_b), []);
        assert!(paths.by_incarnation.is_empty());
    }
}

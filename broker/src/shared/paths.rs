//! Which links of each life of a gateway still have something to write, in the order in which they
//! took over from each other. Only the first of them writes messages: a path moves only after the
//! old one has drained or died, however many links of that life have come since (promise 2).

use std::collections::BTreeMap;

use super::{Shared, UNPOISONED};
use crate::mail::Writer;

#[derive(Debug, Default)]
pub(super) struct Paths {
    by_incarnation: BTreeMap<u64, Vec<Writer>>,
}

impl Paths {
    fn join(&mut self, incarnation: u64, link: Writer) -> Vec<Writer> {
        let links = self.by_incarnation.entry(incarnation).or_default();
        let older = links.clone();
        links.push(link);
        older
    }

    fn leave(&mut self, incarnation: u64, link: Writer) -> Option<Writer> {
        let links = self.by_incarnation.get_mut(&incarnation)?;
        let was_first = links.first() == Some(&link);
        links.retain(|other| *other != link);
        let first = links.first().copied();
        if first.is_none() {
            self.by_incarnation.remove(&incarnation);
        }
        first.filter(|_| was_first)
    }
}

impl Shared {
    /// A link takes over: those that are written out, or given up, before it may write.
    pub(crate) fn path_joined(&self, incarnation: u64, link: Writer) -> Vec<Writer> {
        self.paths.lock().expect(UNPOISONED).join(incarnation, link)
    }

    /// A link has nothing more to write, or has gone: the one that may begin now.
    pub(crate) fn path_left(&self, incarnation: u64, link: Writer) -> Option<Writer> {
        self.paths.lock().expect(UNPOISONED).leave(incarnation, link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::LinkId;

    #[test]
    fn promise_2_only_the_oldest_writes_whichever_ends_between() {
        let [a, b, c] = [1, 2, 3].map(|link| Writer { shard: 0, link: LinkId(link) });
        let mut paths = Paths::default();
        assert_eq!(paths.join(7, a), []);
        assert_eq!(paths.join(7, b), [a]);
        assert_eq!(paths.leave(7, b), None, "the oldest is still written");
        assert_eq!(paths.join(7, c), [a]);
        assert_eq!(paths.join(8, b), [], "another life");
        assert_eq!(paths.leave(7, a), Some(c));
        assert_eq!(paths.leave(7, c), None);
        assert_eq!(paths.leave(8, b), None);
        assert!(paths.by_incarnation.is_empty());
    }
}

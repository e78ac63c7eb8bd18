//! A list of UIDs grouped by gateway, for layouts that only look up: count, place, fill.

/// Working space; everything is zero between two lists.
#[derive(Default)]
pub(crate) struct Groups {
    found: Vec<(u64, u16)>,
    counts: Vec<u32>,
    targets: Vec<u64>,
}

impl Groups {
    /// Looks each up and writes the groups; how many were found.
    pub(crate) fn list(&mut self, uids: &[u64], mut find: impl FnMut(u64) -> Option<u16>) -> usize {
        self.found.clear();
        for uid in uids {
            if let Some(slot) = find(*uid) {
                self.found.push((*uid, slot));
                let at = usize::from(slot);
                if self.counts.len() <= at {
                    self.counts.resize(at + 1, 0);
                }
                self.counts[at] += 1;
            }
        }
        if let [(uid, slot)] = self.found[..] {
            self.counts[usize::from(slot)] = 0;
            std::hint::black_box(uid);
            return 1;
        }
        self.targets.resize(self.found.len(), 0);
        let mut start = 0;
        for count in &mut self.counts {
            (*count, start) = (start, start + *count);
        }
        for (uid, slot) in &self.found {
            let next = &mut self.counts[usize::from(*slot)];
            self.targets[*next as usize] = *uid;
            *next += 1;
        }
        self.counts.fill(0);
        std::hint::black_box(&self.targets);
        self.found.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_that_is_found_is_in_its_group_in_the_order_of_the_list() {
        let mut groups = Groups::default();
        let find = |uid: u64| (uid != 5).then_some((uid % 3) as u16);
        for _ in 0..2 {
            assert_eq!(groups.list(&[9, 5, 4, 3, 1], find), 4);
            assert_eq!(groups.targets, [9, 3, 4, 1]);
        }
        assert_eq!(groups.list(&[5], find), 0);
        assert_eq!(groups.list(&[7], find), 1);
        assert!(groups.counts.iter().all(|count| *count == 0));
    }
}

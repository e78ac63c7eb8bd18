//! One message to each of many users: whether it came on the right user's WebSocket, once.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::tally::{Fault, fault};
use crate::work::uid_of;

/// What is expected on the WebSockets of a run, and what came.
#[derive(Debug)]
pub(super) struct Mail {
    asked: BTreeSet<u64>,
    open: BTreeSet<u64>,
    faults: BTreeMap<&'static str, (u64, String)>,
}

impl Mail {
    /// A message to each of these users by their `k`, whose text is the user's UID.
    pub(super) fn to(users: impl Iterator<Item = u64>) -> Self {
        let asked: BTreeSet<u64> = users.collect();
        Self { open: asked.clone(), asked, faults: BTreeMap::new() }
    }

    /// Whether some have not come.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// User `k` was told this.
    pub(super) fn arrived(&mut self, k: u64, text: &str) {
        let said: Value = serde_json::from_str(text).unwrap_or_default();
        let uid = uid_of(k);
        let message = said["data"].as_str().filter(|_| said["type"] == "message");
        match message.and_then(|data| data.parse::<u64>().ok()) {
            Some(for_uid) if for_uid != uid => {
                self.fault(fault::WRONG_UID, format!("what is for user {for_uid} at user {uid}"));
            }
            Some(_) if self.open.remove(&k) => {}
            Some(_) if self.asked.contains(&k) => {
                self.fault(fault::DUPLICATE, format!("the message to user {uid}"));
            }
            _ => self.fault(fault::UNKNOWN, format!("user {uid} is told {text}")),
        }
    }

    /// Something else is wrong.
    pub(super) fn fault(&mut self, name: &'static str, example: String) {
        self.faults.entry(name).or_insert((0, example)).0 += 1;
    }

    /// No more will come; all that is wrong, by name.
    pub(super) fn end(mut self) -> Vec<Fault> {
        for k in std::mem::take(&mut self.open) {
            self.fault(fault::LOST, format!("the message to user {}", uid_of(k)));
        }
        let fault =
            |(name, (count, example)): (&str, _)| Fault { name: name.into(), count, example };
        self.faults.into_iter().map(fault).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong when these users are told these UIDs, of three users.
    fn faults(told: &[(u64, u64)]) -> Vec<(String, u64)> {
        let mut mail = Mail::to(0..3);
        for (k, of) in told {
            let uid = uid_of(*of);
            mail.arrived(*k, &format!(r#"{{"type":"message","id":"0-1","data":"{uid}"}}"#));
        }
        mail.end().into_iter().map(|fault| (fault.name, fault.count)).collect()
    }

    fn named(names: &[&str]) -> Vec<(String, u64)> {
        names.iter().map(|name| (name.to_string(), 1)).collect()
    }

    #[test]
    fn a_message_to_each_user_once_is_right() {
        assert_eq!(faults(&[(2, 2), (0, 0), (1, 1)]), []);
    }

    #[test]
    fn what_is_lost_doubled_or_at_another_user_is_named() {
        assert_eq!(faults(&[(0, 0), (1, 1)]), named(&[fault::LOST]));
        assert_eq!(faults(&[(0, 0), (1, 1), (1, 1), (2, 2)]), named(&[fault::DUPLICATE]));
        assert_eq!(faults(&[(0, 0), (1, 1), (0, 2)]), named(&[fault::LOST, fault::WRONG_UID]));
    }

    #[test]
    fn what_nobody_published_is_unknown() {
        let mut mail = Mail::to(0..1);
        mail.arrived(0, r#"{"type":"message","id":"0-1","data":"hello"}"#);
        mail.arrived(0, r#"{"type":"drain","reconnect_after_ms":5}"#);
        mail.arrived(0, &format!(r#"{{"type":"message","id":"0-1","data":"{}"}}"#, uid_of(0)));
        let found = mail.end();
        assert_eq!((found.len(), &*found[0].name, found[0].count), (1, fault::UNKNOWN, 2));
    }
}

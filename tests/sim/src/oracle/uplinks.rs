//! What must be true of what users send.

use std::collections::{BTreeMap, BTreeSet};

use waybill_client::ErrorCode;

use super::Stay;
use crate::scenario::SECOND;

/// Time within which every uplink is answered, by a consumer or by the gateway that waited.
const ANSWER: u64 = 10 * SECOND;

#[derive(Debug)]
struct Uplink {
    socket: usize,
    who: (u32, u64),
    at: u64,
    told: Option<ErrorCode>,
    answers: BTreeSet<u16>,
}

#[derive(Debug, Default)]
pub(super) struct Uplinks {
    all: Vec<Uplink>,
    by_id: BTreeMap<(usize, u32), usize>,
    /// By consumer and its life.
    handed: BTreeSet<((usize, u64), usize)>,
    last: BTreeMap<((usize, u64), usize), usize>,
}

impl Uplinks {
    pub(super) fn sent(&mut self, socket: usize, id: u32, who: (u32, u64), at: u64) -> u64 {
        let number = self.all.len();
        self.by_id.insert((socket, id), number);
        self.all.push(Uplink { socket, who, at, told: None, answers: BTreeSet::new() });
        number as u64
    }

    pub(super) fn told(&mut self, socket: usize, id: u32, code: ErrorCode) {
        let number = *self.by_id.get(&(socket, id)).expect("an answer to what was sent");
        let uplink = &mut self.all[number];
        assert_eq!(uplink.told.replace(code), None, "uplink {number} is answered twice");
        let accepted = code != ErrorCode(0) || uplink.answers.contains(&0);
        assert!(accepted, "promise 5: uplink {number} was sent, and no consumer took it");
    }

    pub(super) fn handed(&mut self, consumer: (usize, u64), number: u64, who: (u32, u64)) {
        let number = usize::try_from(number).expect("a number of an uplink");
        let uplink = &self.all[number];
        assert_eq!(uplink.who, who, "promise 1: uplink {number} is somebody else's");
        let once = self.handed.insert((consumer, number));
        assert!(once, "promise 3: consumer {consumer:?} got uplink {number} twice");
        let before = self.last.insert((consumer, uplink.socket), number);
        let in_order = before.is_none_or(|before| before < number);
        assert!(in_order, "promise 2: uplink {number} after {before:?} at {consumer:?}");
    }

    pub(super) fn answered(&mut self, number: u64, code: ErrorCode) {
        let number = usize::try_from(number).expect("a number of an uplink");
        self.all[number].answers.insert(code.0);
    }

    pub(super) fn all_answered(&self, stays: &[Stay], now: u64) {
        for (number, uplink) in self.all.iter().enumerate() {
            let stay = &stays[uplink.socket];
            let due = uplink.at + ANSWER < now && stay.sure.is_some_and(|span| span.to.is_none());
            assert!(!due || uplink.told.is_some(), "liveness: no answer to uplink {number}");
        }
    }
}

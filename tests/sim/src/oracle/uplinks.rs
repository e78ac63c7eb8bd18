//! What must be true of what users send.

use std::collections::{BTreeMap, BTreeSet};

use waybill_client::ErrorCode;

use super::Stay;
use crate::scenario::SECOND;

/// Time within which every uplink is answered, by a consumer or by the gateway that waited.
const ANSWER: u64 = 10 * SECOND;

/// Time after which a gateway gives one up, by its own clock.
const GIVEN_UP: u64 = 4 * SECOND;

#[derive(Debug)]
struct Uplink {
    socket: usize,
    who: (u32, u64),
    at: u64,
    told: Option<ErrorCode>,
    /// Time by its gateway's clock, and links that its gateway had lost, when it was sent.
    local: u64,
    losses: u64,
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
    pub(super) fn sent(&mut self, socket: usize, id: u32, who: (u32, u64), at: [u64; 3]) -> u64 {
        let number = self.all.len();
        self.by_id.insert((socket, id), number);
        let ([at, local, losses], answers) = (at, BTreeSet::new());
        self.all.push(Uplink { socket, who, at, told: None, local, losses, answers });
        number as u64
    }

    pub(super) fn told(&mut self, socket: usize, id: u32, code: ErrorCode) {
        let number = *self.by_id.get(&(socket, id)).expect("an answer to what was sent");
        let uplink = &mut self.all[number];
        assert_eq!(uplink.told.replace(code), None, "uplink {number} is answered twice");
        let accepted = code != ErrorCode(0) || uplink.answers.contains(&0);
        assert!(accepted, "promise 5: uplink {number} was sent, and no consumer took it");
    }

    /// The connection it came by.
    pub(super) fn socket_of(&self, number: u64) -> usize {
        self.all[usize::try_from(number).expect("a number of an uplink")].socket
    }

    /// `local` and `losses` as they are now at its gateway.
    pub(super) fn handed(
        &mut self,
        consumer: (usize, u64),
        number: u64,
        who: (u32, u64),
        [local, losses]: [u64; 2],
    ) {
        let number = usize::try_from(number).expect("a number of an uplink");
        let uplink = &self.all[number];
        assert_eq!(uplink.who, who, "promise 1: uplink {number} is somebody else's");
        let once = self.handed.insert((consumer, number));
        assert!(once, "promise 3: consumer {consumer:?} got uplink {number} twice");
        let before = self.last.insert((consumer, uplink.socket), number);
        // What its gateway has given up, or its user was told of, is over: what is left of it on
        // the way may be passed by what came after it.
        let given_up = local >= uplink.local + GIVEN_UP || losses >= uplink.losses + 2;
        let is_over = uplink.told.is_some() || given_up;
        let in_order = before.is_none_or(|before| before < number) || is_over;
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

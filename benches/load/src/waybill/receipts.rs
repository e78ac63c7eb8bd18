//! Whether every message was answered: one receipt each, that says of it what is so.

use std::collections::VecDeque;

use waybill_wire::code::{ErrorCode, Level};
use waybill_wire::frame::Receipt;

use crate::driver::{Audience, Message};
use crate::tally::{Tally, fault};
use crate::work::gateway_of;

/// What a receipt has to say of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    sent: u32,
    gateways: u32,
}

/// The receipts of one run.
#[derive(Debug)]
pub(super) struct Answers {
    gateways: usize,
    /// Number of the first of `open`.
    base: u64,
    /// Messages from `base` on; `None` once answered.
    open: VecDeque<Option<Expected>>,
    /// Gateways of each prepared group that was published.
    of_group: Vec<Option<u32>>,
}

impl Answers {
    /// Nothing is published yet, to so many gateways.
    pub(super) fn new(gateways: usize) -> Self {
        Self { gateways, base: 0, open: VecDeque::new(), of_group: Vec::new() }
    }

    /// A message goes out that asks for a receipt.
    pub(super) fn published(&mut self, message: &Message<'_>) {
        if self.open.is_empty() {
            self.base = message.number;
        }
        let expected = self.expected(message);
        self.open.push_back(Some(expected));
    }

    fn expected(&mut self, message: &Message<'_>) -> Expected {
        let whole = |count: usize| u32::try_from(count).expect("fewer than 2^32 of them");
        let Audience::Users(uids) = message.audience else {
            return Expected { sent: 0, gateways: whole(self.gateways) };
        };
        let sent = whole(uids.len());
        let (Some(index), 2..) = (message.group, sent) else {
            return Expected { sent, gateways: self.spread(uids) };
        };
        if self.of_group.len() <= index {
            self.of_group.resize(index + 1, None);
        }
        let known = self.of_group[index];
        let gateways = known.unwrap_or_else(|| self.spread(uids));
        self.of_group[index] = Some(gateways);
        Expected { sent, gateways }
    }

    /// How many gateways these users are on.
    fn spread(&self, uids: &[u64]) -> u32 {
        let bit = |uid: &u64| 1_u64 << gateway_of(*uid, self.gateways);
        uids.iter().map(bit).fold(0, |all, bit| all | bit).count_ones()
    }

    /// A receipt came.
    pub(super) fn received(&mut self, receipt: &Receipt<'_>, tally: &mut Tally) {
        let number = receipt.sequence - 1;
        let next = self.base + self.open.len() as u64;
        if number >= next {
            let words = format_args!("a receipt of message {number}, of {next} that asked for one");
            return tally.fault(fault::UNKNOWN, words);
        }
        let place = number.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        let Some(expected) = place.and_then(|at| self.open[at].take()) else {
            let words = format_args!("the receipt of message {number}");
            return tally.fault(fault::DUPLICATE, words);
        };
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.base += 1;
        }
        if receipt.code != ErrorCode(0) {
            let words = format_args!("message {number}: {}", receipt.code);
            return tally.fault(fault::REFUSED, words);
        }
        let said = Expected { sent: receipt.sent, gateways: receipt.gateways };
        let others = [receipt.offline, receipt.unknown, receipt.filtered, receipt.dropped];
        let whole = receipt.last && receipt.stage == Level::ROUTED;
        if said != expected || others != [0; 4] || !whole {
            let words =
                format_args!("the receipt of message {number}: {receipt:?}, not {expected:?}");
            tally.fault(fault::DAMAGED, words);
        }
    }

    /// No more will come: what is open was never answered.
    pub(super) fn end(&mut self, tally: &mut Tally) {
        for (number, open) in (self.base..).zip(self.open.drain(..)) {
            if open.is_some() {
                tally.fault(fault::LOST, format_args!("the receipt of message {number}"));
            }
            self.base = number + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::tally::Fault;
    use crate::work::{Work, WorkPlan, uid_of};

    const WORK: WorkPlan = WorkPlan::single(10, 4);

    fn right(sequence: u64, (sent, gateways): (u32, u32)) -> Receipt<'static> {
        let stage = Level::ROUTED;
        Receipt { last: true, stage, sequence, sent, gateways, ..Receipt::default() }
    }

    /// What is wrong after a message to one user, one to three on two gateways, and one to all,
    /// whose receipts `change` may spoil.
    fn faults(change: impl FnOnce(&mut Vec<Receipt<'_>>)) -> Vec<Fault> {
        let mut answers = Answers::new(WORK.gateways);
        let mut tally = Tally::new(Rc::new(Work::new(WORK)));
        let (one, some) = ([uid_of(3)], [0, 4, 1].map(uid_of));
        let audiences = [
            Audience::Users(&one),
            Audience::Users(&some),
            Audience::Everyone,
            Audience::Users(&some),
        ];
        for (number, audience) in (0..).zip(audiences) {
            let group = (number % 2 == 1).then_some(0);
            answers.published(&Message { number, audience, group, payload: &[] });
        }
        let told = [(1, 1), (3, 2), (0, 4), (3, 2)];
        let mut receipts = (1..).zip(told).map(|(number, told)| right(number, told)).collect();
        change(&mut receipts);
        receipts.iter().for_each(|receipt| answers.received(receipt, &mut tally));
        answers.end(&mut tally);
        tally.end()
    }

    fn only(faults: &[Fault], name: &str, words: &str) {
        let [fault] = faults else { panic!("{name} alone, not {faults:?}") };
        assert_eq!((&*fault.name, fault.count), (name, 1));
        assert!(fault.example.contains(words), "{fault:?}");
    }

    #[test]
    fn nothing_is_wrong_with_one_right_receipt_each_in_any_order() {
        assert_eq!(faults(|_| ()), []);
        assert_eq!(faults(|receipts| receipts.reverse()), []);
    }

    #[test]
    fn a_receipt_that_is_missing_is_lost() {
        for at in 0..4 {
            let found = faults(|receipts| receipts.retain(|it| it.sequence != at + 1));
            only(&found, fault::LOST, &format!("the receipt of message {at}"));
        }
    }

    #[test]
    fn a_second_receipt_is_a_duplicate() {
        for at in 0..4 {
            let found = faults(|receipts| receipts.push(receipts[at]));
            only(&found, fault::DUPLICATE, &format!("the receipt of message {at}"));
        }
    }

    #[test]
    fn a_receipt_that_counts_wrong_is_damaged() {
        let spoils: [fn(&mut Receipt<'_>); 6] = [
            |receipt| receipt.sent += 1,
            |receipt| receipt.gateways -= 1,
            |receipt| receipt.offline = 1,
            |receipt| receipt.dropped = 1,
            |receipt| receipt.last = false,
            |receipt| receipt.stage = Level::DELIVERED,
        ];
        for (at, spoil) in (0..).map(|at| at % 4).zip(spoils) {
            let found = faults(|receipts| spoil(&mut receipts[at]));
            only(&found, fault::DAMAGED, &format!("the receipt of message {at}"));
        }
    }

    #[test]
    fn a_receipt_of_what_was_not_published_is_unknown_and_a_refusal_is_named() {
        let found = faults(|receipts| receipts.push(right(5, (1, 1))));
        only(&found, fault::UNKNOWN, "message 4");
        let found = faults(|receipts| receipts[0].code = ErrorCode(1));
        only(&found, fault::REFUSED, "message 0");
    }
}

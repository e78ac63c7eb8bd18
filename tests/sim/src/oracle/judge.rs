//! Judging receipts when they come, and messages once all is over.

use std::collections::BTreeSet;

use waybill_client::Receipt;

use super::{GRACE, LET_GO, Message, Oracle, PROMPT, Span, Stay, Verdict};

impl Oracle {
    /// Promise 5 within one receipt: each distinct target counts once, and the excepted ones are
    /// named as such.
    pub(super) fn judge_receipt(&self, number: u64) {
        let message = self.message(number);
        let Some((_, Verdict { receipt: Some(receipt), .. })) = &message.settled else { return };
        let Some(targets) = &message.targets else { return };
        if receipt.in_doubt || !message.receipted || (message.delivered && !message.list) {
            return;
        }
        let distinct: BTreeSet<u64> = targets.iter().copied().collect();
        let named = named(receipt);
        let sum = receipt.sent as usize + receipt.unknown_count as usize + named.len();
        assert_eq!(sum, distinct.len(), "promise 5: {number}: {message:?}");
        let mut once = BTreeSet::new();
        for uid in named {
            assert!(distinct.contains(&uid), "promise 1: {uid} was not asked for: {message:?}");
            assert!(once.insert(uid), "promise 5: {uid} counts twice: {message:?}");
        }
        for uid in &receipt.filtered {
            assert!(message.except.contains(uid), "promise 5: {uid} is no exception: {message:?}");
        }
    }

    /// Promise 5: who counts as reached was.
    fn judge_delivered(&self, number: u64, message: &Message) {
        let Some((_, Verdict { receipt: Some(receipt), .. })) = &message.settled else { return };
        // What was sent again counts as reached if the first copy was queued, read or not.
        if !message.delivered || !message.list || receipt.in_doubt || message.resent {
            return;
        }
        let named: BTreeSet<u64> = named(receipt).into_iter().collect();
        for uid in message.targets.iter().flatten() {
            let who = (message.namespace, *uid);
            let mut stays = self.stays.iter().filter(|stay| stay.who == who);
            let got = stays.any(|stay| stay.got.contains_key(&number));
            let reached = !named.contains(uid) && !receipt.unknown.contains(uid);
            assert!(got || !reached, "promise 5: {uid} was not reached: {number}: {message:?}");
        }
    }

    fn link_spans(&self, gateway: usize, broker: usize) -> impl Iterator<Item = &Span> {
        self.links.get(&(gateway, broker)).into_iter().flatten()
    }

    /// Whether this connection was, for all of this time, one that the broker must have known.
    fn was_here(&self, stay: &Stay, broker: usize, from: u64, to: u64) -> bool {
        let since = stay.known.get(&broker).and_then(|(_, since)| *since);
        stay.sure.is_some_and(|span| span.covers(from, to))
            && since.is_some_and(|since| since <= from)
            && self.link_spans(stay.gateway, broker).any(|span| span.covers(from, to))
    }

    /// Everything that can be told only at the end.
    ///
    /// # Panics
    ///
    /// When a promise was broken.
    pub(crate) fn judge(&self) {
        for (number, message) in self.messages.iter().enumerate() {
            self.judge_message(number as u64, message);
            self.judge_delivered(number as u64, message);
            self.judge_receipt_prompt(number, message);
        }
    }

    /// Promise 6: where nothing is disturbed it comes soon, whatever stalls elsewhere.
    fn judge_prompt(&self, message: &Message, stay: &Stay, got: u64, pipe: usize, broker: usize) {
        let (from, due) = (message.transmitted_at, message.transmitted_at + GRACE);
        let calm = self.disturbed.get(&pipe).is_none_or(|since| *since > due);
        let late = got > due && calm && self.was_here(stay, broker, message.at, due);
        assert!(!late, "promise 6: sent at {from}, came at {got}: {message:?} {stay:?}");
    }

    /// Promise 6: a receipt is not kept back either.
    fn judge_receipt_prompt(&self, number: usize, message: &Message) {
        let ([(pipe, _)], Some((at, _))) = (&message.transmitted[..], &message.settled) else {
            return;
        };
        let due = message.transmitted_at + PROMPT;
        let calm = self.disturbed.get(pipe).is_none_or(|since| *since > due);
        let late = !message.delivered && calm && *at > due;
        assert!(!late, "promise 6: the receipt of {number} came late: {message:?}");
    }

    fn judge_message(&self, number: u64, message: &Message) {
        let [(pipe, broker)] = message.transmitted[..] else { return };
        let settled = message.settled.as_ref();
        let Some((at, Verdict { receipt: Some(receipt), .. })) = settled else { return };
        for (socket, stay) in self.stays.iter().enumerate() {
            if !message.is_for(stay.who) {
                continue;
            }
            let uid = stay.who.1;
            let about = (number, socket, stay.who, stay.gateway, broker);
            if receipt.offline.contains(&uid) {
                let there = self.was_here(stay, broker, message.at, at + LET_GO);
                assert!(!there, "promise 8: reported offline: {about:?} {message:?} {stay:?}");
                continue;
            }
            if let Some(got_at) = stay.got.get(&number) {
                self.judge_prompt(message, stay, *got_at, pipe, broker);
                continue;
            }
            if receipt.in_doubt || message.expires {
                continue;
            }
            let excused = receipt.unknown.contains(&uid) && message.list
                || receipt.dropped.iter().any(|it| it.uids.contains(&uid));
            let unreceipted = !message.receipted || message.targets.is_none() || !message.list;
            let late = self.disturbed.get(&pipe).is_some_and(|since| *since < at + GRACE);
            let silent = unreceipted && (late || self.tight);
            // A user at two gateways counts as sent if one of them has room.
            let elsewhere = |it: &Stay| it.who == stay.who && it.gateway != stay.gateway;
            let halved = self.tight && self.stays.iter().any(elsewhere);
            if excused || silent || halved {
                continue;
            }
            let there = self.was_here(stay, broker, message.at, at + GRACE);
            assert!(!there, "promises 5 and 6: {about:?} did not come: {message:?} {stay:?}");
        }
    }
}

/// Targets that a receipt names, in any role.
fn named(receipt: &Receipt) -> Vec<u64> {
    let dropped = receipt.dropped.iter().flat_map(|it| &it.uids);
    receipt.offline.iter().chain(&receipt.filtered).chain(dropped).copied().collect()
}

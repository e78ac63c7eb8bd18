//! Judging receipts when they come, and messages once all is over.

use waybill_client::Receipt;

use super::{GRACE, HANDOVER, LET_GO, Message, Oracle, PROMPT, Part, Span, Stay, Verdict};

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
        let mut named = named(receipt);
        let sum = receipt.sent as usize + receipt.unknown_count as usize + named.len();
        assert_eq!(sum, targets.len(), "promise 5: {number}: {message:?}");
        named.sort();
        for pair in named.windows(2) {
            assert!(pair[0] < pair[1], "promise 5: {} counts twice: {message:?}", pair[0]);
        }
        for uid in named {
            let asked = message.place(uid).is_some();
            assert!(asked, "promise 1: {uid} was not asked for: {message:?}");
        }
        for uid in &receipt.filtered {
            let asked = message.except.contains(uid) || message.wish.is_some();
            assert!(asked, "promise 5: {uid} is no exception: {message:?}");
        }
    }

    /// Promise 5: who counts as reached was, and who counts as passed over was not; also where a
    /// message was sent again, and of each part of a list.
    fn judge_reached(&self, number: u64, message: &Message) {
        let Some((_, Verdict { receipt: Some(receipt), .. })) = &message.settled else { return };
        if !message.receipted || !message.list {
            return;
        }
        let (mut named, mut unknown) = (named(receipt), receipt.unknown.clone());
        named.sort();
        unknown.sort();
        let got = |uid| {
            let who = (message.namespace, uid);
            let mut stays = self.stays.iter().filter(|stay| stay.who == who);
            stays.any(|stay| stay.got.contains_key(&number))
        };
        for uid in message.uids() {
            if named.binary_search(&uid).is_ok() {
                // Of a message that was sent again, the last broker may not know the gateway that
                // an earlier copy went to.
                let passed_over = message.part_for(uid).resent || !got(uid);
                assert!(passed_over, "promise 5: {uid} got {number}: {message:?}");
            } else if message.delivered && unknown.binary_search(&uid).is_err() {
                assert!(got(uid), "promise 5: {uid} was not reached: {number}: {message:?}");
            }
        }
    }

    fn link_spans(&self, gateway: usize, broker: usize) -> impl Iterator<Item = &Span> {
        self.links.get(&(gateway, broker)).into_iter().flatten()
    }

    /// Whether this connection was, for all of this time, one that the broker must have known.
    pub(super) fn was_here(&self, stay: &Stay, broker: usize, from: u64, to: u64) -> bool {
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
            self.judge_reached(number as u64, message);
            self.judge_receipt_prompt(number, message);
        }
        self.judge_taggings();
    }

    /// Promise 6: where nothing is disturbed it comes soon, whatever stalls elsewhere.
    fn judge_prompt(&self, message: &Message, stay: &Stay, got: u64, part: &Part) {
        let Some((pipe, broker)) = part.once() else { return };
        let (from, due) = (part.at, part.at + GRACE);
        let calm = self.disturbed.get(&pipe).is_none_or(|since| *since > due);
        let late = got > due && calm && self.was_here(stay, broker, message.at, due);
        assert!(!late, "promise 6: sent at {from}, came at {got}: {message:?} {stay:?}");
    }

    /// Promise 6: a receipt is not kept back either.
    fn judge_receipt_prompt(&self, number: usize, message: &Message) {
        let Some((at, _)) = message.settled.as_ref().filter(|_| !message.delivered) else { return };
        let due = message.parts.iter().map(|part| part.at + PROMPT).max().unwrap_or(0);
        let calm = |part: &Part| {
            let since = part.once().map(|(pipe, _)| self.disturbed.get(&pipe));
            since.is_some_and(|since| since.is_none_or(|since| *since > due))
        };
        let late = *at > due && message.parts.iter().all(calm);
        assert!(!late, "promise 6: the receipt of {number} came late: {message:?}");
    }

    /// Whether it may have left an outbox unwritten after it was queued, of which only a receipt of
    /// stage `delivered` tells.
    fn may_be_gone(&self, number: u64, message: &Message) -> bool {
        let like = |it: &Message| {
            (it.namespace, it.conflate, it.priority)
                == (message.namespace, message.conflate, message.priority)
        };
        // By when they come to the broker, not by when they were made: one may have waited for a
        // link. One that was settled long before this was transmitted came before it.
        let since = message.parts.iter().map(|part| part.at).min().unwrap_or(0);
        let is_past = |(at, _): &(u64, Verdict)| at + PROMPT < since;
        let may_come_later = |it: &Message| !it.settled.as_ref().is_some_and(is_past);
        let others = self.messages.iter().zip(0..).filter(|(_, other)| *other != number);
        let mut others = others.map(|(it, _)| it);
        let conflated =
            message.conflate.is_some() && others.any(|it| like(it) && may_come_later(it));
        conflated || (self.drops_oldest && self.tight)
    }

    /// Whether it may have been dropped as too old while the gateway's link waited for an older one
    /// to be written out: as long as that may take, messages may not wait at all.
    fn may_be_aged(&self, gateway: usize, broker: usize, at: u64) -> bool {
        let is_new = |span: &Span| (span.from..span.from + HANDOVER).contains(&at);
        self.drops_soon && self.link_spans(gateway, broker).any(is_new)
    }

    fn judge_message(&self, number: u64, message: &Message) {
        let settled = message.settled.as_ref();
        let Some((at, Verdict { receipt: Some(receipt), .. })) = settled else { return };
        for (socket, stay) in self.stays.iter().enumerate() {
            if !message.is_for(stay.who) {
                continue;
            }
            let uid = stay.who.1;
            let part = message.part_for(uid);
            let Some((pipe, broker)) = part.once() else { continue };
            let about = (number, socket, stay.who, stay.gateway, broker);
            if receipt.offline.contains(&uid) {
                let there = self.was_here(stay, broker, message.at, at + LET_GO);
                assert!(!there, "promise 8: reported offline: {about:?} {message:?} {stay:?}");
                continue;
            }
            let span = (message.at, at + GRACE);
            if self.matches(message, stay, span, Some(broker)) != Some(true) {
                continue;
            }
            if let Some(got_at) = stay.got.get(&number) {
                self.judge_prompt(message, stay, *got_at, part);
                continue;
            }
            if (receipt.in_doubt && !message.list) || message.expires {
                continue;
            }
            let excused = receipt.unknown.contains(&uid) && message.list
                || receipt.dropped.iter().any(|it| it.uids.contains(&uid));
            let unreceipted = !message.receipted || message.targets.is_none() || !message.list;
            let late = self.disturbed.get(&pipe).is_some_and(|since| *since < at + GRACE);
            let silent = unreceipted && (late || self.tight);
            // A user at two gateways counts as sent if one of them has room.
            let elsewhere = |it: &Stay| it.who == stay.who && it.gateway != stay.gateway;
            let elsewhere = self.stays.iter().any(elsewhere);
            let halved = self.tight && elsewhere;
            let told = message.delivered && message.list && !elsewhere;
            let aged = self.may_be_aged(stay.gateway, broker, part.at);
            let gone = !told && (aged || self.may_be_gone(number, message));
            if excused || silent || halved || gone {
                continue;
            }
            let there = self.was_here(stay, broker, message.at, at + GRACE);
            assert!(!there, "promises 5 and 6: {about:?} did not come: {message:?} {stay:?}");
        }
    }
}

/// Targets that a receipt names, in any role.
pub(super) fn named(receipt: &Receipt) -> Vec<u64> {
    let dropped = receipt.dropped.iter().flat_map(|it| &it.uids);
    receipt.offline.iter().chain(&receipt.filtered).chain(dropped).copied().collect()
}

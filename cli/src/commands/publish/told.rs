//! What became of a message, told on stdout: a line for people, an object for programs.

use serde_json::{Value, json};
use waybill_client::{PublishError, Receipt, ReceiptLevel};

use super::complain;
use super::way::{self, TraceId};
use crate::failure::{self, Failure};
use crate::links::{message_id, uids_json};
use crate::output::{self, Form};

/// What became of a message.
pub(super) type Outcome = Result<Receipt, PublishError>;

/// Tells outcomes and remembers whether all went well.
pub(super) struct Told {
    form: Form,
    all_well: bool,
    /// The reader of stdout has gone; messages are still sent.
    silent: bool,
    /// What was said about hop times, which is said once.
    said: [&'static str; 2],
}

/// UIDs shown to people before the rest is only counted; --json has them all.
const UIDS_SHOWN: usize = 20;

impl Told {
    pub(super) fn new(form: Form) -> Self {
        Self { form, all_well: true, silent: false, said: [""; 2] }
    }

    /// Whether every message was routed.
    pub(super) fn all_well(&self) -> bool {
        self.all_well
    }

    /// Tells one; `line` is that of the input it came from, `uncounted` says who it is for if no
    /// list does, `trace` is its id if its way is told.
    pub(super) fn tell(
        &mut self,
        line: Option<u64>,
        uncounted: Option<&str>,
        trace: Option<&TraceId>,
        outcome: &Outcome,
    ) -> failure::Outcome {
        self.all_well &= outcome.as_ref().is_ok_and(is_well);
        if let Err(error) = outcome {
            complain(error);
        }
        if self.silent {
            return Ok(());
        }
        let told = match (self.form, outcome) {
            (Form::Json, outcome) => output::json(&outcome_json(outcome, line, trace)),
            (Form::Human, Ok(receipt)) => {
                let mut text = receipt_text(receipt, uncounted);
                if let Some(trace) = trace {
                    text.extend(way::table(trace, receipt).iter().flat_map(|line| ["\n", line]));
                    self.say_of_hops(receipt);
                }
                output::line(text)
            }
            (Form::Human, Err(_)) => Ok(()),
        };
        match told {
            Err(Failure::StdoutClosed) => self.silent = true,
            other => other?,
        }
        Ok(())
    }
}

impl Told {
    /// How hop times are to be read, or that there are none.
    fn say_of_hops(&mut self, receipt: &Receipt) {
        let (at, words) =
            if receipt.hops.is_empty() { (0, way::NO_HOPS) } else { (1, way::CLOCKS) };
        if self.said[at].is_empty() {
            self.said[at] = words;
            output::talk(words);
        }
    }
}

/// Whether nobody it was for was passed over, or may have been. At stage routed the unknown are
/// those of a broadcast, about whom the gateways decide.
pub(crate) fn is_well(receipt: &Receipt) -> bool {
    let unknown = receipt.stage == ReceiptLevel::Delivered && receipt.unknown_count > 0;
    !unknown && !receipt.in_doubt && receipt.dropped_count() == 0
}

/// `sent 2, gateways 1, offline: 1003 1004`. Without a list nobody is counted, only gateways are;
/// without a receipt nothing is known but that it left.
fn receipt_text(receipt: &Receipt, uncounted: Option<&str>) -> String {
    if receipt.stage == ReceiptLevel::None {
        return "written to the broker; no receipt was asked for".into();
    }
    let sent = match (receipt.stage, uncounted) {
        (ReceiptLevel::Delivered, _) => format!("delivered {}", receipt.sent),
        (_, Some(whom)) => whom.into(),
        (_, None) => format!("sent {}", receipt.sent),
    };
    counts_text(sent, receipt)
}

/// The same with other words for those who were reached.
pub(crate) fn counts_text(reached: String, receipt: &Receipt) -> String {
    let mut parts = vec![reached, format!("gateways {}", receipt.gateways)];
    let mut named = |name: &str, uids: &[u64]| {
        if !uids.is_empty() {
            parts.push(format!("{name}: {}", uids_text(uids)));
        }
    };
    named("offline", &receipt.offline);
    named("unknown", &receipt.unknown);
    named("filtered", &receipt.filtered);
    for dropped in &receipt.dropped {
        named(&format!("dropped ({})", dropped.cause), &dropped.uids);
    }
    let mut counted = |name: &str, count: usize, named: usize| {
        if count > named {
            parts.push(format!("{name} {count}"));
        }
    };
    let named: usize = receipt.dropped.iter().map(|dropped| dropped.uids.len()).sum();
    counted("offline", receipt.offline_count(), receipt.offline.len());
    counted("filtered", receipt.filtered_count(), receipt.filtered.len());
    counted("dropped", receipt.dropped_count(), named);
    counted("unknown", receipt.unknown_count as usize, receipt.unknown.len());
    if receipt.resent {
        parts.push("sent again after a link was lost".into());
    }
    if receipt.in_doubt {
        parts.push("in doubt: the link was lost before the answer came".into());
    }
    parts.join(", ")
}

fn uids_text(uids: &[u64]) -> String {
    let shown: Vec<String> = uids.iter().take(UIDS_SHOWN).map(u64::to_string).collect();
    let shown = shown.join(" ");
    match uids.len().saturating_sub(UIDS_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn outcome_json(outcome: &Outcome, line: Option<u64>, trace: Option<&TraceId>) -> Value {
    let mut value = match outcome {
        Ok(receipt) => receipt_json(receipt),
        Err(error) => {
            let code = match error {
                PublishError::Refused { code } => Some(code.to_string()),
                _ => None,
            };
            json!({ "error": error.to_string(), "code": code })
        }
    };
    if let Some(line) = line {
        value["line"] = line.into();
    }
    if let Some(trace) = trace {
        value["trace"] = way::json(trace, outcome.as_ref().ok());
    }
    value
}

/// A level by its registry name.
pub(crate) fn stage(level: ReceiptLevel) -> &'static str {
    match level {
        ReceiptLevel::None => "none",
        ReceiptLevel::Routed => "routed",
        ReceiptLevel::Delivered => "delivered",
    }
}

/// A receipt for programs; the demo page's server answers with the same.
pub(crate) fn receipt_json(receipt: &Receipt) -> Value {
    if receipt.stage == ReceiptLevel::None {
        // What nobody counted is left out, so that no program takes it for nought.
        return json!({
            "id": message_id(receipt.instance, receipt.sequence),
            "stage": stage(receipt.stage),
            "in_doubt": receipt.in_doubt,
            "resent": receipt.resent,
        });
    }
    let dropped = receipt.dropped.iter().map(
        |dropped| json!({ "cause": dropped.cause.to_string(), "uids": uids_json(&dropped.uids) }),
    );
    json!({
        "id": message_id(receipt.instance, receipt.sequence),
        "stage": stage(receipt.stage),
        "sent": receipt.sent,
        "offline_count": receipt.offline_count(),
        "filtered_count": receipt.filtered_count(),
        "dropped_count": receipt.dropped_count(),
        "gateways": receipt.gateways,
        "offline": uids_json(&receipt.offline),
        "unknown": uids_json(&receipt.unknown),
        "unknown_count": receipt.unknown_count,
        "filtered": uids_json(&receipt.filtered),
        "dropped": dropped.collect::<Vec<_>>(),
        "in_doubt": receipt.in_doubt,
        "resent": receipt.resent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_names_who_was_not_reached() {
        let mut receipt = Receipt::new(1, 2);
        (receipt.sent, receipt.gateways) = (2, 1);
        assert_eq!(receipt_text(&receipt, None), "sent 2, gateways 1");
        assert_eq!(receipt_text(&receipt, Some("to everyone")), "to everyone, gateways 1");
        receipt.offline = vec![7, 8];
        assert_eq!(receipt_text(&receipt, None), "sent 2, gateways 1, offline: 7 8");
        receipt.offline = (0..23).collect();
        assert!(receipt_text(&receipt, None).ends_with(" 18 19 and 3 more"));
    }

    #[test]
    fn without_a_receipt_nobody_is_counted() {
        let mut receipt = Receipt::new(1, 2);
        receipt.stage = ReceiptLevel::None;
        assert!(receipt_text(&receipt, None).starts_with("written to the broker"));
        let json = receipt_json(&receipt);
        assert_eq!((json["stage"].as_str(), json.get("sent")), (Some("none"), None));
    }

    #[test]
    fn a_gateway_that_is_silent_makes_it_fail() {
        let mut receipt = Receipt::new(1, 2);
        receipt.unknown_count = 1;
        receipt.stage = ReceiptLevel::Routed;
        assert!(is_well(&receipt), "as in a broadcast");
        receipt.stage = ReceiptLevel::Delivered;
        assert!(!is_well(&receipt));
    }

    #[test]
    fn uids_are_strings_in_json() {
        let mut receipt = Receipt::new(0x9f, 2);
        receipt.offline = vec![u64::MAX];
        let value = outcome_json(&Ok(receipt), Some(3), None);
        assert_eq!(value["id"], "000000000000009f-2");
        assert_eq!(value["offline"][0], "18446744073709551615");
        assert_eq!(value["line"], 3);
    }
}

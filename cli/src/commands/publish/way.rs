//! The way of a traced message, told on stdout: a small table for people, a list for programs.
//!
//! Times are those of each process's own clock, so a difference between two processes may be
//! anything, also less than nothing, where their clocks differ.

use serde_json::{Value, json};
use waybill_client::{Hop, Place, Receipt};

/// A trace id as it is written everywhere: 32 hexadecimal digits.
pub(super) type TraceId = [u8; 16];

/// What goes with the first table: differences are not all of one clock.
pub(super) const CLOCKS: &str =
    "times are each process's own; between machines their clocks differ";

/// Said instead of a table.
pub(super) const NO_HOPS: &str =
    "no hop times came: the broker does not tell them, or no answer did";

/// Lines of a table; that of a gateway's hops is further in. Each time is of its day in UTC, with
/// what has passed since the line before; at the first hop of a gateway, since it was routed.
pub(super) fn table(trace: &TraceId, receipt: &Receipt) -> Vec<String> {
    let mut lines = vec![format!("trace {}", hex(trace))];
    let (mut last, mut routed, mut gateway) = (None, None, None);
    for hop in &receipt.hops {
        if hop.gateway != gateway {
            gateway = hop.gateway;
            last = routed;
            lines.extend(gateway.map(|incarnation| format!("  gateway {incarnation:016x}")));
        }
        // A list that was cut has a way for each part.
        last = last.filter(|_| hop.place != Place::Producer);
        let indent = if gateway.is_some() { "    " } else { "  " };
        let passed = last.map_or(String::new(), |before| since(before, hop.time_us));
        let (name, time) = (hop.place.name(), time_of_day(hop.time_us));
        lines.push(format!("{indent}{name:<12}{time}{passed}"));
        last = Some(hop.time_us);
        routed = if hop.place <= Place::Routed { last } else { routed };
    }
    if receipt.hops_left_out > 0 {
        lines.push(format!("  and {} more hops, left out", receipt.hops_left_out));
    }
    lines
}

/// The same for programs, with whole times and whose clock each is.
pub(super) fn json(trace: &TraceId, receipt: Option<&Receipt>) -> Value {
    let hops = receipt.map_or(&[][..], |receipt| &receipt.hops);
    let hop = |hop: &Hop| {
        json!({
            "hop": hop.place.name(),
            "time_us": hop.time_us,
            "process": format!("{:016x}", hop.process),
            "gateway": hop.gateway.map(|incarnation| format!("{incarnation:016x}")),
        })
    };
    json!({
        "id": hex(trace),
        "hops": hops.iter().map(hop).collect::<Vec<_>>(),
        "left_out": receipt.map_or(0, |receipt| receipt.hops_left_out),
    })
}

fn hex(trace: &TraceId) -> String {
    trace.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn since(before_us: u64, time_us: u64) -> String {
    let sign = if time_us < before_us { '-' } else { '+' };
    let passed = format!("{sign}{}", time_us.abs_diff(before_us));
    format!("{passed:>10} us")
}

/// Hours, minutes, seconds and microseconds of the day, UTC.
fn time_of_day(time_us: u64) -> String {
    const SECOND_US: u64 = 1_000_000;
    let (seconds, us) = (time_us / SECOND_US, time_us % SECOND_US);
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{us:06}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt() -> Receipt {
        let hop = |place, time_us, process, gateway| Hop { place, time_us, process, gateway };
        let start = 1_800_000_000_000_000;
        let mut receipt = Receipt::new(7, 1);
        receipt.hops = vec![
            hop(Place::Producer, start, 7, None),
            hop(Place::BrokerIn, start + 144, 1, None),
            hop(Place::Routed, start + 153, 1, None),
            hop(Place::Written, start + 156, 1, Some(0xa1)),
            hop(Place::GatewayIn, start + 100, 0xa1, Some(0xa1)),
            hop(Place::Written, start + 1_000_153, 1, Some(0xb2)),
        ];
        receipt.hops_left_out = 3;
        receipt
    }

    #[test]
    fn a_table_shows_what_passed_between_hops() {
        let table = table(&[0xab; 16], &receipt()).join("\n");
        let expected = "\
trace abababababababababababababababab
  producer    08:00:00.000000
  broker_in   08:00:00.000144      +144 us
  routed      08:00:00.000153        +9 us
  gateway 00000000000000a1
    written     08:00:00.000156        +3 us
    gateway_in  08:00:00.000100       -56 us
  gateway 00000000000000b2
    written     08:00:01.000153  +1000000 us
  and 3 more hops, left out";
        assert_eq!(table, expected);
    }

    #[test]
    fn programs_get_whole_times_and_whose_they_are() {
        let told = json(&[1; 16], Some(&receipt()));
        assert_eq!((&told["id"], &told["left_out"]), (&json!("01".repeat(16)), &json!(3)));
        let expected = json!({
            "hop": "gateway_in",
            "time_us": 1_800_000_000_000_100_u64,
            "process": "00000000000000a1",
            "gateway": "00000000000000a1",
        });
        assert_eq!(told["hops"][4], expected);
        assert_eq!(told["hops"][0]["gateway"], Value::Null);
        assert_eq!(json(&[1; 16], None)["hops"], json!([]));
    }
}

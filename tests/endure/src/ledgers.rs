//! The processes' own ledgers against each other and against the outside record.
//!
//! A process that was killed is judged by its last reading; what it did after that is in doubt, by
//! at most the frames that were under way then.

use serde_json::Value;

use crate::readings::{Lives, Reading};
use crate::record::{Ending, Record, Violations};
use crate::report::Report;
use crate::world::World;

/// One equation of a ledger: the sum on the left is that on the right. A name that ends in `*`
/// stands for every number below it, or with that beginning.
struct Equation {
    left: &'static str,
    right: &'static [&'static str],
}

const BROKER: &[Equation] = &[
    Equation {
        left: "gateways.offered",
        right: &["gateways.queued", "gateways.dropped_*", "gateways.between_shards"],
    },
    Equation {
        left: "gateways.queued",
        right: &[
            "gateways.delivered",
            "gateways.expired",
            "gateways.lost",
            "gateways.in_doubt",
            "gateways.waiting",
            "gateways.unconfirmed",
        ],
    },
    Equation {
        left: "consumers.offered",
        right: &["consumers.queued", "consumers.dropped_*", "consumers.between_shards"],
    },
    Equation {
        left: "consumers.queued",
        right: &[
            "consumers.delivered",
            "consumers.expired",
            "consumers.lost",
            "consumers.in_doubt",
            "consumers.waiting",
            "consumers.unconfirmed",
        ],
    },
    Equation { left: "publishes", right: &["publishes_routed", "publishes_refused"] },
    Equation {
        left: "targets",
        right: &[
            "targets_sent",
            "targets_offline",
            "targets_filtered",
            "targets_dropped",
            "targets_unresolved",
        ],
    },
    Equation {
        left: "receipts_asked",
        right: &["receipts_answered", "receipts_producer_gone", "receipts_pending"],
    },
    Equation {
        left: "uplinks",
        right: &["uplinks_accepted", "uplinks_refused", "uplinks_asker_gone", "uplinks_pending"],
    },
];

const GATEWAY: &[Equation] = &[Equation {
    left: "addressed",
    right: &["delivered", "filtered", "repeated", "dropped.*", "in_doubt", "waiting"],
}];

/// The number at a path of a ledger.
pub(crate) fn number(ledger: &Value, path: &str) -> Option<u64> {
    let mut at = ledger;
    for part in path.split('.') {
        if let Some(beginning) = part.strip_suffix('*') {
            let all = at.as_object()?.iter().filter(|(name, _)| name.starts_with(beginning));
            return Some(all.filter_map(|(_, value)| value.as_u64()).sum());
        }
        at = at.get(part)?;
    }
    at.as_u64()
}

/// Checks the last reading of every life, and the sums over all.
pub(crate) fn check(
    world: &World,
    lives: &Lives,
    record: &Record,
    violations: &mut Violations,
    report: &mut Report,
) {
    report.heading("ledgers");
    if lives.is_empty() {
        report.row("readings", "none: nothing of the ledgers is checked");
        return;
    }
    for ((name, life), reading) in lives {
        let equations = if name.starts_with("broker") { BROKER } else { GATEWAY };
        let alive = world.servers().any(|server| server.name() == *name && server.life() == *life);
        for Equation { left, right } in equations {
            let Some(sum) = number(&reading.ledger, left) else {
                report.row(&format!("{name}: {left}"), "not in its ledger");
                continue;
            };
            let parts: u64 = right.iter().filter_map(|path| number(&reading.ledger, path)).sum();
            // The last reading of one that was killed was taken under load.
            let slack = if alive { 0 } else { 64 + sum / 50 };
            if sum.abs_diff(parts) > slack {
                violations.add("a ledger does not balance", || {
                    format!("{name}, life {life}: {left} = {sum}, {} = {parts}", right.join(" + "))
                });
            }
        }
    }
    sums(lives, report);
    agreement(world, lives, record, violations, report);
    record_of_gateways(world, lives, record, violations, report);
}

fn total(lives: &Lives, role: &str, path: &str) -> u64 {
    let of_role = lives.iter().filter(|((name, _), _)| name.starts_with(role));
    of_role.filter_map(|(_, reading)| number(&reading.ledger, path)).sum()
}

fn sums(lives: &Lives, report: &mut Report) {
    let brokers = [
        "gateways.offered",
        "gateways.queued",
        "gateways.delivered",
        "gateways.expired",
        "gateways.lost",
        "gateways.in_doubt",
        "gateways.waiting",
        "gateways.unconfirmed",
        "gateways.dropped_*",
        "consumers.offered",
        "consumers.delivered",
        "consumers.lost",
        "consumers.in_doubt",
    ];
    let gateways = ["messages_in", "addressed", "delivered", "filtered", "repeated", "dropped.*"];
    let more = ["in_doubt", "waiting"];
    let mut values = serde_json::Map::new();
    let paths = brokers.iter().map(|path| ("broker", path));
    for (role, path) in paths.chain(gateways.iter().chain(&more).map(|path| ("gateway", path))) {
        let sum = total(lives, role, path);
        report.row(&format!("{role}s, last readings: {path}"), sum);
        values.insert(format!("{role}.{path}"), sum.into());
    }
    report.value("ledgers", Value::Object(values));
}

/// What brokers say they delivered, gateways say came in.
fn agreement(
    world: &World,
    lives: &Lives,
    record: &Record,
    violations: &mut Violations,
    report: &mut Report,
) {
    let low = total(lives, "broker", "gateways.delivered");
    let doubt = total(lives, "broker", "gateways.in_doubt")
        + total(lives, "broker", "gateways.unconfirmed")
        + total(lives, "broker", "gateways.waiting");
    let came = total(lives, "gateway", "messages_in") + total(lives, "gateway", "taggings");
    // Frames after the last reading of a life that ended: one a publish for each gateway at most.
    let gone = |role: &str| -> u64 {
        let factor = if role == "broker" { world.gateways.len() } else { 1 };
        let ended = lives.iter().filter(|((name, _), _)| name.starts_with(role));
        let under_way = |(life, reading): (&(String, u32), &Reading)| {
            let Some(&killed) = record.kills.get(life) else { return 0 };
            let mine = record.messages.iter().filter(|message| {
                message.sent_at <= killed && message.settled_at.is_none_or(|end| end >= reading.at)
            });
            mine.count() * factor
        };
        ended.map(under_way).sum::<usize>() as u64
    };
    let (tail_of_gateways, tail_of_brokers) = (gone("gateway"), gone("broker"));
    report.row("delivered by brokers <= came in at gateways", format!("{low} <= {came}"));
    report.row("... <= delivered, in doubt, unconfirmed", format!("{came} <= {}", low + doubt));
    report.row(
        "tails in doubt, of killed gateways / of killed brokers",
        format!("{tail_of_gateways} / {tail_of_brokers}"),
    );
    if low > came + tail_of_gateways || came > low + doubt + tail_of_brokers {
        violations.add("the two ledgers disagree", || {
            format!(
                "brokers delivered {low}, in doubt {doubt}; gateways took {came}; tails \
                 {tail_of_gateways} and {tail_of_brokers}"
            )
        });
    }
}

/// What a gateway says it delivered, its users have.
fn record_of_gateways(
    world: &World,
    lives: &Lives,
    record: &Record,
    violations: &mut Violations,
    report: &mut Report,
) {
    for gateway in &world.gateways {
        let key = (gateway.name(), gateway.life());
        let Some(reading) = lives.get(&key) else { continue };
        let delivered = number(&reading.ledger, "delivered").unwrap_or_default();
        let doubt = number(&reading.ledger, "in_doubt").unwrap_or_default();
        let mine = record
            .lives
            .iter()
            .filter(|life| (life.gateway, life.gateway_life) == (gateway.index, gateway.life()));
        let (mut arrived, mut broken) = (0, 0);
        for life in mine {
            arrived += life.arrivals;
            let ended = life.ended.is_some_and(|(at, _)| at < reading.at);
            let gone = life.ended.is_some_and(|(_, ending)| ending != Ending::Left);
            broken += u64::from(ended && (gone || life.ready_at.is_some()));
        }
        let name = format!("{}: says delivered (in doubt) / arrived", gateway.name());
        report.row(&name, format!("{delivered} ({doubt}) / {arrived}"));
        // What was with the kernel when a connection ended may or may not have arrived: some
        // messages for each connection that ended before the reading.
        if arrived > delivered + doubt || delivered > arrived + 8 * broken {
            violations.add("a gateway's ledger disagrees with its users", || {
                format!(
                    "{}: delivered {delivered}, in doubt {doubt}, arrived {arrived}, connections \
                     that ended {broken}",
                    gateway.name()
                )
            });
        }
    }
}

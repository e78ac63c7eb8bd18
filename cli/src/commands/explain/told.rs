//! What a broker told, as lines for people: gateways, users, and what each mode costs.

use waybill_broker::explain::answer::{
    Costs, Explanation, Fate, FateCounts, FrameSeen, GatewaySeen, LinkSeen, Modes, Outcome,
    Reached, UserSeen,
};
use waybill_broker::explain::question::Question;

/// Rows of a table, before the rest is only counted.
const ROWS_MAX: usize = 20;

/// Everything, line by line.
pub(super) fn lines(admin: &str, question: &Question, told: &Explanation) -> Vec<String> {
    let mut lines = vec![format!("broker at {admin}, {}: {}", told.state, verdict(told))];
    if let Some(refused) = &told.refused {
        let (code, reason) = (&refused.code, &refused.reason);
        lines.push(format!("  it would refuse the message: {code}, {reason}"));
        lines.push("  if it did not:".into());
    }
    let (header, payload) = (told.publish.header, told.publish.payload);
    let namespace = question.namespace;
    lines.push(format!(
        "  message in namespace {namespace}: header {header} + payload {payload} bytes"
    ));
    lines.push(format!("  receipt: {}", receipt(told)));
    lines.extend(["".into(), "gateways".into()]);
    lines.extend(gateways(told));
    if let Some(counts) = &told.fates {
        lines.extend(["".into(), format!("users: {}", fates(counts))]);
        lines.extend(users(told));
    }
    lines.push(String::new());
    lines.extend(modes(&told.mode));
    lines
}

fn verdict(told: &Explanation) -> String {
    let Some(counts) = &told.fates else {
        return match told.reached {
            Reached::Nobody => "nobody would be reached".into(),
            Reached::Some => "some of the gateways that have users for it would be sent it".into(),
            Reached::All => "all gateways that may have users for it would be sent it".into(),
        };
    };
    let FateCounts { sent, may, offline, filtered, dropped } = *counts;
    let all = sent + may + offline + filtered + dropped;
    match (told.reached, may) {
        (Reached::Nobody, _) => format!("none of {all} users would be reached"),
        (_, 0) => format!("{sent} of {all} users would be reached"),
        _ => format!("{may} of {all} users may be reached, as their gateways decide"),
    }
}

fn counted(counts: &[(&str, usize)]) -> String {
    let some = counts.iter().filter(|(_, count)| *count > 0);
    let shown: Vec<String> = some.map(|(name, count)| format!("{name} {count}")).collect();
    if shown.is_empty() { "nobody".into() } else { shown.join(", ") }
}

fn receipt(told: &Explanation) -> String {
    let it = &told.receipt;
    let gateways = format!("gateways {}", it.gateways);
    if told.fates.is_none() {
        return gateways;
    }
    let counts = counted(&[
        ("sent", it.sent),
        ("offline", it.offline),
        ("filtered", it.filtered),
        ("dropped", it.dropped),
        ("unknown", it.unknown),
    ]);
    format!("{counts}, {gateways}")
}

fn fates(counts: &FateCounts) -> String {
    counted(&[
        ("sent", counts.sent),
        ("may", counts.may),
        ("offline", counts.offline),
        ("filtered", counts.filtered),
        ("dropped", counts.dropped),
    ])
}

fn gateways(told: &Explanation) -> Vec<String> {
    let (shown, more) = some(&told.gateways, |it| it.outcome == Outcome::Sent);
    let heads =
        ["slot", "incarnation", "address", "state", "users", "holds", "tags", "would be sent"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for gateway in &shown {
        rows.push(vec![
            gateway.slot.to_string(),
            gateway.incarnation.clone(),
            address(gateway.link.as_ref()),
            gateway.state.clone(),
            gateway.users.to_string(),
            if told.fates.is_some() { gateway.holds.to_string() } else { "-".into() },
            tags(gateway),
            would_be_sent(gateway),
        ]);
    }
    let mut lines = if shown.is_empty() { Vec::new() } else { table(&rows) };
    let more = more + told.gateways_more;
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    match told.gateways_others {
        0 if lines.is_empty() => lines.push("  none is known to this broker".into()),
        0 => {}
        others => lines.push(format!("  {others} more with nobody whom it is for")),
    }
    lines
}

fn address(link: Option<&LinkSeen>) -> String {
    link.and_then(|link| link.peer.clone()).unwrap_or_else(|| "-".into())
}

/// How many it declared, and those that the selector names.
fn tags(gateway: &GatewaySeen) -> String {
    if !gateway.tags_agreed {
        return "not agreed on".into();
    }
    let count = gateway.tags.to_string();
    if gateway.counts_as_every_tag {
        return format!("{count}, counts as every tag");
    }
    let of = |declared: bool| -> Vec<&str> {
        let terms = gateway.terms.iter().filter(|term| term.declared == declared);
        terms.map(|term| &*term.tag).collect()
    };
    let named = |word: &str, tags: Vec<&str>| match tags.is_empty() {
        true => String::new(),
        false => format!(", {word} {}", tags.join(", ")),
    };
    format!("{count}{}{}", named("has", of(true)), named("lacks", of(false)))
}

fn would_be_sent(gateway: &GatewaySeen) -> String {
    let frame = gateway.frame.map(|frame| frame_text(&frame)).unwrap_or_default();
    match (gateway.outcome, &gateway.link) {
        (Outcome::Sent, _) => frame,
        (Outcome::OutboxFull, Some(link)) => {
            let LinkSeen { waiting_bytes, waiting_bytes_max, .. } = link;
            let words = gateway.outcome.words();
            format!("{frame}; {words} ({waiting_bytes} of {waiting_bytes_max} bytes wait)")
        }
        (outcome, _) => outcome.words().into(),
    }
}

fn frame_text(frame: &FrameSeen) -> String {
    let (header, payload) = (frame.bytes.header, frame.bytes.payload);
    let what = match (frame.whole, frame.users) {
        (false, users) => format!("list of {users}"),
        (true, 0) => "everything, without a list".into(),
        (true, users) => format!("everything, the whole list of {users}"),
    };
    format!("{what}: {header} + {payload} bytes")
}

fn users(told: &Explanation) -> Vec<String> {
    let (shown, more) = some(&told.users, |it| it.fate <= Fate::May);
    let row = |user: &&UserSeen| user_row(user, told.gateways_filling);
    let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
    let mut lines = table(&rows);
    let more = more + told.users_more;
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines
}

fn user_row(user: &UserSeen, filling: usize) -> Vec<String> {
    let fate = match user.fate {
        Fate::Sent => "sent",
        Fate::May => "may",
        Fate::Offline => "offline",
        Fate::Filtered => "filtered",
        Fate::Dropped => "dropped",
    };
    let why = if user.excepted {
        "on the except list".into()
    } else if user.gateways.is_empty() {
        let nowhere = "registered at no gateway of this broker";
        match filling {
            0 => nowhere.into(),
            _ => format!("{nowhere}; gateways that still declare their users: {filling}"),
        }
    } else {
        let at = |slot: usize, words: &str| format!("slot {slot} {words}");
        let mut reasons: Vec<String> = user
            .gateways
            .iter()
            .map(|it| match (it.outcome, user.fate) {
                (Outcome::Sent, Fate::May) => at(it.slot, "decides for each connection"),
                (Outcome::Sent, _) => format!("slot {}", it.slot),
                (outcome, _) => at(it.slot, outcome.words()),
            })
            .collect();
        if user.gateways_more > 0 {
            reasons.push(format!("and {} more", user.gateways_more));
        }
        reasons.join("; ")
    };
    vec![user.uid.0.to_string(), fate.into(), why]
}

fn modes(modes: &Modes) -> Vec<String> {
    let Modes { asked, taken, auto, fates_asked, direct, broadcast } = modes;
    let (first, second) = match direct.total_ns <= broadcast.total_ns {
        true => ("direct", "broadcast"),
        false => ("broadcast", "direct"),
    };
    let why = if *fates_asked && first != auto {
        format!(
            "{first} would be cheaper, but a receipt or the offline feed is to tell of each user"
        )
    } else if *fates_asked {
        "a receipt or the offline feed is to tell of each user, and it is no dearer".into()
    } else {
        format!("by the model it is no dearer than {second}")
    };
    let taken = if asked == "auto" {
        format!("mode {taken}, taken by auto: {why}")
    } else if taken == auto {
        format!("mode {taken}, as auto would take: {why}")
    } else {
        format!("mode {taken}, as asked; auto would take {auto}: {why}")
    };
    let row = |name: &str, costs: &Costs| {
        let Costs { gateways, broker_ns, link_bytes, gateway_ns, total_ns } = costs;
        let numbers = [*gateways, *broker_ns, *link_bytes, *gateway_ns, *total_ns];
        [name.to_string()].into_iter().chain(numbers.map(|it| it.to_string())).collect()
    };
    let heads =
        ["by the model", "gateways", "broker ns", "link bytes", "gateways' ns", "in all ns"];
    let rows =
        [heads.map(String::from).to_vec(), row("direct", direct), row("broadcast", broadcast)];
    [taken].into_iter().chain(table(&rows)).collect()
}

/// As many as are shown, of more of them the plain ones last; and how many are not.
fn some<T>(all: &[T], is_plain: impl Fn(&T) -> bool) -> (Vec<&T>, usize) {
    let mut shown: Vec<&T> = all.iter().collect();
    if shown.len() > ROWS_MAX {
        shown.sort_by_key(|it| is_plain(it));
        shown.truncate(ROWS_MAX);
    }
    let more = all.len() - shown.len();
    (shown, more)
}

/// Columns as wide as their widest field; the last one runs on.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let fields = row.iter().zip(&widths).map(|(field, width)| format!("{field:<width$}"));
        format!("  {}", fields.collect::<Vec<_>>().join("  ")).trim_end().to_string()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use waybill_broker::explain::answer::{Counts, FrameBytes, HolderSeen, Refused, Term};
    use waybill_broker::explain::question::UserId;

    use super::*;

    fn gateway(slot: usize, outcome: Outcome) -> GatewaySeen {
        let link = LinkSeen {
            peer: Some("127.0.0.1:9".into()),
            holder: "gateway-1".into(),
            shard: 0,
            waiting_bytes: 900,
            waiting_bytes_max: 1_000,
        };
        let bytes = FrameBytes { header: 56, payload: 5 };
        GatewaySeen {
            slot,
            incarnation: format!("{slot:016x}"),
            state: "live".into(),
            link: Some(link),
            users: 7,
            users_in_all: 9,
            tags: 3,
            tags_agreed: true,
            counts_as_every_tag: false,
            terms: Vec::new(),
            holds: 1,
            frame: Some(FrameSeen { users: 1, whole: false, bytes }),
            outcome,
        }
    }

    fn user(uid: u64, fate: Fate, at: &[(usize, Outcome)]) -> UserSeen {
        let gateways = at.iter().map(|&(slot, outcome)| HolderSeen { slot, outcome }).collect();
        UserSeen { uid: UserId(uid), fate, excepted: false, gateways, gateways_more: 0 }
    }

    fn explanation() -> Explanation {
        let costs =
            |total_ns| Costs { gateways: 1, broker_ns: 2, link_bytes: 3, gateway_ns: 4, total_ns };
        Explanation {
            state: "ready".into(),
            refused: None,
            reached: Reached::Some,
            mode: Modes {
                asked: "auto".into(),
                taken: "direct".into(),
                auto: "direct".into(),
                fates_asked: true,
                direct: costs(200),
                broadcast: costs(100),
            },
            publish: FrameBytes { header: 48, payload: 5 },
            receipt: Counts {
                sent: 1,
                offline: 1,
                filtered: 0,
                dropped: 1,
                unknown: 0,
                gateways: 1,
            },
            gateways: vec![gateway(0, Outcome::Sent), gateway(12, Outcome::OutboxFull)],
            gateways_more: 3,
            gateways_others: 1,
            gateways_filling: 0,
            fates: Some(FateCounts { may: 1, offline: 1, dropped: 1, ..FateCounts::default() }),
            users: vec![
                user(1, Fate::May, &[(0, Outcome::Sent), (12, Outcome::OutboxFull)]),
                user(22, Fate::Dropped, &[(12, Outcome::OutboxFull)]),
                user(333, Fate::Offline, &[]),
            ],
            users_more: 4,
        }
    }

    #[test]
    fn it_is_told_by_gateway_by_user_and_by_mode() {
        let mut told = explanation();
        let term = |tag: &str, declared| Term { tag: tag.into(), declared };
        told.gateways[0].terms = vec![term("vip", true), term("ios", false), term("a b", false)];
        told.gateways[1].counts_as_every_tag = true;
        let question = Question { namespace: 6, ..Question::default() };
        let expected = "\
broker at here:1, ready: 1 of 3 users may be reached, as their gateways decide
  message in namespace 6: header 48 + payload 5 bytes
  receipt: sent 1, offline 1, dropped 1, gateways 1

gateways
  slot  incarnation       address      state  users  holds  tags                        would \
be sent
  0     0000000000000000  127.0.0.1:9  live   7      1      3, has vip, lacks ios, a b  list of \
1: 56 + 5 bytes
  12    000000000000000c  127.0.0.1:9  live   7      1      3, counts as every tag      list of \
1: 56 + 5 bytes; dropped: no room in its outbox, as it reads too slowly or the frame is too \
large (900 of 1000 bytes wait)
  and 3 more
  1 more with nobody whom it is for

users: may 1, offline 1, dropped 1
  1    may      slot 0 decides for each connection; slot 12 dropped: no room in its outbox, as \
it reads too slowly or the frame is too large
  22   dropped  slot 12 dropped: no room in its outbox, as it reads too slowly or the frame is \
too large
  333  offline  registered at no gateway of this broker
  and 4 more

mode direct, taken by auto: broadcast would be cheaper, but a receipt or the offline feed is to \
tell of each user
  by the model  gateways  broker ns  link bytes  gateways' ns  in all ns
  direct        1         2          3           4             200
  broadcast     1         2          3           4             100";
        assert_eq!(lines("here:1", &question, &told).join("\n"), expected);
    }

    #[test]
    fn a_refusal_comes_first() {
        let (code, reason) = ("not_ready".into(), "gateways it waits for: 2".into());
        let refused = Some(Refused { code, reason });
        let told = Explanation { refused, reached: Reached::Nobody, ..explanation() };
        let lines = lines("here:1", &Question::default(), &told);
        assert_eq!(lines[0], "broker at here:1, ready: none of 3 users would be reached");
        assert_eq!(lines[1], "  it would refuse the message: not_ready, gateways it waits for: 2");
    }

    #[test]
    fn whoever_is_nowhere_may_be_at_a_gateway_that_is_not_done() {
        let told = Explanation { gateways_filling: 2, ..explanation() };
        let line = "  333  offline  registered at no gateway of this broker; gateways that still \
                    declare their users: 2";
        assert_eq!(super::users(&told)[2], line);
    }

    #[test]
    fn of_a_long_list_those_that_are_not_reached_are_shown() {
        let mut users: Vec<_> =
            (0..30).map(|uid| user(uid, Fate::Sent, &[(0, Outcome::Sent)])).collect();
        users.push(user(99, Fate::Offline, &[]));
        let told = Explanation { users, users_more: 5, ..explanation() };
        let lines = super::users(&told);
        assert_eq!((lines.len(), &lines[1][..]), (ROWS_MAX + 1, "  0   sent     slot 0"));
        assert!(lines[0].starts_with("  99  offline  registered"), "{lines:#?}");
        assert_eq!(lines[ROWS_MAX], "  and 16 more");
    }

    #[test]
    fn a_mode_that_was_asked_for_is_compared_with_auto() {
        let modes_of = |asked: &str, taken: &str, auto: &str| {
            let (asked, taken, auto) = (asked.into(), taken.into(), auto.into());
            let modes = Modes { asked, taken, auto, fates_asked: false, ..explanation().mode };
            super::modes(&modes)[0].clone()
        };
        let why = "by the model it is no dearer than direct";
        let told = modes_of("direct", "direct", "broadcast");
        assert_eq!(told, format!("mode direct, as asked; auto would take broadcast: {why}"));
        let told = modes_of("broadcast", "broadcast", "broadcast");
        assert_eq!(told, format!("mode broadcast, as auto would take: {why}"));
    }
}

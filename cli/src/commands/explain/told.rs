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
        false => format!(", {word} {}", tags.join(" ")),
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
    let rows: Vec<Vec<String>> = shown.iter().map(|user| user_row(user)).collect();
    let mut lines = table(&rows);
    let more = more + told.users_more;
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines
}

fn user_row(user: &UserSeen) -> Vec<String> {
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
        "registered at no gateway of this broker".into()
    } else {
        let at = |slot: usize, words: &str| format!("slot {slot} {words}");
        let mut reasons: Vec<String> = user
            .gateways
            .iter()
            .map(|it| match (it.outcome, user.fate) {
                (Outcome::Sent, Fate::May) => at(it.slot, "sent: it decides for each connection"),
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
        format!("{first} would be cheaper, but who is offline is to be told (--receipt none)")
    } else if *fates_asked {
        "what becomes of each user is to be told, and it is no dearer".into()
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

//! A decoded frame as a list of fields: the specification's names, values ready to be shown.
//!
//! Fields of the fixed part are always listed, sections and variable parts if they are there.
//! Numbers of 64 bits are strings, since not every reader of JSON has them. The names, and the
//! writing of values, are those of `protocol-spec/vectors/README.md`; the prologue's version is
//! `draft`.

use serde_json::{Value, json};
use waybill_wire::Message;
use waybill_wire::code::{ErrorCode, Kind, Op, flags};
use waybill_wire::deframe::RawFrame;
use waybill_wire::frame::{
    FateSets, Frame, HOP_TIME_BYTES, HopTimes, Receipt, Record, Records, Report,
};
use waybill_wire::targets::{UID_BYTES, Uids};

use super::layout;
use crate::links::payload_text;

/// One field.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// Its byte in the frame.
    pub(super) at: usize,
    pub(super) value: Value,
    /// What people are shown instead of the value.
    pub(super) text: Option<String>,
}

/// What every frame has.
pub(super) fn head(raw: &RawFrame<'_>) -> Vec<Field> {
    let prologue = raw.prologue();
    let mut list = Fields::new(raw);
    list.fixed("draft", raw.bytes()[0]);
    list.fixed("kind", prologue.kind.to_string());
    list.fixed("header_words", prologue.header_bytes / 8);
    list.fixed("payload_len", prologue.payload_bytes);
    list.fixed("flags", flag_names(raw));
    list.fields
}

/// What this kind has.
pub(super) fn of(frame: &Frame<'_>, raw: &RawFrame<'_>) -> Vec<Field> {
    let mut list = Fields::new(raw);
    match frame {
        Frame::Publish(message)
        | Frame::Deliver(message)
        | Frame::Uplink(message)
        | Frame::Offline(message) => message_fields(&mut list, message),
        Frame::Receipt(receipt) => receipt_fields(&mut list, receipt),
        Frame::Report(report) => report_fields(&mut list, report),
        frame if session(&mut list, frame) || registration(&mut list, frame) => {}
        frame => later(&mut list, frame),
    }
    list.fields
}

/// Fields of one frame, growing.
struct Fields {
    kind: Kind,
    header_bytes: usize,
    fields: Vec<Field>,
}

impl Fields {
    fn new(raw: &RawFrame<'_>) -> Self {
        let header_bytes = raw.prologue().header_bytes;
        Self { kind: raw.kind(), header_bytes, fields: Vec::new() }
    }

    fn put(&mut self, name: &'static str, at: usize, value: impl Into<Value>) {
        self.fields.push(Field { name, at, value: value.into(), text: None });
    }

    /// A field with a fixed place.
    fn fixed(&mut self, name: &'static str, value: impl Into<Value>) {
        let at = layout::offset(self.kind, name).unwrap_or_default();
        self.put(name, at, value);
    }

    /// A number of 64 bits with a fixed place.
    fn wide(&mut self, name: &'static str, value: u64) {
        self.fixed(name, value.to_string());
    }

    /// Several of them.
    fn wides(&mut self, fields: &[(&'static str, u64)]) {
        for (name, value) in fields {
            self.wide(name, *value);
        }
    }

    /// Several small numbers.
    fn numbers(&mut self, fields: &[(&'static str, u32)]) {
        for (name, value) in fields {
            self.fixed(name, *value);
        }
    }

    fn bytes(&mut self, name: &'static str, at: usize, bytes: &[u8]) {
        self.put(name, at, hex(bytes));
        self.text(payload_text(bytes));
    }

    /// What people are shown of the last field.
    fn text(&mut self, text: String) {
        if let Some(field) = self.fields.last_mut() {
            field.text = Some(text);
        }
    }
}

/// Names of the flags that announce no section; sections show themselves.
fn flag_names(raw: &RawFrame<'_>) -> Value {
    let table = match raw.kind() {
        Kind::PUBLISH | Kind::DELIVER | Kind::UPLINK | Kind::OFFLINE => &flags::message::ALL[..3],
        Kind::HELLO => flags::link::ALL,
        Kind::WELCOME => flags::welcome::ALL,
        Kind::ERROR => flags::error::ALL,
        Kind::RECEIPT => &flags::receipt::ALL[..1],
        Kind::FRAGMENT => flags::fragment::ALL,
        Kind::SNAPSHOT => flags::snapshot::ALL,
        Kind::ACK => flags::ack::ALL,
        _ => &[],
    };
    let set = raw.bytes().get(8..10).map_or(0, |flags| u16::from_le_bytes([flags[0], flags[1]]));
    table.iter().filter(|(_, bit)| set >> bit & 1 == 1).map(|(name, _)| *name).collect()
}

fn message_fields(list: &mut Fields, message: &Message<'_>) {
    list.fixed("mode", message.mode.to_string());
    list.fixed("class", message.class.to_string());
    list.fixed("level", message.level.to_string());
    list.fixed("priority", message.priority.to_string());
    list.fixed("hops", message.hops);
    list.wide("sequence", message.sequence);
    list.numbers(&[("namespace", message.namespace), ("ttl_ms", message.ttl_ms)]);
    let at = sections(list, message, MESSAGE_FIXED_BYTES);
    let at = lists(list, message, at);
    if !message.targets.is_empty() {
        list.put("targets", at, uids(Uids::Run(message.targets)));
    }
    if !message.payload.is_empty() {
        list.bytes("payload", list.header_bytes, message.payload);
    }
}

const MESSAGE_FIXED_BYTES: usize = 32;
const TAG_FIXED_BYTES: usize = 40;

/// Sections of one size, from byte `at` on; where they end.
fn sections(list: &mut Fields, message: &Message<'_>, mut at: usize) -> usize {
    let mut put = |name, value: Option<Value>, size: usize| {
        if let Some(value) = value {
            list.put(name, at, value);
            at += size;
        }
    };
    put("origin", message.origin.map(|origin| json!(origin.to_string())), 8);
    put("trace", message.trace.map(|trace| hex(trace).into()), 16);
    put("conflate", message.conflate.map(|key| json!(key.to_string())), 8);
    let sender = message.sender.map(|sender| {
        json!({ "uid": sender.uid.to_string(), "connection": sender.connection.to_string() })
    });
    put("sender", sender, 16);
    let part = message.part.map(
        |part| json!({ "list": part.list.to_string(), "index": part.index, "parts": part.parts }),
    );
    put("part", part, 16);
    let content = message.content.map(|content| {
        json!({
            "content_type": name_or(content.content_type.name(), content.content_type.0),
            "encoding": name_or(content.encoding.name(), content.encoding.0),
        })
    });
    put("content", content, 8);
    put("fragmented", message.fragmented.map(|total| json!({ "total": total })), 8);
    let history = message.history.map(|history| {
        json!({ "channel": history.channel.to_string(), "cursor": history.cursor.to_string() })
    });
    put("history", history, 16);
    at
}

/// Sections of any size; where they end.
fn lists(list: &mut Fields, message: &Message<'_>, mut at: usize) -> usize {
    if !message.labels.is_empty() {
        list.put("labels", at, message.labels.iter().collect::<Vec<&str>>());
        let bytes: usize = message.labels.iter().map(|label| 1 + label.len()).sum();
        at += 8 + bytes.next_multiple_of(8);
    }
    if let Some(selector) = message.selector {
        list.put("selector", at, hex(selector.bytes()));
        list.text(selector.to_string());
        at += 8 + selector.bytes().len().next_multiple_of(8);
    }
    if !message.except.is_empty() {
        list.put("except", at, uids(Uids::Run(message.except)));
        at += 8 + message.except.len() * UID_BYTES;
    }
    if !message.extensions.is_empty() {
        let items = message.extensions.iter();
        let shown =
            items.map(|item| json!({ "type": item.extension_type, "data": hex(item.data) }));
        list.put("extensions", at, shown.collect::<Vec<_>>());
        let sizes = message.extensions.iter().map(|item| 8 + item.data.len().next_multiple_of(8));
        at += 8 + sizes.sum::<usize>();
    }
    at
}

fn receipt_fields(list: &mut Fields, receipt: &Receipt<'_>) {
    list.fixed("stage", receipt.stage.to_string());
    list.fixed("code", code(receipt.code));
    list.wide("sequence", receipt.sequence);
    list.numbers(&[
        ("sent", receipt.sent),
        ("offline", receipt.offline),
        ("unknown", receipt.unknown),
        ("filtered", receipt.filtered),
        ("dropped", receipt.dropped),
        ("gateways", receipt.gateways),
    ]);
    fates(list, receipt.fate_sets);
    hop_times(list, receipt.hops);
}

fn report_fields(list: &mut Fields, report: &Report<'_>) {
    list.fixed("stage", report.stage.to_string());
    list.wides(&[("sequence", report.sequence), ("origin", report.origin)]);
    list.numbers(&[
        ("reached", report.reached),
        ("offline", report.offline),
        ("filtered", report.filtered),
        ("dropped", report.dropped),
        ("unknown", report.unknown),
    ]);
    fates(list, report.fate_sets);
    hop_times(list, report.hops);
}

fn fates(list: &mut Fields, sets: FateSets<'_>) {
    if sets.is_empty() {
        return;
    }
    let shown = sets.iter().map(|set| {
        json!({ "fate": set.fate.to_string(), "cause": code(set.cause), "uids": uids(set.uids) })
    });
    list.fixed("fate_sets", shown.collect::<Vec<_>>());
}

/// Session frames (7.1) and those with the same plain shape; whether it was one.
fn session(list: &mut Fields, frame: &Frame<'_>) -> bool {
    match frame {
        Frame::Hello(hello) => {
            list.fixed("role", hello.role.to_string());
            list.numbers(&[
                ("version_min", hello.version_min.into()),
                ("version_max", hello.version_max.into()),
            ]);
            list.wides(&[
                ("instance", hello.instance),
                ("session", hello.session),
                ("capabilities", hello.capabilities),
            ]);
            list.fixed("route_group", hello.route_group);
            list.fixed("wanted_shard", hello.wanted_shard);
            if !hello.credential.is_empty() {
                list.fixed("credential", hex(hello.credential));
            }
        }
        Frame::Welcome(welcome) => {
            list.fixed("state", welcome.state.to_string());
            list.numbers(&[("version", welcome.version.into()), ("shard", welcome.shard.into())]);
            list.wides(&[
                ("session", welcome.session),
                ("capabilities", welcome.capabilities),
                ("broker", welcome.broker),
            ]);
            list.numbers(&[
                ("shards", welcome.shards.into()),
                ("keepalive_ms", welcome.keepalive_ms),
                ("credit", welcome.credit),
                ("payload_max", welcome.payload_max),
            ]);
        }
        Frame::State(state) => {
            list.fixed("state", state.state.to_string());
            list.fixed("gateways_missing", state.gateways_missing);
        }
        Frame::Ping(ping) => list.fixed("token", ping.token),
        Frame::Pong(pong) => list.fixed("token", pong.token),
        Frame::Drain(drain) => list.fixed("deadline_ms", drain.deadline_ms),
        Frame::Error(error) => error_fields(list, error),
        Frame::Credit(credit) => {
            list.fixed("lane", credit.lane.to_string());
            list.fixed("frames", credit.frames);
        }
        Frame::Fragment(fragment) => {
            list.fixed("offset", fragment.offset);
            list.wides(&[("sequence", fragment.sequence), ("origin", fragment.origin)]);
            list.bytes("payload", list.header_bytes, fragment.payload);
        }
        Frame::UplinkAck(ack) => {
            list.fixed("code", code(ack.code));
            list.wides(&[("sequence", ack.sequence), ("origin", ack.origin)]);
        }
        _ => return false,
    }
    true
}

fn error_fields(list: &mut Fields, error: &waybill_wire::frame::ErrorFrame<'_>) {
    list.fixed("code", code(error.code));
    list.fixed("ref_kind", error.ref_kind.0);
    if error.ref_kind != Kind(0) {
        list.text(error.ref_kind.to_string());
    }
    list.wide("ref", error.reference);
    list.fixed("retry_after_ms", error.retry_after_ms);
    if !error.detail.is_empty() {
        list.fixed("detail", error.detail);
    }
}

/// Registration (7.3); whether it was one.
fn registration(list: &mut Fields, frame: &Frame<'_>) -> bool {
    match frame {
        Frame::Delta(delta) => records(list, delta.version, delta.records),
        Frame::Snapshot(snapshot) => records(list, snapshot.version, snapshot.records),
        Frame::Barrier(barrier) => {
            list.wides(&[("version", barrier.version), ("digest", barrier.digest)]);
        }
        Frame::InEffect(effect) => {
            list.wides(&[("version", effect.version), ("digest", effect.digest)]);
        }
        Frame::Suspend(suspend) => list.fixed("window_ms", suspend.window_ms),
        Frame::Resume(resume) => list.wides(&[
            ("session", resume.session),
            ("version", resume.version),
            ("digest", resume.digest),
        ]),
        Frame::Resumed(resumed) => {
            list.wides(&[("version", resumed.version), ("digest", resumed.digest)]);
        }
        Frame::Displaced(displaced) => {
            list.fixed("device_class", displaced.device_class);
            list.fixed("namespace", displaced.namespace);
            list.wides(&[
                ("uid", displaced.uid),
                ("login", displaced.login),
                ("winner", displaced.winner),
            ]);
        }
        Frame::TagDelta(delta) => {
            list.wide("version", delta.version);
            let shown = delta.tag_records.iter().map(|record| {
                json!({ "namespace": record.namespace, "op": op(record.op), "tag": record.tag })
            });
            list.fixed("tag_records", shown.collect::<Vec<_>>());
        }
        _ => return false,
    }
    true
}

fn records(list: &mut Fields, version: u64, records: Records<'_>) {
    list.wide("version", version);
    let shown = records.iter().map(|record| {
        let Record { uid, login, namespace, device_class, .. } = record;
        json!({
            "uid": uid.to_string(),
            "login": login.to_string(),
            "namespace": namespace,
            "op": op(record.op),
            "device_class": device_class,
        })
    });
    list.fixed("records", shown.collect::<Vec<_>>());
}

/// Consumers, tags, presence and stored messages (7.4, 7.5).
fn later(list: &mut Fields, frame: &Frame<'_>) {
    match frame {
        Frame::Filter(filter) => {
            list.fixed("op", op(filter.op));
            list.numbers(&[("filter", filter.filter), ("namespace", filter.namespace)]);
            list.fixed("expression", filter.expression);
        }
        Frame::Group(group) => {
            list.fixed("op", op(group.op));
            list.fixed("namespace", group.namespace);
            list.fixed("name", group.name);
        }
        Frame::Tag(tag) => {
            list.fixed("namespace", tag.namespace);
            list.wides(&[("sequence", tag.sequence), ("origin", tag.origin)]);
            list.fixed("uids", uids(tag.uids));
            let at = TAG_FIXED_BYTES + tag.uids.len() * UID_BYTES;
            let changes = tag.changes.iter();
            let shown = changes.map(|change| json!({ "op": op(change.op), "tag": change.tag }));
            list.put("changes", at, shown.collect::<Vec<_>>());
        }
        Frame::Presence(presence) => {
            list.fixed("event", presence.event.to_string());
            list.fixed("device_class", presence.device_class);
            list.fixed("namespace", presence.namespace);
            list.wides(&[
                ("uid", presence.uid),
                ("login", presence.login),
                ("gateway", presence.gateway),
            ]);
        }
        Frame::PresenceQuery(query) => {
            list.fixed("namespace", query.namespace);
            list.wide("sequence", query.sequence);
            list.fixed("uids", uids(query.uids));
        }
        Frame::Fetch(fetch) => {
            list.numbers(&[("limit", fetch.limit.into()), ("namespace", fetch.namespace)]);
            list.wides(&[
                ("sequence", fetch.sequence),
                ("uid", fetch.uid),
                ("channel", fetch.channel),
                ("after", fetch.after),
            ]);
        }
        Frame::PageEnd(end) => {
            list.fixed("count", end.count);
            list.wides(&[("sequence", end.sequence), ("next", end.next)]);
        }
        Frame::Ack(ack) => {
            list.fixed("namespace", ack.namespace);
            list.wide("uid", ack.uid);
            let pairs = ack.pairs.iter().map(|(a, b)| json!([a.to_string(), b.to_string()]));
            list.fixed("pairs", pairs.collect::<Vec<_>>());
        }
        // A kind that the codec got and this file did not: its head is shown.
        _ => {}
    }
}

fn uids(uids: Uids<'_>) -> Value {
    uids.iter().map(|uid| uid.to_string()).collect()
}

fn op(op: Op) -> String {
    op.to_string()
}

/// An error by its name, its number if it is not registered, 0 for none.
fn code(code: ErrorCode) -> Value {
    name_or(code.name(), code.0)
}

fn name_or(name: Option<&str>, number: u16) -> Value {
    name.map_or_else(|| number.into(), Into::into)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// They are the end of the header.
fn hop_times(list: &mut Fields, hops: HopTimes<'_>) {
    if hops.is_empty() {
        return;
    }
    let at = list.header_bytes - hops.times.len() * HOP_TIME_BYTES;
    list.put("left_out", at - 4, hops.left_out);
    let shown = hops.times.iter().map(|it| {
        json!({
            "time": it.time_us.to_string(),
            "process": it.process.to_string(),
            "gateway": it.gateway.to_string(),
            "hop": it.hop.to_string(),
        })
    });
    list.put("hop_times", at, shown.collect::<Vec<_>>());
}

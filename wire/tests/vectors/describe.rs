//! A decoded frame as the fields a vector would give it.

use toml::{Table, Value};
use waybill_wire::frame::{FateSets, HopTimes, Records, TagChange};
use waybill_wire::targets::Uids;
use waybill_wire::{Frame, Message};

use super::fields::{from_number, hex, tidy};

/// Fields being collected.
struct Fields(Table);

impl Fields {
    fn number(mut self, key: &str, value: impl Into<u64>) -> Self {
        self.0.insert(key.into(), from_number(value.into()));
        self
    }

    fn put(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.into(), value.into());
        self
    }

    fn section(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    fn uids(self, key: &str, uids: Uids<'_>) -> Self {
        self.put(key, uids.iter().map(from_number).collect::<Vec<_>>())
    }

    fn flags(self, flags: &[(&str, bool)]) -> Self {
        let mut set: Vec<&str> =
            flags.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        set.sort_unstable();
        self.put("flags", set)
    }

    fn sets(self, sets: FateSets<'_>) -> Self {
        let sets: Vec<Value> = sets
            .iter()
            .map(|set| {
                let fields = table().number("fate", set.fate.0).number("cause", set.cause.0);
                fields.uids("uids", set.uids).value()
            })
            .collect();
        self.put("fate_sets", sets)
    }

    fn hops(self, hops: HopTimes<'_>) -> Self {
        let times: Vec<Value> = hops
            .times
            .iter()
            .map(|it| {
                let fields = table().number("time", it.time_us).number("process", it.process);
                fields.number("gateway", it.gateway).number("hop", it.hop.0).value()
            })
            .collect();
        self.number("left_out", hops.left_out).put("hop_times", times)
    }

    fn records(self, records: Records<'_>) -> Self {
        let records: Vec<Value> = records
            .iter()
            .map(|record| {
                let fields = table().number("uid", record.uid).number("login", record.login);
                let fields = fields.number("namespace", record.namespace);
                fields.number("op", record.op.0).number("device_class", record.device_class).value()
            })
            .collect();
        self.put("records", records)
    }

    fn value(self) -> Value {
        Value::Table(tidy(self.0, false))
    }
}

fn table() -> Fields {
    Fields(Table::new())
}

pub(crate) fn describe(frame: &Frame<'_>) -> Table {
    let kind = frame.kind().name().unwrap();
    let (fields, message) = match frame {
        Frame::Publish(it) | Frame::Deliver(it) | Frame::Uplink(it) | Frame::Offline(it) => {
            (describe_message(it), true)
        }
        _ => (describe_other(frame), false),
    };
    tidy(fields.put("kind", kind).0, message)
}

fn describe_message(it: &Message<'_>) -> Fields {
    let set = [("RESEND", it.resend), ("EVERYONE", it.everyone), ("EXCEPT_SELF", it.except_self)];
    let extensions: Vec<Value> = it
        .extensions
        .iter()
        .map(|item| table().number("type", item.extension_type).put("data", hex(item.data)).value())
        .collect();
    table()
        .flags(&set)
        .number("mode", it.mode.0)
        .number("class", it.class.0)
        .number("level", it.level.0)
        .number("priority", it.priority.0)
        .number("hops", it.hops)
        .number("sequence", it.sequence)
        .number("namespace", it.namespace)
        .number("ttl_ms", it.ttl_ms)
        .section("origin", it.origin.map(from_number))
        .section("trace", it.trace.map(|trace| hex(trace)))
        .section("conflate", it.conflate.map(from_number))
        .section(
            "sender",
            it.sender.map(|sender| {
                let fields = table().number("uid", sender.uid);
                fields.number("connection", sender.connection).value()
            }),
        )
        .section(
            "part",
            it.part.map(|part| {
                let fields = table().number("list", part.list).number("index", part.index);
                fields.number("parts", part.parts).value()
            }),
        )
        .section(
            "content",
            it.content.map(|content| {
                let fields = table().number("content_type", content.content_type.0);
                fields.number("encoding", content.encoding.0).value()
            }),
        )
        .section("fragmented", it.fragmented.map(|total| table().number("total", total).value()))
        .section(
            "history",
            it.history.map(|history| {
                let fields = table().number("channel", history.channel);
                fields.number("cursor", history.cursor).value()
            }),
        )
        .put("labels", it.labels.iter().collect::<Vec<_>>())
        .section("selector", it.selector.map(|selector| hex(selector.bytes())))
        .uids("except", it.except.into())
        .put("extensions", extensions)
        .uids("targets", it.targets.into())
        .put("payload", hex(it.payload))
}

fn describe_other(frame: &Frame<'_>) -> Fields {
    match frame {
        Frame::Hello(it) => table()
            .flags(&[("DATA", it.data)])
            .number("role", it.role.0)
            .number("version_min", it.version_min)
            .number("version_max", it.version_max)
            .number("instance", it.instance)
            .number("session", it.session)
            .number("capabilities", it.capabilities)
            .number("route_group", it.route_group)
            .number("wanted_shard", it.wanted_shard)
            .put("credential", hex(it.credential)),
        Frame::Welcome(it) => table()
            .flags(&[("RESUMED", it.resumed)])
            .number("state", it.state.0)
            .number("version", it.version)
            .number("shard", it.shard)
            .number("session", it.session)
            .number("capabilities", it.capabilities)
            .number("broker", it.broker)
            .number("shards", it.shards)
            .number("keepalive_ms", it.keepalive_ms)
            .number("credit", it.credit)
            .number("payload_max", it.payload_max),
        Frame::State(it) => {
            table().number("state", it.state.0).number("gateways_missing", it.gateways_missing)
        }
        Frame::Ping(it) => table().number("token", it.token),
        Frame::Pong(it) => table().number("token", it.token),
        Frame::Drain(it) => table().number("deadline_ms", it.deadline_ms),
        Frame::Error(it) => table()
            .flags(&[("FATAL", it.fatal)])
            .number("code", it.code.0)
            .number("ref_kind", it.ref_kind.0)
            .number("ref", it.reference)
            .number("retry_after_ms", it.retry_after_ms)
            .put("detail", it.detail),
        Frame::Credit(it) => table().number("lane", it.lane.0).number("frames", it.frames),
        Frame::Fragment(it) => table()
            .flags(&[("LAST", it.last)])
            .number("offset", it.offset)
            .number("sequence", it.sequence)
            .number("origin", it.origin)
            .put("payload", hex(it.payload)),
        Frame::Receipt(_) | Frame::Report(_) => describe_receipts(frame),
        _ => describe_registration(frame),
    }
}

fn describe_receipts(frame: &Frame<'_>) -> Fields {
    match frame {
        Frame::Receipt(it) => table()
            .flags(&[("FINAL", it.last)])
            .number("stage", it.stage.0)
            .number("code", it.code.0)
            .number("sequence", it.sequence)
            .number("sent", it.sent)
            .number("offline", it.offline)
            .number("unknown", it.unknown)
            .number("filtered", it.filtered)
            .number("dropped", it.dropped)
            .number("gateways", it.gateways)
            .sets(it.fate_sets)
            .hops(it.hops),
        Frame::Report(it) => table()
            .number("stage", it.stage.0)
            .number("sequence", it.sequence)
            .number("origin", it.origin)
            .number("reached", it.reached)
            .number("offline", it.offline)
            .number("filtered", it.filtered)
            .number("dropped", it.dropped)
            .number("unknown", it.unknown)
            .sets(it.fate_sets)
            .hops(it.hops),
        _ => describe_registration(frame),
    }
}

fn describe_registration(frame: &Frame<'_>) -> Fields {
    match frame {
        Frame::UplinkAck(it) => table()
            .number("code", it.code.0)
            .number("sequence", it.sequence)
            .number("origin", it.origin),
        Frame::Delta(it) => table().number("version", it.version).records(it.records),
        Frame::Snapshot(it) => table()
            .flags(&[("FIRST", it.first), ("LAST", it.last)])
            .number("version", it.version)
            .records(it.records),
        Frame::Barrier(it) => table().number("version", it.version).number("digest", it.digest),
        Frame::InEffect(it) => table().number("version", it.version).number("digest", it.digest),
        Frame::Suspend(it) => table().number("window_ms", it.window_ms),
        Frame::Resume(it) => table()
            .number("session", it.session)
            .number("version", it.version)
            .number("digest", it.digest),
        Frame::Resumed(it) => table().number("version", it.version).number("digest", it.digest),
        Frame::Displaced(it) => table()
            .number("device_class", it.device_class)
            .number("namespace", it.namespace)
            .number("uid", it.uid)
            .number("login", it.login)
            .number("winner", it.winner),
        Frame::TagDelta(it) => {
            let records: Vec<Value> = it
                .tag_records
                .iter()
                .map(|record| {
                    let fields = table().number("namespace", record.namespace);
                    fields.number("op", record.op.0).put("tag", record.tag).value()
                })
                .collect();
            table().number("version", it.version).put("tag_records", records)
        }
        _ => describe_later(frame),
    }
}

fn describe_later(frame: &Frame<'_>) -> Fields {
    match frame {
        Frame::Filter(it) => table()
            .number("op", it.op.0)
            .number("filter", it.filter)
            .number("namespace", it.namespace)
            .put("expression", it.expression),
        Frame::Group(it) => {
            table().number("op", it.op.0).number("namespace", it.namespace).put("name", it.name)
        }
        Frame::Tag(it) => {
            let change = |it: TagChange<'_>| table().number("op", it.op.0).put("tag", it.tag);
            let changes: Vec<Value> = it.changes.iter().map(|it| change(it).value()).collect();
            table()
                .number("namespace", it.namespace)
                .number("sequence", it.sequence)
                .number("origin", it.origin)
                .uids("uids", it.uids)
                .put("changes", changes)
        }
        Frame::Presence(it) => table()
            .number("event", it.event.0)
            .number("device_class", it.device_class)
            .number("namespace", it.namespace)
            .number("uid", it.uid)
            .number("login", it.login)
            .number("gateway", it.gateway),
        Frame::PresenceQuery(it) => table()
            .number("namespace", it.namespace)
            .number("sequence", it.sequence)
            .uids("uids", it.uids),
        Frame::Fetch(it) => table()
            .number("limit", it.limit)
            .number("namespace", it.namespace)
            .number("sequence", it.sequence)
            .number("uid", it.uid)
            .number("channel", it.channel)
            .number("after", it.after),
        Frame::PageEnd(it) => table()
            .number("count", it.count)
            .number("sequence", it.sequence)
            .number("next", it.next),
        Frame::Ack(it) => {
            let pairs: Vec<Vec<Value>> = it
                .pairs
                .iter()
                .map(|(first, second)| vec![from_number(first), from_number(second)])
                .collect();
            table()
                .flags(&[("CUMULATIVE", it.cumulative)])
                .number("namespace", it.namespace)
                .number("uid", it.uid)
                .put("pairs", pairs)
        }
        other => panic!("{} is not described", other.kind()),
    }
}

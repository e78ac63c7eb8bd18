//! A frame made from a vector's fields alone. A field name that its kind does not have is an error.

use std::cell::RefCell;
use std::collections::BTreeSet;

use toml::{Table, Value};
use waybill_wire::code::{
    BrokerState, Class, ContentType, Encoding, ErrorCode, Event, Fate, Kind, Lane, Level, Mode, Op,
    Priority, Role, TraceHop,
};
use waybill_wire::frame::*;
use waybill_wire::message::{Content, Extension, History, Part, Sender};
use waybill_wire::targets::Uids;
use waybill_wire::{MessageHead, Selector, Unencodable};

use super::fields::{code, number, unhex};

/// Fields of one table, and which of them were asked for.
struct Fields<'t> {
    table: &'t Table,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'t> Fields<'t> {
    fn new(table: &'t Table) -> Self {
        Self { table, asked: RefCell::default() }
    }

    fn get(&self, key: &'static str) -> Option<&'t Value> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    fn number<T: TryFrom<u64>>(&self, key: &'static str) -> T {
        let value = self.get(key).map_or(0, |value| code(key, value));
        T::try_from(value).unwrap_or_else(|_| panic!("{key} {value} does not fit its field"))
    }

    fn text(&self, key: &'static str) -> &'t str {
        self.get(key).map_or("", |value| value.as_str().unwrap())
    }

    fn bytes(&self, key: &'static str) -> Vec<u8> {
        unhex(self.text(key))
    }

    fn list(&self, key: &'static str) -> &'t [Value] {
        self.get(key).map_or(&[], |value| value.as_array().unwrap())
    }

    fn numbers(&self, key: &'static str) -> Vec<u64> {
        self.list(key).iter().map(number).collect()
    }

    fn tables(&self, key: &'static str) -> Vec<Fields<'t>> {
        self.list(key).iter().map(|entry| Fields::new(entry.as_table().unwrap())).collect()
    }

    fn table<T>(&self, key: &'static str, read: impl Fn(&Fields<'t>) -> T) -> Option<T> {
        let fields = Fields::new(self.get(key)?.as_table().unwrap());
        let value = read(&fields);
        fields.finish();
        Some(value)
    }

    fn flag(&self, name: &str) -> bool {
        self.list("flags").iter().any(|flag| flag.as_str() == Some(name))
    }

    fn op(&self) -> Op {
        Op(self.number("op"))
    }

    /// Every field was asked for.
    fn finish(&self) {
        let asked = self.asked.borrow();
        for key in self.table.keys() {
            assert!(asked.contains(key.as_str()), "unknown field {key} in {:?}", self.table);
        }
    }
}

pub(crate) fn encode(table: &Table, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let fields = Fields::new(table);
    let kind = Kind::from_name(fields.text("kind")).expect("a kind");
    let result = match kind {
        Kind::PUBLISH | Kind::DELIVER | Kind::UPLINK | Kind::OFFLINE => message(kind, &fields, out),
        Kind::RECEIPT | Kind::REPORT | Kind::FRAGMENT => receipts(kind, &fields, out),
        Kind::DELTA | Kind::SNAPSHOT | Kind::TAG_DELTA => records(kind, &fields, out),
        _ if kind.0 < 0x10 => session(kind, &fields, out),
        _ if kind.0 < 0x28 => fixed(kind, &fields, out),
        _ => later(kind, &fields, out),
    };
    fields.finish();
    result
}

fn message(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let trace: Option<[u8; 16]> =
        fields.get("trace").map(|trace| unhex(trace.as_str().unwrap()).try_into().unwrap());
    let labels: Vec<&str> =
        fields.list("labels").iter().map(|label| label.as_str().unwrap()).collect();
    let selector = fields.get("selector").map(|selector| unhex(selector.as_str().unwrap()));
    let except = fields.numbers("except");
    let data: Vec<(u16, Vec<u8>)> = fields
        .tables("extensions")
        .iter()
        .map(|item| (item.number("type"), item.bytes("data")))
        .collect();
    let extensions: Vec<Extension<'_>> = data
        .iter()
        .map(|(extension_type, data)| Extension { extension_type: *extension_type, data })
        .collect();
    let head = MessageHead {
        resend: fields.flag("RESEND"),
        everyone: fields.flag("EVERYONE"),
        except_self: fields.flag("EXCEPT_SELF"),
        mode: Mode(fields.number("mode")),
        class: Class(fields.number("class")),
        level: Level(fields.number("level")),
        priority: Priority(fields.number("priority")),
        hops: fields.number("hops"),
        sequence: fields.number("sequence"),
        namespace: fields.number("namespace"),
        ttl_ms: fields.number("ttl_ms"),
        origin: fields.get("origin").map(number),
        trace: trace.as_ref(),
        conflate: fields.get("conflate").map(number),
        sender: fields.table("sender", |it| Sender {
            uid: it.number("uid"),
            connection: it.number("connection"),
        }),
        part: fields.table("part", |it| Part {
            list: it.number("list"),
            index: it.number("index"),
            parts: it.number("parts"),
        }),
        content: fields.table("content", |it| Content {
            content_type: ContentType(it.number("content_type")),
            encoding: Encoding(it.number("encoding")),
        }),
        fragmented: fields.table("fragmented", |it| it.number("total")),
        history: fields.table("history", |it| History {
            channel: it.number("channel"),
            cursor: it.number("cursor"),
        }),
        labels: (&labels).into(),
        selector: selector.as_deref().map(|bytes| Selector::check(bytes).unwrap()),
        except: (&except).into(),
        extensions: (&extensions).into(),
    };
    head.encode(kind, &fields.numbers("targets"), &fields.bytes("payload"), out)
}

fn receipts(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    if kind == Kind::FRAGMENT {
        let frame = Fragment {
            last: fields.flag("LAST"),
            offset: fields.number("offset"),
            sequence: fields.number("sequence"),
            origin: fields.number("origin"),
            payload: &fields.bytes("payload"),
        };
        return frame.encode(out);
    }
    let sets = fields.tables("fate_sets");
    let uids: Vec<Vec<u64>> = sets.iter().map(|set| set.numbers("uids")).collect();
    let sets: Vec<FateSet<'_>> = sets
        .iter()
        .zip(&uids)
        .map(|(set, uids)| FateSet {
            fate: Fate(set.number("fate")),
            cause: ErrorCode(set.number("cause")),
            uids: Uids::from(uids),
        })
        .collect();
    let stage = Level(fields.number("stage"));
    let sequence = fields.number("sequence");
    let offline = fields.number("offline");
    let filtered = fields.number("filtered");
    let dropped = fields.number("dropped");
    let fate_sets = (&sets).into();
    let hops: Vec<HopTime> = fields.tables("hop_times").iter().map(hop_time).collect();
    let hops = HopTimes { left_out: fields.number("left_out"), times: (&hops).into() };
    if kind == Kind::REPORT {
        let frame = Report {
            stage,
            sequence,
            origin: fields.number("origin"),
            reached: fields.number("reached"),
            offline,
            filtered,
            dropped,
            unknown: fields.number("unknown"),
            fate_sets,
            hops,
        };
        return frame.encode(out);
    }
    let frame = Receipt {
        last: fields.flag("FINAL"),
        stage,
        code: ErrorCode(fields.number("code")),
        sequence,
        sent: fields.number("sent"),
        offline,
        unknown: fields.number("unknown"),
        filtered,
        dropped,
        gateways: fields.number("gateways"),
        fate_sets,
        hops,
    };
    frame.encode(out)
}

fn hop_time(fields: &Fields<'_>) -> HopTime {
    HopTime {
        time_us: fields.number("time"),
        process: fields.number("process"),
        gateway: fields.number("gateway"),
        hop: TraceHop(fields.number("hop")),
    }
}

fn records(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let version = fields.number("version");
    if kind == Kind::TAG_DELTA {
        let records: Vec<TagRecord<'_>> = fields
            .tables("tag_records")
            .iter()
            .map(|it| TagRecord {
                namespace: it.number("namespace"),
                op: it.op(),
                tag: it.text("tag"),
            })
            .collect();
        return TagDelta { version, tag_records: (&records).into() }.encode(out);
    }
    let records: Vec<Record> = fields
        .tables("records")
        .iter()
        .map(|it| {
            let record = Record {
                uid: it.number("uid"),
                login: it.number("login"),
                namespace: it.number("namespace"),
                op: it.op(),
                device_class: it.number("device_class"),
            };
            it.finish();
            record
        })
        .collect();
    let records = (&records).into();
    if kind == Kind::DELTA {
        return Delta { version, records }.encode(out);
    }
    Snapshot { first: fields.flag("FIRST"), last: fields.flag("LAST"), version, records }
        .encode(out)
}

fn session(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    match kind {
        Kind::HELLO => {
            let hello = Hello {
                data: fields.flag("DATA"),
                role: Role(fields.number("role")),
                version_min: fields.number("version_min"),
                version_max: fields.number("version_max"),
                instance: fields.number("instance"),
                session: fields.number("session"),
                capabilities: fields.number("capabilities"),
                route_group: fields.number("route_group"),
                wanted_shard: fields.number("wanted_shard"),
                credential: &fields.bytes("credential"),
            };
            return hello.encode(out);
        }
        Kind::WELCOME => Welcome {
            resumed: fields.flag("RESUMED"),
            state: BrokerState(fields.number("state")),
            version: fields.number("version"),
            shard: fields.number("shard"),
            session: fields.number("session"),
            capabilities: fields.number("capabilities"),
            broker: fields.number("broker"),
            shards: fields.number("shards"),
            keepalive_ms: fields.number("keepalive_ms"),
            credit: fields.number("credit"),
            payload_max: fields.number("payload_max"),
        }
        .encode(out),
        Kind::STATE => State {
            state: BrokerState(fields.number("state")),
            gateways_missing: fields.number("gateways_missing"),
        }
        .encode(out),
        Kind::PING => Ping { token: fields.number("token") }.encode(out),
        Kind::PONG => Pong { token: fields.number("token") }.encode(out),
        Kind::DRAIN => Drain { deadline_ms: fields.number("deadline_ms") }.encode(out),
        Kind::CREDIT => {
            Credit { lane: Lane(fields.number("lane")), frames: fields.number("frames") }
                .encode(out);
        }
        Kind::ERROR => ErrorFrame {
            fatal: fields.flag("FATAL"),
            code: ErrorCode(fields.number("code")),
            ref_kind: Kind(fields.number("ref_kind")),
            reference: fields.number("ref"),
            retry_after_ms: fields.number("retry_after_ms"),
            detail: fields.text("detail"),
        }
        .encode(out),
        other => panic!("{other}"),
    }
    Ok(())
}

fn fixed(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    match kind {
        Kind::UPLINK_ACK => UplinkAck {
            code: ErrorCode(fields.number("code")),
            sequence: fields.number("sequence"),
            origin: fields.number("origin"),
        }
        .encode(out),
        Kind::BARRIER => {
            Barrier { version: fields.number("version"), digest: fields.number("digest") }
                .encode(out);
        }
        Kind::IN_EFFECT => {
            InEffect { version: fields.number("version"), digest: fields.number("digest") }
                .encode(out);
        }
        Kind::SUSPEND => Suspend { window_ms: fields.number("window_ms") }.encode(out),
        Kind::RESUME => Resume {
            session: fields.number("session"),
            version: fields.number("version"),
            digest: fields.number("digest"),
        }
        .encode(out),
        Kind::RESUMED => {
            Resumed { version: fields.number("version"), digest: fields.number("digest") }
                .encode(out);
        }
        Kind::DISPLACED => Displaced {
            device_class: fields.number("device_class"),
            namespace: fields.number("namespace"),
            uid: fields.number("uid"),
            login: fields.number("login"),
            winner: fields.number("winner"),
        }
        .encode(out),
        other => panic!("{other}"),
    }
    Ok(())
}

fn later(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let namespace = || fields.number("namespace");
    match kind {
        Kind::FILTER => Filter {
            op: fields.op(),
            filter: fields.number("filter"),
            namespace: namespace(),
            expression: fields.text("expression"),
        }
        .encode(out),
        Kind::GROUP => {
            Group { op: fields.op(), namespace: namespace(), name: fields.text("name") }.encode(out)
        }
        Kind::TAG => tag(fields, out),
        Kind::PRESENCE_QUERY => PresenceQuery {
            namespace: namespace(),
            sequence: fields.number("sequence"),
            uids: (&fields.numbers("uids")).into(),
        }
        .encode(out),
        Kind::ACK => {
            let pairs: Vec<(u64, u64)> = fields
                .list("pairs")
                .iter()
                .map(|pair| (number(&pair[0]), number(&pair[1])))
                .collect();
            let (cumulative, uid) = (fields.flag("CUMULATIVE"), fields.number("uid"));
            Ack { cumulative, namespace: namespace(), uid, pairs: (&pairs).into() }.encode(out)
        }
        _ => {
            later_fixed(kind, fields, out);
            Ok(())
        }
    }
}

fn tag(fields: &Fields<'_>, out: &mut Vec<u8>) -> Result<(), Unencodable> {
    let changes: Vec<TagChange<'_>> = fields
        .tables("changes")
        .iter()
        .map(|it| {
            let change = TagChange { op: it.op(), tag: it.text("tag") };
            it.finish();
            change
        })
        .collect();
    Tag {
        namespace: fields.number("namespace"),
        sequence: fields.number("sequence"),
        origin: fields.number("origin"),
        uids: (&fields.numbers("uids")).into(),
        changes: (&changes).into(),
    }
    .encode(out)
}

fn later_fixed(kind: Kind, fields: &Fields<'_>, out: &mut Vec<u8>) {
    match kind {
        Kind::PRESENCE => Presence {
            event: Event(fields.number("event")),
            device_class: fields.number("device_class"),
            namespace: fields.number("namespace"),
            uid: fields.number("uid"),
            login: fields.number("login"),
            gateway: fields.number("gateway"),
        }
        .encode(out),
        Kind::FETCH => Fetch {
            limit: fields.number("limit"),
            namespace: fields.number("namespace"),
            sequence: fields.number("sequence"),
            uid: fields.number("uid"),
            channel: fields.number("channel"),
            after: fields.number("after"),
        }
        .encode(out),
        Kind::PAGE_END => PageEnd {
            count: fields.number("count"),
            sequence: fields.number("sequence"),
            next: fields.number("next"),
        }
        .encode(out),
        other => panic!("{other}"),
    }
}

"""A second codec of the broker link, written from chapters 2, 4, 5 and 7 alone.

    decode(bytes)  -> dict of fields, named as vectors/README.md names them; None for a frame to be skipped
    encode(dict)   -> bytes
    Deframer       -> whole frames out of any division of the bytes

Every number (kinds, flags, codes, limits) is read from registry.toml. Malformed.code is a registry name.
"""
import re
import tomllib
from pathlib import Path

REGISTRY = tomllib.loads((Path(__file__).parent.parent / "registry.toml").read_text())
LIMITS = REGISTRY["limits"]
KINDS = {name: entry["code"] for name, entry in REGISTRY["kinds"].items()}
ERRORS = {name: entry["code"] for name, entry in REGISTRY["errors"].items()}
NUMBERS = dict(REGISTRY, errors=ERRORS, kinds=KINDS)


class Malformed(Exception):
    def __init__(self, code, why=""):
        assert code in ERRORS, code
        super().__init__(code, why)
        self.code, self.why = code, why


def need(condition, code, why=""):
    if not condition:
        raise Malformed(code, why)


def name_of(table, number):
    return next((name for name, value in NUMBERS[table].items() if value == number), None)


def number(value, table=None):
    """A number as vectors write it: integer, "0x..." or, with a table, a registry name."""
    if isinstance(value, str):
        return int(value, 16) if value.startswith("0x") else NUMBERS[table][value]
    return value


def u(value, size):
    return value.to_bytes(size, "little")


def pad(data):
    return data + bytes(-len(data) % 8)


# ---- layouts: name:size, then =table (a registered value) or ~table (named if registered), >0 (not 0), <limit.
# "-" is reserved; "#x" counts the items or bytes of part x and is not a field of its own.

MESSAGE = "#targets:2<targets_max handling:1 hops:1<hops_max -:2 sequence:8>0 namespace:4 ttl_ms:4"
BARRIER = "-:2 -:4 version:8 digest:8"
FRAMES = {  # kind: (flags, fixed part from offset 10, variable parts)
    "HELLO": ("link_flags", "role:1=roles -:1 version_min:2>0 version_max:2>0 instance:8>0 session:8 capabilities:8 "
              "route_group:4 wanted_shard:2 #credential:2<credential_bytes_max", "credential"),
    "WELCOME": ("welcome_flags", "state:1=states -:1 version:2>0 shard:2 session:8>0 capabilities:8 broker:8 "
                "shards:2>0 -:2 keepalive_ms:4 credit:4 payload_max:4<payload_bytes_max", ""),
    "STATE": ("", "state:1=states -:1 gateways_missing:4", ""),
    "PING": ("", "-:2 token:4", ""),
    "PONG": ("", "-:2 token:4", ""),
    "DRAIN": ("", "-:2 deadline_ms:4", ""),
    "ERROR": ("error_flags", "code:2~errors>0 ref_kind:1 -:1 #detail:2<detail_bytes_max ref:8 retry_after_ms:4 -:4", "detail"),
    "CREDIT": ("", "lane:1=lanes -:1 frames:4", ""),
    "PUBLISH": ("message_flags", MESSAGE, "message"),
    "DELIVER": ("message_flags", MESSAGE, "message"),
    "UPLINK": ("message_flags", MESSAGE, "message"),
    "OFFLINE": ("message_flags", MESSAGE, "message"),
    "FRAGMENT": ("fragment_flags", "-:2 offset:4 sequence:8 origin:8", ""),
    "RECEIPT": ("receipt_flags", "stage:1=levels>0 -:1 code:2~errors #fate_sets:2<fates_max sequence:8 sent:4 "
                "offline:4 unknown:4 filtered:4 dropped:4 gateways:4", "fate_sets hop_times"),
    "REPORT": ("report_flags", "stage:1=levels -:1 #fate_sets:2<fates_max -:2 sequence:8 origin:8 reached:4 offline:4 "
               "filtered:4 dropped:4 unknown:4 -:4", "fate_sets hop_times"),
    "UPLINK_ACK": ("", "code:2~errors -:4 sequence:8 origin:8", ""),
    "DELTA": ("", "#records:2>0<records_max -:4 version:8>0", "records"),
    "SNAPSHOT": ("snapshot_flags", "#records:2<records_max -:4 version:8>0", "records"),
    "BARRIER": ("", BARRIER, ""),
    "IN_EFFECT": ("", BARRIER, ""),
    "SUSPEND": ("", "-:2 window_ms:4", ""),
    "RESUME": ("", "-:2 -:4 session:8 version:8 digest:8", ""),
    "RESUMED": ("", BARRIER, ""),
    "DISPLACED": ("", "device_class:1 -:1 namespace:4 uid:8 login:8 winner:8", ""),
    "TAG_DELTA": ("", "#tag_records:2>0<tag_records_max -:4 version:8>0", "tag_records"),
    "FILTER": ("", "op:1=ops -:1 #expression:2<expression_bytes_max -:2 filter:4 namespace:4", "expression"),
    "GROUP": ("", "op:1=ops #name:1>0<group_bytes_max namespace:4", "name"),
    "TAG": ("", "#changes:2>0<tag_changes_max namespace:4 sequence:8>0 origin:8 #uids:4>0<targets_max -:4", "uids changes"),
    "PRESENCE": ("", "event:1=events device_class:1 namespace:4 uid:8 login:8 gateway:8", ""),
    "PRESENCE_QUERY": ("", "#uids:2>0<targets_max namespace:4 sequence:8", "uids"),
    "FETCH": ("", "limit:2>0<fetch_max namespace:4 sequence:8 uid:8 channel:8 after:8", ""),
    "PAGE_END": ("", "count:2 -:4 sequence:8 next:8", ""),
    "ACK": ("ack_flags", "#pairs:2>0<acks_max namespace:4 uid:8", "pairs"),
}
MESSAGE_KINDS = ("PUBLISH", "DELIVER", "UPLINK", "OFFLINE")
PAYLOAD_KINDS = {*MESSAGE_KINDS, "FRAGMENT"}
HANDLING = (("mode", 0, "modes"), ("class", 2, "classes"), ("level", 4, "levels"), ("priority", 6, "priorities"))
SECTIONS = {  # in flag order; a section of one field is that field
    "ORIGIN": "origin:8", "TRACE": "trace:16", "CONFLATE": "conflate:8", "SENDER": "uid:8 connection:8",
    "PART": "list:8 index:4 parts:4>0", "CONTENT": "content_type:2~content_types encoding:2~encodings -:4",
    "FRAGMENTED": "total:4<message_bytes_max -:4", "HISTORY": "channel:8 cursor:8",
    "LABELS": "#bytes:2 #labels:2>0<labels_max -:4", "SELECTOR": "#selector:2>0<selector_bytes_max -:2 -:4",
    "EXCEPT": "#except:4>0<except_max -:4",
    "EXTENSIONS": "#bytes:2<extension_bytes_max #extensions:2>0<extensions_max -:4",
}
BARE = ("ORIGIN", "TRACE", "CONFLATE")
EXTENSION = "type:2 #data:2 -:4"
FATE_SET = "fate:1=fates -:1 cause:2~errors #uids:4>0<targets_max"
HOP_TIMES = "#hop_times:2>0<trace_hops_max -:2 left_out:4"  # there if flag TRACE is set
HOP_TIME = "time:8>0 process:8 gateway:8 hop:1=trace_hops -:1 -:2 -:4"
RECORD = "uid:8 login:8 namespace:4 op:1=ops device_class:1 -:2"
TAG_RECORD = "namespace:4 op:1=ops #tag:1>0<tag_bytes_max -:2"
CHANGE = "op:1=ops #tag:1>0<tag_bytes_max"
TEXT, HEX = {"detail", "expression", "name", "tag"}, {"credential", "selector", "data"}
assert set(FRAMES) == set(KINDS) and set(SECTIONS) < set(REGISTRY["message_flags"]), "table and registry differ"


def fields_of(layout):
    """(name, size, "=" or "~" or "", table, nonzero, limit) of each token."""
    for token in layout.split():
        name, size, mark, table, nonzero, limit = re.fullmatch(
            r"([^:]+):(\d+)([=~]?)(\w*)(>0)?(?:<(\w+))?", token).groups()
        yield name, int(size), mark, table, nonzero, limit


def size_of(layout):
    return sum(field[1] for field in fields_of(layout))


class Cursor:
    def __init__(self, data, pos=0):
        self.data, self.pos = data, pos

    def fits(self, n):
        need(self.pos + n <= len(self.data), "length", f"{n} bytes at {self.pos} of {len(self.data)}")

    def take(self, n):
        self.fits(n)
        self.pos += n
        return self.data[self.pos - n:self.pos]

    def uids(self, n):
        run = self.take(8 * n)
        return [int.from_bytes(run[i:i + 8], "little") for i in range(0, 8 * n, 8)]

    def padding(self):
        need(not any(self.take(-self.pos % 8)), "padding")

    def struct(self, layout, tail=lambda v: 0, values_too=lambda v: None):
        """One layout: it and its tail fit, then reserved, values, limits, each in order of offset."""
        self.fits(size_of(layout))
        fields = [(f, int.from_bytes(self.take(f[1]), "little")) for f in fields_of(layout)]
        values = {f[0]: v for f, v in fields}
        self.fits(tail(values))
        need(not any(v for f, v in fields if f[0] == "-"), "reserved", layout)
        for (name, _, mark, table, nonzero, _), v in fields:
            need(v or not nonzero, "bad_value", f"{name} 0")
            if mark:
                values[name] = name_of(table, v) or v
                need(mark == "~" or name_of(table, v), "bad_value", f"{name} {v}")
            if name == "handling":
                for part, shift, parts in HANDLING:
                    values[part] = name_of(parts, v >> shift & 3)
                    need(values[part], "bad_value", part)
        values_too(values)
        for (name, _, _, _, _, limit), v in fields:
            need(not limit or v <= LIMITS[limit], "limit", f"{name} {v}")
        return values


def visible(values):
    return {name: v for name, v in values.items() if name != "handling" and name[0] not in "-#"}


def text(data):
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise Malformed("not_utf8", str(e)) from None


def tag_text(data):
    """[TAG-1]"""
    tag = text(data)
    need(all(x >= " " and x != "\x7f" for x in tag), "bad_value", "character of a tag")
    return tag


def selector(data):
    """The tree of a selector: ("tag", text) or (op, [operands]). [SEL-2] to [SEL-4]"""
    c, terms = Cursor(data), 0

    def node(depth, inside):
        nonlocal terms
        op = name_of("selector_nodes", c.take(1)[0])
        need(op, "bad_value", "node")
        n = 1 if op == "not" else c.take(1)[0]
        raw_text = c.take(n) if op == "tag" else b""
        need(n >= (2 if op in ("and", "or") else 1), "bad_value", f"{op} of {n}")
        need(op != inside, "bad_value", f"{op} in {op}")
        need(n <= LIMITS["tag_bytes_max" if op == "tag" else "selector_terms_max"], "limit", f"{op} of {n}")
        need(depth <= LIMITS["selector_depth_max"], "limit", "depth")
        terms += op == "tag"
        need(terms <= LIMITS["selector_terms_max"], "limit", "terms")
        return (op, tag_text(raw_text)) if op == "tag" else (op, [node(depth + 1, op) for _ in range(n)])

    tree = node(1, None)
    need(c.pos == len(data), "length", "bytes after the selector")
    return tree


# ---- prologue [FRAME-1] to [FRAME-5]

def prologue(data):
    """(kind name or None, header length, frame length) of the first 8 bytes."""
    version, code, words, payload = data[0], data[1], int.from_bytes(data[2:4], "little"), int.from_bytes(data[4:8], "little")
    need(version == REGISTRY["draft"], "unsupported_version", f"{version}")
    kind = name_of("kinds", code)
    need(kind or code >= 0x80, "unknown_kind", f"{code:#x}")
    need(LIMITS["header_bytes_min"] <= words * 8 <= LIMITS["header_bytes_max"], "header_size", f"{words} words")
    need(payload <= LIMITS["payload_bytes_max"], "payload_size", f"{payload}")
    return kind, words * 8, words * 8 + payload


# ---- decoding, in the order of [FRAME-9]

def decode_header(header):
    kind, header_len, frame_len = prologue(header)
    if kind is None:
        return None
    table, layout, parts = FRAMES[kind]
    need(header_len >= 10 + size_of(layout), "header_size", f"{kind} of {header_len}")                 # 1
    bits = int.from_bytes(header[8:10], "little")
    flags = {name for name, bit in REGISTRY.get(table, {}).items() if bits >> bit & 1}
    need(len(flags) == bits.bit_count(), "unknown_flag", f"{bits:#x}")                                  # 2
    c = Cursor(header, 10)
    values = c.struct(layout, values_too=lambda v: more_values(kind, flags, v))                         # 3, 4, 5
    frame = {"kind": kind, "flags": sorted(flags - set(SECTIONS)), **visible(values)}
    if parts == "message":                                                                              # 6
        for flag in SECTIONS:
            if flag in flags:
                frame[flag.lower()] = read_section(c, flag, kind, frame_len - header_len)
        frame["targets"] = c.uids(values["#targets"])
    else:
        for part in parts.split():
            if part != "hop_times":
                frame[part] = read_part(c, part, values["#" + part], kind)
            elif "TRACE" in flags:
                v = c.struct(HOP_TIMES, lambda v: v["#hop_times"] * size_of(HOP_TIME))
                frame |= {**visible(v), part: [visible(c.struct(HOP_TIME)) for _ in range(v["#hop_times"])]}
    need(c.pos == header_len, "length", f"{header_len - c.pos} bytes left")                             # 7
    rules(kind, flags, frame)                                                                           # 8
    need(kind in PAYLOAD_KINDS or frame_len == header_len, "payload_not_allowed")
    need(kind != "FRAGMENT" or frame_len > header_len, "bad_value", "empty fragment")
    return frame


def decode(data):
    """One whole frame."""
    _, header_len, frame_len = prologue(data)
    frame = decode_header(data[:header_len])
    assert len(data) == frame_len, f"{len(data)} bytes for a frame of {frame_len}"
    if frame and frame_len > header_len:
        frame["payload"] = data[header_len:].hex()
    return frame


def more_values(kind, flags, v):
    """Values of the fixed part that depend on the kind or on each other."""
    if "handling" in v:
        need(kind == "DELIVER" or v["priority"] != "control", "bad_value", "priority control")
    if kind == "REPORT":
        need(v["stage"] in ("delivered", "acknowledged"), "bad_value", "stage")
    if "CUMULATIVE" in flags:
        need(v["#pairs"] == 1, "bad_value", "cumulative of several")


def read_section(c, flag, kind, payload_len):
    def tail(v):
        need(flag != "EXTENSIONS" or v["#bytes"] % 8 == 0, "length", "extension bytes")
        return v.get("#bytes", 0) + v.get("#selector", 0) + 8 * v.get("#except", 0)

    if flag == "TRACE":
        return c.take(16).hex()
    v = c.struct(SECTIONS[flag], tail)
    if flag == "PART":
        need(v["index"] < v["parts"], "bad_value", flag)
    elif flag == "CONTENT":
        for x in ("content_type", "encoding"):
            need(isinstance(v[x], str) or v[x] >= 0x8000, "bad_value", x)
    elif flag == "FRAGMENTED":
        need(v["total"] > payload_len, "bad_value", flag)
    elif flag == "HISTORY":
        need(kind != "PUBLISH" or not v["cursor"], "bad_value", "cursor on PUBLISH")
    elif flag == "SELECTOR":
        return read_part(c, "selector", v["#selector"])
    elif flag == "EXCEPT":
        return c.uids(v["#except"])
    elif flag == "LABELS":
        items, out = Cursor(c.take(v["#bytes"])), []
        for _ in range(v["#labels"]):
            n = items.take(1)[0]
            item = items.take(n)
            need(n, "bad_value", "empty label")
            need(n <= LIMITS["label_bytes_max"], "limit", "label")
            out.append(text(item))
        need(items.pos == v["#bytes"], "length", "labels end early")
        c.padding()
        return out
    elif flag == "EXTENSIONS":
        items, out = Cursor(c.take(v["#bytes"])), []
        for _ in range(v["#extensions"]):
            x = items.struct(EXTENSION, lambda x: x["#data"])
            need(x["type"] < 0x8000, "unknown_extension", f"{x['type']:#x}")
            out.append({"type": x["type"], "data": read_part(items, "data", x["#data"])})
        need(items.pos == v["#bytes"], "length", "extensions end early")
        return out
    return visible(v).popitem()[1] if flag in BARE else visible(v)


def read_part(c, part, n, kind=None):
    """A variable part of n items or bytes."""
    if part in TEXT or part in HEX:
        data = c.take(n)
        if part == "selector":
            selector(data)
        data = text(data) if part in TEXT else data.hex()
        c.padding()
        return data
    if part == "uids":
        return c.uids(n)
    if part == "pairs":
        flat = c.uids(2 * n)
        return [flat[i:i + 2] for i in range(0, 2 * n, 2)]
    if part == "records":
        c.fits(size_of(RECORD) * n)
        only_add = lambda v: need(kind != "SNAPSHOT" or v["op"] == "add", "bad_value", "op in SNAPSHOT")
        return [visible(c.struct(RECORD, values_too=only_add)) for _ in range(n)]
    out, last = [], (0, 0)
    for _ in range(n):
        if part in ("tag_records", "changes"):
            v = c.struct(TAG_RECORD if part == "tag_records" else CHANGE, lambda v: v["#tag"])
            out.append({**visible(v), "tag": tag_text(c.take(v["#tag"]))})
            if part == "tag_records":
                c.padding()
        else:
            v = c.struct(FATE_SET, lambda v: 8 * v["#uids"])
            need(not v["cause"] or isinstance(v["cause"], str), "bad_value", f"cause {v['cause']}")
            key = (number(v["fate"], "fates"), number(v["cause"], "errors"))
            need(key > last, "bad_value", "order of fate sets")
            last = key
            out.append({**visible(v), "uids": c.uids(v["#uids"])})
    if part == "changes":
        c.padding()
    return out


def rules(kind, flags, f):
    """What concerns more than one field: [MSG-12] to [MSG-17], and the sentences of chapter 7."""
    if kind in MESSAGE_KINDS:
        need(("ORIGIN" in flags) == (kind in ("DELIVER", "OFFLINE")) or kind == "UPLINK", "bad_value", "ORIGIN")
        need("SENDER" in flags or kind != "UPLINK" and "EXCEPT_SELF" not in flags, "bad_value", "SENDER")
        chosen = bool(f["targets"]) or "SELECTOR" in flags
        if kind == "UPLINK":
            need(not chosen and not flags & {"EVERYONE", "EXCEPT", "EXCEPT_SELF", "HISTORY"}, "audience", "UPLINK")
        elif kind == "OFFLINE":
            need(f["targets"] and "EVERYONE" not in flags, "audience", "OFFLINE")
        else:
            need(chosen != ("EVERYONE" in flags), "audience")
        if kind == "PUBLISH" and f["class"] == "stored":
            need("HISTORY" in flags or f["targets"], "bad_value", "stored")
        need("HISTORY" not in flags or f["class"] == "stored", "bad_value", "HISTORY")
    if kind == "HELLO":
        need(f["version_min"] <= f["version_max"], "bad_value", "versions")
    if "fate_sets" in f:
        for fate in NUMBERS["fates"]:
            named = sum(len(s["uids"]) for s in f["fate_sets"] if s["fate"] == fate)
            need(named <= f.get(fate, 0), "bad_value", f"more {fate} than counted")


# ---- encoding

def encode(f):
    """Fields -> bytes. Absent fields have their default."""
    table, layout, parts = FRAMES[f["kind"]]
    flags = set(f.get("flags", []))
    if parts == "message":
        here = [flag for flag in SECTIONS if flag.lower() in f]
        flags |= set(here)
        body = b"".join(write_section(flag, f[flag.lower()]) for flag in here) + write_part("uids", f.get("targets", []))
    else:
        flags |= {"TRACE"} if f.get("hop_times") else set()
        body = b"".join(write_part(part, f.get(part, "" if part in TEXT | HEX else [])) for part in parts.split() if part != "hop_times")
        if f.get("hop_times"):
            body += struct(HOP_TIMES, f) + b"".join(struct(HOP_TIME, hop) for hop in f["hop_times"])
    handling = sum(number(f.get(part, 0), enum) << shift for part, shift, enum in HANDLING)
    bits = sum(1 << REGISTRY[table][flag] for flag in flags)
    fixed = u(bits, 2) + struct(layout, {**f, "handling": handling})
    payload = bytes.fromhex(f.get("payload", ""))
    words = (8 + len(fixed) + len(body)) // 8
    return bytes([REGISTRY["draft"], KINDS[f["kind"]]]) + u(words, 2) + u(len(payload), 4) + fixed + body + payload


def struct(layout, values):
    out = b""
    for name, size, _, table, *_ in fields_of(layout):
        if name[0] == "#" and name not in values:
            part = values.get(name[1:], "" if name[1:] in TEXT | HEX else [])
            value = len(raw(name[1:], part)) if isinstance(part, str) else len(part)
        else:
            value = number(values.get(name, 0), table)
        out += u(value, size)
    return out


def raw(part, value):
    return value.encode() if part in TEXT else bytes.fromhex(value)


def write_section(flag, value):
    if flag == "TRACE":
        return bytes.fromhex(value)
    if flag == "LABELS":
        items = b"".join(u(len(label.encode()), 1) + label.encode() for label in value)
        return struct(SECTIONS[flag], {"#bytes": len(items), "labels": value}) + pad(items)
    if flag == "EXTENSIONS":
        items = b"".join(struct(EXTENSION, x) + write_part("data", x.get("data", "")) for x in value)
        return struct(SECTIONS[flag], {"#bytes": len(items), "extensions": value}) + items
    if flag in ("SELECTOR", "EXCEPT"):
        return struct(SECTIONS[flag], {flag.lower(): value}) + write_part("selector" if flag == "SELECTOR" else "uids", value)
    return struct(SECTIONS[flag], {flag.lower(): value} if flag in BARE else value)


def write_part(part, value):
    if part in TEXT or part in HEX:
        return pad(raw(part, value))
    if part in ("uids", "pairs"):
        return b"".join(u(number(x), 8) for item in value for x in (item if part == "pairs" else [item]))
    if part == "records":
        return b"".join(struct(RECORD, r) for r in value)
    if part == "tag_records":
        return b"".join(struct(TAG_RECORD, r) + write_part("tag", r["tag"]) for r in value)
    if part == "changes":
        return pad(b"".join(struct(CHANGE, x) + raw("tag", x["tag"]) for x in value))
    return b"".join(struct(FATE_SET, s) + write_part("uids", s["uids"]) for s in value)


# ---- a stream of bytes

class Deframer:
    """push() gives the frames completed by these bytes; it raises as soon as the text lets an error be known."""

    def __init__(self):
        self.buffer, self.judged = b"", False

    def push(self, data):
        self.buffer += data
        out = []
        while len(self.buffer) >= LIMITS["prologue_bytes"]:
            _, header_len, frame_len = prologue(self.buffer)
            if len(self.buffer) >= header_len and not self.judged:
                decode_header(self.buffer[:header_len])
                self.judged = True
            if len(self.buffer) < frame_len:
                break
            frame, self.buffer, self.judged = self.buffer[:frame_len], self.buffer[frame_len:], False
            if (fields := decode(frame)) is not None:
                out.append(fields)
        return out

"""Re-derives every vector of protocol-spec/vectors with the codec of this folder. Exit 1 and a list, or 0 and a line."""
import re
import sys
import tomllib
from pathlib import Path

import client
import codec
import expressions
from codec import LIMITS, Malformed, REGISTRY, number

SPEC = Path(__file__).resolve().parent.parent
VECTORS = SPEC / "vectors"
MINIMUM = {"valid": 60, "invalid": 60, "dialogues": 8, "expressions": 60}
problems, seen = [], {}


def bad(vector_id, what):
    problems.append(f"{vector_id}: {what}")


def unhex(text):
    return "".join(re.sub(r"#.*", "", text).split()).lower()


def tables(folder, key):
    for path in sorted((VECTORS / folder).glob("*.toml")):
        for vector in tomllib.loads(path.read_text()).get(key, []):
            yield vector


def requirement_ids():
    ids = {}
    for path in sorted(SPEC.glob("*.md")):
        for found in re.findall(r"^- \[([A-Z]+-\d+)\] ", path.read_text(), re.M):
            if found in ids:
                bad(path.name, f"requirement {found} is also in {ids[found]}")
            ids[found] = path.name
    return ids


def register(vector, cited):
    vid = vector.get("id", "(no id)")
    if vid in seen or "id" not in vector:
        bad(vid, "id missing or used twice")
    seen[vid] = vector
    if not cited:
        bad(vid, "cites nothing")
    for cite in cited:
        if cite not in IDS:
            bad(vid, f"cites unknown requirement {cite}")
    return vid


# ---- fields: both sides in one form, defaults left out

ENUMERATED = {"mode": "modes", "class": "classes", "level": "levels", "priority": "priorities", "lane": "lanes",
              "content_type": "content_types", "encoding": "encodings"}  # those in which 0 has a name
SECTION_NAMES = {flag.lower() for flag in codec.SECTIONS}
FREE_TEXT = codec.TEXT | {"labels", "token"}


def canonical(value, key=None):
    if isinstance(value, dict):
        return {k: canonical(v, k) for k, v in value.items()}
    if isinstance(value, list):
        out = [canonical(v, key) for v in value]
        return sorted(out) if key == "flags" else out
    if isinstance(value, str) and value.startswith("0x") and key not in FREE_TEXT:
        return int(value, 16)
    if key == "ref_kind" and isinstance(value, str):
        return codec.KINDS[value]
    if key in ("payload", "credential", "trace", "selector", "data"):
        return value.lower().replace(" ", "")
    if isinstance(value, int) and not isinstance(value, bool):
        return codec.name_of(ENUMERATED[key], value) or value if key in ENUMERATED else value
    return value


def normal(frame):
    """Canonical, and without what equals its default. Sections stay: one that is present is not absent, zero or not."""
    out = {}
    for key, value in canonical(frame).items():
        if key in SECTION_NAMES and isinstance(value, dict):
            value = {k: v for k, v in value.items() if not default(k, v)}
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            value = [{k: v for k, v in item.items() if not default(k, v)} for item in value]
        elif default(key, value) and not (key in SECTION_NAMES and frame.get("kind") in codec.MESSAGE_KINDS):
            continue
        out[key] = value
    return out


def default(key, value):
    return value in (0, [], "", False) or key in ENUMERATED and value == codec.name_of(ENUMERATED[key], 0)


def difference(found, expected):
    return "; ".join(f"{k}: bytes say {found.get(k)!r}, vector says {expected.get(k)!r}"
                     for k in sorted(found.keys() | expected.keys()) if found.get(k) != expected.get(k))


# ---- frames

def error_of(data, cuts):
    """(error, bytes fed when it came, frames) of data fed in pieces cut at these places."""
    deframer, frames, fed = codec.Deframer(), [], 0
    try:
        for cut in [*cuts, len(data)]:
            piece, fed = data[fed:cut], cut
            frames += deframer.push(piece)
    except Malformed as e:
        return e.code, fed, frames
    return None, fed, frames if not deframer.buffer else frames + ["incomplete"]


def check_valid():
    count = 0
    for count, vector in enumerate(tables("frames", "vector"), 1):
        vid = register(vector, vector.get("cites", []))
        try:
            data = bytes.fromhex(unhex(vector["hex"]))
            found = codec.decode(data)
            if found is None:
                if "frame" in vector:
                    bad(vid, "an unknown kind has no fields")
                continue
            expected = vector["frame"]
            if normal(found) != normal(expected):
                bad(vid, difference(normal(found), normal(expected)))
            for what, fields in (("vector", expected), ("decoded", found)):
                if (again := codec.encode(fields)) != data:
                    at = next((i for i, (a, b) in enumerate(zip(again, data)) if a != b), min(len(again), len(data)))
                    bad(vid, f"encoding the {what} fields differs at byte {at}: {again.hex(' ')[at * 3:at * 3 + 23]}")
            for cuts in [[i] for i in range(1, len(data))] + [range(1, len(data))]:
                if error_of(data, cuts) != (None, len(data), [found]):
                    bad(vid, f"split at {list(cuts)[:1]}: {error_of(data, cuts)[0]}")
        except Malformed as e:
            bad(vid, f"refused as {e.code} ({e.why})")
        except Exception as e:  # a vector that can't be read is a wrong vector
            bad(vid, f"{type(e).__name__}: {e}")
    return count


def check_invalid():
    count = 0
    for count, vector in enumerate(tables("invalid", "vector"), 1):
        vid = register(vector, [vector["breaks"]] if "breaks" in vector else [])
        try:
            data, expected = bytes.fromhex(unhex(vector["hex"])), vector["error"]
            code, _, _ = error_of(data, [])
            if code != expected:
                bad(vid, f"bytes are {code}, vector says {expected}")
                continue
            _, soonest, _ = error_of(data, range(1, len(data)))
            if soonest < LIMITS["prologue_bytes"]:
                bad(vid, "refused before the prologue is complete")
            for cut in range(1, len(data)):
                if error_of(data, [cut])[0] != expected:
                    bad(vid, f"split at {cut}: {error_of(data, [cut])[0]}")
        except Exception as e:
            bad(vid, f"{type(e).__name__}: {e}")
    return count


# ---- dialogues

KEPT = re.compile("[s-z][0-7]")
STEPS = {"send", "expect", "expect_error", "expect_close", "close"}


class Link:
    def __init__(self):
        self.rest = {"send": "", "expect": ""}  # hex that is not yet a frame
        self.owed = None                        # the error that bytes sent on it must be answered with
        self.declared = set()                   # registrations, and tags as (namespace, text)
        self.tags = False                       # whether it offered them
        self.fragments = False
        self.open = {"send": {}, "expect": {}}  # (sequence, origin) -> [total, how much of it has come]


def check_dialogues():
    count = 0
    for count, dialogue in enumerate(tables("dialogues", "dialogue"), 1):
        vid, links, kept = register(dialogue, dialogue.get("cites", [])), {}, {}
        for name in dialogue.get("needs", []) + dialogue.get("lacks", []):
            if name not in REGISTRY["capabilities"]:
                bad(vid, f"{name} is no capability")
        for n, step in enumerate(dialogue.get("step", []), 1):
            try:
                link = links.setdefault(step["link"], Link())
                if len(STEPS & set(step)) != 1 or set(step) - STEPS - {"link", "fatal"}:
                    raise ValueError(f"a step is one of {sorted(STEPS)}")
                for way in ("send", "expect"):
                    if way in step:
                        remember(step[way], way, link, kept)
                        link.rest[way] = check_stream(link.rest[way] + KEPT.sub("??", unhex(step[way])), way, link)
                if code := step.get("expect_error"):
                    if not step.get("fatal", True) and codec.ERRORS[code] // 100 in (1, 2, 5):
                        raise ValueError(f"{code} is always fatal")
                    link.owed = None if link.owed == code else link.owed
            except Malformed as e:
                bad(vid, f"step {n}: {e.code} ({e.why})")
            except Exception as e:
                bad(vid, f"step {n}: {type(e).__name__}: {e}")
        for name, link in links.items():
            if link.rest["expect"]:
                bad(vid, f"link {name}: ends inside an expected frame")
            if link.owed:
                bad(vid, f"link {name}: {link.owed} sent, but no such error is expected")
    return count


def remember(text, way, link, kept):
    """A session whose id is remembered (s0 to s7) goes on at the link that is welcomed with it."""
    for name in sorted({found[0] for found in KEPT.findall(unhex(text))}):
        if way == "expect":
            link.declared = set(kept[name].declared) if name in kept else link.declared
            kept[name] = link
        elif name not in kept:
            raise ValueError(f"{name} is sent and has not come")


def check_stream(rest, way, link):
    """Decodes what can be decoded; gives back the hex of a last, incomplete frame."""
    while len(rest) >= 2 * LIMITS["prologue_bytes"]:
        if "?" in rest[:16]:
            raise ValueError("?? in a prologue")
        try:
            kind, header_len, frame_len = codec.prologue(bytes.fromhex(rest[:16]))
            frame, rest_of_it = rest[:2 * frame_len], rest[2 * frame_len:]
            if kind == "HELLO" and len(frame) >= 80:
                offered = bytes.fromhex(frame[64:66])[0]
                link.tags, link.fragments = (bool(offered >> REGISTRY["capabilities"][x] & 1) for x in ("tags", "fragments"))
            if "?" in frame[:2 * header_len]:  # lengths only: ?? may stand for any byte
                least = 10 + codec.size_of(codec.FRAMES[kind][1])
                codec.need(header_len >= least, "header_size", kind)
                codec.need(codec.FRAMES[kind][2] or header_len == least, "length", kind)
            elif len(frame) >= 2 * header_len and (fields := codec.decode_header(bytes.fromhex(frame[:2 * header_len]))):
                follow(fields, way, link)
                if link.fragments:
                    put_together(fields, frame_len - header_len, link.open[way])
        except Malformed as e:
            if way == "expect":
                raise
            link.owed = e.code  # sent on purpose: the broker must say so
            return ""
        if len(frame) < 2 * frame_len:
            return rest
        rest = rest_of_it
    return rest


def follow(fields, way, link):
    """What a gateway declared, and the digest of it that is expected back."""
    kind = fields["kind"]
    if way == "send" and kind in ("SNAPSHOT", "DELTA"):
        link.declared = set() if "FIRST" in fields["flags"] else link.declared
        for r in fields["records"]:
            (link.declared.add if r["op"] == "add" else link.declared.discard)(registration(r))
    if way == "send" and kind == "TAG_DELTA" and link.tags:
        for r in fields["tag_records"]:  # what breaks [TAG-6] is answered by an error, not by a digest
            (link.declared.add if r["op"] == "add" else link.declared.discard)((r["namespace"], r["tag"]))
    if way == "expect" and kind in ("IN_EFFECT", "RESUMED") and fields["digest"] != digest_of(link.declared):
        raise ValueError(f"digest is {digest_of(link.declared).to_bytes(8, 'little').hex(' ')}")
    if way == "expect" and kind == "ERROR" and fields["code"] == link.owed:
        link.owed = None


def put_together(fields, payload_len, is_open):
    """6.14: what messages in fragments come to, one way of a link."""
    number, kind = (fields.get("sequence"), fields.get("origin", 0)), fields["kind"]
    if kind in ("PUBLISH", "DELIVER") and "fragmented" in fields:
        total = fields["fragmented"]["total"]
        codec.need(number not in is_open, "unexpected_frame", "opened twice")                           # [FRG-3]
        codec.need(len(is_open) < LIMITS["fragmented_max"], "unexpected_frame", "too many are open")
        whole = total + sum(x for x, _ in is_open.values())
        codec.need(whole <= LIMITS["fragmented_bytes_max"], "unexpected_frame", "too much is open")
        is_open[number] = [total, payload_len]
    elif kind == "FRAGMENT":
        codec.need(number in is_open, "fragment_order", "not open")                                     # [FRG-4]
        total, at = is_open[number]
        codec.need(fields["offset"] == at, "fragment_order", "offset")
        codec.need(at + payload_len <= total, "fragment_order", "beyond the total")
        codec.need(("LAST" in fields["flags"]) == (at + payload_len == total), "fragment_order", "LAST")
        is_open[number][1] += payload_len
        if at + payload_len == total:
            del is_open[number]


# ---- client messages, digests, examples in the prose

def check_client():
    count = 0
    for count, vector in enumerate(tables("client", "vector"), 1):
        cited = vector.get("cites", []) + ([vector["breaks"]] if "breaks" in vector else [])
        vid = register(vector, cited)
        try:
            found, error = None, None
            is_json, sender = vector["subprotocol"] == "json", vector["from"]
            data = vector["text"] if is_json else bytes.fromhex(unhex(vector["hex"]))
            try:
                found = (client.read_json if is_json else client.read_bin)(data, sender)
            except client.Refused as e:
                error = e.code
            if error != vector.get("error"):
                bad(vid, f"message is {error or 'valid'}, vector says {vector.get('error', 'valid')}")
            elif not error:
                same = (lambda m: m) if is_json else normal  # in JSON a member that is present is not absent, empty or not
                if same(found) != same(vector["message"]):
                    bad(vid, difference(same(found), same(vector["message"])))
                if not is_json and (again := client.write_bin(vector["message"])) != data:
                    bad(vid, f"encoded: {again.hex(' ')}")
        except Exception as e:
            bad(vid, f"{type(e).__name__}: {e}")
    return count


def check_expressions():
    """Selectors and filters as text: bytes, meaning and, where they are refused, what and where."""
    count = 0
    for name, read in (("selector", expressions.read_selector), ("filter", expressions.read_filter)):
        for vector in tomllib.loads((VECTORS / f"{name}s.toml").read_text())[name]:
            vid, count = register(vector, vector.get("cites", [])), count + 1
            try:
                data = bytes.fromhex(vector["text_hex"]) if "text_hex" in vector else vector["text"].encode()
                expected = (vector["error"], vector["at"]) if "error" in vector else None
                try:
                    found, refused = read(data), None
                except expressions.Refused as e:
                    refused = e.code, e.at
                if refused != expected:
                    bad(vid, f"text is {refused or 'valid'}, vector says {expected or 'valid'}")
                elif not refused:
                    (check_selector if name == "selector" else check_filter)(vid, vector, found)
            except Exception as e:
                bad(vid, f"{type(e).__name__}: {e}")
    return count


def check_selector(vid, vector, found):
    given = bytes.fromhex(unhex(vector["hex"]))
    canonical_text = vector.get("canonical", vector["text"])
    if found != given:
        bad(vid, f"text gives {found.hex(' ')}")
    if expressions.write_selector(given) != canonical_text or expressions.read_selector(canonical_text.encode()) != given:
        bad(vid, f"bytes give {expressions.write_selector(given)}")
    for key, holds, means in (("matches", True, expressions.matches), ("differs", False, expressions.matches),
                              ("may", True, expressions.may_match), ("may_not", False, expressions.may_match)):
        for tags in vector.get(key, []):
            if means(given, tags) != holds:
                bad(vid, f"{key}: {tags}")
    for declared in vector.get("may_not", []):  # an upper bound: what matches is not ruled out
        if any(set(tags) <= set(declared) for tags in vector.get("matches", [])):
            bad(vid, f"a connection that matches may have no other tags than {declared}")


def check_filter(vid, vector, tree):
    for key, wanted in (("wants", True), ("passes", False)):
        for name in vector.get(key, []):
            if expressions.wants(tree, codec.decode(bytes.fromhex(unhex(seen[name]["hex"])))) != wanted:
                bad(vid, f"{key}: {name}")


def check_digests():
    path = VECTORS / "digests.toml"
    lists = tomllib.loads(path.read_text()) if path.exists() else {}
    count = 0
    for count, vector in enumerate(lists.get("digest", []), 1):
        vid = register(vector, vector.get("cites", ["DIG-1"]))
        tags = {(number(t["namespace"]), t["tag"]) for t in vector.get("tags", [])}
        total = digest_of({registration(r) for r in vector.get("registrations", [])} | tags)
        if total != number(vector["digest"]):
            bad(vid, f"digest is {total:#018x}")
    return count


def registration(record):
    return tuple(number(record.get(k, 0)) for k in ("namespace", "uid", "device_class", "login"))


def digest_of(declared):
    """5.3, over a set of registrations and of tags: adding one that is there changes nothing [DIG-1]."""
    def mix(x):
        x = x % 2 ** 64
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % 2 ** 64
        x = (x ^ x >> 27) * 0x94d049bb133111eb % 2 ** 64
        return x ^ x >> 31

    def tag(namespace, text):
        data = text.encode()
        h = mix((namespace << 8 | len(data)) + 0x6a09e667f3bcc909)
        for at in range(0, len(data), 8):
            h = mix(int.from_bytes(data[at:at + 8], "little") + h)
        return h

    def registered(namespace, uid, device_class, login):
        return mix(uid + mix(login + mix((namespace << 8 | device_class) + 0x9e3779b97f4a7c15)))
    return sum(tag(*x) if len(x) == 2 else registered(*x) for x in declared) % 2 ** 64


def check_prose():
    """Requirements the chapters speak of exist; blocks ```vector <id> hold that vector's bytes."""
    count = 0
    for path in sorted(SPEC.glob("*.md")):
        for cite in sorted(set(re.findall(r"\[([A-Z]+-\d+)\]", path.read_text())) - set(IDS)):
            bad(path.name, f"no requirement {cite}")
        for vid, block in re.findall(r"^```vector (\S+)\n(.*?)^```$", path.read_text(), re.M | re.S):
            count += 1
            if "hex" not in seen.get(vid, {}):
                bad(path.name, f"no vector {vid}")
            elif unhex(block) != unhex(seen[vid]["hex"]):
                bad(path.name, f"block differs from vector {vid}")
    return count


IDS = requirement_ids()
counts = {"valid": check_valid(), "invalid": check_invalid(), "dialogues": check_dialogues(), "client": check_client(),
          "expressions": check_expressions(), "digests": check_digests(), "examples in the prose": check_prose()}
for kind, least in MINIMUM.items():
    if counts[kind] < least:
        problems.append(f"{kind}: {counts[kind]}, at least {least} wanted")
print("\n".join(problems) or "vectors: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()) + ": all agree with the text")
sys.exit(1 if problems else 0)

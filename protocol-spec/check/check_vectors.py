"""Re-derives every vector of protocol-spec/vectors with the codec of this folder. Exit 1 and a list, or 0 and a line."""
import re
import sys
import tomllib
from pathlib import Path

import client
import codec
from codec import LIMITS, Malformed, REGISTRY, number

SPEC = Path(__file__).resolve().parent.parent
VECTORS = SPEC / "vectors"
MINIMUM = {"valid": 60, "invalid": 60, "dialogues": 8}
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

def canonical(value, key=None):
    if isinstance(value, dict):
        return {k: canonical(v, k) for k, v in value.items()}
    if isinstance(value, list):
        out = [canonical(v, key) for v in value]
        return sorted(out) if key == "flags" else out
    if isinstance(value, str) and value.startswith("0x"):
        return int(value, 16)
    if key == "ref_kind" and isinstance(value, str):
        return codec.KINDS[value]
    if key in ("payload", "credential", "trace", "selector", "data"):
        return value.lower().replace(" ", "")
    if isinstance(value, int) and not isinstance(value, bool):
        table = next((t for t in (ENUMERATED.get(key),) if t), None)
        return codec.name_of(table, value) or value if table else value
    return value


ENUMERATED = {"mode": "modes", "class": "classes", "level": "levels", "priority": "priorities", "lane": "lanes",
              "content_type": "content_types", "encoding": "encodings"}  # those in which 0 has a name
SECTION_NAMES = {flag.lower() for flag in codec.SECTIONS}


def normal(frame):
    """Canonical, and without what equals its default. Sections stay: one that is present is not absent, zero or not."""
    out = {}
    for key, value in canonical(frame).items():
        if key in SECTION_NAMES and isinstance(value, dict):
            value = {k: v for k, v in value.items() if not default(k, v)}
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            value = [{k: v for k, v in item.items() if not default(k, v)} for item in value]
        elif key not in ("origin", "conflate") and default(key, value):
            continue
        elif key in ("origin", "conflate") and value == 0 and frame["kind"] not in MESSAGES:
            continue
        out[key] = value
    return out


MESSAGES = ("PUBLISH", "DELIVER", "UPLINK")


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

def check_dialogues():
    count = 0
    for count, dialogue in enumerate(tables("dialogues", "dialogue"), 1):
        vid = register(dialogue, dialogue.get("cites", []))
        waiting, owed = {}, {}  # (link, direction) -> hex not yet a frame; link -> error its bytes must be answered with
        for n, step in enumerate(dialogue.get("step", []), 1):
            link = step.get("link")
            for way in ("send", "expect"):
                if way in step:
                    try:
                        rest = waiting.pop((link, way), "") + unhex(step[way])
                        waiting[link, way] = check_stream(rest, way, link, owed)
                    except Malformed as e:
                        bad(vid, f"step {n} {way}: {e.code} ({e.why})")
                    except Exception as e:
                        bad(vid, f"step {n} {way}: {type(e).__name__}: {e}")
            if not link or not any(k in step for k in ("send", "expect", "expect_close", "close")):
                bad(vid, f"step {n} does nothing")
        for (link, way), rest in waiting.items():
            if rest and way == "expect":
                bad(vid, f"link {link}: ends inside an expected frame")
        for link, code in owed.items():
            bad(vid, f"link {link}: {code} sent, but no ERROR of that code is expected")
    return count


def check_stream(rest, way, link, owed):
    """Decodes what can be decoded; gives back the hex of a last, incomplete frame."""
    while len(rest) >= 16:
        if "?" in rest[:16]:
            raise ValueError("?? in a prologue")
        try:
            kind, header_len, frame_len = codec.prologue(bytes.fromhex(rest[:16]))
            if len(rest) < 2 * frame_len:
                if way == "send" and len(rest) >= 2 * header_len:
                    codec.decode_header(bytes.fromhex(rest[:2 * header_len]))
                return rest
            frame, rest = rest[:2 * frame_len], rest[2 * frame_len:]
            if "?" not in frame:
                fields = codec.decode(bytes.fromhex(frame))
            elif kind:  # lengths only: an ?? may stand for any byte
                fields = None
                if header_len < 10 + codec.size_of(codec.FRAMES[kind][1]):
                    raise Malformed("header_size", kind)
                if not codec.FRAMES[kind][2] and header_len > 10 + codec.size_of(codec.FRAMES[kind][1]):
                    raise Malformed("length", kind)
                if kind == "ERROR" and "?" not in frame[20:24]:
                    fields = {"code": codec.name_of("errors", int.from_bytes(bytes.fromhex(frame[20:24]), "little"))}
            if way == "expect" and kind == "ERROR" and fields and fields["code"] == owed.get(link):
                del owed[link]
        except Malformed as e:
            if way == "expect":
                raise
            owed[link] = e.code  # sent on purpose: the broker must say so
            return ""
    return rest


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
                expected = client.normal(vector["message"])
                if client.normal(found) != expected:
                    bad(vid, difference(client.normal(found), expected))
                if not is_json and client.write_bin(vector["message"]) != data:
                    bad(vid, f"encoded: {client.write_bin(vector['message']).hex(' ')}")
        except Exception as e:
            bad(vid, f"{type(e).__name__}: {e}")
    return count


def check_digests():
    path = VECTORS / "digests.toml"
    lists = tomllib.loads(path.read_text()) if path.exists() else {}
    count = 0
    for count, vector in enumerate(lists.get("digest", lists.get("vector", [])), 1):
        vid = register(vector, vector.get("cites", ["DIG-1"]))
        standing = {tuple(number(r.get(k, 0)) for k in ("namespace", "uid", "device_class", "login"))
                    for r in vector.get("registrations", [])}  # [DIG-1]: a set
        total = sum(digest_of(*r) for r in standing) % 2 ** 64
        if total != number(vector["digest"]):
            bad(vid, f"digest is {total:#018x}")
    return count


def digest_of(namespace, uid, device_class, login):
    def mix(x):
        x &= 2 ** 64 - 1
        x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 % 2 ** 64
        x = (x ^ x >> 27) * 0x94d049bb133111eb % 2 ** 64
        return x ^ x >> 31
    return mix(uid + mix(login + mix((namespace << 8 | device_class) + 0x9e3779b97f4a7c15)))


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
          "digests": check_digests(), "examples in the prose": check_prose()}
for kind, least in MINIMUM.items():
    if counts[kind] < least:
        problems.append(f"{kind}: {counts[kind]}, at least {least} wanted")
print("\n".join(problems) or "vectors: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()) + ": all agree with the text")
sys.exit(1 if problems else 0)

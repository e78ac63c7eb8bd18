"""The two client subprotocols of chapter 13: read_json, read_bin, write_bin. Refused.code is a close code's name."""
import base64
import binascii
import json

from codec import LIMITS, REGISTRY, name_of, number, u

TYPES = REGISTRY["client_messages"]
CLIENT_MAX = REGISTRY["client_limits"]["client_message_bytes_max"]
TOKEN_MAX = REGISTRY["client_limits"]["token_bytes_max"]
FROM_CLIENT = {"LOGIN", "SEND", "PING"}
BINARY = {  # name:size after the first byte; "#labels" counts labels; what follows is in the name of the last token
    "LOGIN": "-:1 #token:2 token", "SEND": "#labels:1 -:2 id:4 labels payload", "PING": "", "PONG": "",
    "READY": "-:1 -:2 heartbeat_ms:4 uid:8 connection:8 namespace:4",
    "MESSAGE": "flags:1 #labels:1 -:1 content_type:2 encoding:2 origin:8 sequence:8 sender labels payload",
    "SENT": "-:1 code:2 id:4", "DRAIN": "-:1 -:2 reconnect_after_ms:4",
}
TABLES = {"content_type": "content_types", "encoding": "encodings", "code": "errors"}


class Refused(Exception):
    def __init__(self, code, why=""):
        super().__init__(code, why)
        self.code = code


def need(condition, why, code="bad_message"):
    if not condition:
        raise Refused(code, why)


def check_labels(labels):
    need(len(labels) <= LIMITS["labels_max"], "labels")
    need(all(1 <= len(x.encode()) <= LIMITS["label_bytes_max"] for x in labels), "label length")


def read_json(text, sender):
    """Known members of a message; None for one that is to be ignored."""
    need(sender != "client" or len(text.encode()) <= CLIENT_MAX, "size", "message_size")
    try:
        message = json.loads(text)
    except ValueError as e:
        raise Refused("bad_message", str(e)) from None
    need(isinstance(message, dict) and isinstance(message.get("type"), str), "type")
    members = {
        "client": {"login": "token", "send": "id labels data data64", "ping": ""},
        "gateway": {"ready": "uid namespace connection heartbeat_ms", "sent": "id", "refused": "id code reason", "pong": "",
                    "message": "id content encoding labels from data data64", "drain": "reconnect_after_ms"},
    }[sender].get(message["type"])
    if members is None:
        need(sender == "gateway", "unknown type")
        return None
    kind, m = message["type"], {k: v for k, v in message.items() if k in ["type", *members.split()]}
    if kind == "login":
        need(isinstance(m.get("token"), str) and len(m["token"].encode()) <= TOKEN_MAX, "token")
    if kind == "send":
        need(type(m.get("id")) is int and 0 <= m["id"] < 2 ** 32, "id")
        need(isinstance(m.get("labels", []), list) and all(isinstance(x, str) for x in m.get("labels", [])), "labels")
        check_labels(m.get("labels", []))
    if kind in ("send", "message"):
        need(("data" in m) != ("data64" in m), "data and data64")
        need(isinstance(m.get("data", m.get("data64")), str), "data")
        try:
            base64.b64decode(m.get("data64", ""), validate=True)
        except (binascii.Error, ValueError):
            raise Refused("bad_message", "base64") from None
    if sender == "gateway":  # the sentences of chapter 13 about what a gateway sends
        assert all(m[k].isdecimal() for k in ("uid", "connection", "from") if k in m), "64-bit numbers are strings"
        if kind == "message":
            instance, _, sequence = m["id"].partition("-")
            assert len(instance) == 16 and sequence.isdecimal() and int(instance, 16) >= 0, "id of a message"
            assert "data" in m or not is_text(base64.b64decode(m["data64"])), "UTF-8 goes into data"
        if kind == "refused":
            assert name_of("errors", m["code"]) == m["reason"], "code and reason"
    return m


def is_text(data):
    try:
        return data.decode() is not None
    except UnicodeDecodeError:
        return False


def read_bin(data, sender):
    need(sender != "client" or len(data) <= CLIENT_MAX, "size", "message_size")
    need(data, "empty")
    kind = name_of("client_messages", data[0])
    if kind is None or (kind in FROM_CLIENT) != (sender == "client"):
        need(sender == "gateway", "unknown type")
        return None
    m, counts, pos = {"type": kind}, {}, 1

    def take(n):
        nonlocal pos
        need(pos + n <= len(data), "length")
        pos += n
        return data[pos - n:pos]

    def text(raw):
        need(is_text(raw), "UTF-8")
        return raw.decode()

    for token in BINARY[kind].split():
        name, _, size = token.partition(":")
        if size:
            value = int.from_bytes(take(int(size)), "little")
            need(name != "-" or not value, "reserved")
            if name[0] == "#":
                counts[name[1:]] = value
            elif name != "-":
                m[name] = name_of(TABLES[name], value) or value if name in TABLES else value
        elif name == "sender":
            if m.pop("flags") & 1:
                m["sender"] = int.from_bytes(take(8), "little")
        elif name == "labels":
            m["labels"] = [text(take(take(1)[0])) for _ in range(counts["labels"])]
            check_labels(m["labels"])
        elif name == "token":
            need(counts["token"] <= TOKEN_MAX, "token")
            m["token"] = text(take(counts["token"]))
        else:
            rest = take(len(data) - pos)
            m[name] = rest.hex()
    need(pos == len(data), "length")
    return m


def write_bin(m):
    out = u(TYPES[m["type"]], 1)
    for token in BINARY[m["type"]].split():
        name, _, size = token.partition(":")
        if size:
            value = (len(m.get(name[1:], "")) if name[0] == "#" else int("sender" in m) if name == "flags"
                     else number(m.get(name, 0), TABLES.get(name)))
            out += u(value, int(size))
        elif name == "sender":
            out += u(number(m["sender"]), 8) if "sender" in m else b""
        elif name == "labels":
            out += b"".join(u(len(x.encode()), 1) + x.encode() for x in m.get("labels", []))
        else:
            out += bytes.fromhex(m.get(name, "")) if name == "payload" else m.get(name, "").encode()
    return out

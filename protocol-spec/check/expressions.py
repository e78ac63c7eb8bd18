"""The text form of selectors and filter expressions, and what both mean: written from 5.1 and 5.2.

    read_selector(bytes)    -> bytes of the binary form; Refused.code, Refused.at
    write_selector(bytes)   -> text [SEL-13]
    matches(bytes, tags)    -> whether it is true for a connection with these tags [SEL-5]
    may_match(bytes, tags)  -> whether it may be true at a gateway that declared these tags [SEL-9]
    read_filter(bytes)      -> tree; wants(tree, frame) -> whether a frame is wanted
"""
import re

from codec import LIMITS, REGISTRY, Malformed, selector, u

WORD = r"[A-Za-z0-9_\-.:/@#+%=\u0080-\U0010ffff]"
BLANK, TERM_OPS = " \t\n\r", ("and", "or")
KINDS = {"uplink": "UPLINK", "presence": "PRESENCE", "offline": "OFFLINE"}
FIELDS = {  # name: kinds that have it, largest number or table of names
    "kind": (KINDS.values(), KINDS), "uid": (KINDS.values(), 2 ** 64 - 1), "label": (("UPLINK", "OFFLINE"), None),
    "priority": (("UPLINK", "OFFLINE"), REGISTRY["priorities"]), "content": (("UPLINK", "OFFLINE"), REGISTRY["content_types"]),
    "event": (("PRESENCE",), REGISTRY["events"]), "device_class": (("PRESENCE",), 255),
}


class Refused(Exception):
    def __init__(self, code, at, why=""):
        super().__init__(code, at, why)
        self.code, self.at = code, at


class Reader:
    """Recursive descent; `term` reads what differs between the two languages."""

    def __init__(self, data, size_max, terms_max, depth_max, term):
        self.refuse_size(data, size_max)
        try:
            self.text = data.decode()
        except UnicodeDecodeError as e:
            raise Refused("not_utf8", e.start) from None
        self.pos, self.terms, self.terms_max, self.depth_max, self.term = 0, 0, terms_max, depth_max, term

    @staticmethod
    def refuse_size(data, size_max):
        if len(data) > size_max:
            raise Refused("limit", size_max, "text")

    def fail(self, code="bad_expression", at=None, why=""):
        raise Refused(code, len(self.text[:self.pos if at is None else at].encode()), why)

    def peek(self):
        return self.text[self.pos:self.pos + 1]

    def blank(self):
        while self.peek() and self.peek() in BLANK:
            self.pos += 1

    def all(self):
        tree = self.row("or", "|", lambda: self.row("and", "&", lambda: self.negation(0), 0), 0)
        if self.pos < len(self.text):
            self.fail()
        return tree

    def row(self, op, sign, operand, depth):
        self.blank()
        operands = [operand()]
        self.blank()
        while self.peek() == sign:
            self.pos += 1
            self.blank()
            operands.append(operand())
            self.blank()
        flat = [x for one in operands for x in (one[1] if one[0] == op else [one])]  # [SEL-12]
        return (op, flat) if len(operands) > 1 else operands[0]

    def negation(self, depth):
        negated = False
        while self.peek() == "!":
            self.pos += 1
            self.blank()
            negated = not negated
        if self.peek() == "(":
            if depth == self.depth_max:
                self.fail("limit", why="parentheses")
            self.pos += 1
            inner = self.row("or", "|", lambda: self.row("and", "&", lambda: self.negation(depth + 1), depth), depth)
            if self.peek() != ")":
                self.fail()
            self.pos += 1
        else:
            start, inner = self.pos, self.term(self)
            self.terms += 1
            if self.terms > self.terms_max:
                self.fail("limit", start, "terms")
        if negated:
            return inner[1][0] if inner[0] == "not" else ("not", [inner])
        return inner

    def word(self):
        found = re.compile(WORD + "+").match(self.text, self.pos)
        if not found:
            self.fail()
        self.pos = found.end()
        return found[0]

    def word_or_quoted(self, limit):
        start = self.pos
        value = self.quoted() if self.peek() == '"' else self.word()
        if len(value.encode()) > LIMITS[limit]:
            self.fail("limit", start, limit)
        return value

    def quoted(self):
        self.pos += 1
        out = ""
        while (c := self.peek()) != '"':
            if c == "\\":
                if self.text[self.pos + 1:self.pos + 2] not in ('"', "\\"):
                    self.fail()
                self.pos += 1
                c = self.peek()
            elif not c or c < " " or c == "\x7f":
                self.fail()
            out += c
            self.pos += 1
        if not out:
            self.fail()
        self.pos += 1
        return out


# ---- selectors

def read_selector(data):
    reader = Reader(data, LIMITS["selector_text_bytes_max"], LIMITS["selector_terms_max"], LIMITS["selector_depth_max"],
                    lambda r: ("tag", r.word_or_quoted("tag_bytes_max")))
    out = encode(reader.all())
    try:
        assert len(out) <= LIMITS["selector_bytes_max"], "bytes"
        selector(out)
    except (Malformed, AssertionError):
        raise Refused("limit", 0) from None
    return out


def encode(tree):
    op, inside = tree
    code = u(REGISTRY["selector_nodes"][op], 1)
    if op == "tag":
        return code + u(len(inside.encode()), 1) + inside.encode()
    return code + (u(len(inside), 1) if op in TERM_OPS else b"") + b"".join(map(encode, inside))


def write_selector(data):
    def write(tree, outer):
        op, inside = tree
        if op == "tag":
            return inside if re.fullmatch(WORD + "+", inside) else '"' + re.sub(r'(["\\])', r"\\\1", inside) + '"'
        if op == "not":
            return "!" + write(inside[0], op)
        text = {"and": " & ", "or": " | "}[op].join(write(x, op) for x in inside)
        return f"({text})" if outer == "not" or (outer, op) == ("and", "or") else text
    return write(selector(data), None)


def holds(tree, term):
    op, inside = tree
    if op in TERM_OPS:
        return (all if op == "and" else any)([holds(x, term) for x in inside])
    return not holds(inside[0], term) if op == "not" else term(inside)


def matches(data, tags):
    return holds(selector(data), lambda tag: tag in tags)


def may_match(data, declared):
    def bounds(tree):  # (may, must)
        op, inside = tree
        if op == "tag":
            return inside in declared, False
        if op == "not":
            may, must = bounds(inside[0])
            return not must, not may
        return tuple((all if op == "and" else any)(x) for x in zip(*map(bounds, inside)))
    return bounds(selector(data))[0]


# ---- filters

def read_filter(data):
    return Reader(data, LIMITS["expression_bytes_max"], LIMITS["filter_terms_max"], LIMITS["filter_depth_max"], test).all()


def test(r):
    start, found = r.pos, re.compile("[a-z_]+").match(r.text, r.pos)
    if not found or found[0] not in FIELDS:
        r.fail()
    field, r.pos = found[0], found.end()
    r.blank()
    if r.peek() != "=":
        r.fail()
    r.pos += 1
    r.blank()
    start, (_, domain) = r.pos, FIELDS[field]
    if domain is None:
        value = "" if r.peek() == "*" else r.word_or_quoted("label_bytes_max")
        if r.peek() == "*":
            r.pos += 1
            return "test", (field, lambda label: label.startswith(value))
        return "test", (field, lambda label: label == value)
    word = r.word()
    if r.peek() == "*":
        r.fail(at=start)
    if isinstance(domain, int) or field == "content" and word[0].isdecimal():
        lo, dots, hi = word.partition("..") if isinstance(domain, int) else (word, "", "")
        least, most = (0, domain) if isinstance(domain, int) else (0x8000, 0xffff)
        ends = [lo, hi] if dots else [lo, lo]
        if not all(re.fullmatch("0|[1-9][0-9]*", x) for x in ends) or not least <= int(ends[0]) <= int(ends[1]) <= most:
            r.fail(at=start)
        return "test", (field, lambda x: x in range(int(ends[0]), int(ends[1]) + 1))
    if word not in domain:
        r.fail(at=start)
    return "test", (field, lambda x: x in (word, KINDS.get(word)))


def wants(tree, frame):
    """`frame` as vectors/README.md names the fields of UPLINK, PRESENCE and OFFLINE."""
    def term(inside):
        field, is_it = inside
        if frame["kind"] not in FIELDS[field][0]:
            return False
        values = {"kind": lambda: [frame["kind"]], "label": lambda: frame.get("labels", []), "priority": lambda: [frame.get("priority", "normal")],
                  "uid": lambda: {"UPLINK": lambda: [frame["sender"]["uid"]], "PRESENCE": lambda: [frame.get("uid", 0)],
                                  "OFFLINE": lambda: frame["targets"]}[frame["kind"]](),
                  "content": lambda: [frame["content"].get("content_type", "opaque")] if "content" in frame else [],
                  "event": lambda: [frame["event"]], "device_class": lambda: [frame.get("device_class", 0)]}[field]()
        return any(is_it(x) for x in values)
    return holds(tree, term)

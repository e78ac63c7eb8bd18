"""Clients that know nothing but protocol-spec/ get what `waybill pub` sends to them, and nobody else does.

Starts `waybill up` on free ports; logs in UID 1001 with Python's `websockets`, with npm's `ws` and with the demo page in
headless Chromium, and 1002 with each as well; publishes to 1001, then a fence to both. Messages of one gateway come in
order, so whoever has the fence has everything before it: what 1002 was not sent is known to be missing, without waiting
for it. Once with each subprotocol; the page speaks JSON whatever the others do.
"""
import argparse
import asyncio
import base64
import contextlib
import json
import os
import shlex
import shutil
import struct
import sys
import tempfile
from pathlib import Path

import websockets

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "cli/tests/browser"))
from webdriver import Browser  # noqa: E402
PATIENCE_S = 60  # for a step that should take milliseconds; a hang must end


class Json:
    """`waybill.json.v1`, chapter 13.1."""

    name = "waybill.json.v1"

    def login(self, token):
        return json.dumps({"type": "login", "token": token})

    def send(self, number, text):
        return json.dumps({"type": "send", "id": number, "data": text})

    def read(self, message):
        """("ready", uid), ("message", payload), ("refused", id, code), or None for what is to be ignored."""
        assert isinstance(message, str), "text messages [WS-1]"
        m = json.loads(message)
        if m["type"] == "ready":
            return "ready", int(m["uid"])
        if m["type"] == "message":
            assert ("data" in m) != ("data64" in m), "exactly one of both (13.1)"
            return "message", m["data"].encode() if "data" in m else base64.b64decode(m["data64"], validate=True)
        if m["type"] == "refused":
            return "refused", m["id"], m["code"]
        return None


class Binary:
    """`waybill.bin.v1`, chapter 13.2."""

    name = "waybill.bin.v1"

    def login(self, token):
        return struct.pack("<BBH", 0x01, 0, len(token)) + token.encode()

    def send(self, number, text):
        return struct.pack("<BBHI", 0x02, 0, 0, number) + text.encode()

    def read(self, message):
        assert isinstance(message, bytes), "binary messages [WS-1]"
        if message[0] == 0x81:
            uid, = struct.unpack_from("<Q", message, 8)
            return "ready", uid
        if message[0] == 0x82:
            at = 24 + 8 * (message[1] & 1)
            for _ in range(message[2]):
                at += 1 + message[at]
            return "message", message[at:]
        if message[0] == 0x83:
            code, number = struct.unpack_from("<HI", message, 2)
            return "refused" if code else "sent", number, code
        return None


class PythonClient:
    """An end user on `websockets`."""

    def __init__(self, form):
        self.form = form

    async def start(self, url, token):
        self.socket = await websockets.connect(url, subprotocols=[self.form.name])
        assert self.socket.subprotocol == self.form.name, self.socket.subprotocol
        await self.socket.send(self.form.login(token))

    async def next(self):
        while True:
            if known := self.form.read(await self.socket.recv()):
                return known

    async def stop(self):
        await self.socket.close()


class NodeClient:
    """An end user on npm's `ws`, in a process of its own."""

    def __init__(self, form):
        self.form = form

    async def start(self, url, token):
        pipe = asyncio.subprocess.PIPE
        short = self.form.name.split(".")[1]
        self.process = await asyncio.create_subprocess_exec("node", HERE / "client.mjs", url, short, stdin=pipe, stdout=pipe)
        self.process.stdin.write(token.encode() + b"\n")

    async def next(self):
        line = await self.process.stdout.readline()
        assert line, "client.mjs ended"
        told = json.loads(line)
        assert "closed" not in told, told
        return ("ready", int(told["ready"])) if "ready" in told else ("message", base64.b64decode(told["data64"]))

    async def stop(self):
        self.process.stdin.close()
        await self.process.wait()


class PageClient:
    """An end user on the demo page, in a tab of a real browser."""

    STATE = "return document.querySelector('[data-testid=state]').dataset.state === 'ready';"
    # Newest first, as the page shows them.
    TEXTS = """
      const all = [...document.querySelectorAll('[data-testid=message-text]')].map((e) => e.textContent);
      return all.length > arguments[0] && all.reverse();"""

    def __init__(self, browser, page, uid):
        self.browser, self.page, self.uid, self.seen = browser, page, uid, -1

    async def start(self, _url, _token):
        self.tab = await asyncio.to_thread(self.browser.tab, f"{self.page}?uid={self.uid}")

    async def next(self):
        if self.seen < 0:
            await asyncio.to_thread(self.tab.wait, "the page connects", self.STATE)
            self.seen = 0
            return "ready", self.uid
        texts = await asyncio.to_thread(self.tab.wait, "a message is shown", self.TEXTS, self.seen)
        self.seen += 1
        return "message", texts[self.seen - 1].encode()

    async def stop(self):
        """The tab goes with the browser."""


async def output_of(command, *more):
    process = await asyncio.create_subprocess_exec(*shlex.split(command), *more, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, f"{command} {more}: exit {process.returncode}"
    return out.decode()


async def start_up(command):
    """The running `waybill up`, the URL of its gateway, and the page."""
    ports = ["--json", "--broker-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(*shlex.split(command), *ports, stdout=asyncio.subprocess.PIPE)
    line = await process.stdout.readline()
    assert line, f"{command}: ended before it said where it listens"
    ready = json.loads(line)
    return process, f"ws://{ready['gateway']}/ws", ready["page"]


async def check(form, url, page, browser, arguments):
    users = [(uid, client) for uid in (1001, 1002)
             for client in (PythonClient(form), NodeClient(form), PageClient(browser, page, uid))]
    for uid, client in users:
        await client.start(url, (await output_of(arguments.waybill, "token", "--uid", str(uid))).strip())
        ready = await client.next()
        assert ready == ("ready", uid), ready
    await output_of(arguments.pub)
    await output_of(arguments.waybill, "pub", "--uid", "1001,1002", "fence")
    for uid, client in users:
        expected = [b"hello", b"fence"] if uid == 1001 else [b"fence"]
        for payload in expected:
            found = await client.next()
            assert found == ("message", payload), (uid, type(client).__name__, found)
    # A message from the user: nobody consumes here, so it is refused as `no_consumer` [UP-2].
    for uid, client in users:
        if isinstance(client, PythonClient):
            await client.socket.send(form.send(uid, "up"))
            answer = await client.next()
            assert answer == ("refused", uid, 305), answer
    for _, client in users:
        await client.stop()
    print(f"{form.name}: 1001 got it on websockets, ws and the page, 1002 did not")


async def main(arguments):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WAYBILL_RUNTIME"] = f"{folder}/up.json"
        up, url, page = await start_up(arguments.up)
        try:
            for form in (Json(), Binary()):
                browser = await asyncio.to_thread(Browser, shutil.which("chromedriver"), shutil.which("chromium"))
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await check(form, url, page, browser, arguments)
                finally:
                    await asyncio.to_thread(browser.close)
        finally:
            with contextlib.suppress(ProcessLookupError):
                up.terminate()
            await asyncio.wait_for(up.wait(), PATIENCE_S)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--waybill", required=True, help="the program")
parser.add_argument("--up", required=True, help="the README's first command")
parser.add_argument("--pub", required=True, help="what the README says to type next")
asyncio.run(main(parser.parse_args()))

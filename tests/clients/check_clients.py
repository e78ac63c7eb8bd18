"""Clients that know nothing but protocol-spec/ get what `waybill pub` sends to them, and nobody else does.

Starts `waybill up` on free ports; logs in UID 1001 with Python's `websockets` and with npm's `ws`, and 1002 with each as
well; publishes to 1001, then a fence to both. Messages of one gateway come in order, so whoever has the fence has
everything before it: what 1002 was not sent is known to be missing, without waiting for it. Once with each subprotocol.
"""
import argparse
import asyncio
import base64
import contextlib
import json
import os
import shlex
import struct
import tempfile
from pathlib import Path

import websockets

HERE = Path(__file__).resolve().parent
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


async def output_of(command, *more):
    process = await asyncio.create_subprocess_exec(*shlex.split(command), *more, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, f"{command} {more}: exit {process.returncode}"
    return out.decode()


async def start_up(command):
    """The running `waybill up` and the URL of its gateway."""
    ports = ["--json", "--broker-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
    process = await asyncio.create_subprocess_exec(*shlex.split(command), *ports, stdout=asyncio.subprocess.PIPE)
    line = await process.stdout.readline()
    assert line, f"{command}: ended before it said where it listens"
    ready = json.loads(line)
    return process, f"ws://{ready['gateway']}/ws"


async def check(form, url, arguments):
    users = [(1001, PythonClient(form)), (1001, NodeClient(form)), (1002, PythonClient(form)), (1002, NodeClient(form))]
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
    print(f"{form.name}: 1001 got it on websockets and ws, 1002 did not")


async def main(arguments):
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WAYBILL_RUNTIME"] = f"{folder}/up.json"
        up, url = await start_up(arguments.up)
        try:
            for form in (Json(), Binary()):
                async with asyncio.timeout(PATIENCE_S):
                    await check(form, url, arguments)
        finally:
            with contextlib.suppress(ProcessLookupError):
                up.terminate()
            await asyncio.wait_for(up.wait(), PATIENCE_S)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--waybill", required=True, help="the program")
parser.add_argument("--up", required=True, help="the README's first command")
parser.add_argument("--pub", required=True, help="what the README says to type next")
asyncio.run(main(parser.parse_args()))

#!/usr/bin/env python3
"""The demo page in a real browser: two users in two tabs.

    python3 cli/tests/browser/test_demo.py --waybill target/debug/waybill

Exit 0: all went well; 1: something did not, told on stderr. Needs chromium and chromedriver (Debian:
chromium-driver) and nothing else. Ends by itself after --limit seconds whatever happens. Screenshots
go to a temporary directory that is named at the end, or to --screenshots.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from webdriver import Browser  # noqa: E402

TEXTS = """
return [...document.querySelectorAll('[data-testid=message-text]')].map((e) => e.textContent);
"""

SEND = """
const [kind, uids, text] = arguments;
const find = (id) => document.querySelector(`[data-testid=${id}]`);
find('to-' + kind).click();
if (uids !== null) find('uids').value = uids;
find('text').value = text;
find('send').click();
"""

HAS_MESSAGE = """
const [text] = arguments;
const found = [...document.querySelectorAll('[data-testid=message]')]
  .find((e) => e.querySelector('[data-testid=message-text]').textContent === text);
const part = (id) => found.querySelector(`[data-testid=${id}]`)?.textContent ?? '';
return found && { from: part('message-from'), latency: part('message-latency') };
"""

RECEIPT = """
const [text] = arguments;
const found = [...document.querySelectorAll('[data-testid=receipt]')]
  .find((e) => e.querySelector('.body').textContent === text);
return found && {
  latency: found.querySelector('[data-testid=receipt-latency]').textContent,
  numbers: found.querySelector('.numbers').textContent,
};
"""

UPLINK = """
const find = (id) => document.querySelector(`[data-testid=${id}]`);
find('uplink-text').value = arguments[0];
find('uplink-send').click();
"""

UPLINK_OUTCOME = """
const [text] = arguments;
const found = [...document.querySelectorAll('[data-testid=uplink-entry]')]
  .find((e) => e.querySelector('.body').textContent === text);
const outcome = found?.querySelector('[data-testid=uplink-outcome]');
return outcome?.dataset.outcome && outcome.textContent;
"""

STATE = "return document.querySelector('[data-testid=state]').dataset.state === arguments[0];"


def check(holds, words):
    if not holds:
        raise AssertionError(words)


class Up:
    """A running `waybill up` on free ports."""

    def __init__(self, waybill, runtime):
        self.waybill = waybill
        self.environment = {**os.environ, "WAYBILL_RUNTIME": runtime}
        self.start("127.0.0.1:0")

    def start(self, listen):
        self.process = self.spawn("up", "--json", "--listen", listen,
                                  "--broker-listen", "127.0.0.1:0")
        line = self.process.stdout.readline()
        check(line, "waybill up has ended without a word")
        self.ready = json.loads(line)

    def spawn(self, *arguments):
        return subprocess.Popen(
            [self.waybill, *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments):
        return subprocess.run(
            [self.waybill, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        check(code == 0, f"waybill up ended with {code}: {self.process.stderr.read()}")


def between_users(one, two, three):
    one.run(SEND, "one", "1002", "only for 1002")
    got = two.wait("1002 gets the message", HAS_MESSAGE, "only for 1002")
    check(got["from"] == "1001", f"sender shown: {got}")
    check("arrived after" in got["latency"] and got["latency"].endswith(" ms"), f"{got}")
    receipt = one.wait("the receipt is shown", RECEIPT, "only for 1002")
    check("receipt after" in receipt["latency"] and "broker" in receipt["latency"], f"{receipt}")
    check("sent 1" in receipt["numbers"], f"{receipt}")

    one.run(SEND, "list", "1001, 1003 4242", "for a list")
    for tab in (one, three):
        tab.wait("the list gets it", HAS_MESSAGE, "for a list")
    receipt = one.wait("the receipt is shown", RECEIPT, "for a list")
    check("sent 2" in receipt["numbers"] and "offline 4242" in receipt["numbers"], f"{receipt}")

    two.run(SEND, "all", None, "for everyone")
    for tab in (one, two, three):
        tab.wait("everyone gets it", HAS_MESSAGE, "for everyone")
    # Order per producer link: had anything been sent astray, it would be here by now.
    expected = {
        one: ["for everyone", "for a list"],
        two: ["for everyone", "only for 1002"],
        three: ["for everyone", "for a list"],
    }
    for tab, texts in expected.items():
        check(tab.run(TEXTS) == texts, f"expected {texts}, found {tab.run(TEXTS)}")


def wrong_input(one):
    one.run(SEND, "one", "alice", "nobody")
    shown = "return document.querySelector('[data-testid=publish-problem]').textContent;"
    check("alice" in one.wait("the mistake is named", shown), "the wrong UID is named")
    # A UID above 2^53 comes through as it was typed.
    one.run(SEND, "one", "18446744073709551615", "large")
    receipt = one.wait("the receipt is shown", RECEIPT, "large")
    check("18446744073709551615" in receipt["numbers"], f"{receipt}")


def from_a_terminal(up, one):
    up.run("pub", "--uid", "1001", "plain <b>text</b>")
    got = one.wait("a message of `waybill pub` is shown as text", HAS_MESSAGE, "plain <b>text</b>")
    check(got == {"from": "", "latency": ""}, f"{got}")


def uplink(up, one):
    one.run(UPLINK, "is anybody there?")
    outcome = one.wait("nobody is", UPLINK_OUTCOME, "is anybody there?")
    check("no_consumer" in outcome, outcome)
    backend = up.spawn("sub", "--consumer", "--count", "1", "--json")
    try:
        line = backend.stderr.readline()
        check(line.startswith("listening"), line)
        one.run(UPLINK, "and now?")
        outcome = one.wait("a backend has it", UPLINK_OUTCOME, "and now?")
        check("sent" in outcome, outcome)
        message = json.loads(backend.stdout.readline())
        check((message["from"], message["data"]) == ("1001", "and now?"), f"{message}")
        check(backend.wait(20) == 0, "the backend ended well")
    finally:
        backend.kill()


def foreign_pages(ready):
    """What DNS rebinding or a post across origins would look like."""
    def status(host, origin=None, kind="application/json"):
        headers = {"host": host, "content-type": kind}
        if origin:
            headers["origin"] = origin
        request = urllib.request.Request(
            ready["page"] + "demo/token", data=b'{"uid":"1"}', headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=10).status
        except urllib.error.HTTPError as error:
            return error.code

    host = ready["gateway"]
    check(status(host) == 200, "the page's own request")
    check(status(host, "http://" + host) == 200, "the page's own request, with its origin")
    check(status("evil.example") == 421, "a foreign host")
    check(status(host, "http://evil.example") == 403, "a foreign origin")
    check(status(host, kind="text/plain") == 415, "a simple request")


def comes_back(up, one):
    """The page outlives its server; the new one has another secret."""
    up.stop()
    one.wait("the loss is shown", STATE, "connecting")
    up.start(up.ready["gateway"])
    one.wait("the page connects again", STATE, "ready", seconds=20)
    one.run(SEND, "one", "1001", "after the break")
    one.wait("it gets its own message", HAS_MESSAGE, "after the break")
    up.stop()


def everything(arguments, screenshots, runtime):
    up = Up(arguments.waybill, runtime)
    browser = None
    try:
        browser = Browser(arguments.chromedriver, arguments.chromium, arguments.dark)
        foreign_pages(up.ready)
        page = up.ready["page"]
        tabs = [browser.tab(f"{page}?uid={uid}") for uid in (1001, 1002, 1003)]
        for tab in tabs:
            tab.wait("the page connects", STATE, "ready")
        one, two, three = tabs
        between_users(one, two, three)
        wrong_input(one)
        from_a_terminal(up, one)
        uplink(up, one)
        one.screenshot(os.path.join(screenshots, "user-1001.png"))
        two.screenshot(os.path.join(screenshots, "user-1002.png"))
        picker = browser.tab(page + "?uid=nobody")
        picker.screenshot(os.path.join(screenshots, "picker.png"))
        one.call("POST", "/window/rect", {"width": 400, "height": 860})
        one.screenshot(os.path.join(screenshots, "narrow.png"))
        comes_back(up, one)
    finally:
        if browser is not None:
            browser.close()
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def main():
    parser = argparse.ArgumentParser(description="The demo page in a real browser.")
    parser.add_argument("--waybill", required=True, help="the program")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--chromedriver", default=shutil.which("chromedriver"))
    parser.add_argument("--screenshots", help="directory for screenshots")
    parser.add_argument("--dark", action="store_true", help="a browser that prefers dark pages")
    parser.add_argument("--limit", type=float, default=120, help="seconds after which it gives up")
    arguments = parser.parse_args()
    if not arguments.chromium or not arguments.chromedriver:
        print("chromium or chromedriver is not on PATH", file=sys.stderr)
        return 1

    def give_up():
        print(f"gave up after {arguments.limit} s", file=sys.stderr)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    # A group of its own, so that giving up takes the browser along and nobody else.
    os.setpgrp()
    limit = threading.Timer(arguments.limit, give_up)
    limit.daemon = True
    limit.start()
    screenshots = arguments.screenshots or tempfile.mkdtemp(prefix="waybill-screenshots-")
    os.makedirs(screenshots, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="waybill-runtime-") as directory:
        try:
            everything(arguments, screenshots, os.path.join(directory, "up.json"))
        except AssertionError as failure:
            print(f"failed: {failure}", file=sys.stderr)
            return 1
    print(f"ok; screenshots in {screenshots}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

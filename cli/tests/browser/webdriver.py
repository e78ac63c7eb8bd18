"""A little WebDriver client: chromedriver's HTTP API with the standard library, no package.

Knows how to start chromedriver, open one browser session, run scripts in a tab and wait for a
condition. Nothing here knows the demo page.
"""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",  # the test may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1180,900",
]


class BrowserError(Exception):
    """The browser, or the driver, said no."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Browser:
    """One chromedriver process with one browser session; leaves nothing behind."""

    def __init__(self, chromedriver, chromium, dark=False):
        self.profile = tempfile.mkdtemp(prefix="waybill-browser-")
        self.port = free_port()
        self.driver = subprocess.Popen(
            [chromedriver, f"--port={self.port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.session = None
        try:
            self._wait_until_ready()
            flags = CHROMIUM_FLAGS + [f"--user-data-dir={self.profile}"]
            if dark:
                flags.append("--force-dark-mode")
            options = {"binary": chromium, "args": flags}
            capabilities = {"browserName": "chrome", "goog:chromeOptions": options}
            answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            self.session = "/session/" + answer["sessionId"]
        except Exception:
            self.close()
            raise

    def _wait_until_ready(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except (OSError, BrowserError):
                time.sleep(0.05)  # a foreign process has nothing to wait on
        raise BrowserError("chromedriver did not start")

    def _call(self, method, path, body=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            value = json.load(error)["value"]
            raise BrowserError(f"{value['error']}: {value['message'].splitlines()[0]}") from None

    def tab(self, url):
        """Opens a tab at a URL."""
        handle = self._call("POST", self.session + "/window/new", {"type": "tab"})["handle"]
        tab = Tab(self, handle)
        tab.call("POST", "/url", {"url": url})
        return tab

    def close(self):
        if self.session is not None:
            try:
                self._call("DELETE", self.session)
            except (OSError, BrowserError):
                pass
        self.driver.terminate()
        try:
            self.driver.wait(10)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            self.driver.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


class Tab:
    """One tab; every call brings it to the front first."""

    def __init__(self, browser, handle):
        self.browser = browser
        self.handle = handle

    def call(self, method, path, body=None):
        session = self.browser.session
        self.browser._call("POST", session + "/window", {"handle": self.handle})
        return self.browser._call(method, session + path, body)

    def run(self, script, *arguments):
        """Runs a function body; what it returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, what, script, *arguments, seconds=10):
        """Waits until a function body returns something true; what that is."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.run(script, *arguments)
            if found:
                return found
            if time.monotonic() > deadline:
                page = self.run("return document.body.innerText")
                raise AssertionError(f"not within {seconds} s: {what}\n--- page ---\n{page}")
            time.sleep(0.02)  # WebDriver cannot be waited on, only asked

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))

"""Chromium without a window, told what to do over a pair of pipes (the DevTools protocol).

    with Browser(folder) as browser:
        tab = browser.open(path)
        tab.evaluate("document.title")

It looks at files only. What a tab says of itself (console, exceptions, requests) is in `events`.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run
--disable-background-networking --disable-component-update --disable-sync --disable-dev-shm-usage
--hide-scrollbars --remote-debugging-pipe""".split()
PATIENCE_S = 60
LATIN = {"Tab": 9, "Enter": 13, "ArrowRight": 39}


class Lost(Exception):
    """The browser is gone, or does not answer, or says no."""


def find():
    """The browser's path; None where there is none."""
    return shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """One browser; its profile lies in the folder and is nobody else's."""

    def __init__(self, folder):
        self.folder, self.said, self.last = folder, b"", 0
        self.process, self.tabs = None, {}

    def __enter__(self):
        there, self.out = os.pipe()
        self.inn, back = os.pipe()
        # The browser reads fd 3 and writes fd 4; neither may be taken before it is put there.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (there, back)]

        def place():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [find(), *FLAGS, f"--user-data-dir={self.folder}/profile", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(f"{self.folder}/chromium.stderr", "wb"),
            env={**os.environ, "HOME": str(self.folder), "TZ": "UTC"},
            pass_fds=(3, 4),
            preexec_fn=place,
            start_new_session=True,
        )
        for fd in (there, back, *high):
            os.close(fd)
        return self

    def __exit__(self, *_):
        try:
            self.call("Browser.close")
            self.process.wait(5)
        except (Lost, OSError, subprocess.TimeoutExpired):
            pass
        try:
            # All of its processes are in the group that was made for it.
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.out)
        os.close(self.inn)

    def _read(self, until):
        while b"\0" not in self.said:
            ready, _, _ = select.select([self.inn], [], [], max(0, until - time.monotonic()))
            piece = os.read(self.inn, 1 << 20) if ready else None
            if not piece:
                raise Lost("the browser has ended" if ready else "the browser does not answer")
            self.said += piece
        text, _, self.said = self.said.partition(b"\0")
        return json.loads(text)

    def _next(self, until):
        """One message; an event goes to its tab."""
        message = self._read(until)
        tab = self.tabs.get(message.get("sessionId"))
        if tab and "method" in message:
            tab.events.append((message["method"], message.get("params", {})))
        return message

    def call(self, method, session=None, **params):
        """Asks and waits for the answer."""
        self.last += 1
        ask = {"id": self.last, "method": method, "params": params}
        if session:
            ask["sessionId"] = session
        text = json.dumps(ask).encode() + b"\0"
        while text:
            text = text[os.write(self.out, text) :]
        until = time.monotonic() + PATIENCE_S
        while True:
            message = self._next(until)
            if message.get("id") == self.last:
                break
        if "error" in message:
            raise Lost(f"{method}: {message['error']['message']}")
        return message["result"]

    def open(self, path):
        """A tab of its own with a file in it, loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self.tabs[session] = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            tab.call(f"{domain}.enable")
        fault = tab.call("Page.navigate", url=path.resolve().as_uri()).get("errorText")
        if fault:
            raise Lost(f"{path}: {fault}")
        until = time.monotonic() + PATIENCE_S
        while not any(name == "Page.loadEventFired" for name, _ in tab.events):
            self._next(until)
        return tab


class Tab:
    """One page."""

    def __init__(self, browser, session, target):
        self.browser, self.session, self.target, self.events = browser, session, target, []

    def call(self, method, **params):
        """Asks the page."""
        return self.browser.call(method, self.session, **params)

    def close(self):
        """Ends it."""
        self.browser.call("Target.closeTarget", targetId=self.target)

    def evaluate(self, script):
        """The value of an expression in the page; a promise is waited for."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in done:
            raise Lost(done["exceptionDetails"]["exception"].get("description", "an exception"))
        return done["result"].get("value")

    def look(self, width, height=900, scheme="light", media="screen"):
        """Sets the window's size, the colours that its user prefers, and screen or print."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        prefers = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=prefers)

    def press(self, key):
        """One key, down and up."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=LATIN[key],
            )

    def picture(self, path, whole=True):
        """What it looks like, as a PNG."""
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(done["data"]))

    def pdf(self):
        """What the printer would get."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=False)["data"])

    def complaints(self):
        """What the console, the log and exceptions said."""
        said = []
        for name, params in self.events:
            if name == "Log.entryAdded":
                said.append(params["entry"]["text"])
            elif name == "Runtime.exceptionThrown":
                said.append(params["exceptionDetails"]["text"])
            elif name == "Runtime.consoleAPICalled":
                said.append(" ".join(str(each.get("value")) for each in params["args"]))
        return said

    def requests(self):
        """Every address that it asked for."""
        found = [
            p["request"]["url"] for name, p in self.events if name == "Network.requestWillBeSent"
        ]
        return [url for url in found if not url.startswith("data:")]

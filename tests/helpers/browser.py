"""A headless Chromium, driven over a pipe by the DevTools protocol: what a page shows, logs and requests.

    with Browser() as browser:
        page = browser.open(path)
        page.value("document.title"), page.complaints, page.requests
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 60  # to wait for an answer

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync",
         "--remote-debugging-pipe"]


class Browser:
    def __enter__(self):
        self._profile = tempfile.mkdtemp()
        to_browser, self._from_browser = os.pipe(), os.pipe()
        # Chromium reads its commands from descriptor 3 and answers on 4.
        wiring = 'exec "$@" 3<&"$0" 4>&"$ANSWERS"'
        inherited = to_browser[0], self._from_browser[1]
        self._process = subprocess.Popen(
            ["bash", "-c", wiring, str(inherited[0]), CHROMIUM, *FLAGS, f"--user-data-dir={self._profile}"],
            pass_fds=inherited, env=os.environ | {"ANSWERS": str(inherited[1])}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        for descriptor in inherited:
            os.close(descriptor)
        self._writing, self._reading = to_browser[1], self._from_browser[0]
        self._buffer, self._number, self.events = b"", 0, []
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, TimeoutError, EOFError):
            self.ask("Browser.close")
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._writing)
        os.close(self._reading)
        shutil.rmtree(self._profile, ignore_errors=True)

    def ask(self, method, session=None, **parameters):
        """The result of a command; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._writing, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, method, session):
        """Wait for an event of a page."""
        while not any((event["method"], event.get("sessionId")) == (method, session) for event in self.events):
            self.events.append(self._read())

    def _read(self):
        deadline = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reading], [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            if not (part := os.read(self._reading, 1 << 20)):
                raise EOFError("Chromium has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path, width=1280, height=900, dark=False, fragment=""):
        return Page(self, f"{Path(path).resolve().as_uri()}{fragment}", width, height, dark)


class Page:
    """A page that has been loaded. seconds: how long that took."""

    def __init__(self, browser, url, width, height, dark):
        self._browser = browser
        self.target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.ask("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.resize(width, height)
        self.ask("Emulation.setEmulatedMedia",
                 features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        browser.events.clear()
        begin = time.monotonic()
        self.ask("Page.navigate", url=url)
        browser.wait_for("Page.loadEventFired", self._session)
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # it is painted
        self.seconds = time.monotonic() - begin

    def ask(self, method, **parameters):
        return self._browser.ask(method, self._session, **parameters)

    def resize(self, width, height):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)

    def value(self, expression):
        """The value of a JavaScript expression."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector):
        """The texts of the elements of a selector."""
        return self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent.trim())")

    def point(self, selector, x, y, click=False):
        """Move the mouse to a point of an element, in pixels from its corner; `click` there."""
        left, top = self._corner(selector)
        for kind in ("mouseMoved", *(("mousePressed", "mouseReleased") if click else ())):
            self.ask("Input.dispatchMouseEvent", type=kind, x=left + x, y=top + y, button="left" if click else "none",
                     clickCount=int(click))

    def tap(self, selector, x, y):
        """Touch a point of an element, and lift the finger."""
        left, top = self._corner(selector)
        self.ask("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": left + x, "y": top + y}])
        self.ask("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _corner(self, selector):
        """The upper left corner of an element, in the window, after scrolling to it."""
        return self.value(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView("
                          "{block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect(); "
                          "return new Promise(done => requestAnimationFrame(() => done([b.left, b.top]))) })()")

    def _events(self, *methods):
        self.value("0")  # all events before this answer have come
        return [event["params"] for event in self._browser.events
                if event["method"] in methods and event.get("sessionId") == self._session]

    @property
    def complaints(self):
        """What came to the console: messages, errors, exceptions, what a policy has stopped."""
        return self._events("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")

    @property
    def requests(self):
        """The addresses that were asked for, without those that contain what they lead to."""
        urls = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    def screenshot(self, path, whole=True):
        picture = self.ask("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(picture["data"]))

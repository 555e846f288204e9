"""A browser for tests of pages."""

import json
import os
import select
import subprocess
import time
from base64 import b64decode

# A text that tries to run scripts in a page, with characters that pages must not show as they are.
HOSTILE = (
    "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
    "<!--<script> & \u2028 \u202e {{ 7 * 7 }} \ud800 "
)


class Browser:
    """Headless Chromium, controlled over two pipes with the DevTools protocol."""

    def __init__(self, executable, profile):
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--remote-debugging-pipe", "--disable-background-networking", f"--user-data-dir={profile}"]
        # the protocol uses the file descriptors 3 and 4
        command = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash", executable, *options, "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=(read, write), **quiet)
        os.close(read)
        os.close(write)
        self._rest, self._number, self._session, self.events = b"", 0, None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            assert select.select([self._in], [], [], 30)[0], "Chromium does not answer"
            piece = os.read(self._in, 1 << 16)
            assert piece, "Chromium ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, page, width=1280, height=900, scheme="light"):
        """Load a page and wait until it is drawn. `events` then holds the events of this page."""
        self.events = []
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=page.as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")

    def evaluate(self, expression):
        answer = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression):
        end = time.monotonic() + 60
        while not self.evaluate(expression):
            assert time.monotonic() < end, f"still false: {expression}"
            time.sleep(0.05)

    def hover(self, selector):
        """Move the mouse to the centre of an element."""
        x, y = self.evaluate(
            f"(() => {{ const element = document.querySelector({json.dumps(selector)}); "
            "element.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const box = element.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, name):
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def screenshot(self, path, whole=True):
        path.write_bytes(b64decode(self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def complaints(self):
        """Console messages, exceptions, and requests other than for the page itself and for data URLs."""
        found = [event for event in self.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        found += [event for event in self.events if event["method"] == "Runtime.consoleAPICalled"]
        requests = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return found + [url for url in requests if not url.startswith(("file:", "data:"))]

    def close(self):
        self._process.terminate()
        self._process.wait(10)
        os.close(self._out)
        os.close(self._in)

"""A real browser that opens a file and is asked what happened: Chromium, over its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = shutil.which("chromium")

_PATIENCE_SECONDS = 60.0


class OpenPage:
    """A page that is open, and what its browser reported of it."""

    def __init__(self, socket: Connection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.console: list[str] = []
        """What it wrote to the console, exceptions and refusals of its policy included."""
        self.requests: list[str] = []
        """Every address that it asked for."""
        self._events: list[str] = []

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """The browser's answer."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = self._read()
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    def _read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=_PATIENCE_SECONDS))
        method, about = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(one.get("value")) for one in about["args"]))
        elif method == "Runtime.exceptionThrown":
            self.console.append(str(about["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.console.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        if method is not None:
            self._events.append(method)
        return message

    def open(self, address: str) -> None:
        """Go there, and wait until it is drawn."""
        self._events.clear()
        self.send("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._events:
            self._read()

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def look(self, *, width: int = 1100, height: int = 900, dark: bool = False, mobile: bool = False) -> None:
        """Show it in a window of this size, in light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, to: Path, *, top: int = 0, height: int | None = None) -> None:
        """Write what it looks like, from ``top`` pixels on, as a PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "scale": 1}
        clip["height"] = height or size["height"] - top
        shot = self.send("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        to.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[OpenPage]:
    """An empty page in a browser of its own, whose profile is in ``folder``."""
    assert CHROMIUM is not None
    profile = folder / "profile"
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--hide-scrollbars", "--remote-debugging-port=0", "--disable-extensions", "--no-first-run"),
        *("--disable-background-networking", f"--user-data-dir={profile}", "about:blank"),
    ]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_address(profile / "DevToolsActivePort"), max_size=None) as socket:
            page = OpenPage(socket)
            targets = page.send("Target.getTargets")["targetInfos"]
            target = next(one for one in targets if one["type"] == "page")
        port = (profile / "DevToolsActivePort").read_text().split()[0]
        address = f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
        # Nobody reads while a test does something else, so a ping would have no answer.
        with connect(address, max_size=None, ping_interval=None) as socket:
            page = OpenPage(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.send(f"{domain}.enable")
            page.look()
            yield page
    finally:
        started.terminate()
        try:
            started.wait(20)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _address(file: Path) -> str:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        written = file.read_text().split() if file.exists() else []
        if len(written) == 2:
            return f"ws://127.0.0.1:{written[0]}{written[1]}"
        assert time.monotonic() < deadline, "Chromium does not start"
        time.sleep(0.1)

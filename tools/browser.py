"""Debian's chromium, told what to do by its debugging protocol: to measure our pages, and to take pictures.

    async with Browser(folder) as browser:
        await browser.open(url, width=360)
        wide = await browser.evaluate("document.documentElement.scrollWidth")

It has no network but loopback. What the protocol calls things is in
https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any, Self

from aiohttp import ClientSession, ClientWebSocketResponse

from tools.processes import environment

PROGRAM = shutil.which("chromium")
_SECONDS = 120  # for any answer: the machine may be busy
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--remote-debugging-port=0", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"),
)


class Browser:
    """A browser with one page. `folder` gets its profile. Raises RuntimeError for what it refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._events: set[str] = set()
        self._process: asyncio.subprocess.Process
        self._session: ClientSession
        self._page: ClientWebSocketResponse

    async def __aenter__(self) -> Self:
        assert PROGRAM is not None, "needs chromium (Debian: apt-get install chromium)"
        self._process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *_ARGUMENTS,
            f"--user-data-dir={self._folder / 'profile'}",
            "about:blank",
            env=environment(self._folder),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._session = ClientSession()
        try:
            async with asyncio.timeout(_SECONDS):
                host = await self._host()
                async with self._session.get(f"http://{host}/json/list") as answer:
                    (page,) = [each for each in await answer.json() if each["type"] == "page"]
                self._page = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
            await self.ask("Page.enable")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _host(self) -> str:
        """Where the browser says that it listens."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if found := re.search(rb"DevTools listening on ws://([^/]+)/", line):
                return found[1].decode()
        raise RuntimeError("chromium ended before it listened")

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the protocol, and return its result."""
        number = next(self._numbers)
        await self._page.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(_SECONDS):
            while (message := await self._receive()).get("id") != number:
                pass
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        result: dict[str, Any] = message["result"]
        return result

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._page.receive_str())
        self._events.add(message.get("method", ""))
        return message

    async def open(
        self, url: str, *, width: int, height: int = 900, dark: bool = False, scripts: bool = True
    ) -> None:
        """Load a page in a window of this size, in CSS pixels, and wait until it is there."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", features=[scheme])
        await self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._events.clear()
        await self.ask("Page.navigate", url=url)
        await self._loaded()

    async def press_and_load(self, key: str) -> None:
        """Press a key that leads to another page, and wait until that is there."""
        self._events.clear()
        await self.type(key)
        await self._loaded()

    async def _loaded(self) -> None:
        async with asyncio.timeout(_SECONDS):
            while "Page.loadEventFired" not in self._events:
                await self._receive()

    async def evaluate(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        found = await self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def type(self, keys: str) -> None:
        """Press keys: characters, or the name of one, as Tab, Escape and Enter."""
        for key in [keys] if keys in ("Tab", "Escape", "Enter") else keys:
            text = {} if key in ("Tab", "Escape") else {"text": "\r" if key == "Enter" else key}
            codes = {"Tab": 9, "Escape": 27, "Enter": 13}
            code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
            await self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code)
            await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    async def picture(self) -> bytes:
        """What the window shows, as a PNG."""
        shot = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])

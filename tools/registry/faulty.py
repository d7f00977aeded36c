"""A registry that journals every request and can be told to misbehave: for tests, and as a program.

It is the embedded registry, strict as it is, with another `BodyTransport` and a middleware
around it. In a test:

    async with journalling(tmp_path, [Fault("GET", "/blobs/", nth=2, act=Reset(after=65536))]) as registry:
        ...
        assert registry.journal.reads(digest) == 2

As a program (one JSON object an exchange goes to the journal file):

    python -m tools.registry.faulty --root DIR --listen 127.0.0.1:5001 \\
        --fault 'GET /blobs/ nth=2 reset after=65536' --journal FILE.jsonl
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from email.utils import formatdate
from pathlib import Path

import msgspec
from aiohttp import web

from blobflow.content import Sleep
from blobflow.oci import Digest, parse_manifest
from blobflow.oci.media import MANIFESTS
from blobflow.server import REGISTRY_KEY, Server, make_app
from blobflow.server.registry import SparsePolicy
from blobflow.transports.store import Store
from tools.registry.fault_state import Crowds, Locations, Pacing, Rations, Tokens
from tools.registry.fault_transport import FaultyWire, Struck, answer_small, current, falsify_headers
from tools.registry.faults import (
    AnyAct,
    Bearer,
    Busy,
    Corrupt,
    Crowded,
    DropHeader,
    Fault,
    Faults,
    ForgetBroken,
    ForgetSession,
    Hangup,
    Ignore,
    LoseAnswer,
    MountAnywhere,
    MountReferenced,
    MovingLocation,
    Mute,
    PlainErrors,
    Rationed,
    RedirectTo,
    Refuse,
    RefuseMount,
    Reset,
    SetHeader,
    Slow,
    Sometimes,
    Stall,
    Status,
    Truncate,
    Unsized,
    parse_fault,
)
from tools.registry.journal import Exchange, Journal, target

__all__ = [
    "Bearer",
    "Busy",
    "Corrupt",
    "Crowded",
    "DropHeader",
    "Exchange",
    "Fault",
    "ForgetBroken",
    "ForgetSession",
    "Hangup",
    "Ignore",
    "Journal",
    "JournallingRegistry",
    "LoseAnswer",
    "MountAnywhere",
    "MountReferenced",
    "MovingLocation",
    "Mute",
    "PlainErrors",
    "Rationed",
    "RedirectTo",
    "Refuse",
    "RefuseMount",
    "Reset",
    "SetHeader",
    "Slow",
    "Sometimes",
    "Stall",
    "Status",
    "Truncate",
    "Unsized",
    "journalling",
    "parse_fault",
]

Inner = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Seconds that a stop waits for requests under way: a stalled one never ends by itself.
_GRACE = 0.05


class JournallingRegistry:
    """A running registry with its journal, its faults and its store. Made by `journalling`."""

    def __init__(
        self,
        store: Store,
        faults: Sequence[Fault] = (),
        *,
        sparse: SparsePolicy = "indexes",
        unreleased: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        told: Callable[[Exchange], None] | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Sleep = asyncio.sleep,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`unreleased`: see the server's `Rules`; without, it is a registry of spec 1.1, as most are.
        `clock` (seconds) is that of `Rationed` and `Bearer`, and with `sleep` what `Slow` paces by."""
        self.store = store
        self.journal = Journal(told)
        self.faults = Faults(faults)
        clock = clock or asyncio.get_running_loop().time
        self._crowds = Crowds()
        self._rations = Rations(clock)
        self._tokens = Tokens(clock)
        self._locations = Locations()
        self._pacing = Pacing(clock, sleep)
        self.app = make_app(store, sparse=sparse, unreleased=unreleased, body_transport=FaultyWire())
        self.app.middlewares.append(self._journal)
        self.app.on_response_prepare.append(falsify_headers)
        self.server = Server(self.app, host=host, port=port, grace=_GRACE, tls=tls)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def host(self) -> str:
        """`127.0.0.1:port`, as it stands in a reference."""
        return self.server.address

    @web.middleware
    async def _journal(self, request: web.Request, handler: Inner) -> web.StreamResponse:
        """Middleware: the exchange is in the journal before anything else happens, and ends there."""
        live = self.journal.begin(request.method, request.path, request.query, request.headers)
        acts = self.faults.draw(request.method, target(request.path, request.query))
        struck = Struck(request, live, acts, self._pacing)
        current.set(struck)
        try:
            return await self._answer(struck, handler)
        except ConnectionError:
            struck.lost = True
            for act in acts:
                if isinstance(act, ForgetBroken):
                    struck.note(act)
                    self._forget_session(request)
            return web.Response(status=400)  # never sent: the connection is cut
        finally:
            self.journal.end(live)

    async def _answer(self, struck: Struck, inner: Inner) -> web.StreamResponse:
        """Answer the request, if it is answered at all and every `Crowded` act lets it in."""
        for act in struck.acts:
            if isinstance(act, Mute):
                struck.note(act)
                await asyncio.Event().wait()
        with contextlib.ExitStack() as stack:
            for act in struck.acts:
                if isinstance(act, Crowded):
                    if not stack.enter_context(self._crowds.enter(act)):
                        struck.note(act)
                        struck.live.answer(act.status, {})
                        return web.Response(status=act.status)
                    await self._crowds.stay(act)
            return await self._ration(struck, inner)

    async def _ration(self, struck: Struck, inner: Inner) -> web.StreamResponse:
        """Answer the request, if every `Rationed` act has something left for it."""
        acts = [act for act in struck.acts if isinstance(act, Rationed)]
        if all(self._rations.take(act, struck.request.method == "GET") for act in acts):
            response = await self._serve(struck, inner)
        else:
            struck.live.answer(429, {})
            response = web.json_response({"errors": [{"code": "TOOMANYREQUESTS"}]}, status=429)
        for act in acts:
            struck.note(act)
            response.headers.update(self._rations.headers(act))
        return response

    async def _serve(self, struck: Struck, inner: Inner) -> web.StreamResponse:
        request = struck.request
        for act in struck.acts:
            answer = self._instead(struck, act)
            if answer is not None:
                struck.note(act)
                struck.live.answer(answer.status, answer.headers)
                return answer if request.method == "HEAD" else await answer_small(struck, answer)
            request = self._as_understood(struck, act, request)
        response = await inner(request)
        for act in struck.acts:
            response = self._as_told(struck, act, response)
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if isinstance(response, web.Response) and request.method != "HEAD":
            response = await answer_small(struck, response)
        if not struck.live.status:
            struck.live.answer(response.status, response.headers)
        return response

    def _instead(self, struck: Struck, act: AnyAct) -> web.Response | None:
        """What an act has answered in place of the registry, or does before that gets the request."""
        request = struck.request
        match act:
            case Hangup():
                struck.note(act)
                struck.cut(how="reset")
            case Status():
                return web.Response(status=act.code, headers=act.headers, body=act.body.encode())
            case Refuse() if (request.content_length or 0) > act.over and act.ranged in (
                None,
                "Content-Range" in request.headers,
            ):
                return web.Response(status=act.code, body=act.body.encode())
            case Busy():
                when = formatdate(time.time() + act.seconds, usegmt=True) if act.dated else str(act.seconds)
                return web.Response(status=act.code, headers={"Retry-After": when})
            case Bearer():
                return self._tokens.answer(act, request)
            case RedirectTo():
                url = act.url.replace("{path}", request.path_qs)
                return web.Response(status=act.status, headers={"Location": url})
            case MovingLocation() if self._locations.stale(request):
                unknown = {"errors": [{"code": "BLOB_UPLOAD_INVALID"}]}
                return web.json_response(unknown, status=404)
            case RefuseMount() if act.status != 202 and self._refuses(act, request):
                return web.Response(status=act.status)
            case ForgetSession():
                struck.note(act)
                self._forget_session(request)
            case _:
                pass
        return None

    def _as_understood(self, struck: Struck, act: AnyAct, request: web.Request) -> web.Request:
        """What the registry takes a request for."""
        query = request.query
        match act:
            case RefuseMount() if act.status == 202 and self._refuses(act, request):
                struck.note(act)
                return request.clone(rel_url=request.rel_url.with_query(None))
            case MountReferenced() if "mount" in query and not self._refers(
                query.get("from", ""), query["mount"]
            ):
                struck.note(act)
                return request.clone(rel_url=request.rel_url.with_query(None))
            case MountAnywhere() if "mount" in query and "from" not in query:
                struck.note(act)
                places = [
                    name
                    for name in self.store.repositories.names()
                    if self.store.repositories.media_type_of(name, Digest(query["mount"])) is not None
                ]
                return request.clone(rel_url=request.rel_url.update_query({"from": "".join(places[:1])}))
            case Ignore() if act.name in request.headers:
                struck.note(act)
                headers = request.headers.copy()
                del headers[act.name]
                return request.clone(headers=headers)
            case _:
                return request

    def _as_told(self, struck: Struck, act: AnyAct, response: web.StreamResponse) -> web.StreamResponse:
        """What becomes of the registry's answer."""
        match act:
            case LoseAnswer():
                struck.note(act)
                struck.cut(how="reset")
            case PlainErrors() if response.status == 404:
                struck.note(act)
                return web.Response(status=act.code, text="404 page not found\n")
            case MovingLocation():
                struck.note(act)
                self._locations.move(response)
            case _:
                pass
        return response

    def _forget_session(self, request: web.BaseRequest) -> None:
        self.app[REGISTRY_KEY].sessions.forget(request.path.rpartition("/")[2])

    def _refuses(self, act: RefuseMount, request: web.BaseRequest) -> bool:
        query = request.query
        if not act.absent:
            return "mount" in query
        return (
            "mount" in query
            and self.store.repositories.media_type_of(query.get("from", ""), Digest(query["mount"])) is None
        )

    def _refers(self, repository: str, digest: str) -> bool:
        """Whether a manifest of the repository refers to the blob."""
        for held, kind in self.store.repositories.contents(repository, MANIFESTS):
            manifest = parse_manifest(self.store.blobs.read_small(held), kind)
            if any(blob.digest == digest for blob in manifest.blobs):
                return True
        return False


@contextlib.asynccontextmanager
async def journalling(
    root: Path,
    faults: Sequence[Fault] = (),
    *,
    sparse: SparsePolicy = "indexes",
    unreleased: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    told: Callable[[Exchange], None] | None = None,
    clock: Callable[[], float] | None = None,
    sleep: Sleep = asyncio.sleep,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[JournallingRegistry]:
    """A registry over the store at `root`, listening inside the block. Faults can be added at any time
    (`registry.faults.add`)."""
    store = Store.open(root)
    try:
        registry = JournallingRegistry(
            store,
            faults,
            sparse=sparse,
            unreleased=unreleased,
            host=host,
            port=port,
            told=told,
            clock=clock,
            sleep=sleep,
            tls=tls,
        )
        async with registry.server:
            yield registry
    finally:
        store.close()


async def _run(arguments: argparse.Namespace) -> None:
    host, _, port = arguments.listen.rpartition(":")
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with contextlib.ExitStack() as stack:
        told = None
        if arguments.journal:
            file = stack.enter_context(arguments.journal.open("ab", buffering=0))

            def told(exchange: Exchange) -> None:
                file.write(msgspec.json.encode(exchange, enc_hook=dict) + b"\n")

        async with journalling(
            arguments.root,
            arguments.fault,
            sparse=arguments.sparse,
            host=host.strip("[]"),
            port=int(port),
            told=told,
        ) as registry:
            print(f"listening on {registry.url}", flush=True)
            await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A registry that journals and misbehaves as told.")
    parser.add_argument("--root", type=Path, required=True, help="the store's directory")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--sparse", choices=("accept", "indexes", "refuse"), default="indexes")
    parser.add_argument("--journal", type=Path, metavar="FILE.jsonl")
    form = "METHOD PATTERN [nth=N] [times=N] ACT …"
    parser.add_argument("--fault", type=parse_fault, action="append", default=[], help=form)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()

"""The world in which the documentation's commands run: three registries, on loopback.

The hosts of the documentation are names that nobody has (RFC 2606); in commands and files their places take
the addresses of these registries, and back in what is printed. The one with the images that the documentation
uses is docker.io: what is asked of that goes through a proxy, and the proxy is this registry.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

import msgspec

from blobflow.cli.commands.demo import fill_registry
from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.server import Server, make_app
from blobflow.transports.store import Store
from tools.checkout import TOP
from tools.documentation.signed_image import sign
from tools.ports import reserve_port

# The one image that is signed, by the key of `signed_image`.
SIGNED = "acme/app:1.0"
# What docker.io has here: the images of the sample set, under names that people know.
NAMES = (
    "library/alpine:3.22",
    "library/nginx:1.29",
    "library/redis:8.2",
    "library/postgres:18",
    "rancher/pause:3.1",
    "rancher/coredns-coredns:1.8.3",
    SIGNED,
)
_HOSTS = ("registry.example.com", "edge.example.com")
# Who starts registries on the way does it there, as people do.
_SERVED = ("127.0.0.1:5000", "127.0.0.1:5001")
_READY_SECONDS = 60
_CONFIG = '[registry."docker.io"]\nhttp = true\nproxy = "http://{source}"\n'


class World(msgspec.Struct, frozen=True):
    """The folder in which commands run, and the real address of each host that they name.

    `source`: docker.io's.
    """

    home: Path
    source: str
    addresses: dict[str, str]
    environment: dict[str, str]

    def real(self, text: str) -> str:
        """A text of the documentation, with addresses that are there."""
        for shown, address in self.addresses.items():
            text = text.replace(shown, address)
        return text

    def shown(self, text: str) -> str:
        """What was printed, as the documentation has it."""
        text = text.replace(str(self.home), "/home/you")
        for shown, address in self.addresses.items():
            text = text.replace(address, shown)
        return text

    @contextmanager
    def background(self, arguments: Sequence[str]) -> Iterator[str]:
        """A process of `blobflow` that stays; gives its first line, once it is there."""
        with subprocess.Popen(
            [sys.executable, "-m", "blobflow", *arguments],
            env=self.environment | {"PYTHONPATH": str(TOP), "PATH": "/usr/bin:/bin"},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout.readline()
            finally:
                process.terminate()


@contextmanager
def serving_world(folder: Path) -> Iterator[World]:
    """The registries, as long as the context is open, and an empty home below `folder`."""
    home = folder / "home"
    home.mkdir()
    with _served({name: folder / name for name in ("source", *_HOSTS)}) as served:
        config = folder / "config.toml"
        config.write_text(_CONFIG.format(source=served["source"]))
        addresses = {name: served[name] for name in _HOSTS}
        addresses |= {name: f"127.0.0.1:{reserve_port()}" for name in _SERVED}
        yield World(home, served["source"], addresses, _environment(folder, home, config))


def named_set() -> SampleSet:
    """The sample set under the names of `NAMES`."""
    made = sample_set(1, images=len(NAMES))
    return SampleSet(dict(zip(NAMES, made.images.values(), strict=True)), made.manifests, made.blobs)


def _environment(folder: Path, home: Path, config: Path) -> dict[str, str]:
    places = {"XDG_CACHE_HOME": "cache", "XDG_STATE_HOME": "state", "XDG_DATA_HOME": "data"}
    return {
        "HOME": str(home),
        "BLOBFLOW_CONFIG": str(config),
        "DOCKER_CONFIG": str(folder / "docker"),
        **{name: str(folder / place) for name, place in places.items()},
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "REGISTRY_AUTH_FILE"), ""),
    }


@contextmanager
def _served(roots: dict[str, Path]) -> Iterator[dict[str, str]]:
    """A registry over each folder, on an event loop in a thread of its own; gives their addresses.

    The one that is called `source` has the images.
    """
    addresses: dict[str, str] = {}
    ready, done = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for name, root in roots.items():
                store = stack.enter_context(closing(Store.open(root)))
                if name == "source":
                    fill_registry(store, named_set())
                    sign(store, "docker.io", *SIGNED.split(":"))
                server = await stack.enter_async_context(Server(make_app(store)))
                addresses[name] = server.address
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    try:
        if not ready.wait(_READY_SECONDS):
            raise RuntimeError("the registries did not come up")
        yield addresses
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join()
        loop.close()

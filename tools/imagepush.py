"""A plain way to push a layout into a registry on loopback, over the standard library's HTTP."""

from __future__ import annotations

import http.client
import posixpath
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from tools.imagelayout import ImageSetError, Json, read_layout

PUSHES = 4  # requests at once


class Pushed(NamedTuple):
    """What a push did; a blob or manifest counts once for each repository, tags don't count."""

    sent: int
    present: int
    sent_bytes: int
    manifests: int


def push(path: str | Path, host: str, prefix: str = "", lands: Callable[[str], str] = str) -> Pushed:
    """Push the layout at `path` into the plain-http registry `host`, a HOST:PORT on loopback.

    Each repository gets the name that `lands` gives it, and `prefix/` before that. A blob is asked for by
    HEAD and sent at most once to each repository, in one PUT, the largest first; then come the children by
    digest, the roots by digest, and the tags last. Raises ImageSetError with the registry's own words.
    """
    layout = read_layout(path)
    blobs: dict[tuple[str, str], int] = {}
    children, roots, tags = set[Put](), set[Put](), set[Put]()
    for image in layout.images.values():
        repository = posixpath.join(prefix.strip("/"), lands(image.repository))
        blobs |= {(repository, digest): size for digest, size in image.blobs.items()}
        children |= {Put(repository, digest, digest, kind) for digest, kind in image.children.items()}
        roots.add(Put(repository, image.digest, image.digest, image.media_type))
        tags.add(Put(repository, image.tag, image.digest, image.media_type))
    with closing(Registry(host)) as registry, ThreadPoolExecutor(PUSHES) as pool:
        largest_first = sorted(blobs, key=lambda key: (-blobs[key], key))
        missing = list(
            pool.map(lambda key: registry.push(key[0], key[1], layout.blob(key[1])), largest_first)
        )
        for puts in (children, roots, tags):
            list(pool.map(lambda put: registry.put(put, layout.blob(put.digest)), sorted(puts)))
    sent = [blobs[key] for key, was_missing in zip(largest_first, missing, strict=True) if was_missing]
    return Pushed(len(sent), len(blobs) - len(sent), sum(sent), len(children) + len(roots))


class Put(NamedTuple):
    """A manifest to be put, `name` being its digest or a tag."""

    repository: str
    name: str
    digest: str
    media_type: str


class Registry:
    """A plain-http registry on loopback, asked over `PUSHES` kept connections."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        if not port.isdecimal() or not _is_loopback(name):
            raise ImageSetError(f"{host} is not a HOST:PORT on loopback")
        self._host = host
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
        for _ in range(PUSHES):
            connection = http.client.HTTPConnection(name.strip("[]"), int(port), 120, blocksize=1 << 20)
            self._idle.put(connection)

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()

    def push(self, repository: str, digest: str, path: Path) -> bool:
        """Send the blob unless the repository has it; returns whether it was sent. [end-2, end-4b, end-6]"""
        if self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", (200, 404))[0] == 200:
            return False
        where = urlsplit(self._ask("POST", f"/v2/{repository}/blobs/uploads/", (202,))[1])
        if where.netloc not in ("", self._host):
            raise ImageSetError(f"{self._host} sends uploads to another host, {where.netloc}")
        query = "&".join(filter(None, [where.query, f"digest={quote(digest, safe='')}"]))
        headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
        with path.open("rb") as body:
            self._ask("PUT", f"{where.path}?{query}", (201,), headers, body)
        return True

    def put(self, put: Put, path: Path) -> None:
        """Put the manifest that is in the file. [end-7]"""
        target = f"/v2/{put.repository}/manifests/{put.name}"
        self._ask("PUT", target, (201,), {"Content-Type": put.media_type}, path.read_bytes())

    def _ask(
        self, method: str, target: str, wanted: tuple[int, ...], headers: Json | None = None, body: Any = None
    ) -> tuple[int, str]:
        """The answer's status, one of those wanted, and its Location."""
        connection = self._idle.get()
        try:
            connection.request(method, target, body, headers or {})
            with connection.getresponse() as answer:
                words = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ImageSetError(f"{method} {target} at {self._host} failed: {error!r}") from error
        finally:
            self._idle.put(connection)
        if answer.status not in wanted:
            raise ImageSetError(
                f"{method} {target} at {self._host} was answered {answer.status}: {words[:500]}"
            )
        return answer.status, answer.headers.get("Location", "")


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False

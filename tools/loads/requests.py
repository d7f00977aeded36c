"""The bytes of requests, and what is pushed and pulled with them, as scripts for `conversation`."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Generator, Iterator
from urllib.parse import urlsplit

import msgspec

from tools.loads.conversation import Answer, Script, Step, Timed

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
BYTES = "application/octet-stream"


class Content(msgspec.Struct, frozen=True):
    """Bytes and their digest."""

    body: bytes
    digest: str

    @classmethod
    def of(cls, body: bytes) -> Content:
        return cls(body, f"sha256:{hashlib.sha256(body).hexdigest()}")


def fresh(size: int) -> Content:
    """So many bytes that nobody has yet."""
    return Content.of(secrets.token_bytes(size))


def request(
    host: str, method: str, path: str, body: bytes | None = None, *, kind: str = BYTES, headers: str = ""
) -> bytes:
    """One request. `kind`: the body's Content-Type; `headers`: further ones, each with its CR LF."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}"
    if body is None:
        return (
            f"{head}\r\n".encode()
            if method in ("GET", "HEAD")
            else f"{head}Content-Length: 0\r\n\r\n".encode()
        )
    return f"{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def path_of(location: str) -> str:
    """The path and query of a Location, which may be a whole URL."""
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def completing(location: str, digest: str) -> str:
    """Where the PUT goes that ends an upload session."""
    path = path_of(location)
    return f"{path}{'&' if '?' in path else '?'}digest={digest}"


def expect(answer: Answer, *statuses: int) -> Answer:
    """The answer, if it has one of these statuses; else raises RuntimeError with what came."""
    if answer.status not in statuses:
        raise RuntimeError(
            f"{statuses} expected, got {(answer.head + answer.body[:500]).decode() or 'no answer'}"
        )
    return answer


def upload(
    host: str, repository: str, content: Content, due: float = 0.0
) -> Generator[Step, Answer, tuple[Answer, float]]:
    """POST, at `due` (time.monotonic), then PUT with the whole; the last answer, and when the POST was
    sent."""
    answer = yield Timed(request(host, "POST", f"/v2/{repository}/blobs/uploads/"), due)
    sent = answer.sent
    if answer.status == 202:
        answer = yield request(host, "PUT", completing(answer.location, content.digest), content.body)
    return answer, sent


def upload_at_once(
    host: str, repository: str, content: Content
) -> Generator[Step, Answer, tuple[Answer, float]]:
    """All in the POST. A registry that doesn't take that (docker-registry) opens a session, and gets a
    PUT."""
    path = f"/v2/{repository}/blobs/uploads/?digest={content.digest}"
    answer = yield request(host, "POST", path, content.body)
    sent = answer.sent
    if answer.status == 202:
        answer = yield request(host, "PUT", completing(answer.location, content.digest), content.body)
    return answer, sent


Upload = Callable[[str, str, Content], Generator[Step, Answer, tuple[Answer, float]]]


def getting(request: bytes, until: float, count: Callable[[], None]) -> Script:
    """The same GET again and again until then (time.monotonic); `count` is called for each 200."""
    while time.monotonic() < until:
        expect((yield request), 200)
        count()


def pushing(
    upload: Upload,
    host: str,
    repository: str,
    contents: Iterator[Content],
    until: float,
    count: Callable[[], None],
) -> Script:
    """Push one after another until then; `count` is called for each 201."""
    while time.monotonic() < until:
        answer, _ = yield from upload(host, repository, next(contents))
        expect(answer, 201)
        count()


def image_of(config: Content, *layers: Content, annotations: dict[str, str] | None = None) -> bytes:
    """An image manifest's bytes."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": len(config.body)},
        "layers": [{"mediaType": BYTES, "digest": each.digest, "size": len(each.body)} for each in layers],
    }
    return json.dumps(document | ({"annotations": annotations} if annotations else {})).encode()

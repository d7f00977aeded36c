"""What clients do: each deed is a value, so that a list of them is a script that can be played again."""

from __future__ import annotations

import http.client
from typing import Literal

import msgspec

from blobflow.oci import Digest
from blobflow.oci.media import ACCEPT_MANIFESTS
from tests.deadlines import HANGS_AFTER
from tests.e2e.promises.content import BY_NAME, Content

Kind = Literal[
    "upload",
    "upload in two",
    "upload in chunks",
    "begin upload",
    "finish upload",
    "mount",
    "head",
    "get",
    "put",
    "delete",
]
UPLOADS = frozenset({"upload", "upload in two", "upload in chunks", "finish upload"})


class Deed(msgspec.Struct, frozen=True):
    """What one client does with `name` (of contents.BY_NAME) in `repository`.

    `tag`: what a manifest is put under or asked for by; "": its digest. `origin`: where it is mounted from.
    """

    kind: Kind
    repository: str
    name: str
    tag: str = ""
    origin: str = ""

    @property
    def content(self) -> Content:
        return BY_NAME[self.name]

    @property
    def digest(self) -> Digest:
        return self.content.digest

    @property
    def path(self) -> str:
        """Where it is, by tag if there is one."""
        return f"/v2/{self.repository}/{self.content.room}/{self.tag or self.digest}"

    def __str__(self) -> str:
        where = f"{self.repository}:{self.tag}" if self.tag else self.repository
        return f"{self.kind} {self.name} in {where}" + (f" from {self.origin}" if self.origin else "")


class Answer(msgspec.Struct, frozen=True):
    """What a registry answered; headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One client with a connection of its own. `ask` raises OSError or HTTPException if that breaks."""

    def __init__(self, host: str) -> None:
        self._connection = http.client.HTTPConnection(host, timeout=HANGS_AFTER)

    def close(self) -> None:
        self._connection.close()

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        self._connection.request(method, path, body, headers or {})
        answer = self._connection.getresponse()
        told = {key.lower(): value for key, value in answer.getheaders()}
        return Answer(answer.status, told, answer.read())

    def do(self, deed: Deed, session: str = "") -> Answer:
        """Do it, and return the last answer. `session`: the Location of the upload that is finished."""
        content, uploads = deed.content, f"/v2/{deed.repository}/blobs/uploads/"
        match deed.kind:
            case "upload":
                return self.ask("POST", f"{uploads}?digest={deed.digest}", content.raw)
            case "upload in two":
                opened = self.ask("POST", uploads)
                if opened.status != 202:
                    return opened
                return self.ask("PUT", f"{opened.headers['location']}&digest={deed.digest}", content.raw)
            case "upload in chunks":
                begun = self._send(uploads, content.raw)
                if begun.status != 202:
                    return begun
                return self.ask("PUT", f"{begun.headers['location']}&digest={deed.digest}", b"")
            case "begin upload":
                return self._send(uploads, content.raw)
            case "finish upload":
                return self.ask("PUT", f"{session}&digest={deed.digest}", b"")
            case "mount":
                return self.ask("POST", f"{uploads}?mount={deed.digest}&from={deed.origin}")
            case "put":
                return self.ask("PUT", deed.path, content.raw, {"Content-Type": content.media_type})
            case "head" | "get" | "delete":
                return self.ask(deed.kind.upper(), deed.path, headers={"Accept": ACCEPT_MANIFESTS})

    def _send(self, uploads: str, raw: bytes) -> Answer:
        """Open an upload and send the bytes in two chunks; the last answer."""
        answer = self.ask("POST", uploads)
        half = len(raw) // 2
        for start, end in ((0, half), (half, len(raw))):
            if answer.status != 202 or start == end:
                break
            range_ = {"Content-Range": f"{start}-{end - 1}", "Content-Type": "application/octet-stream"}
            answer = self.ask("PATCH", answer.headers["location"], raw[start:end], range_)
        return answer

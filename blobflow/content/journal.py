"""The journal's protocol: facts that outlive the process, so that later runs need not find them out again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from blobflow.content.sites import Site
from blobflow.oci import Digest


class Upload(msgspec.Struct, frozen=True):
    """An upload session that may be gone on with; `offset` in bytes is what the registry confirmed."""

    url: str
    offset: int


class Audited(msgspec.Struct, frozen=True):
    """When what is below a root was last looked at. `order`: roots with a lower one were looked at, or put,
    longer ago. `stopped`: where looking stopped before its end, in the words of who looked; else empty."""

    order: tuple[int, int]
    stopped: bytes = b""


class Journal(Protocol):
    """What must outlive the process. Every call is short and synchronous; losing all of it is never wrong,
    only slower."""

    def put_recorded(self, site: Site, root: Digest, chosen: str) -> bool:
        """Whether an earlier run put this root, with the same choice of platforms, there."""
        ...

    def record_put(self, site: Site, root: Digest, chosen: str) -> None: ...

    def audited(self, site: Site, root: Digest, chosen: str) -> Audited:
        """When what was `chosen` below a root was last looked at there; if never, when the root was put."""
        ...

    def record_audit(self, site: Site, root: Digest, chosen: str, stopped: bytes = b"") -> None:
        """All of it is there, which ends any doubt; or was as far as it was looked at, if that `stopped`."""
        ...

    def doubt_put(self, site: Site, root: Digest, chosen: str) -> None:
        """Something of it is missing or wrong there: until `record_audit` nobody takes it as whole."""
        ...

    def doubted_puts(self) -> frozenset[tuple[Site, Digest, str]]:
        """All roots in doubt."""
        ...

    def note(self, origin: str, key: str) -> str | None:
        """What was learnt of a host (which upload form worked, whether it takes sparse indexes)."""
        ...

    def record_note(self, origin: str, key: str, value: str) -> None: ...

    def mount_origins(
        self, registry: str, login: str, digests: Collection[Digest]
    ) -> Mapping[Digest, tuple[str, ...]]:
        """The few repositories of a registry in which each blob was put or found under this login (see
        `Mounts.login`), the last recorded first. By now it may be gone from any of them."""
        ...

    def record_mount_origins(self, registry: str, login: str, found: Iterable[tuple[str, Digest]]) -> None:
        """Each blob is in the repository beside it, as this login just saw."""
        ...

    def forget_mount_origins(self, registry: str, login: str, gone: Iterable[tuple[str, Digest]]) -> None:
        """The registry would not mount these blobs from these repositories."""
        ...

    def take_upload(self, origin: str, repository: str, digest: Digest) -> Upload | None:
        """The session that an earlier push of this blob left open, which from now on is this process's.

        None where there is none, and while a living process, this one included, is sending to it.
        """
        ...

    def abandoned_uploads(self, origin: str) -> Sequence[tuple[str, Digest]]:
        """The sessions there of processes that were killed while they sent: repositories and blobs. One that
        was left on purpose, for a later push, is none of them."""
        ...

    def record_upload(
        self, origin: str, repository: str, digest: Digest, upload: Upload, *, held: bool
    ) -> bool:
        """Note the session; whether it will be remembered. `held`: this process goes on sending to it."""
        ...

    def forget_upload(self, origin: str, repository: str, digest: Digest) -> None: ...


def parse_number(note: str | None) -> int | None:
    """The number that a note holds; None where there is no note, or no number in it that was ever written."""
    return int(note) if note and note.isascii() and note.isdigit() and len(note) < 19 else None


class NullJournal:
    """Remembers nothing; for a run that must leave no trace."""

    def put_recorded(self, site: Site, root: Digest, chosen: str) -> bool:
        return False

    def record_put(self, site: Site, root: Digest, chosen: str) -> None:
        return None

    def audited(self, site: Site, root: Digest, chosen: str) -> Audited:
        return Audited((0, 0))

    def record_audit(self, site: Site, root: Digest, chosen: str, stopped: bytes = b"") -> None:
        return None

    def doubt_put(self, site: Site, root: Digest, chosen: str) -> None:
        return None

    def doubted_puts(self) -> frozenset[tuple[Site, Digest, str]]:
        return frozenset()

    def note(self, origin: str, key: str) -> str | None:
        return None

    def record_note(self, origin: str, key: str, value: str) -> None:
        return None

    def mount_origins(
        self, registry: str, login: str, digests: Collection[Digest]
    ) -> Mapping[Digest, tuple[str, ...]]:
        return {}

    def record_mount_origins(self, registry: str, login: str, found: Iterable[tuple[str, Digest]]) -> None:
        return None

    def forget_mount_origins(self, registry: str, login: str, gone: Iterable[tuple[str, Digest]]) -> None:
        return None

    def take_upload(self, origin: str, repository: str, digest: Digest) -> Upload | None:
        return None

    def abandoned_uploads(self, origin: str) -> Sequence[tuple[str, Digest]]:
        return ()

    def record_upload(
        self, origin: str, repository: str, digest: Digest, upload: Upload, *, held: bool
    ) -> bool:
        return False

    def forget_upload(self, origin: str, repository: str, digest: Digest) -> None:
        return None

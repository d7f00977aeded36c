"""A traversal of the content below one root at a target, part by part; it can stop anywhere. Sans-IO."""

from __future__ import annotations

import msgspec

from blobflow.content import Site
from blobflow.oci import UNKNOWN_SIZE, Digest, Manifest
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice, candidates, certain

# How many parts below one root are audited, and remembered where a traversal stops.
MOST_BELOW = 10_000


class TargetRoot(msgspec.Struct, frozen=True, order=True):
    """A root at a target, and the platform choice that applies to it."""

    site: Site
    digest: Digest
    choice: PlatformChoice

    @property
    def key(self) -> tuple[Site, Digest, str]:
        """The journal's key for it."""
        return self.site, self.digest, self.choice.key


def target_root(site: Site, choice: PlatformChoice, source: Digest, there: Digest) -> TargetRoot:
    """The root for a choice where `there` was put for `source`; a rebuilt one is wanted with all it lists."""
    return TargetRoot(site, there, choice if there == source else EVERYTHING)


class Part(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A manifest or blob below a root. `certain`: it is wanted; else its config decides that."""

    is_manifest: bool
    media_type: str
    digest: Digest
    size: int
    certain: bool = True

    def __str__(self) -> str:
        return f"{'manifest' if self.is_manifest else 'blob'} {self.digest}"


class _Stopped(msgspec.Struct, array_like=True):
    taken: int
    parts: list[Part]


class Traversal:
    """One traversal, depth first, so that little of it is open at a time.

    `missing`: the part that is not there, which ends it. `begun`: something was asked for already.
    """

    def __init__(self, root: TargetRoot, media_type: str = "", stopped: bytes = b"") -> None:
        """`stopped`: where an earlier one stopped; if that can't be decoded, this one begins at the root."""
        self.root = root
        self.missing: Part | None = None
        self._parts = [Part(True, media_type, root.digest, UNKNOWN_SIZE)]
        self._taken = 0
        self._in_flight = 0
        self._met: set[Digest] = set()
        if stopped:
            try:
                earlier = msgspec.msgpack.decode(stopped, type=_Stopped)
            except (msgspec.DecodeError, ValueError):
                return
            self._taken, self._parts = earlier.taken, earlier.parts[:MOST_BELOW]

    @property
    def stopped(self) -> bytes:
        """The state from which a later traversal resumes."""
        return msgspec.msgpack.encode(_Stopped(self._taken, self._parts))

    @property
    def begun(self) -> bool:
        return self._taken > 0

    @property
    def over(self) -> bool:
        """Whether nothing is left to ask for, and all answers have come."""
        return not self._in_flight and (self.missing is not None or not self._parts)

    def take(self) -> Part | None:
        """The next part to ask for, if one is known; pass each to `answered` or `put_back`."""
        if self.missing is not None or not self._parts:
            return None
        self._taken += 1
        self._in_flight += 1
        return self._parts.pop()

    def put_back(self, part: Part) -> None:
        """Return a part that got no answer."""
        self._taken -= 1
        self._in_flight -= 1
        self._parts.append(part)

    def answered(self, part: Part, *, there: bool, manifest: Manifest | None = None) -> None:
        """Record whether a part is there, and continue with the children of its manifest."""
        self._in_flight -= 1
        if not there and part.certain:
            self.missing = part
        if manifest is not None and part.digest not in self._met:
            self._met.add(part.digest)
            room = max(0, MOST_BELOW - self._taken - len(self._parts))
            self._parts += reversed(_below(manifest, self.root.choice)[:room])


def _below(manifest: Manifest, choice: PlatformChoice) -> list[Part]:
    """The parts that a manifest's children become; an index may have blobs too (a build's cache)."""
    if choice.index == "only" and manifest.is_index:
        return []
    sure = certain(manifest, choice)
    children = {child.digest: child for child in candidates(manifest, choice)}
    parts = [
        Part(True, child.media_type, child.digest, child.size, child.digest in sure)
        for child in children.values()
    ]
    blobs = {blob.digest: blob for blob in manifest.blobs}
    return parts + [Part(False, "", blob.digest, blob.size) for blob in blobs.values()]

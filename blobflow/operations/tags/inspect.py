"""Asks a registry for the state of a repository: what its tags name, and what its indexes list."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.errors import NotFound
from blobflow.oci import Descriptor, Digest, media
from blobflow.operations.tags.extra import RepositoryState
from blobflow.transports.registry import Repository

# Nested indexes are read to this depth; as deep as any that a mirror would put.
_MAX_LEVELS = 16


async def inspect_repository(
    repository: Repository,
    tags: Iterable[str],
    runner: BoundedRunner,
    reads: Callable[[str], bool] = lambda tag: True,
) -> RepositoryState:
    """Ask what the tags name (one small request each) and read the indexes among those that `reads` says.

    A tag that is gone by now, and a manifest that an index lists and that is not there, are ignored.
    """
    named: dict[str, Descriptor] = {}

    async def ask(tag: str) -> None:
        try:
            named[tag] = await repository.resolve(tag)
        except NotFound:
            return

    await runner.for_each(ask, tags)
    lists: dict[Digest, tuple[Digest, ...]] = {}
    level = [root for tag, root in named.items() if reads(tag)]
    for _ in range(_MAX_LEVELS):
        if not level:
            break
        level = await _read(repository, level, lists, runner)
    return RepositoryState({tag: root.digest for tag, root in named.items()}, lists)


async def _read(
    repository: Repository,
    level: Iterable[Descriptor],
    lists: dict[Digest, tuple[Digest, ...]],
    runner: BoundedRunner,
) -> list[Descriptor]:
    """Read the indexes of one level into `lists`; returns what they list."""
    fresh = {
        each.digest: each for each in level if each.media_type in media.INDEXES and each.digest not in lists
    }
    below: list[Descriptor] = []

    async def read(index: Descriptor) -> None:
        try:
            manifest = await repository.fetch(index.digest)
        except NotFound:
            lists[index.digest] = ()
            return
        lists[index.digest] = tuple(child.digest for child in manifest.manifests)
        below.extend(manifest.manifests)

    await runner.for_each(read, fresh.values())
    return below

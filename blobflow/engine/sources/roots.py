"""Roots: resolves references at their sources to manifests, by one small request each.

A tag is resolved to a digest once, and everything after that goes by digest. Roots and closures (see
`sources.reader`) are two steps, because most of a repeated run needs only the first: a root that its targets
are known to have whole is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from blobflow.content import SourceAt
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.concurrency.memo import AsyncMemo
from blobflow.engine.pairs import Pair, site_of
from blobflow.errors import BlobflowError, UsageError, error_side, without_frames
from blobflow.events import PhaseCount
from blobflow.oci import Descriptor, Reference


class ResolvedRoots(msgspec.Struct, frozen=True):
    """Roots by source, and the errors of those that have none."""

    roots: dict[Reference, Descriptor]
    failures: dict[Reference, BlobflowError]


async def _nothing_more(_: Reference) -> None:
    pass


class RootLookups:
    """The roots that sources name: each is asked for once, however many pairs want it."""

    def __init__(self, source_at: SourceAt) -> None:
        self._source_at = source_at
        self._named = AsyncMemo(self._ask)

    async def resolve(self, reference: Reference) -> Descriptor:
        """The root that a reference names. Raises what the source raises."""
        return await self._named.get(reference)

    async def _ask(self, reference: Reference) -> Descriptor:
        with error_side("source"):
            return await self._source_at(site_of(reference)).resolve(reference.name)


async def resolve_roots(
    sources: Iterable[Reference],
    source_at: SourceAt,
    runner: BoundedRunner,
    meanwhile: Callable[[Reference], Coroutine[Any, Any, None]] = _nothing_more,
    *,
    named: RootLookups | None = None,
    count: PhaseCount | None = None,
) -> ResolvedRoots:
    """Pin each source to the digest that it names now, by one small request each. `meanwhile` is called for
    each that is asked for. `named`: lookups that are shared with others. `count`: how far this is."""
    roots: dict[Reference, Descriptor] = {}
    failures: dict[Reference, BlobflowError] = {}
    named = named or RootLookups(source_at)

    async def pin(reference: Reference) -> None:
        try:
            roots[reference] = await named.resolve(reference)
        except BlobflowError as error:
            failures[reference] = without_frames(error)
        if count is not None:
            count.done += 1

    async def ask(question: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await question()

    wanted = sorted(set(sources))
    if count is not None:
        count.total += len(wanted)
    await runner.for_each(ask, (partial(each, source) for source in wanted for each in (pin, meanwhile)))
    return ResolvedRoots(roots, failures)


def conflicting_pairs(
    pairs: Iterable[Pair], roots: Mapping[Reference, Descriptor]
) -> dict[Pair, BlobflowError]:
    """Pairs that would put different images under one tag of one target: none of them may win by chance."""
    aimed: dict[Reference, list[Pair]] = {}
    for pair in sorted(set(pairs)):
        if pair.target.tag and pair.source in roots:
            place = Reference(pair.target.host, pair.target.repository, pair.target.tag)
            aimed.setdefault(place, []).append(pair)
    failures: dict[Pair, BlobflowError] = {}
    for place, rivals in aimed.items():
        if len({(roots[pair.source].digest, pair.choice) for pair in rivals}) > 1:
            sources = " and ".join(f"{p.source} ({roots[p.source].digest[:19]}…)" for p in rivals[:3])
            for pair in rivals:
                failures[pair] = UsageError(
                    f"{place} is aimed at by {sources}, which differ; give one of them another target",
                    side="target",
                )
    return failures

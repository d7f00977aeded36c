"""Target tags are asked for while sources still are: once each, and none that nobody may write."""

from __future__ import annotations

import asyncio

import pytest

from blobflow.content import Site
from blobflow.engine.concurrency.bounded_runner import BoundedRunner
from blobflow.engine.pairs import Pair
from blobflow.engine.sources.roots import resolve_roots
from blobflow.engine.targets.survey import TargetLookups
from blobflow.errors import BlobflowError, Denied, NotFound
from blobflow.oci import Descriptor, Reference, digest_of, media

ROOT = Descriptor(media.OCI_INDEX, digest_of(b"root"), 4)


class Place:
    """A repository whose tags name ROOT, but for those in `errors`; notes what it was asked.

    It never answers for `slow`; `reached` is set when it is asked for `there`.
    """

    def __init__(self, errors: dict[str, BlobflowError], asked: list[str]) -> None:
        self._errors, self._asked = errors, asked
        self.reached = asyncio.Event()

    async def resolve(self, name: str) -> Descriptor:
        self._asked.append(name)
        if name == "slow":
            await asyncio.Event().wait()
        if name == "there":
            self.reached.set()
        if name in self._errors:
            raise self._errors[name]
        return ROOT


def pair(tag: str, to: str = "") -> Pair:
    return Pair(Reference("source", "app", tag), Reference("target", "app", to or tag))


def tags_of(pairs: list[Pair], asked: list[str], **errors: BlobflowError) -> TargetLookups:
    place = Place(errors, asked)
    return TargetLookups(pairs, lambda site: place)  # type: ignore[arg-type,return-value]


async def test_a_target_tag_is_asked_for_while_its_source_is_waited_for() -> None:
    pairs = [pair("slow", "there")]
    source, target = Place({}, []), Place({}, [])
    targets = TargetLookups(pairs, lambda site: target)  # type: ignore[arg-type,return-value]
    sources = (each.source for each in pairs)
    resolving = asyncio.create_task(
        resolve_roots(sources, lambda site: source, BoundedRunner(2), targets.look_ahead)  # type: ignore[arg-type,return-value]
    )
    await target.reached.wait()
    assert not resolving.done()
    resolving.cancel()


async def test_each_tag_is_asked_for_once_and_what_went_wrong_is_kept() -> None:
    asked: list[str] = []
    pairs = [pair("good"), pair("none"), pair("shut")]
    tags = tags_of(pairs, asked, none=NotFound("no such tag"), shut=Denied("go away"))
    site = Site("target", "app")
    for _ in range(2):
        for each in pairs:
            await tags.look_ahead(each.source)
        assert await tags.named(site, "good") == ROOT.digest
        assert await tags.named(site, "none") is None
        with pytest.raises(Denied) as raised:
            await tags.named(site, "shut")
        assert raised.value.side == "target"
    assert sorted(asked) == ["good", "none", "shut"]


async def test_a_tag_that_two_sources_aim_at_is_not_asked_for_ahead() -> None:
    asked: list[str] = []
    pairs = [pair("one", "same"), pair("two", "same"), pair("three")]
    tags = tags_of(pairs, asked)
    for each in pairs:
        await tags.look_ahead(each.source)
    assert asked == ["three"]

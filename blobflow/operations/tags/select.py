"""Finds the tags that rules choose now, by asking the registries.

It takes one listing a repository. Rules by date of creation cost more: for each tag that the rules for names
leave, its manifest and its config are read, two requests, and three where it is an index (its first platform
that is there stands for it); an annotation `org.opencontainers.image.created` saves the last.
Rules by media type cost one for each of these tags.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import islice

from blobflow.client import Client
from blobflow.content import Site
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.sources.configs import read_config
from blobflow.errors import BlobflowError, NotFound, UnsupportedContent, error_side
from blobflow.events import PhaseStarted
from blobflow.oci import Descriptor, Manifest
from blobflow.oci.tag_selection.matching import matching_tags, newest_created, parse_date
from blobflow.operations.tags.names import catalog
from blobflow.operations.tags.search import ChosenTags, TagSearch
from blobflow.transports.registry import Registries, Repository

_CREATED = "org.opencontainers.image.created"
# Images of a sparse index that are tried before it counts as one without a date.
_LOOKED_FOR = 8


async def select_tags(
    client: Client, searches: Iterable[TagSearch]
) -> dict[TagSearch, tuple[ChosenTags, ...]]:
    """What each search finds, in the registries' order. Nothing is raised for what one of them answers.

    A repository that was named, and of which no tag is chosen, is an error: a momentary mistake of its
    registry must not pass for an empty repository. One that a catalog named may well be empty.
    """
    asked = list(dict.fromkeys(searches))
    found: dict[TagSearch, tuple[ChosenTags, ...]] = {}
    client.observer(PhaseStarted("choose", len(asked)))

    async def look(search: TagSearch) -> None:
        found[search] = await _look(client.registries, search)

    await BoundedRunner(MAX_SMALL_REQUESTS).for_each(look, asked, count=client.meter.counts["choose"])
    return {search: found[search] for search in asked}


async def _look(registries: Registries, search: TagSearch) -> tuple[ChosenTags, ...]:
    if search.repository:
        return (await _choose(registries, search, search.repository),)
    try:
        with error_side("source"):
            names = await catalog(registries, search.host)
    except BlobflowError as error:
        return (ChosenTags(search.prefix, error=error),)
    below = f"{search.prefix}/" if search.prefix else ""
    wanted = matching_tags([n.removeprefix(below) for n in names if n.startswith(below)], search.repositories)
    found: dict[str, ChosenTags] = {}

    async def look(name: str) -> None:
        chosen = await _choose(registries, search, below + name)
        if chosen.tags or not isinstance(chosen.error, NotFound):
            found[name] = chosen

    await BoundedRunner(MAX_SMALL_REQUESTS).for_each(look, wanted)
    return tuple(found[name] for name in wanted if name in found)


async def _choose(registries: Registries, search: TagSearch, name: str) -> ChosenTags:
    repository = registries.repository(Site(search.host, name))
    try:
        with error_side("source"):
            listed = await repository.tags()
            left = matching_tags(listed, search.tags)
            if not left:
                raise NotFound(f"{search.host}/{name} has {len(listed)} tags, of which the rules choose none")
            dated, others = 0, len(left)
            if search.tags.types:
                left = await _of_types(repository, left, search.tags.types)
            others -= len(left)
            if search.tags.dated and len(left) > search.tags.newest:
                dated, left = len(left), await _newest(repository, left, search.tags.newest)
    except BlobflowError as error:
        return ChosenTags(name, error=error)
    return ChosenTags(name, tuple(left), dated=dated, others=others)


async def _of_types(repository: Repository, tags: Sequence[str], types: Collection[str]) -> list[str]:
    """Those of the tags that name manifests of these media types."""
    wanted: set[str] = set()

    async def ask(tag: str) -> None:
        try:
            if (await repository.resolve(tag)).media_type in types:
                wanted.add(tag)
        except (NotFound, UnsupportedContent):  # listed, yet not there; or of an unknown type
            return

    await BoundedRunner(MAX_LOOKUPS).for_each(ask, tags)
    return [tag for tag in tags if tag in wanted]


async def _newest(repository: Repository, tags: Sequence[str], count: int) -> list[str]:
    created: dict[str, datetime | None] = {}

    async def ask(tag: str) -> None:
        try:
            created[tag] = await _created(repository, await repository.fetch(tag))
        except NotFound:  # listed, and yet not there: nothing to be mirrored
            return
        except UnsupportedContent:  # what is no image has no such date
            created[tag] = None

    await BoundedRunner(MAX_SMALL_REQUESTS).for_each(ask, tags)
    return newest_created([tag for tag in tags if tag in created], created, count)


async def _first_there(repository: Repository, images: Iterable[Descriptor]) -> Manifest | None:
    """The first of an index's images that is there: it may be sparse."""
    for image in islice(images, _LOOKED_FOR):
        with suppress(NotFound):
            return await repository.fetch(image.digest)
    return None


async def _created(repository: Repository, manifest: Manifest) -> datetime | None:
    """When an image was created; None if it does not say."""
    if moment := parse_date(manifest.annotations.get(_CREATED, "")):
        return moment
    if manifest.is_index:
        images = [child for child in manifest.manifests if str(child.platform) != "unknown/unknown"]
        found = await _first_there(repository, images)
        if found is None:
            return None
        manifest = found
    if manifest.is_index or manifest.config is None:
        return None
    return parse_date((await read_config(repository, manifest)).created or "")

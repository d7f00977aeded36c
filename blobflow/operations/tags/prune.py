"""Prunes a mirror: removes the tags that its selection does not have, after counting them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

import msgspec

from blobflow.client import Client
from blobflow.content import Site
from blobflow.engine.backups import backups_among
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.results.report import TagRecord, TagStatus
from blobflow.errors import BlobflowError, NotFound, RunIncomplete, error_side
from blobflow.events import PhaseStarted
from blobflow.oci import Digest, Reference
from blobflow.oci.referrers import subject_in_tag
from blobflow.operations.tags.extra import ExtraTag, PruneLimit, RepositoryState, find_extra_tags
from blobflow.operations.tags.inspect import inspect_repository
from blobflow.operations.tags.names import check_registry
from blobflow.transports.registry import Repository


class WantedTag(msgspec.Struct, frozen=True):
    """An image that is wanted at a target: what its tag, or without a tag its digest, names there (None if
    this run does not know; its tag is kept all the same). `lists`: the children of its indexes, as far as
    they are known already. `backup`: the template of its backups, which are kept, too."""

    target: Reference
    root: Digest | None
    lists: Mapping[Digest, tuple[Digest, ...]] = {}
    backup: str = ""


class _Place(msgspec.Struct, frozen=True):
    """A repository with its extra tags, and how many tags it has, or will have, in all."""

    site: Site
    surplus: tuple[ExtraTag, ...]
    tags: int


async def prune(
    client: Client,
    keep: Iterable[WantedTag],
    limit: PruneLimit,
    *,
    dry_run: bool = False,
) -> AsyncIterator[TagRecord]:
    """Remove the tags of `keep`'s repositories that it does not have, and return what became of each.

    Call it once all of `keep` is there. It looks at the tags of all repositories first; if more than `limit`
    are extra, it removes none and raises RunIncomplete. A tag that can't be removed does not keep others from
    being removed. `dry_run`: nothing is removed.

    Costs one listing a repository, and where that shows extra tags a small request for each tag and each
    wanted index. Raises UsageError for targets that are in no registry, and what a registry answers while its
    tags are looked at.
    """
    kept: defaultdict[Site, list[WantedTag]] = defaultdict(list)
    for image in keep:
        check_registry(image.target)
        kept[site_of(image.target)].append(image)
    client.observer(PhaseStarted("clear", len(kept)))
    places = await _look(client, kept)
    surplus, tags = sum(len(place.surplus) for place in places), sum(place.tags for place in places)
    too_many = "" if limit.allows(surplus, tags) else f"more than --max-delete {limit} allows"
    if dry_run:
        status: TagStatus = "left" if too_many else "surplus"
        for place in places:
            for each in place.surplus:
                yield _record(place.site, each, status, too_many)
        return
    if too_many:
        raise RunIncomplete(
            f"nothing was removed: {surplus} of {tags} tags at the targets are not in the selection,"
            f" {too_many}; --dry-run lists them"
        )
    for place in places:
        async for record in _remove(client.registries.repository(place.site), place):
            yield record


async def _look(client: Client, kept: Mapping[Site, Sequence[WantedTag]]) -> list[_Place]:
    found: dict[Site, _Place] = {}

    async def one(site: Site) -> None:
        with error_side("target"):
            found[site] = await _surplus_at(client.registries.repository(site), site, kept[site])

    await BoundedRunner(MAX_SMALL_REQUESTS).for_each(one, sorted(kept), count=client.meter.counts["clear"])
    return [found[site] for site in sorted(found)]


async def _surplus_at(repository: Repository, site: Site, kept: Sequence[WantedTag]) -> _Place:
    try:
        listed = await repository.tags()
    except NotFound:  # the repository does not exist yet
        return _Place(site, (), 0)
    tags = {image.target.tag for image in kept if image.target.tag}
    templates = {(image.backup, image.target.tag) for image in kept if image.backup}
    tags |= backups_among(listed, templates)
    count = len(tags.union(listed))
    if tags.issuperset(listed):
        return _Place(site, (), count)
    now = await inspect_repository(
        repository,
        listed,
        BoundedRunner(MAX_LOOKUPS),
        lambda tag: tag in tags or bool(subject_in_tag(tag)),
    )
    known = {index: below for image in kept for index, below in image.lists.items()}
    standing = RepositoryState(now.tags, {**now.lists, **known})
    roots = {image.root for image in kept if image.root is not None}
    return _Place(site, tuple(find_extra_tags(standing, tags, roots)), count)


async def _remove(repository: Repository, place: _Place) -> AsyncIterator[TagRecord]:
    """Remove the extra tags of one repository: tag by tag or, once that proves impossible, by digest."""
    by_tag, gone = True, set[Digest]()
    for surplus in place.surplus:
        try:
            with error_side("target"):
                by_tag = by_tag and await repository.untag(surplus.tag)
                if not by_tag and not surplus.held and surplus.digest not in gone:
                    await repository.delete(surplus.digest)
                    gone.add(surplus.digest)
        except BlobflowError as error:
            yield _record(place.site, surplus, "failed", str(error))
            continue
        if not by_tag and surplus.held:
            why = f"{place.site.registry} removes no tag by itself, and not what it names: {surplus.held}"
            yield _record(place.site, surplus, "left", why)
        else:
            yield _record(place.site, surplus, "removed")


def _record(site: Site, surplus: ExtraTag, status: TagStatus, why: str = "") -> TagRecord:
    return TagRecord(f"{site}:{surplus.tag}", surplus.digest, status, why)

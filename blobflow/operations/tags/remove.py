"""Removes one tag, or one manifest with all of its tags, after checking what else needs it."""

from __future__ import annotations

import msgspec

from blobflow.client import Client
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.errors import Rejected, UsageError
from blobflow.oci import Digest, Reference
from blobflow.operations.tags.extra import RepositoryState
from blobflow.operations.tags.inspect import inspect_repository
from blobflow.operations.tags.names import check_registry
from blobflow.printable import first_of
from blobflow.transports.registry import Repository

_SHOWN = 5


class Removed(msgspec.Struct, frozen=True):
    """What was removed: tags, and the manifest too unless `digest` is ""."""

    tags: tuple[str, ...]
    digest: Digest | None = None


async def remove(
    client: Client,
    reference: Reference,
    *,
    by_digest: bool = False,
    all_tags: bool = False,
    dry_run: bool = False,
) -> Removed:
    """Remove a tag; or, `by_digest` or where a digest is named, the manifest ([end-9]).

    All tags that name the manifest are removed with it: only with `all_tags` if there are others than the one
    given. While a tagged index lists it, it stays. A tag that comes with a digest is removed only if it names
    that digest. `dry_run`: nothing is removed, and what would be is returned.

    Raises NotFound; Rejected where the registry refuses, or other content needs the manifest.
    """
    check_registry(reference)
    if not reference.name:
        raise UsageError(f"{reference} is a whole repository; name a tag or a digest in it")
    repository = client.registries.repository(site_of(reference))
    digest = (await repository.resolve(reference.tag or reference.digest)).digest
    if reference.digest not in ("", digest):
        raise Rejected(f"{reference.host}/{reference.repository}:{reference.tag} names {digest} now")
    if reference.tag and not by_digest:
        await _untag(repository, reference, digest, dry_run=dry_run)
        return Removed((reference.tag,))
    standing = await inspect_repository(repository, await repository.tags(), BoundedRunner(MAX_LOOKUPS))
    gone = _check(standing, reference, digest, all_tags=all_tags)
    if not dry_run:
        await repository.delete(digest)
    return Removed(gone, digest)


async def _untag(repository: Repository, reference: Reference, digest: Digest, *, dry_run: bool) -> None:
    if dry_run or await repository.untag(reference.tag):
        return
    raise Rejected(
        f"{reference.host} removes no tag by itself; --digest removes {digest} from {reference.repository},"
        " and with it every tag that names it"
    )


def _check(
    standing: RepositoryState, reference: Reference, digest: Digest, *, all_tags: bool
) -> tuple[str, ...]:
    """The tags that are removed with a manifest. Raises Rejected for a manifest that has to stay."""
    naming = sorted(tag for tag, named in standing.tags.items() if named == digest)
    if held := standing.holders(standing.tags.keys() - naming).get(digest):
        raise Rejected(
            f"{digest} stays in {reference.host}/{reference.repository}: {held}; remove that first"
        )
    others = [tag for tag in naming if tag != reference.tag]
    if others and not all_tags:
        raise Rejected(
            f"with {digest} would go {first_of(others, _SHOWN)}, which name it too; --all-tags if so"
        )
    return tuple(naming)

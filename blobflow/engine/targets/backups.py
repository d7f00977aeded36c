"""Which images at the targets are to be kept under another tag, since their own tags will name others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec

from blobflow.content import Site
from blobflow.engine.backups import backup_tag, backup_words, check_template
from blobflow.engine.pairs import Pair, site_of
from blobflow.engine.plan.desired import DesiredImage
from blobflow.engine.plan.steps import Backup
from blobflow.engine.targets.survey import TargetLookups
from blobflow.errors import BlobflowError, InvalidReference, UsageError
from blobflow.oci.local_reference import check_local
from blobflow.oci.reference import check_tag


class Backups(msgspec.Struct, frozen=True):
    """The backup of each (site, tag) that will name something else, and the pairs that can have none."""

    by_tag: dict[tuple[Site, str], Backup]
    failures: dict[Pair, BlobflowError]


async def find_backups(
    pairs: Iterable[Pair], desired_images: Mapping[Pair, DesiredImage], targets: TargetLookups
) -> Backups:
    """Find the backups that pairs want. What their tags name was asked for before, so it costs no request.

    A pair fails whose backup's tag is written for another image, too, or is none.
    """
    pairs = set(pairs)
    wanted = sorted(pair for pair in pairs if pair.backup and pair.target.tag)
    aimed = {(site_of(pair.target), pair.target.tag) for pair in pairs} if wanted else set()
    now = time.time()
    found: dict[tuple[Site, str], Backup] = {}
    taken: dict[tuple[Site, str], tuple[str, str]] = {}
    failures: dict[Pair, BlobflowError] = {}
    for pair in wanted:
        site, tag = site_of(pair.target), pair.target.tag
        named = await targets.manifest(site, tag)
        if named is None or named.digest == desired_images[pair].root.digest:
            continue
        try:
            check_template(pair.backup)
            kept = backup_tag(pair.backup, backup_words(tag, named.digest, now))
            if (site, kept) in aimed:
                raise UsageError(f"the backup of {pair.target} would be {kept}, which is mirrored itself")
            if taken.setdefault((site, kept), (tag, named.digest))[1] != named.digest:
                raise UsageError(
                    f"the backup of {pair.target} would be {kept}, as that of {taken[site, kept][0]}; put"
                    " {{tag}} into it"
                )
            if not check_local(site.registry, kept):
                check_tag(kept)
        except InvalidReference as error:
            failures[pair] = InvalidReference(f"the backup of {pair.target}: {error.message}", side="target")
        except UsageError as error:
            error.side = "target"
            failures[pair] = error
        else:
            found[site, tag] = Backup(named, site, tag, kept, desired_images[pair].root.digest)
    return Backups(found, failures)

"""Which other repositories hold a blob, for a client that may have it from there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from blobflow.oci import Digest
from blobflow.server.context import RequestContext
from blobflow.server.pullthrough.stored_names import public_name

# Repositories that are looked at in one go.
_BATCH = 500


async def find_repository(context: RequestContext, digest: Digest, wanted: Callable[[str], bool]) -> str:
    """The first repository, by its name in the store, that holds the blob and is `wanted`; "" if none is."""
    after = ""
    while names := context.registry.content.repositories.repositories_with(digest, after, _BATCH):
        for name in names:
            if wanted(name):
                return name
        after = names[-1]
        await asyncio.sleep(0)
    return ""


async def may_have(context: RequestContext, digest: Digest) -> bool:
    """Whether the client may pull from a repository that holds the blob, or from any at all."""
    permissions = context.permissions
    if permissions.everywhere("pull"):
        return True
    return bool(await find_repository(context, digest, lambda name: permissions.may_pull(public_name(name))))

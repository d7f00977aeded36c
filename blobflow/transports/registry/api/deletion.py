"""Deletes tags, manifests and blobs: distribution-spec, "Content Management" ([end-9], [end-10]).

    DELETE /v2/<name>/manifests/<tag>       the tag goes, what it named stays
    DELETE /v2/<name>/manifests/<digest>    the manifest goes, and every tag that names it
    DELETE /v2/<name>/blobs/<digest>        the blob goes from this repository

distribution 2.8.2 answers the first with 400 (DIGEST_INVALID), others with 405 (UNSUPPORTED): they know no
removal of a tag by itself. The second has to be switched on in distribution, which answers 405 until it is.
What is gone already is gone: a lost answer makes the second try a 404. But a 404 is also what a registry says
that has no such endpoint; so one that does not name what is unknown is looked into.
"""

from __future__ import annotations

from yarl import URL

from blobflow.content import Site
from blobflow.errors import Denied, NotFound, Rejected, Unauthorized
from blobflow.oci import Digest
from blobflow.transports.registry.api.lookups import Lookups
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.messages import Request

# A 404 is here only where what it is about is still there.
_UNSUPPORTED = frozenset({400, 404, 405, 501})
_SAYS_GONE = frozenset({"MANIFEST_UNKNOWN", "NAME_UNKNOWN"})


async def delete_tag(client: HostClient, site: Site, tag: str) -> bool:
    """See `Deletes.untag`."""
    try:
        await _delete(client, site, tag, f"removal of tag {site.repository}:{tag}")
    except Rejected as error:
        if error.status in _UNSUPPORTED:
            return False
        raise
    return True


async def delete_manifest(client: HostClient, site: Site, digest: Digest) -> None:
    """See `Deletes.delete`."""
    try:
        await _delete(client, site, digest, f"removal of manifest {site.repository}@{digest}")
    except Rejected as error:
        if error.status not in (404, 405):
            raise
        raise Rejected(
            f"{error.message}; it has to be switched on there",
            status=error.status,
            code=error.code,
            detail=error.detail,
        ) from None


async def _delete(client: HostClient, site: Site, name: str, description: str) -> None:
    request = Request(
        "DELETE",
        URL(f"/v2/{site.repository}/manifests/{name}", encoded=True),
        description,
        scopes=(f"repository:{site.repository}:delete",),
        ok=(200, 202, 204),
    )
    try:
        await client.send(request)
    except NotFound as error:
        if error.code not in _SAYS_GONE and await _is_there(client, site, name):
            raise Rejected(
                f"{client.host} answered {description} with 404, and still has it", status=404
            ) from None


async def _is_there(client: HostClient, site: Site, name: str) -> bool:
    """Whether the registry has a manifest, past all caches; False where it does not tell."""
    scopes = (f"repository:{site.repository}:pull",)
    lookups = Lookups(client, site, scopes, target=True, writes=False, fail_fast=False)
    try:
        await lookups.send(lookups.manifest("HEAD", name), name, past=True)
    except (NotFound, Rejected, Denied, Unauthorized):
        return False
    return True


async def delete_blob(client: HostClient, site: Site, blob: Digest) -> bool:
    """Take a blob out of the repository [end-10]; whether it is gone. False: the registry won't do that.

    The bytes are the registry's affair: most free them when they next collect garbage.
    """
    request = Request(
        "DELETE",
        URL(f"/v2/{site.repository}/blobs/{blob}", encoded=True),
        f"removal of blob {blob} of {site.repository}",
        scopes=(f"repository:{site.repository}:delete",),
        ok=(200, 202, 204),
    )
    try:
        await client.send(request)
    except NotFound:
        return True
    except (Rejected, Denied, Unauthorized):
        return False
    return True

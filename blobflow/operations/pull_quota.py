"""Asks a registry how many manifests it lets be read: Docker Hub counts them, and says so in headers.

Asking is free: HEADs don't count.
"""

from __future__ import annotations

from blobflow.client import Client
from blobflow.content import Allowance
from blobflow.engine.pairs import site_of
from blobflow.errors import error_side
from blobflow.oci import Reference
from blobflow.oci.reference import DOCKER_HUB
from blobflow.operations.tags.names import check_registry

# Docker Hub tells it with each manifest, so that one has to be asked about; this is the one that its
# documentation has for that.
_ASKED_ABOUT = {DOCKER_HUB: Reference(DOCKER_HUB, "ratelimitpreview/test", "latest")}


async def read_allowance(client: Client, host: str, image: Reference | None = None) -> Allowance | None:
    """What `host` says of its limit, for the login that is kept for it; None if it tells of none.

    Asked with a HEAD of `image`, or of one that a host is known to have, or else with a request to the
    registry as such. Raises what the registry answers.
    """
    named = image or _ASKED_ABOUT.get(host)
    with error_side("source"):
        if named is None:
            await client.registries.ping(host)
        else:
            check_registry(named)
            await client.registries.repository(site_of(named)).resolve(named.name)
    return client.registries.allowance(host)

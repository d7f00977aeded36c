"""Signed images, pushed to registries over HTTP."""

from __future__ import annotations

import asyncio

from blobflow.content import Site
from blobflow.oci.referrers import referrer_descriptor
from blobflow.transports.registry import HostAccess, Registries
from tests.scenarios.signed_images import Content
from tools.processes import Registry


def push(registry: Registry, content: Content, repository: str = "app") -> None:
    """Put an image and what hangs on it, as a client of the registry would."""

    async def put() -> None:
        registries = Registries(lambda _: HostAccess(scheme="http"))
        try:
            sink = registries.sink(Site(registry.host, repository))
            await content.put(sink)
            for subject, found in content.by_subject().items():
                await sink.attach(subject, [referrer_descriptor(each) for each in found])
        finally:
            await registries.close()

    asyncio.run(put())

"""blobflow's store at its two ends, as a program: blobs come in from a registry, or go out to one.

    python -m bench.store_io in HOST --root DIR [--streams N]
    python -m bench.store_io out HOST --origin HOST --root DIR [--streams N]

`in` writes the layers of `giant:1` (tools/registry/zeros.py) into the store at DIR, hashed and checksummed,
as every way into it does; `out` pushes what `in` brought, as a mirror does that finds its blobs in the store.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from functools import partial
from pathlib import Path

from blobflow.cli.runtime.startup import no_certificates, tune_gc

with no_certificates():  # as the command line does
    import uvloop

    from blobflow.content import Site
    from blobflow.engine.concurrency.bounded_runner import BoundedRunner
    from blobflow.oci import Descriptor, parse_manifest
    from blobflow.transports.registry import HostAccess, Registries
    from blobflow.transports.store import Store, StoreCache

tune_gc()


async def bring(store: Store, registries: Registries, site: Site, blob: Descriptor) -> None:
    """One blob into the store."""
    writer = store.partials.begin(blob.digest)
    try:
        async with registries.source(site).open(blob) as chunks:
            async for chunk in chunks:
                writer.write(chunk)
        await writer.commit(blob.digest, blob.size)
    finally:
        writer.abort()  # which does nothing to one that has ended


async def send(cache: StoreCache, registries: Registries, site: Site, blob: Descriptor) -> None:
    """One blob out of the store."""
    await registries.sink(site).push(blob, cache.reader(blob))


async def layers_of(registries: Registries, site: Site) -> tuple[Descriptor, ...]:
    source = registries.source(site)
    root = await source.resolve("1")
    return parse_manifest(await source.read(root), root.media_type).layers


async def go(way: str, host: str, origin: str, root: Path, streams: int) -> None:
    registries = Registries(lambda host: HostAccess(scheme="http", connections=max(streams, 2)))
    with closing(Store.open(root)) as store:
        try:
            layers = await layers_of(registries, Site(origin, "giant"))
            site = Site(host, "giant")
            if way == "in":
                act = partial(bring, store, registries, site)
            else:
                act = partial(send, StoreCache(store), registries, site)
            await BoundedRunner(streams).for_each(act, layers)
        finally:
            await registries.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Blobs into blobflow's store, and out of it.")
    parser.add_argument("way", choices=["in", "out"])
    parser.add_argument("host", metavar="HOST", help="where they come from, or go to")
    parser.add_argument("--origin", metavar="HOST", help="whose manifest names them, if not HOST's")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--streams", type=int, default=1)
    chosen = parser.parse_args()
    uvloop.run(go(chosen.way, chosen.host, chosen.origin or chosen.host, chosen.root, chosen.streams))


if __name__ == "__main__":
    main()

"""Pins: what names mean now, so that later runs move exactly that: digests, with platforms and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from blobflow.client import Client
from blobflow.engine.concurrency.bounded_runner import MAX_LOOKUPS, MAX_SMALL_REQUESTS, BoundedRunner
from blobflow.engine.pairs import site_of
from blobflow.engine.plan.desired import build_desired_image
from blobflow.engine.services import Services
from blobflow.engine.sources.configs import find_platform
from blobflow.engine.sources.reader import read_graph
from blobflow.engine.sources.roots import resolve_roots
from blobflow.errors import BlobflowError, error_side, without_frames
from blobflow.events import PhaseStarted
from blobflow.oci import Digest, Manifest, Reference
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice


class Pin(msgspec.Struct, frozen=True):
    """What a name means now: the digest of its root, and of what is chosen of it the platforms and the size
    in bytes, manifests, configs and layers each counted once."""

    digest: Digest
    platforms: tuple[str, ...]
    size: int


class Pins(msgspec.Struct, frozen=True):
    """Pins by name, and why the others have none."""

    by_name: dict[Reference, Pin]
    failures: dict[Reference, BlobflowError]


async def pin_images(client: Client, names: Iterable[Reference], choice: PlatformChoice = EVERYTHING) -> Pins:
    """Ask what each name means, and read the manifests of what `choice` wants of it.

    A name that can't be pinned is among the failures, NoSuchPlatform where the image is for none of the
    platforms, and ends nothing. Raises StorageError: no store. Cancelled it leaves nothing.
    """
    wanted = sorted(set(names))
    async with client.services() as services:
        services.observe(PhaseStarted("resolve", len(wanted)))
        counts = services.meter.counts["resolve"]
        resolved = await resolve_roots(wanted, services.source_at, BoundedRunner(MAX_LOOKUPS), count=counts)
        runner = BoundedRunner(MAX_SMALL_REQUESTS)
        read = await read_graph(
            resolved.roots,
            services.source_at,
            runner,
            choices=dict.fromkeys(resolved.roots, (choice,)),
            manifest_budget=services.manifest_budget,
        )
        pins: dict[Reference, Pin] = {}
        failures = {**resolved.failures, **read.failures}

        async def pin(name: Reference) -> None:
            root = resolved.roots[name]
            try:
                desired = build_desired_image(read.graph, root, choice, prune=False)
                platforms = desired.platforms or await _own_platform(
                    services, name, read.graph.whole(root.digest)
                )
            except BlobflowError as error:
                failures[name] = without_frames(error)
                return
            sizes = {each.descriptor.digest: each.descriptor.size for each in desired.manifests}
            sizes |= {blob.digest: blob.size for each in desired.manifests for blob in each.blobs}
            pins[name] = Pin(root.digest, platforms, sum(sizes.values()))

        await runner.for_each(pin, [name for name in resolved.roots if name not in failures])
    return Pins(dict(sorted(pins.items())), dict(sorted(failures.items())))


async def _own_platform(services: Services, name: Reference, root: Manifest) -> tuple[str, ...]:
    """The platform of an image that no index lists, as its config says; () for an index, or what has none."""
    if root.is_index:
        return ()
    with error_side("source"):
        platform = await find_platform(services.source_at(site_of(name)), root)
    return (str(platform),) if platform is not None else ()


async def current_digests(client: Client, names: Iterable[Reference]) -> dict[Reference, str | BlobflowError]:
    """The digest that each name has now, or why it could not be asked for; by one small request each."""
    async with client.services() as services:
        now = await resolve_roots(names, services.source_at, BoundedRunner(MAX_LOOKUPS))
    digests: dict[Reference, str | BlobflowError] = {name: root.digest for name, root in now.roots.items()}
    return dict(sorted((digests | now.failures).items()))


async def moved_tags(client: Client, pinned: Mapping[Reference, str]) -> dict[Reference, str | BlobflowError]:
    """The digests that tags name now, where that is no longer the one that they are `pinned` to; or why they
    could not be asked for."""
    now = await current_digests(client, pinned)
    return {name: found for name, found in now.items() if found != pinned[name]}

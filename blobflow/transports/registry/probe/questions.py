"""Probes a registry: finds its profile by pushing generated blobs and manifests.

The questions are those whose answers a profile holds, and some more that a person may want answered. Each is
asked in a way that a registry with nothing in it can answer; sizes are tried from `largest` down, by halves.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable

import msgspec
from yarl import URL

from blobflow.content import MountRule, Sleep
from blobflow.events import HostMeter, Observer, Warned, ignore
from blobflow.oci import Descriptor, digest_of, media
from blobflow.transports.registry.capabilities.profiles import MIB, Profile, UploadMethod
from blobflow.transports.registry.http.host_client import HostClient
from blobflow.transports.registry.http.host_settings import HostAccess
from blobflow.transports.registry.probe.probe_client import ProbeClient, random_content
from blobflow.transports.registry.uploads.location import LocationReader
from blobflow.transports.registry.uploads.request_size import safe_through
from blobflow.transports.registry.uploads.sessions import parse_progress

# The largest request to try unless the caller says otherwise: the size of our chunks, and above the known low
# limits on requests (4, 10 and 20 MiB).
LARGEST_REQUEST = 32 * MIB
# `largest` is halved so often: from 32 MiB down to 512 KiB, below which no chunk is worth its request.
_HALVINGS = 6
_TINY = 1024
# Fields that describe one upload method, and nothing where that is not supported.
FIELDS_OF_METHOD: dict[str, UploadMethod] = {
    "single_bytes": "single",
    "bounded": "single",
    "chunk_bytes": "chunked",
    "least_chunk_bytes": "chunked",
    "keeps_broken_sessions": "chunked",
}
_OPAQUE = "application/octet-stream"


class ProbeResult(msgspec.Struct, frozen=True):
    """What a registry supports. `facts`: answers that no profile holds, by question. `left`: content that the
    probe pushed and the registry would not delete, as `repository/blobs/digest`. `unproved`: fields of the
    profile that could not be tested; they have their default values."""

    profile: Profile
    facts: dict[str, bool]
    left: tuple[str, ...] = ()
    unproved: frozenset[str] = frozenset()


async def probe_host(
    host: str,
    repository: str,
    access: HostAccess,
    *,
    largest: int = LARGEST_REQUEST,
    observer: Observer = ignore,
    meter: HostMeter | None = None,
    trace: bool = False,
    user_agent: str = "blobflow",
    sleep: Sleep = asyncio.sleep,
) -> ProbeResult:
    """Try everything in `repository` and a second one beside it, `…-mounts`, and delete what was pushed
    there.

    `largest`: bytes of the largest request. Raises what the registry answers where nothing can be pushed.
    Whatever ends it, cancellation too, that is deleted first; what then is left is warned of.
    """
    client = HostClient(
        host,
        access,
        observer=observer,
        meter=meter or HostMeter(),
        sleep=sleep,
        clock=time.monotonic,
        random=random.random,
        trace=trace,
        user_agent=user_agent,
    )
    locations = LocationReader()
    here = ProbeClient(client, repository, sleep, locations)
    beside = ProbeClient(client, f"{repository}-mounts", sleep, locations)
    try:
        probe = Probe(here, beside, [largest >> halving for halving in range(_HALVINGS + 1)])
        try:
            (profile, unproved), facts = await probe.profile(), await probe.facts()
        except BaseException:
            left = [*await beside.clean_up(), *await here.clean_up()]
            if left:
                observer(Warned(f"{host} still has {', '.join(left)}, which the probe could not delete"))
            raise
        left = [*await beside.clean_up(), *await here.clean_up()]
        return ProbeResult(profile, facts, tuple(left), unproved)
    finally:
        await client.close()


class Probe:
    """The questions to one registry. `sizes` in bytes, the largest first."""

    def __init__(self, here: ProbeClient, beside: ProbeClient, sizes: list[int]) -> None:
        self._here = here
        self._beside = beside
        self._sizes = sizes
        self._tag = f"probe-{secrets.token_hex(8)}"  # the repository may have a tag of any guessable name

    async def profile(self) -> tuple[Profile, frozenset[str]]:
        """The profile that pushes and reads use, and the fields that could not be tested."""
        largest = self._sizes[0]
        blob = await self._here.push(random_content(_TINY), single=True)
        streamed = await self._here.push(random_content(_TINY), single=False)
        if not (blob or streamed) and self._here.locations.may_be_misread():
            self._here.locations.switch()
            blob = await self._here.push(random_content(_TINY), single=True)
            streamed = await self._here.push(random_content(_TINY), single=False)
        if (safe := safe_through(self._here.via)) is not None:  # larger ones may get through now and then
            self._sizes = [size for size in self._sizes if size <= safe] or self._sizes[-1:]
        single = (await _first(self._sizes, self._takes_single) or _TINY) if blob else 0
        chunk = await _first(self._sizes, self._takes_chunk)
        least = await _first(self._sizes[::-1], self._takes_two_chunks) if chunk else 0
        # Where large streams are refused, or not safe, they are no choice beside chunks.
        streams = streamed and (not least or (safe is None and await self._takes_stream(largest)))
        forms: dict[UploadMethod, object] = {"single": blob, "stream": streams, "chunked": least}
        rungs = tuple(form for form, taken in forms.items() if taken)
        usual = Profile("probed")
        known = blob or streamed or await self._chunked(self._sizes[0])
        mounts = "any" if known is None else await self._mount_rule(known)
        profile = Profile(
            "probed",
            rungs=rungs or usual.rungs,
            single_bytes=single or usual.single_bytes,
            bounded=bool(blob) and single < largest,
            chunk_bytes=chunk or usual.chunk_bytes,
            least_chunk_bytes=least or usual.least_chunk_bytes,
            ranges=known is None or await self._serves_ranges(known),
            mounts=mounts != "nothing",
            mounts_need_manifest=mounts == "named",
            keeps_broken_sessions=await self._keeps_broken_sessions() if least else None,
            tags_with_digest=known is not None and await self._takes_tags_with_digest(known),
        )
        unproved = frozenset[str]()
        if not rungs:
            unproved |= {"rungs", *FIELDS_OF_METHOD}
        if known is None:
            unproved |= {"ranges", "mounts"}
        return profile, unproved

    async def facts(self) -> dict[str, bool]:
        """Facts that blobflow learns while it runs, or does not need."""
        blob = await self._here.push(random_content(_TINY), single=True) or await self._here.push(
            random_content(_TINY), single=False
        )
        image = await self._put_image(blob) if blob else None
        absent = {"mediaType": media.OCI_MANIFEST, "digest": digest_of(random_content(_TINY)), "size": _TINY}
        sparse = await self._here.put({"manifests": [absent]}, media.OCI_INDEX)
        return {
            "mounts without `from`": blob is not None and await self._beside.mount(blob.digest),
            "takes indexes whose manifests are absent": sparse is not None,
            "has the referrers API": image is not None and await self._tells_referrers(image),
            "deletes by tag": blob is not None and await self._deletes_by_tag(blob),
        }

    # Uploads

    async def _takes_single(self, size: int) -> bool:
        return await self._here.push(random_content(size), single=True) is not None

    async def _takes_stream(self, size: int) -> bool:
        return await self._here.push(random_content(size), single=False) is not None

    async def _takes_chunk(self, size: int) -> bool:
        """Whether a first chunk of that size is taken; nothing is made of it."""
        location = await self._here.open()
        after = await self._here.patch(location, random_content(size), start=0)
        await self._here.cancel(after or location)
        return after is not None

    async def _takes_two_chunks(self, size: int) -> bool:
        """Whether a chunk of that size may be followed by another."""
        return await self._chunked(size) is not None

    async def _chunked(self, size: int) -> Descriptor | None:
        content = random_content(2 * size)
        location = await self._here.open()
        for start in (0, size):
            after = await self._here.patch(location, content[start : start + size], start=start)
            if after is None:
                await self._here.cancel(location)
                return None
            location = after
        digest = digest_of(content)
        return Descriptor(_OPAQUE, digest, 2 * size) if await self._here.commit(location, digest) else None

    async def _keeps_broken_sessions(self) -> bool:
        """Whether an upload goes on where its connection broke."""
        content = random_content(2 * self._sizes[-1])
        location = await self._here.open()
        await self._here.break_off(location, content, len(content) // 2)
        response = await self._here.send("GET", location, ok=(200, 204))
        start = parse_progress(response.headers.get("Range")) if response is not None else None
        if response is None or not start:
            await self._here.cancel(location)
            return False
        if "Location" in response.headers:
            location = self._here.location(response)
        after: URL | None = await self._here.patch(location, content[start:], start=start)
        if after is None:
            await self._here.cancel(location)
            return False
        return await self._here.commit(after, digest_of(content))

    # The rest

    async def _serves_ranges(self, blob: Descriptor) -> bool:
        response = await self._here.send(
            "GET", f"/blobs/{blob.digest}", ok=(206,), headers={"Range": "bytes=1-2"}
        )
        return response is not None and len(response.body) == 2

    async def _mount_rule(self, blob: Descriptor) -> MountRule:
        """What is mounted from a named repository: whatever it has, or only what a manifest there names."""
        if await self._beside.mount(blob.digest, self._here.repository):
            return "any"
        if await self._put_image(blob) is None:
            return "nothing"
        return "named" if await self._beside.mount(blob.digest, self._here.repository) else "nothing"

    async def _put_image(self, blob: Descriptor, tag: str = "") -> Descriptor | None:
        return await self._here.put(_image_of(blob), media.OCI_MANIFEST, tag)

    async def _takes_tags_with_digest(self, blob: Descriptor) -> bool:
        tags = (f"{self._tag}-a", f"{self._tag}-b")
        return await self._here.confirms_tags(_image_of(blob), media.OCI_MANIFEST, tags)

    async def _tells_referrers(self, image: Descriptor) -> bool:
        response = await self._here.send("GET", f"/referrers/{image.digest}")
        return (
            response is not None
            and media.without_parameters(response.headers.get("Content-Type", "")) == media.OCI_INDEX
        )

    async def _deletes_by_tag(self, blob: Descriptor) -> bool:
        if await self._put_image(blob, self._tag) is None:
            return False
        return await self._here.send("DELETE", f"/manifests/{self._tag}", ok=(200, 202, 204)) is not None


def _image_of(config: Descriptor) -> dict[str, object]:
    """An image without layers."""
    config_mentioned = {"mediaType": media.OCI_CONFIG, "digest": config.digest, "size": config.size}
    return {"config": config_mentioned, "layers": []}


async def _first(sizes: list[int], takes: Callable[[int], Awaitable[bool]]) -> int:
    """The first of the sizes that is taken; 0: none is."""
    for size in sizes:
        if await takes(size):
            return size
    return 0

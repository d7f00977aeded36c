"""Image configs (image-spec config.md): an image's own platform and layers, whatever an index says of it.

Which manifests have a platform
-------------------------------

An image has a platform if its config has the media type of an image's config, OCI's or Docker's, and names a
system or an architecture. Charts, wasm modules, signatures, attestations and files of all sorts have none:
their configs are of other types, or empty, or say nothing (`{}`, cosign's empty strings, BuildKit's
`unknown`), or are no JSON at all. Docker takes configs of generic types (application/octet-stream,
application/json, text/html, or none) for image configs, because some builders wrote that; so they are read. A
blob that is too large to be a config is not read, and has no platform either.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from blobflow.content import Source, Verifier
from blobflow.errors import IntegrityError, InvalidDigest, UnsupportedContent
from blobflow.oci import Digest, Manifest, Platform, media, parse_digest
from blobflow.oci.json_decoding import decode
from blobflow.oci.platform import MAX_PLATFORM

# Configs are some kilobytes; those of images with thousands of history entries are some hundred.
MAX_CONFIG_BYTES = 4 * 1024 * 1024


class ImageConfig(msgspec.Struct):
    """The fields that are read from a config. `created`: RFC 3339, or ""."""

    created: str | None = None
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: tuple[str, ...] = msgspec.field(name="os.features", default=())

    @property
    def platform(self) -> Platform:
        return Platform(self.architecture, self.os, self.variant, self.os_version, self.os_features)


class _RootFs(msgspec.Struct):
    diff_ids: tuple[str, ...] | None = None


class _Layers(msgspec.Struct):
    """The digests of an image's uncompressed layers, the lowest first."""

    rootfs: _RootFs | None = None


_Kind = TypeVar("_Kind", ImageConfig, _Layers)


async def read_platform(source: Source, manifest: Manifest) -> Platform:
    """The platform that the config of an image manifest names; empty strings where it names none, as the
    configs of artifacts do. Costs and raises as `read_config`."""
    return (await read_config(source, manifest)).platform


def may_name_platform(manifest: Manifest) -> bool:
    """Whether the config of an image manifest may be an image's, and so name a platform: see above."""
    config = manifest.config
    return (
        config is not None
        and media.without_parameters(config.media_type) in media.IMAGE_CONFIGS
        and 0 < config.size <= MAX_CONFIG_BYTES
    )


async def find_platform(source: Source, manifest: Manifest) -> Platform | None:
    """The platform of an image manifest; None if it is not of a kind that has one: see above.

    Costs one read of the config, or none where its media type or size decides already. Raises what the source
    raises, and IntegrityError for a config that is not what its digest says.
    """
    if not may_name_platform(manifest):
        return None
    try:
        platform = await read_platform(source, manifest)
    except UnsupportedContent:  # no image config: no JSON, or fields that can't be a platform's
        return None
    return platform if platform.is_known else None


async def read_diff_ids(source: Source, manifest: Manifest) -> list[Digest]:
    """The digest that each layer of an image manifest must have uncompressed, according to the image's
    config.

    Costs and raises as `read_config`, and IntegrityError where their number is not that of the layers.
    """
    said = await _read(source, manifest, _Layers)
    named = said.rootfs.diff_ids or () if said.rootfs else ()
    what = f"config {manifest.config.digest if manifest.config else ''}"
    if len(named) != len(manifest.layers):
        raise IntegrityError(
            f"{what} names {len(named)} layers, but manifest {manifest.descriptor.digest} has "
            f"{len(manifest.layers)}"
        )
    try:
        return [parse_digest(diff_id) for diff_id in named]
    except InvalidDigest as error:
        raise UnsupportedContent(f"{what} names layers that can't be verified: {error}") from None


async def read_config(source: Source, manifest: Manifest) -> ImageConfig:
    """Read the config of an image manifest.

    Costs one read of the config. Raises what the source raises, and UnsupportedContent for a config that is
    too large, that is no JSON object, or that names something longer than any platform: callers keep it.
    """
    said = await _read(source, manifest, ImageConfig)
    longest = max(said.platform.length, len(said.created or ""))
    if longest > MAX_PLATFORM:
        raise UnsupportedContent(
            f"config {manifest.config.digest if manifest.config else ''} names a platform or time of "
            f"{longest} characters; {MAX_PLATFORM} are allowed"
        )
    return said


async def _read(source: Source, manifest: Manifest, kind: type[_Kind]) -> _Kind:
    raw = await read_raw_config(source, manifest)
    try:
        return decode(raw, msgspec.json.Decoder(kind))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        digest = manifest.config.digest if manifest.config else ""
        raise UnsupportedContent(f"config {digest} can't be read: {error}") from None


async def read_raw_config(source: Source, manifest: Manifest) -> bytes:
    """The bytes of an image manifest's config, verified, whatever they say.

    Costs one read of the config. Raises what the source raises, UnsupportedContent for one that is too large.
    """
    config = manifest.config
    assert config is not None, "an index has no config"
    if config.size > MAX_CONFIG_BYTES:
        raise UnsupportedContent(
            f"config {config.digest} has {config.size} bytes, more than the {MAX_CONFIG_BYTES} that are read"
        )
    verifier, parts = Verifier(config), []
    async with source.open(config) as chunks:
        async for chunk in chunks:
            verifier.feed(chunk)
            parts.append(bytes(chunk))
    verifier.finish()
    return b"".join(parts)

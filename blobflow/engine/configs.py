"""An image's own word on itself: its config (image-spec config.md), not what an index says of it."""

from __future__ import annotations

import msgspec

from blobflow.content import Source, Verifier
from blobflow.errors import UnsupportedContent
from blobflow.oci import Manifest, Platform

# Configs are some kilobytes; those of images with thousands of history entries are some hundred.
MAX_CONFIG_BYTES = 4 * 1024 * 1024


class Config(msgspec.Struct):
    """What is read of a config. `created`: RFC 3339, or nothing."""

    created: str | None = None
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(name="os.version", default="")
    os_features: tuple[str, ...] = msgspec.field(name="os.features", default=())


async def read_platform(source: Source, manifest: Manifest) -> Platform:
    """The platform that the config of an image manifest names; empty strings where it names none, as the
    configs of artifacts do. Costs and raises as `read_config`."""
    said = await read_config(source, manifest)
    return Platform(said.architecture, said.os, said.variant, said.os_version, said.os_features)


async def read_config(source: Source, manifest: Manifest) -> Config:
    """The config of an image manifest.

    Costs one read of the config. Raises what the source raises, and UnsupportedContent for a config that is
    too large or that is no JSON object.
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
    try:
        return msgspec.json.decode(b"".join(parts), type=Config)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise UnsupportedContent(f"config {config.digest} can't be read: {error}") from None

"""A client that accepts no index gets the index's linux/amd64 image instead, as in distribution. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from blobflow.oci import Descriptor, Manifest, Platform, media

_DEFAULT = Platform(os="linux", architecture="amd64")
_ANYTHING = frozenset({"*/*", "application/*"})


def accepts(headers: Iterable[str], media_type: str) -> bool:
    """Whether Accept headers accept a media type (RFC 9110, 12.5.1). No header accepts anything.

    No weight counts but that of 0, which means "not".
    """
    listed = [entry.split(";") for header in headers for entry in header.lower().split(",") if entry.strip()]
    kinds = {kind.strip() for kind, *parameters in listed if not any(map(_is_never, parameters))}
    return not listed or media_type in kinds or not kinds.isdisjoint(_ANYTHING)


def default_image(index: Manifest) -> Descriptor | None:
    """The image of an index that stands for it: that of linux/amd64; None if it has none."""
    for child in index.manifests:
        if child.platform and child.platform.matches(_DEFAULT) and child.media_type not in media.INDEXES:
            return child
    return None


def _is_never(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    return name.strip() == "q" and value.strip().rstrip("0") in ("", ".", "0.")

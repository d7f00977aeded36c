"""What hangs on an image and only says something about it, as signatures, attestations and SBOMs do; and what
would be unpacked or run, whatever it hangs on. Pure, by the media types that a manifest has."""

from __future__ import annotations

from blobflow.oci import media
from blobflow.oci.manifest import Manifest

# Notation's signatures are JSON, or this.
_COSE = "application/cose"
# Layers by their media type, whatever their compression is called.
_LAYERS = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")


def hangs(manifest: Manifest) -> bool:
    """Whether a manifest only says something about another one: all of it is text, or a signature, and not
    what somebody would unpack or run."""
    return not manifest.is_index and all(_is_said(layer.media_type) for layer in manifest.layers)


def is_like_an_image(manifest: Manifest) -> bool:
    """Whether there are clients that take a manifest for an image, whatever its layers are called."""
    config = manifest.config
    return config is None or media.without_parameters(config.media_type) in media.IMAGE_CONFIGS


def would_run(manifest: Manifest) -> bool:
    """Whether a manifest is an image, or lists some. Artifacts with a config of their own are none."""
    if manifest.is_index:
        return bool(manifest.manifests)
    return is_like_an_image(manifest) and not hangs(manifest)


def _is_said(media_type: str) -> bool:
    kind = media.without_parameters(media_type)
    if kind.startswith(_LAYERS):
        return False
    return kind == _COSE or kind.startswith("text/") or kind.endswith(("+json", "+xml", "/json", "/xml"))

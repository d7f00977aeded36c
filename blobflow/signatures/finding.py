"""Finding signatures: which of an image's referrers may be signatures, and what they hold.

Three forms are known. cosign's own tag (`sha256-….sig`) names a manifest with a layer a signature; with
`--registry-referrers-mode=oci-1-1` that manifest has a subject, and no tag. A sigstore bundle is the only
layer of a manifest with a subject, whose artifact type is the bundle's. What else refers to an image (SBOMs,
attestations of cosign's older kind) is no signature of it, and is not read.

An image may have any number of referrers, and anybody who may push there may add some. So what is read of
one image is bounded: signatures beyond that are as good as none, which rejects an image and never accepts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from blobflow.content import Referrer, Source, Verifier
from blobflow.errors import NotFound, UnsupportedContent
from blobflow.oci import UNKNOWN_SIZE, Descriptor, Digest, Manifest, parse_manifest
from blobflow.oci.artifact import EMPTY_TYPE
from blobflow.signatures.contract import FoundSignature, SignatureForm

# Manifests, and signatures in them, that are read of one image: each release key and each rebuild adds one.
MAX_SIGNATURES = 64
# Bytes of signatures that are read of one image: a signature has about 1 kB, a bundle 10 kB. Bundles that
# attest to whole SBOMs have more; the smallest are read first.
MAX_SIGNATURE_BYTES = 4 * 1024 * 1024

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
# A version follows: `.v0.3+json`, or `+json;version=0.1`.
BUNDLE = "application/vnd.dev.sigstore.bundle"
_COSIGN_ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_COSIGN_SUFFIX = ".sig"
# Old lists leave the artifact type out, or have what the config is called in its place.
_SAYS_NOTHING = frozenset({"", EMPTY_TYPE})


class SignatureLayer(msgspec.Struct, frozen=True):
    """A layer that holds a signature: what a `FoundSignature` is, without its content."""

    form: SignatureForm
    layer: Descriptor
    referrer: Referrer


def signing_referrers(referrers: Iterable[Referrer]) -> list[Referrer]:
    """Those of an image's referrers that may be signatures, in a fixed order, so many as are read: of what
    does not say what it is, only what is left room for."""
    signing = {each.manifest.digest: each for each in referrers if _may_sign(each)}
    ordered = sorted(signing.values(), key=lambda each: (_is_untold(each), each.manifest.digest))
    return ordered[:MAX_SIGNATURES]


def _may_sign(referrer: Referrer) -> bool:
    if referrer.how == "cosign":
        return referrer.tag.endswith(_COSIGN_SUFFIX)
    kind = referrer.manifest.artifact_type or ""
    return kind in _SAYS_NOTHING or kind == _COSIGN_ARTIFACT or kind.startswith(BUNDLE)


def _is_untold(referrer: Referrer) -> bool:
    """Whether nothing says that it is a signature."""
    return referrer.how != "cosign" and (referrer.manifest.artifact_type or "") in _SAYS_NOTHING


def signature_layers(manifest: Manifest, referrer: Referrer) -> list[SignatureLayer]:
    """The signatures in a manifest that was listed as `referrer`; none where that has another subject."""
    subject = manifest.subject.digest if manifest.subject is not None else None
    if subject != referrer.subject and (subject is not None or referrer.how != "cosign"):
        return []
    return [
        SignatureLayer("simple" if layer.media_type == SIMPLE_SIGNING else "bundle", layer, referrer)
        for layer in manifest.layers
        if layer.media_type == SIMPLE_SIGNING or layer.media_type.startswith(BUNDLE)
    ]


async def read_signatures(source: Source, layers: Sequence[SignatureLayer]) -> list[FoundSignature]:
    """Read the signatures, each verified by its digest, within the bounds on number and bytes.

    A signature whose content is not there is left out. Raises what the source raises otherwise, and
    IntegrityError for content that is not what its digest says.
    """
    contents: dict[Digest, bytes | None] = {}  # two keys may have signed the same payload
    found, room = [], MAX_SIGNATURE_BYTES
    for each in sorted(layers, key=lambda each: (each.layer.size, each.layer.digest))[:MAX_SIGNATURES]:
        digest = each.layer.digest
        if digest not in contents:
            room -= each.layer.size
            if room < 0:
                break
            contents[digest] = await _read_if_there(source, each.layer)
        content = contents[digest]
        if content is not None:
            manifest, how = each.referrer.manifest.digest, each.referrer.how
            annotations = each.layer.annotations or {}
            found.append(FoundSignature(each.form, digest, content, manifest, how, annotations))
    return found


async def _read_if_there(source: Source, layer: Descriptor) -> bytes | None:
    verifier, parts = Verifier(layer, f"signature {layer.digest}"), []
    try:
        async with source.open(layer) as chunks:
            async for chunk in chunks:
                verifier.feed(chunk)
                parts.append(bytes(chunk))
    except NotFound:
        return None
    verifier.finish()
    return b"".join(parts)


async def find_signatures(
    source: Source, subject: Digest, referrers: Iterable[Referrer]
) -> list[FoundSignature]:
    """The signatures of a manifest at its source, of what is listed as its referrers there.

    What is listed and not there, or is no manifest that can be read, is left out. Costs one request a
    manifest and one a signature; raises as `read_signatures`.
    """
    layers: list[SignatureLayer] = []
    for each in signing_referrers(each for each in referrers if each.subject == subject):
        try:
            # What a list tells of a manifest is a hint, but for the digest.
            raw = await source.read(msgspec.structs.replace(each.manifest, size=UNKNOWN_SIZE))
            manifest = parse_manifest(raw, digest=each.manifest.digest)
        except (NotFound, UnsupportedContent):
            continue
        layers += signature_layers(manifest, each)
    return await read_signatures(source, layers)

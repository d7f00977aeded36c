"""Referrers of a manifest, and the tags under which registries without the referrers API have them. Pure.

A referrer is a manifest with a `subject` (image-spec manifest.md). A registry without the referrers API has
them listed in an index that clients keep, under a tag made of the subject's digest (distribution-spec,
"Referrers Tag Schema"). cosign's older signatures, attestations and SBOMs have no subject: a tag of their own
is all that ties them to it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from blobflow.errors import UnsupportedContent
from blobflow.lazy_pattern import LazyPattern
from blobflow.oci import media
from blobflow.oci.descriptor import Descriptor
from blobflow.oci.digest import Digest
from blobflow.oci.manifest import Manifest, parse_manifest

# What cosign puts behind the subject's digest, written as a tag (cosign, SIGNATURE_SPEC.md and specs/).
COSIGN_SUFFIXES = (".sig", ".att", ".sbom")
# The longest algorithm and the longest encoded digest in a fallback tag ("Referrers Tag Schema").
_ALGORITHM, _ENCODED = 32, 64
# Tags have at most 128 characters, so cosign has none for longer digests than these.
_COSIGN_ALGORITHM = "sha256"
_OF_SUBJECT = LazyPattern(
    rf"(sha256|sha512)-([0-9a-f]{{{_ENCODED}}})(?:[0-9a-f]{{{_ENCODED}}})?(?:\.[a-z0-9]+)?\Z"
)


def fallback_tag(subject: Digest) -> str:
    """The tag of the index that lists what refers to `subject`."""
    algorithm, _, encoded = subject.partition(":")
    return f"{algorithm[:_ALGORITHM]}-{encoded[:_ENCODED]}"


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign keeps what it knows of `subject`."""
    algorithm, _, encoded = subject.partition(":")
    if algorithm != _COSIGN_ALGORITHM:
        return ()
    return tuple(f"{algorithm}-{encoded}{suffix}" for suffix in COSIGN_SUFFIXES)


def subject_in_tag(tag: str) -> str:
    """What a tag belongs to by its name, as `fallback_tag` has it: the list of the referrers of a digest
    (distribution-spec, "Referrers Tag Schema") or what cosign made for it (`.sig`, `.att`, `.sbom`). "" for
    any other tag."""
    found = _OF_SUBJECT.match(tag)
    return f"{found[1]}-{found[2]}" if found else ""


def digest_in_tag(tag: str) -> Digest:
    """The digest that `subject_in_tag` found, as far as a tag has it: of sha512 the beginning."""
    return Digest(tag.replace("-", ":", 1))


def artifact_type_of(manifest: Manifest) -> str:
    """What kind of thing a manifest is: its artifactType, or else its config's media type."""
    return manifest.artifact_type or (manifest.config.media_type if manifest.config else "")


def referrer_descriptor(manifest: Manifest) -> Descriptor:
    """A referrer as a list of them has it: with its artifact type and annotations ([end-12a])."""
    own = manifest.descriptor
    return Descriptor(
        own.media_type,
        own.digest,
        own.size,
        annotations=manifest.annotations or None,
        artifact_type=artifact_type_of(manifest) or None,
    )


def merge_referrers_index(
    raw: bytes | None, referrers: Iterable[Descriptor], absent: Collection[str] = ()
) -> bytes | None:
    """The bytes of a fallback index that lists these too; None if `raw` (None: there is none) does already.

    What it says beside that stays as it is, without the entries for `absent` digests. Entries are in the
    order of their digests: whoever merges the same ones, in whatever order, makes the same bytes. Raises
    UnsupportedContent if `raw` is no manifest.
    """
    index: dict[str, Any] = {"schemaVersion": 2, "mediaType": media.OCI_INDEX}
    if raw is not None:
        parse_manifest(raw, most=0)  # what others list is theirs, of whatever algorithm
        try:
            index = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise UnsupportedContent(f"a list of referrers can't be added to: {error}") from None
    had = {item["digest"]: item for item in index.get("manifests") or () if item and item.get("digest")}
    entries = {digest: item for digest, item in had.items() if digest not in absent}
    for referrer in referrers:
        entries.setdefault(referrer.digest, _entry(referrer))
    if raw is not None and entries.keys() == had.keys():
        return None
    index["manifests"] = [entries[digest] for digest in sorted(entries)]
    return json.dumps(index, separators=(",", ":"), ensure_ascii=False).encode()


def _entry(referrer: Descriptor) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    }
    if referrer.artifact_type:
        entry["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        entry["annotations"] = dict(sorted(referrer.annotations.items()))
    return entry

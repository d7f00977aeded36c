"""The OCI specifications' values and rules, pure. Nothing here opens a file or a socket.

`manifest.children()` is the only reader of manifests in the program, and raw manifest bytes are never
re-encoded: what is put at a target is what was read at the source.
"""

from blobflow.oci.descriptor import UNKNOWN_SIZE, Descriptor
from blobflow.oci.digest import Digest, digest_of, hasher_for, parse_digest
from blobflow.oci.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest
from blobflow.oci.platform import Platform, parse_platform
from blobflow.oci.reference import Reference, parse_reference

__all__ = [
    "MAX_MANIFEST_BYTES",
    "UNKNOWN_SIZE",
    "Descriptor",
    "Digest",
    "Manifest",
    "Platform",
    "Reference",
    "digest_of",
    "hasher_for",
    "parse_digest",
    "parse_manifest",
    "parse_platform",
    "parse_reference",
]

"""cosign's signatures of the simple signing form: a payload that names an image, with its proof beside it.
Pure.

containers-signature(5), "JSON data format", with cosign's type, as containers/image reads it: a field that is
not known, or is there twice, makes the payload none.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import msgspec

from blobflow.errors import InvalidConfig, InvalidDigest
from blobflow.oci import Digest
from blobflow.oci.digest import parse_digest
from blobflow.printable import one_line
from blobflow.signatures.proofs import NotProven, Step
from blobflow.signatures.strict_json import Part, parse_strictly

SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
CHAIN = "dev.sigstore.cosign/chain"
LOG_ENTRY = "dev.sigstore.cosign/bundle"
TIMESTAMP = "dev.sigstore.cosign/rfc3161timestamp"

# Bytes. A payload has some 250, and those with annotations a few thousand.
MAX_PAYLOAD = 256 * 1024
# Characters of an annotation: a log entry with a certificate inside has 5 kB.
MAX_ANNOTATION = 256 * 1024

_LINE_ENDS = str.maketrans("", "", "\r\n")
_TYPE = "cosign container image signature"


class SignedName(msgspec.Struct, frozen=True):
    """What a payload says: the digest of a manifest, and the name that it was signed under."""

    digest: Digest
    name: str


def read_payload(raw: bytes) -> SignedName:
    """Read a payload whose signature was verified. Raises NotProven."""
    if len(raw) > MAX_PAYLOAD:
        raise NotProven(Step.READABLE, f"its payload has more than {MAX_PAYLOAD // 1024} KiB")
    try:
        fields = parse_strictly(raw, "its payload").fields(("critical", "optional"))
        _check_optional(fields["optional"])
        critical = fields["critical"].fields(("type", "image", "identity"))
        if (word := critical["type"].text()) != _TYPE:
            critical["type"].refuse(f'is "{one_line(word, 100)}", and should be "{_TYPE}"')
        image = critical["image"].fields(("docker-manifest-digest",))
        identity = critical["identity"].fields(("docker-reference",))
        return SignedName(
            parse_digest(image["docker-manifest-digest"].text()), identity["docker-reference"].text()
        )
    except (InvalidConfig, InvalidDigest) as error:
        raise NotProven(Step.READABLE, error.message) from error


def annotation(annotations: Mapping[str, str], name: str, what: str, step: Step) -> str:
    """An annotation of a signature's layer, bounded. Raises NotProven if it is not there."""
    text = annotations.get(name, "")
    if not text:
        raise NotProven(step, f"it has no {what}")
    if len(text) > MAX_ANNOTATION:
        raise NotProven(Step.READABLE, f"its {what} has more than {MAX_ANNOTATION // 1024} KiB")
    return text


def signature_of(annotations: Mapping[str, str]) -> bytes:
    """The signature of a payload, of which nothing is verified."""
    return decoded(annotation(annotations, SIGNATURE, "signature annotation", Step.READABLE), "its signature")


def decoded(text: str, what: str) -> bytes:
    """What base64 (RFC 4648, section 4; with ends of lines, which Go reads over) stands for. Raises
    NotProven."""
    try:
        return base64.b64decode(text.translate(_LINE_ENDS), validate=True)
    except (binascii.Error, ValueError) as error:
        raise NotProven(Step.READABLE, f"{what} is not base64") from error


def _check_optional(optional: Part) -> None:
    if optional.is_null():
        return
    members = optional.members()
    if "creator" in members:
        members["creator"].text()
    if "timestamp" in members:
        members["timestamp"].whole_number()

"""Under which name an image was signed, against what the policy wants (`signedIdentity`). Pure.

Simple signing writes a name into each payload, and that has to match. Bundles have no place for one: cosign 3
signs the digest, and an attestation may call it something. containers/image reads no bundles yet; here

- a name that a bundle has is compared as that of an image that goes by its digest: a bundle signs no tag,
  unless it names one;
- without a name, forms that compare with what the image is called (`match…`, `remapIdentity`) are met: the
  bundle is bound to the image by its digest, and a signature of another image can't be. The same image, under
  another name, passes;
- `exactReference` and `exactRepository` want to read that very name, so without one they are not met.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.oci import Reference
from blobflow.printable import one_line
from blobflow.signatures.contract import ClaimedImage
from blobflow.signatures.proofs import NotProven, Step
from blobflow.signatures.signed_identity import ExactReference, ExactRepository, SignedIdentity, advice


def check_name(name: str, claimed: Reference, identity: SignedIdentity) -> None:
    """Raise NotProven unless a payload has the name that is wanted."""
    if not identity.matches(claimed, name):
        raise NotProven(Step.NAME, _other(name, claimed, identity))


def check_bundle_name(
    names: Sequence[str], image: ClaimedImage, identity: SignedIdentity, signer: str
) -> str:
    """The signer, with a note if nothing was said about names. Raises NotProven unless one of the names of a
    bundle is the one that is wanted."""
    if not names:
        if isinstance(identity, ExactReference | ExactRepository):
            raise NotProven(Step.NAME, _other("", image.reference, identity))
        return f"{signer}, for the digest under any name"
    pinned = msgspec.structs.replace(image.reference, digest=image.digest)
    for name in names:
        has_tag = ":" in name.rpartition("/")[2]
        if identity.matches(image.reference, name):
            return signer
        if not has_tag and identity.matches(pinned, f"{name}@{image.digest}"):
            return signer
    raise NotProven(Step.NAME, _other(names[0], image.reference, identity))


def _other(name: str, claimed: Reference, identity: SignedIdentity) -> str:
    shown = f'"{one_line(name, 200)}"' if name else "no repository"
    told = advice(identity, claimed, name)
    return f"it names {shown}, and the policy wants {identity.wanted(claimed)}{f'; {told}' if told else ''}"

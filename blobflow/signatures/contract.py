"""What is between the engine, which finds signatures, and a judge, who knows a policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

from blobflow.oci import Digest, Reference

# How a signature is written: "simple": cosign's payload and annotations (containers' "simple signing");
# "bundle": a sigstore bundle, whose content says whether it signs the image or an attestation of it.
SignatureForm = Literal["simple", "bundle"]


class ClaimedImage(msgspec.Struct, frozen=True):
    """An image as its source calls it. `transport` as containers-policy.json(5) names it: docker, oci,
    oci-archive, docker-archive. `digest`: of the manifest or index that is judged. `manifest`: its bytes, if
    they are at hand: some signatures (Ed25519) can't be verified by the digest alone."""

    transport: str
    reference: Reference
    digest: Digest
    manifest: bytes = b""


class FoundSignature(msgspec.Struct, frozen=True):
    """A signature as it was found, of which nothing is verified but its digest.

    `content`: the payload or the bundle, and `digest` its digest. `annotations`: of the layer that it is.
    `manifest`: what it was found in. `how`: as in `content.Referrer`.
    """

    form: SignatureForm
    digest: Digest
    content: bytes
    manifest: Digest
    how: Literal["api", "tag", "index", "cosign"]
    annotations: Mapping[str, str] = {}


class Acceptance(msgspec.Struct, frozen=True):
    """How one requirement of a policy was met. `by`: the key, or the identity and its issuer, in words; ""
    where no signature was asked for. `signature` and `manifest`: the digests of what proves it."""

    requirement: str
    by: str = ""
    signature: str = ""
    manifest: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """Why an image is accepted: all requirements of its scope are met. `scope`: as the policy writes it;
    "default" for its default."""

    digest: Digest
    scope: str
    acceptances: tuple[Acceptance, ...]


@runtime_checkable  # so that what is decoded in its place, of a file that says it has one, is refused
class SignatureJudge(Protocol):
    """A policy, with all keys and roots that it names. Its methods neither wait nor ask anybody."""

    @property
    def fingerprint(self) -> str:
        """Of everything a verdict follows from but the image and the time: the policy, its keys, the roots.
        The same one means that what was accepted is accepted again."""
        ...

    def wants_signatures(self, image: ClaimedImage) -> bool:
        """Whether a verdict follows from signatures at all: not where the policy accepts or rejects
        everything."""
        ...

    def judge(self, image: ClaimedImage, signatures: Sequence[FoundSignature]) -> Verdict:
        """Accept an image, or raise SignatureRejected with one sentence: which image, and what is wrong with
        the signature that came closest. Called in a thread, see `judging`: one signature at a time should be
        taken, so that it ends early where nobody waits for the verdict any more."""
        ...

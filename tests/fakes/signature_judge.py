"""Judges without keys, which tell what they were asked: for the engine's tests one that accepts what is
signed by a word, for those of caches one that accepts what is signed by its name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from blobflow.errors import SignatureRejected
from blobflow.oci import Digest, digest_of, media
from blobflow.signatures.contract import Acceptance, ClaimedImage, FoundSignature, Verdict
from blobflow.signatures.finding import SIMPLE_SIGNING


class FakeJudge:
    """Accepts an image with a claim of cosign's (see `tests.scenarios.signed_images`) that is for its digest
    and has the right words. `asked`: every image that it judged. `open_to_all`: it wants no signatures."""

    def __init__(self, words: str = "", *, name: str = "fake", open_to_all: bool = False) -> None:
        self.words = words
        self.fingerprint = f"{name}: {words}"
        self.asked: list[ClaimedImage] = []
        self.open_to_all = open_to_all

    def wants_signatures(self, image: ClaimedImage) -> bool:
        return not self.open_to_all

    def judge(self, image: ClaimedImage, signatures: Sequence[FoundSignature]) -> Verdict:
        self.asked.append(image)
        if self.open_to_all:
            return Verdict(image.digest, "default", (Acceptance("insecureAcceptAnything"),))
        for each in signatures:
            claim = json.loads(each.content)
            right = claim["critical"]["image"]["docker-manifest-digest"] == image.digest
            if each.form == "simple" and right and claim["optional"] == self.words:
                met = Acceptance("sigstoreSigned", "a word", each.digest, each.manifest)
                return Verdict(image.digest, str(image.reference), (met,))
        raise SignatureRejected(f"{image.reference}: none of {len(signatures)} signatures is right")


class TrustingJudge:
    """Accepts what a payload names: by its digest and, where the image has a tag, by its whole name
    (matchRepoDigestOrExact). `everything`: no signature is wanted. `asked`: every image that it judged."""

    def __init__(self, fingerprint: str = "a policy", *, everything: bool = False) -> None:
        self._fingerprint = fingerprint
        self._everything = everything
        self.asked: list[ClaimedImage] = []

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def wants_signatures(self, image: ClaimedImage) -> bool:
        return not self._everything

    def judge(self, image: ClaimedImage, signatures: Sequence[FoundSignature]) -> Verdict:
        self.asked.append(image)
        if self._everything:
            return Verdict(image.digest, "default", (Acceptance("insecureAcceptAnything"),))
        for signature in signatures:
            critical = json.loads(signature.content)["critical"]
            name = critical["identity"]["docker-reference"]
            reference = image.reference
            repository = f"{reference.host}/{reference.repository}"
            is_named = (
                name == f"{repository}:{reference.tag}"
                if reference.tag
                else name.rpartition(":")[0] == repository
            )
            if critical["image"]["docker-manifest-digest"] == image.digest and is_named:
                found = Acceptance("sigstoreSigned", "a key", signature.digest, signature.manifest)
                return Verdict(image.digest, "default", (found,))
        raise SignatureRejected(f"{image.reference} has no signature that counts, of {len(signatures)}")


def payload(digest: Digest | str, name: str) -> bytes:
    """cosign's payload for an image, as it is signed."""
    identity = {"docker-reference": name}
    image = {"docker-manifest-digest": digest}
    return json.dumps({"critical": {"identity": identity, "image": image, "type": "cosign"}}).encode()


def cosign_manifest(signed: bytes, config: bytes = b"{}") -> bytes:
    """The manifest that cosign puts under an image's `.sig` tag."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": media.OCI_CONFIG, "digest": digest_of(config), "size": len(config)},
        "layers": [{"mediaType": SIMPLE_SIGNING, "digest": digest_of(signed), "size": len(signed)}],
    }
    return json.dumps(document).encode()

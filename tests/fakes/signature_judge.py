"""A judge for the engine's tests: it accepts what is signed by a word, and counts what it is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence

from blobflow.errors import SignatureRejected
from blobflow.signatures.contract import Acceptance, ClaimedImage, FoundSignature, Verdict


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

"""Proves that a signature meets a requirement, whatever its form."""

from __future__ import annotations

from datetime import datetime

from blobflow.signatures.bundle_proofs import prove_bundle
from blobflow.signatures.contract import ClaimedImage, FoundSignature
from blobflow.signatures.proofs import Step, refusing, without_warnings
from blobflow.signatures.signed_identity import SignedIdentity
from blobflow.signatures.simple_proofs import prove_simple
from blobflow.signatures.trust import Trust
from blobflow.signatures.trusted_root import TrustedRoot


class Prover:
    """One `sigstoreSigned` requirement, with whom it trusts."""

    def __init__(self, identity: SignedIdentity, trust: Trust, root: TrustedRoot | None) -> None:
        self._identity = identity
        self._trust = trust
        self._root = root

    def prove(self, found: FoundSignature, image: ClaimedImage, now: datetime) -> str:
        """By whom the signature is, in words. Raises NotProven unless it meets the requirement."""
        with without_warnings(), refusing(Step.READABLE, "it can't be read"):
            if found.form == "bundle":
                return prove_bundle(found.content, image, self._trust, self._identity, self._root, now)
            return prove_simple(found, image, self._trust, self._identity, self._root, now)

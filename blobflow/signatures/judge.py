"""The judge: a signature policy with all that it names, which says of an image whether it is accepted.

Everything is read when the judge is made; after that it asks nobody, waits for nothing, and keeps no state.
All requirements of an image's scope have to be met, each by one signature; of several that fail, the error
tells of the one that came closest.

What proves signatures is imported when a policy asks for signatures: `cryptography` then, and `sigstore` with
a trusted root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from blobflow.errors import InvalidConfig, SignatureRejected
from blobflow.file_errors import FileErrors
from blobflow.signatures.contract import Acceptance, ClaimedImage, FoundSignature, SignatureJudge, Verdict
from blobflow.signatures.policy_file import SignaturePolicy, read_policy
from blobflow.signatures.proofs import NotProven
from blobflow.signatures.requirements import (
    Accept,
    Reject,
    Requirement,
    SignedBaseLayer,
    SignedBy,
    SigstoreSigned,
    type_of,
)

if TYPE_CHECKING:
    from blobflow.signatures.proving import Prover

# Counted into each fingerprint. Another one makes all that was accepted before be judged anew: for the day on
# which something that was accepted is not any more.
_RULES = b"1"
# Signatures of one image that are judged: each costs arithmetic, and whoever may push may add some.
MAX_JUDGED = 64


def load_judge(
    policy: Path,
    *,
    trusted_root: Path | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SignatureJudge:
    """Read a signature policy and all keys and certificates that it names, and `trusted_root`: logs and
    timestamp authorities that count beside those of the policy (sigstore's trusted_root.json).

    Raises InvalidConfig if one of them can't be read or used, and if what verifies signatures is not
    installed."""
    read = read_policy(policy)
    fingerprint = hashlib.sha256(_counted(_RULES) + _counted(read.raw))
    required = [each for each in read.all_requirements() if isinstance(each, SigstoreSigned)]
    if not required and trusted_root is None:
        return _Judge(read, {}, fingerprint.hexdigest(), now)
    try:
        from blobflow.signatures.proving import Prover
        from blobflow.signatures.trust import TrustReader

        root = None
        if trusted_root is not None:
            from blobflow.signatures.sigstore_root import read_trusted_root

            root = read_trusted_root(trusted_root)
    except ImportError as error:
        raise InvalidConfig(
            f"the signature policy {policy} asks for signatures; "
            f'to verify them, pip install "blobflow[verify]" ({error.name} is missing or too old)'
        ) from None
    errors, reader = FileErrors(), TrustReader(str(policy))
    provers = {each: Prover(each.signed_identity, reader.read(each, errors), root) for each in required}
    errors.check()
    for content in (*reader.contents, root.raw if root is not None else b""):
        fingerprint.update(_counted(content))
    return _Judge(read, provers, fingerprint.hexdigest(), now)


def _counted(content: bytes) -> bytes:
    """Content with its length before it, so that two files can't share their bytes in another way."""
    return len(content).to_bytes(8, "big") + content


class _Judge:
    def __init__(
        self,
        policy: SignaturePolicy,
        provers: dict[SigstoreSigned, Prover],
        fingerprint: str,
        now: Callable[[], datetime],
    ) -> None:
        self._policy = policy
        self._provers = provers
        self._fingerprint = f"sha256:{fingerprint}"
        self._now = now

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def wants_signatures(self, image: ClaimedImage) -> bool:
        requirements = self._policy.requirements(image.transport, image.reference).requirements
        return all(isinstance(each, Accept | SigstoreSigned) for each in requirements) and any(
            isinstance(each, SigstoreSigned) for each in requirements
        )

    def judge(self, image: ClaimedImage, signatures: Sequence[FoundSignature]) -> Verdict:
        scoped = self._policy.requirements(image.transport, image.reference)
        acceptances = []
        for each in scoped.requirements:
            reason = _refusal(each)
            if not reason and isinstance(each, SigstoreSigned):
                outcome = self._signed(each, image, signatures)
                if isinstance(outcome, Acceptance):
                    acceptances.append(outcome)
                    continue
                reason = outcome
            if reason:
                policy = f"the signature policy (scope {scoped.scope})"
                raise SignatureRejected(f"{image.reference} is not accepted by {policy}: {reason}")
            acceptances.append(Acceptance(type_of(each)))
        return Verdict(image.digest, scoped.scope, tuple(acceptances))

    def _signed(
        self, required: SigstoreSigned, image: ClaimedImage, signatures: Sequence[FoundSignature]
    ) -> Acceptance | str:
        """How the requirement is met, or a clause about what is wrong."""
        prover, now = self._provers[required], self._now()
        failures: list[tuple[FoundSignature, NotProven]] = []
        for each in islice(signatures, MAX_JUDGED):  # one after the other: they may end in between
            try:
                signer = prover.prove(each, image, now)
            except NotProven as failure:
                failures.append((each, failure))
            else:
                return Acceptance(type_of(required), signer, each.digest, each.manifest)
        return _closest(failures, len(signatures))


def _refusal(required: Requirement) -> str:
    """Why a requirement can't be met by any image; "" if some can."""
    match required:
        case Reject():
            return "it rejects every image"
        case SignedBy():
            return (
                "signedBy asks for a GnuPG signature, which blobflow does not verify; sigstoreSigned it does"
            )
        case SignedBaseLayer():
            return "signedBaseLayer asks for what nobody verifies"
        case _:
            return ""


def _closest(failures: Iterable[tuple[FoundSignature, NotProven]], count: int) -> str:
    found = max(failures, key=lambda each: each[1].step, default=None)
    if found is None:
        return "no signature was found"
    signature, failure = found
    among = "its only signature"
    if count > 1:
        among = f"of {count} signatures, the one that came closest"
    if count > MAX_JUDGED:
        among = f"of the first {MAX_JUDGED} of {count} signatures, the one that came closest"
    return f"{among} ({signature.digest[:19]}…) does not count: {failure.reason}"

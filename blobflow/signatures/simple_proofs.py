"""Proves signatures of the simple signing form: by whom they are, what they sign, and under which name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from blobflow.errors import InvalidConfig
from blobflow.oci import Digest
from blobflow.signatures.certificates import der_of, read_chain, read_leaf
from blobflow.signatures.contract import ClaimedImage, FoundSignature
from blobflow.signatures.keys import Message, PublicKey
from blobflow.signatures.log_bodies import Signed, check_body
from blobflow.signatures.log_entries import LogKey, promised_time, read_promised_entry
from blobflow.signatures.names import check_name
from blobflow.signatures.proofs import NotProven, Step, refusing
from blobflow.signatures.signed_identity import SignedIdentity
from blobflow.signatures.simple_signing import (
    CERTIFICATE,
    CHAIN,
    LOG_ENTRY,
    MAX_PAYLOAD,
    TIMESTAMP,
    annotation,
    read_payload,
    signature_of,
)
from blobflow.signatures.strict_json import parse_strictly
from blobflow.signatures.trust import Trust
from blobflow.signatures.trusted_root import TrustedRoot

_WHEN_SIGNED = "it was signed at {:%Y-%m-%d %H:%M:%S} UTC"


def prove_simple(
    found: FoundSignature,
    image: ClaimedImage,
    trust: Trust,
    identity: SignedIdentity,
    root: TrustedRoot | None,
    now: datetime,
) -> str:
    """By whom the signature is, in words. Raises NotProven unless it proves that the image is signed as the
    requirement has it."""
    if len(found.content) > MAX_PAYLOAD:
        raise NotProven(Step.READABLE, f"its payload has more than {MAX_PAYLOAD // 1024} KiB")
    log_keys = (*trust.log_keys, *(root.log_keys if root is not None else ()))
    if trust.rule is None:
        signer = _by_key(found, trust, log_keys)
    else:
        signer = _by_certificate(found, trust, log_keys, root, now)
    signed = read_payload(found.content)
    check_digest(signed.digest, image)
    check_name(signed.name, image.reference, identity)
    return signer


def check_digest(signed: Digest, image: ClaimedImage) -> None:
    """Raise NotProven unless the digest is the image's."""
    if signed != image.digest:
        raise NotProven(Step.IMAGE, f"it is for {signed}, not for {image.digest}")


def _by_key(found: FoundSignature, trust: Trust, log_keys: Sequence[LogKey]) -> str:
    signature, message = signature_of(found.annotations), Message(found.content)
    key = next((each for each in trust.keys if each.signed(signature, message)), None)
    if key is None:
        raise NotProven(Step.SIGNER, f"it is not by {trust.signer}")
    if trust.log_keys:
        _logged(found, Signed(key.der, signature, message), log_keys)
    return key.name


def _by_certificate(
    found: FoundSignature,
    trust: Trust,
    log_keys: Sequence[LogKey],
    root: TrustedRoot | None,
    now: datetime,
) -> str:
    assert trust.rule is not None
    pem = annotation(found.annotations, CERTIFICATE, "certificate", Step.SIGNER)
    leaf = read_leaf(pem.encode())
    chain = read_chain(found.annotations[CHAIN].encode()) if found.annotations.get(CHAIN) else []
    signature, message = signature_of(found.annotations), Message(found.content)
    with refusing(Step.READABLE, "its certificate has a key that can't be used"):
        key = PublicKey(leaf.public_key(), "the key of its certificate")
    if not key.signed(signature, message):
        raise NotProven(Step.SIGNER, "it is not by the key of its certificate")
    signer = trust.rule.check_subject(leaf)
    if trust.has_log_time:
        at = _logged(found, Signed(der_of(leaf), signature, message), log_keys)
        why = _WHEN_SIGNED.format(at)
    else:
        stamped = _timestamped(found, signature, root)
        at = stamped or now
        why = _WHEN_SIGNED.format(at) if stamped else "no timestamp says that it was signed before"
    trust.rule.check_path(leaf, chain, at, why)
    return signer


def _timestamped(found: FoundSignature, signature: bytes, root: TrustedRoot | None) -> datetime | None:
    """When an authority of the trusted root says that it was signed, if one does."""
    if root is None or not found.annotations.get(TIMESTAMP):
        return None
    text = annotation(found.annotations, TIMESTAMP, "timestamp", Step.TIME)
    try:
        raw = parse_strictly(text.encode(), "its timestamp").fields(("SignedRFC3161Timestamp",))
        return root.timestamped([raw["SignedRFC3161Timestamp"].decoded()], signature)
    except InvalidConfig as error:
        raise NotProven(Step.TIME, error.message) from error


def _logged(found: FoundSignature, signed: Signed, log_keys: Sequence[LogKey]) -> datetime:
    text = annotation(found.annotations, LOG_ENTRY, "log entry", Step.LOGGED)
    entry = read_promised_entry(text)
    at = promised_time(entry, log_keys)
    check_body(entry.body, signed)
    return at

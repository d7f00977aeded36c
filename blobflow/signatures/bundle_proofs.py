"""Proves sigstore bundles: by whom they are, what they sign, and under which name.

A bundle signs an image if it signs the image's manifest (a message signature), or states what `cosign sign`
states of its digest (an attestation whose predicate is cosign's). Attestations of other kinds say something
about an image; that somebody scanned it is no consent to run it, so none of them counts.

With a certificate of a sigstore instance and a trusted root, `sigstore` verifies all of it: the way to the
root's authorities, their transparency log, time, log entry and signature. Without one, the policy's CA and
log keys do; then a log's promise has to say when it was signed.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.x509 import Certificate

from blobflow.oci.digest import algorithm_of, encoded_of
from blobflow.printable import one_line
from blobflow.signatures.bundles import (
    COSIGN_SIGN,
    IN_TOTO,
    Bundle,
    Envelope,
    message_of,
    read_bundle,
    read_statement,
)
from blobflow.signatures.certificates import CertificateRule, der_of, read_der
from blobflow.signatures.contract import ClaimedImage
from blobflow.signatures.keys import Message, PublicKey
from blobflow.signatures.log_bodies import Signed, check_body
from blobflow.signatures.log_entries import check_included, promised_time
from blobflow.signatures.names import check_bundle_name
from blobflow.signatures.proofs import NotProven, Step, refusing
from blobflow.signatures.signed_identity import SignedIdentity
from blobflow.signatures.trust import Trust
from blobflow.signatures.trusted_root import TrustedRoot

_NO_TIMESTAMP = "no timestamp says that it was signed before"


def prove_bundle(
    raw: bytes,
    image: ClaimedImage,
    trust: Trust,
    identity: SignedIdentity,
    root: TrustedRoot | None,
    now: datetime,
) -> str:
    """By whom the bundle is, in words. Raises NotProven unless it proves that the image is signed as the
    requirement has it."""
    bundle = read_bundle(raw)
    if bundle.envelope is None and bundle.message_digest not in (None, image.digest):
        raise NotProven(Step.IMAGE, f"it is for {bundle.message_digest}, not for {image.digest}")
    envelope = bundle.envelope
    if trust.rule is not None and trust.has_log_time and root is not None:
        signer, envelope = prove_instance(raw, bundle, image, trust.rule, root)
    else:
        signer = prove_signer(bundle, _manifest(image), trust, root, now)
    names = [] if envelope is None else _names(envelope, image)
    return check_bundle_name(names, image, identity, signer)


def prove_instance(
    raw: bytes, bundle: Bundle, image: ClaimedImage, rule: CertificateRule, root: TrustedRoot
) -> tuple[str, Envelope | None]:
    """By whom the bundle is, and the envelope that was verified, by a certificate of the root's instance that
    the policy's CA vouches for too."""
    if bundle.envelope is None:
        leaf, envelope = root.check_message(raw, image.digest, rule), None
    else:
        leaf, kind, payload = root.check_envelope(raw, rule)
        envelope = Envelope(payload, kind)
    signer = rule.check_subject(leaf)
    # The root's own CA vouched for it at the time of the signature, which was in these few minutes.
    chain = [*_others(bundle), *root.authorities]
    rule.check_path(leaf, chain, leaf.not_valid_before_utc, _NO_TIMESTAMP)
    return signer, envelope


def prove_signer(
    bundle: Bundle, manifest: Message, trust: Trust, root: TrustedRoot | None, now: datetime
) -> str:
    """By whom the bundle is, by a key or by a certificate that the policy itself vouches for."""
    message, payload = message_of(bundle, manifest)
    if trust.rule is not None:
        return _by_certificate(bundle, message, payload, trust, trust.rule, root, now)
    key = next((each for each in trust.keys if each.signed(bundle.signature, message)), None)
    if key is None:
        raise NotProven(Step.SIGNER, _not_by(trust, message))
    if trust.log_keys:
        _logged(bundle, Signed(key.der, bundle.signature, message, payload), trust, root)
    return key.name


def _by_certificate(
    bundle: Bundle,
    message: Message,
    payload: Message | None,
    trust: Trust,
    rule: CertificateRule,
    root: TrustedRoot | None,
    now: datetime,
) -> str:
    if not bundle.certificates:
        raise NotProven(Step.SIGNER, f"it is by a key, not by a certificate of {trust.signer}")
    leaf = read_der(bundle.certificates[0])
    with refusing(Step.READABLE, "its certificate has a key that can't be used"):
        key = PublicKey(leaf.public_key(), "the key of its certificate")
    if not key.signed(bundle.signature, message):
        raise NotProven(Step.SIGNER, "it is not by the key of its certificate")
    signer = rule.check_subject(leaf)
    if trust.has_log_time:
        at = _logged(bundle, Signed(der_of(leaf), bundle.signature, message, payload), trust, root)
        if at is None:
            raise NotProven(Step.TIME, "neither a log nor a timestamp says when it was signed")
    else:
        at = _timestamped(bundle, root)
    why = _NO_TIMESTAMP if at is None else f"it was signed at {at:%Y-%m-%d %H:%M:%S} UTC"
    chain = [*_others(bundle), *(root.authorities if root is not None else ())]
    rule.check_path(leaf, chain, at or now, why)
    return signer


def _timestamped(bundle: Bundle, root: TrustedRoot | None) -> datetime | None:
    return root.timestamped(bundle.timestamps, bundle.signature) if root is not None else None


def _logged(bundle: Bundle, signed: Signed, trust: Trust, root: TrustedRoot | None) -> datetime | None:
    """When it was signed, as the first log entry says that proves that a log has it; as a timestamp says if
    that has no time."""
    keys = (*trust.log_keys, *(root.log_keys if root is not None else ()))
    failure = NotProven(Step.LOGGED, "it has no log entry")
    for entry in bundle.entries:
        try:
            check_body(entry.body, signed)
            if not entry.promise:
                at = _timestamped(bundle, root)
                check_included(entry, keys, at)
                return at
            taken = promised_time(entry, keys)
            if entry.proof is not None and entry.proof.checkpoint:
                check_included(entry, keys, taken)
            return taken
        except NotProven as error:
            failure = error
    raise failure


def _names(envelope: Envelope, image: ClaimedImage) -> list[str]:
    """The names under which an attestation signs the image. Raises NotProven if it does not."""
    if envelope.payload_type != IN_TOTO:
        raise NotProven(Step.READABLE, "its envelope holds no attestation")
    statement = read_statement(envelope.payload)
    names = statement.names_of(image.digest)
    if names is None:
        subject = statement.subjects[0][0] if statement.subjects else "no image"
        raise NotProven(Step.IMAGE, f"it is for {subject}, not for {image.digest}")
    if statement.predicate_type != COSIGN_SIGN:
        shown = one_line(statement.predicate_type, 200)
        raise NotProven(Step.IMAGE, f"it attests something about the image ({shown}), and does not sign it")
    return names


def _manifest(image: ClaimedImage) -> Message:
    digest = bytes.fromhex(encoded_of(image.digest))
    return Message(image.manifest or None, {algorithm_of(image.digest): digest})


def _not_by(trust: Trust, message: Message) -> str:
    if message.content is None and any(not key.hash_algorithms for key in trust.keys):
        return f"it can't be told whether it is by {trust.signer}: Ed25519 needs the manifest itself"
    return f"it is not by {trust.signer}"


def _others(bundle: Bundle) -> list[Certificate]:
    return [read_der(each) for each in bundle.certificates[1:]]

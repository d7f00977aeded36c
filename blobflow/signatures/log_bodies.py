"""What a transparency log says that it holds: the body of an entry, which has to be about this very
signature.

Rekor's kinds hashedrekord and dsse, as its versions 1 (0.0.1) and 2 (0.0.2) write them, and intoto 0.0.2. An
intoto entry of 0.0.1 has no signature in it, so it can't be about one. An entry of other bytes would lend its
time to a signature of which no log knows (CVE-2022-36056).
"""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec

from blobflow.errors import InvalidConfig
from blobflow.printable import one_line
from blobflow.signatures.keys import Message
from blobflow.signatures.proofs import NotProven, Step
from blobflow.signatures.strict_json import Part, parse_strictly

# Bytes. An intoto entry of old has the whole attestation in it.
MAX_BODY = 4 * 1024 * 1024

# What the two versions call the hashes.
_ALGORITHMS = {
    "sha256": "sha256",
    "sha384": "sha384",
    "sha512": "sha512",
    "SHA2_256": "sha256",
    "SHA2_384": "sha384",
    "SHA2_512": "sha512",
}


class Signed(msgspec.Struct, frozen=True):
    """A signature, as an entry has to have it. `signer`: the DER of the key's SubjectPublicKeyInfo, or of the
    certificate. `message`: what is signed; `payload`: what stands in the envelope, if it is one."""

    signer: bytes
    signature: bytes
    message: Message
    payload: Message | None = None


def check_body(body: bytes, signed: Signed) -> None:
    """Raise NotProven unless the body of an entry is about this signature, over these bytes, by this
    signer."""
    if len(body) > MAX_BODY:
        raise NotProven(Step.READABLE, "its log entry is too large")
    try:
        members = parse_strictly(body, "its log entry").members()
        kind, version = (_member(members, word, "").text() for word in ("kind", "apiVersion"))
        check = _KINDS.get((kind, version))
        if check is None:
            shown = one_line(f"{kind} {version}", 60)
            raise NotProven(Step.LOGGED, f"its log entry is of a kind that blobflow does not read ({shown})")
        check(_member(members, "spec", ""), signed)
    except InvalidConfig as error:
        raise NotProven(Step.LOGGED, error.message) from error


def _hashedrekord_1(spec: Part, signed: Signed) -> None:
    _check_hash(_at(spec, "data", "hash"), signed.message)
    _check_signature(_at(spec, "signature", "content").decoded(), signed)
    _check_signer(_pem(_at(spec, "signature", "publicKey", "content").decoded()), signed)


def _hashedrekord_2(spec: Part, signed: Signed) -> None:
    entry = _at(spec, "hashedRekordV002")
    _check_digest(_at(entry, "data"), signed.message)
    _check_signature(_at(entry, "signature", "content").decoded(), signed)
    _check_signer(_verifier(_at(entry, "signature", "verifier")), signed)


def _dsse_1(spec: Part, signed: Signed) -> None:
    _check_hash(_at(spec, "payloadHash"), _payload(signed))
    each = _only(_at(spec, "signatures"))
    _check_signature(_at(each, "signature").decoded(), signed)
    _check_signer(_pem(_at(each, "verifier").decoded()), signed)


def _dsse_2(spec: Part, signed: Signed) -> None:
    entry = _at(spec, "dsseV002")
    _check_digest(_at(entry, "payloadHash"), _payload(signed))
    each = _only(_at(entry, "signatures"))
    _check_signature(_at(each, "content").decoded(), signed)
    _check_signer(_verifier(_at(each, "verifier")), signed)


def _intoto(spec: Part, signed: Signed) -> None:
    _check_hash(_at(spec, "content", "payloadHash"), _payload(signed))
    each = _only(_at(spec, "content", "envelope", "signatures"))
    # The log encodes what the envelope has encoded already.
    if _at(each, "sig").decoded() != base64.b64encode(signed.signature):
        raise _other("another signature")
    _check_signer(_pem(_at(each, "publicKey").decoded()), signed)


_KINDS: dict[tuple[str, str], Callable[[Part, Signed], None]] = {
    ("hashedrekord", "0.0.1"): _hashedrekord_1,
    ("hashedrekord", "0.0.2"): _hashedrekord_2,
    ("dsse", "0.0.1"): _dsse_1,
    ("dsse", "0.0.2"): _dsse_2,
    ("intoto", "0.0.2"): _intoto,
}


def _check_hash(part: Part, message: Message) -> None:
    algorithm = _ALGORITHMS.get(_at(part, "algorithm").text(), "")
    digest = message.hashed(algorithm) if algorithm else None
    if digest is None or digest.hex() != _at(part, "value").text():
        raise _other("other bytes")


def _check_digest(part: Part, message: Message) -> None:
    algorithm = _ALGORITHMS.get(_at(part, "algorithm").text(), "")
    digest = message.hashed(algorithm) if algorithm else None
    if digest is None or digest != _at(part, "digest").decoded():
        raise _other("other bytes")


def _check_signature(signature: bytes, signed: Signed) -> None:
    if signature != signed.signature:
        raise _other("another signature")


def _check_signer(signer: bytes, signed: Signed) -> None:
    if signer != signed.signer:
        raise _other("another key or certificate")


def _other(what: str) -> NotProven:
    return NotProven(Step.LOGGED, f"its log entry is for {what}")


def _payload(signed: Signed) -> Message:
    if signed.payload is None:
        raise NotProven(Step.LOGGED, "its log entry is of an attestation, and it is none")
    return signed.payload


def _verifier(part: Part) -> bytes:
    members = part.members()
    name = next((each for each in ("x509Certificate", "publicKey") if each in members), None)
    if name is None:
        raise NotProven(Step.LOGGED, "its log entry has neither a certificate nor a key")
    return _at(members[name], "rawBytes").decoded()


def _pem(raw: bytes) -> bytes:
    """What is in the only block of a PEM text, whatever it is called."""
    lines = raw.strip().splitlines()
    if len(lines) < 3 or not lines[0].startswith(b"-----BEGIN ") or not lines[-1].startswith(b"-----END "):
        raise NotProven(Step.LOGGED, "its log entry has a key that is not PEM")
    try:
        return base64.b64decode(b"".join(lines[1:-1]), validate=True)
    except ValueError as error:
        raise NotProven(Step.LOGGED, "its log entry has a key that is not PEM") from error


def _only(part: Part) -> Part:
    items = part.items()
    if len(items) != 1:
        part.refuse(f"has {len(items)} signatures, and should have one")
    return items[0]


def _at(part: Part, *steps: str) -> Part:
    for step in steps:
        part = _member(part.members(), step, part.place)
    return part


def _member(members: dict[str, Part], name: str, place: str) -> Part:
    if name not in members:
        raise NotProven(Step.LOGGED, f"its log entry lacks {f'{place}.' if place else ''}{name}")
    return members[name]

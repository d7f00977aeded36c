"""Public keys, and whether a signature is by one of them.

ECDSA over P-256, P-384 and P-521, Ed25519, and RSA (PKCS #1 v1.5) from 2048 bits on: what cosign, skopeo and
openssl make. Keys come in PEM (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7, or RSA's own form) or as its
DER.
"""

from __future__ import annotations

import hashlib
import re
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from blobflow.errors import InvalidConfig

MIN_RSA_BITS = 2048

_Key: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
# Each curve with the hash of its strength. cosign takes SHA-256 with any of them, so both count.
_CURVES: dict[type[ec.EllipticCurve], str] = {
    ec.SECP256R1: "sha256",
    ec.SECP384R1: "sha384",
    ec.SECP521R1: "sha512",
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----")


class Message:
    """What was signed: the bytes, or only their digest, with which Ed25519 can't be verified."""

    def __init__(self, content: bytes | None, digests: dict[str, bytes] | None = None) -> None:
        self.content = content
        self._digests = dict(digests or {})

    def hashed(self, algorithm: str) -> bytes | None:
        """Its digest by sha256, sha384 or sha512; None if neither bytes nor this digest are known."""
        if algorithm not in self._digests and self.content is not None:
            self._digests[algorithm] = hashlib.new(algorithm, self.content).digest()
        return self._digests.get(algorithm)


class PublicKey:
    """A public key. `name`: what it is called where people read of it."""

    def __init__(self, key: PublicKeyTypes, name: str) -> None:
        """Raises ValueError for a kind or a size that is not verified here."""
        self._key = _supported(key)
        self.name = name
        self.der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def is_ecdsa(self) -> bool:
        return isinstance(self._key, ec.EllipticCurvePublicKey)

    @property
    def is_ed25519(self) -> bool:
        return isinstance(self._key, ed25519.Ed25519PublicKey)

    @property
    def hash_algorithms(self) -> tuple[str, ...]:
        """Those with which it may sign, the usual one first; none if it signs the message itself."""
        if isinstance(self._key, ec.EllipticCurvePublicKey):
            return tuple(dict.fromkeys((_CURVES[type(self._key.curve)], "sha256")))
        return ("sha256",) if isinstance(self._key, rsa.RSAPublicKey) else ()

    def signed(self, signature: bytes, message: Message) -> bool:
        """Whether the signature is by this key, and over this message."""
        if isinstance(self._key, ed25519.Ed25519PublicKey):
            return message.content is not None and self._signed_itself(self._key, signature, message.content)
        return any(
            (digest := message.hashed(algorithm)) is not None
            and self._signed_hash(signature, digest, algorithm)
            for algorithm in self.hash_algorithms
        )

    def _signed_itself(self, key: ed25519.Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    def _signed_hash(self, signature: bytes, digest: bytes, algorithm: str) -> bool:
        prehashed = Prehashed(_HASHES[algorithm])
        try:
            if isinstance(self._key, rsa.RSAPublicKey):
                self._key.verify(signature, digest, padding.PKCS1v15(), prehashed)
            elif isinstance(self._key, ec.EllipticCurvePublicKey):
                self._key.verify(signature, digest, ec.ECDSA(prehashed))
            else:
                return False
        except InvalidSignature:
            return False
        return True


def read_public_key(raw: bytes, name: str) -> PublicKey:
    """Read a key from a policy. Raises InvalidConfig with `name` and what is there instead."""
    blocks = [word.decode() for word in _BLOCK.findall(raw)]
    if len(blocks) > 1:
        raise InvalidConfig(
            f"{name} holds {len(blocks)} keys or certificates, and should hold one public key"
        )
    if blocks and blocks[0] not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        raise InvalidConfig(f"{name} is no public key but a {blocks[0].lower()}")
    try:
        return PublicKey(load_pem_public_key(raw) if blocks else load_der_public_key(raw), name)
    except UnsupportedAlgorithm:
        reason = "it is of a kind that blobflow does not verify"
    except (ValueError, TypeError) as error:
        reason = str(error) if isinstance(error, _UnsupportedKey) else "it is no PEM and no DER of one"
    raise InvalidConfig(f"{name} can't be used as a public key: {reason}")


class _UnsupportedKey(ValueError):
    pass


def _supported(key: PublicKeyTypes) -> _Key:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if type(key.curve) not in _CURVES:
            raise _UnsupportedKey(f"its curve is {key.curve.name}; P-256, P-384 and P-521 are verified")
        return key
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise _UnsupportedKey(f"it is RSA with {key.key_size} bits, and has to have {MIN_RSA_BITS}")
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise _UnsupportedKey(
        "it is of a kind that blobflow does not verify; ECDSA, Ed25519 and RSA are verified"
    )

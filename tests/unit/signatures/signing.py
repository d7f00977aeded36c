"""Signs images in tests, in the documented formats: with keys, with certificates of a CA, and into a log.

Keys are made once: RSA ones take a while. Nothing of blobflow is used to sign.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blobflow.oci import Digest
from blobflow.oci.digest import digest_of
from blobflow.signatures.contract import FoundSignature

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ISSUER = "https://login.example.com"
SIGN = "https://sigstore.dev/cosign/sign/v1"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


@functools.cache
def private_key(kind: str = "p256", number: int = 0) -> PrivateKey:
    """A key; the same one for the same kind and number."""
    del number
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
        case "p521":
            return ec.generate_private_key(ec.SECP521R1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, 2048)


def pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: PrivateKey, content: bytes) -> bytes:
    """With SHA-256, as cosign does whatever the key; Ed25519 has its own way."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(content, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(content)


def payload(digest: str, name: str, **critical: Any) -> bytes:
    """cosign's simple signing payload."""
    return json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": name},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
                **critical,
            },
            "optional": None,
        }
    ).encode()


def simple(key: PrivateKey, content: bytes, signature: bytes = b"", **annotations: str) -> FoundSignature:
    """A payload as a layer of cosign's tag. Names of annotations stand for dev.sigstore.cosign/NAME."""
    found = {"dev.cosignproject.cosign/signature": text(signature or sign(key, content))}
    found |= {f"dev.sigstore.cosign/{name}": value for name, value in annotations.items()}
    return FoundSignature("simple", digest_of(content), content, digest_of(b"{}"), "cosign", found)


def bundle(raw: Mapping[str, Any]) -> FoundSignature:
    content = json.dumps(raw).encode()
    return FoundSignature("bundle", digest_of(content), content, digest_of(b"{}"), "api")


def message_bundle(
    key: PrivateKey, content: bytes, signature: bytes = b"", **material: Any
) -> dict[str, Any]:
    """A bundle that signs bytes: what `cosign sign-blob` makes."""
    return {
        "mediaType": BUNDLE,
        "verificationMaterial": material or {"publicKey": {"hint": "none"}},
        "messageSignature": {
            "messageDigest": {"algorithm": "SHA2_256", "digest": text(hashlib.sha256(content).digest())},
            "signature": text(signature or sign(key, content)),
        },
    }


def statement(digest: Digest, name: str | None = None, predicate_type: str = SIGN) -> bytes:
    """What cosign 3 states of an image: its digest, and no name."""
    subject: dict[str, Any] = {"digest": {"sha256": digest.removeprefix("sha256:")}}
    if name is not None:
        subject["name"] = name
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject],
            "predicateType": predicate_type,
            "predicate": {},
        }
    ).encode()


def encoded(content: bytes, kind: str = "application/vnd.in-toto+json") -> bytes:
    """DSSE's pre-authentication encoding: what an envelope's signature is over."""
    return f"DSSEv1 {len(kind)} {kind} {len(content)} ".encode() + content


def attestation_bundle(
    key: PrivateKey, content: bytes, signature: bytes = b"", **material: Any
) -> dict[str, Any]:
    """A bundle with a statement in a DSSE envelope: what `cosign sign` makes from its version 3 on."""
    return {
        "mediaType": BUNDLE,
        "verificationMaterial": material or {"publicKey": {"hint": "none"}},
        "dsseEnvelope": {
            "payload": text(content),
            "payloadType": "application/vnd.in-toto+json",
            "signatures": [{"sig": text(signature or sign(key, encoded(content)))}],
        },
    }


class Authority:
    """A CA of one root and one intermediate. `private_key` makes their keys, and that of each signer."""

    def __init__(self, number: int = 0, *, usage: bool | None = True) -> None:
        """`usage`: whether the intermediate may issue certificates; None: neither it nor the root says so."""
        self._root_key = private_key("p256", 100 + number)
        self._key = private_key("p256", 200 + number)
        root_usage = None if usage is None else True
        self.root = _certificate("root", "root", self._root_key, self._root_key, ca=1, usage=root_usage)
        self.intermediate = _certificate("between", "root", self._key, self._root_key, ca=0, usage=usage)

    def issue(
        self,
        key: PrivateKey,
        *names: x509.GeneralName,
        issuer: str = "",
        first: datetime = NOW - timedelta(minutes=5),
        last: datetime = NOW + timedelta(minutes=5),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        subject: str = "",
        critical: bool = True,
    ) -> x509.Certificate:
        """A certificate to sign code with, for these names; with an OIDC issuer as Fulcio has it. `critical`:
        whether the names are."""
        extra: list[x509.ExtensionType] = [x509.ExtendedKeyUsage([usage]), x509.SubjectAlternativeName(names)]
        if issuer:
            der = bytes([0x0C, len(issuer)]) + issuer.encode()
            oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
            extra.append(x509.UnrecognizedExtension(oid, der))
        return _certificate(
            subject, "between", key, self._key, first=first, last=last, extra=extra, critical=critical
        )


def _certificate(
    subject: str,
    issuer: str,
    key: PrivateKey,
    signer: PrivateKey,
    *,
    ca: int | None = None,
    usage: bool | None = True,
    first: datetime = NOW - timedelta(days=365),
    last: datetime = NOW + timedelta(days=365),
    extra: Sequence[x509.ExtensionType] = (),
    critical: bool = True,
) -> x509.Certificate:
    is_ca = ca is not None
    number = 1 + len(subject)
    builder = x509.CertificateBuilder(_name(issuer), _name(subject), key.public_key(), number, first, last)
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=ca), critical=True)
    if usage is not None:
        builder = builder.add_extension(_usage(is_ca and usage, not is_ca), critical=True)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(authority, critical=False)
    if is_ca:
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    for each in extra:
        is_name = isinstance(each, x509.SubjectAlternativeName)
        builder = builder.add_extension(each, critical=is_name and critical)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return builder.sign(signer, hashes.SHA256())


def _usage(may_issue: bool, may_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=may_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=may_issue,
        crl_sign=may_issue,
        encipher_only=False,
        decipher_only=False,
    )


def _name(word: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, word)] if word else [])


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def der(certificate: x509.Certificate) -> str:
    return text(certificate.public_bytes(serialization.Encoding.DER))


class Log:
    """A transparency log, which promises what it is given."""

    def __init__(self, number: int = 0) -> None:
        self.key = private_key("p256", 300 + number)

    def promise(self, body: Mapping[str, Any], time: datetime = NOW) -> dict[str, Any]:
        """An entry and the promise for it, as cosign writes it into an annotation."""
        entry = {
            "body": text(json.dumps(body).encode()),
            "integratedTime": int(time.timestamp()),
            "logID": "00" * 32,
            "logIndex": 7,
        }
        canonical = json.dumps(entry, separators=(",", ":"), sort_keys=True).encode()
        return {"SignedEntryTimestamp": text(sign(self.key, canonical)), "Payload": entry}

    def annotation(self, body: Mapping[str, Any], time: datetime = NOW) -> str:
        return json.dumps(self.promise(body, time))

    def entries(self, body: Mapping[str, Any], time: datetime = NOW) -> dict[str, Any]:
        """The same for a bundle, to be given as its `tlogEntries`."""
        promised = self.promise(body, time)
        entry = promised["Payload"]
        return {
            "logIndex": str(entry["logIndex"]),
            "logId": {"keyId": text(bytes(32))},
            "integratedTime": str(entry["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": promised["SignedEntryTimestamp"]},
            "canonicalizedBody": entry["body"],
        }


def hashedrekord(content: bytes, signature: bytes, signer: bytes) -> dict[str, Any]:
    """The body of a log entry about a signature. `signer`: the PEM of a key or certificate."""
    return {
        "apiVersion": "0.0.1",
        "kind": "hashedrekord",
        "spec": {
            "data": {"hash": {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}},
            "signature": {"content": text(signature), "publicKey": {"content": text(signer)}},
        },
    }


def dsse_entry(content: bytes, signature: bytes, signer: bytes) -> dict[str, Any]:
    """The same about an envelope with this payload."""
    return {
        "apiVersion": "0.0.1",
        "kind": "dsse",
        "spec": {
            "envelopeHash": {"algorithm": "sha256", "value": "00" * 32},
            "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()},
            "signatures": [{"signature": text(signature), "verifier": text(signer)}],
        },
    }


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()

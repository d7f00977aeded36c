"""Sigstore bundles, versions 0.1 to 0.3: a signature with what proves it, in one file. Pure.

sigstore/protobuf-specs, `sigstore_bundle.proto`, as protobuf writes JSON: bytes are base64, and long numbers
are text. What is read here is not verified.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from blobflow.errors import InvalidConfig, InvalidDigest
from blobflow.oci import Digest
from blobflow.oci.digest import parse_digest
from blobflow.printable import one_line
from blobflow.signatures.keys import Message
from blobflow.signatures.log_entries import InclusionProof, LogEntry
from blobflow.signatures.proofs import NotProven, Step
from blobflow.signatures.strict_json import parse_strictly

# Bytes. A bundle has 10 kB, one with a bill of materials in it some hundred thousand.
MAX_BUNDLE = 4 * 1024 * 1024
# Of each of what a bundle repeats: log entries, timestamps, certificates, subjects of a statement.
MAX_REPEATED = 32
MAX_SUBJECTS = 1024

MEDIA_TYPES = (
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
)
IN_TOTO = "application/vnd.in-toto+json"
# What `cosign sign` states of an image. Other predicates say something about an image, and sign nothing: that
# it was scanned, or how it was built.
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"

_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_UNNAMED = ("", "_")  # in-toto's v1/resource_descriptor.md: "_" stands for no name

_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Wire(msgspec.Struct, frozen=True, rename="camel"):
    pass


class _Raw(_Wire, frozen=True):
    raw_bytes: bytes


class _Chain(_Wire, frozen=True):
    certificates: Annotated[tuple[_Raw, ...], Meta(max_length=MAX_REPEATED)] = ()


class _PublicKey(_Wire, frozen=True):
    hint: str = ""


class _LogId(_Wire, frozen=True):
    key_id: bytes = b""


class _Promise(_Wire, frozen=True):
    signed_entry_timestamp: bytes = b""


class _Checkpoint(_Wire, frozen=True):
    envelope: str = ""


class _Proof(_Wire, frozen=True):
    root_hash: bytes
    tree_size: _Number
    log_index: _Number = 0
    hashes: Annotated[tuple[bytes, ...], Meta(max_length=64)] = ()
    checkpoint: _Checkpoint | None = None


class _Entry(_Wire, frozen=True):
    canonicalized_body: bytes
    log_index: _Number = 0
    log_id: _LogId = _LogId()
    integrated_time: _Number = 0
    inclusion_promise: _Promise | None = None
    inclusion_proof: _Proof | None = None


class _Timestamp(_Wire, frozen=True):
    signed_timestamp: bytes


class _Timestamps(_Wire, frozen=True):
    rfc3161_timestamps: Annotated[tuple[_Timestamp, ...], Meta(max_length=MAX_REPEATED)] = ()


class _Material(_Wire, frozen=True):
    certificate: _Raw | None = None
    x509_certificate_chain: _Chain | None = None
    public_key: _PublicKey | None = None
    tlog_entries: Annotated[tuple[_Entry, ...], Meta(max_length=MAX_REPEATED)] = ()
    timestamp_verification_data: _Timestamps | None = None


class _MessageDigest(_Wire, frozen=True):
    algorithm: str
    digest: bytes


class _MessageSignature(_Wire, frozen=True):
    signature: bytes
    message_digest: _MessageDigest | None = None


class _EnvelopeSignature(_Wire, frozen=True):
    sig: bytes


class _Envelope(_Wire, frozen=True):
    payload: bytes
    payload_type: str
    signatures: Annotated[tuple[_EnvelopeSignature, ...], Meta(max_length=MAX_REPEATED)]


class _Bundle(_Wire, frozen=True):
    media_type: str
    verification_material: _Material
    message_signature: _MessageSignature | None = None
    dsse_envelope: _Envelope | None = None


class Envelope(msgspec.Struct, frozen=True):
    """A DSSE envelope: what it carries, which is an attestation if its type says so."""

    payload: bytes
    payload_type: str

    @property
    def signed(self) -> bytes:
        """What the signature is over: DSSE's pre-authentication encoding."""
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


class Bundle(msgspec.Struct, frozen=True):
    """A bundle. `certificates`: DER, the signer's first; none if a key signed. `envelope`: None if the
    message itself is signed, of which `message_digest` then may tell the digest. `timestamps`: RFC 3161's
    responses."""

    signature: bytes
    certificates: tuple[bytes, ...]
    entries: tuple[LogEntry, ...]
    timestamps: tuple[bytes, ...]
    envelope: Envelope | None
    message_digest: Digest | None


class Statement(msgspec.Struct, frozen=True):
    """What an attestation says, and of which digests; each with its name, "" if it has none."""

    predicate_type: str
    subjects: tuple[tuple[Digest, str], ...]

    def names_of(self, digest: Digest) -> list[str] | None:
        """The names under which it is about a digest; None if it is not about it at all."""
        names = [name for each, name in self.subjects if each == digest]
        return [name for name in names if name] if names else None


def read_bundle(raw: bytes) -> Bundle:
    """Read a bundle. Raises NotProven."""
    if len(raw) > MAX_BUNDLE:
        raise NotProven(Step.READABLE, f"it has more than {MAX_BUNDLE // 1024**2} MiB")
    try:
        found = _decoded(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotProven(Step.READABLE, f"it is no bundle that can be read: {one_line(str(error))}") from error
    if found.media_type not in MEDIA_TYPES:
        raise NotProven(Step.READABLE, "it is a bundle of a version that blobflow does not read")
    message, wrapped = found.message_signature, found.dsse_envelope
    if (message is None) == (wrapped is None):
        raise NotProven(Step.READABLE, "it is a bundle with no signature, or with two")
    material = found.verification_material
    times = material.timestamp_verification_data
    return Bundle(
        signature=message.signature if message is not None else _only_signature(wrapped),
        certificates=_certificates(material),
        entries=tuple(map(_entry, material.tlog_entries)),
        timestamps=tuple(each.signed_timestamp for each in times.rfc3161_timestamps) if times else (),
        envelope=Envelope(wrapped.payload, wrapped.payload_type) if wrapped is not None else None,
        message_digest=_message_digest(message.message_digest) if message is not None else None,
    )


def _decoded(raw: bytes) -> _Bundle:
    """Raises msgspec's errors."""
    try:
        # strict=False: protobuf writes long numbers as text.
        return msgspec.json.decode(raw, type=_Bundle, strict=False)
    except msgspec.ValidationError:
        without = _without_nulls(
            msgspec.json.decode(raw)
        )  # null is what protobuf takes for a field's default
        return msgspec.convert(without, _Bundle, strict=False)


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def read_statement(payload: bytes) -> Statement:
    """Read an in-toto statement whose envelope was verified. Raises NotProven. A subject whose digests are of
    other kinds than an image's is left out."""
    try:
        members = parse_strictly(payload, "its statement").members()
        lacking = [each for each in ("_type", "subject", "predicateType") if each not in members]
        if lacking:
            raise NotProven(Step.READABLE, f"its statement lacks {lacking[0]}")
        if members["_type"].text() not in _STATEMENTS:
            raise NotProven(Step.READABLE, "its statement is of a version that blobflow does not read")
        subjects: list[tuple[Digest, str]] = []
        for each in members["subject"].items()[:MAX_SUBJECTS]:
            fields = each.members()
            named = fields.get("name")
            name = "" if named is None or named.is_null() else named.text()
            digests = fields["digest"].members() if "digest" in fields else {}
            for algorithm, value in digests.items():
                try:
                    digest = parse_digest(f"{algorithm}:{value.text()}")
                except InvalidDigest:
                    continue
                subjects.append((digest, "" if name in _UNNAMED else name))
        return Statement(members["predicateType"].text(), tuple(subjects))
    except InvalidConfig as error:
        raise NotProven(Step.READABLE, error.message) from error


def message_of(bundle: Bundle, manifest: Message) -> tuple[Message, Message | None]:
    """What the signature of a bundle is over, and what stands in its envelope if it has one."""
    if bundle.envelope is None:
        return manifest, None
    return Message(bundle.envelope.signed), Message(bundle.envelope.payload)


def _only_signature(envelope: _Envelope | None) -> bytes:
    if envelope is None or len(envelope.signatures) != 1:
        raise NotProven(Step.READABLE, "its envelope should have exactly one signature")
    return envelope.signatures[0].sig


def _certificates(material: _Material) -> tuple[bytes, ...]:
    if material.certificate is not None:
        return (material.certificate.raw_bytes,)
    if material.x509_certificate_chain is None:
        return ()
    found = tuple(each.raw_bytes for each in material.x509_certificate_chain.certificates)
    if not found:
        raise NotProven(Step.READABLE, "its certificate chain is empty")
    return found


def _entry(entry: _Entry) -> LogEntry:
    proof = entry.inclusion_proof
    promise = entry.inclusion_promise
    return LogEntry(
        body=entry.canonicalized_body,
        log_id=entry.log_id.key_id,
        index=entry.log_index,
        time=entry.integrated_time,
        promise=promise.signed_entry_timestamp if promise is not None else b"",
        proof=None
        if proof is None
        else InclusionProof(
            proof.log_index,
            proof.tree_size,
            proof.root_hash,
            proof.hashes,
            proof.checkpoint.envelope if proof.checkpoint is not None else "",
        ),
    )


def _message_digest(digest: _MessageDigest | None) -> Digest | None:
    if digest is None or digest.algorithm not in ("SHA2_256", "SHA2_512"):
        return None
    try:
        return parse_digest(f"sha{digest.algorithm[-3:]}:{digest.digest.hex()}")
    except InvalidDigest as error:
        raise NotProven(Step.READABLE, error.message) from error

"""Entries of a transparency log: what a log promises, or proves, and with which key.

A promise (signed entry timestamp) is the log's signature over the entry's body, number and time. A proof is
the way from the body to the root of the log's tree (RFC 9162, section 2.1.3), and a checkpoint, in which the
log signed that root. Only a promise has a time.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from blobflow.errors import InvalidConfig
from blobflow.signatures.keys import Message, PublicKey
from blobflow.signatures.proofs import NotProven, Step
from blobflow.signatures.strict_json import parse_strictly

# Hashes of a proof: a tree of 2^63 entries has no longer way to its root.
MAX_PROOF = 64
# Characters of a checkpoint, and signatures in it: a log and its witnesses.
MAX_CHECKPOINT = 64 * 1024
MAX_CHECKPOINT_SIGNATURES = 64

_DASH = "\u2014 "


class LogKey(msgspec.Struct, frozen=True):
    """A key of a log, and from when until when it counts; None: always."""

    key: PublicKey
    first: datetime | None = None
    last: datetime | None = None

    def counted_at(self, moment: datetime | None) -> bool:
        """Whether it counts at a moment; at one that nobody knows if it has no bounds, or no last one."""
        if moment is None:
            return self.last is None
        return (self.first is None or self.first <= moment) and (self.last is None or moment <= self.last)


class InclusionProof(msgspec.Struct, frozen=True):
    index: int
    size: int
    root: bytes
    hashes: tuple[bytes, ...]
    checkpoint: str


class LogEntry(msgspec.Struct, frozen=True):
    """An entry, of which nothing is verified. `promise`: empty if there is none. `time`: seconds since
    1970."""

    body: bytes
    log_id: bytes
    index: int
    time: int = 0
    promise: bytes = b""
    proof: InclusionProof | None = None


def read_promised_entry(raw: str) -> LogEntry:
    """Read the log entry that cosign writes into an annotation. Raises NotProven."""
    try:
        fields = parse_strictly(raw.encode(), "its log entry").fields(("SignedEntryTimestamp", "Payload"))
        payload = fields["Payload"].fields(("body", "integratedTime", "logIndex", "logID"))
        return LogEntry(
            body=payload["body"].decoded(),
            log_id=bytes.fromhex(payload["logID"].text()),
            index=payload["logIndex"].whole_number(),
            time=payload["integratedTime"].whole_number(),
            promise=fields["SignedEntryTimestamp"].decoded(),
        )
    except InvalidConfig as error:
        raise NotProven(Step.LOGGED, error.message) from error
    except ValueError as error:
        raise NotProven(Step.LOGGED, "its log entry can't be read") from error


def promised_time(entry: LogEntry, keys: Sequence[LogKey]) -> datetime:
    """The time at which one of the logs promises to have taken the entry. Raises NotProven if none does."""
    if not entry.promise:
        raise NotProven(Step.LOGGED, "its log entry has no promise of a log")
    try:
        at = datetime.fromtimestamp(entry.time, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise NotProven(Step.LOGGED, "its log entry has a time that is none") from error
    message = Message(_promised(entry))
    if not any(each.counted_at(at) and each.key.signed(entry.promise, message) for each in keys):
        raise NotProven(Step.LOGGED, "its log entry is not promised by a log of the policy")
    return at


def check_included(entry: LogEntry, keys: Sequence[LogKey], at: datetime | None) -> None:
    """Raise NotProven unless the entry is in a tree whose root one of the logs has signed. `at`: when it was
    signed, if that is known."""
    proof = entry.proof
    if proof is None or not proof.checkpoint:
        raise NotProven(Step.LOGGED, "its log entry has neither a promise nor a proof of a log")
    if _root(entry.body, proof) != proof.root:
        raise NotProven(Step.LOGGED, "the proof of its log entry does not lead to the root of the log")
    _check_checkpoint(proof, [each.key for each in keys if each.counted_at(at)])


def _promised(entry: LogEntry) -> bytes:
    """What a promise signs: canonical JSON (RFC 8785), of which all names and texts are ASCII here."""
    fields = {
        "body": base64.b64encode(entry.body).decode(),
        "integratedTime": entry.time,
        "logID": entry.log_id.hex(),
        "logIndex": entry.index,
    }
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()


def _root(body: bytes, proof: InclusionProof) -> bytes:
    """RFC 9162, section 2.1.3.2."""
    if not 0 <= proof.index < proof.size or len(proof.hashes) > MAX_PROOF:
        raise NotProven(Step.LOGGED, "the proof of its log entry is none")
    number, last = proof.index, proof.size - 1
    found = hashlib.sha256(b"\x00" + body).digest()
    for each in proof.hashes:
        if last == 0:
            raise NotProven(Step.LOGGED, "the proof of its log entry is too long")
        if number & 1 or number == last:
            found = hashlib.sha256(b"\x01" + each + found).digest()
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + each).digest()
        number, last = number >> 1, last >> 1
    if last != 0:
        raise NotProven(Step.LOGGED, "the proof of its log entry is too short")
    return found


def _check_checkpoint(proof: InclusionProof, keys: Sequence[PublicKey]) -> None:
    """c2sp.org/tlog-checkpoint: origin, size and root in a line each; then, after an empty line,
    signatures."""
    if len(proof.checkpoint) > MAX_CHECKPOINT:
        raise NotProven(Step.LOGGED, "the checkpoint of its log entry is too large")
    text, blank, signatures = proof.checkpoint.partition("\n\n")
    lines = text.split("\n")
    if not blank or len(lines) < 3 or not lines[0]:
        raise NotProven(Step.LOGGED, "the checkpoint of its log entry is none")
    if lines[1] != str(proof.size) or lines[2] != base64.b64encode(proof.root).decode():
        raise NotProven(Step.LOGGED, "the checkpoint of its log entry is of another tree")
    message = Message(f"{text}\n".encode())
    for line in signatures.splitlines()[:MAX_CHECKPOINT_SIGNATURES]:
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not name:
            continue
        try:
            signature = base64.b64decode(encoded, validate=True)[4:]  # after the hint of the key
        except ValueError:
            continue
        if any(key.signed(signature, message) for key in keys):
            return
    raise NotProven(Step.LOGGED, "the checkpoint of its log entry is not signed by a log of the policy")

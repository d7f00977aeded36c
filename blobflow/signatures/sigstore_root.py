"""A trusted root from a file, read and applied by `sigstore`, without a network and without TUF: who gave the
file renews it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import Certificate
from pydantic import ValidationError
from rfc3161_client import VerificationError, VerifierBuilder, decode_timestamp_response
from sigstore.hashes import Hashed
from sigstore.models import Bundle
from sigstore.models import TrustedRoot as RootModel
from sigstore.verify import Verifier
from sigstore_models.common.v1 import HashAlgorithm
from sigstore_models.common.v1 import PublicKey as LogFileKey
from sigstore_models.trustroot.v1 import TrustedRoot as RootFile

from blobflow.bounded_file import read_named
from blobflow.errors import InvalidConfig
from blobflow.oci import Digest
from blobflow.oci.digest import algorithm_of, encoded_of
from blobflow.printable import one_line
from blobflow.signatures.certificates import CertificateRule
from blobflow.signatures.keys import PublicKey
from blobflow.signatures.log_entries import LogKey
from blobflow.signatures.proofs import NotProven, Step, refusing, without_warnings
from blobflow.signatures.trust import MAX_FILE

# Bytes of a timestamp: a few thousand, with its certificates.
MAX_TIMESTAMP = 64 * 1024

# It warns of keys and bundles on its own; what matters of it is in the verdict.
logging.getLogger("sigstore").addHandler(logging.NullHandler())
logging.getLogger("sigstore").propagate = False


class SigstoreRoot:
    """A `TrustedRoot` as `sigstore` applies it."""

    def __init__(self, raw: bytes, name: str) -> None:
        """`raw`: the file. Raises InvalidConfig, with `name`, if it is none."""
        self.raw = raw
        try:
            model = RootFile.from_json(_with_defaults(raw))
            with without_warnings():
                self._root = RootModel(model)
                self._timestamp_authorities = self._root.get_timestamp_authorities()
            self.authorities = tuple(self._root.get_fulcio_certs()) if model.certificate_authorities else ()
            self.log_keys = tuple(found for each in model.tlogs if (found := _log_key(each.public_key)))
        except Exception as error:
            raise InvalidConfig(f"{name} can't be used: {one_line(_reason(error))}") from error
        self._verifier: Verifier | None = None

    def timestamped(self, timestamps: Sequence[bytes], signature: bytes) -> datetime | None:
        """See `TrustedRoot.timestamped`."""
        found = []
        for each in timestamps:
            if len(each) > MAX_TIMESTAMP:
                raise NotProven(Step.TIME, "its timestamp is too large")
            if (at := self._timestamped(each, signature)) is not None:
                found.append(at)
        return min(found, default=None)

    def check_message(self, raw: bytes, digest: Digest, rule: CertificateRule) -> Certificate:
        """See `TrustedRoot.check_message`."""
        if algorithm_of(digest) != "sha256":
            raise NotProven(Step.READABLE, "it is over a digest that is not sha256")
        hashed = Hashed(algorithm=HashAlgorithm.SHA2_256, digest=bytes.fromhex(encoded_of(digest)))
        with refusing(Step.LOGGED, "the trusted root does not vouch for it"):
            bundle = Bundle.from_json(raw)
            self._sigstore().verify_artifact(hashed, bundle, _Subject(rule))
            return bundle.signing_certificate

    def check_envelope(self, raw: bytes, rule: CertificateRule) -> tuple[Certificate, str, bytes]:
        """See `TrustedRoot.check_envelope`."""
        with refusing(Step.LOGGED, "the trusted root does not vouch for it"):
            bundle = Bundle.from_json(raw)
            kind, payload = self._sigstore().verify_dsse(bundle, _Subject(rule))
            return bundle.signing_certificate, kind, payload

    def _sigstore(self) -> Verifier:
        if self._verifier is None:
            self._verifier = Verifier(trusted_root=self._root)
        return self._verifier

    def _timestamped(self, raw: bytes, signature: bytes) -> datetime | None:
        with refusing(Step.TIME, "its timestamp can't be read"):
            response = decode_timestamp_response(raw)
            at = response.tst_info.gen_time
            for authority in self._timestamp_authorities:
                first, last = authority.validity_period_start, authority.validity_period_end
                chain = authority.certificates(allow_expired=True)
                if len(chain) < 2 or at < first or (last is not None and at > last):
                    continue
                verifier = VerifierBuilder(
                    tsa_certificate=chain[0], intermediates=chain[1:-1], roots=chain[-1:]
                ).build()
                try:
                    verifier.verify_message(response, signature)
                except VerificationError:
                    continue
                return at
        return None


def _log_key(key: LogFileKey) -> LogKey | None:
    """The key of a log; None if it is of a kind that is not verified here, as `sigstore` leaves it out."""
    if not key.raw_bytes or not key.valid_for:
        return None
    try:
        public = PublicKey(load_der_public_key(key.raw_bytes), "a log of the trusted root")
    except (ValueError, UnsupportedAlgorithm):
        return None
    return LogKey(public, key.valid_for.start, key.valid_for.end)


def _reason(error: Exception) -> str:
    """Why a file is no trusted root; of several reasons the first."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"it is not JSON: {error}"
    return str(error) or type(error).__name__


def _with_defaults(raw: bytes) -> bytes:
    """The root with what protobuf leaves out of JSON because it is empty, and sigstore's model wants to
    see."""
    root = json.loads(raw)
    if not isinstance(root, dict):
        raise ValueError("it is no object")
    for name in ("tlogs", "ctlogs", "certificateAuthorities", "timestampAuthorities"):
        root.setdefault(name, [])
    for each in (*root["certificateAuthorities"], *root["timestampAuthorities"]):
        each["subject"] = {"organization": "", "commonName": "", **(each.get("subject") or {})}
    return json.dumps(root).encode()


class _Subject:
    """A rule for certificates, as sigstore asks for one."""

    def __init__(self, rule: CertificateRule) -> None:
        self._rule = rule

    def verify(self, cert: Certificate) -> None:
        self._rule.check_subject(cert)


def read_trusted_root(path: Path) -> SigstoreRoot:
    """Read a trusted root. Raises InvalidConfig."""
    return SigstoreRoot(read_named(path, "trusted root", MAX_FILE), f"the trusted root {path}")

"""Whom a `sigstoreSigned` requirement trusts, with its keys and certificates read."""

from __future__ import annotations

from pathlib import Path

import msgspec
from cryptography.x509 import Certificate

from blobflow.bounded_file import read_named
from blobflow.errors import InvalidConfig
from blobflow.file_errors import FileErrors
from blobflow.signatures.certificates import CertificateRule, read_certificates
from blobflow.signatures.keys import PublicKey, read_public_key
from blobflow.signatures.log_entries import LogKey
from blobflow.signatures.requirements import SigstoreSigned

# Bytes of a file of keys or certificates. All CAs of the web have less than 1 MiB.
MAX_FILE = 4 * 1024 * 1024


class Trust(msgspec.Struct, frozen=True):
    """Whose signatures meet a requirement: those by one of `keys`, or by whom `rule` describes. `log_keys`:
    of logs, one of which has to hold the signature; none if no log is asked for. `has_log_time`: a
    certificate has to be valid when the log took the signature, as Fulcio's are; else now."""

    keys: tuple[PublicKey, ...] = ()
    rule: CertificateRule | None = None
    log_keys: tuple[LogKey, ...] = ()
    has_log_time: bool = False

    @property
    def signer(self) -> str:
        """Who has to have signed, in words."""
        if self.rule is not None:
            return self.rule.words
        return " or ".join(key.name for key in self.keys)


class TrustReader:
    """Reads what the requirements of a policy name, each file once.

    `contents`: what was read, in the order of the requirements, of which a fingerprint is made.
    """

    def __init__(self, policy: str) -> None:
        self.contents: list[bytes] = []
        self._policy = policy
        self._files: dict[str, bytes] = {}

    def read(self, required: SigstoreSigned, errors: FileErrors) -> Trust:
        """Whom the requirement trusts. What can't be read is added to the errors, and left out."""
        where = f"{self._policy}: {required.place}"
        keys: list[PublicKey] = []
        log_keys: list[LogKey] = []
        rule: CertificateRule | None = None
        for path in required.key_paths:
            with errors.at(where):
                keys.append(read_public_key(self._file(path), f"the key {path}"))
        for number, raw in enumerate(required.key_datas, 1):
            with errors.at(where):
                keys.append(read_public_key(self._inline(raw), _numbered("key", number, required.key_datas)))
        for path in required.rekor_public_key_paths:
            with errors.at(where):
                log_keys.append(_log_key(self._file(path), f"the key {path}"))
        for number, raw in enumerate(required.rekor_public_key_datas, 1):
            with errors.at(where):
                name = _numbered("log key", number, required.rekor_public_key_datas)
                log_keys.append(_log_key(self._inline(raw), name))
        with errors.at(where):
            rule = self._rule(required)
        return Trust(tuple(keys), rule, tuple(log_keys), has_log_time=required.fulcio is not None)

    def _rule(self, required: SigstoreSigned) -> CertificateRule | None:
        if (fulcio := required.fulcio) is not None:
            roots = self._certificates(fulcio.ca_path, fulcio.ca_data, "caData")
            return CertificateRule(roots, issuer=fulcio.oidc_issuer, email=fulcio.subject_email)
        if (pki := required.pki) is not None:
            roots = self._certificates(pki.ca_roots_path, pki.ca_roots_data, "caRootsData")
            path, raw = pki.ca_intermediates_path, pki.ca_intermediates_data
            between = self._certificates(path, raw, "caIntermediatesData") if path or raw is not None else ()
            return CertificateRule(roots, between, email=pki.subject_email, hostname=pki.subject_hostname)
        return None

    def _certificates(self, path: str, raw: bytes | None, field: str) -> tuple[Certificate, ...]:
        if path:
            return read_certificates(self._file(path), path)
        return read_certificates(self._inline(raw or b""), field)

    def _inline(self, raw: bytes) -> bytes:
        self.contents.append(raw)
        return raw

    def _file(self, path: str) -> bytes:
        if path not in self._files:
            self._files[path] = read_named(Path(path), "file", MAX_FILE)
        return self._inline(self._files[path])


def _numbered(what: str, number: int, all_of_them: tuple[bytes, ...]) -> str:
    """What a key that stands in the policy itself is called."""
    return f"the {what} of the policy" if len(all_of_them) == 1 else f"{what} {number} of the policy"


def _log_key(raw: bytes, name: str) -> LogKey:
    """Raises InvalidConfig for a kind of key that no log has, as containers/image does."""
    key = read_public_key(raw, name)
    if key.is_ecdsa or key.is_ed25519:
        return LogKey(key)
    raise InvalidConfig(f"{name} is no key of a log: those are ECDSA or Ed25519")

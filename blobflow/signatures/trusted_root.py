"""A trusted root: certificate authorities, logs and timestamp authorities of a sigstore instance.

Its logs and timestamp authorities count beside those of a policy. Who may sign stays the policy's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from cryptography.x509 import Certificate

from blobflow.oci import Digest
from blobflow.signatures.certificates import CertificateRule
from blobflow.signatures.log_entries import LogKey


class TrustedRoot(Protocol):
    """What a trusted root says of signatures. It asks nobody."""

    @property
    def log_keys(self) -> Sequence[LogKey]:
        """The keys of its logs, each with the time in which it counts."""
        ...

    @property
    def authorities(self) -> Sequence[Certificate]:
        """Certificates of its CAs, which may stand between a certificate and the CA of a policy."""
        ...

    def timestamped(self, timestamps: Sequence[bytes], signature: bytes) -> datetime | None:
        """The earliest time at which an authority of the root says that the signature was there; None if none
        does. Raises NotProven if one of the timestamps can't be read."""
        ...

    def check_message(self, raw: bytes, digest: Digest, rule: CertificateRule) -> Certificate:
        """The certificate with which the bundle signs the content of this digest; raises NotProven unless the
        root vouches for all of it."""
        ...

    def check_envelope(self, raw: bytes, rule: CertificateRule) -> tuple[Certificate, str, bytes]:
        """The certificate with which the bundle signs an envelope, and the type and payload of that. Raises
        as `check_message`."""
        ...

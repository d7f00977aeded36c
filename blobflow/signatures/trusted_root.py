from __future__ import annotations

from pathlib import Path

from blobflow.signatures.trust import read_bounded


class TrustedRoot:
    def __init__(self, raw: bytes) -> None:
        self.raw = raw


def read_trusted_root(path: Path) -> TrustedRoot:
    return TrustedRoot(read_bounded(path, "trusted root"))

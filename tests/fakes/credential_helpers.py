"""docker's credential helpers without the programs."""

from __future__ import annotations

import base64

from blobflow.transports.registry.auth.credential_helpers import ProcessResult


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Helpers:
    """A runner of helpers over a table; remembers what it was asked."""

    def __init__(self, status: int = 0, out: bytes = b"") -> None:
        self.answer = ProcessResult(status, out)
        self.asked: list[tuple[str, str, bytes]] = []

    async def __call__(self, program: str, verb: str, given: bytes) -> ProcessResult:
        self.asked.append((program, verb, given))
        return self.answer

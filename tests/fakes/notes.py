"""What a registry transport notes of hosts from run to run, kept in memory."""

from __future__ import annotations

from blobflow.content import NullJournal


class Notes(NullJournal):
    """A journal that keeps its notes."""

    def __init__(self) -> None:
        self.notes: dict[tuple[str, str], str] = {}

    def note(self, origin: str, key: str) -> str | None:
        return self.notes.get((origin, key))

    def record_note(self, origin: str, key: str, value: str) -> None:
        self.notes[origin, key] = value

"""The platforms of images that earlier runs put: an image that is still there is not read again, and its
report has them all the same."""

from __future__ import annotations

import msgspec

from blobflow.content import Journal
from blobflow.engine.pairs import Pair
from blobflow.oci import Digest, Platform
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice

# Characters that are remembered of one image: names of platforms are chosen by whoever made it.
_MAX_NOTE = 16 * 1024
_names = msgspec.json.Decoder(tuple[str, ...])


def note_platforms(journal: Journal, pair: Pair, put: Digest, platforms: tuple[str, ...]) -> None:
    """Remember the platforms of the root that was `put` for a pair, if any are known, once a registry."""
    if not platforms:
        return
    key, note = _key(pair.choice, put), msgspec.json.encode(platforms).decode()
    if len(note) <= _MAX_NOTE and journal.note(pair.target.host, key) != note:
        journal.record_note(pair.target.host, key, note)


def noted_platforms(journal: Journal, pair: Pair, there: Digest) -> tuple[str, ...]:
    """The platforms of the root that is `there`, as they were remembered; () if they were not.

    Where all of it was put, those of them that are chosen now.
    """
    if (found := _noted(journal, pair, _key(pair.choice, there))) or pair.choice == EVERYTHING:
        return found
    return tuple(
        name
        for name in _noted(journal, pair, _key(EVERYTHING, there))
        if pair.choice.match(_platform_of(name)) == "chosen"
    )


def _platform_of(name: str) -> Platform:
    """The platform that was written as this name."""
    words, _, version = name.partition(" (")
    os, architecture, variant = (*words.split("/", 2), "", "")[:3]
    return Platform(architecture, os, variant, version.removesuffix(")"))


def _noted(journal: Journal, pair: Pair, key: str) -> tuple[str, ...]:
    note = journal.note(pair.target.host, key)
    try:
        return _names.decode(note) if note else ()
    except (msgspec.DecodeError, ValueError):
        return ()


def _key(choice: PlatformChoice, root: Digest) -> str:
    return f"platforms of {root}: {choice.key}"

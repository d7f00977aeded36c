"""What tells a lock file (`blobflow images --lock`) from other files. Pure."""

from __future__ import annotations

import re

LOOKED_AT = 4096  # characters
# What it begins with, whoever formatted it: comments and empty lines may stand before it.
_BEGINNING = re.compile(r'(?:[ \t]*(?:#[^\n]*)?\r?\n|---[ \t]*\r?\n)*(?:\{\s*"lock"|"?lock"?)\s*:\s*\d')


def is_lock(text: str) -> bool:
    """Whether a file is a lock file, or meant to be, by its beginning."""
    return _BEGINNING.match(text[:LOOKED_AT]) is not None

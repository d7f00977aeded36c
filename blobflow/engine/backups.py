"""Backups: the tag that an image at the target keeps when its own tag is about to name another. Pure.

A template has words in braces: {tag}, the tag that is overwritten; {digest}, the first 12 hexadecimal digits
of what it names; {date} and {time} of the plan in UTC, as 20261128 and 235959.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from typing import Final

from blobflow.errors import UsageError
from blobflow.oci import Digest

# Each word, and what a value of it looks like; a tag's is known.
_PATTERNS: Final = {"tag": "", "digest": "[0-9a-f]{12}", "date": "[0-9]{8}", "time": "[0-9]{6}"}
WORDS: Final = tuple(_PATTERNS)
_WORD = re.compile(r"\{([a-z]+)\}")


def backup_tag(template: str, words: Mapping[str, str]) -> str:
    """The tag that a template makes of these words."""
    return _WORD.sub(lambda word: words[word[1]], template)


def check_template(template: str) -> None:
    """Raise UsageError for a template with words that stand for nothing."""
    for word in _WORD.findall(template):
        if word not in WORDS:
            raise UsageError(f"{{{word}}} in the backup {template[:100]!r} stands for nothing")


def backup_words(tag: str, digest: Digest, now: float) -> dict[str, str]:
    """The words for a tag and what it names; `now` in seconds since the epoch."""
    at = time.gmtime(now)
    return {
        "tag": tag,
        "digest": digest.partition(":")[2][:12],
        "date": time.strftime("%Y%m%d", at),
        "time": time.strftime("%H%M%S", at),
    }


def is_backup(name: str, template: str, tag: str) -> bool:
    """Whether a tag can be a backup that the template made of `tag`, now or earlier."""
    return re.fullmatch(_pattern(template, tag), name) is not None


def backups_among(names: Iterable[str], made: Iterable[tuple[str, str]]) -> set[str]:
    """The names that can be backups of any of these, each a template and the tag that it was made of."""
    pattern = "|".join(f"(?:{_pattern(template, tag)})" for template, tag in sorted(made))
    return set(filter(re.compile(pattern).fullmatch, names)) if pattern else set()


def _pattern(template: str, tag: str) -> str:
    """What the template can make of `tag`, now or earlier."""
    patterns = {**_PATTERNS, "tag": re.escape(tag)}
    parts = _WORD.split(template)
    return "".join(patterns[part] if at % 2 else re.escape(part) for at, part in enumerate(parts))

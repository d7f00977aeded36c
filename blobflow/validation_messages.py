"""Translates msgspec's validation errors into words for users. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

# What is wrong, and a path as `$.images[1].tags[0]` unless it is the root.
_COMPLAINT = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)


def split_message(complaint: str) -> tuple[str, str]:
    """What is wrong, and where: a path as `.images[1].tags[0]`, "" for the root."""
    found = _COMPLAINT.match(complaint)
    return (found["problem"], found["path"] or "") if found else (complaint, "")


def reworded(problem: str, words: Mapping[str, str]) -> str:
    """A problem with their words replaced by ours, as it goes on after a colon: whole words, since names of
    keys may have them inside."""
    for theirs, ours in words.items():
        before, after = (r"\b" if end.isalpha() else "" for end in (theirs[0], theirs[-1]))
        problem = ours.join(re.split(f"{before}{re.escape(theirs)}{after}", problem))
    return f"{problem[:1].lower()}{problem[1:]}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """What may have been meant by a word that is not known."""
    known = list(known)
    close = closest(word, known)
    return f"did you mean `{close}`?" if close else f"known are {', '.join(known)}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of the known words that may have been meant."""
    close = get_close_matches(word, list(known), n=1)
    return close[0] if close else None

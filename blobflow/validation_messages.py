"""Translates msgspec's validation errors into words for users. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

# What is wrong, and a path as `$.images[1].tags[0]` unless it is the root.
_COMPLAINT = re.compile(r"(?P<problem>.*?)(?: - at `\$(?P<path>.*)`)?\Z", re.DOTALL)


# How alike a word and what was meant have to be, from 0 to 1: two letters that changed places in a word of
# three are, two words with some letters in common are not.
_LIKENESS = 0.65


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


def suggestion(word: str, known: Iterable[str], below: Mapping[str, Iterable[str]] | None = None) -> str:
    """What may have been meant by a word that is not known; `below`: what is known under keys, not here."""
    known = list(known)
    if close := closest(word, known):
        return f"did you mean `{close}`?"
    for key, words in (below or {}).items():
        if close := closest(word, words):
            return f"did you mean `{close}` under `{key}`?"
    return f"known are {', '.join(known)}"


def closest(word: str, known: Iterable[str]) -> str | None:
    """The one of the known words that may have been meant."""
    close = get_close_matches(word, list(known), n=1, cutoff=_LIKENESS)
    return close[0] if close else None

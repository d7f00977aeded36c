"""Makes untrusted text safe to print. Pure.

Platforms, annotations, media types, tags of other registries' catalogs, error messages, user agents, paths
and names in archives are chosen by others. On a terminal, in a log or on a page such text can do what it
likes: clear the screen, set the clipboard, swap the order of what is read, end a line and forge the next one,
or hide. So whatever leaves for people passes through `printable`; what leaves for programs is JSON in ASCII,
which keeps every character.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from blobflow.lazy_pattern import LazyPattern

# Characters of a text that are shown unless somebody says otherwise: a line of a log or of an error, with
# several digests and URLs in it.
LONGEST = 4096
# Characters that Unicode counts as printable and that show as nothing, or as a blank: fillers, joiners and
# variation selectors (Default_Ignorable_Code_Point), in which text can hide. Those that choose between the
# two looks of an emoji (U+FE0E, U+FE0F) are left alone.
_HIDDEN = LazyPattern(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]"
)
# Of words that are quoted in a message, so many characters are.
MAX_QUOTE = 300
_GAPS = LazyPattern("\n+")


def printable(text: str, most: int = LONGEST) -> str:
    """`text` on one line, in at most `most` characters (then it ends in `…`), none of which acts or hides.

    What is not to be passed on becomes its escape, as `\\x1b` or `\\u202e`: control characters (C0, DEL, C1),
    marks that change the direction of writing, ends of lines and paragraphs, characters without a width and
    all else of the category "format", blanks that are not U+0020, halves of surrogate pairs, and what is for
    private use or assigned to nothing. Letters of all scripts, symbols and emoji stay as they are.
    """
    if len(text) <= most and is_printable(text):
        return text
    shown = text[:most]
    if not is_printable(shown):
        shown = "".join(map(_shown, shown))
    return shown if len(shown) <= most and len(text) <= most else f"{shown[: max(most - 1, 0)]}…"


def is_printable(text: str) -> bool:
    """Whether `printable` would show each character of the text as it is."""
    return text.isprintable() and (text.isascii() or _HIDDEN.search(text) is None)


def one_line(text: str, limit: int = MAX_QUOTE) -> str:
    """Words of somebody else inside a message of ours: one line, at most `limit` characters.

    Control characters, marks that reorder or hide text and halves of characters become a blank.
    """
    shown = text[: 4 * limit]
    if not is_printable(shown):
        shown = _GAPS.sub(" ", "".join(char if is_printable(char) else "\n" for char in shown))
    flat = shown.strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _shown(char: str) -> str:
    return char if is_printable(char) else char.encode("unicode_escape", "backslashreplace").decode()


def encodable(value: Any) -> Any:
    """A value of JSON's types, in which halves of surrogate pairs are written as `printable` shows them: the
    name of a file need not be UTF-8, and JSON in UTF-8 has to be."""
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case dict():
            return {encodable(key): encodable(each) for key, each in value.items()}
        case list() | tuple():
            return [encodable(each) for each in value]
    return value


def first_of(words: Sequence[str], most: int) -> str:
    """The first few of the words, and how many more there are."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more

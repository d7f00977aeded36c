"""The configuration file as text: a host's profile is put into it, and all that others wrote stays. Pure.

Comments and the order of things are the user's, so nothing is parsed and written anew: the lines of the one
table are replaced. Whether that was all is checked by reading both texts as TOML.
"""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from blobflow.errors import InvalidReference, UsageError
from blobflow.oci.reference import check_host
from blobflow.toml_lines import parse_toml

# What `probe` says beside a profile's fields; such lines are its own, and others' comments are not.
_FACT = re.compile(r"# [^:]+: (yes|no)\s*\Z")
_PROFILE_LINE = re.compile(r"""\s*(profile|"profile"|'profile')\s*[.=]""")


def with_profile(text: str, name: str, host: str, body: str) -> str:
    """The file's text with `body`, lines of TOML, as the profile of `host`, in place of what it said of that.

    `name` is what the file is called in errors. Raises InvalidConfig for what is no TOML; UsageError where
    the profile that is there can't be told from its surroundings.
    """
    before = parse_toml(text, name, "a configuration")
    key = _key_of(before, host)
    path = ("registry", key, "profile")
    section = [f"[registry.{json.dumps(key)}.profile]", *body.splitlines()]
    ending = "\r\n" if "\r\n" in text else "\n"
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        del lines[-1]
    after = _without_profile(lines, path)
    if after is None:
        changed = [*lines, *([""] if lines else []), *section]
    else:
        at, lines = after
        changed = [*lines[:at], *section, *lines[at:]]
    result = ending.join(changed) + ending
    expected = copy.deepcopy(before)
    expected.setdefault("registry", {}).setdefault(key, {})["profile"] = tomllib.loads(body)
    try:
        same = tomllib.loads(result) == expected
    except ValueError:
        same = False
    if not same:
        raise UsageError(
            f"{name} says something of {host} in a way that can't be replaced by itself; take its `profile`"
            f' out, or write it as a table [registry."{host}".profile]'
        )
    return result


def _key_of(document: dict[str, Any], host: str) -> str:
    """How the file calls a host: as it does already, in whatever spelling, or by its name."""
    tables = document.get("registry", {})
    for key in tables if isinstance(tables, dict) else ():
        try:
            if check_host(key) == host:
                return str(key)
        except InvalidReference:
            continue
    return host


def _without_profile(lines: Sequence[str], path: tuple[str, ...]) -> tuple[int, list[str]] | None:
    """The lines without those of the table at `path`, and where they were; None if it has none.

    A profile that is a value (`profile = "ecr"`) leaves its host's table, after which the new one may stand.
    """
    heads = [(at, head) for at, line in enumerate(lines) if (head := _head_of(line)) is not None]
    ends = [at for at, _ in heads[1:]] + [len(lines)] if heads else []
    for (at, head), end in zip(heads, ends, strict=True):
        if head == path:
            return at, [*lines[:at], *lines[_own_end(lines, at, end) :]]
    for (at, head), end in zip(heads, ends, strict=True):
        if head == path[:-1]:
            kept = [line for line in lines[at:end] if not _PROFILE_LINE.match(line)]
            if len(kept) < end - at:
                own = _own_end(kept, 0, len(kept))
                return at + own + 1, [*lines[:at], *kept[:own], "", *kept[own:], *lines[end:]]
    return None


def _own_end(lines: Sequence[str], at: int, end: int) -> int:
    """Where a table's own lines end: comments and empty lines behind them belong to what follows."""
    while end > at + 1 and (not lines[end - 1].strip() or _is_comment(lines[end - 1])):
        end -= 1
    return end


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#") and not _FACT.match(line)


def _head_of(line: str) -> tuple[str, ...] | None:
    """The path of a table's head, as `[registry."r.example"]`; None for any other line."""
    if not line.lstrip().startswith("["):
        return None
    try:
        inner: Any = tomllib.loads(line)
    except ValueError:
        return None  # an item of a list over several lines
    path: list[str] = []
    while isinstance(inner, dict) and len(inner) == 1:
        word, inner = next(iter(inner.items()))
        path.append(word)
    return tuple(path)

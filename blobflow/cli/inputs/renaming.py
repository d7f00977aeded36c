"""The names of images at their targets, where those differ from the source's. Pure.

A repository or a tag is made by a template, as `mirror/{name}` or `{tag}-debian`, or by a regular expression
that, where it matches from end to end, is replaced: `library/(.*)` by `base/\\1`. In templates stand

    {host}  the source's host    {path}  the repository    {name}  its last component    {tag}  the tag

A host's port stands behind a `_`, since no name has a colon.
"""

from __future__ import annotations

import re

import msgspec

from blobflow.errors import UsageError
from blobflow.oci.reference import host_in_name

_WORD = re.compile(r"\{([^{}]*)\}")
_WORDS = ("host", "path", "name", "tag")


class RenameRule(msgspec.Struct, frozen=True):
    """How one name becomes another: by `template`, or by `match` and `replace`; unchanged without either."""

    template: str = ""
    match: str = ""
    replace: str = ""


class RenameRules(msgspec.Struct, frozen=True):
    """The rules for the repository (below the target's prefix) and for the tag."""

    repository: RenameRule = RenameRule()
    tag: RenameRule = RenameRule()


KEEP_NAMES = RenameRules()


def check_rename_rule(rule: RenameRule) -> RenameRule:
    """Return the rule if it can be applied. Raises UsageError."""
    for word in _WORD.findall(rule.template):
        if word not in _WORDS:
            known = ", ".join(f"{{{each}}}" for each in _WORDS)
            raise UsageError(f"{{{word}}} in {rule.template[:100]!r} stands for nothing; known are {known}")
    if rule.match:
        from blobflow.oci.tag_selection.regex import compile_pattern

        compile_pattern(rule.match).check_template(rule.replace)
    return rule


def apply_rename(rule: RenameRule, name: str, *, host: str, path: str, tag: str) -> str:
    """The new name: `name` is the repository or tag that the rule is for, the rest fills templates."""
    if rule.template:
        facts = {"host": host_in_name(host), "path": path, "name": path.rpartition("/")[2], "tag": tag}
        return _WORD.sub(lambda word: facts[word[1]], rule.template)
    if not rule.match:
        return name
    from blobflow.oci.tag_selection.regex import compile_pattern

    new = compile_pattern(rule.match).replaced(name, rule.replace)
    return name if new is None else new

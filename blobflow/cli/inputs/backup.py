"""The tag under which an image is kept before its own tag names another: templates of `backup`. Pure.

    {{tag}}-old      {tag}-{date}      {{.Ref.Tag}}-{{digest}}

Words stand in one brace or two; regsync's `.Ref.Tag` is the tag. An image stays in its repository, so a
backup has no host and no repository of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from blobflow.engine.backups import WORDS, backup_tag
from blobflow.engine.pairs import Pair
from blobflow.errors import InvalidReference, UsageError
from blobflow.oci.reference import check_tag

if TYPE_CHECKING:
    from blobflow.cli.inputs.requests import MirrorRequest

_WORD = re.compile(r"\{\{-?\s*([^{}]*?)\s*-?\}\}|\{([^{}]*)\}")
_SAMPLE = {"tag": "1.0", "digest": "0" * 12, "date": "20260101", "time": "000000"}
_REGSYNC = {".Ref.Tag": "tag", ".Ref.Digest": "digest"}


def parse_backup(text: str) -> str:
    """The template with each word in one brace; "" for none. Raises UsageError for one that makes no tag."""
    if not text:
        return ""

    def word(found: re.Match[str]) -> str:
        said = found[1] if found[1] is not None else found[2]
        name = _REGSYNC.get(said, said)
        if name not in WORDS:
            known = ", ".join(f"{{{{{each}}}}}" for each in WORDS)
            raise UsageError(
                f"backup: {found[0][:60]} in {text[:100]!r} stands for nothing; known are {known}"
            )
        return f"{{{name}}}"

    template = _WORD.sub(word, text)
    if ":" in template or "/" in template:
        raise UsageError(
            f"backup: {text[:100]!r} is a place; the image is kept in its own repository, so write a tag"
            " alone, as '{{tag}}-old'"
        )
    try:
        check_tag(backup_tag(template, _SAMPLE))
    except InvalidReference as error:
        raise UsageError(f"backup: {error.message}") from None
    if template == "{tag}":
        raise UsageError("backup: {{tag}} is the tag that is written; add something to it, as '{{tag}}-old'")
    return template


def with_backup(request: MirrorRequest, text: str | None) -> MirrorRequest:
    """The request with the `--backup` of the command line for images without one of their own. Raises as
    `parse_backup`."""
    if not text:
        return request
    template = parse_backup(text)
    images = tuple(
        each if each.backup else msgspec.structs.replace(each, backup=template) for each in request.images
    )
    return msgspec.structs.replace(request, images=images)


def pairs_with_backup(pairs: Iterable[Pair], text: str | None) -> list[Pair]:
    """The pairs with the `--backup` of the command line. Raises as `parse_backup`."""
    template = parse_backup(text or "")
    return [msgspec.structs.replace(pair, backup=template if pair.target.tag else "") for pair in pairs]

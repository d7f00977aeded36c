"""A hook of mkdocs: links that leave docs/, which a forge follows, become names of files on the site."""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: object) -> str:
    """The page's text as the site has it."""
    folder = posixpath.dirname(page.file.src_uri)

    def named(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[2].partition("#")[0]))
        if not path.startswith("../"):
            return link[0]
        file = path.removeprefix("../")
        return f"`{file}`" if link[1] == file else f"{link[1]} (`{file}`)"

    return _LINK.sub(named, markdown)

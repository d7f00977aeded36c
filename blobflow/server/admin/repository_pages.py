"""Which repositories stand on a page: those that a viewer may pull and that a filter leaves, in their order.

Work is bounded: so many names are looked at for a page, however many there are; where they do not suffice,
the page says from where to go on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

import msgspec

from blobflow.transports.store.state.database import State
from blobflow.transports.store.stats import repositories_after

# Names of repositories that are looked at for one page, and that are read at once.
MAX_NAMES = 20_000
_AT_ONCE = 1000

MayPull = Callable[[str], bool]


class RepositoryPage(msgspec.Struct, frozen=True):
    """`names` on the page; `before` so many that come on earlier pages (None: not counted). `total` of all
    that were found, `at_least` if there are more names than were looked at.

    `following`: where the next page begins, "" on the last; `previous`: where the one before begins, None on
    the first.
    """

    names: tuple[str, ...] = ()
    before: int | None = 0
    total: int = 0
    at_least: bool = False
    following: str = ""
    previous: str | None = None


def find_page(
    state: State,
    size: int,
    *,
    last: str = "",
    find: str = "",
    may_pull: MayPull | None = None,
    check_stopped: Callable[[], None],
) -> RepositoryPage:
    """The page of `size` repositories after `last`, of those whose names have `find` in them, in any letters.

    `may_pull`: which a viewer may see; None: all. `check_stopped` is called now and then, and may raise.
    """
    names, end = _names_after(state, "", find, may_pull, check_stopped)
    at = bisect_right(names, last) if last else 0
    if end is not None and last >= end:  # further on than the names that are looked at from the start
        names, end = _names_after(state, last, find, may_pull, check_stopped)
        page = tuple(names[:size])
        following = page[-1] if len(names) > size else end or ""
        return RepositoryPage(page, None, len(names), True, following, "")
    page = tuple(names[at : at + size])
    following = page[-1] if len(names) > at + size else end or ""
    previous = None if at == 0 else names[at - size - 1] if at > size else ""
    return RepositoryPage(page, at, len(names), end is not None, following, previous)


def _names_after(
    state: State, last: str, find: str, may_pull: MayPull | None, check_stopped: Callable[[], None]
) -> tuple[list[str], str | None]:
    """The names that are wanted, and the last one that was looked at; None if that was the last of all."""
    found: list[str] = []
    wanted = find.casefold()
    for _ in range(MAX_NAMES // _AT_ONCE):
        check_stopped()
        names = repositories_after(state, _AT_ONCE, last)
        found += (
            name for name in names if wanted in name.casefold() and (may_pull is None or may_pull(name))
        )
        if len(names) < _AT_ONCE:
            return found, None
        last = names[-1]
    return found, last

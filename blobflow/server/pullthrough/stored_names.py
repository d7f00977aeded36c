"""The names under which the store has the repositories that are pulled through. Pure.

What a signature policy accepted of a repository is a repository of its own in the store: its name ends with
`#` and what tells the policy from all others. So whatever has such a name was accepted, by this very policy,
and stays so when the process starts anew. What came in under another policy, or under none, is not found, and
is judged before it is given out; its blobs are in the same store, and not fetched again.

No client can ask for such a name, as no name of a repository has a `#` in it. It sorts before all that names
have, so that lists stay in order when the end is taken off.
"""

from __future__ import annotations

from blobflow.oci import digest_of
from blobflow.server.pullthrough.upstreams import Upstreams
from blobflow.server.routes import Route

_MARK = "#"
# Hexadecimal digits that tell policies apart: 128 bits.
_DIGITS = 32


def public_name(stored: str) -> str:
    """The name that clients know a repository of the store by."""
    return stored.partition(_MARK)[0]


def is_policys(stored: str) -> bool:
    """Whether the store has a repository for what some policy accepted of one."""
    return _MARK in stored


def after_all_of(last: str) -> str:
    """What sorts after all names in the store of the repository `last`, and before those of the next one."""
    return f"{last}{_MARK}~" if last else ""


class StoredNames:
    """The names under one policy. `fingerprint`: see `SignatureJudge.fingerprint`; "": there is no policy."""

    def __init__(self, upstreams: Upstreams, fingerprint: str = "") -> None:
        self._upstreams = upstreams
        self._end = f"{_MARK}{digest_of(fingerprint.encode())[-_DIGITS:]}" if fingerprint else ""

    def of(self, repository: str) -> str:
        """The name in the store of a repository that is pulled through."""
        return f"{repository}{self._end}"

    def are_of(self, stored: str) -> bool:
        """Whether a name in the store is one of this policy, and not of another one or of none."""
        return stored == self.of(public_name(stored))

    def is_shown(self, stored: str) -> bool:
        """Whether clients get what the store has under the name: what is pulled through, only as far as this
        policy accepted it."""
        if not self._end:
            return not is_policys(stored)
        is_pulled = self._upstreams.resolve(Route("manifest", public_name(stored))).upstream is not None
        return stored.endswith(self._end) if is_pulled else not is_policys(stored)

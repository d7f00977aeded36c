"""Upstreams: which registry a repository is pulled through from. Pure.

An upstream stands under a prefix of ours: with `quay.io=quay` the repository `quay/team/app` here is
`team/app` at quay.io. One upstream may have no prefix; it has every name that is under no other's.

A client that asks this registry in place of another says which one with `?ns=` (containerd does); then the
name is the one at that registry, and belongs under its prefix here, so that both ways meet the same content.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from blobflow.content import Site
from blobflow.errors import InvalidConfig, InvalidReference
from blobflow.oci.reference import DOCKER_HUB, check_host, check_repository
from blobflow.server.errors import ApiError
from blobflow.server.routes import Route


class Upstream(msgspec.Struct, frozen=True):
    """`host[:port]`, and where its repositories are here."""

    host: str
    prefix: str = ""

    def site(self, repository: str) -> Site:
        """Where the repository of that name at the upstream is; a bare name of Docker Hub is a library's."""
        bare = self.host == DOCKER_HUB and "/" not in repository
        return Site(self.host, f"library/{repository}" if bare else repository)

    def local(self, repository: str) -> str:
        """The name here of a repository there."""
        return f"{self.prefix}/{repository}" if self.prefix else repository

    def there(self, repository: str) -> str | None:
        """The name there of a repository here; None if it is not this upstream's."""
        if not self.prefix:
            return repository
        return repository.removeprefix(f"{self.prefix}/") if self._has(repository) else None

    def _has(self, repository: str) -> bool:
        return repository.startswith(f"{self.prefix}/")


def parse_upstream(text: str) -> Upstream:
    """Read `HOST[:PORT][=PREFIX]`. Raises InvalidConfig."""
    host, equals, prefix = text.partition("=")
    try:
        return Upstream(check_host(host), check_repository(prefix) if equals else "")
    except InvalidReference as error:
        raise InvalidConfig(f"an upstream: {error}; write HOST or HOST=PREFIX") from None


class Upstreams:
    """The upstreams of a registry, to find the one of a request."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        """Raises InvalidConfig for two of one host or of one prefix, as either could be meant."""
        for field in ("host", "prefix"):
            seen: set[str] = set()
            for each in upstreams:
                value = getattr(each, field)
                if value in seen:
                    raise InvalidConfig(
                        f"two upstreams have the {field} {value!r}"
                        if value
                        else f"{each.host} is a second upstream without a prefix; write {each.host}=PREFIX"
                    )
                seen.add(value)
        self._longest_first = sorted(upstreams, key=lambda each: -len(each.prefix))
        self._by_host = {each.host: each for each in upstreams}

    def resolve(self, route: Route, namespace: str = "") -> Route:
        """The route with its repository's name here, and its upstream, if it has one.

        `namespace` is the value of `?ns=`. Raises ApiError (NAME_UNKNOWN) for a registry that this
        one does not stand for: what has the same name here is something else.
        """
        if not route.repository:
            return route
        if namespace:
            upstream = self._by_host.get(_canonical(namespace))
            if upstream is None:
                raise ApiError("NAME_UNKNOWN", f"this registry does not stand for {namespace[:300]!r}")
            return route._replace(
                repository=upstream.local(route.repository), upstream=upstream.site(route.repository)
            )
        for upstream in self._longest_first:
            there = upstream.there(route.repository)
            if there is not None:
                return route._replace(upstream=upstream.site(there))
        return route


def _canonical(host: str) -> str:
    try:
        return check_host(host)
    except InvalidReference:
        return ""

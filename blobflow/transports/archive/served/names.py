"""The names of bundles' images at a registry that stands for all the registries they came from. Pure.

An image has the name there that `load --to HOST` would give it: `docker.io/library/nginx:1.29` is
`library/nginx:1.29`. A client may also ask for it by its whole name, as a repository
(`docker.io/library/nginx`), or with the registry that it means in `?ns=`, as containerd does.

Where images of several registries would have one name, each is the one of its registry to who says which; to
others the name means the image that all of them agree on, or none. What a registry has of such a repository
is stored apart, under a name that no client can ask for and no list shows: with `#` and the registry behind.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from blobflow.errors import InvalidReference
from blobflow.oci import Descriptor, Digest
from blobflow.oci.index_grouping import with_official
from blobflow.oci.reference import DOCKER_HUB, check_host

# Behind it, in the name of a repository, comes the registry. `server.pullthrough.stored_names` hides such
# names.
_MARK = "#"


class NamedRoots(msgspec.Struct):
    """The images of one repository: all of them, and those that tags name."""

    roots: dict[Digest, Descriptor] = {}
    tags: dict[str, Descriptor] = {}

    def add(self, root: Descriptor, tag: str) -> None:
        """Let the tag ("": none) name the image, and no other any more."""
        self.roots[root.digest] = root
        if tag:
            self.tags[tag] = root


class BundleNames:
    """The repositories of bundles; `found`: their images by registry and path there.

    `repositories`: the images by the names of the repositories that hold them. `ambiguous`: the names, as
    `library/x:1`, that mean one image at one registry and another at another.
    """

    def __init__(self, found: Mapping[tuple[str, str], NamedRoots]) -> None:
        self._hosts = {host for host, _ in found}
        self._names: dict[tuple[str, str], str] = {}
        self.repositories: dict[str, NamedRoots] = {}
        self.ambiguous: list[str] = []
        hosts_of: dict[str, list[str]] = {}
        for host, path in sorted(found):
            hosts_of.setdefault(path, []).append(host)
        for path, hosts in hosts_of.items():
            for host in hosts:
                name = path if len(hosts) == 1 else _apart(host, path)
                self._names[host, path] = name
                self.repositories[name] = found[host, path]
            if len(hosts) > 1:
                self.repositories[path] = self._agreed(path, [found[host, path] for host in hosts])

    def _agreed(self, path: str, parts: list[NamedRoots]) -> NamedRoots:
        agreed = NamedRoots({}, {})
        for part in parts:
            agreed.roots |= part.roots
        for tag in sorted({tag for part in parts for tag in part.tags}):
            meant = {part.tags[tag].digest: part.tags[tag] for part in parts if tag in part.tags}
            if len(meant) == 1:
                agreed.tags[tag] = next(iter(meant.values()))
            else:
                self.ambiguous.append(f"{path}:{tag}")
        return agreed

    def stands_for(self, namespace: str) -> bool:
        """See `server.registry.Aliases`."""
        return _canonical(namespace) in self._hosts

    def resolve(self, repository: str, namespace: str) -> str:
        """See `server.registry.Aliases`."""
        if namespace:
            host = _canonical(namespace)
            return self._stored(host, repository.removeprefix(f"{host}/"))
        host, _, path = repository.partition("/")
        if host in self._hosts and path and repository not in self.repositories:
            return self._stored(host, path)
        return repository

    def _stored(self, host: str, path: str) -> str:
        if host == DOCKER_HUB:
            path = with_official(path)
        return self._names.get((host, path), _apart(host, path))


def _apart(host: str, path: str) -> str:
    return f"{path}{_MARK}{host}"


def _canonical(host: str) -> str:
    try:
        return check_host(host)
    except InvalidReference:
        return ""

"""What nodes are to be told, and the files that tell them, whatever the format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import msgspec

from blobflow.mirror_places import MirrorPlaces, RenamedImage
from blobflow.node_files.formats import OpenshiftKind
from blobflow.oci.reference import DOCKER_HUB

# Where docker.io answers.
_HUB_ENDPOINT = "registry-1.docker.io"


class RegistryAccess(msgspec.Struct, frozen=True):
    """How nodes reach a registry: plain HTTP, TLS without a look at the certificate, or TLS that trusts `ca`
    (PEM, certificates alone) as well. `asks_for_certificate`: it wants one of its clients, too."""

    plain_http: bool = False
    skip_verify: bool = False
    ca: bytes = b""
    asks_for_certificate: bool = False

    @property
    def insecure(self) -> bool:
        """What the containers libraries and docker call so: plain HTTP, or any certificate."""
        return self.plain_http or self.skip_verify


class MirroredPrefix(msgspec.Struct, frozen=True):
    """A prefix of names (see `PlaceRule`) with its places in all mirrors that have it, in order."""

    source: str
    targets: tuple[str, ...]
    exact: bool = False

    @property
    def host(self) -> str:
        return self.source.partition("/")[0]

    @property
    def path(self) -> str:
        return self.source.partition("/")[2]

    def __str__(self) -> str:
        return f"{self.source or 'every registry'} is at {self.targets[0]}"


class MirroredImage(msgspec.Struct, frozen=True):
    """An image that no prefix is for, with its places in the mirrors that rename it."""

    source: str
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.source} is at {self.targets[0]}"


class NodeRequest(msgspec.Struct, frozen=True, dict=True):
    """The mirrors, in the order in which they are to be asked, and how registries are reached.

    `upstream`: whether an image's own registry is asked when no mirror has it. `by_digest`: whether mirrors
    are asked for what is named by a digest alone, so that a tag always means what its own registry says.
    """

    mirrors: tuple[MirrorPlaces, ...]
    access: Mapping[str, RegistryAccess] = {}
    upstream: bool = True
    by_digest: bool = False
    openshift_kind: OpenshiftKind = "both"

    def access_to(self, place: str) -> RegistryAccess:
        """How the registry of a place (`HOST[/…]`) is reached."""
        return self.access.get(place.partition("/")[0], RegistryAccess())

    def url(self, host: str) -> str:
        """`https://HOST` or `http://HOST`, as nodes speak to it."""
        scheme = "http" if self.access_to(host).plain_http else "https"
        return f"{scheme}://{_HUB_ENDPOINT if host == DOCKER_HUB else host}"

    @cached_property
    def prefixes(self) -> tuple[MirroredPrefix, ...]:
        """The rules of all mirrors, put together, most specific first."""
        exact: dict[str, bool] = {}
        for mirror in self.mirrors:
            for rule in mirror.rules:
                exact[rule.source] = exact.get(rule.source, True) and rule.exact
        found = (MirroredPrefix(source, self._targets(source), exact[source]) for source in exact)
        return tuple(sorted(found, key=lambda each: (-_depth(each.source), each.source)))

    def _targets(self, source: str) -> tuple[str, ...]:
        places = (mirror.target_of(source) for mirror in self.mirrors)
        return tuple(dict.fromkeys(place for place in places if place is not None))

    @cached_property
    def renamed(self) -> tuple[MirroredImage, ...]:
        """The images that mirrors have under another tag, or beside their repository's prefix."""
        sources: dict[str, RenamedImage] = {}
        for mirror in self.mirrors:
            for each in mirror.renamed:
                sources.setdefault(str(each.source), each)
        return tuple(
            MirroredImage(name, tuple(dict.fromkeys(str(place) for place in places if place is not None)))
            for name, each in sorted(sources.items())
            if (places := [mirror.place_of(each.source) for mirror in self.mirrors])
        )

    @property
    def places(self) -> tuple[MirroredImage | MirroredPrefix, ...]:
        """All that has a place in a mirror, most specific first."""
        return (*self.renamed, *self.prefixes)

    @cached_property
    def mirror_hosts(self) -> tuple[str, ...]:
        """The registries that are mirrors, in order."""
        targets = [target for each in self.places for target in each.targets]
        first = [rule.target for mirror in self.mirrors for rule in mirror.rules]
        return tuple(dict.fromkeys(place.partition("/")[0] for place in (*first, *targets)))


def _depth(source: str) -> int:
    return len(source.split("/")) if source else 0


class NodeFile(msgspec.Struct, frozen=True):
    """A file, and where it belongs below a node's `/`; or one that is applied to a cluster, by its name."""

    path: str
    content: bytes


class NodeFiles(msgspec.Struct, frozen=True):
    """The files of a format: none where it can say nothing of what was asked. `beside`: certificates, copied
    where the files lead to.

    `refused`: what the format can't say, a sentence each; the files are without it. `notes`: what has to be
    done besides, a sentence each.
    """

    files: tuple[NodeFile, ...]
    beside: tuple[NodeFile, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def header(path: str, *more: str) -> str:
    """The comment at the top of a file: what made it, where it belongs and what to know."""
    lines = [f"{MADE_BY}; belongs at /{path}" if "/" in path else MADE_BY, *more]
    return "".join(f"# {line}\n" for line in lines)


# What tells a file of ours from one that somebody wrote.
MADE_BY = "Made by `blobflow nodes`"


def certificate_file(path: str, ca: bytes) -> NodeFile:
    """A file of certificates; what stands before one in PEM is for people."""
    return NodeFile(path, f"# {MADE_BY}\n".encode() + ca)


def certificates(request: NodeRequest, path: str, hosts: Sequence[str] | None = None) -> tuple[NodeFile, ...]:
    """The certificates of the mirrors that have their own; `path` has `{host}` in it. `hosts`: those of the
    mirrors that a format can name, None for all."""
    return tuple(
        certificate_file(path.format(host=host), access.ca)
        for host in (request.mirror_hosts if hosts is None else hosts)
        if (access := request.access_to(host)).ca and not access.insecure
    )


def address_notes(request: NodeRequest) -> Iterable[str]:
    """What is to be said of mirrors that have an address of IPv6 for a name, to readers with containerd."""
    for host in request.mirror_hosts:
        if host.startswith("["):
            yield f"containerd before version 2 can't read {host} in its files; give the mirror a name"


def certificate_notes(request: NodeRequest, where: str) -> Iterable[str]:
    """What is to be said of mirrors that ask for a client's certificate; `where` has `{host}` in it."""
    for host in request.mirror_hosts:
        if request.access_to(host).asks_for_certificate:
            yield (
                f"{host} asks for a client certificate, whose key is a secret and copied nowhere; put both"
                f" {where.format(host=host)}"
            )

"""References: `[docker://][host[:port]/]repository[:tag][@digest]`, or local ones (`local_reference`).

The grammar is distribution's (reference package), with docker.io's defaults for a bare name: `alpine` is
`docker.io/library/alpine:latest`. A first component is a host if it has a dot or a colon, is `localhost`, or
is an IPv6 literal in brackets.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

from blobflow.errors import InvalidDigest, InvalidReference
from blobflow.oci import ip_address
from blobflow.oci.digest import Digest, parse_digest
from blobflow.oci.local_reference import split_local_reference, transport_of

DOCKER_HUB = "docker.io"
_HUB_NAMES = frozenset({"index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})

# distribution-spec, "Pulling manifests": <name> and <reference> as a tag.
_REPOSITORY = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*\Z"
)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}\Z")
_HOST = re.compile(
    r"(?:\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*)(?::[0-9]{1,5})?\Z"
)
_MAX_NAME = 255
# Characters of a URL's scheme; what is longer before `://` is something else.
LONGEST_SCHEME = 20
# What stands behind the `@` of `repository@digest`, right or wrong.
_LIKE_DIGEST = re.compile(r"[A-Za-z0-9+._-]+:[0-9A-Za-z]{16,}|sha\d+(?::|\Z)")
_FILES = (".tar", ".tgz", ".tar.gz", ".tar.zst")

# Transports of other tools, and how to get the same done here.
_ELSEWHERE = {
    "dir": "use `skopeo copy dir:… oci:…` first, blobflow reads no dir: folders",
    "docker-daemon": "use `docker save` into a file, or push to a registry (`blobflow serve` is one)",
    "containers-storage": "use `podman push` to a registry (`blobflow serve` is one)",
    "ostree": "push to a registry first",
    "tarball": "push to a registry first",
}


class Reference(msgspec.Struct, frozen=True, order=True, gc=False):
    """An image in a registry, or in a layout or archive (see `local_reference`).

    `tag` and `digest` may both be empty (a whole repository; of a place, its only image) or both given:
    then the digest decides what is read, and the tag what is written.
    """

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def pinned(self) -> Digest | None:
        """The digest, if there is one."""
        return Digest(self.digest) if self.digest else None

    @property
    def name(self) -> str:
        """What a manifest is asked for by: the digest if there is one, else the tag."""
        return self.digest or self.tag

    @property
    def transport(self) -> str:
        """The transport's word of a layout or archive, "" for a registry."""
        return transport_of(self.host)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        if self.transport:
            return f"{self.host}{tag}{digest}"
        return f"{self.host}/{self.repository}{tag}{digest}"


def refuse_login(text: str) -> None:
    """Raise InvalidReference, which does not quote it, if a login stands before a host, as
    `user:password@host/repository`, or `https://user@host`: many would read it."""
    is_url = "://" in text and not text.startswith("docker://")
    before, at, behind = text.rpartition("@")
    if at and _LIKE_DIGEST.match(behind):
        before, at, behind = before.rpartition("@")
    host = behind.partition("/")[0]
    if at and (is_url or "/" in behind or "." in host or host.partition(":")[0] == "localhost"):
        raise InvalidReference(
            f"{'***@' + behind[:300]!r}: a login in front of a host is read by everybody; keep it with "
            "`blobflow login HOST`, or give it in a file, as --source-creds @FILE"
        )


def check_host(text: str) -> str:
    """Check `host[:port]` and return its canonical form (Docker Hub's other names become docker.io)."""
    if "@" in text:
        refuse_login(text)
    if not _HOST.match(text):
        scheme, colons, rest = text.partition("://")
        host = rest.partition("/")[0]
        is_url = colons and len(scheme) <= LONGEST_SCHEME and _HOST.match(host)
        plain = f"; write {host[:150]}, without {scheme}:// and path" if is_url else ""
        raise InvalidReference(f"{text[:150]!r} is not a registry host{plain}")
    if not text.endswith("]") and (colon := text.rfind(":")) >= 0 and int(text[colon + 1 :]) > 65535:
        raise InvalidReference(f"{text[:150]!r} has a port over 65535")
    lower = text.lower()
    return DOCKER_HUB if lower in _HUB_NAMES else lower


def host_in_name(host: str) -> str:
    """A host as the first component of a repository's name, where a colon can't be: its port stands behind a
    `_`, which no host has; an IPv6 address is written with `-`, and 0 where it begins or ends without one."""
    name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "")
    if name.startswith("["):
        name = f"{'0' * (name[1] == ':')}{name[1:-1]}{'0' * (name[-2] == ':')}".replace(":", "-")
    return f"{name}_{port}" if port else name


def check_repository(text: str, whole: str = "") -> str:
    """Check a repository name and return it. Raises InvalidReference."""
    shown = repr((whole or text)[:300])
    if len(text) > _MAX_NAME:
        raise InvalidReference(f"{shown} has a repository name of over {_MAX_NAME} characters")
    if not _REPOSITORY.match(text):
        reason = (
            "repository names are lower case" if _REPOSITORY.match(text.lower()) else "bad repository name"
        )
        raise InvalidReference(f"{shown} is not a reference: {reason} {text[:150]!r}")
    return text


def check_tag(text: str, whole: str = "") -> str:
    """Check a tag and return it. Raises InvalidReference."""
    if not _TAG.match(text):
        raise InvalidReference(f"{(whole or text)[:300]!r} is not a reference: bad tag {text[:150]!r}")
    return text


def looks_like_host(component: str) -> bool:
    """Whether the first component of a name is a registry host, by docker's rule."""
    return "." in component or ":" in component or component == "localhost" or component.startswith("[")


def check_more_than_host(text: str, *, dotted: bool = True) -> None:
    """Raise InvalidReference for what names a registry and no repository, as `127.0.0.1:5000`.

    docker and crane read one word as a repository in docker.io's `library/`, so `localhost:5000` is a tag to
    them, and who forgot the repository is told that docker.io lacks it. For a word without a dot we do the
    same: `registry:2` and `mirror:5000` are tags. But `library/` has no repository with a dot in its name,
    and none called localhost, so these can only be hosts. Other registries have such repositories: where a
    name may be one of theirs, `dotted` is False, and only addresses and `localhost` are taken for hosts.
    """
    rest, at, _ = text.partition("@")
    first, slash, path = rest.partition("/")
    if slash:
        path = path.strip("/")
        if not looks_like_host(first) or (path and not path.startswith(":")):
            return
        host, tag = first, path
    else:
        host, tag = _host_alone(rest, dotted=dotted)
    if not host or not _HOST.match(host):
        return
    example = f"{host}/REPOSITORY{tag or ('@DIGEST' if at else ':TAG')}"
    file = f"; a file is docker-archive:{host} or oci-archive:{host}" if host.endswith(_FILES) else ""
    raise InvalidReference(
        f"{text[:300]!r} names a registry and no repository; add a repository, as {example}{file}"
    )


def _host_alone(word: str, *, dotted: bool) -> tuple[str, str]:
    """The host[:port], and the tag with its colon, of one word that is no repository; else "" and ""."""
    bracketed = word.startswith("[")
    name = word[: word.find("]") + 1] if bracketed else word.partition(":")[0]
    port, tag = _port_and_tag(word[len(name) :])
    only_hosts = bracketed or name.lower() == "localhost" or _is_address(name) or (dotted and "." in name)
    return (f"{name}{port}", tag) if only_hosts or (port and tag) else ("", "")


def _port_and_tag(text: str) -> tuple[str, str]:
    """Cut `[:port][:tag]`, each with its colon. What follows the first colon is a port if it is a number."""
    first, colon, rest = text[1:].partition(":")
    if first.isdecimal():
        return f":{first}", f"{colon}{rest}"
    return "", text


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine by its very form: localhost, 127.0.0.0/8 or [::1]."""
    return ip_address.is_loopback(
        host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    )


def split_name(text: str) -> tuple[str, str, str, str]:
    """Cut `[host/]repository[:tag][@digest]` into host, repository, tag and digest; absent ones are "".

    Checks every part that is there; applies no defaults. Raises InvalidReference.
    """
    if "@" in text:
        refuse_login(text)
    if not text or text != text.strip():
        raise InvalidReference(f"{text[:300]!r} is not a reference: it is empty or has spaces around it")
    if "://" in text:
        raise InvalidReference(
            f"{text[:300]!r} is not a reference: a name has no ://; write HOST/repository:tag"
        )
    rest, at, digest = text.partition("@")
    if at:
        try:
            digest = parse_digest(digest)
        except InvalidDigest as error:
            raise InvalidReference(f"{text[:300]!r} is not a reference: {error}") from None
    first, slash, remainder = rest.partition("/")
    host = ""
    if slash and looks_like_host(first):
        host, rest = check_host(first), remainder
    slash_at, colon_at = rest.rfind("/"), rest.rfind(":")
    tag = ""
    if colon_at > slash_at:
        rest, tag = rest[:colon_at], check_tag(rest[colon_at + 1 :], text)
    check_repository(rest, text)
    return host, rest, tag, digest


def parse_reference(text: str, *, default_host: str = DOCKER_HUB) -> Reference:
    """Read a reference with docker's defaults; `docker://` in front and local references are understood.

    A bare name gets `default_host`; on docker.io a name of one component gets `library/`; without a tag or
    digest the tag is `latest`. Raises InvalidReference with the string and the rule that it breaks; for a
    registry without a repository, and for other tools' transports, a sentence that names the way.
    """
    if located := split_local_reference(text):
        host, tag, digest = located
        return Reference(host, "", tag, digest)
    if text == "-":
        raise InvalidReference("'-' does not say what the stream is; write docker-archive:- or oci-archive:-")
    if text.startswith(("/", "./", "../", "~/")):
        path = text[:300]
        raise InvalidReference(
            f"{path!r} is a path; a folder is {'oci:' + path!r}, a file is {'docker-archive:' + path!r} or "
            f"{'oci-archive:' + path!r}"
        )
    if "@" in text:
        refuse_login(text)
    body = text.removeprefix("docker://")
    if body == text and (colon := text.find(":")) > 0:
        transport = text[:colon]
        if transport in _ELSEWHERE:
            raise InvalidReference(
                f"{text[:300]!r}: {transport}: is not a transport of blobflow; {_ELSEWHERE[transport]}"
            )
        if text[colon:].startswith("://"):
            word = transport[:60]
            raise InvalidReference(
                f"{text[:300]!r}: {word}:// is not a transport of blobflow; write HOST/repository:tag"
            )
    check_more_than_host(body, dotted=default_host == DOCKER_HUB)
    host, repository, tag, digest = split_name(body)
    host = host or default_host
    if host == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not tag and not digest:
        tag = "latest"
    return Reference(host=host, repository=repository, tag=tag, digest=digest)

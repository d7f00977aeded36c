"""regsync.yml, the configuration of regclient's regsync, as it is. Pure.

    version: 1
    creds: [{registry: localhost:5000, tls: disabled, user: …, pass: '{{env "PASSWORD"}}'}]
    defaults: {…}
    sync:
      - {source: busybox:latest, target: localhost:5000/library/busybox:latest, type: image}
      - {source: ghcr.io/org/app, target: localhost:5000/app, type: repository, tags: {allow: ['v1\\..*']}}
      - {source: registry.example.com, target: localhost:5000, type: registry, repos: {deny: ['old/.*']}}

`allow` and `deny` are regular expressions that match from end to end. Of Go's templates `{{env "NAME"}}` is
filled in. What is about when to run, and how, is for the caller of `blobflow sync`: it is told as such.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from blobflow.cli.choosing import platforms_of
from blobflow.cli.selection import Asked, Place, Wanted, parse_place
from blobflow.cli.yamlfile import compose, find, line_of, typed, unknown_keys
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.choice import EVERYTHING, Choice
from blobflow.oci.reference import check_host
from blobflow.oci.selecting import TagRules, check_rules
from blobflow.transports.registry import Credentials, HostSettings

_TEMPLATE = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")
_ENV = re.compile(r'env\s+["`]([^"`]+)["`]\Z')
_ELSEWHERE = {
    "interval": "a run of blobflow is one pass; have it started again by a timer",
    "schedule": "a run of blobflow is one pass; have it started by a timer",
    "parallel": "images are not what is done at once; see --concurrency",
    "ratelimit": "blobflow reads the registry's allowance itself; see --wait",
    "backup": "what a tag named before is not kept",
    "digestTags": "use --referrers for signatures and attestations",
    "referrers": "use --referrers",
    "skipDockerConfig": "logins of docker are used where the file has none",
    "userAgent": "blobflow says who it is",
    "regcert": "put the certificate into a file, and name that with --ca or in blobflow's configuration",
    "clientCert": "use --cert and --key, or blobflow's configuration",
    "clientKey": "use --cert and --key, or blobflow's configuration",
    "hostname": "write the registry's own name",
    "credHelper": "name the helper in docker's config.json",
}


class _Names(msgspec.Struct, frozen=True):
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    semver_range: tuple[str, ...] = msgspec.field(name="semverRange", default=())

    @property
    def rules(self) -> TagRules:
        return check_rules(TagRules(self.allow, self.deny, self.semver_range))


class _Creds(msgspec.Struct, frozen=True, rename="camel"):
    registry: str
    user: str = ""
    password: str = msgspec.field(name="pass", default="")
    tls: str = "enabled"
    mirrors: tuple[str, ...] = ()
    req_per_sec: float = 0
    req_concurrent: int | None = None


class _Sync(msgspec.Struct, frozen=True):
    source: str
    target: str
    type: str
    tags: _Names = _Names()
    repos: _Names = _Names()
    platform: str = ""
    platforms: tuple[str, ...] = ()


class _Defaults(msgspec.Struct, frozen=True):
    platform: str = ""
    platforms: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True):
    sync: tuple[_Sync, ...]
    version: int = 1
    creds: tuple[_Creds, ...] = ()
    defaults: _Defaults = _Defaults()


def parse_regsync(text: str, name: str, environ: Mapping[str, str]) -> Asked:
    """What a file asks for; `environ` fills in its templates.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead.
    """
    node = compose(text, name)
    file = typed(node, name, _File, as_written=True)
    if file.version != 1:
        raise InvalidConfig(f"{name} has version {file.version}; of regsync's, blobflow reads version 1")
    warnings = [
        _warning(name, key, line)
        for path in ("", ".defaults", *_each("creds", file.creds), *_each("sync", file.sync))
        for key, line in unknown_keys(find(node, path), _File, path)
        if path != ".defaults" or find(node, path) is not node
    ]
    wanted: list[Wanted] = []
    for number, each in enumerate(file.sync):
        where = f"{name} line {line_of(find(node, f'.sync[{number}]'))}"
        try:
            wanted.append(_wanted(each, file.defaults, where, environ))
        except InvalidReference as error:
            raise InvalidReference(f"{where}: {error}") from None
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        if each.platform or file.defaults.platform:
            warnings.append(
                f"{where}: of `platform` an index of that one is put, where regsync puts the image alone"
            )
    if not wanted:
        raise UsageError(f"{name} names nothing to sync")
    return Asked(tuple(wanted), (), tuple(warnings), _hosts(file.creds, name, environ))


def _each(key: str, values: Sequence[object]) -> Iterator[str]:
    return (f".{key}[{number}]" for number in range(len(values)))


def _warning(name: str, key: str, line: int) -> str:
    return f"{name} line {line}: `{key}` has no effect: {_ELSEWHERE.get(key, 'blobflow does not know it')}"


def _wanted(each: _Sync, defaults: _Defaults, where: str, environ: Mapping[str, str]) -> Wanted:
    source, target = _filled(each.source, environ), _filled(each.target, environ)
    choice = _choice(each, defaults)
    match each.type:
        case "image":
            origin, goal = parse_reference(source), parse_reference(target)
            return Wanted(
                _place_of(origin),
                origin.repository,
                origin.tag,
                origin.digest,
                where,
                goal.repository,
                choice,
                target_tag=goal.tag,
                targets=(_place_of(goal),),
            )
        case "repository":
            origin, goal = parse_reference(source), parse_reference(target)
            return Wanted(
                _place_of(origin),
                origin.repository,
                "",
                "",
                where,
                goal.repository,
                choice,
                rules=each.tags.rules,
                targets=(_place_of(goal),),
            )
        case "registry":
            return Wanted(
                parse_place(source),
                "",
                "",
                "",
                where,
                "",
                choice,
                rules=each.tags.rules,
                repositories=each.repos.rules,
                targets=(parse_place(target),),
            )
    raise UsageError(f"the type {each.type[:60]!r} is none; it is image, repository or registry")


def _place_of(reference: Reference) -> Place:
    if reference.transport:
        raise UsageError(f"{reference.host} is no registry; `blobflow copy` brings it there")
    return Place(reference.host)


def _choice(each: _Sync, defaults: _Defaults) -> Choice:
    """The platforms: an entry's own before those of the defaults; regsync's `local` is our `system`."""
    for one, several in ((each.platform, each.platforms), (defaults.platform, defaults.platforms)):
        words = several or ((one,) if one else ())
        if words:
            return Choice(platforms_of([word.replace("local", "system") for word in words]), "auto")
    return EVERYTHING


def _hosts(creds: Sequence[_Creds], name: str, environ: Mapping[str, str]) -> dict[str, HostSettings]:
    hosts = {}
    for each in creds:
        user, password = _filled(each.user, environ), _filled(each.password, environ)
        if each.tls not in ("enabled", "insecure", "disabled"):
            raise InvalidConfig(f"{name}: tls of {each.registry} is enabled, insecure or disabled")
        hosts[check_host(_filled(each.registry, environ))] = HostSettings(
            http=True if each.tls == "disabled" else None,
            verify=False if each.tls == "insecure" else None,
            credentials=Credentials(user, password) if user else None,
            mirrors=each.mirrors,
            connections=each.req_concurrent or None,
            requests_per_second=each.req_per_sec,
        )
    return hosts


def _filled(text: str, environ: Mapping[str, str]) -> str:
    """The text with its templates filled in. Raises InvalidConfig for one that we can't fill."""

    def fill(found: re.Match[str]) -> str:
        named = _ENV.match(found[1])
        if named is None:
            raise InvalidConfig(
                f"the template {found[0][:60]!r} can't be filled in; of regsync's, {{{{env \"NAME\"}}}} can"
            )
        if named[1] not in environ:
            raise InvalidConfig(f"the template {found[0][:60]!r} names a variable that is not set")
        return environ[named[1]]

    return _TEMPLATE.sub(fill, text)

"""regsync.yml, the configuration of regclient's regsync, as it is. Pure, but for files that templates name.

    version: 1
    creds: [{registry: localhost:5000, tls: disabled, user: …, pass: '{{env "PASSWORD"}}'}]
    defaults: {…}
    sync:
      - {source: busybox:latest, target: localhost:5000/library/busybox:latest, type: image}
      - {source: ghcr.io/org/app, target: localhost:5000/app, type: repository, tags: {allow: ['v1\\..*']}}
      - {source: registry.example.com, target: localhost:5000, type: registry, repos: {deny: ['old/.*']}}

What chooses means what it means to regsync (0.11):

- `tagSets` and `tags` are sets of which one is enough; within a set `semverRange`, `allow` and `deny` all
  have to hold. Ranges are regsync's own, see `oci.ranges`.
- `allow` and `deny` are put between ^ and $: of `a|b` that is ^a, or b$. Such ones are told.
- Signatures and what else refers to an image are brought where `referrers` or `digestTags` asks for it; of
  unchanged images they are looked for too, unless `fastCheck` says not to.
- What can't be carried out is refused: `referrerFilters`, places of their own for referrers, `mediaTypes`
  that leave a kind of image out, another `hostname`.

What is about when to run is told as the command that does it; `regsync_keys` has the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from blobflow.cli.choosing import platforms_of
from blobflow.cli.gotemplates import filled
from blobflow.cli.regsync_keys import (
    Creds,
    Entry,
    File,
    Repos,
    Tags,
    leave_out_what_says_nothing,
    told_keys,
    with_defaults,
)
from blobflow.cli.regsync_times import told_times
from blobflow.cli.selection import Asked, Place, Wanted, parse_place
from blobflow.cli.yamlfile import compose, find, line_of, lines_text, typed
from blobflow.engine.plan import Lookup
from blobflow.errors import InvalidConfig, InvalidReference, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.choice import EVERYTHING, Choice
from blobflow.oci.media import MANIFESTS
from blobflow.oci.patterns import compiled, has_loose_choice
from blobflow.oci.reference import DOCKER_HUB, check_host
from blobflow.oci.selecting import TagRules, check_rules
from blobflow.transports.registry import Credentials, HostSettings
from blobflow.visible import visible

_DOCKER_HUB_NAMES = (DOCKER_HUB, "registry-1.docker.io", "index.docker.io")


def parse_regsync(text: str, name: str, environ: Mapping[str, str]) -> Asked:
    """What a file asks for; `environ` fills in its templates.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead.
    """
    node = compose(text, name)
    leave_out_what_says_nothing(node)
    file = typed(node, name, File, as_written=True)
    if file.version not in (0, 1):
        raise InvalidConfig(f"{name} has version {file.version}; of regsync's, blobflow reads version 1")
    defaults = msgspec.structs.asdict(file.defaults)
    wanted: list[Wanted] = []
    warnings = [*told_keys(node, name)]
    times: list[tuple[int, str, str]] = []
    alone: list[int] = []
    for number, own in enumerate(file.sync):
        line = line_of(find(node, f".sync[{number}]"))
        where, each = f"{name} line {line}", with_defaults(own, defaults)
        try:
            wanted.append(_wanted(each, where, environ))
        except InvalidReference as error:
            raise InvalidReference(f"{where}: {error}") from None
        except InvalidConfig as error:
            raise InvalidConfig(f"{where}: {error}") from None
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
        warnings += (f"{where}: {loose}" for loose in _loose(each))
        times.append((line, each.interval, each.schedule))
        alone += [line] if each.platform else []
    if not wanted:
        raise UsageError(f"{name} names nothing to sync")
    if alone:
        warnings.append(
            f"{name} {lines_text(alone)}: of `platform` an index of that one is put, where regsync puts the "
            "image alone"
        )
    hosts = _hosts(file.creds, name, environ)
    return Asked(tuple(wanted), (), tuple(warnings), hosts, told_times(name, times))


def _wanted(each: Entry, where: str, environ: Mapping[str, str]) -> Wanted:
    facts = {".Sync.Source": each.source, ".Sync.Type": each.type}
    source = filled(each.source, environ, facts)
    target = filled(each.target, environ, {**facts, ".Sync.Source": source})
    for place in (source, target):
        if place.startswith("ocidir://"):
            raise UsageError(
                f"{place[:100]!r} is a layout; `blobflow copy` brings images to and from oci:PATH"
            )
    _refuse_what_cant_be_chosen(each)
    choice, lookup = _choice(each), _lookup(each)
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
                referrers=lookup,
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
                rules=_rules(each),
                targets=(_place_of(goal),),
                referrers=lookup,
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
                rules=_rules(each),
                repositories=_names(each.repos),
                targets=(parse_place(target),),
                referrers=lookup,
            )
    raise UsageError(f"the type {each.type[:60]!r} is none; it is image, repository or registry")


def _place_of(reference: Reference) -> Place:
    if reference.transport:
        raise UsageError(f"{reference.host} is no registry; `blobflow copy` brings it there")
    return Place(reference.host)


def _rules(each: Entry) -> TagRules:
    sets = [*each.tag_sets, *([each.tags] if each.tags != Tags() else [])]
    rules = [_names(each) for each in sets]
    return rules[0] if len(rules) == 1 else TagRules(any_of=tuple(rules))


def _names(names: Tags | Repos) -> TagRules:
    """The rules of a set, with expressions between ^ and $ as regsync puts them."""
    for text in (*names.allow, *names.deny):
        compiled(f"^{text}$", shown=text)
    allow, deny = ([f"^{text}$" for text in side] for side in (names.allow, names.deny))
    ranges = names.semver_range if isinstance(names, Tags) else ()
    return check_rules(
        TagRules(
            tuple(allow),
            tuple(deny),
            tuple(each for each in ranges if each),
            anywhere=bool(allow or deny),
            ranges="regsync" if any(ranges) else "npm",
        )
    )


def _loose(each: Entry) -> Iterator[str]:
    """What is told of expressions that match more than they seem to."""
    sides = [(names.allow, names.deny) for names in (*each.tag_sets, each.tags)]
    for text in chain(*chain(*sides), each.repos.allow, each.repos.deny):
        if has_loose_choice(text):
            shown = visible(text, 100)
            yield f"`{shown}` is ^{shown}$ to regsync, so only its ends are bound; write ({shown})"


def _choice(each: Entry) -> Choice:
    """The platforms; regsync's `local` is our `system`."""
    words = each.platforms or ((each.platform,) if each.platform else ())
    if not words:
        return EVERYTHING
    return Choice(platforms_of(["system" if word == "local" else word for word in words]), "auto")


def _lookup(each: Entry) -> Lookup:
    if not (each.referrers or each.digest_tags):
        return "off"
    return "auto" if each.fast_check else "always"


def _refuse_what_cant_be_chosen(each: Entry) -> None:
    """Raise InvalidConfig where something is chosen by what blobflow can't choose by."""
    left_out = sorted(MANIFESTS - set(each.media_types)) if each.media_types else ()
    if left_out:
        raise InvalidConfig(
            f"`mediaTypes` leaves out {', '.join(left_out)}, and blobflow brings images of every type; name "
            "the tags that are wanted instead"
        )
    if not each.referrers:
        return
    for key, said in (
        ("referrerFilters", each.referrer_filters),
        ("referrerSource", each.referrer_source),
        ("referrerTarget", each.referrer_target),
    ):
        if said:
            raise InvalidConfig(
                f"`{key}` can't be carried out: all that refers to an image goes with it, from its source to "
                "its target; leave it out for that"
            )


def _hosts(creds: Sequence[Creds], name: str, environ: Mapping[str, str]) -> dict[str, HostSettings]:
    prefixes = {each.registry: each.path_prefix.strip("/") for each in creds if each.path_prefix}
    mirrors = {mirror for each in creds for mirror in each.mirrors}
    hosts = {}
    for each in creds:
        host = check_host(filled(each.registry, environ))
        if each.tls.lower() not in ("", "enabled", "insecure", "disabled"):
            raise InvalidConfig(f"{name}: tls of {each.registry} is enabled, insecure or disabled")
        there = _DOCKER_HUB_NAMES if host == DOCKER_HUB else (host,)
        if each.hostname and each.hostname not in there:
            raise InvalidConfig(
                f"{name}: {host} has the hostname {each.hostname[:100]}, and blobflow asks a registry where "
                "its name says; write that in `source` or `target`, or make it one of the `mirrors`"
            )
        if each.registry in prefixes and each.registry not in mirrors:
            raise InvalidConfig(
                f"{name}: {host} has a pathPrefix and is no mirror; write that in `source` or `target`"
            )
        user, password = filled(each.user, environ), filled(each.password, environ)
        login = Credentials(user, password, each.token)
        hosts[host] = HostSettings(
            http=True if each.tls.lower() == "disabled" or each.scheme == "http" else None,
            verify=False if each.tls.lower() == "insecure" else None,
            credentials=login if user or each.token else None,
            mirrors=tuple(
                f"{mirror}/{prefixes[mirror]}" if mirror in prefixes else mirror for mirror in each.mirrors
            ),
            connections=each.req_concurrent or None,
            requests_per_second=each.req_per_sec,
        )
    return hosts

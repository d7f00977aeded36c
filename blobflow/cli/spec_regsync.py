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
- `mediaTypes` that leave a kind of image out cost one request a tag; what they leave out is no failure.
- A registry with a `hostname` is asked there, under that name.
- What can't be carried out is refused: `referrerFilters`, and places of their own for referrers.

What is about when to run is told as the command that does it; `regsync_keys` has the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import msgspec

from blobflow.cli.choosing import platforms_of
from blobflow.cli.gotemplates import filled
from blobflow.cli.regsync_hosts import read_hosts
from blobflow.cli.regsync_keys import (
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
from blobflow.cli.yamlfile import compose, find, line_of, lines_text, told_at, typed
from blobflow.engine.plan import Lookup
from blobflow.errors import InvalidConfig, UsageError
from blobflow.oci import Reference, parse_reference
from blobflow.oci.choice import EVERYTHING, Choice
from blobflow.oci.media import MANIFESTS
from blobflow.oci.patterns import compiled, has_loose_choice
from blobflow.oci.selecting import TagRules, check_rules
from blobflow.visible import visible


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
        with told_at(where):
            wanted.append(_wanted(each, where, environ))
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
    hosts, names = read_hosts(file.creds, name, environ)
    asked = tuple(_by_real_names(image, names) for image in wanted)
    return Asked(asked, (), tuple(warnings), hosts, told_times(name, times))


def _by_real_names(image: Wanted, names: Mapping[str, str]) -> Wanted:
    """The image at the hosts where a file says that its hosts really are."""

    def real(place: Place) -> Place:
        return msgspec.structs.replace(place, host=names.get(place.host, place.host))

    targets = tuple(map(real, image.targets))
    return msgspec.structs.replace(image, source=real(image.source), targets=targets)


def _wanted(each: Entry, where: str, environ: Mapping[str, str]) -> Wanted:
    facts = {".Sync.Source": each.source, ".Sync.Type": each.type}
    source = filled(each.source, environ, facts)
    target = filled(each.target, environ, {**facts, ".Sync.Source": source})
    for place in (source, target):
        if place.startswith("ocidir://"):
            raise UsageError(
                f"{place[:100]!r} is a layout; `blobflow copy` brings images to and from oci:PATH"
            )
    _refuse_referrers_of_some_kinds(each)
    rules: TagRules | None = _rules(each)
    repositories: TagRules | None = None
    if each.type == "registry":
        whole = Wanted(parse_place(source), "", "", "", where, targets=(parse_place(target),))
        repositories = _names(each.repos)
    elif each.type in ("image", "repository"):
        origin, goal = parse_reference(source), parse_reference(target)
        at, to = _place_of(origin), _place_of(goal)
        whole = Wanted(at, origin.repository, "", "", where, goal.repository, targets=(to,))
        if each.type == "image":
            whole = msgspec.structs.replace(whole, target_tag=goal.tag)
            rules = _of_one_tag(origin, _types(each))
        if rules is None:
            whole = msgspec.structs.replace(whole, tag=origin.tag, digest=origin.digest)
    else:
        raise UsageError(f"the type {each.type[:60]!r} is none; it is image, repository or registry")
    return msgspec.structs.replace(
        whole, choice=_choice(each), rules=rules, repositories=repositories, referrers=_lookup(each)
    )


def _place_of(reference: Reference) -> Place:
    if reference.transport:
        raise UsageError(f"{reference.host} is no registry; `blobflow copy` brings it there")
    return Place(reference.host)


def _rules(each: Entry) -> TagRules:
    sets = [*each.tag_sets, *([each.tags] if each.tags != Tags() else [])]
    rules = [_names(names) for names in sets]
    whole = rules[0] if len(rules) == 1 else TagRules(any_of=tuple(rules))
    return msgspec.structs.replace(whole, types=_types(each))


def _of_one_tag(origin: Reference, types: tuple[str, ...]) -> TagRules | None:
    """The rules for an image that is wanted if it is of these types; None where all are."""
    if not types:
        return None
    if origin.digest:
        raise InvalidConfig("`mediaTypes` chooses among tags, and the source is named by its digest")
    return TagRules((rf"^\Q{origin.tag}\E$",), anywhere=True, types=types)


def _types(each: Entry) -> tuple[str, ...]:
    """The media types of the images that are wanted; none where all that can be brought are. Without a list
    regsync takes those of all images, too."""
    narrow = each.media_types and not set(each.media_types) >= MANIFESTS
    return tuple(sorted(set(each.media_types))) if narrow else ()


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


def _refuse_referrers_of_some_kinds(each: Entry) -> None:
    """Raise InvalidConfig where some of what refers to an image is chosen, or has a place of its own."""
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

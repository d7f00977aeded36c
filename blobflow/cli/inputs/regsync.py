"""Reads regsync.yml, the configuration of regclient's regsync. Pure, but for files that templates name.

    version: 1
    creds: [{registry: localhost:5000, tls: disabled, user: …, pass: '{{env "PASSWORD"}}'}]
    defaults: {…}
    sync:
      - {source: busybox:latest, target: localhost:5000/library/busybox:latest, type: image}
      - {source: ghcr.io/org/app, target: localhost:5000/app, type: repository, tags: {allow: ['v1\\..*']}}
      - {source: registry.example.com, target: localhost:5000, type: registry, repos: {deny: ['old/.*']}}

What chooses means what it means to regsync (0.11):

- `tagSets` and `tags` are sets of which one is enough; within a set `semverRange`, `allow` and `deny` all
  have to hold. Ranges are regsync's own, see `oci.tag_selection.version_ranges`.
- `allow` and `deny` are put between ^ and $: of `a|b` that is ^a, or b$, which gives a warning.
- Signatures and what else refers to an image are brought where `referrers` or `digestTags` asks for it; of
  unchanged images they are looked for too, unless `fastCheck` says not to.
- `mediaTypes` that leave a kind of image out cost one request a tag; what they leave out is no failure.
- A registry with a `hostname` is asked there, under that name.
- What can't be carried out is refused: `referrerFilters`, and places of their own for referrers.

- `interval` and `schedule` are kept by `sync --every spec`, each entry's own; else a hint tells of that.
- `backup` is a tag: the image is kept in its repository, and one to be kept elsewhere is refused.

`regsync_keys` has the keys without effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import msgspec

from blobflow.cli.inputs.backup import parse_backup
from blobflow.cli.inputs.go_templates import render_template
from blobflow.cli.inputs.platforms import parse_platforms
from blobflow.cli.inputs.regsync_hosts import parse_hosts
from blobflow.cli.inputs.regsync_keys import (
    Entry,
    File,
    Repos,
    Tags,
    ignored_key_warnings,
    with_defaults,
)
from blobflow.cli.inputs.regsync_schedule import EntryTimes
from blobflow.cli.inputs.requests import ImageRequest, MirrorRequest, RegistryPrefix, parse_registry_prefix
from blobflow.cli.inputs.yaml_nodes import (
    compose,
    drop_empty_keys,
    line_of,
    lines_text,
    node_at,
    to_struct,
)
from blobflow.engine.backups import WORDS
from blobflow.engine.pairs import Lookup
from blobflow.errors import InvalidConfig, UsageError
from blobflow.file_errors import FileErrors
from blobflow.oci import Reference, parse_reference
from blobflow.oci.media import MANIFESTS
from blobflow.oci.platform_choice import EVERYTHING, PlatformChoice
from blobflow.oci.tag_selection.matching import check_rules
from blobflow.oci.tag_selection.regex import compile_pattern, has_loose_choice
from blobflow.oci.tag_selection.rules import TagRules
from blobflow.printable import printable


def parse_regsync(text: str, name: str, environ: Mapping[str, str]) -> MirrorRequest:
    """The request of a file; `environ` fills in its templates.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead; for
    several errors InvalidFile with all of them.
    """
    node, errors = compose(text, name), FileErrors()
    drop_empty_keys(node)
    warnings = [*ignored_key_warnings(node, name)]
    file = to_struct(node, name, File, errors, as_written=True)
    if file is None:
        errors.check()
        raise AssertionError("what is without a value has an error")
    if file.version not in (0, 1):
        wrong = f"{name} has version {file.version}; of regsync's, blobflow reads version 1"
        errors.add(InvalidConfig(wrong), typo=True)
    defaults = msgspec.structs.asdict(file.defaults)
    images: list[ImageRequest] = []
    times = EntryTimes(name)
    alone: list[int] = []
    for number, own in enumerate(file.sync):
        line = line_of(node_at(node, "sync", number))
        where, each = f"{name} line {line}", with_defaults(own, defaults)
        choice, backup = EVERYTHING, ""
        with errors.at(where, line=line):
            choice = _choice(each)
        with errors.at(where, line=line):
            backup = _backup(each, environ)
        with errors.at(where, line=line):
            image = _image_request(each, where, environ)
            schedule = times.read(line, each.interval, each.schedule)
            images.append(msgspec.structs.replace(image, choice=choice, schedule=schedule, backup=backup))
            warnings += (f"{where}: {loose}" for loose in _loose_expression_warnings(each))
        alone += [line] if each.platform else []
    if not (images or errors):
        errors.add(UsageError(f"{name} names nothing to sync"))
    if alone:
        warnings.append(
            f"{name} {lines_text(alone)}: of `platform` an index of that one is put, where regsync puts the "
            "image alone"
        )
    hosts, names = parse_hosts(file.creds, node, name, environ, errors)
    errors.check()
    at_real_hosts = tuple(_by_real_names(image, names) for image in images)
    return MirrorRequest(at_real_hosts, (), tuple(warnings), hosts, times.hint, unread_schedules=times.unread)


def _by_real_names(image: ImageRequest, names: Mapping[str, str]) -> ImageRequest:
    """The image at its real hosts: `names` has those with a `hostname`."""

    def real(place: RegistryPrefix) -> RegistryPrefix:
        return msgspec.structs.replace(place, host=names.get(place.host, place.host))

    targets = tuple(map(real, image.targets))
    return msgspec.structs.replace(image, source=real(image.source), targets=targets)


def _image_request(each: Entry, where: str, environ: Mapping[str, str]) -> ImageRequest:
    facts = {".Sync.Source": each.source, ".Sync.Type": each.type}
    source = render_template(each.source, environ, facts)
    target = render_template(each.target, environ, {**facts, ".Sync.Source": source})
    for place in (source, target):
        if place.startswith("ocidir://"):
            raise UsageError(
                f"{place[:100]!r} is a layout; `blobflow copy` brings images to and from oci:PATH"
            )
    _reject_referrer_filters(each)
    rules: TagRules | None = _tag_rules(each)
    repositories: TagRules | None = None
    if each.type == "registry":
        whole = ImageRequest(
            parse_registry_prefix(source), "", "", "", where, targets=(parse_registry_prefix(target),)
        )
        repositories = _name_rules(each.repos)
    elif each.type in ("image", "repository"):
        origin, goal = parse_reference(source), parse_reference(target)
        at, to = _registry_of(origin), _registry_of(goal)
        whole = ImageRequest(at, origin.repository, "", "", where, goal.repository, targets=(to,))
        if each.type == "image":
            whole = msgspec.structs.replace(whole, target_tag=goal.tag)
            rules = _single_tag_rules(origin, _types(each))
        if rules is None:
            whole = msgspec.structs.replace(whole, tag=origin.tag, digest=origin.digest)
    else:
        raise UsageError(f"the type {each.type[:60]!r} is none; it is image, repository or registry")
    return msgspec.structs.replace(whole, rules=rules, repositories=repositories, referrers=_lookup(each))


def _registry_of(reference: Reference) -> RegistryPrefix:
    if reference.transport:
        raise UsageError(f"{reference.host} is no registry; `blobflow copy` brings it there")
    return RegistryPrefix(reference.host)


def _tag_rules(each: Entry) -> TagRules:
    sets = [*each.tag_sets, *([each.tags] if each.tags != Tags() else [])]
    rules = [_name_rules(names) for names in sets]
    whole = rules[0] if len(rules) == 1 else TagRules(any_of=tuple(rules))
    return msgspec.structs.replace(whole, types=_types(each))


def _single_tag_rules(origin: Reference, types: tuple[str, ...]) -> TagRules | None:
    """The rules for one tag that is wanted only if it is of these types; None if all types are."""
    if not types:
        return None
    if origin.digest:
        raise InvalidConfig("`mediaTypes` chooses among tags, and the source is named by its digest")
    return TagRules((rf"^\Q{origin.tag}\E$",), anywhere=True, types=types)


def _types(each: Entry) -> tuple[str, ...]:
    """The media types that are wanted; empty if all that can be mirrored are, as without a list."""
    narrow = each.media_types and not set(each.media_types) >= MANIFESTS
    return tuple(sorted(set(each.media_types))) if narrow else ()


def _name_rules(names: Tags | Repos) -> TagRules:
    """The rules of a set, with expressions between ^ and $ as regsync puts them."""
    for text in (*names.allow, *names.deny):
        compile_pattern(f"^{text}$", shown=text)
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


def _loose_expression_warnings(each: Entry) -> Iterator[str]:
    """Warnings of expressions that match more than they seem to."""
    sides = [(names.allow, names.deny) for names in (*each.tag_sets, each.tags)]
    for text in chain(*chain(*sides), each.repos.allow, each.repos.deny):
        if has_loose_choice(text):
            shown = printable(text, 100)
            yield f"`{shown}` is ^{shown}$ to regsync, so only its ends are bound; write ({shown})"


def _choice(each: Entry) -> PlatformChoice:
    """The platforms; regsync's `local` is our `system`."""
    words = each.platforms or ((each.platform,) if each.platform else ())
    if not words:
        return EVERYTHING
    return PlatformChoice(parse_platforms(["system" if word == "local" else word for word in words]), "auto")


def _backup(each: Entry, environ: Mapping[str, str]) -> str:
    """The template of the backup's tag. What Go's templates have besides the words of `backup` is filled in
    now."""
    facts = {".Sync.Source": each.source, ".Sync.Target": each.target, ".Sync.Type": each.type}
    words = {".Ref.Tag": "{tag}", ".Ref.Digest": "{digest}", **{word: f"{{{word}}}" for word in WORDS}}
    return parse_backup(render_template(each.backup, environ, {**facts, **words}))


def _lookup(each: Entry) -> Lookup:
    if not (each.referrers or each.digest_tags):
        return "off"
    return "auto" if each.fast_check else "always"


def _reject_referrer_filters(each: Entry) -> None:
    """Raise InvalidConfig for filters of referrers, or sources and targets of their own."""
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

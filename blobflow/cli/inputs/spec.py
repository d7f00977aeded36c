"""Spec files: YAML → typed values → a request. Pure.

    version: 1
    defaults: {source: docker.io, targets: [127.0.0.1:5000/mirror]}
    images:
      - rancher/pause:3.1
      - {image: rancher/coredns-coredns, tags: [1.8.3], target: dns/coredns}
      - {image: library/alpine, tags: {semver: ">=3.18 <4", newest: 3}, rename: {tag: "{tag}-base"}}

- `defaults.source` is where images without a host come from (docker.io if not given), `defaults.targets`
  where all go; each is HOST[/prefix].
- An image is `[host/]repository[:tag][@digest]`, or a mapping of `image`, `tags` (tags or digests of it, or
  rules that choose among its tags: see `oci.tag_selection.rules`) and `target`, the repository path under
  each target's prefix; or `rename`, rules for the names there: see `renaming`.
- `platforms` (as `[linux/amd64, linux/arm64]`) and `index` (auto, keep, prune, only) say what of an image is
  wanted, `missing-platform` (skip, fail) what becomes of one that is for none of them, `referrers` (auto,
  always, off) when what refers to it is looked for; an image's own go before those of `defaults`.
- `source` of an image is HOST[/prefix] where it comes from, in place of the defaults'.
- `every` or `schedule` say when a daemon (`sync --every spec`) mirrors it again; `backup` under which tag the
  image that its target's tag names is kept before that names another.

All that is wrong is told at once, with its lines. `spec_keys` has the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import yaml

from blobflow.cli.inputs.backup import parse_backup
from blobflow.cli.inputs.platforms import parse_platforms
from blobflow.cli.inputs.renaming import KEEP_NAMES, RenameRule, RenameRules, check_rename_rule
from blobflow.cli.inputs.requests import (
    ImageRequest,
    MirrorRequest,
    RegistryPrefix,
    hub_path,
    parse_place,
    scheme_settings,
)
from blobflow.cli.inputs.spec_keys import Defaults, Entry, Replacement, Spec, Tags
from blobflow.cli.inputs.yaml_nodes import compose, line_of, node_at, to_struct
from blobflow.cli.runtime.cron import Schedule, schedule_of
from blobflow.engine.pairs import Lookup
from blobflow.errors import InvalidConfig, UsageError
from blobflow.file_errors import FileErrors, errors_located_at
from blobflow.oci import parse_digest
from blobflow.oci.local_reference import transport_of
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.reference import DOCKER_HUB, check_more_than_host, check_repository, check_tag, split_name
from blobflow.oci.tag_selection.matching import check_rules
from blobflow.oci.tag_selection.rules import TagRules

if TYPE_CHECKING:
    from blobflow.transports.registry import HostSettings

_VERSION = 1


def parse_spec(text: str, name: str, *, needs_targets: bool = True) -> MirrorRequest:
    """The request of a spec. `name` is what errors call the file. `needs_targets`: that it has none is an
    error; False where the command line says where to.

    Raises InvalidConfig, InvalidReference or UsageError with file, line and what to write instead; for
    several errors InvalidFile with all of them.
    """
    node, errors = compose(text, name), FileErrors()
    spec = to_struct(node, name, Spec, errors)
    if spec is None:
        errors.check()
        raise AssertionError("what is without a value has an error")
    if spec.version != _VERSION:
        wrong = f"{name} has version {spec.version}; this blobflow reads version {_VERSION}"
        errors.add(InvalidConfig(wrong), typo=True)
    if not errors and not spec.images:
        errors.add(UsageError(f"{name} names no image; list them under `images`"))
    if not errors and needs_targets and not spec.defaults.targets:
        errors.add(InvalidConfig(f"{name} has no targets; write defaults: {{targets: [HOST/prefix]}}"))
    defaults = _checked(spec.defaults, node, name, errors)
    targets = tuple(_targets(defaults, node, name, errors))
    source = parse_place(defaults.source)
    images: list[ImageRequest] = []
    for index, each in enumerate(spec.images):
        line = line_of(node_at(node, f".images[{index}]"))
        entry = each if isinstance(each, Entry) else Entry(each)
        with errors.at(where := f"{name} line {line}", line=line):
            images += _entry_requests(entry, defaults, source, where)
    hosts = _hosts(spec, name, errors)
    errors.check()
    return MirrorRequest(tuple(images), targets, hosts=hosts)


def _hosts(spec: Spec, name: str, errors: FileErrors) -> dict[str, HostSettings]:
    """What is said of hosts by giving them as URLs."""
    places = [spec.defaults.source, *spec.defaults.targets]
    places += [each.source for each in spec.images if isinstance(each, Entry) and each.source is not None]
    with errors.at(name):
        return {} if errors else scheme_settings(places)
    return {}


def _checked(defaults: Defaults, node: yaml.Node, name: str, errors: FileErrors) -> Defaults:
    """The defaults without what is wrong with them, so that it is told once, and not of each image."""
    checks: dict[tuple[str, ...], Callable[[], object]] = {
        ("source",): lambda: parse_place(defaults.source),
        ("platforms",): lambda: parse_platforms(defaults.platforms),
        ("referrers",): lambda: _lookup(defaults.referrers),
        ("schedule", "every"): lambda: schedule_of(defaults.every, defaults.schedule),
        ("backup",): lambda: parse_backup(defaults.backup),
    }
    wrong: set[str] = set()
    for keys, check in checks.items():
        line = max(line_of(node_at(node, f".defaults.{key}")) for key in keys)
        try:
            with errors_located_at(f"{name} line {line}: defaults"):
                check()
        except UsageError as error:
            errors.add(error, line=line)
            wrong.update(keys)
    return msgspec.structs.replace(defaults, **{key: getattr(Defaults(), key) for key in wrong})


def _targets(defaults: Defaults, node: yaml.Node, name: str, errors: FileErrors) -> Iterator[RegistryPrefix]:
    for index, each in enumerate(defaults.targets):
        line = line_of(node_at(node, f".defaults.targets[{index}]"))
        with errors.at(f"{name} line {line}: defaults.targets", line=line):
            yield parse_place(each)


def _entry_requests(
    entry: Entry, defaults: Defaults, source: RegistryPrefix, where: str
) -> Iterator[ImageRequest]:
    """The images of one entry, with what holds for all of them."""
    choice, rename = _choice(entry, defaults), _rename_rules(entry)
    lookup = _lookup(defaults.referrers if entry.referrers is None else entry.referrers)
    backup = parse_backup(defaults.backup if entry.backup is None else entry.backup)
    if entry.source is not None:
        source = parse_place(entry.source)
    for each in _image_requests(entry, source, where, choice, rename):
        yield msgspec.structs.replace(
            each,
            referrers=lookup,
            missing_platform=entry.missing_platform or defaults.missing_platform,
            schedule=_schedule(entry, defaults),
            backup=backup,
        )


def _schedule(entry: Entry, defaults: Defaults) -> Schedule | None:
    """When the entry is due. Its own key replaces both of the defaults'."""
    if entry.every is not None or entry.schedule is not None:
        return schedule_of(entry.every or "", entry.schedule or "")
    return schedule_of(defaults.every, defaults.schedule)


def _choice(entry: Entry, defaults: Defaults) -> PlatformChoice:
    words = defaults.platforms if entry.platforms is None else entry.platforms
    return PlatformChoice(parse_platforms(words), entry.index or defaults.index)


def _lookup(said: Lookup | bool) -> Lookup:
    """YAML reads `off` as a no."""
    if said is True:
        raise UsageError("`referrers` is auto, always or off")
    return said or "off"


def _rename_rules(entry: Entry) -> RenameRules:
    if entry.rename is None:
        return KEEP_NAMES
    if entry.target and entry.rename.repository:
        raise UsageError(f"{entry.image} has a `target` as well as `rename.repository`; keep one")
    return RenameRules(_rename_rule(entry.rename.repository), _rename_rule(entry.rename.tag))


def _rename_rule(said: str | Replacement) -> RenameRule:
    if isinstance(said, str):
        return check_rename_rule(RenameRule(template=said))
    return check_rename_rule(RenameRule(match=said.match, replace=said.replace))


def _tag_rules(tags: Tags) -> TagRules:
    semver = (tags.semver,) if isinstance(tags.semver, str) else tags.semver
    return check_rules(
        TagRules(tags.include, tags.exclude, semver, tags.newest, tags.by, tags.prereleases, tags.anywhere)
    )


def _image_requests(
    entry: Entry, source: RegistryPrefix, where: str, choice: PlatformChoice, rename: RenameRules
) -> Iterator[ImageRequest]:
    """The images of one entry: one for each of its tags, or one for the rules that choose them."""
    name = entry.image.removeprefix("docker://")
    check_more_than_host(name, dotted=source == RegistryPrefix(DOCKER_HUB))
    host, path, tag, digest = split_name(name)
    if host:
        source = RegistryPrefix(host)
    if entry.tags is not None and (tag or digest):
        raise UsageError(f"{entry.image} has `tags` as well as a tag or digest of its own; keep one")
    if entry.tags == ():
        raise UsageError(f"{entry.image} has no tags in its list of tags; leave `tags` out for latest")
    whole = ImageRequest(
        source,
        hub_path(source, path),
        tag,
        digest,
        where,
        check_repository(entry.target) if entry.target else "",
        choice,
        rename=rename,
    )
    if isinstance(entry.tags, Tags):
        if transport_of(source.host):
            raise UsageError(f"rules choose among the tags of a registry; list those of {source}")
        yield msgspec.structs.replace(whole, rules=_tag_rules(entry.tags))
        return
    if entry.tags is None:
        yield whole if tag or digest else msgspec.structs.replace(whole, tag="latest")
    for name in entry.tags or ():
        if ":" in name:
            yield msgspec.structs.replace(whole, digest=parse_digest(name))
        else:
            yield msgspec.structs.replace(whole, tag=check_tag(name))

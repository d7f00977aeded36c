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
- `policy` names a signature policy that has to accept the image before anything of it is put anywhere.
- `collect` names deployment files whose images are part of the set, under the defaults; see `collected`.

All that is wrong is told at once, with its lines. `spec_keys` has the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import msgspec
import yaml

from blobflow.cli.inputs.backup import parse_backup
from blobflow.cli.inputs.platforms import parse_platforms
from blobflow.cli.inputs.renaming import KEEP_NAMES, RenameRule, RenameRules, check_rename_rule
from blobflow.cli.inputs.requests import (
    CollectedPath,
    ImageRequest,
    MirrorRequest,
    RegistryPrefix,
    hub_path,
    parse_place,
    scheme_settings,
    split_scheme,
)
from blobflow.cli.inputs.spec_keys import Collect, Defaults, Entry, Replacement, Spec, Tags
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

_T = TypeVar("_T")

_VERSION = 1
_NAMELESS = ImageRequest(RegistryPrefix(DOCKER_HUB), "", "", "", "")


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
    if not errors and not spec.images and not spec.collect:
        errors.add(UsageError(f"{name} names no image; list them under `images`"))
    if not errors and needs_targets and not spec.defaults.targets:
        errors.add(InvalidConfig(f"{name} has no targets; write defaults: {{targets: [HOST/prefix]}}"))
    defaults = _checked(spec.defaults, node, name, errors)
    targets = tuple(_targets(defaults, node, name, errors))
    source = parse_place(defaults.source)
    images: list[ImageRequest] = []
    for index, each in enumerate(spec.images):
        line = line_of(node_at(node, "images", index))
        entry = each if isinstance(each, Entry) else Entry(each)
        images += _Entry(entry, defaults, f"{name} line {line}", line, errors).requests(source)
    hosts = _hosts(spec, name, errors)
    collect = tuple(_collected(spec, node, name))
    like = _Entry(Entry(""), defaults, name, 0, errors).like()
    errors.check()
    return MirrorRequest(tuple(images), targets, hosts=hosts, collect=collect, like=like)


def _collected(spec: Spec, node: yaml.Node, name: str) -> Iterator[CollectedPath]:
    for index, each in enumerate(spec.collect):
        said = each if isinstance(each, Collect) else Collect(each)
        where = f"{name} line {line_of(node_at(node, 'collect', index))}"
        yield CollectedPath(said.path, where, said.custom_resources)


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
        ("policy",): lambda: _signature_policy(defaults.policy),
    }
    wrong: set[str] = set()
    for keys, check in checks.items():
        line = max(line_of(node_at(node, "defaults", key)) for key in keys)
        try:
            with errors_located_at(f"{name} line {line}: defaults"):
                check()
        except UsageError as error:
            errors.add(error, line=line)
            wrong.update(keys)
    return msgspec.structs.replace(defaults, **{key: getattr(Defaults(), key) for key in wrong})


def _targets(defaults: Defaults, node: yaml.Node, name: str, errors: FileErrors) -> Iterator[RegistryPrefix]:
    for index, each in enumerate(defaults.targets):
        line = line_of(node_at(node, "defaults", "targets", index))
        with errors.at(f"{name} line {line}: defaults.targets", line=line):
            yield parse_place(each)


class _Entry:
    """Reads one entry, each part of it by itself: what is wrong with one hides no error in another."""

    def __init__(self, entry: Entry, defaults: Defaults, where: str, line: int, errors: FileErrors) -> None:
        self._entry = entry
        self._defaults = defaults
        self._where = where
        self._line = line
        self._errors = errors

    def _read(self, read: Callable[[], _T], otherwise: _T) -> _T:
        """What `read` returns, or what to go on with where it raises, which is kept."""
        with self._errors.at(self._where, line=self._line):
            return read()
        return otherwise

    def like(self) -> ImageRequest:
        """An image without a name, with all else that the entry says."""
        entry, defaults = self._entry, self._defaults
        lookup = defaults.referrers if entry.referrers is None else entry.referrers
        backup = defaults.backup if entry.backup is None else entry.backup
        policy = defaults.policy if entry.policy is None else entry.policy
        platforms = defaults.platforms if entry.platforms is None else entry.platforms
        return msgspec.structs.replace(
            _NAMELESS,
            choice=PlatformChoice(
                self._read(lambda: tuple(parse_platforms(platforms)), ()), entry.index or defaults.index
            ),
            rename=self._read(lambda: _rename_rules(entry), KEEP_NAMES),
            referrers=self._read(lambda: _lookup(lookup), "off"),
            missing_platform=entry.missing_platform or defaults.missing_platform,
            schedule=self._read(lambda: _schedule(entry, defaults), None),
            backup=self._read(lambda: parse_backup(backup), ""),
            target=self._read(lambda: check_repository(entry.target) if entry.target else "", ""),
            signature_policy=self._read(lambda: _signature_policy(policy), ""),
        )

    def requests(self, source: RegistryPrefix) -> list[ImageRequest]:
        """The images of the entry: one for each of its tags, or one for the rules that choose them."""
        entry = self._entry
        if entry.source is not None:
            given = entry.source
            source = self._read(lambda: parse_place(given), source)
        like, name = self.like(), self._read(lambda: self._whole(source), None)
        if name is None:
            return []
        named = {field: getattr(name, field) for field in ("source", "path", "tag", "digest", "where")}
        whole = msgspec.structs.replace(like, **named)
        if isinstance(entry.tags, Tags):
            rules = self._rules(entry.tags)
            return [msgspec.structs.replace(whole, rules=rules)]
        if entry.tags is None:
            return [whole if whole.tag or whole.digest else msgspec.structs.replace(whole, tag="latest")]
        found = (self._read(partial(_with_tag, whole, name), None) for name in entry.tags)
        return [each for each in found if each is not None]

    def _whole(self, source: RegistryPrefix) -> ImageRequest:
        """The image or repository that the entry names."""
        entry = self._entry
        name = entry.image.removeprefix("docker://")
        if scheme := split_scheme(name)[0]:
            raise UsageError(
                f"an image has no {scheme}:// before its host; write `source: {scheme}://HOST` beside it"
            )
        check_more_than_host(name, dotted=source == RegistryPrefix(DOCKER_HUB))
        host, path, tag, digest = split_name(name)
        if host:
            source = RegistryPrefix(host)
        if entry.tags is not None and (tag or digest):
            raise UsageError(f"{entry.image} has `tags` as well as a tag or digest of its own; keep one")
        if entry.tags == ():
            raise UsageError(f"{entry.image} has no tags in its list of tags; leave `tags` out for latest")
        if isinstance(entry.tags, Tags) and transport_of(source.host):
            raise UsageError(f"rules choose among the tags of a registry; list those of {source}")
        return ImageRequest(source, hub_path(source, path), tag, digest, self._where)

    def _rules(self, tags: Tags) -> TagRules:
        """The rules, each of which is checked by itself."""
        semver = (tags.semver,) if isinstance(tags.semver, str) else tags.semver
        parts = [TagRules(include=(each,)) for each in (*tags.include, *tags.exclude)]
        parts += [TagRules(semver=(each,)) for each in semver]
        for part in (*parts, TagRules(newest=tags.newest, by=tags.by)):
            self._read(partial(check_rules, part), part)
        return TagRules(
            tags.include, tags.exclude, semver, tags.newest, tags.by, tags.prereleases, tags.anywhere
        )


def _schedule(entry: Entry, defaults: Defaults) -> Schedule | None:
    """When the entry is due. Its own key replaces both of the defaults'."""
    if entry.every is not None or entry.schedule is not None:
        return schedule_of(entry.every or "", entry.schedule or "")
    return schedule_of(defaults.every, defaults.schedule)


def _signature_policy(file: str | None) -> str:
    """The file that is named; "" if none is."""
    if file == "" or (file and "\0" in file):
        raise UsageError(
            "`policy` names a signature policy's file; one that asks for no signature has"
            ' {"default": [{"type": "insecureAcceptAnything"}]}'
        )
    return file or ""


def _with_tag(image: ImageRequest, name: str) -> ImageRequest:
    """The image under a tag, or a digest, of its repository."""
    if ":" in name:
        return msgspec.structs.replace(image, digest=parse_digest(name))
    return msgspec.structs.replace(image, tag=check_tag(name))


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

"""Reads the YAML of `skopeo sync --src yaml`. Pure, but for the certificates that it names.

    registry.example.com:
      images: {busybox: [], redis: ["1.0", "sha256:…"]}       # [] is all tags
      images-by-tag-regex: {nginx: '^1\\.13\\.[12]-alpine'}     # matches anywhere in a tag
      images-by-semver: {alpine: '>= 3.12.0'}
      credentials: {username: …, password: …}
      tls-verify: false
      cert-dir: /etc/certs/example                            # *.crt, *.cert, *.key

Expressions are Go's (see `oci.tag_selection.regex`), ranges those of Masterminds (see
`oci.tag_selection.version_ranges`): prereleases are left out unless the range has one. Null is an absent
value, as it is to Go; a key that skopeo does not know is an error, since it might choose images.

It names sources alone. Where skopeo puts an image, by the last component of its name under the destination,
we put it too; `scoped`, as skopeo's --scoped, keeps host and path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import yaml

from blobflow.cli.inputs.renaming import RenameRule, RenameRules
from blobflow.cli.inputs.requests import (
    ImageRequest,
    MirrorRequest,
    RegistryPrefix,
    hub_path,
    parse_registry_prefix,
)
from blobflow.cli.inputs.yaml_nodes import child, compose, is_null, line_of, to_struct
from blobflow.errors import UsageError
from blobflow.file_errors import FileErrors
from blobflow.oci import parse_digest
from blobflow.oci.reference import check_repository, check_tag
from blobflow.oci.tag_selection.matching import check_rules
from blobflow.oci.tag_selection.rules import ALL_TAGS, TagRules
from blobflow.transports.registry import Credentials, HostSettings, TlsSettings
from blobflow.transports.registry.http.tls import tls_settings_in

_T = TypeVar("_T")

IMAGE_LISTS = ("images", "images-by-tag-regex", "images-by-semver")


class _Login(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None


class _Registry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    images: dict[str, tuple[str, ...] | None] | None = None
    images_by_tag_regex: dict[str, str | None] | None = None
    images_by_semver: dict[str, str | None] | None = None
    credentials: _Login | None = None
    tls_verify: bool | None = None
    cert_dir: str | None = None


def parse_skopeo(
    text: str, name: str, targets: Sequence[RegistryPrefix], *, scoped: bool = False
) -> MirrorRequest:
    """The request of a file. Raises InvalidConfig, InvalidReference or UsageError with file and line."""
    node, errors = compose(text, name), FileErrors()
    images: list[ImageRequest] = []
    warnings: list[str] = []
    hosts: dict[str, HostSettings] = {}
    for key, value in node.value:
        if str(key.value).startswith("x-"):
            continue  # what anchors are put under
        line = line_of(key)
        where = f"{name} line {line}"
        registry = _Registry() if is_null(value) else _to_registry(value, name, errors)
        with errors.at(where, line=line):
            source = parse_registry_prefix(str(key.value))
            if registry is None:
                continue
            images += _image_requests(registry, source, value, name, errors, scoped=scoped)
            if not (registry.images or registry.images_by_tag_regex or registry.images_by_semver):
                warnings.append(f"{where}: {source} has no images")
            if (own := _settings(registry)) != HostSettings():
                hosts[source.host] = own
    if not (images or errors):
        errors.add(UsageError(f"{name} names no image"))
    errors.check()
    return MirrorRequest(tuple(images), tuple(targets), tuple(warnings), hosts)


def _image_requests(
    registry: _Registry,
    source: RegistryPrefix,
    node: yaml.Node,
    name: str,
    errors: FileErrors,
    *,
    scoped: bool,
) -> Iterator[ImageRequest]:
    rename = RenameRules(RenameRule(template=f"{{host}}/{_below(source)}{{path}}" if scoped else "{name}"))

    def image_request(
        path: str, line: int, tag: str = "", digest: str = "", *, rules: TagRules | None = None
    ) -> Iterator[ImageRequest]:
        """The image, if there is no error in what names it."""
        with errors.at(where := f"{name} line {line}", line=line):
            whole = hub_path(source, check_repository(path))
            checked = check_rules(rules) if rules else None
            yield ImageRequest(
                source,
                whole,
                check_tag(tag) if tag else "",
                parse_digest(digest) if digest else "",
                where,
                rules=checked,
                rename=rename,
            )

    def each(entries: Mapping[str, _T] | None, key: str) -> Iterator[tuple[str, _T, int]]:
        """The entries under a key, each with its line."""
        keys = child(node, key)
        pairs = keys.value if isinstance(keys, yaml.MappingNode) else ()
        lines = {str(at.value): line_of(at) for at, _ in pairs}
        for path, entry in (entries or {}).items():
            yield path, entry, lines[path]

    for path, tags, line in each(registry.images, "images"):
        if not tags:
            yield from image_request(path, line, rules=ALL_TAGS)
        for tag in tags or ():
            named = ("", tag) if ":" in tag else (tag, "")
            yield from image_request(path, line, *named)
    for path, pattern, line in each(registry.images_by_tag_regex, "images-by-tag-regex"):
        yield from image_request(path, line, rules=TagRules(include=(pattern or "",), anywhere=True))
    for path, semver, line in each(registry.images_by_semver, "images-by-semver"):
        yield from image_request(path, line, rules=TagRules(semver=(semver or "",), ranges="masterminds"))


def _below(source: RegistryPrefix) -> str:
    return f"{source.prefix}/" if source.prefix else ""


def _to_registry(node: yaml.Node, name: str, errors: FileErrors) -> _Registry | None:
    if isinstance(node, yaml.MappingNode):
        node.value = [pair for pair in node.value if not str(pair[0].value).startswith("x-")]
    return to_struct(node, name, _Registry, errors, as_written=True)


def _settings(registry: _Registry) -> HostSettings:
    login = registry.credentials
    folder = Path(registry.cert_dir or "")
    return HostSettings(
        verify=registry.tls_verify,
        credentials=_credentials(login) if login else None,
        trust=tls_settings_in((folder.parent,), folder.name) if registry.cert_dir else TlsSettings(),
    )


def _credentials(login: _Login) -> Credentials | None:
    found = Credentials(login.username or "", login.password or "", login.identitytoken or "")
    return found if found != Credentials() else None

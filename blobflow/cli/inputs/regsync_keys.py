"""The keys of regsync.yml, all that regsync 0.11 knows, and which of them have no effect here. Pure.

A key that chooses images, or parts of them, is carried out or refused (see `regsync`). An unknown key is an
error: it might choose. A key that only says how gives one warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from blobflow.cli.inputs.yaml_nodes import child, line_of, lines_text

# Keys without effect: why, and what to do instead.
_IGNORED_KEYS = {
    "parallel": "images are not what is done at once; see --concurrency",
    "ratelimit": "blobflow reads the registry's allowance itself; see --wait",
    "hooks": "nothing is run",
    "includeExternal": "nothing is fetched from the `urls` of layers; see --foreign-layers",
    "forceRecursive": "see --audit all",
    "referrerSlow": "",
    "blobLimit": "",
    "cacheCount": "",
    "cacheTime": "",
    "fastCopy": "it is not regsync's either",
    "skipDockerConfig": "logins of docker are used where the file has none",
    "userAgent": "blobflow says who it is",
    "regcert": "put the certificate into a file, and name that with --ca or in blobflow's configuration",
    "clientCert": "use --cert and --key, or blobflow's configuration",
    "clientKey": "use --cert and --key, or blobflow's configuration",
    "credHelper": 'name it in docker\'s config.json: {"credHelpers": {"HOST": "NAME"}}',
    "credExpire": "",
    "credHost": "",
    "priority": "mirrors are asked in the order in which they are listed",
    "repoAuth": "",
    "api": "",
    "apiOpts": "",
    "blobChunk": "",
    "blobMax": "",
}
_AUTOMATIC = "blobflow finds out by itself what is best"
# Values of such a key that need no warning.
_EMPTY_VALUES = ("", "false", "0")


class Tags(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    semver_range: tuple[str, ...] = ()


class Repos(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class ReferrerFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    artifact_type: str = ""
    annotations: dict[str, str] = {}


class _Common(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """The keys that entries and defaults share. None if a key is absent."""

    digest_tags: bool | None = None
    referrers: bool | None = None
    referrer_filters: tuple[ReferrerFilter, ...] | None = None
    referrer_source: str = ""
    referrer_target: str = ""
    fast_check: bool | None = None
    media_types: tuple[str, ...] = ()
    interval: str = ""
    schedule: str = ""
    referrer_slow: bool | None = None
    force_recursive: bool | None = None
    include_external: bool | None = None
    fast_copy: bool | None = None
    backup: str = ""
    ratelimit: dict[str, Any] = {}
    hooks: dict[str, Any] = {}
    # Of the defaults these are ours: regsync knows them in entries alone.
    platform: str = ""
    platforms: tuple[str, ...] = ()


class Entry(_Common, frozen=True, kw_only=True):
    source: str
    target: str
    type: str
    tags: Tags = Tags()
    tag_sets: tuple[Tags, ...] = ()
    repos: Repos = Repos()


class Defaults(_Common, frozen=True):
    parallel: int = 0
    blob_limit: int = 0
    cache_count: int = 0
    cache_time: str = ""
    skip_docker_config: bool = False
    user_agent: str = ""


class Creds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    registry: str
    user: str = ""
    password: str = msgspec.field(name="pass", default="")
    token: str = ""
    tls: str = ""
    scheme: str = ""
    hostname: str = ""
    path_prefix: str = ""
    mirrors: tuple[str, ...] = ()
    req_per_sec: float = 0
    req_concurrent: int | None = None
    regcert: str = ""
    client_cert: str = ""
    client_key: str = ""
    cred_helper: str = ""
    cred_expire: str = ""
    cred_host: str = ""
    priority: int = 0
    repo_auth: bool = False
    api: str = ""
    api_opts: dict[str, Any] = {}
    blob_chunk: int = 0
    blob_max: int = 0


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sync: tuple[Entry, ...]
    version: int = 1
    creds: tuple[Creds, ...] = ()
    defaults: Defaults = Defaults()


def ignored_key_warnings(root: yaml.Node, name: str) -> Iterator[str]:
    """A sentence for each known key that has no effect, with its lines."""
    lines: dict[str, list[int]] = {}
    for mapping in _mappings(root):
        for key, value in mapping.value:
            if key.value in _IGNORED_KEYS and not (
                isinstance(value, yaml.ScalarNode) and value.value in _EMPTY_VALUES
            ):
                lines.setdefault(key.value, []).append(line_of(key))
    for key, at in lines.items():
        yield f"{name} {lines_text(at)}: `{key}` has no effect: {_IGNORED_KEYS[key] or _AUTOMATIC}"


def _mappings(root: yaml.Node) -> Iterator[yaml.MappingNode]:
    """The mappings whose keys are checked: the defaults, each of the creds, each entry."""
    for key in ("creds", "defaults", "sync"):
        node = child(root, key)
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        yield from (each for each in nodes if isinstance(each, yaml.MappingNode))


def with_defaults(entry: Entry, defaults: Mapping[str, Any]) -> Entry:
    """An entry with the defaults for its absent keys. By regsync's rules its own interval also replaces the
    defaults' schedule."""
    own = msgspec.structs.asdict(entry)
    more = {key: value for key, value in defaults.items() if key in own and own[key] in (None, "", (), {})}
    if entry.interval or entry.schedule:
        more = {key: value for key, value in more.items() if key not in ("interval", "schedule")}
    if entry.platform or entry.platforms:
        more = {key: value for key, value in more.items() if key not in ("platform", "platforms")}
    return msgspec.structs.replace(entry, **more)

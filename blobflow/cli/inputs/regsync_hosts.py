"""The hosts of regsync.yml, under `creds`: their addresses, settings and logins.

Pure, but for files that templates name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from blobflow.cli.inputs.go_templates import render_template
from blobflow.cli.inputs.regsync_keys import Creds
from blobflow.cli.inputs.yaml_nodes import line_of, node_at
from blobflow.errors import InvalidConfig
from blobflow.file_errors import FileErrors
from blobflow.oci.reference import DOCKER_HUB, check_host
from blobflow.transports.registry import Credentials, HostSettings

# Where docker.io is by itself.
_DOCKER_HUB_HOSTS = ("registry-1.docker.io", "index.docker.io")


def parse_hosts(
    creds: Sequence[Creds], node: yaml.Node, name: str, environ: Mapping[str, str], errors: FileErrors
) -> tuple[dict[str, HostSettings], dict[str, str]]:
    """The settings by host, and the real names of hosts with a `hostname`. What is wrong goes to `errors`,
    which call the file, whose root is `node`, `name`."""
    registries: dict[str, tuple[Creds, str, int]] = {}
    names: dict[str, str] = {}
    for number, each in enumerate(creds):
        line = line_of(node_at(node, "creds", number))
        with errors.at(where := f"{name} line {line}", line=line):
            host = check_host(render_template(each.registry, environ))
            registries[host] = (each, where, line)
            if (there := _real_host(host, each)) != host:
                names[host] = there
    prefixes = {
        host: each.path_prefix.strip("/") for host, (each, *_) in registries.items() if each.path_prefix
    }
    mirrors = {mirror for each in creds for mirror in each.mirrors}
    hosts = {}
    for host, (each, where, line) in registries.items():
        with errors.at(where, line=line):
            if host in prefixes and host not in mirrors:
                raise InvalidConfig(
                    f"{host} has a pathPrefix and is no mirror; write that in `source` or `target`"
                )
            hosts[names.get(host, host)] = _settings(host, each, environ, names, prefixes)
    return hosts, names


def _settings(
    host: str, each: Creds, environ: Mapping[str, str], names: Mapping[str, str], prefixes: Mapping[str, str]
) -> HostSettings:
    tls = each.tls.lower()
    if tls not in ("", "enabled", "insecure", "disabled"):
        raise InvalidConfig(f"tls of {host} is enabled, insecure or disabled")
    user, password = render_template(each.user, environ), render_template(each.password, environ)
    return HostSettings(
        http=True if tls == "disabled" or each.scheme == "http" else None,
        verify=False if tls == "insecure" else None,
        credentials=Credentials(user, password, each.token) if user or each.token else None,
        mirrors=tuple(
            "/".join(filter(None, (names.get(mirror, mirror), prefixes.get(mirror))))
            for mirror in each.mirrors
        ),
        connections=each.req_concurrent or None,
        requests_per_second=each.req_per_sec,
    )


def _real_host(host: str, each: Creds) -> str:
    """The host that requests for a registry go to."""
    if not each.hostname or (host == DOCKER_HUB and each.hostname in _DOCKER_HUB_HOSTS):
        return host
    return check_host(each.hostname)

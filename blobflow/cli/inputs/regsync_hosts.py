"""The hosts of regsync.yml, under `creds`: their addresses, settings and logins.

Pure, but for files that templates name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from blobflow.cli.inputs.go_templates import render_template
from blobflow.cli.inputs.regsync_keys import Creds
from blobflow.errors import InvalidConfig, InvalidReference
from blobflow.oci.reference import DOCKER_HUB, check_host
from blobflow.transports.registry import Credentials, HostSettings

# Where docker.io is by itself.
_DOCKER_HUB_HOSTS = ("registry-1.docker.io", "index.docker.io")


def parse_hosts(
    creds: Sequence[Creds], name: str, environ: Mapping[str, str]
) -> tuple[dict[str, HostSettings], dict[str, str]]:
    """The settings by host, and the real names of hosts with a `hostname`; errors call the file `name`.

    Raises InvalidConfig.
    """
    try:
        return _parse_creds(creds, environ)
    except (InvalidConfig, InvalidReference) as error:
        raise InvalidConfig(f"{name}: {error}") from None


def _parse_creds(
    creds: Sequence[Creds], environ: Mapping[str, str]
) -> tuple[dict[str, HostSettings], dict[str, str]]:
    registries = {check_host(render_template(each.registry, environ)): each for each in creds}
    names = {host: there for host, each in registries.items() if (there := _real_host(host, each)) != host}
    prefixes = {host: each.path_prefix.strip("/") for host, each in registries.items() if each.path_prefix}
    mirrors = {mirror for each in creds for mirror in each.mirrors}
    hosts = {}
    for host, each in registries.items():
        tls = each.tls.lower()
        if tls not in ("", "enabled", "insecure", "disabled"):
            raise InvalidConfig(f"tls of {host} is enabled, insecure or disabled")
        if host in prefixes and host not in mirrors:
            raise InvalidConfig(
                f"{host} has a pathPrefix and is no mirror; write that in `source` or `target`"
            )
        user, password = render_template(each.user, environ), render_template(each.password, environ)
        hosts[names.get(host, host)] = HostSettings(
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
    return hosts, names


def _real_host(host: str, each: Creds) -> str:
    """The host that requests for a registry go to."""
    if not each.hostname or (host == DOCKER_HUB and each.hostname in _DOCKER_HUB_HOSTS):
        return host
    return check_host(each.hostname)

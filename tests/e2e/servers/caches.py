"""Caches of Debian before a registry: nginx's proxy_cache and Varnish, on free ports of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.e2e.servers.locked_registry import nginx_program
from tools.processes import listening

_NGINX = """\
daemon off;
master_process off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/errors.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused; uwsgi_temp_path {folder}/unused; scgi_temp_path {folder}/unused;
    client_max_body_size 0;
    proxy_cache_path {folder}/kept keys_zone=kept:1m;
    server {{
        listen {host};
        location / {{
            proxy_pass http://{upstream};
            proxy_set_header Host $http_host;
            {rules}
        }}
    }}
}}
"""


def varnish_program() -> str | None:
    return shutil.which("varnishd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def nginx(folder: Path, upstream: str, rules: str) -> Iterator[str]:
    """nginx that passes everything on to `upstream`, with these rules besides. Yields its host."""

    def command(host: str) -> list[str]:
        config = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_NGINX.format(folder=folder, host=host, upstream=upstream, rules=rules, user=user))
        return [nginx_program() or "nginx", "-e", str(folder / "errors.log"), "-c", str(config)]

    with listening(command, folder) as (host, _):
        yield host


@contextmanager
def varnish(folder: Path, upstream: str) -> Iterator[str]:
    """Varnish as it comes, which keeps what it may for two minutes."""

    def command(host: str) -> list[str]:
        where = ["-F", "-j", "none", "-n", str(folder / "work"), "-a", host, "-b", upstream]
        return [varnish_program() or "varnishd", *where, "-s", "malloc,64m"]

    with listening(command, folder) as (host, _):
        yield host


def nginx_that_keeps(folder: Path, upstream: str) -> AbstractContextManager[str]:
    """One that keeps whatever is answered, and says nothing of it."""
    return nginx(folder, upstream, "proxy_cache kept; proxy_cache_valid any 10m;")


CACHES: dict[str, tuple[Callable[[], str | None], Callable[[Path, str], AbstractContextManager[str]]]] = {
    "nginx": (nginx_program, nginx_that_keeps),
    "varnish": (varnish_program, varnish),
}

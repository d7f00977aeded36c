"""Debian's reverse proxies and caches before a registry, as processes on a free port of 127.0.0.1.

Each is started with as little configuration as it works with; what a test is about is added by its words. A
proxy answers as the registry behind it, and ends with its context.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tools.processes import Registry, serving

PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
PACKAGES = {"apache2": "apache2", "varnishd": "varnish", "nginx": "nginx-light"}
AS_ROOT = os.getuid() == 0


class Starts:
    """Starts one kind of proxy before `origin`, with `words` in its configuration."""

    def __init__(
        self, name: str, start: Callable[[Path, str, str], AbstractContextManager[Registry]]
    ) -> None:
        self.name = name
        self._start = start

    def __call__(self, folder: Path, origin: str, words: str = "") -> AbstractContextManager[Registry]:
        return self._start(folder, origin, words)

    def __str__(self) -> str:
        return self.name


def program(name: str) -> str:
    """Where a program is; a skip that names its Debian package where it is not."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"needs {name} (Debian: apt-get install {PACKAGES.get(name, name)})")
    return found


def _written(folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


@contextmanager
def nginx(folder: Path, origin: str, words: str = "", *, servers: str = "") -> Iterator[Registry]:
    """`words` go into its one location; `servers` beside its server, where `@ORIGIN@` is the registry."""

    def command(host: str) -> list[str]:
        temporary = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = f"""\
{"user root;" if AS_ROOT else ""} daemon off; worker_processes 1; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 256; }}
http {{
  access_log off; {temporary} limit_req_zone $server_name zone=all:1m rate=40r/s;
  server {{ listen {host}; location / {{ proxy_pass http://{origin}; {words} }} }}
  {servers.replace("@ORIGIN@", origin)}
}}
"""
        return [
            program("nginx"),
            "-e",
            "stderr",
            "-p",
            str(folder),
            "-c",
            _written(folder, "nginx.conf", text),
        ]

    with serving(command, folder) as proxy:
        yield proxy


@contextmanager
def haproxy(folder: Path, origin: str, words: str = "") -> Iterator[Registry]:
    """`words` are lines of its defaults."""

    def command(host: str) -> list[str]:
        text = f"""\
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  {words}
frontend front
  bind {host}
  default_backend registry
backend registry
  server registry {origin}
"""
        return [program("haproxy"), "-db", "-f", _written(folder, "haproxy.cfg", text)]

    with serving(command, folder) as proxy:
        yield proxy


@contextmanager
def apache(folder: Path, origin: str, words: str = "", *, servers: str = "") -> Iterator[Registry]:
    """`words` are directives of the whole server, `servers` what stands behind them."""

    def command(host: str) -> list[str]:
        modules = "".join(
            f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
            for name in ("mpm_event", "authz_core", "proxy", "proxy_http", "headers", "ssl")
        )
        text = f"""\
{modules}Listen {host}
ServerName {host}
{"User www-data" if AS_ROOT else ""}
{"Group www-data" if AS_ROOT else ""}
PidFile {folder}/pid
ErrorLog {folder}/error.log
ProxyPass / http://{origin}/
ProxyPassReverse / http://{origin}/
{words}
{servers}
"""
        return [
            program("apache2"),
            "-d",
            str(folder),
            "-f",
            _written(folder, "apache.conf", text),
            "-DFOREGROUND",
        ]

    with serving(command, folder) as proxy:
        yield proxy


@contextmanager
def squid(folder: Path, origin: str, words: str = "") -> Iterator[Registry]:
    """As it is by default, but for where it stands. It gives up root, so nothing of it is kept in a test's
    folder."""
    address, _, port = origin.partition(":")

    def command(host: str) -> list[str]:
        text = f"""\
http_port {host} accel defaultsite={host} no-vhost
cache_peer {address} parent {port} 0 no-query originserver
pid_filename none
access_log none
cache_log /dev/null
coredump_dir {tempfile.gettempdir()}
pinger_enable off
shutdown_lifetime 0 seconds
http_access allow all
{words}
"""
        # By its name it calls its shared memory, which would be there for the next one if it were killed.
        name = f"blobflow{host.rpartition(':')[2]}"
        return [program("squid"), "-N", "-n", name, "-f", _written(folder, "squid.conf", text)]

    with serving(command, folder) as proxy:
        yield proxy


@contextmanager
def varnish(folder: Path, origin: str, words: str = "") -> Iterator[Registry]:
    """`words` are subroutines of its VCL."""
    address, _, port = origin.partition(":")

    def command(host: str) -> list[str]:
        text = f'vcl 4.1;\nbackend default {{ .host = "{address}"; .port = "{port}"; }}\n{words}\n'
        jail = ["-j", "none"] if AS_ROOT else []
        where = ["-a", host, "-n", str(folder / "work"), "-s", "malloc,64m"]
        return [program("varnishd"), *jail, "-F", *where, "-f", _written(folder, "default.vcl", text)]

    with serving(command, folder) as proxy:
        yield proxy


@contextmanager
def caddy(folder: Path, origin: str, words: str = "") -> Iterator[Registry]:
    """`words` are directives of its one site."""

    def command(host: str) -> list[str]:
        text = f"""\
{{
  admin off
  auto_https off
}}
http://{host} {{
  {words}
  reverse_proxy {origin}
}}
"""
        config = _written(folder, "Caddyfile", text)
        return [program("caddy"), "run", "--config", config, "--adapter", "caddyfile"]

    with serving(command, folder) as proxy:
        yield proxy


NGINX, HAPROXY, APACHE, SQUID, VARNISH, CADDY = ALL = (
    Starts("nginx", nginx),
    Starts("haproxy", haproxy),
    Starts("apache", apache),
    Starts("squid", squid),
    Starts("varnish", varnish),
    Starts("caddy", caddy),
)

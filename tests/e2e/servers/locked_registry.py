"""Registries behind locks, as processes: TLS by an authority of the test's own, logins, client certificates.

Keys and certificates are openssl's, as an administrator would make them. Nothing knows of pytest.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tools.checkout import TOP
from tools.processes import BLOBFLOW, Process, environment, listening
from tools.processes import blobflow as run_blobflow

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_RSA = ("-newkey", "rsa:2048", "-nodes")
RUN_SECONDS = 120.0


class KeyFiles(NamedTuple):
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority that nobody trusts unless told to. `pem` is its certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.pem, self._key = folder / "ca.pem", folder / "ca.key"
        own = (
            "-x509",
            "-subj",
            "/CN=a private authority",
            "-days",
            "30",
            "-keyout",
            self._key,
            "-out",
            self.pem,
        )
        openssl("req", *_EC, *own, "-addext", "keyUsage=critical,keyCertSign")

    def issue(self, name: str, places: str = "") -> KeyFiles:
        """A certificate for `places`, as `IP:127.0.0.1,DNS:registry.test`; for a client without any."""
        files = KeyFiles(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, said = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        said.write_text(f"subjectAltName={places}\n" if places else "extendedKeyUsage=clientAuth\n")
        openssl("req", *_EC, "-subj", f"/CN={name}", "-keyout", files.key, "-out", request)
        signed = ("-CA", self.pem, "-CAkey", self._key, "-CAcreateserial", "-days", "30", "-extfile", said)
        openssl("x509", "-req", "-in", request, *signed, "-out", files.cert)
        return files

    def issue_between(self, name: str, begins: str, ends: str) -> KeyFiles:
        """A certificate for 127.0.0.1 that is valid from one `YYYYMMDDhhmmssZ` to another."""
        folder, files = self._folder, self.issue(name, "IP:127.0.0.1")
        (folder / f"{name}.txt").touch()
        (folder / f"{name}.cnf").write_text(
            "[ca]\ndefault_ca = own\n[own]\n"
            f"database = {folder}/{name}.txt\nnew_certs_dir = {folder}\nrand_serial = yes\n"
            "default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n"
        )
        signed = ("-cert", self.pem, "-keyfile", self._key, "-extfile", folder / f"{name}.ext")
        dates = ("-startdate", begins, "-enddate", ends)
        own = ("-config", folder / f"{name}.cnf", "-in", folder / f"{name}.csr", "-out", files.cert)
        openssl("ca", "-batch", "-notext", *own, *signed, *dates)
        return files


def self_signed(folder: Path, name: str) -> KeyFiles:
    """An RSA key with a certificate of its own: what signs tokens."""
    files = KeyFiles(folder / f"{name}.pem", folder / f"{name}.key")
    own = ("-x509", "-subj", f"/CN={name}", "-days", "30", "-keyout", files.key, "-out", files.cert)
    openssl("req", *_RSA, *own)
    return files


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=RUN_SECONDS)


class Locked:
    """A docker-registry that only its keyholders can ask; its storage tells what it holds."""

    def __init__(self, host: str, folder: Path, process: Process) -> None:
        self.host = host
        self.log = folder / "access.log"
        self.process = process
        self._root = folder / "storage"

    def digest_of(self, repository: str, tag: str) -> str | None:
        """The digest that a tag names, None where there is none."""
        link = f"docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link"
        file = self._root / link
        return file.read_text() if file.exists() else None


@contextmanager
def locked_registry(
    folder: Path, tls: KeyFiles | None = None, auth: Mapping[str, Any] | None = None
) -> Iterator[Locked]:
    """Debian's docker-registry with `tls` and docker's `auth` section, on a free port of 127.0.0.1."""

    def command(host: str) -> list[str]:
        http: dict[str, Any] = {"addr": host}
        if tls:
            http["tls"] = {"certificate": str(tls.cert), "key": str(tls.key)}
        storage = {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}}
        config = {"version": "0.1", "log": {"level": "error"}, "storage": storage, "http": http}
        file = folder / "config.json"
        file.write_text(json.dumps(config | ({"auth": dict(auth)} if auth else {})))  # JSON is YAML
        return ["docker-registry", "serve", str(file)]

    with listening(command, folder) as (host, process):
        yield Locked(host, folder, process)


_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/errors.log;
events {{}}
http {{
    access_log {folder}/access.log;
    log_format sent '$request_method $status location=$upstream_http_location';
    access_log {folder}/locations.log sent;
    client_body_temp_path {folder}/bodies; proxy_temp_path {folder}/answers;
    fastcgi_temp_path {folder}/unused; uwsgi_temp_path {folder}/unused; scgi_temp_path {folder}/unused;
    client_max_body_size 0;
    server {{
        listen {host} ssl;
        ssl_certificate {tls.cert};
        ssl_certificate_key {tls.key};
        {rest}
    }}
}}
"""
_LOCKED = """\
ssl_client_certificate {ca};
ssl_verify_client on;
location / {{
    proxy_pass http://{upstream};
    proxy_set_header Host $http_host;
    proxy_redirect off;
    proxy_request_buffering off;
}}
"""


def nginx_program() -> str | None:
    """Where nginx is; a user's PATH may lack Debian's place for it."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def nginx(folder: Path, upstream: str, tls: KeyFiles, ca: Path) -> Iterator[str]:
    """nginx that ends TLS, lets in who shows a certificate of `ca`, and tells the registry behind it no more
    than the host's name: so that answers with http:// Locations. Yields its host."""
    with nginx_with(folder, tls, _LOCKED.format(ca=ca, upstream=upstream)) as host:
        yield host


@contextmanager
def nginx_with(folder: Path, tls: KeyFiles, rest: str) -> Iterator[str]:
    """nginx that ends TLS; `rest` is what else its server block says. Yields its host."""

    def command(host: str) -> list[str]:
        config = folder / "nginx.conf"
        config.write_text(_NGINX.format(folder=folder, host=host, tls=tls, rest=rest))
        return [nginx_program() or "nginx", "-e", str(folder / "errors.log"), "-c", str(config)]

    with listening(command, folder) as (host, _):
        yield host


class Told(NamedTuple):
    """How a blobflow process ended, and all that it said."""

    code: int
    out: str
    err: str


def blobflow(
    *arguments: str | Path, home: Path, given: str = "", variables: Mapping[str, str] | None = None
) -> Told:
    """Run blobflow as a process of its own, with `given` on its stdin and some more `variables`."""
    if given:
        return _told([*BLOBFLOW, *map(str, arguments)], home, given, variables or {})
    done = run_blobflow(*arguments, home=home, variables=variables)
    return Told(done.code, done.out, done.err)


def skopeo(verb: str, *arguments: str | Path, home: Path, given: str = "") -> Told:
    """Run skopeo; the test's user name and `given`, its password, are for its `login`."""
    login = ("--username", "joe", "--password-stdin") if verb == "login" else ()
    return _told(["skopeo", verb, *login, *map(str, arguments)], home, given, {})


def _told(command: Sequence[str], home: Path, given: str, variables: Mapping[str, str]) -> Told:
    done = subprocess.run(
        command,
        input=given,
        env=environment(home) | dict(variables),
        cwd=TOP,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr)

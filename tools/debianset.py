"""A set of real images made of Debian's own packages: what is in it, and how it is made with apt and dpkg.

The same packages at the same versions give the same digests on a machine. Sources and keys are those of the
machine's own apt, copied into a private state that is gone when the set is made. Only the standard library.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple, cast
from urllib.parse import unquote

from tools.imagelayout import (
    DOCKER,
    OCI,
    WORK,
    ImageSetError,
    Json,
    MediaTypes,
    Say,
    blob_path,
    encode,
    fingerprint,
    finish,
    keep,
)

# Debian's name of an architecture, and the platform that a config and an index give it.
PLATFORMS = {
    "amd64": {"architecture": "amd64", "os": "linux"},
    "arm64": {"architecture": "arm64", "os": "linux", "variant": "v8"},
    "armhf": {"architecture": "arm", "os": "linux", "variant": "v7"},
}

# Layers of `Architecture: all` packages: one blob for all platforms.
SHARED = {
    "certs": "ca-certificates netbase media-types",
    "zoneinfo": "tzdata",
    "locales": "locales",
    "terminfo": "ncurses-base readline-common",
    "dns-root": "dns-root-data",
    "nginx-common": "nginx-common",
    "pg-common": "postgresql-common postgresql-client-common",
    "python-doc": "python3.11-doc",
    "pip": "python3-pip python3-setuptools python3-wheel",
    "perl-modules": "perl-modules-5.36",
    "fonts": "fonts-noto-cjk",
}

# Layers with one blob for each platform.
NATIVE = {
    "base": "base-files libc6 libgcc-s1 gcc-12-base libcrypt1 zlib1g libssl3 dash debianutils",
    "tools": "bash coreutils sed grep gzip tar findutils mawk libtinfo6 libacl1 libattr1 libselinux1",
    "perl-base": "perl-base",
    "perl": "perl libgdbm6 libdb5.3",
    "icu": "libstdc++6 libicu72",
    "busybox": "busybox-static",
    "catatonit": "catatonit",
    "unbound": "unbound dnsmasq-base libevent-2.1-7 libexpat1",
    "kubectl": "kubernetes-client",
    "tables": "iptables nftables libnftables1 libnftnl11 libmnl0 libxtables12 libip4tc2 conntrack ipset",
    "iproute": "iproute2",
    "caddy": "caddy",
    "etcdctl": "etcd-client",
    "node-exporter": "prometheus-node-exporter",
    "nginx": "nginx libpcre2-8-0",
    "redis": "redis-tools redis-server liblua5.1-0 libjemalloc2 liblzf1",
    "pg-client": "postgresql-client-15 libpq5",
    "pg-server": "postgresql-15",
    "python-minimal": "python3.11-minimal libpython3.11-minimal libexpat1",
    "python": "python3.11 libpython3.11-stdlib",
    "extras": "curl libcurl4 openssl sqlite3 libsqlite3-0 vim-tiny jq libreadline8",
}

# The first eight names are those of the air-gap list of K3s; the layers stand in the order they are stacked.
IMAGES = {
    "rancher/coredns-coredns:1.8.3": "certs base dns-root unbound",
    "rancher/klipper-helm:v0.6.6-build20211022": "base certs tools kubectl",
    "rancher/klipper-lb:v0.3.4": "base tools tables iproute",
    "rancher/library-busybox:1.32.1": "busybox",
    "rancher/library-traefik:2.4.8": "certs zoneinfo caddy",
    "rancher/local-path-provisioner:v0.0.19": "base certs tools etcdctl",
    "rancher/metrics-server:v0.3.6": "certs node-exporter",
    "rancher/pause:3.1": "catatonit",
    "debian/nginx:1.22": "base certs zoneinfo nginx-common nginx",
    "debian/redis:7.0": "base certs zoneinfo redis",
    "debian/postgres:15": "base certs zoneinfo locales tools perl-base pg-common icu pg-client pg-server",
    "debian/python:3.11": "base certs zoneinfo python-minimal python pip python-doc",
    "debian/report:3.11": "base certs zoneinfo python-minimal python pip icu fonts",
    "debian/perl:5.36": "base certs tools perl-base perl-modules perl",
    "debian/tools:12": "base certs zoneinfo terminfo tools perl-base extras",
}

DOCKER_IMAGES = frozenset({"rancher/library-traefik:2.4.8", "rancher/library-busybox:1.32.1"})

CREATED = "1970-01-01T00:00:00Z"
COMPRESSION = 1  # zlib's level 6 takes several times as long, for blobs that are little smaller
BLOCK = (
    128 * 1024
)  # of a layer's tar given to the compressor at once: long enough to run beside other threads

Key = tuple[str, str]  # a layer or a package, and Debian's name of an architecture or `all`
Versions = dict[str, dict[str, str]]


class Layer(NamedTuple):
    digest: str
    size: int
    diff_id: str


def recipe_stamp() -> str:
    """What tells one recipe from another: the set at a path is made anew where it changed."""
    return fingerprint([PLATFORMS, SHARED, NATIVE, IMAGES, sorted(DOCKER_IMAGES), COMPRESSION])


def make(path: Path, stamp: str, say: Say) -> None:
    work = path / WORK
    debs = Apt(work, say).download(_wanted())
    jobs = sorted(_layer_jobs(debs), key=lambda job: -sum(deb.stat().st_size for deb in job[1]))
    say(f"packing {len(jobs)} layers")
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        packed = pool.map(lambda job: _pack(path, job[1]), jobs)
        layers = {key: layer for (key, _), layer in zip(jobs, packed, strict=True)}
    versions: Versions = {}
    for (package, architecture), deb in sorted(debs.items()):
        versions.setdefault(package, {})[architecture] = unquote(deb.stem.split("_")[1])
    roots = {name: _image(path, name, layers, versions) for name in IMAGES}
    used = {f"{name}/{architecture}": layer.digest for (name, architecture), layer in sorted(layers.items())}
    finish(path, roots, {"packages": versions, "layers": used}, stamp)


def _wanted() -> list[Key]:
    """Every (package, architecture) of the recipe, `all` being an architecture here."""
    shared = {(package, "all") for packages in SHARED.values() for package in packages.split()}
    native = {package for packages in NATIVE.values() for package in packages.split()}
    return sorted(shared | {(package, architecture) for package in native for architecture in PLATFORMS})


def _layer_jobs(debs: dict[Key, Path]) -> Iterator[tuple[Key, list[Path]]]:
    for recipe, architectures in ((SHARED, ["all"]), (NATIVE, list(PLATFORMS))):
        for name, packages in recipe.items():
            for architecture in architectures:
                yield (name, architecture), [debs[package, architecture] for package in packages.split()]


class Apt:
    """An apt whose state, cache and sources are below `work`; its keys and the rest are the machine's."""

    def __init__(self, work: Path, say: Say) -> None:
        self._work = work.absolute()
        self._say = say

    def download(self, wanted: list[Key]) -> dict[Key, Path]:
        """Download the newest version of each (package, architecture); returns the files."""
        self._prepare()
        self._update()
        known = self._run("apt-cache", "show", "--no-all-versions", *map(_request, wanted)).stdout
        fields = re.findall(r"^(Package|Architecture): (\S+)$", known, re.MULTILINE)
        names = {tuple(sorted(pair)) for pair in zip(fields[::2], fields[1::2], strict=True)}
        missing = [f"{p} for {a}" for p, a in wanted if (("Architecture", a), ("Package", p)) not in names]
        if missing:
            raise ImageSetError(f"the package lists have no {', no '.join(missing)}")
        self._say(f"downloading {len(wanted)} packages")
        done = self._run("apt-get", "download", *map(_request, wanted), cwd=self._work / "debs")
        if done.returncode:
            raise ImageSetError(f"apt-get could not download the packages: {_complaint(done.stderr)}")
        return {key: self._file(*key) for key in wanted}

    def _prepare(self) -> None:
        for folder in ("state/lists/partial", "cache/archives/partial", "sources", "debs"):
            (self._work / folder).mkdir(parents=True)
        (self._work / "status").touch()
        machine = Path("/etc/apt")
        for file in [*machine.glob("sources.list"), *machine.glob("sources.list.d/*")]:
            if file.suffix in (".list", ".sources"):
                shutil.copy(file, self._work / "sources")
        names = " ".join(f'"{architecture}";' for architecture in PLATFORMS)
        # The hooks go because they clean the machine's cache; apt's sandbox user can't write into our folder.
        (self._work / "apt.conf").write_text(f"""
            #clear APT::Architectures;
            #clear APT::Update::Pre-Invoke;
            #clear APT::Update::Post-Invoke;
            #clear APT::Update::Post-Invoke-Success;
            APT::Architecture "amd64";
            APT::Architectures {{ {names} }};
            APT::Sandbox::User "root";
            Acquire::Languages "none";
            Acquire::Retries "3";
            Dir::State "{self._work}/state";
            Dir::State::status "{self._work}/status";
            Dir::Cache "{self._work}/cache";
            Dir::Etc::sourcelist "/dev/null";
            Dir::Etc::sourceparts "{self._work}/sources";
        """)

    def _update(self) -> None:
        """Fetch the package lists; a source without them is left out, if every architecture has another."""
        self._say("fetching package lists")
        done = self._run("apt-get", "update")
        lists = self._work / "state" / "lists"
        missing = [a for a in PLATFORMS if not any(lists.glob(f"*_binary-{a}_Packages*"))]
        if missing:
            raise ImageSetError(f"no package lists for {', '.join(missing)}: {_complaint(done.stderr)}")
        if done.returncode:
            self._say(f"going on without some package lists: {_complaint(done.stderr)}")

    def _run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"APT_CONFIG": str(self._work / "apt.conf"), "LC_ALL": "C"}
        try:
            return subprocess.run(
                command, env=environment, cwd=cwd, capture_output=True, text=True, check=False
            )
        except FileNotFoundError as error:
            raise ImageSetError(f"{command[0]} is needed to make the set, and isn't here") from error

    def _file(self, package: str, architecture: str) -> Path:
        files = list((self._work / "debs").glob(f"{package}_*_{architecture}.deb"))
        if len(files) != 1:
            raise ImageSetError(f"apt-get gave {len(files)} files of {package} for {architecture}")
        return files[0]


def _request(wanted: Key) -> str:
    """How apt is asked for a package; one for `all` comes as the first architecture's."""
    package, architecture = wanted
    return package if architecture == "all" else f"{package}:{architecture}"


def _complaint(text: str) -> str:
    """apt's first error or warning without addresses, which are nobody's business in a log."""
    errors = [line[3:] for line in text.splitlines() if line.startswith(("E: ", "W: "))]
    if not errors:
        return "apt said nothing"
    return re.sub(r"\s*\[IP: [^]]*\]", "", re.sub(r"\w+://[^/\s]+", "", errors[0])).strip()


class LayerFile:
    """A file that takes a tar and writes it gzip'ed, with the digests of both."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        # 16 asks for a gzip header, which then has neither a name nor a time.
        self._gzip = zlib.compressobj(COMPRESSION, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        self._tar_hash = hashlib.sha256()
        self._hash = hashlib.sha256()
        self._size = 0

    def write(self, tar: bytes) -> int:
        self._tar_hash.update(tar)
        self._emit(self._gzip.compress(tar))
        return len(tar)

    def finish(self) -> Layer:
        self._emit(self._gzip.flush())
        return Layer(f"sha256:{self._hash.hexdigest()}", self._size, f"sha256:{self._tar_hash.hexdigest()}")

    def _emit(self, blob: bytes) -> None:
        self._hash.update(blob)
        self._size += self._file.write(blob)


def _pack(path: Path, debs: list[Path]) -> Layer:
    """Pack the packages' files into one layer of the layout, the same for the same packages."""
    with ExitStack() as stack:
        out = stack.enter_context(tempfile.NamedTemporaryFile(dir=path / WORK, delete=False))
        members: dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]] = {}
        for deb in debs:
            spool = stack.enter_context(tempfile.TemporaryFile(dir=path / WORK))
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=spool, check=True)
            spool.seek(0)
            tar = stack.enter_context(tarfile.open(fileobj=spool, mode="r:"))
            for member in tar:
                members.setdefault(posixpath.normpath(member.name), (tar, member))
        layer_file = LayerFile(out)
        _write_tar(layer_file, members)
        layer = layer_file.finish()
    Path(out.name).chmod(0o644)
    Path(out.name).rename(blob_path(path, layer.digest))
    return layer


def _write_tar(out: LayerFile, members: dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]]) -> None:
    """Write the members sorted by name, but hard links after all that they can link to."""
    members.pop(".", None)
    stream = cast("IO[bytes]", out)
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT, bufsize=BLOCK) as tar:
        for name, (origin, member) in sorted(members.items(), key=lambda item: (item[1][1].islnk(), item[0])):
            member.name, member.pax_headers = name, {}
            if member.islnk():
                member.linkname = posixpath.normpath(member.linkname)
            tar.addfile(member, origin.extractfile(member) if member.isreg() else None)


def _image(path: Path, name: str, layers: dict[Key, Layer], versions: Versions) -> Json:
    """Write the image's configs, manifests and index; returns the index's descriptor."""
    types = DOCKER if name in DOCKER_IMAGES else OCI
    children = []
    for debian, platform in PLATFORMS.items():
        stack = [(layer, "all" if layer in SHARED else debian) for layer in IMAGES[name].split()]
        config = {
            "created": CREATED,
            **platform,
            "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layers[key].diff_id for key in stack]},
            "history": [{"created": CREATED, "created_by": _story(*key, versions)} for key in stack],
        }
        content = {
            "config": keep(path, types.config, encode(config)),
            "layers": [
                {"mediaType": types.layer, "digest": layers[key].digest, "size": layers[key].size}
                for key in stack
            ],
        }
        children.append(_manifest(path, types, types.manifest, content) | {"platform": platform})
    return _manifest(path, types, types.index, {"manifests": children})


def _manifest(path: Path, types: MediaTypes, media_type: str, content: Json) -> Json:
    return keep(
        path, media_type, encode({"schemaVersion": 2, "mediaType": media_type, **content}, types.indent)
    )


def _story(layer: str, architecture: str, versions: Versions) -> str:
    packages = (SHARED | NATIVE)[layer].split()
    return "dpkg-deb --extract " + " ".join(
        f"{package}={versions[package][architecture]}" for package in packages
    )

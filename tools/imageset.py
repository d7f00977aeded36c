#!/usr/bin/env python3
"""A real multi-platform image set made of Debian's own packages, and a plain way to push it.

    imageset.py make DIR                      15 images for linux/amd64, linux/arm64 and linux/arm/v7
    imageset.py synthetic DIR --seed N        the small set of blobflow.oci.sample, nothing downloaded
    imageset.py push DIR HOST:PORT            into a plain-http registry on loopback
    imageset.py show DIR                      what is in DIR

DIR becomes an OCI image layout with two files beside it: `images.txt`, one `repository:tag` a line, and
`packages.json`, the versions that went in. The same packages at the same versions give the same digests on a
machine, and a complete DIR (its stamp is written last) is left as it is. Sources and keys are those of the
machine's own apt, copied into a private state that is gone when the set is made.

Only the standard library, and nothing of the engine: what tests the engine must not share its mistakes.
"""

import argparse
import fcntl
import hashlib
import http.client
import importlib.util
import json
import os
import posixpath
import queue
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NamedTuple, cast
from urllib.parse import quote, unquote, urlsplit

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
PUSHES = 4  # requests at once
LOCK, STAMP, WORK = ".imageset.lock", ".imageset.stamp", ".imageset.work"

Json = dict[str, Any]
Say = Callable[[str], None]
Key = tuple[str, str]  # a layer or a package, and Debian's name of an architecture or `all`
Versions = dict[str, dict[str, str]]


class ImageSetError(Exception):
    """What went wrong, as one sentence for the person at the terminal."""


@dataclass(frozen=True)
class MediaTypes:
    """One family of media types, and how deep its tools indent manifests."""

    index: str
    manifest: str
    config: str
    layer: str
    indent: int | None


OCI = MediaTypes(
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    None,
)
DOCKER = MediaTypes(
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    3,
)


class Image(NamedTuple):
    """One image of a layout: its root, its children (digest: media type) and its blobs (digest: bytes)."""

    name: str
    digest: str
    media_type: str
    size: int
    children: dict[str, str]
    blobs: dict[str, int]

    @property
    def repository(self) -> str:
        return self.name.rpartition(":")[0]

    @property
    def tag(self) -> str:
        return self.name.rpartition(":")[2]


class Layout(NamedTuple):
    """A layout that was read: its images by name."""

    path: Path
    images: dict[str, Image]

    @property
    def blobs(self) -> dict[str, int]:
        """Every config and layer that an image reaches, with its size in bytes."""
        return {digest: size for image in self.images.values() for digest, size in image.blobs.items()}

    @property
    def unique_bytes(self) -> int:
        return sum(self.blobs.values())

    @property
    def referenced_bytes(self) -> int:
        """The bytes of all images' blobs, counted again for each image that has them."""
        return sum(sum(image.blobs.values()) for image in self.images.values())

    def blob(self, digest: str) -> Path:
        """The file of a blob or manifest."""
        return _blob_path(self.path, digest)


class Pushed(NamedTuple):
    """What a push did; a blob or manifest counts once for each repository, tags don't count."""

    sent: int
    present: int
    sent_bytes: int
    manifests: int


class Layer(NamedTuple):
    digest: str
    size: int
    diff_id: str


def make(path: str | Path, say: Say = lambda _: None) -> Layout:
    """Make the set of Debian packages at `path`, unless it is complete there, and read it.

    Needs apt-get and dpkg-deb, package lists of all three architectures, and 2 GB for a while. Processes that
    make the same path wait for each other. Raises ImageSetError, also when a package is missing.
    """
    stamp = _fingerprint([PLATFORMS, SHARED, NATIVE, IMAGES, sorted(DOCKER_IMAGES), COMPRESSION])
    with _claimed(Path(path), stamp) as complete:
        if not complete:
            _make(Path(path), stamp, say)
    return read_layout(path)


def synthetic(path: str | Path, seed: int, images: int = 8, layer_size: int = 128 * 1024) -> Layout:
    """Write the sample set of `seed` at `path`, unless it is complete there, and read it.

    `layer_size` in bytes, as the sample set has it.
    """
    sample = _sample_module().sample_set(seed, images=images, layer_size=layer_size)
    stamp = _fingerprint({name: stored.digest for name, stored in sample.images.items()})
    with _claimed(Path(path), stamp) as complete:
        if not complete:
            for raw in [*sample.blobs.values(), *(stored.raw for stored in sample.manifests.values())]:
                _keep(Path(path), "", raw)
            roots = {name: _keep(Path(path), *stored) for name, stored in sample.images.items()}
            _finish(Path(path), roots, {}, stamp)
    return read_layout(path)


def read_layout(path: str | Path) -> Layout:
    """Read an image layout whose roots are indexes of image manifests; ImageSetError where there is none."""
    images = {}
    try:
        for root in json.loads((Path(path) / "index.json").read_bytes())["manifests"]:
            name = root["annotations"]["org.opencontainers.image.ref.name"]
            images[name] = _read_image(Path(path), name, root)
    except (OSError, ValueError, KeyError) as error:
        raise ImageSetError(f"{path} is not a complete image layout: {error!r}") from error
    return Layout(Path(path), images)


def push(path: str | Path, host: str, prefix: str = "") -> Pushed:
    """Push the layout at `path` into the plain-http registry `host`, a HOST:PORT on loopback.

    Each repository gets `prefix/` before its name. A blob is asked for by HEAD and sent at most once to each
    repository, in one PUT, the largest first; then come the children by digest, the roots by digest, and the
    tags last. Raises ImageSetError with the registry's own words.
    """
    layout = read_layout(path)
    blobs: dict[tuple[str, str], int] = {}
    children, roots, tags = set[Put](), set[Put](), set[Put]()
    for image in layout.images.values():
        repository = posixpath.join(prefix.strip("/"), image.repository)
        blobs |= {(repository, digest): size for digest, size in image.blobs.items()}
        children |= {Put(repository, digest, digest, kind) for digest, kind in image.children.items()}
        roots.add(Put(repository, image.digest, image.digest, image.media_type))
        tags.add(Put(repository, image.tag, image.digest, image.media_type))
    registry = Registry(host)
    with ThreadPoolExecutor(PUSHES) as pool:
        largest_first = sorted(blobs, key=lambda key: (-blobs[key], key))
        missing = list(
            pool.map(lambda key: registry.push(key[0], key[1], layout.blob(key[1])), largest_first)
        )
        for puts in (children, roots, tags):
            list(pool.map(lambda put: registry.put(put, layout.blob(put.digest)), sorted(puts)))
    registry.close()
    sent = [blobs[key] for key, was_missing in zip(largest_first, missing, strict=True) if was_missing]
    return Pushed(len(sent), len(blobs) - len(sent), sum(sent), len(children) + len(roots))


class Put(NamedTuple):
    """A manifest to be put, `name` being its digest or a tag."""

    repository: str
    name: str
    digest: str
    media_type: str


class Registry:
    """A plain-http registry on loopback, asked over `PUSHES` kept connections."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        if not port.isdecimal() or not _is_loopback(name):
            raise ImageSetError(f"{host} is not a HOST:PORT on loopback")
        self._host = host
        self._idle: queue.SimpleQueue[http.client.HTTPConnection] = queue.SimpleQueue()
        for _ in range(PUSHES):
            connection = http.client.HTTPConnection(name.strip("[]"), int(port), 120, blocksize=1 << 20)
            self._idle.put(connection)

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()

    def push(self, repository: str, digest: str, path: Path) -> bool:
        """Send the blob unless the repository has it; returns whether it was sent. [end-2, end-4b, end-6]"""
        if self._ask("HEAD", f"/v2/{repository}/blobs/{digest}", (200, 404))[0] == 200:
            return False
        where = urlsplit(self._ask("POST", f"/v2/{repository}/blobs/uploads/", (202,))[1])
        if where.netloc not in ("", self._host):
            raise ImageSetError(f"{self._host} sends uploads to another host, {where.netloc}")
        query = "&".join(filter(None, [where.query, f"digest={quote(digest, safe='')}"]))
        headers = {"Content-Length": str(path.stat().st_size), "Content-Type": "application/octet-stream"}
        with path.open("rb") as body:
            self._ask("PUT", f"{where.path}?{query}", (201,), headers, body)
        return True

    def put(self, put: Put, path: Path) -> None:
        """Put the manifest that is in the file. [end-7]"""
        target = f"/v2/{put.repository}/manifests/{put.name}"
        self._ask("PUT", target, (201,), {"Content-Type": put.media_type}, path.read_bytes())

    def _ask(
        self, method: str, target: str, wanted: tuple[int, ...], headers: Json | None = None, body: Any = None
    ) -> tuple[int, str]:
        """The answer's status, one of those wanted, and its Location."""
        connection = self._idle.get()
        try:
            connection.request(method, target, body, headers or {})
            with connection.getresponse() as answer:
                words = answer.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ImageSetError(f"{method} {target} at {self._host} failed: {error!r}") from error
        finally:
            self._idle.put(connection)
        if answer.status not in wanted:
            raise ImageSetError(
                f"{method} {target} at {self._host} was answered {answer.status}: {words[:500]}"
            )
        return answer.status, answer.headers.get("Location", "")


def _is_loopback(name: str) -> bool:
    try:
        return name == "localhost" or ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


# The layout


@contextmanager
def _claimed(path: Path, stamp: str) -> Iterator[bool]:
    """Hold the path alone; gives whether it is complete, and empties it (of what is ours) if it isn't."""
    path.mkdir(parents=True, exist_ok=True)
    if any(path.iterdir()) and not (path / LOCK).exists():
        raise ImageSetError(f"{path} is not empty and not an image set made by this tool")
    with (path / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = (path / STAMP).exists() and (path / STAMP).read_text() == stamp
        if not complete:
            (path / STAMP).unlink(missing_ok=True)
            for name in ("blobs", WORK):
                shutil.rmtree(path / name, ignore_errors=True)
            (path / "blobs" / "sha256").mkdir(parents=True)
        try:
            yield complete
        finally:
            shutil.rmtree(path / WORK, ignore_errors=True)


def _keep(path: Path, media_type: str, raw: bytes) -> Json:
    """Write the bytes as a blob of the layout; returns their descriptor."""
    encoded = hashlib.sha256(raw).hexdigest()
    (path / "blobs" / "sha256" / encoded).write_bytes(raw)
    return {"mediaType": media_type, "digest": f"sha256:{encoded}", "size": len(raw)}


def _finish(path: Path, roots: dict[str, Json], packages: Json, stamp: str) -> None:
    """Write everything but the blobs, the stamp last."""
    named = [
        root | {"annotations": {"org.opencontainers.image.ref.name": name}} for name, root in roots.items()
    ]
    (path / "index.json").write_bytes(
        _encode({"schemaVersion": 2, "mediaType": OCI.index, "manifests": named})
    )
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (path / "images.txt").write_text("".join(f"{name}\n" for name in roots))
    (path / "packages.json").write_bytes(_encode(packages, indent=2))
    (path / STAMP).write_text(stamp)


def _read_image(path: Path, name: str, root: Json) -> Image:
    listing = json.loads(_blob_path(path, root["digest"]).read_bytes())
    blobs: dict[str, int] = {}
    for child in listing["manifests"]:
        manifest = json.loads(_blob_path(path, child["digest"]).read_bytes())
        blobs |= {blob["digest"]: blob["size"] for blob in [manifest["config"], *manifest["layers"]]}
    children = {child["digest"]: child["mediaType"] for child in listing["manifests"]}
    return Image(name, root["digest"], root["mediaType"], root["size"], children, blobs)


def _blob_path(path: Path, digest: str) -> Path:
    return path.joinpath("blobs", *digest.split(":"))


def _encode(content: Json, indent: int | None = None) -> bytes:
    separators = (",", ":") if indent is None else None
    return json.dumps(content, indent=indent, separators=separators).encode()


def _fingerprint(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sample_module() -> ModuleType:
    """The sample module by its file: the package around it may import what a plain Python hasn't got."""
    file = Path(__file__).resolve().parent.parent / "blobflow" / "oci" / "sample.py"
    spec = importlib.util.spec_from_file_location("blobflow_sample", file)
    if spec is None or spec.loader is None:
        raise ImageSetError(f"{file} can't be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


# The set of Debian packages


def _make(path: Path, stamp: str, say: Say) -> None:
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
    _finish(path, roots, {"packages": versions, "layers": used}, stamp)


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

    def _run(self, *command: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
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
    Path(out.name).rename(_blob_path(path, layer.digest))
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
            "config": _keep(path, types.config, _encode(config)),
            "layers": [
                {"mediaType": types.layer, "digest": layers[key].digest, "size": layers[key].size}
                for key in stack
            ],
        }
        children.append(_manifest(path, types, types.manifest, content) | {"platform": platform})
    return _manifest(path, types, types.index, {"manifests": children})


def _manifest(path: Path, types: MediaTypes, media_type: str, content: Json) -> Json:
    return _keep(
        path, media_type, _encode({"schemaVersion": 2, "mediaType": media_type, **content}, types.indent)
    )


def _story(layer: str, architecture: str, versions: Versions) -> str:
    packages = (SHARED | NATIVE)[layer].split()
    return "dpkg-deb --extract " + " ".join(
        f"{package}={versions[package][architecture]}" for package in packages
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A multi-platform image set of Debian packages.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (
        ("make", "make the set of Debian packages"),
        ("synthetic", "write the small sample set"),
        ("push", "push a set into a plain-http registry on loopback"),
        ("show", "say what is in a set"),
    ):
        command = verbs.add_parser(verb, help=words)
        command.add_argument("dir", type=Path)
        if verb == "synthetic":
            command.add_argument("--seed", type=int, required=True)
            command.add_argument("--images", type=int, default=8)
        if verb == "push":
            command.add_argument("host", metavar="HOST:PORT")
            command.add_argument("--prefix", default="")
    arguments = parser.parse_args(argv)
    try:
        print(_perform(arguments))
    except (ImageSetError, ValueError, OSError, subprocess.CalledProcessError) as error:
        print(f"imageset: {error}", file=sys.stderr)
        return 1
    return 0


def _perform(arguments: argparse.Namespace) -> str:
    """Do what was asked; returns the line that says what came of it."""
    match arguments.verb:
        case "make":
            return _summary(make(arguments.dir, lambda words: print(words, file=sys.stderr)))
        case "synthetic":
            return _summary(synthetic(arguments.dir, arguments.seed, arguments.images))
        case "push":
            done = push(arguments.dir, arguments.host, arguments.prefix)
            return (
                f"{done.sent} blobs sent ({done.sent_bytes / 1e6:.1f} MB), {done.present} were there, "
                f"{done.manifests} manifests put"
            )
        case _:
            return _summary(read_layout(arguments.dir))


def _summary(layout: Layout) -> str:
    children = {digest for image in layout.images.values() for digest in image.children}
    return (
        f"{len(layout.images)} images, {len(children)} image manifests, {len(layout.blobs)} blobs, "
        f"{layout.unique_bytes / 1e6:.1f} MB ({layout.referenced_bytes / 1e6:.1f} MB before sharing)"
    )


if __name__ == "__main__":
    sys.exit(main())

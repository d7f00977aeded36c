"""Runtimes pull docker.io's images through what `blobflow nodes` wrote for them, with docker.io out of reach.

Two mirrors on loopback: the first, which has nothing, without TLS; the second with a certificate of its own,
which the files bring along. Requests beyond loopback go to a proxy that is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tools import imageset
from tools.certificates import self_signed
from tools.processes import Registry, Run, blobflow, docker_registry, environment, run

UPSTREAM = "registry-1.docker.io"
_NO_WAY_OUT = ("env", "HTTPS_PROXY=http://127.0.0.1:1")
# Seconds for which containerd is waited for.
_READY = 60.0

# `cart` where sync puts it by itself, `basket` in a place of its own.
SPEC = """\
version: 1
defaults: {{source: docker.io, targets: [{first}/hub, {second}/hub]}}
images:
  - cart:1.2
  - {{image: library/basket, tags: ["1.2"], target: base/basket}}
"""


class Mirrors(NamedTuple):
    first: Registry
    second: Registry
    digest: str
    folder: Path

    def write(self, form: str, home: Path, *options: str, images: str = SPEC) -> Path:
        """The folder with the files of a format."""
        spec, folder = home / f"{form}.yaml", home / form
        home.mkdir(exist_ok=True)
        spec.write_text(images.format(first=self.first.host, second=self.second.host))
        access = ("--plain-http", self.first.host, "--ca", self.second.ca or "")
        done = blobflow("nodes", spec, "--format", form, "-o", folder, *access, *options, home=home)
        assert done.code == 0, done.err
        return folder


@pytest.fixture(scope="module")
def mirrors(programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrors]:
    folder = tmp_path_factory.mktemp("mirrors")
    layout = imageset.synthetic(folder / "small-set", seed=1)
    tls = self_signed(folder / "tls")
    with docker_registry(folder / "first") as first, docker_registry(folder / "second", tls=tls) as second:
        for name in ("hub/library/cart:1.2", "hub/base/basket:1.2"):
            image = f"oci:{layout.path}:shop/cart:1.2"
            done = blobflow("copy", image, f"{second.host}/{name}", "--ca", tls.cert, home=folder / "home")
            assert done.code == 0, done.err
        digest = second.digest_of("hub/library/cart", "1.2")
        assert digest
        yield Mirrors(first, second, digest, folder)


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name} (Debian: apt-get install {package})")
    return found


def use(written: Path, home: Path) -> None:
    """The files of /etc/containers as a user has them: both are read in the same way."""
    (home / "docker").mkdir(parents=True, exist_ok=True)
    (home / "docker" / "config.json").write_text("{}")  # podman 4.3.1 wants to find one
    shutil.copytree(written / "etc" / "containers", home / ".config" / "containers")
    # With a file of its own there, the machine's is left alone, with what it says of docker.io.
    (home / ".config" / "containers" / "registries.conf").write_text("")


@pytest.fixture
def podman(home: Path) -> Iterator[Callable[..., Run]]:
    found = program("podman", "podman")
    with TemporaryDirectory(prefix="podman") as folder:  # podman takes no long names
        storage = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs")
        yield lambda *words: run([*_NO_WAY_OUT, found, *storage, *words], home)


def inspected(name: str, home: Path) -> Run:
    return run([*_NO_WAY_OUT, program("skopeo", "skopeo"), "inspect", "--raw", f"docker://{name}"], home)


def test_podman_and_skopeo_pull_by_tag_and_by_digest(
    mirrors: Mirrors, home: Path, podman: Callable[..., Run]
) -> None:
    use(mirrors.write("podman", home), home)
    for name in ("cart", "basket"):
        for suffix in (":1.2", f"@{mirrors.digest}"):
            mirrors.first.forget()
            done = podman("pull", f"docker.io/library/{name}{suffix}")
            assert done.code == 0, done.err
            assert mirrors.first.requests(), "the first mirror is asked first"
            assert inspected(f"docker.io/library/{name}{suffix}", home).code == 0
    listed = podman("images", "--digests", "--format", "{{.Repository}}@{{.Digest}}")
    assert set(listed.out.split()) == {
        f"docker.io/library/{name}@{mirrors.digest}" for name in ("cart", "basket")
    }


def test_registries_conf_ends_with_the_registry_itself_unless_told_not_to(
    mirrors: Mirrors, home: Path
) -> None:
    use(mirrors.write("podman", home), home)
    lacking = inspected("docker.io/library/none:1", home)
    assert lacking.code != 0
    assert UPSTREAM in lacking.err
    alone = home / "alone"
    use(mirrors.write("podman", alone, "--no-upstream"), alone)
    lacking = inspected("docker.io/library/none:1", alone)
    assert lacking.code != 0
    assert UPSTREAM not in lacking.err
    assert inspected("docker.io/library/cart:1.2", alone).code == 0


def test_registries_conf_keeps_tags_from_mirrors(mirrors: Mirrors, home: Path) -> None:
    use(mirrors.write("crio", home, "--by-digest"), home)
    assert inspected(f"docker.io/library/cart@{mirrors.digest}", home).code == 0
    tagged = inspected("docker.io/library/cart:1.2", home)
    assert tagged.code != 0
    assert UPSTREAM in tagged.err and mirrors.second.host not in tagged.err


Ctr = Callable[..., Run]


@pytest.fixture
def ctr(home: Path, tmp_path: Path) -> Iterator[Ctr]:
    """containerd without its CRI plugin, and its client, which reads the files itself."""
    client = program("ctr", "containerd")
    if os.geteuid():
        pytest.skip("needs root: containerd runs as nobody else")
    with TemporaryDirectory(prefix="ctr") as folder, _containerd(Path(folder), home) as socket:

        def call(*words: str) -> Run:
            return run([*_NO_WAY_OUT, client, "--address", str(socket), *words], home)

        deadline = time.monotonic() + _READY
        while call("version").code:
            if time.monotonic() > deadline:
                pytest.skip(f"containerd does not start here: {(Path(folder) / 'log').read_text()[-300:]}")
            time.sleep(0.1)
        yield call


@contextmanager
def _containerd(folder: Path, home: Path) -> Iterator[Path]:
    socket = folder / "socket"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]\n'
        f'[grpc]\n  address = "{socket}"\n'
    )
    with (folder / "log").open("wb") as log:
        command = [program("containerd", "containerd"), "--config", str(config)]
        process = subprocess.Popen(command, env=environment(home), stdout=log, stderr=log)
        try:
            yield socket
        finally:
            process.terminate()
            process.wait()


@pytest.mark.where_present
def test_containerd_pulls_by_tag_and_by_digest(mirrors: Mirrors, home: Path, ctr: Ctr) -> None:
    images = SPEC.partition("  - {{image")[0]
    folder = mirrors.write("containerd", home, images=images) / "etc" / "containerd" / "certs.d"
    for suffix in (":1.2", f"@{mirrors.digest}"):
        mirrors.first.forget()
        done = ctr("content", "fetch", "--hosts-dir", str(folder), f"docker.io/library/cart{suffix}")
        assert done.code == 0, done.err
        assert mirrors.first.requests(), "the first mirror is asked first"
    listed = ctr("images", "ls", "--quiet").out.split()
    assert listed == ["docker.io/library/cart:1.2", f"docker.io/library/cart@{mirrors.digest}"]
    assert mirrors.digest in ctr("content", "ls", "--quiet").out

    lacking = ctr("content", "fetch", "--hosts-dir", str(folder), "docker.io/library/none:1")
    assert lacking.code != 0
    assert UPSTREAM in lacking.err
    alone = mirrors.write("containerd", home / "alone", "--no-upstream", images=images)
    folder = alone / "etc" / "containerd" / "certs.d"
    lacking = ctr("content", "fetch", "--hosts-dir", str(folder), "docker.io/library/none:1")
    assert lacking.code != 0
    assert UPSTREAM not in lacking.err
    done = ctr("content", "fetch", "--hosts-dir", str(folder), "docker.io/library/cart:1.2")
    assert done.code == 0, done.err

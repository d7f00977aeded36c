"""The image of deploy/Containerfile, assembled without a registry and run as what it is meant to be: nobody
in particular, on a root that can't be written. Minutes of debootstrap and buildah, so by name (`-m clients`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.checkout import TOP

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1800)]
NEEDS = ("buildah", "debootstrap", "unshare", "chroot")
# What an engine does, by hand: podman and docker can't set up their containers inside of most others.
INSIDE = """
set -e
mount --bind {root} {root}
mount -o remount,ro,bind {root}
mount -t tmpfs tmpfs {root}/tmp
mount --bind {cache} {root}/cache
exec chroot --userspec=1000:1000 {root} /usr/bin/env -i {environment} sh -c '{command}'
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The root file system of the image, in a storage of its own."""
    lacking = [name for name in NEEDS if shutil.which(name) is None]
    if lacking or os.geteuid() != 0:
        pytest.skip(f"wants root, and {', '.join(lacking) or 'nothing more'}")
    folder = tmp_path_factory.mktemp("storage")
    conf = folder / "storage.conf"
    conf.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
        patch.setenv("BUILDAH_OPTIONS", "--isolation chroot")
        run(TOP / "deploy" / "build-image", "--debootstrap", "--tag", "localhost/blobflow:test")
        container = run("buildah", "from", "localhost/blobflow:test").strip()
        yield Path(run("buildah", "mount", container).strip())
        run("buildah", "rm", container)


def run(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return done.stdout


def test_it_runs_without_root_on_a_root_that_is_read_only(image: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, 1000, 1000)
    said = run(
        "buildah",
        "inspect",
        "--type",
        "image",
        "--format",
        "{{.OCIv1.Config.Env}}",
        "localhost/blobflow:test",
    )
    command = "id -u; cd /cache; touch /x || touch /data/x || echo sealed; blobflow --version; blobflow demo"
    script = INSIDE.format(root=image, cache=cache, environment=said.strip("[]\n"), command=command)
    lines = run("unshare", "--mount", "sh", "-c", script).splitlines()
    assert lines[:3] == ["1000", "sealed", "blobflow 0.1.0"]
    assert "the second moved nothing" in lines[-1]

"""A cluster over TLS, with the certificates that the documentation makes, and with others."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster.conftest import PREFIX, Source, assert_uploaded_once, assert_whole
from tests.e2e.conftest import StartsRegistries
from tools.checkout import TOP
from tools.cluster import Cluster, cluster
from tools.documentation.documents import blocks_of
from tools.imageset import Layout
from tools.processes import Registry, Run, blobflow

PAGES = {"cluster.md": "certificates.sh", "kubernetes-cluster.md": "cluster-certificate.sh"}


def make_certificates(folder: Path, page: str) -> Path:
    """Run the page's own lines in a new folder."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl (Debian: apt-get install openssl)")
    folder.mkdir()
    (script,) = (
        block.text for block in blocks_of(TOP / "docs" / "tasks" / page) if block.title == PAGES[page]
    )
    subprocess.run(["bash", "-c", script], cwd=folder, check=True, capture_output=True)
    return folder


def files(folder: Path, name: str, prefix: str = "--engine-") -> list[str | Path]:
    """The options that name a certificate of `folder`."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    return [f"{prefix}ca", folder / "ca.crt", f"{prefix}cert", cert, f"{prefix}key", key]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("tls") / "ours", "cluster.md")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another authority, and by the other page."""
    return make_certificates(tmp_path_factory.mktemp("tls") / "others", "kubernetes-cluster.md")


@pytest.fixture(scope="module")
def encrypted(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and one worker."""
    with cluster(tmp_path_factory.mktemp("cluster"), "tls", warm=True) as made:
        (ca, *pair) = files(certificates, "scheduler", "--tls-")
        made.start_scheduler("--protocol", "tls", f"{ca}-file", *pair)
        made.start_worker("worker-1", *files(certificates, "worker-1"))
        yield made


def sync(
    made: Cluster, source: Source, layout: Layout, target: Registry, home: Path, *more: str | Path
) -> Run:
    places = ["--from", source.registry.host, "--to", f"{target.host}/{PREFIX}"]
    images = layout.path / "images.txt"
    return blobflow("sync", *places, "--images", images, "--engine", made.engine, *more, home=home)


def test_a_set_arrives_by_a_worker_over_tls(
    encrypted: Cluster, certificates: Path, source: Source, start_registry: StartsRegistries, home: Path
) -> None:
    layout, target = source.fill(images=1), start_registry("target")
    run = sync(encrypted, source, layout, target, home, *files(certificates, "coordinator"))
    assert run.code == 0, run.err
    assert_uploaded_once(target, layout)
    assert_whole(target, layout)


def test_who_has_certificates_of_another_authority_is_told_so(
    encrypted: Cluster, others: Path, source: Source, start_registry: StartsRegistries, home: Path
) -> None:
    layout, target = source.fill(images=1), start_registry("target")
    run = sync(encrypted, source, layout, target, home, *files(others, "tls"))
    assert_told(run, encrypted)
    assert not source.registry.requests().reads_of_blobs() and not target.requests().uploads()
    assert_told(blobflow("worker", encrypted.engine, *files(others, "tls"), home=home), encrypted)


def assert_told(run: Run, made: Cluster) -> None:
    """One sentence, with the scheduler and what is wrong."""
    assert run.code == 4, run.err
    assert "Traceback" not in run.err
    (sentence,) = (line for line in run.err.splitlines() if line.startswith("blobflow: "))
    assert made.address in sentence and "certificate" in sentence


def test_who_speaks_plainly_to_it_is_told_that_too(
    encrypted: Cluster, source: Source, start_registry: StartsRegistries, home: Path
) -> None:
    layout, target = source.fill(images=1), start_registry("target")
    plain = Cluster(encrypted.folder)
    plain.engine = f"dask://{encrypted.address}"
    run = sync(plain, source, layout, target, home)
    assert run.code == 4, run.err
    (sentence,) = (line for line in run.err.splitlines() if line.startswith("blobflow: "))
    assert encrypted.address in sentence
    assert not target.requests().uploads()

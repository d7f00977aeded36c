"""What artifacts cost at a registry: each blob once, and no list where the registry keeps its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from blobflow.client import Client
from blobflow.errors import Denied
from blobflow.oci import Reference
from blobflow.oci.artifact import CREATED
from blobflow.operations.artifacts.files import FileArgument
from blobflow.operations.artifacts.pull import pull_artifact
from blobflow.operations.artifacts.push import attach_artifact, push_artifact
from blobflow.settings import Settings
from tests.scenarios.registries import registries
from tools.registry.faults import parse_fault
from tools.registry.faulty import JournallingRegistry

SAID = {CREATED: "2026-01-02T03:04:05Z"}
SBOM = "application/spdx+json"


@pytest.fixture
def files(tmp_path: Path) -> list[FileArgument]:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).write_text(name * 1000)
        found.append(FileArgument(tmp_path / name))
    return found


def settings(tmp_path: Path) -> Settings:
    return Settings(cache_dir=tmp_path / "cache")


def asked(registry: JournallingRegistry, method: str, part: str) -> int:
    return len(registry.journal.select(method, part))


async def test_what_is_there_is_not_sent_again(tmp_path: Path, files: list[FileArgument]) -> None:
    async with registries(tmp_path / "store", ["r"]) as [registry], Client(settings(tmp_path)) as client:
        image = Reference(registry.host, "docs", "1")
        pushed = await push_artifact(client, image, files, annotations=SAID)
        assert asked(registry, "PUT", "/manifests/") == 1
        again = await push_artifact(client, image, files, annotations=SAID)
        assert again == pushed, "the same files and time are the same artifact"
        assert asked(registry, "PUT", "/manifests/") == 1
        assert asked(registry, "POST", "/uploads") == 3, "two files and the empty config, once"

        attached = await attach_artifact(client, image, files[:1], artifact_type=SBOM, annotations=SAID)
        assert attached.subject is not None
        assert attached.subject.digest == pushed.manifest.descriptor.digest
        assert asked(registry, "PUT", "/manifests/") == 2, "the registry keeps the list itself"
        assert asked(registry, "POST", "/uploads") == 3, "the file is there"

        registry.journal.clear()
        pulled = await pull_artifact(client, image, tmp_path / "out")
        assert [each.path.read_text() for each in pulled.files] == ["one" * 1000, "two" * 1000]
        assert asked(registry, "GET", "/blobs/") == 2 + 1, "each once, and the empty config"
        assert asked(registry, "GET", "/referrers/") == 0, "what hangs on it is not wanted"
        await pull_artifact(client, image, tmp_path / "out")
        assert asked(registry, "GET", "/blobs/") == 3, "what is there stays"


async def test_a_refused_push_leaves_the_tag_and_says_why(tmp_path: Path, files: list[FileArgument]) -> None:
    refuses = parse_fault("PUT /manifests/ times=0 status code=403")
    async with (
        registries(tmp_path / "store", ["r"], [refuses]) as [registry],
        Client(settings(tmp_path)) as client,
    ):
        image = Reference(registry.host, "docs", "1")
        with pytest.raises(Denied) as failed:
            await push_artifact(client, image, files)
        assert failed.value.side == "target"
        assert asked(registry, "GET", "/manifests/1") == 0

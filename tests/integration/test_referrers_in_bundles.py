"""What hangs on images goes across an air gap: saved whole, in parts or since an older bundle, and loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

from blobflow import cli
from blobflow.oci import Digest, media
from blobflow.oci.referrers import cosign_tags, fallback_tag
from tests.scenarios.registries import registries
from tests.scenarios.signed_images import Content, Signed, digests
from tests.scenarios.signed_registries import load as fill
from tools.registry.faulty import DropHeader, Fault, JournallingRegistry, Status

WITHOUT_API = (
    Fault("GET", "/referrers/", times=0, act=Status(404)),
    Fault("PUT", "/manifests/", times=0, act=DropHeader("OCI-Subject")),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))


class Gap:
    """A source with the signed image `one/app:1`, a target, and the folder in which bundles are carried."""

    def __init__(self, source: JournallingRegistry, target: JournallingRegistry, folder: Path) -> None:
        self.source = source
        self.target = target
        self.folder = folder
        self.signed = Signed()
        fill(source.store, "one/app", self.signed.content)

    async def run(self, *arguments: str | Path) -> str:
        """Run a verb in a thread, on a loop of its own; what it said."""
        result = await asyncio.to_thread(CliRunner().invoke, cli.cli, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    async def save(self, name: str, *options: str | Path, images: str = "one/app:1\n") -> Path:
        (self.folder / "images.txt").write_text(images)
        path = self.folder / name
        await self.run(
            "save", "--from", self.source.host, "--images", self.folder / "images.txt", "-o", path, *options
        )
        return path

    async def load(self, *bundles: Path) -> dict[str, Any]:
        """The record of the one image that is loaded."""
        report = self.folder / "load.json"
        await self.run("load", *bundles, "--to", self.target.host, "--report", report)
        [image] = json.loads(report.read_bytes())["images"]
        record: dict[str, Any] = image
        return record

    def listed(self, subject: Digest, *, api: bool) -> set[str]:
        """What the target lists for a manifest, over HTTP."""
        name = f"referrers/{subject}" if api else f"manifests/{fallback_tag(subject)}"
        request = Request(f"http://{self.target.host}/v2/one/app/{name}", headers={"Accept": media.OCI_INDEX})
        with urlopen(request) as answer:
            return {each["digest"] for each in json.load(answer)["manifests"]}

    def arrived(self, repository: str = "one/app") -> bool:
        """Whether all that hangs on the signed image is at the target, and cosign's tags name theirs."""
        store = self.target.store
        for digest in [*self.signed.content.manifests, *self.signed.content.blobs]:
            if store.repositories.media_type_of(repository, digest) is None:
                return False
        tags = {cosign_tags(s)[0]: made.descriptor.digest for s, [made] in self.signed.by_tag.items()}
        return all(store.repositories.resolve(repository, tag) == digest for tag, digest in tags.items())


@asynccontextmanager
async def gap(folder: Path, faults: tuple[Fault, ...] = ()) -> AsyncIterator[Gap]:
    async with registries(folder, ["source", "target"], faults) as [source, target]:
        yield Gap(source, target, folder)


def all_of(signed: Signed) -> set[Digest]:
    return digests(signed.referrers)


@pytest.mark.parametrize("faults", [(), WITHOUT_API], ids=["api", "tags"])
@pytest.mark.parametrize("options", [(), ("--split-size", "19kB")], ids=["one file", "parts"])
async def test_all_that_hangs_on_an_image_is_carried_over(
    tmp_path: Path, faults: tuple[Fault, ...], options: tuple[str, ...]
) -> None:
    async with gap(tmp_path, faults) as stand:
        path = await stand.save("b.tar", *options)
        parts = sorted(tmp_path.glob("b*.tar"))
        assert (len(parts) > 3) == bool(options)
        [bundle] = json.loads(await stand.run("bundle", "parts", "--json", *parts))["bundles"]
        *others, last = [file["images"] for file in bundle["files"]]
        assert last == 1 and not any(others)
        [seen] = json.loads(await stand.run("bundle", "ls", "--json", *parts))["images"]
        assert set(seen["referrers"]) == all_of(stand.signed)
        record = await stand.load(path)
        assert {each["digest"] for each in record["referrers"]} == all_of(stand.signed)
        assert not any(each["left"] for each in record["referrers"])
        assert stand.arrived()
        for subject, made in stand.signed.by_subject.items():
            listed = await asyncio.to_thread(stand.listed, subject, api=not faults)
            assert listed == digests(made)


async def test_a_signature_that_is_all_that_is_new_is_loaded_too(tmp_path: Path) -> None:
    async with gap(tmp_path) as stand:
        april = await stand.save("april.tar")
        await stand.load(april)
        late = Content()
        signature = late.signature(stand.signed.index, words="late")
        fill(stand.source.store, "one/app", late)
        may = await stand.save("may.tar", "--since", april)
        record = await stand.load(may)
        assert record["status"] == "done"
        held = stand.target.store.repositories
        assert held.media_type_of("one/app", signature.descriptor.digest)
        stand.target.journal.clear()
        record = await stand.load(may)
        assert record["status"] == "present"
        assert stand.target.journal.count("", "/(manifests|referrers)/") == 1, "what was loaded is remembered"


async def test_referrers_share_the_empty_config_with_those_of_images_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gap(tmp_path) as stand:
        april = await stand.save("april.tar")
        await stand.load(april)
        other = Content()
        other.signature(other.index({"riscv64": other.image("riscv64")}, "2"))
        fill(stand.source.store, "two/app", other)
        may = await stand.save("may.tar", "--since", april, images="two/app:2\n")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "of a machine that never saw april"))
        record = await stand.load(may)
        assert record["status"] == "done" and record["referrers"]


async def test_what_is_exported_alone_says_what_was_left(tmp_path: Path) -> None:
    """As a root file system, or into the store: the image need not have a layer for that."""
    async with gap(tmp_path) as stand:
        content = Content()
        about = {"os": "linux", "architecture": "arm64", "rootfs": {"type": "layers", "diff_ids": []}}
        config = content.blob(json.dumps(about).encode(), media.OCI_CONFIG)
        image = content.manifest({"config": config, "layers": []}, media.OCI_MANIFEST, "1")
        sbom = content.sbom(image)
        hanging = [sbom, content.signature(sbom), content.signature(image, "sig")]
        fill(stand.source.store, "bare", content)
        report = tmp_path / "export.json"
        for chosen in (
            "type=cacheonly",
            f"type=local,dest={tmp_path}/rootfs",
            f"type=tar,dest={tmp_path}/r.tar",
        ):
            await stand.run("export", f"{stand.source.host}/bare:1", "-o", chosen, "--report", report)
            [record] = json.loads(report.read_bytes())["images"]
            left = {each["digest"]: each["left"] for each in record["referrers"]}
            assert left == dict.fromkeys(digests(hanging), "its target holds images alone")


async def test_off_leaves_them_and_says_nothing(tmp_path: Path) -> None:
    async with gap(tmp_path) as stand:
        path = await stand.save("b.tar", "--referrers", "off")
        record = await stand.load(path)
        assert record["referrers"] == []
        whole = await stand.save("w.tar")
        report = tmp_path / "off.json"
        await stand.run(
            "load", whole, "--to", f"{stand.target.host}/off", "--referrers", "off", "--report", report
        )
        assert json.loads(report.read_bytes())["images"][0]["referrers"] == []
        held = stand.target.store.repositories
        assert not any(held.media_type_of("off/one/app", digest) for digest in all_of(stand.signed))

"""`save` and `load` under a signature policy, between files alone: what is rejected is nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from blobflow import cli
from blobflow.content import Site
from blobflow.events import Meter
from blobflow.oci import Reference
from blobflow.transports.local import LocalTransports
from blobflow.transports.store import Store
from tests.fakes.archives import config_of, digest, layer_of, podman_entries, write
from tests.fakes.signature_judge import FakeJudge
from tests.scenarios.signed_images import Content, Signed

SIGNED, UNSIGNED = "registry.example.com/team/signed:1", "registry.example.com/team/unsigned:1"

NAME = "org.opencontainers.image.ref.name"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    yield
    asyncio.set_event_loop(None)


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJudge:
    """The judge of every policy file."""
    found = FakeJudge()

    def load_judges(files: Mapping[str, object]) -> dict[str, FakeJudge]:
        return dict.fromkeys(files, found)

    monkeypatch.setattr("blobflow.cli.signature_policies.load_judges", load_judges)
    (tmp_path / "policy.json").write_text('{"default": [{"type": "reject"}]}')
    return found


def put(folder: Path, content: Content) -> None:
    """Put images into the layout `images`, as they are in registries."""

    async def work() -> None:
        with (
            closing(Store.open(folder / "home" / "store")) as store,
            closing(LocalTransports(store, Meter())) as local,
        ):
            await content.put(local.sink(Site(f"oci:{folder}/images", "")))
            await local.complete()
            local.close()

    asyncio.run(work())


@pytest.fixture
def images(tmp_path: Path) -> Signed:
    """Two images in a layout, one of which is signed, as is each of its platforms."""
    signed = Signed(SIGNED)
    put(tmp_path, signed.content)
    unsigned = Content()
    unsigned.index({"amd64": unsigned.image("amd64")}, UNSIGNED)
    put(tmp_path, unsigned)
    return signed


def run(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(cli.cli, list(map(str, arguments)))
    assert done.exit_code == code, done.output
    return done


class Desk:
    """A folder with the layout `images`, bundles that are saved from it, and a layout that they are loaded
    into, all under one policy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy = ("--policy", folder / "policy.json")

    def save(self, bundle: str, *names: str, code: int = 0, options: Sequence[str | Path] = ()) -> Result:
        listed = self.folder / "list.txt"
        listed.write_text("".join(f"{name}\n" for name in names))
        places = ("--from", f"oci:{self.folder}/images", "-o", self.folder / bundle)
        return run("save", "--images", listed, *places, *options, code=code)

    def load(self, *files: str, code: int = 0, options: Sequence[str | Path] = ()) -> Result:
        paths = [self.folder / file for file in files]
        return run("load", *paths, "--to", f"oci:{self.folder}/out", *self.policy, *options, code=code)

    def loaded(self) -> dict[str, str]:
        """What the names in the layout name, but for what hangs on images."""
        index = self.folder / "out" / "index.json"
        found = json.loads(index.read_bytes())["manifests"] if index.exists() else []
        named = {each["annotations"].get(NAME, ""): each["digest"] for each in found if "annotations" in each}
        return {name: digest for name, digest in named.items() if name and not name.startswith("sha256-")}


@pytest.fixture
def desk(tmp_path: Path, judge: FakeJudge) -> Desk:
    return Desk(tmp_path)


def test_what_is_rejected_is_not_in_the_bundle(desk: Desk, images: Signed) -> None:
    done = desk.save("bundle.tar", SIGNED, UNSIGNED, code=3, options=desk.policy)
    [said] = [line for line in done.output.splitlines() if line.startswith("failed: ")]
    assert f"{UNSIGNED}: none of 0 signatures is right" in said
    desk.load("bundle.tar")
    assert desk.loaded() == {"team/signed:1": images.index.descriptor.digest}


def test_nothing_is_written_where_all_is_rejected(desk: Desk, images: Signed) -> None:
    desk.save("bundle.tar", UNSIGNED, code=3, options=desk.policy)
    desk.save("bundle.tar", UNSIGNED, code=3, options=(*desk.policy, "--split-size", "1MB"))
    assert not [*desk.folder.glob("bundle*")]


def test_a_bundle_is_judged_by_the_names_that_it_has(desk: Desk, judge: FakeJudge, images: Signed) -> None:
    desk.save("bundle.tar", SIGNED, UNSIGNED)
    done = desk.load("bundle.tar", code=3)
    assert "none of 0 signatures is right" in done.output
    assert desk.loaded() == {"team/signed:1": images.index.descriptor.digest}
    place = f"oci-archive:{desk.folder}/bundle.tar"
    assert {(each.transport, each.reference) for each in judge.asked} == {
        ("oci-archive", Reference(place, "", name)) for name in (SIGNED, UNSIGNED)
    }


def test_parts_and_what_was_saved_since_an_older_bundle_are_judged_together(
    desk: Desk, images: Signed
) -> None:
    desk.save("base.tar", SIGNED)
    desk.save("delta.tar", SIGNED, options=("--since", desk.folder / "base.tar", "--split-size", "12kB"))
    parts = sorted(path.name for path in desk.folder.glob("delta*"))
    assert len(parts) > 1
    desk.load(*parts, "base.tar")
    assert desk.loaded() == {"team/signed:1": images.index.descriptor.digest}


def test_each_platform_that_gets_a_tag_is_covered_by_its_index(desk: Desk, images: Signed) -> None:
    desk.save("bundle.tar", SIGNED)
    desk.load("bundle.tar", options=["--arch-tags"])
    assert set(desk.loaded()) == {f"team/signed:1{end}" for end in ("", "-amd64", "-arm64")}


def test_of_what_is_made_of_several_archives_each_image_is_judged(desk: Desk, judge: FakeJudge) -> None:
    """Compressed archives are uploaded while others are examined: not even a blob of them arrives."""
    name = "registry.example.com/team/app:1"
    for arch in ("amd64", "arm64"):
        layer = layer_of(arch, 1000)
        entries = dict(podman_entries({name: [layer]}))
        [entry] = json.loads(entries["manifest.json"])  # type: ignore[arg-type]
        config = config_of(layer, architecture=arch)
        entry["Config"] = f"{digest(config)[7:]}.json"
        entries |= {entry["Config"]: config, "manifest.json": json.dumps([entry]).encode()}
        write(desk.folder / f"{arch}.tar.gz", [*entries.items()], "tar.gz")
    desk.load("amd64.tar.gz", "arm64.tar.gz", code=3)
    assert not (desk.folder / "out").exists()
    assert {each.reference for each in judge.asked} == {
        Reference(f"docker-archive:{desk.folder}/{arch}.tar.gz", "", name) for arch in ("amd64", "arm64")
    }

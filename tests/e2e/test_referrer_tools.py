"""What hangs on an image of a layout, as oras and regctl see it, and what they attach, as blobflow does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.scenarios.signed_images import Signed, digests, item_of
from tools.processes import blobflow, run

pytestmark = [pytest.mark.e2e, pytest.mark.where_present]

LIST = {
    "oras": ["discover", "--oci-layout", "--format", "json", "{layout}:1"],
    "regctl": ["artifact", "list", "ocidir://{layout}:1", "--format", "{{{{json .}}}}"],
}
ATTACH = {
    "oras": ["attach", "--oci-layout", "--artifact-type", "application/x-proof", "{layout}:1", "proof.txt"],
    "regctl": [
        *("artifact", "put", "--artifact-type", "application/x-proof"),
        *("--subject", "ocidir://{layout}:1", "--file", "proof.txt"),
    ],
}


@pytest.fixture(params=["oras", "regctl"])
def tool(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if shutil.which(name) is None:
        pytest.skip(f"needs {name} on the PATH, which Debian does not have")
    return name


@pytest.fixture
def signed() -> Signed:
    return Signed()


@pytest.fixture
def layout(programs: None, home: Path, signed: Signed) -> Path:
    """A layout as blobflow writes it, by way of one in which referrers are listed without a name."""
    entries = [item_of(made.descriptor) for found in signed.by_subject.values() for made in found]
    named = {"annotations": {"org.opencontainers.image.ref.name": "1"}}
    write_layout(home / "in", signed, [item_of(signed.index.descriptor) | named, *entries])
    copied = blobflow("copy", f"oci:{home}/in:1", f"oci:{home}/out:1", home=home)
    assert copied.code == 0, copied.err
    return home / "out"


def write_layout(folder: Path, signed: Signed, entries: list[dict[str, object]]) -> None:
    (folder / "blobs" / "sha256").mkdir(parents=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    raw = {digest: made.raw for digest, made in signed.content.manifests.items()}
    for digest, content in (signed.content.blobs | raw).items():
        (folder / "blobs" / digest.replace(":", "/")).write_bytes(content)


def call(tool: str, arguments: list[str], layout: Path, home: Path) -> str:
    done = run([tool, *(each.format(layout=layout) for each in arguments)], home, top=home)
    assert done.code == 0, done.err
    return done.out


def seen(layout: Path, home: Path) -> set[str]:
    """The digests of what blobflow finds on the image."""
    report = home / "seen.json"
    copied = blobflow(
        "copy", f"oci:{layout}:1", f"oci-archive:{home}/seen.tar", "--report", report, home=home
    )
    assert copied.code == 0, copied.err
    [image] = json.loads(report.read_bytes())["images"]
    return {each["digest"] for each in image["referrers"] if not each["left"]}


def test_it_lists_what_blobflow_wrote(tool: str, layout: Path, home: Path, signed: Signed) -> None:
    listed = call(tool, LIST[tool], layout, home)
    for digest in digests(signed.by_subject[signed.index.descriptor.digest]):
        assert digest in listed


def test_what_it_attaches_blobflow_finds(tool: str, layout: Path, home: Path, signed: Signed) -> None:
    before = seen(layout, home)
    assert before == digests([made for found in signed.by_subject.values() for made in found])
    (home / "proof.txt").write_text("proof")
    call(tool, ATTACH[tool], layout, home)
    [fresh] = seen(layout, home) - before
    manifest = json.loads((layout / "blobs" / fresh.replace(":", "/")).read_bytes())
    assert manifest["subject"]["digest"] == signed.index.descriptor.digest

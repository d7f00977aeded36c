"""Files as artifacts at real registries: docker-registry 2.8.2 keeps no list of referrers, `serve` does."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from blobflow.oci import digest_of, media
from blobflow.oci.referrers import fallback_tag
from tests.deadlines import HANGS_AFTER
from tools.processes import Registry, blobflow, skopeo

pytestmark = pytest.mark.e2e
SBOM, REPORT = "application/spdx+json", "application/vnd.example.report"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    (folder / "charts" / "deep").mkdir(parents=True)
    (folder / "charts" / "deep" / "values.yaml").write_text("a: 1\n")
    (folder / "manual.txt").write_text("read me\n")
    return folder


def test_files_go_and_come_back_and_what_is_attached_is_found(
    target: Registry, files: Path, tmp_path: Path
) -> None:
    home, name = tmp_path / "home", f"{target.host}/docs:1"
    given = (f"{files}/manual.txt:text/plain", f"{files}/charts")
    pushed = _json("push", name, *given, "--artifact-type", "application/vnd.example.docs", home=home)
    raw = skopeo("inspect", "--raw", f"docker://{name}", "--tls-verify=false", home=home).out
    assert digest_of(raw.encode()) == pushed["digest"], "another tool reads the same bytes"

    sbom = _json("attach", name, f"{files}/manual.txt", "--artifact-type", SBOM, home=home)
    assert sbom["subject"]["digest"] == pushed["digest"]
    at_sbom = f"{target.host}/docs@{sbom['digest']}"
    _json("attach", at_sbom, "-a", "by=me", "--artifact-type", REPORT, home=home)

    has_api = target.ask("GET", f"/v2/docs/referrers/{pushed['digest']}")[0] == 200
    tree = _json("referrers", name, home=home)
    [hanging] = tree["image"]["referrers"]
    assert (hanging["digest"], hanging["artifactType"]) == (sbom["digest"], SBOM)
    assert hanging["found"] == ("api" if has_api else "tag")
    assert [each["artifactType"] for each in hanging["referrers"]] == [REPORT]
    if not has_api:
        path = f"/v2/docs/manifests/{fallback_tag(pushed['digest'])}"
        status, _, body = target.ask("GET", path, {"Accept": media.OCI_INDEX})
        [listed] = json.loads(body)["manifests"]
        assert (status, listed["digest"], listed["artifactType"]) == (200, sbom["digest"], SBOM)

    pulled = _json("pull", name, "-o", tmp_path / "out", home=home)
    assert [each["status"] for each in pulled["files"]] == ["written", "written"]
    assert (tmp_path / "out" / "manual.txt").read_text() == "read me\n"
    assert (tmp_path / "out" / "charts" / "deep" / "values.yaml").read_text() == "a: 1\n"


def test_a_mirror_without_what_hangs_on_the_image_is_found_by_verify(
    target: Registry, files: Path, tmp_path: Path
) -> None:
    home, name = tmp_path / "home", f"{target.host}/app:1"
    images = tmp_path / "images.txt"
    images.write_text("app:1\n")
    _json("push", name, f"{files}/manual.txt", home=home)
    sbom = _json("attach", name, f"{files}/manual.txt", "--artifact-type", SBOM, home=home)
    ends = ("--from", target.host, "--to", f"{target.host}/mirror", "--images", images)
    assert blobflow("sync", *ends, "--referrers", "off", home=home).code == 0
    found = blobflow("verify", *ends, home=home)
    assert (found.code, found.out.count("wrong: ")) == (3, 1), found.err
    assert sbom["digest"] in found.out
    assert blobflow("verify", *ends, "--referrers", "off", home=home).code == 0
    assert blobflow("sync", *ends, "--referrers", "always", home=home).code == 0
    assert blobflow("verify", *ends, "--verify", "content", home=home).out.startswith("right: ")


@pytest.mark.where_present
@pytest.mark.skipif(shutil.which("oras") is None, reason="needs oras on PATH")
def test_oras_reads_what_is_pushed_and_finds_what_is_attached(
    target: Registry, files: Path, tmp_path: Path
) -> None:
    home, name, out = tmp_path / "home", f"{target.host}/docs:1", tmp_path / "by-oras"
    out.mkdir()
    _json("push", name, f"{files}/manual.txt:text/plain", f"{files}/charts", home=home)
    sbom = _json("attach", name, f"{files}/manual.txt", "--artifact-type", SBOM, home=home)

    def oras(*words: str) -> str:
        command = ["oras", *words, "--plain-http"]
        done = subprocess.run(
            command, cwd=out, capture_output=True, text=True, check=True, timeout=HANGS_AFTER
        )
        return done.stdout

    oras("pull", name)
    assert (out / "charts" / "deep" / "values.yaml").read_text() == "a: 1\n"
    assert sbom["digest"] in oras("discover", "--format", "json", name)
    oras("push", f"{target.host}/theirs:1", "charts")
    _json("pull", f"{target.host}/theirs:1", "-o", tmp_path / "back", home=home)
    assert (tmp_path / "back" / "charts" / "deep" / "values.yaml").read_text() == "a: 1\n"


def _json(*words: str | Path, home: Path) -> dict[str, Any]:
    done = blobflow(words[0], *words[1:], "--json", home=home)
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found

"""`blobflow serve` as a process: pull-through in front of docker's registry, real clients, sudden ends."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import re
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from blobflow.oci import digest_of
from blobflow.oci.media import ACCEPT_MANIFESTS
from blobflow.server.admin.page import size
from tests.deadlines import HANGS_AFTER
from tests.e2e.conftest import StartsRegistries
from tools import imageset
from tools.processes import Registry, blobflow, blobflow_serve, environment, run, skopeo

CONTENT = random.Random(3).randbytes(8_000_000)
DIGEST = digest_of(CONTENT)
ACCEPT = {"Accept": ACCEPT_MANIFESTS}


def whole_image(registry: Registry, repository: str, name: str) -> dict[str, bytes]:
    """All that hangs below a reference, read from a registry; every digest is checked."""
    status, headers, raw = registry.ask("GET", f"/v2/{repository}/manifests/{name}", ACCEPT)
    assert status == 200, raw
    digest = headers["docker-content-digest"]
    assert digest_of(raw) == digest
    found = {digest: raw}
    document = json.loads(raw)
    for child in document.get("manifests", []):
        found |= whole_image(registry, repository, child["digest"])
    for child in [*document.get("layers", []), *filter(None, [document.get("config")])]:
        if child["digest"] not in found:
            status, _, content = registry.ask("GET", f"/v2/{repository}/blobs/{child['digest']}")
            assert (status, digest_of(content)) == (200, child["digest"])
            found[child["digest"]] = content
    return found


def pushed(registry: Registry, content: bytes, repository: str = "app") -> int:
    """Push a blob in one POST; the status."""
    path = f"/v2/{repository}/blobs/uploads/?digest={digest_of(content)}"
    return registry.ask("POST", path, body=content)[0]


def test_what_was_pulled_through_is_served_when_the_upstream_is_gone(
    start_registry: StartsRegistries, small_set: imageset.Layout, tmp_path: Path, home: Path
) -> None:
    """Every blob is read from the upstream once, and a client that comes later copies everything."""
    upstream = start_registry("upstream")
    imageset.push(small_set.path, upstream.host)
    names = [(image.repository, name.rpartition(":")[2]) for name, image in small_set.images.items()]
    with blobflow_serve(tmp_path / "edge", "--upstream", f"{upstream.host}=far") as edge:
        upstream.forget()
        cold = {name: whole_image(edge, f"far/{name[0]}", name[1]) for name in names}
        reads = upstream.requests().reads_of_blobs()
        assert set(reads) == set(small_set.blobs)
        assert set(reads.values()) == {1}
        upstream.process.terminate()
        upstream.process.wait()
        assert {name: whole_image(edge, f"far/{name[0]}", name[1]) for name in names} == cold
        repository, tag = names[0]
        source = f"docker://{edge.host}/far/{repository}:{tag}"
        copied = skopeo(
            "copy", "--all", "--src-tls-verify=false", source, f"oci:{tmp_path}/out:{tag}", home=home
        )
        assert copied.code == 0, copied.err
        layout = f"oci:{tmp_path}/ours:{tag}"
        assert blobflow("copy", f"{edge.host}/far/{repository}:{tag}", layout, home=home).code == 0
        _, _, metrics = edge.ask("GET", "/metrics")
        hits = f'blobflow_upstream_requests_total{{kind="blob",outcome="hit",upstream="{upstream.host}"}}'
        assert hits in metrics.decode()


def test_podman_pushes_and_pulls(
    small_set: imageset.Layout, programs: None, tmp_path: Path, home: Path
) -> None:
    program = shutil.which("podman")
    if program is None:
        pytest.skip("needs podman (Debian: apt-get install podman)")
    image = next(each for each in small_set.images.values() if each.repository.endswith("gateway"))
    with (
        blobflow_serve(tmp_path / "registry") as registry,
        TemporaryDirectory(prefix="podman") as place,  # podman takes no long names
    ):
        imageset.push(small_set.path, registry.host)
        (home / "docker").mkdir(parents=True)
        (home / "docker" / "config.json").write_text("{}")  # podman 4.3.1 wants to find one
        storage = ("--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs")
        [name] = [name for name, each in small_set.images.items() if each is image]
        there = f"{registry.host}/pushed/by:podman"
        for command in (
            ("pull", "--tls-verify=false", "--arch", "amd64", f"{registry.host}/{name}"),
            ("tag", f"{registry.host}/{name}", there),
            ("push", "--tls-verify=false", there),
            ("rmi", "--all", "--force"),
            ("pull", "--tls-verify=false", there),
        ):
            done = run([program, *storage, *command], home)
            assert done.code == 0, done.err
        assert whole_image(registry, "pushed/by", "podman")


def test_a_registry_that_is_killed_shows_nothing_half(tmp_path: Path) -> None:
    """kill -9 in the middle of uploads: what was answered 201 is there, of the rest nothing is."""
    root = tmp_path / "root"
    with blobflow_serve(tmp_path / "first", "--root", str(root)) as registry:
        assert pushed(registry, b"done") == 201
        lines = []
        for _ in range(4):
            line = http.client.HTTPConnection(registry.host, timeout=HANGS_AFTER)
            line.putrequest("POST", f"/v2/app/blobs/uploads/?digest={DIGEST}")
            line.putheader("Content-Length", str(len(CONTENT)))
            line.endheaders(CONTENT[:-1])
            lines.append(line)
        while sum(path.stat().st_size for path in (root / "partials").iterdir()) < 4_000_000:
            registry.ask("GET", "/healthz")
        registry.process.kill()
        registry.process.wait()
        for line in lines:
            line.close()
    assert [path.read_bytes() for path in (root / "blobs").rglob("*") if path.is_file()] == [b"done"]
    with blobflow_serve(tmp_path / "second", "--root", str(root)) as registry:
        assert registry.ask("HEAD", f"/v2/app/blobs/{DIGEST}")[0] == 404
        assert registry.ask("GET", f"/v2/app/blobs/{digest_of(b'done')}")[2] == b"done"
        assert pushed(registry, CONTENT) == 201
        assert digest_of(registry.ask("GET", f"/v2/app/blobs/{DIGEST}")[2]) == DIGEST


def test_many_who_push_one_blob_at_once_all_succeed(tmp_path: Path) -> None:
    with blobflow_serve(tmp_path / "registry") as registry, ThreadPoolExecutor(8) as threads:
        repositories = [f"app{number % 2}" for number in range(8)]
        assert set(threads.map(lambda name: pushed(registry, CONTENT, name), repositories)) == {201}
        for name in set(repositories):
            assert digest_of(registry.ask("GET", f"/v2/{name}/blobs/{DIGEST}")[2]) == DIGEST
        assert list((registry.root / "partials").iterdir()) == []


def test_gc_while_serving_takes_nothing_that_is_served(
    small_set: imageset.Layout, programs: None, tmp_path: Path, home: Path
) -> None:
    """Another process collects again and again while images are pushed, pulled, and a tag is deleted."""
    with blobflow_serve(tmp_path / "registry") as registry:
        imageset.push(small_set.path, registry.host)
        store = ("--cache-dir", str(registry.root), "--max-size", "0")
        with ThreadPoolExecutor(1) as threads:
            for number in range(2):
                collecting = threads.submit(blobflow, "cache", "gc", *store, home=home)
                imageset.push(small_set.path, registry.host, f"again{number}")
                for name, image in small_set.images.items():
                    assert whole_image(registry, image.repository, name.rpartition(":")[2])
                collected = collecting.result()
                assert (collected.code, collected.err) == (0, "")
                assert collected.out.startswith("0 blobs removed")
        assert registry.ask("DELETE", f"/v2/{image.repository}/manifests/{image.digest}")[0] == 202
        assert blobflow("cache", "gc", *store, home=home).code == 0
        assert registry.ask("GET", f"/v2/{image.repository}/manifests/{image.digest}")[0] == 404
        assert whole_image(registry, f"again1/{image.repository}", image.digest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_answers_under_way_end(tmp_path: Path, number: int) -> None:
    with blobflow_serve(
        tmp_path, "--access-log", "combined", "--access-log-file", f"{tmp_path}/log"
    ) as registry:
        large = CONTENT * 4  # more than the sockets hold
        assert pushed(registry, large) == 201
        line = http.client.HTTPConnection(registry.host, timeout=HANGS_AFTER)
        line.request("GET", f"/v2/app/blobs/{digest_of(large)}", headers={"User-Agent": "a test"})
        answer = line.getresponse()
        hasher = hashlib.sha256(answer.read(1000))
        registry.process.send_signal(number)
        while registry_listens(registry):
            pass
        while piece := answer.read(1024 * 1024):
            hasher.update(piece)
        line.close()
        assert f"sha256:{hasher.hexdigest()}" == digest_of(large)
        assert registry.process.wait(HANGS_AFTER) == 0
    pushed_line, got_line = [
        line for line in (tmp_path / "log").read_text().splitlines() if "/blobs/" in line
    ]
    assert '"POST /v2/app/blobs/uploads/?digest=' in pushed_line
    assert got_line.endswith(f'HTTP/1.1" 200 {len(large)} "-" "a test"')


def registry_listens(registry: Registry) -> bool:
    """Whether a connection is still taken."""
    host, _, port = registry.host.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=HANGS_AFTER).close()
    except ConnectionError:
        return False
    return True


def browse(url: str, folder: Path, *arguments: str) -> str:
    """Have Debian's chromium load the page; what it says of it."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("needs chromium (Debian: apt-get install chromium)")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command = [program, *quiet, "--window-size=1000,800", *arguments, url]
    done = subprocess.run(
        command, env=environment(folder), capture_output=True, text=True, timeout=HANGS_AFTER, check=True
    )
    return done.stdout


def test_a_browser_shows_what_is_held_and_how_often_it_was_here(
    start_registry: StartsRegistries, small_set: imageset.Layout, tmp_path: Path
) -> None:
    upstream = start_registry("upstream")
    imageset.push(small_set.path, upstream.host)
    name, image = next(iter(small_set.images.items()))
    tag = name.rpartition(":")[2]
    with blobflow_serve(tmp_path / "edge", "--upstream", f"{upstream.host}=far") as edge:
        found = whole_image(edge, f"far/{image.repository}", tag)
        assert whole_image(edge, f"far/{image.repository}", tag) == found
        shown = browse(f"http://{edge.host}/", tmp_path, "--dump-dom")
        browse(f"http://{edge.host}/", tmp_path, f"--screenshot={tmp_path / 'page.png'}")
    held = sum(map(len, found.values()))
    assert f'<p id="summary">{len(found)} blobs and manifests, {size(held)} on disk; ' in shown
    assert f"<h2>far/{image.repository}</h2>" in shown
    for platform in ("linux/amd64", "linux/arm64/v8", "linux/arm/v7"):
        assert f"{platform}: " in shown
    needed = sum(image.blobs.values())
    assert f'<td class="n">{size(needed)}</td>' in shown
    figures = re.search(rf"<tr><td>{upstream.host}</td>(.*?)</tr>", shown)
    assert figures is not None
    asked, hits, rate, read = re.findall(r'<td class="n">(.*?)</td>', figures[1])
    assert int(asked) - int(hits) == len(found), "each was fetched once"
    assert (rate, read) == (f"{100 * int(hits) / int(asked):.0f} %", size(held))
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")

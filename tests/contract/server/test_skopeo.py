"""The embedded registry as skopeo sees it: a set in, across repositories and out, digest for digest."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import bcrypt
import pytest

from blobflow.oci.sample_images import SampleSet, sample_set
from blobflow.server import Logins, Server, make_app, tls_context
from blobflow.transports.store import Store
from tools.registry.faulty import journalling

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not on PATH"),
]


def write_layout(root: Path, images: SampleSet) -> None:
    """The set as an OCI image layout, its images under their tags."""
    folder = root / "blobs" / "sha256"
    folder.mkdir(parents=True)
    for digest, content in images.blobs.items():
        (folder / digest.removeprefix("sha256:")).write_bytes(content)
    for digest, stored in images.manifests.items():
        (folder / digest.removeprefix("sha256:")).write_bytes(stored.raw)
    listed = [
        {
            "mediaType": index.media_type,
            "digest": index.digest,
            "size": len(index.raw),
            "annotations": {"org.opencontainers.image.ref.name": name.partition(":")[2]},
        }
        for name, index in images.images.items()
    ]
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))


async def skopeo(*arguments: str) -> bytes:
    """Run skopeo and return its output; a failure shows what it said."""
    process = await asyncio.create_subprocess_exec(
        "skopeo", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output


async def test_skopeo_copies_a_set_in_across_and_out(tmp_path: Path) -> None:
    images = sample_set(11, images=2, layer_size=2000)
    write_layout(tmp_path / "layout", images)
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    async with journalling(tmp_path / "store") as registry:
        for name, index in images.images.items():
            tag = name.partition(":")[2]
            pushed, across = (f"docker://{registry.host}/{place}/{name}" for place in ("in", "across"))
            await skopeo("copy", "--all", *plain, f"oci:{tmp_path}/layout:{tag}", pushed)
            await skopeo("copy", "--all", *plain, pushed, across)
            await skopeo("copy", "--all", *plain, across, f"oci:{tmp_path}/out:{tag}")
            assert await skopeo("inspect", "--raw", "--tls-verify=false", across) == index.raw
        mounts = registry.journal.mounts()
        await skopeo("delete", "--tls-verify=false", f"docker://{registry.host}/across/{name}")
        assert registry.journal.count("DELETE", "/manifests/", status=202) == 1
        assert all(registry.journal.uploads_of(digest) >= 1 for digest in images.blobs)
    assert mounts > 0, "within one registry skopeo mounts what it has seen"
    out = tmp_path / "out" / "blobs" / "sha256"
    for digest, content in images.blobs.items():
        assert (out / digest.removeprefix("sha256:")).read_bytes() == content
    for digest, stored in images.manifests.items():
        if not stored.media_type.startswith("application/vnd.docker"):
            assert (out / digest.removeprefix("sha256:")).read_bytes() == stored.raw


async def test_skopeo_comes_in_with_a_login_over_tls(
    registry_store: Store, certificate: Path, tmp_path: Path
) -> None:
    images = sample_set(11, images=1, layer_size=2000)
    write_layout(tmp_path / "layout", images)
    [(name, index)] = images.images.items()
    trust = tmp_path / "trust"
    trust.mkdir()
    (trust / "ca.crt").write_bytes(certificate.with_suffix(".crt").read_bytes())
    logins = Logins({"ann": bcrypt.hashpw(b"s3cret", bcrypt.gensalt(10))})
    async with Server(make_app(registry_store, logins=logins), tls=tls_context(certificate)) as server:
        place = f"docker://{server.address}/{name}"
        login = ("--dest-creds", "ann:s3cret", "--dest-cert-dir", str(trust))
        layout = f"oci:{tmp_path}/layout:{name.partition(':')[2]}"
        await skopeo("copy", "--all", *login, layout, place)
        inspect = ("inspect", "--raw", "--cert-dir", str(trust))
        assert await skopeo(*inspect, "--creds", "ann:s3cret", place) == index.raw
        with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
            await skopeo(*inspect, "--creds", "ann:guess", place)

"""A gzip'ed archive of several images into an empty registry: by blobflow, and by gunzip and skopeo.

The archive is as `docker save … | gzip` writes it, of the set's images for their first platform, or one of
the user's. blobflow loads it as it is; for skopeo it is unpacked first (1.9.3 says `unexpected EOF` to what
is gzip'ed; others would unpack it again for every image), and then each of its images is copied: skopeo
remembers between them what it has uploaded. crane takes archives of one image, and oras none of docker's.
"""

from __future__ import annotations

import gzip
import io
import json
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.ends import new_folder
from bench.measurements import Measured
from bench.peers import TOOLS
from bench.programs import Options, builds, timed
from bench.scenarios import PREFIX, SCENARIOS, layout_of
from tools.imageset import Image, Layout
from tools.processes import Registry, docker_registry, empty

LEVEL = 6  # what gzip(1) takes if nothing is said
AGAIN = ", a second time"


def load(options: Options) -> Iterator[Measured]:
    """Every build into a registry of its own, and once more with what it remembers; then skopeo."""
    archive = options.archive or archive_of_set(options)
    for build in builds(options):
        home = options.home
        with docker_registry(new_folder(options.folder), leave=empty) as target:
            place = f"{target.host}/{PREFIX}"
            command = [*build.blobflow(options.profile), "load", "--quiet", str(archive), "--to", place]
            yield into(target, build.name, command, home)
            if options.profile is None:
                yield into(target, build.name + AGAIN, command, home)
    if "skopeo" in options.tools:
        TOOLS["skopeo"].forget()
        home = options.home
        with docker_registry(new_folder(options.folder), leave=empty) as target:
            script = by_skopeo(archive, home / "archive.tar", f"{target.host}/{PREFIX}")
            yield into(target, "gunzip, skopeo", ["sh", "-c", script], home)


def into(target: Registry, subject: str, command: Sequence[str], home: Path) -> Measured:
    """Run what loads, and count what it asked the registry for."""
    target.forget()
    row, _ = timed("load", subject, command, home)
    asked = target.requests()
    row.figures.update(target_requests=len(asked), mounts=len(asked.mounts_201()))
    return row


def by_skopeo(archive: Path, plain: Path, place: str) -> str:
    """A script that ends with the first of its commands that fails."""
    lines = [f"set -e; gunzip --stdout {shlex.quote(str(archive))} > {shlex.quote(str(plain))}"]
    for name in names_in(archive):
        copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
        lines.append(shlex.join([*copy, f"docker-archive:{plain}:{name}", f"docker://{place}/{name}"]))
    return "\n".join(lines)


def names_in(archive: Path) -> list[str]:
    """One name for each image of an archive of docker's."""
    with tarfile.open(archive) as tar:
        listed = tar.extractfile("manifest.json")
        assert listed is not None, "manifest.json is a file"
        return [entry["RepoTags"][0] for entry in json.load(listed)]


def archive_of_set(options: Options) -> Path:
    """The archive of the set, made once."""
    file = options.folder / "images.tar.gz"
    if not file.exists():
        layout = layout_of(SCENARIOS["cold"], options.debian, options.folder, options.scale)
        write_archive(layout, file)
    return file


def write_archive(layout: Layout, file: Path) -> None:
    """Write the images as docker does: layers unpacked and once each, manifest.json last; then gzip'ed."""
    with tarfile.open(file, "w:gz", compresslevel=LEVEL) as tar:
        entries, written = [], set[str]()
        for image in layout.images.values():
            manifest = _first_manifest(layout, image)
            raw = layout.blob(manifest["config"]["digest"]).read_bytes()
            config = f"{_encoded(manifest['config']['digest'])}.json"
            names = [f"{_encoded(diff_id)}/layer.tar" for diff_id in json.loads(raw)["rootfs"]["diff_ids"]]
            for name, layer in zip(names, manifest["layers"], strict=True):
                if name not in written:
                    _add(tar, name, gzip.decompress(layout.blob(layer["digest"]).read_bytes()))
                    written.add(name)
            _add(tar, config, raw)
            entries.append({"Config": config, "RepoTags": [image.name], "Layers": names})
        _add(tar, "manifest.json", json.dumps(entries).encode())


def _first_manifest(layout: Layout, image: Image) -> Any:
    return json.loads(layout.blob(next(iter(image.children))).read_bytes())


def _encoded(digest: str) -> str:
    return digest.partition(":")[2]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))

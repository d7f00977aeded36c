#!/usr/bin/env bash
# oras 0.2.43 for Python tells folders from files by the layer's media type, and gives folders no annotation that says it.
#
# Most expect: what oras, the program, does: a folder is pushed as a tar+gzip with the annotation `io.deis.oras.content.unpack`,
# and what is pulled becomes a folder again where that annotation is "true", whatever the media type (by its source; it is not
# run here). The Python package is of the same project, and has this annotation's name among its constants.
#
# What happens: push writes a folder's layer with its title alone, and pull never looks for the annotation: a layer of media type
# `application/vnd.oci.image.layer.v1.tar+gzip` is unpacked, any other is written as it is. So a folder that the package
# itself pushed under a media type of its own (`docs:application/…`) comes back as a gzip'ed tar that is named `docs`; so
# does one that has the annotation as well. And an archive that was pushed as the file `docs.tar.gz`, with the layer's media
# type and without the annotation, is unpacked, and no `docs.tar.gz` is there.
#
# Why it matters: artifacts go from one to the other. Who reads by the annotation writes a gzip'ed tar under the folder's name
# for what Python pushed. A writer has to give both signs, the annotation and that media type; a reader can't tell for sure.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: \
    --target oras oras==0.2.43 >/dev/null 2>&1 || { echo "could not get oras 0.2.43" >&2; exit 2; }
apt-get download docker-registry=2.8.2+ds1-1 >/dev/null 2>&1 || { echo "could not get docker-registry" >&2; exit 2; }
dpkg -x docker-registry_*.deb root
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >config.yml <<YML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/storage}}
http: {addr: 127.0.0.1:$port}
YML
root/usr/bin/docker-registry serve config.yml >log 2>&1 &
server=$!
for _ in $(seq 200); do (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.05; done

status=0
HOME=$work PORT=$port python3 - <<'PY' || status=$?
import json
import os
import pathlib
import sys
import tarfile

sys.path.insert(0, "oras")
import oras.client

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OWN = "application/vnd.example.docs.v1.tar+gzip"
UNPACK = "io.deis.oras.content.unpack"
docs = pathlib.Path("docs")
docs.mkdir()
(docs / "readme.txt").write_text("read me\n")
with tarfile.open("docs.tar.gz", "w:gz") as archive:
    archive.add("docs")
client = oras.client.OrasClient(insecure=True)


def told(tag, pushed):
    """Pushes, unless that was done; pulls; what the layer says, and what is there then."""
    target = f"127.0.0.1:{os.environ['PORT']}/app:{tag}"
    pushed(target)
    layer = client.get_manifest(target)["layers"][0]
    client.pull(target, outdir=tag)
    found = {path.name: "a folder" if path.is_dir() else "a gzip'ed tar" if tarfile.is_tarfile(path) else "a file"
             for path in pathlib.Path(tag).iterdir()}
    marks = ", ".join(f"{key}={value}" for key, value in layer["annotations"].items() if key.startswith("org.") or key == UNPACK)
    print(f"{tag}: {layer['mediaType']}, {marks}\n    pulled: {', '.join(f'{name}, {kind}' for name, kind in found.items())}")
    return layer["annotations"].get(UNPACK), found


def push(*files, **more):
    return lambda target: client.push(target, files=list(files), **more)


def push_with_annotation(target):
    """The same layer as oras, the program, marks it, with a media type that was asked for."""
    client.push(target, files=[f"docs:{OWN}"])
    manifest = client.get_manifest(target)
    manifest["layers"][0]["annotations"][UNPACK] = "true"
    client.upload_manifest(manifest, client.get_container(target))


seen = [
    told("folder", push("docs")),
    told("folder-of-own-type", push(f"docs:{OWN}")),
    told("folder-of-own-type-annotated", push_with_annotation),
    told("archive-of-layer-type", push(f"docs.tar.gz:{LAYER}")),
]
expected = [(None, {"docs": "a folder"}), (None, {"docs": "a gzip'ed tar"}), ("true", {"docs": "a gzip'ed tar"}),
            (None, {"docs": "a folder"})]
sys.exit(0 if seen == expected else 1)
PY
if [ "$status" -ne 0 ]; then
    echo "this is no longer so" >&2
    exit 1
fi

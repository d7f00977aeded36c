#!/usr/bin/env bash
# appendlayer 2.2 (PyPI) makes images that docker-registry takes, and that skopeo and podman can't read.
#
# Most expect: a tool that adds a layer to an image of docker's types writes another one of docker's types, and what a
# registry took with 201 every client can pull.
#
# What happens: into docker's manifest (schema 2) it puts a config and a layer of OCI's media types, and pushes it as
# docker's. docker-registry 2.8.2 checks that the blobs are there, not what they are called, and answers 201. The
# library of skopeo and podman (Debian 12: skopeo 1.9.3+ds1-1+b10) knows six layer types in such a manifest, and OCI's
# are not among them: "unsupported docker v2s2 media type".
#
# Why it matters: it is found when somebody pulls. The bytes are right, and a digest carries them anywhere; only a
# manifest in one family's words helps, which has another digest.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
packages=(docker-registry=2.8.2+ds1-1 skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 libassuan0=2.5.5-5
    libgpg-error0=1.46-1 libdevmapper1.02.1=2:1.02.185-2)
apt-get download "${packages[@]}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root; done
libraries=$(find "$work/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
python3 -m pip install --quiet --target pip appendlayer==2.2 >/dev/null 2>&1 ||
    { echo "could not get appendlayer" >&2; exit 2; }
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
    -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem 2>/dev/null
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >config.yml <<YML
version: 0.1
log: {accesslog: {disabled: true}, level: error}
storage: {filesystem: {rootdirectory: $work/storage}}
http: {addr: "127.0.0.1:$port", relativeurls: true, tls: {certificate: $work/cert.pem, key: $work/key.pem}}
YML
root/usr/bin/docker-registry serve config.yml 2>errors &
server=$!

cat >base.py <<'PY'
import gzip
import hashlib
import http.client
import io
import json
import ssl
import sys
import tarfile
import time

HOST = sys.argv[1]
KIND = "application/vnd.docker.distribution.manifest.v2+json"


def ask(method, path, body=None, **headers):
    trusted = ssl.create_default_context(cafile="cert.pem")
    connection = http.client.HTTPSConnection(HOST, timeout=30, context=trusted)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def pushed(media_type, content):
    location = ask("POST", "/v2/app/blobs/uploads/", b"")[1]["Location"]
    assert ask("PUT", f"{location}&digest={digest_of(content)}", content)[0] == 201
    return {"mediaType": media_type, "size": len(content), "digest": digest_of(content)}


def packed(name):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    return file.getvalue()


for _ in range(100):
    try:
        ask("GET", "/v2/")
        break
    except OSError:
        time.sleep(0.05)
layer = packed("base")
config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]}}
manifest = {
    "schemaVersion": 2,
    "mediaType": KIND,
    "config": pushed("application/vnd.docker.container.image.v1+json", json.dumps(config).encode()),
    "layers": [pushed("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress(layer))],
}
assert ask("PUT", "/v2/app/manifests/1", json.dumps(manifest).encode(), Content_Type=KIND)[0] == 201
with open("layer.tar", "wb") as file:
    file.write(packed("more"))
PY
python3 base.py "127.0.0.1:$port" || { echo "no base image could be pushed" >&2; exit 2; }

export SSL_CERT_FILE=$work/cert.pem
unset DOCKER_CONFIG
PYTHONPATH=pip python3 -m appendlayer "127.0.0.1:$port" app:1 app:2 <layer.tar 2>/dev/null ||
    { echo "docker-registry did not take what appendlayer made" >&2; exit 1; }
echo "appendlayer's push to docker-registry: done"
curl --silent --cacert cert.pem -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
    "https://127.0.0.1:$port/v2/app/manifests/2" | python3 -c 'import json, sys
made = json.load(sys.stdin)
for each in (made, made["config"], *made["layers"]):
    print("  " + each["mediaType"])'
status=0
for tag in 1 2; do
    [ "$status" -eq 0 ] || { echo "skopeo could not be tried: $(cat said)" >&2; exit 2; }
    image=docker://127.0.0.1:$port/app:$tag
    LD_LIBRARY_PATH=$libraries root/usr/bin/skopeo --insecure-policy copy --src-tls-verify=false "$image" \
        "dir:$work/out$tag" >/dev/null 2>said || status=$?
    echo "skopeo copy of app:$tag: exit status $status $(grep -o 'unsupported docker.*type' said || true)"
done
[ "$status" -ne 0 ] && grep -q 'unsupported docker v2s2 media type' said || { echo "this is no longer so" >&2; exit 1; }

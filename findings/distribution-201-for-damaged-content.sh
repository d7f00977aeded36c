#!/usr/bin/env bash
# distribution 2.8.2 (Debian 12: docker-registry 2.8.2+ds1-1) answers 201 to a push of content that it holds
# damaged, and leaves it damaged.
#
# Most expect: who pushes a blob or a manifest again, with the right bytes, and is answered 201 has repaired it; that
# is how mirrors are healed, by copying over them.
#
# What happens: the registry finds a file under the digest and takes it for the content, whatever is in it. The bytes
# that were sent are thrown away, 201 and the right Docker-Content-Digest are answered, and GET goes on serving the
# damaged file: a blob cut short by a full disk or a crash, a manifest with other bytes than its digest says.
#
# Why it matters: no client can repair such a registry by pushing, a HEAD of the manifest shows nothing, and a tool that
# believes 201 says "done" for ever. It has to read back what it repaired; the repair is to remove the file by hand.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
package=docker-registry=2.8.2+ds1-1
apt-get download "$package" >/dev/null 2>&1 || { echo "could not get $package" >&2; exit 2; }
dpkg -x ./*.deb root
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >config.yml <<YML
version: 0.1
log: {accesslog: {disabled: true}, level: error}
storage: {filesystem: {rootdirectory: $work/storage}}
http: {addr: "127.0.0.1:$port"}
YML
root/usr/bin/docker-registry serve config.yml 2>errors &
server=$!

cat >try.py <<'PY'
import hashlib
import http.client
import json
import sys
import time

HOST, STORAGE = sys.argv[1:]
KIND = "application/vnd.docker.distribution.manifest.v2+json"


def ask(method, path, body=None, **headers):
    connection = http.client.HTTPConnection(HOST, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        try:
            content = answer.read()
        except http.client.IncompleteRead as error:
            content = error.partial
        return answer.status, answer.headers, content
    finally:
        connection.close()


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def push(content):
    location = ask("POST", "/v2/app/blobs/uploads/", b"")[1]["Location"]
    separator = "&" if "?" in location else "?"
    return ask("PUT", f"{location}{separator}digest={digest_of(content)}", content)[0]


def put(content):
    return ask("PUT", f"/v2/app/manifests/{digest_of(content)}", content, Content_Type=KIND)[0]


def file_of(content):
    name = digest_of(content)[7:]
    return f"{STORAGE}/docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"


def got(kind, content):
    status, _, body = ask("GET", f"/v2/app/{kind}/{digest_of(content)}", Accept=KIND)
    return f"{status}, " + ("the right bytes" if body == content else f"{len(body)} bytes that are not the content")


for _ in range(100):
    try:
        ask("GET", "/v2/")
        break
    except OSError:
        time.sleep(0.05)
config, layer = b"{}", b"layer " * 1000
manifest = json.dumps({
    "schemaVersion": 2, "mediaType": KIND,
    "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config),
               "digest": digest_of(config)},
    "layers": [{"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(layer),
                "digest": digest_of(layer)}],
}).encode()
print(f"pushed: blobs {push(config)} {push(layer)}, manifest {put(manifest)}")
with open(file_of(layer), "r+b") as file:
    file.truncate(100)
with open(file_of(manifest), "wb") as file:
    file.write(manifest.replace(b'"schemaVersion": 2', b'"schemaVersion":  2'))
print("damaged on the disk: the layer is cut to 100 bytes, the manifest has one space more")
before = got("blobs", layer), got("manifests", manifest)
print(f"GET: layer {before[0]}; manifest {before[1]}")
again = push(layer), put(manifest)
print(f"pushed again with the right bytes: layer {again[0]}, manifest {again[1]}")
after = got("blobs", layer), got("manifests", manifest)
print(f"GET: layer {after[0]}; manifest {after[1]}")
sys.exit(again != (201, 201) or any("the right bytes" in text for text in after))
PY
python3 try.py "127.0.0.1:$port" "$work/storage" || { echo "this is no longer so" >&2; exit 1; }

#!/usr/bin/env bash
# distribution 2.8.2 (Debian 12: docker-registry 2.8.2+ds1-1) says that a repository is unknown until it has a tag.
#
# Most expect: `GET /v2/NAME/tags/list` of a repository that holds content, and no tag yet, is 200 with an empty list;
# and a 404 with NAME_UNKNOWN ("repository name not known to registry") means that there is nothing to be found.
#
# What happens: after a blob was pushed, and after an image was put by its digest alone, the list of tags is 404
# NAME_UNKNOWN, while HEAD of that blob and of that image answers 200. Only once a tag was put the list is 200.
#
# Why it matters: who asks once for the tags to learn that a repository is new, and spares a HEAD a blob, sends again
# what an upload that was broken off, or a push by digest, left there. And a mirror by digest looks empty.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get download docker-registry=2.8.2+ds1-1 >/dev/null 2>&1 || { echo "could not get docker-registry" >&2; exit 2; }
dpkg -x docker-registry_*.deb root
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >config.yml <<YML
version: 0.1
log: {level: error}
storage: {filesystem: {rootdirectory: $work/storage}, delete: {enabled: true}}
http: {addr: 127.0.0.1:$port}
YML
root/usr/bin/docker-registry serve config.yml >log 2>&1 &
server=$!

status=0
PORT=$port python3 - <<'PY' || status=$?
import hashlib, http.client, json, os, sys, time


def ask(method, path, body=None, kind="application/octet-stream"):
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["PORT"]), timeout=30)
    connection.request(method, path, body, {"Content-Type": kind, "Accept": manifest_type})
    answer = connection.getresponse()
    return answer.status, dict(answer.headers), answer.read()


manifest_type = "application/vnd.oci.image.manifest.v1+json"
for _ in range(200):
    try:
        ask("GET", "/v2/")
        break
    except OSError:
        time.sleep(0.05)


def push(blob):
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    _, headers, _ = ask("POST", "/v2/app/blobs/uploads/", b"")
    place = headers["Location"].split("/", 3)[3]
    ask("PUT", f"/{place}{'&' if '?' in place else '?'}digest={digest}", blob)
    return {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(blob)}


def tags():
    status, _, body = ask("GET", "/v2/app/tags/list")
    told = json.loads(body)
    return status, told["errors"][0]["code"] if "errors" in told else told["tags"]


config = push(b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}')
seen = []
print("a blob was pushed: HEAD of it", ask("HEAD", f"/v2/app/blobs/{config['digest']}")[0], "- list of tags", *tags())
seen.append(tags())
raw = json.dumps({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": []}).encode()
digest = "sha256:" + hashlib.sha256(raw).hexdigest()
ask("PUT", f"/v2/app/manifests/{digest}", raw, manifest_type)
print("an image was put by digest: HEAD of it", ask("HEAD", f"/v2/app/manifests/{digest}")[0], "- list of tags", *tags())
seen.append(tags())
ask("PUT", "/v2/app/manifests/1", raw, manifest_type)
print("a tag was put: list of tags", *tags())
seen.append(tags())
expected = [(404, "NAME_UNKNOWN"), (404, "NAME_UNKNOWN"), (200, ["1"])]
sys.exit(0 if seen == expected else 1)
PY
if [ "$status" -ne 0 ]; then
    echo "this is no longer so" >&2
    exit 1
fi

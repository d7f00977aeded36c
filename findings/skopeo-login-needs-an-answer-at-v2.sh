#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12: skopeo 1.9.3+ds1-1+b10) decides by `GET /v2/` whether a registry wants logins.
#
# Most expect: a client that was given credentials sends them when a request is answered 401 with a challenge, as
# RFC 9110 (section 11.6.1) has it for any resource.
#
# What happens: where `GET /v2/` answers 200, skopeo never sends its credentials, also not after a 401 with
# `WWW-Authenticate: Basic` on the request that pushes; it fails with "authentication required". Where `GET /v2/`
# answers 401, it sends them with each request, from the next one on.
#
# Why it matters: a registry that lets everybody pull and only some push (200 at /v2/, 401 on POST) can't be pushed
# to by skopeo, nor by what is built on the same library (podman, buildah); to have both it must answer 401 at /v2/,
# and then clients without a login have to be let in afterwards, which not all try.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
packages=(skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 libassuan0=2.5.5-5 libgpg-error0=1.46-1
    libdevmapper1.02.1=2:1.02.185-2)
apt-get download "${packages[@]}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root; done
libraries=$(find root -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)

cat >server.py <<'PY'
"""A registry that takes nothing: argv[1] is the status of GET /v2/; each request is told on stdout."""
import http.server
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        login = "Authorization" in self.headers
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        ping = self.path == "/v2/"
        status = int(sys.argv[1]) if ping and not login else 200 if ping else 404 if login else 401
        print(self.command, "/v2/" if ping else "upload" if "uploads" in self.path else "blob",
              status, "with login" if login else "without login", flush=True)
        self.send_response(status)
        if status == 401:
            self.send_header("WWW-Authenticate", 'Basic realm="registry"')
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = answer

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
open("port", "w").write(str(server.server_port))
server.serve_forever()
PY
python3 - <<'PY'
"""An image of one empty-ish layer, as an OCI layout."""
import hashlib, json, os

os.makedirs("image/blobs/sha256")


def put(content):
    digest = hashlib.sha256(content).hexdigest()
    open(f"image/blobs/sha256/{digest}", "wb").write(content)
    return {"digest": f"sha256:{digest}", "size": len(content)}


layer = bytes(1024)
config = {"os": "linux", "architecture": "amd64",
          "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
image = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **put(json.dumps(config).encode())},
         "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **put(layer)}]}
index = {"schemaVersion": 2, "manifests": [{"mediaType": image["mediaType"], **put(json.dumps(image).encode()),
         "annotations": {"org.opencontainers.image.ref.name": "1"}}]}
json.dump(index, open("image/index.json", "w"))
json.dump({"imageLayoutVersion": "1.0.0"}, open("image/oci-layout", "w"))
PY

try() {
    rm -f port
    python3 server.py "$1" >"seen-$1" &
    server=$!
    for _ in $(seq 100); do [ -s port ] && break; sleep 0.05; done
    HOME=$work LD_LIBRARY_PATH=$libraries root/usr/bin/skopeo copy --insecure-policy --dest-tls-verify=false \
        --dest-creds joe:example oci:image:1 "docker://127.0.0.1:$(cat port)/app:1" >/dev/null 2>"said-$1" || true
    kill "$server"
    echo "GET /v2/ answers $1:"
    sed 's/^/    /' "seen-$1" | sort -u
    grep -o 'authentication required' "said-$1" | head -n1 | sed 's/^/    skopeo says: /' || true
}
try 200
try 401
if grep -q 'with login' seen-200 || ! grep -q '401 without login' seen-200 || ! grep -q 'with login' seen-401; then
    echo "this is no longer so" >&2
    exit 1
fi

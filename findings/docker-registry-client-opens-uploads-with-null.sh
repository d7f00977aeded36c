#!/usr/bin/env bash
# docker-registry-client 3.4.0 (npm) opens upload sessions with a body, and asks for whole URLs.
#
# Most expect: the POST that opens an upload session is empty (distribution-spec, [end-4a]: Content-Length 0; a body
# is what comes with ?digest=), and a request line has a path, as `PUT /v2/app/blobs/uploads/1?digest=… HTTP/1.1`.
#
# What happens: it posts by a client for JSON, which makes the body of a post without one the four bytes `null`, as
# application/json. And where the Location that it got is a whole URL, the request line of its PUT has the whole URL
# (absolute-form, RFC 9112, 3.2.2), as it would be for a proxy, though it talks to the registry itself.
#
# Why it matters: a registry that takes what comes with that POST for the beginning of the blob has a blob that begins
# with `null`, and refuses the digest; one that routes by the request line as it came has no such path. Those
# that are asked by curl and by Go never see either.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --no-save --ignore-scripts --before=2026-11-28 --prefix . \
    docker-registry-client@3.4.0 >/dev/null 2>&1 || { echo "could not get docker-registry-client" >&2; exit 2; }

cat >push.js <<'JS'
const {createHash} = require("node:crypto");
const {Readable} = require("node:stream");
const client = require("docker-registry-client").createClientV2({name: `http://${process.argv[2]}/app`});
const content = Buffer.from("hello");
const digest = "sha256:" + createHash("sha256").update(content).digest("hex");
const blob = {digest, contentLength: content.length, stream: Readable.from([content])};
client.blobUpload(blob, (error) => {
  client.close();
  if (error) console.error(String(error));
});
JS

cat >try.py <<'PY'
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Registry(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    asked = {}

    def answer(self, status, location=""):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked[self.command] = self.path, self.headers.get("Content-Type"), body
        self.send_response(status)
        if location:
            self.send_header("Location", f"http://{self.headers['Host']}{location}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.answer(200)

    def do_POST(self):
        self.answer(202, "/v2/app/blobs/uploads/1")

    def do_PUT(self):
        self.answer(201)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
threading.Thread(target=server.serve_forever, daemon=True).start()
subprocess.run(["node", "push.js", f"127.0.0.1:{server.server_port}"], check=True, timeout=60)
if not {"POST", "PUT"} <= set(Registry.asked):
    sys.exit(2)
_, kind, body = Registry.asked["POST"]
print(f"the POST that opens the upload: Content-Type {kind}, {len(body)} bytes, {body.decode()!r}")
target = Registry.asked["PUT"][0].partition("?")[0].replace(str(server.server_port), "PORT")
print(f"the PUT asks for {target}?digest=…")
sys.exit(body != b"null" or not target.startswith("http://"))
PY
status=0
python3 try.py || status=$?
[ "$status" -ne 2 ] || { echo "it did not push" >&2; exit 2; }
[ "$status" -eq 0 ] || { echo "this is no longer so" >&2; exit 1; }

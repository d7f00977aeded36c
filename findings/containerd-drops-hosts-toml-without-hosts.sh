#!/usr/bin/env bash
# containerd 1.6.20 (Debian 12: containerd 1.6.20~ds1-1+deb12u3) drops a hosts.toml that has no `[host]` table, `server` and all.
#
# Most expect: what containerd's documentation of hosts.toml says: the fields of the root apply to the registry whose folder the
# file is in, `[host]` tables are for those who want mirrors tried before it, and who wants the upstream never to be asked
# names the mirror as `server`, in a file of that one line.
#
# What happens: the file of that one line is not used at all. ctr logs 'failed to decode hosts.toml' with 'invalid `host` tree',
# goes to the upstream, and ends with status 0. With an empty `[host]` below the same line it is read, and the mirror
# asked. The daemon reads these files by the same library when it pulls for Kubernetes; the line is in its log then (not run
# here). By its release notes upstream has mended it in 1.7.32, of May 2026.
#
# Why it matters: the shortest file that keeps nodes off the upstream does the opposite on Debian 12's containerd, and while there
# is a way out the pull works, so nobody looks into the log. Who writes these files for others adds a `[host]` table always.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get download containerd=1.6.20~ds1-1+deb12u3 >/dev/null 2>&1 || { echo "could not get containerd" >&2; exit 2; }
dpkg -x containerd_*.deb root

cat >server.py <<'PY'
"""Two registries that have any image, one an upstream and one its mirror; who was asked for a manifest is told on stdout."""
import hashlib
import http.server
import json
import pathlib
import threading

KIND = "application/vnd.oci.image.manifest.v1+json"
EMPTY = {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2,
         "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
IMAGE = json.dumps({"schemaVersion": 2, "mediaType": KIND, "config": EMPTY, "layers": []}).encode()


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "/manifests/" in self.path:
            print(names[self.server.server_port], flush=True)
        self.send_response(200)
        self.send_header("Content-Type", KIND)
        self.send_header("Docker-Content-Digest", "sha256:" + hashlib.sha256(IMAGE).hexdigest())
        self.send_header("Content-Length", str(len(IMAGE)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(IMAGE)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


names = {}
for name in "mirror", "upstream":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    names[server.server_port] = name
    threading.Thread(target=server.serve_forever).start()
    pathlib.Path(name).write_text(str(server.server_port))
PY
python3 server.py >>asked &
server=$!
for _ in $(seq 200); do [ -s upstream ] && break; sleep 0.05; done
[ -s upstream ] || { echo "the registries do not start" >&2; exit 2; }
upstream=$(cat upstream) mirror=127.0.0.1:$(cat mirror)
mkdir -p "hosts/127.0.0.1_${upstream}_"

as_said=yes
# try EXPECTED LINE...: fetches an image's manifest from the upstream's name, with a hosts.toml of these lines.
try() {
    local expected=$1 status=0
    shift
    printf '%s\n' "$@" >"hosts/127.0.0.1_${upstream}_/hosts.toml"
    : >asked
    root/usr/bin/ctr content fetch-object --hosts-dir hosts "127.0.0.1:$upstream/app:1" >read 2>said || status=$?
    echo "hosts.toml: ${*//$mirror/MIRROR} - exit status $status, asked: $(sort -u asked | paste -sd,)"
    grep -o 'level=error.*' said | sort -u | sed 's/^/    /' || true
    if [ "$status" -ne 0 ] || ! [ -s read ] || [ "$(sort -u asked)" != "$expected" ]; then as_said=no; fi
}
line="server = \"http://$mirror\""
try upstream "$line"
grep -q 'invalid `host` tree' said || as_said=no
try mirror "$line" '[host]'
if [ "$as_said" = no ]; then
    echo "this is no longer so" >&2
    exit 1
fi

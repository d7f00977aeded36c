#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12: skopeo 1.9.3+ds1-1+b10) uses no table of registries.conf whose `prefix` has a tag or a digest.
#
# Most expect: what containers-registries.conf(5) of the same Debian (golang-github-containers-image 5.23.1-4) lists as the last
# form of a prefix: `host[:port]/namespace/repo(:tag|@digest)`, the table with the longest match being the one that is used. So a
# table for one tag sends that tag to a mirror, and leaves the other tags of the repository alone.
#
# What happens: such a table is read without a word, and no image is ever looked up in it, neither the tag or digest that it
# names nor any other: tables are found by the name without its tag and digest. Where a table for the whole repository stands
# beside it, that one is used. podman 4.3.1 and buildah of the same Debian have the same library (not run here).
#
# Why it matters: a mirror that holds some tags of a repository can't be told for these alone; its table has to name the
# repository, and the mirror is asked in vain for every other tag. With the table for a tag all works in a test, since the
# upstream answers, until the day when there is no way to it.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
packages=(skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 libassuan0=2.5.5-5 libgpg-error0=1.46-1
    libdevmapper1.02.1=2:1.02.185-2 golang-github-containers-image=5.23.1-4)
apt-get download "${packages[@]}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root; done
libraries=$(find root -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)

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
            place = self.path.split("/")[2]
            print(names[self.server.server_port], "" if place == "app" else f", in {place}", sep="", flush=True)
        self.send_response(200)
        self.send_header("Content-Type", KIND)
        self.send_header("Content-Length", str(len(IMAGE)))
        self.end_headers()
        self.wfile.write(IMAGE)

    def log_message(self, *arguments):
        pass


names = {}
for name in "upstream", "mirror":
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    names[server.server_port] = name
    threading.Thread(target=server.serve_forever).start()
    pathlib.Path(name).write_text(f"127.0.0.1:{server.server_port}")
pathlib.Path("digest").write_text("sha256:" + hashlib.sha256(IMAGE).hexdigest())
PY
python3 server.py >>asked &
server=$!
for _ in $(seq 200); do [ -s digest ] && break; sleep 0.05; done
[ -s digest ] || { echo "the registries do not start" >&2; exit 2; }
upstream=$(cat upstream) mirror=$(cat mirror) digest=$(cat digest)

echo "a form of prefix, by containers-registries.conf(5):"
zcat root/usr/share/man/man5/containers-registries.conf.5.gz | sed 's/\\f[A-Z]//g; s/_//g' >manual
grep 'repo(:tag|@digest)$' manual || echo "  (none with a tag)"

as_said=yes
# try NAME EXPECTED PREFIX=PLACE...: asks for NAME, with a table for each PREFIX, whose mirror is PLACE at the mirror.
try() {
    local name=$1 expected=$2 table prefix seen
    shift 2
    for table in "$@"; do
        prefix=${table%%=*}
        printf '[[registry]]\nprefix = "%s"\nlocation = "%s"\n[[registry.mirror]]\nlocation = "%s"\n' \
            "$upstream/$prefix" "$upstream/$prefix" "$mirror/${table#*=}"
    done >registries.conf
    : >asked
    HOME=$work LD_LIBRARY_PATH=$libraries root/usr/bin/skopeo --registries-conf registries.conf \
        inspect --raw --tls-verify=false "docker://$upstream/$name" >read 2>said || as_said=no
    seen=$(sort -u asked)
    if [ "$seen" != "$expected" ] || [ -s said ]; then as_said=no; fi
    printf 'tables:%s; %s is asked of the %s\n' "$(printf ' %s' "${@%%=*}")" "$name" "$seen" | sed "s/$digest/DIGEST/g"
    cat said
}
try app:1 "mirror, in whole" app=whole/app
try app:1 upstream app:1=tags/app:1
try "app@$digest" upstream "app@$digest=digests/app@$digest"
try app:1 "mirror, in whole" app=whole/app app:1=tags/app:1
if [ "$as_said" = no ] || ! grep -q 'repo(:tag|@digest)$' manual; then
    echo "this is no longer so" >&2
    exit 1
fi

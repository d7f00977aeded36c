#!/usr/bin/env bash
# skopeo 1.9.3 (Debian 12: skopeo 1.9.3+ds1-1+b10) reads `docker save` archives packed by xz or bzip2, not by gzip.
#
# Most expect: what `docker load` takes packed by gzip, `docker-archive:` takes as well; its library unpacks archives
# by what they begin with, and gzip is the packing in which images lie about (`docker save IMAGE | gzip`).
#
# What happens: the same tar is read as it is, packed by xz and packed by bzip2. Packed by gzip it is refused: "loading
# tar component manifest.json: unexpected EOF", wherever manifest.json stands, and although gzip finds the file whole.
# podman 4.3.1 of the same Debian, which has the same library, says the same of it (not run here).
#
# Why it matters: the message reads like a download that was cut off, so people fetch the archive again, and again. And
# whoever compares tools by loading a packed archive has to unpack it for skopeo first.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
packages=(skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 libassuan0=2.5.5-5 libgpg-error0=1.46-1
    libdevmapper1.02.1=2:1.02.185-2)
apt-get download "${packages[@]}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root; done
libraries=$(find root -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)

python3 - <<'PY'
"""An image as `docker save` writes it, packed in every way."""
import bz2, gzip, hashlib, io, json, lzma, tarfile


def tar(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


layer = tar({"etc/greeting": b"hello\n" * 1000})
config = json.dumps({"os": "linux", "architecture": "amd64", "config": {},
                     "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}})
name = hashlib.sha256(config.encode()).hexdigest() + ".json"
manifest = json.dumps([{"Config": name, "RepoTags": ["app:1"], "Layers": ["1/layer.tar"]}])
first = {"manifest.json": manifest.encode(), name: config.encode(), "1/layer.tar": layer}
for order, members in ("first", first), ("last", dict(reversed(first.items()))):
    plain = tar(members)
    for way, pack in ("plain", bytes), ("gzip", gzip.compress), ("xz", lzma.compress), ("bzip2", bz2.compress):
        open(f"{way}-{order}.tar", "wb").write(pack(plain))
PY

as_said=yes
for order in first last; do
    for way in plain xz bzip2 gzip; do
        status=0
        HOME=$work LD_LIBRARY_PATH=$libraries root/usr/bin/skopeo inspect --config \
            "docker-archive:$way-$order.tar" >read 2>said || status=$?
        echo "manifest.json $order, $way: exit status $status$(grep -o ': unexpected EOF' said || true)"
        if [ "$way" = gzip ] && { [ "$status" -eq 0 ] || ! gzip -t <"$way-$order.tar"; }; then as_said=no; fi
        if [ "$way" != gzip ] && ! grep -q diff_ids read; then as_said=no; fi
    done
done
if [ "$as_said" = no ]; then
    echo "this is no longer so" >&2
    exit 1
fi

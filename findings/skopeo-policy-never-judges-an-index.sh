#!/usr/bin/env bash
# skopeo 1.9.3+ds1-1+b10 (Debian 12) with a policy that demands signatures never asks for the signature of an index.
#
# Most expect: the digest of an index covers all that it lists, so who signs the index has signed the images in it, and a copy
# of all of it (`copy --all`) wants the index signed. That is what `cosign sign TAG` signs too.
#
# What happens: each image of the index is judged by itself, and the index not at all. An index with a good signature whose
# images have none is rejected at the first image. An index without a signature whose images have some is copied, whatever else
# it says of them: names, platforms, annotations, and which images there are.
#
# Why it matters: a multi-architecture image that was signed once, by its tag, fails under such a policy ("A signature was required,
# but no signature exists", which reads as if signing had failed), and an index that somebody else put together of signed
# images passes. Publishers have to sign every image too (`cosign sign --recursive`).
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'gpgconf --homedir "$work/gnupg" --kill all 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
command -v gpg >/dev/null || { echo "there is no gpg on PATH" >&2; exit 2; }
packages=(skopeo=1.9.3+ds1-1+b10 libgpgme11=1.18.0-3+deb12u1 libassuan0=2.5.5-5 libgpg-error0=1.46-1
    libdevmapper1.02.1=2:1.02.185-2)
apt-get download "${packages[@]}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root; done
libraries=$(find "$work/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
export GNUPGHOME=$work/gnupg HOME=$work
mkdir -m 700 gnupg
gpg --batch --quiet --passphrase '' --quick-gen-key builder ed25519 sign never 2>/dev/null
key=$(gpg --list-keys --with-colons 2>/dev/null | awk -F: '$1 == "fpr" { print $10; exit }')
gpg --batch --armor --export "$key" >key.asc

cat >image.py <<'PY'
import hashlib
import json
import pathlib

image = pathlib.Path("image")
image.mkdir()
kind = "application/vnd.oci.image"
listed = []
for architecture in "amd64", "arm64":
    config = json.dumps({"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    digest = hashlib.sha256(config).hexdigest()
    (image / digest).write_bytes(config)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "layers": [], "config": {
        "mediaType": f"{kind}.config.v1+json", "digest": f"sha256:{digest}", "size": len(config)}}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    (image / f"{digest}.manifest.json").write_bytes(manifest)
    listed.append({"mediaType": f"{kind}.manifest.v1+json", "digest": f"sha256:{digest}", "size": len(manifest),
                   "platform": {"architecture": architecture, "os": "linux"}})
index = json.dumps({"schemaVersion": 2, "mediaType": f"{kind}.index.v1+json", "manifests": listed})
(image / "manifest.json").write_text(index)
(image / "version").write_text("Directory Transport Version: 1.1\n")
required = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": str(pathlib.Path("key.asc").resolve()),
            "signedIdentity": {"type": "exactRepository", "dockerRepository": "registry.example/app"}}
pathlib.Path("policy.json").write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"dir": {"": [required]}}}))
PY
python3 image.py

skopeo() { LD_LIBRARY_PATH=$libraries root/usr/bin/skopeo "$@"; }
sign() { skopeo standalone-sign -o "$2" "$1" registry.example/app "$key" >/dev/null; }
try() {
    local status=0
    skopeo --policy policy.json copy --all --remove-signatures dir:image "dir:copy-$2" >/dev/null 2>said || status=$?
    echo "$1: exit status $status$(sed -n 's/.*msg=/: /p' said)"
    [ "$status" -eq "$2" ] || as_said=no
}

as_said=yes
sign image/manifest.json image/signature-1
try "the index is signed, its images are not" 1
rm image/signature-1
for manifest in image/*.manifest.json; do sign "$manifest" "${manifest%.manifest.json}.signature-1"; done
try "the images are signed, the index is not" 0
if [ "$as_said" = no ]; then
    echo "this is no longer so" >&2
    exit 1
fi

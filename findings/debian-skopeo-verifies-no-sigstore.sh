#!/usr/bin/env bash
# Debian 12's skopeo (1.9.3+ds1-1+b10) reads policies that demand sigstore's signatures, and rejects every image that has one.
#
# Most expect: skopeo 1.9 knows the type `sigstoreSigned`, and a policy with a type that it does not know is refused whole. Since
# the policy loads, an image with a good signature is accepted, and one that is rejected has none, or a bad one.
#
# What happens: Debian took the verification out of its library. The policy loads, its key is read, an image without a
# signature is rejected for that, and one whose signature `openssl` finds good is rejected too: "Debian-local change: sigstore
# disabled". Debian's podman 4.3.1+ds1-8+deb12u1+b3, of the same library, says the same when it pulls.
#
# Why it matters: a policy.json that works on Fedora makes every pull fail on Debian 12, and who tries out signatures there looks
# for the fault in the keys. GnuPG's signatures (`signedBy`) are verified.
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
libraries=$(find "$work/root" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
openssl ecparam -name prime256v1 -genkey -noout -out key.pem
openssl ec -in key.pem -pubout -out key.pub 2>/dev/null

cat >image.py <<'PY'
import base64
import hashlib
import json
import pathlib
import subprocess

image = pathlib.Path("signed")
image.mkdir()


def named(raw):
    digest = hashlib.sha256(raw).hexdigest()
    return {"digest": f"sha256:{digest}", "size": len(raw)}


config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}).encode()
(image / named(config)["digest"].partition(":")[2]).write_bytes(config)
kind = "application/vnd.oci.image"
manifest = json.dumps({"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "layers": [],
                       "config": {"mediaType": f"{kind}.config.v1+json", **named(config)}}).encode()
(image / "manifest.json").write_bytes(manifest)
(image / "version").write_text("Directory Transport Version: 1.1\n")
subprocess.run(["cp", "-r", "signed", "unsigned"], check=True)
payload = json.dumps({"optional": None, "critical": {
    "type": "cosign container image signature",
    "identity": {"docker-reference": "registry.example/app"},
    "image": {"docker-manifest-digest": named(manifest)["digest"]}}}).encode()
pathlib.Path("payload").write_bytes(payload)
signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", "key.pem", "payload"], check=True, capture_output=True).stdout
pathlib.Path("signature").write_bytes(signature)
(image / "signature-1").write_bytes(b"\0sigstore-json\n" + json.dumps({
    "mimeType": "application/vnd.dev.cosign.simplesigning.v1+json",
    "payload": base64.b64encode(payload).decode(),
    "annotations": {"dev.cosignproject.cosign/signature": base64.b64encode(signature).decode()}}).encode())
required = {"type": "sigstoreSigned", "keyPath": str(pathlib.Path("key.pub").resolve()),
            "signedIdentity": {"type": "exactRepository", "dockerRepository": "registry.example/app"}}
pathlib.Path("policy.json").write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"dir": {"": [required]}}}))
PY
python3 image.py

echo "openssl, the signature: $(openssl dgst -sha256 -verify key.pub -signature signature payload)"
as_said=yes
for image in unsigned signed; do
    status=0
    HOME=$work LD_LIBRARY_PATH=$libraries root/usr/bin/skopeo --policy policy.json copy "dir:$image" "dir:copy-$image" \
        >/dev/null 2>said || status=$?
    echo "skopeo, the $image image: exit status $status$(sed -n 's/.*msg=/: /p' said)"
    if [ "$status" -eq 0 ]; then as_said=no; fi
done
if ! grep -q 'sigstore disabled' said; then as_said=no; fi
if [ "$as_said" = no ]; then
    echo "this is no longer so" >&2
    exit 1
fi

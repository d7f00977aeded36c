#!/usr/bin/env bash
# sigstore 4.5.1 for Python (its sigstore-models 0.0.6) refuses a trusted root that leaves an empty list out.
#
# Most expect: a trusted root to be what its specification says, protobuf in its JSON form (sigstore_trustroot.proto). There an
# empty list may be left out, which most writers do unless told otherwise, and null means the same; the lists of logs and
# authorities have no mark of being required. So a deployment without, say, certificate transparency leaves `ctlogs` out.
#
# What happens: without `tlogs`, `certificateAuthorities` or `ctlogs` the file is refused by pydantic's ValidationError, which is
# none of sigstore's own errors ("Field required"); with `[]` in the same place it is read. `timestampAuthorities` may be
# missing, but not be null. sigstore-protobuf-specs 0.5.2, the Python classes made from the specification, reads them all,
# and leaves the empty ones out when it writes, so that a root which sigstore has read comes back as one that it refuses.
#
# Why it matters: private deployments, which are those that lack logs or authorities, write their trusted roots by hand or by a
# program, for clients of every language; what the others read this one calls invalid. Who writes such a file writes each
# list, also an empty one; who reads it by this library puts them in before.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
for package in sigstore==4.5.1 sigstore-protobuf-specs==0.5.2; do
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: \
        --target "${package%%=*}" "$package" >/dev/null 2>&1 || { echo "could not get $package" >&2; exit 2; }
done
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/O=example.org/CN=authority" -days 3650 \
    -keyout key -outform DER -out certificate 2>/dev/null || { echo "openssl makes no certificate" >&2; exit 2; }
openssl pkey -in key -pubout -outform DER -out public

python3 - <<'PY'
"""A trusted root, whole, and with each of its lists empty, left out, and null."""
import base64
import hashlib
import json
import pathlib


def encoded(content):
    return base64.b64encode(content).decode()


public = pathlib.Path("public").read_bytes()
time = {"start": "2026-01-01T00:00:00Z"}
authority = {"subject": {"organization": "example.org", "commonName": "authority"}, "uri": "https://authority.example.org",
             "certChain": {"certificates": [{"rawBytes": encoded(pathlib.Path("certificate").read_bytes())}]}, "validFor": time}
log = {"baseUrl": "https://log.example.org", "hashAlgorithm": "SHA2_256",
       "logId": {"keyId": encoded(hashlib.sha256(public).digest())},
       "publicKey": {"rawBytes": encoded(public), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": time}}
lists = {"tlogs": [log], "certificateAuthorities": [authority], "ctlogs": [log], "timestampAuthorities": [authority]}
whole = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", **lists}
roots = {"whole": whole}
for name in lists:
    roots[f"{name} empty"] = {**whole, name: []}
    roots[f"{name} left out"] = {key: value for key, value in whole.items() if key != name}
    roots[f"{name} null"] = {**whole, name: None}
pathlib.Path("roots.json").write_text(json.dumps(roots))
PY

cat >read.py <<'PY'
"""Reads each trusted root by the library that argv[1] names; how that went is told on stdout, as JSON."""
import json
import pathlib
import sys

library = sys.argv[1]
sys.path.insert(0, library)
if library == "sigstore":
    from sigstore.models import TrustedRoot

    def read(text):
        pathlib.Path("root.json").write_text(text)
        TrustedRoot.from_file("root.json")
        return "read"
else:
    from sigstore_protobuf_specs.dev.sigstore.trustroot.v1 import TrustedRoot

    def read(text):
        written = json.loads(TrustedRoot().from_json(text).to_json())
        return "read" + "".join(f", written without {name}" for name in json.loads(text) if name not in written)

seen = {}
for how, root in json.loads(pathlib.Path("roots.json").read_text()).items():
    try:
        seen[how] = read(json.dumps(root))
    except Exception as error:
        told = [line.split(" [")[0].strip() for line in str(error).splitlines()]
        seen[how] = f"{type(error).__module__.split('.')[0].lstrip('_')} {type(error).__name__}: " + ": ".join(told[1:3])
print(json.dumps(seen))
PY
for library in sigstore sigstore-protobuf-specs; do
    python3 read.py "$library" >"$library.json" || { echo "$library does not run" >&2; exit 2; }
done

python3 - <<'PY'
import json
import sys

client, specification = (json.load(open(f"{name}.json")) for name in ("sigstore", "sigstore-protobuf-specs"))
for how in client:
    print(f"{how}:\n    sigstore: {client[how]}\n    sigstore-protobuf-specs: {specification[how]}")
required = "tlogs", "certificateAuthorities", "ctlogs"
refused = {f"{name} {how}" for name in required for how in ("left out", "null")} | {"timestampAuthorities null"}
as_said = {how for how, said in client.items() if said != "read"} == refused and all(
    client[f"{name} left out"].endswith("ValidationError: " + name + ": Field required") for name in required)
as_said = as_said and all(said.startswith("read") for said in specification.values()) and all(
    specification[f"{name} empty"] == f"read, written without {name}" for name in required)
if not as_said:
    print("this is no longer so", file=sys.stderr)
    sys.exit(1)
PY

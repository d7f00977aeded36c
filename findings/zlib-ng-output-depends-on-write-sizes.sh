#!/usr/bin/env bash
# zlib-ng 2.3.3 (Python's zlib-ng 1.1.0): what deflate writes depends on how its input was cut, at levels 1, 5 and 6.
#
# Most expect: a deflate stream is a function of level and input. With zlib it is: without a flush it waits for more
# before it decides, so the same bytes in one call, or in a call each, become the same stream at every level.
#
# What happens: with zlib-ng at level 6, the default, the same 1.7 MB in one call, in pieces of 64 KiB, of 10,000
# and of 1,000 bytes become four different streams; so they do at level 5, and at level 1 but for the first two. At
# levels 2, 3, 4, 7, 8 and 9 they become one. All inflate to the same bytes.
#
# Why it matters: digests of compressed layers, and builds that are meant to be reproducible. A pipe or a socket cuts
# where it likes, so the same program makes other bytes in each run, where zlib-ng stands for zlib (as in Fedora, or
# behind Python's zlib on Windows from 3.14 on), though nothing differs that anybody would write down. Cut the input
# into blocks of one size, or take one of the other levels.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv env && env/bin/python -m pip install --quiet --disable-pip-version-check zlib-ng==1.1.0 >/dev/null 2>&1 ||
    { echo "could not get zlib-ng 1.1.0" >&2; exit 2; }

env/bin/python - <<'PY'
import hashlib
import zlib

from zlib_ng import zlib_ng

noise = hashlib.shake_128(b"words").digest(1 << 16)
words = [noise[at : at + 2 + at % 9].hex().encode() for at in range(256)]
content = b" ".join(words[byte] for byte in hashlib.shake_128(b"text").digest(1 << 17))
CUTS = {"one call": len(content), "64 KiB": 64 * 1024, "10,000": 10_000, "1,000": 1_000}


def streams(library, level):
    for cut in CUTS.values():
        deflate = library.compressobj(level)
        pieces = [deflate.compress(content[at : at + cut]) for at in range(0, len(content), cut)]
        made = b"".join(pieces) + deflate.flush()
        assert zlib.decompress(made) == content
        yield hashlib.sha256(made).hexdigest()[:8], len(made)


seen = {}
for name, library, version in (
    ("zlib", zlib, zlib.ZLIB_RUNTIME_VERSION),
    ("zlib-ng", zlib_ng, zlib_ng.ZLIBNG_RUNTIME_VERSION),
):
    print(f"{name} {version}: {len(content)} bytes in {', '.join(CUTS)}")
    for level in range(1, 10):
        found = list(streams(library, level))
        seen[name, level] = len(set(found))
        print(f"  level {level}: {seen[name, level]} different:", *(f"{digest} ({size})" for digest, size in found))
expected = {1: 3, 5: 4, 6: 4}
raise SystemExit(any(seen["zlib-ng", level] != expected.get(level, 1) for level in range(1, 10)))
PY

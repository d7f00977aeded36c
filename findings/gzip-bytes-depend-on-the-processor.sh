#!/usr/bin/env bash
# isal 1.9.1 (ISA-L 2.32.1) and zlib-ng 2.1.5 (Python's zlib-ng 0.5.1): the bytes of a gzip depend on the processor.
#
# Most expect: which vector instructions a processor has decides how fast a compressor is, not what it writes. So it
# is with zlib, with zlib-ng from 2.2 on, and with zstd at its default level.
#
# What happens: ISA-L at levels 0 to 2, and zlib-ng 2.1.5 at least at levels 1 to 6, hash by the crc32 instruction
# where SSE4.2 is there, and otherwise by arithmetic; so they find other matches. The same x86-64 wheel on the same
# input writes two different gzips. ISA-L's level 3 asks for AVX2 instead, and with it this input becomes 18 % larger.
# (On aarch64 ISA-L writes others again, which is not tried here.) zlib-ng 2.3.3 writes everywhere what 2.1.5 wrote
# without SSE4.2, so it depends on the processor whether an upgrade changes the bytes.
#
# Why it matters: a cache that is keyed by library, version and level, and is shared by machines, answers one machine
# with what another made; digests of layers that were compressed on two machines differ without a reason that shows.
#
# The processors are qemu's. Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
could_not() { echo "could not get $1" >&2; exit 2; }
[ "$(uname -m)" = x86_64 ] || could_not "an x86-64 machine"
emulator=qemu-user-static=1:7.2+dfsg-7+deb12u18+b3
apt-get download "$emulator" >/dev/null 2>&1 || could_not "$emulator"
dpkg-deb --fsys-tarfile ./qemu*.deb | tar x ./usr/bin/qemu-x86_64-static
for package in isal==1.9.1 zlib-ng==0.5.1 zlib-ng==1.1.0 zstandard==0.25.0; do
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: \
        --target "$package" "$package" >/dev/null 2>&1 || could_not "$package"
done
# A script that chooses among Pythons is no program for qemu.
python=$(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))')

cat >pack.py <<'PY'
import hashlib
import importlib
import sys

package, module, level = sys.argv[1:]
sys.path.insert(0, package)
library = importlib.import_module(module)
noise = hashlib.shake_128(b"words").digest(1 << 16)
words = [noise[at : at + 2 + at % 9].hex().encode() for at in range(256)]
content = b" ".join(words[byte] for byte in hashlib.shake_128(b"text").digest(1 << 16))
if module == "zstandard":
    packed = library.ZstdCompressor(level=int(level)).compress(content)
else:
    deflate = library.compressobj(int(level), library.DEFLATED, 31)
    packed = deflate.compress(content) + deflate.flush()
print(hashlib.sha256(packed).hexdigest()[:12], len(packed))
PY

wrong=0
try() { # PACKAGE MODULE LEVEL DIFFERENT
    echo "$1, level $3:"
    rm -f seen
    for processor in qemu64 Nehalem Haswell; do # with SSE3, SSE4.2, AVX2
        usr/bin/qemu-x86_64-static -cpu "$processor" "$python" pack.py "$1" "$2" "$3" 2>/dev/null | tee -a seen |
            sed "s/^/    $processor: /"
    done
    [ "$(wc -l <seen)" = 3 ] || could_not "three answers"
    [ "$(sort -u seen | wc -l)" = "$4" ] || wrong=1
}
try isal==1.9.1 isal.isal_zlib 2 2
try isal==1.9.1 isal.isal_zlib 3 2
try zlib-ng==0.5.1 zlib_ng.zlib_ng 2 2
try zlib-ng==1.1.0 zlib_ng.zlib_ng 2 1
try zstandard==0.25.0 zstandard 3 1
[ "$wrong" = 0 ] || { echo "this is no longer so" >&2; exit 1; }

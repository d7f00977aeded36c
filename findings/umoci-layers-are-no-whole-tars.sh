#!/usr/bin/env bash
# umoci 0.4.7 (Debian 12: umoci 0.4.7+ds-3+b7) writes layers that stop at the last byte of their last file.
#
# Most expect: a layer is a tar (image-spec, layer.md), so what lists tars lists layers; and a tar has its last block
# filled up and two blocks of zeros at its end (POSIX.1-2017, pax, "ustar Interchange Format").
#
# What happens: `umoci insert` makes a layer whose tar has neither the zeros at the end nor the padding of its last
# file. GNU tar lists it and fails ("Unexpected EOF in archive", exit status 2), Python's tarfile raises ReadError as
# soon as it looks behind the last entry. Go's archive/tar, by which container tools unpack layers, takes it: umoci
# itself does.
#
# Why it matters: who takes a missing end for a layer that was cut off refuses images that run everywhere; who takes
# a tar that stops behind an entry for whole can't tell one that was cut there. Only the diff_id tells.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get download umoci=0.4.7+ds-3+b7 >/dev/null 2>&1 || { echo "could not get umoci" >&2; exit 2; }
dpkg -x umoci_*.deb root
umoci=root/usr/bin/umoci

mkdir etc
echo hi >etc/greeting
"$umoci" init --layout image 2>/dev/null
"$umoci" new --image image:1 2>/dev/null
"$umoci" insert --rootless --image image:1 etc /etc 2>/dev/null
for blob in image/blobs/sha256/*; do
    if [ "$(head -c 2 "$blob" | od -An -tx1)" = " 1f 8b" ]; then gzip -dc "$blob" >layer.tar; fi
done
[ -s layer.tar ] || { echo "umoci made no layer" >&2; exit 2; }

size=$(stat -c %s layer.tar)
echo "the layer, two headers and a file of 3 bytes, has $size bytes; its last ones are: $(tail -c 3 layer.tar)"
status=0
tar tf layer.tar >/dev/null 2>said || status=$?
echo "GNU tar: exit status $status, $(head -n 1 said)"
python=$(python3 -c 'import tarfile
try:
    print(tarfile.open("layer.tar").getnames())
except tarfile.ReadError as error:
    print("ReadError,", error)')
echo "Python's tarfile: $python"
unpacked=0
"$umoci" unpack --rootless --image image:1 bundle 2>/dev/null || unpacked=$?
echo "umoci unpack (Go's archive/tar): exit status $unpacked, $(cat bundle/rootfs/etc/greeting)"

if [ $((size % 512)) -eq 0 ] || [ "$status" -eq 0 ] || [ "$unpacked" -ne 0 ] || [[ $python != ReadError* ]]; then
    echo "this is no longer so" >&2
    exit 1
fi

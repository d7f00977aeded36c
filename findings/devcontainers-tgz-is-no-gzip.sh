#!/usr/bin/env bash
# @devcontainers/cli 0.89.0 names the layers that it pushes `….tgz`, and they are tars without compression.
#
# Most expect: a file that is called devcontainer-feature-greet.tgz, in its folder and in the annotation
# `org.opencontainers.image.title` of its layer, is a gzip'ed tar; and that a client which unpacks such layers by
# their name, with `tar xzf`, is right.
#
# What happens: `features package` and `features publish` write plain tars under these names. The layer's media type,
# application/vnd.devcontainers.layer.v1+tar, says so; the name does not.
#
# Why it matters: gzip -d, `tar xzf` and servers that send `Content-Encoding: gzip` for .tgz fail or mislead; the names
# that artifacts give their layers are no more than names, and neither is the compression guessed from them safe.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm install --silent --no-audit --no-fund --no-save --prefix . @devcontainers/cli@0.89.0 >/dev/null 2>&1 ||
    { echo "could not get @devcontainers/cli" >&2; exit 2; }

mkdir -p src/greet
echo '{"id": "greet", "version": "1.0.0", "name": "Greet"}' >src/greet/devcontainer-feature.json
echo 'echo hello' >src/greet/install.sh
node node_modules/@devcontainers/cli/devcontainer.js features package --output-folder out src >/dev/null 2>&1 ||
    { echo "devcontainer features package failed" >&2; exit 2; }

file=$(echo out/*.tgz)
[ -s "$file" ] || { echo "no .tgz was made" >&2; exit 2; }
echo "made: ${file##*/}, $(stat -c %s "$file") bytes, of which the first two are: $(head -c 2 "$file" | od -An -tx1)"
gzip=0
gzip -t "$file" 2>said || gzip=$?
echo "gzip -t: exit status $gzip, $(grep -o 'not in gzip format' said || true)"
zipped=0
tar -xzOf "$file" >/dev/null 2>&1 || zipped=$?
echo "tar -xz: exit status $zipped"
echo "tar -t: $(tar -tf "$file" | tr '\n' ' ')"
if [ "$gzip" -eq 0 ] || [ "$zipped" -eq 0 ]; then
    echo "this is no longer so" >&2
    exit 1
fi

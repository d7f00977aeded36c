#!/usr/bin/env bash
# uvloop 0.23.0 (0.19.0 too): Process.communicate(input) raises RuntimeError for a program that ends without reading.
#
# Most expect: what asyncio's documentation of communicate says, that a BrokenPipeError or ConnectionResetError from
# writing to stdin is ignored, so that the program's output and status come back; and that uvloop, which shares the
# code of asyncio's streams, is a drop-in replacement of the loop below it.
#
# What happens: where the program has ended, and uvloop has noticed, before communicate comes to write, the pipe is
# closed already, and uvloop's transport refuses with "RuntimeError: unable to perform operation on
# <WriteUnixTransport …>; the handler is closed". asyncio's own transport drops such a write, so nothing catches it.
# What the program wrote is lost with it, though it ended with status 0. It is a race: some of the runs.
#
# Why it matters: programs that answer always the same need not read what they are asked: credential helpers, hooks,
# `true` in place of one. A program that awaits such a one fails now and then, on uvloop alone, with an error that no
# `except OSError` catches. Give the program a pipe with the input in it already, or a file, as its stdin.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
for version in 0.19.0 0.23.0; do
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: \
        --target "$version" "uvloop==$version" >/dev/null 2>&1 || { echo "could not get uvloop $version" >&2; exit 2; }
done

cat >try.py <<'PY'
import asyncio
import sys

sys.path.insert(0, sys.argv[1])
import uvloop

ROUNDS = 400


async def one():
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec("echo", "hello", stdin=pipe, stdout=pipe)
    try:
        out, _ = await program.communicate(b"a question")
        return "hello" if out == b"hello\n" else repr(out)
    except Exception as error:
        return f"{type(error).__name__}, and no output; the program ended with status {await program.wait()}"


async def rounds():
    seen = {}
    for _ in range(ROUNDS):
        how = await one()
        seen[how] = seen.get(how, 0) + 1
    return seen


lost = 0
for name, factory in (("asyncio", asyncio.new_event_loop), (f"uvloop {sys.argv[1]}", uvloop.new_event_loop)):
    with asyncio.Runner(loop_factory=factory) as runner:
        seen = runner.run(rounds())
    for how, count in sorted(seen.items()):
        print(f"{name}: {count} of {ROUNDS}: {how}")
    lost += sum(count for how, count in seen.items() if how.startswith("RuntimeError"))
    if name == "asyncio" and set(seen) != {"hello"}:
        sys.exit(1)
sys.exit(0 if lost else 1)
PY
failed=0
for version in 0.19.0 0.23.0; do
    python3 try.py "$version" || failed=1
done
exit "$failed"

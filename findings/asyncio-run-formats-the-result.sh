#!/usr/bin/env bash
# CPython 3.11 (Debian 12: python3.11 3.11.2-6+deb12u8; 3.12 too) formats the result of asyncio.run, and throws the
# text away.
#
# Most expect: `asyncio.run(main())` returns what main returned, and does not look at it.
#
# What happens: Runner.run takes its SIGINT handler away again by `signal.getsignal` and `signal.signal`, which try
# to make an enum member of the former handler. That one is a functools.partial over the main task, so the enum
# raises a ValueError with "%r is not a valid Handlers", which is caught. The %r is of the partial, so of the task,
# so of the task's result: its `__repr__` is called in full, twice, before reprlib cuts it to some characters.
#
# Why it matters: a program whose main coroutine returns a large value (a dataclass or struct over lists, say) pays
# for the text of it, twice, at its very end, in time and in memory: a plan of 38,000 steps that took 30 MB made a
# process peak at 174 MB, not 74. Outside the main thread it does not happen, nor in CPython 3.13, nor where the
# result is handed over by other means than by returning it.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
version=3.11.2-6+deb12u8
packages=(python3.11-minimal libpython3.11-minimal libpython3.11-stdlib)
apt-get download "${packages[@]/%/=$version}" >/dev/null 2>&1 || { echo "could not get ${packages[*]}" >&2; exit 2; }
for package in ./*.deb; do dpkg -x "$package" root; done

cat >probe.py <<'PY'
import asyncio
import sys
import tracemalloc


class Result:
    asked = 0

    def __init__(self, lines):
        self.lines = lines

    def __repr__(self):
        Result.asked += 1
        return f"Result({self.lines!r})"


async def main():
    result = Result([f"line {number}" * 10 for number in range(100_000)])
    tracemalloc.start()
    return result


asyncio.run(main())
_, peak = tracemalloc.get_traced_memory()
print(f"python {sys.version.split()[0]}: the result's __repr__ was called {Result.asked} times by asyncio.run,"
      f" for {peak / 1e6:.0f} MB of text at once")
sys.exit(0 if Result.asked == 2 else 1)
PY
PYTHONHOME=$work/root/usr LD_LIBRARY_PATH=$(find root -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:) \
    root/usr/bin/python3.11 -S probe.py

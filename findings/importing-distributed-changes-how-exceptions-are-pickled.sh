#!/usr/bin/env bash
# dask distributed 2026.8.0 (tblib 3.2.2): importing it changes how the whole process copies and pickles exceptions.
#
# Most expect: an import of a library changes nothing for exceptions that never come near it. copy.copy(), pickle and with
# them multiprocessing and concurrent.futures.ProcessPoolExecutor go on as before, and an exception says after a round trip
# what it said before it.
#
# What happens: `import distributed` has tblib register a reducer of its own for every exception class that exists by then.
# From there on each copy has its traceback with it (and so every frame's file and line, where pickle leaves them out), which is
# meant. It is made by __new__ alone, without __init__: a UnicodeDecodeError or UnicodeEncodeError, whose text is made of
# attributes that only __init__ sets, comes back with the right `args`, an empty text and `reason` None. Nothing is raised.
# Classes that are defined or imported later keep the usual way, so it depends on the order of imports which exceptions are hit.
#
# Why it matters: a program that hands errors from a worker process to its user prints an empty line in place of "can't decode
# byte 0xff in position 0", once any part of it imports distributed in the process that pickles: with Dask, or without it by
# a ProcessPoolExecutor. Send texts and fields, not exceptions.
#
# Prints what was seen; exit status 1: it is no longer so; 2: it could not be tried.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --only-binary :all: --target packages \
    dask==2026.8.0 distributed==2026.8.0 tblib==3.2.2 >/dev/null 2>&1 ||
    { echo "could not get dask distributed 2026.8.0" >&2; exit 2; }

cat >try.py <<'PY'
import copy
import pickle
import sys

sys.path.insert(0, "packages")


def fails(work):
    try:
        work()
    except Exception as error:
        return error


def seen():
    found = {}
    for error in (fails(b"\xff".decode), fails(lambda: "\u20ac".encode("ascii")), fails(lambda: int("x"))):
        for way, again in (("copied", copy.copy(error)), ("pickled", pickle.loads(pickle.dumps(error)))):
            found[type(error).__name__, way] = (str(again), again.args == error.args, again.__traceback__ is not None)
            print(f"  {type(error).__name__}, {way}: says {str(again)!r}, same args {again.args == error.args},"
                  f" traceback {again.__traceback__ is not None}, reason {getattr(again, 'reason', '-')!r}")
    return found


print("before:")
before = seen()
import distributed  # noqa: E402

print(f"after `import distributed` ({distributed.__version__}):")
after = seen()
late = type("Late", (UnicodeDecodeError,), {})
late_text = str(copy.copy(late("ascii", b"\xff", 0, 1, "of a class made later")))
print("  a class that is made later, copied: says", repr(late_text))
lost = [name for (name, _), (text, same, _) in after.items() if not text and same]
sys.exit(0 if all(text and not has for text, _, has in before.values()) and len(lost) == 4 and late_text
         and all(has for _, _, has in after.values()) else 1)
PY
HOME=$work python3 try.py || { echo "this is no longer so" >&2; exit 1; }

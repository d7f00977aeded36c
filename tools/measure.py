"""measure.py FIGURES PROGRAM [ARGUMENT…]: run a program and write what it took as JSON into FIGURES.

Seconds of wall time, seconds of CPU (user and system, its own children that ended included), and the bytes
of its peak resident memory. Ends with the program's exit code, or 128 and the signal that ended it. Small and
of the standard library alone, because wait4's peak counts what a process was before exec too.
"""

import json
import os
import sys
import time


def main() -> int:
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        try:
            os.execvp(sys.argv[2], sys.argv[2:])
        except OSError as error:
            os.write(2, f"{sys.argv[2]}: {error.strerror}\n".encode())
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - begin
    figures = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss * 1024}
    with os.fdopen(os.open(sys.argv[1], os.O_WRONLY), "w") as out:
        json.dump(figures, out)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())

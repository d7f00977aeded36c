"""Where the command `blobflow` begins, and `python -m blobflow`: no signal finds it unprepared.

A Ctrl-C while modules are imported is an interruption like any other. What is imported so far may be broken
then, so that nothing is asked to say so or to clean up.
"""

import os
from contextlib import suppress

_INTERRUPTED = 130


def main() -> None:
    """Run the command."""
    try:
        from blobflow.cli import main as run_command_line

        run_command_line()
    except KeyboardInterrupt:
        with suppress(OSError):
            os.write(2, b"blobflow: interrupted\n")
        os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()

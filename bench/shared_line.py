"""One line, as a machine has it, over which two registries are reached: a relay to each, with one pace.

    python -m bench.shared_line --rate 20000000 127.0.0.1:5000 127.0.0.1:5001

Prints a relay's `host:port` for each registry. All bytes of both, both ways together, keep to `--rate` a
second. A program is sent over it by its config.toml, in which each registry has its relay as the proxy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
from collections.abc import Sequence

import uvloop

from tools.network_path import Bucket, Shape, long_path


async def run(registries: Sequence[str], rate: float) -> None:
    """Relay until a signal ends it."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    line = Bucket(rate)
    async with contextlib.AsyncExitStack() as stack:
        paths = [
            await stack.enter_async_context(long_path(registry, Shape(), line=line))
            for registry in registries
        ]
        print(*(path.host for path in paths), flush=True)
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Registries over one paced line.")
    parser.add_argument("registries", nargs="+", metavar="HOST:PORT")
    parser.add_argument(
        "--rate", type=float, required=True, metavar="BYTES", help="a second, of all together"
    )
    chosen = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(chosen.registries, chosen.rate))


if __name__ == "__main__":
    main()

"""What is measured of several registries side by side, in turns, and the table of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import msgspec

from tools.loads.bodies import large_gets, pushes
from tools.loads.conversation import Answer, Script, converse_all
from tools.loads.requests import (
    MANIFEST,
    Content,
    Upload,
    expect,
    fresh,
    getting,
    image_of,
    pushing,
    request,
    upload,
    upload_at_once,
)
from tools.processes import Registry

CONNECTIONS = 16  # small requests in flight
SMALL = 1024
LARGE = 75_000_000
REPOSITORY = "bench/app"


class Figure(msgspec.Struct, frozen=True):
    """`amount` of something in so many seconds; `cpu` is what the server used meanwhile, in seconds."""

    amount: float
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.amount / self.seconds


# What is made ready for a registry, and then measured; it returns an amount.
Work = Callable[[Registry], Callable[[], float]]


def small_gets(registry: Registry, path: str, accept: str, seconds: float) -> float:
    """GETs of `path` on CONNECTIONS connections; how many were answered."""
    asked = request(registry.host, "GET", path, headers=f"Accept: {accept}\r\n")
    return _counted(registry, lambda until, count: getting(asked, until, count), seconds)


def small_pushes(registry: Registry, upload: Upload, size: int, seconds: float) -> float:
    """Pushes of blobs of so many bytes on CONNECTIONS connections; how many were answered 201."""

    def script(until: float, count: Callable[[], None]) -> Script:
        return pushing(upload, registry.host, REPOSITORY, _endless(size), until, count)

    return _counted(registry, script, seconds)


def _counted(
    registry: Registry, script: Callable[[float, Callable[[], None]], Script], seconds: float
) -> float:
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    until = time.monotonic() + seconds
    converse_all(registry.host, [script(until, count) for _ in range(CONNECTIONS)])
    return counted


def _endless(size: int) -> Iterator[Content]:
    while True:
        yield fresh(size)


def small_works(seconds: float, small: str) -> dict[str, Work]:
    """Small pulls and small pushes, by name; `small` is the digest of a blob that `fill` put there."""
    blob, tag = f"/v2/{REPOSITORY}/blobs/{small}", f"/v2/{REPOSITORY}/manifests/1.0"
    return {
        "GET 1 KiB blob, 1/s": lambda at: partial(small_gets, at, blob, "*/*", seconds),
        "GET manifest by tag, 1/s": lambda at: partial(small_gets, at, tag, MANIFEST, seconds),
        "push 4 KiB, POST and PUT, 1/s": lambda at: partial(small_pushes, at, upload, 4096, seconds),
        "push 4 KiB, one POST, 1/s": lambda at: partial(small_pushes, at, upload_at_once, 4096, seconds),
    }


def large_works(seconds: float, large: str) -> dict[str, Work]:
    """Large bodies, by name; `large` is the digest of a blob that `fill` put there."""
    layer = f"/v2/{REPOSITORY}/blobs/{large}"

    def ready(at: Registry) -> Callable[[], float]:
        return partial(pushes, at.host, REPOSITORY, [fresh(20_000_000) for _ in range(12)])

    return {
        "GET 75 MB blob, GB/s": lambda at: partial(large_gets, at.host, layer, seconds),
        "push 20 MB blobs, 1/s": ready,
    }


def fill(registry: Registry, config: Content, *layers: Content) -> None:
    """Blobs and one image of them, tagged 1.0, in REPOSITORY."""
    pushes(registry.host, REPOSITORY, [config, *layers])
    put_tag(registry.host, REPOSITORY, "1.0", image_of(config, *layers))


def put_tag(host: str, repository: str, tag: str, image: bytes) -> None:
    """PUT an image manifest. Raises RuntimeError unless it is answered 201."""

    def script() -> Script:
        path = f"/v2/{repository}/manifests/{tag}"
        answer: Answer = yield request(host, "PUT", path, image, kind=MANIFEST)
        expect(answer, 201)

    converse_all(host, [script()])


def measured(registry: Registry, work: Work) -> Figure:
    ready = work(registry)
    cpu, begun = registry.cpu_seconds(), time.monotonic()
    amount = ready()
    return Figure(amount, time.monotonic() - begun, registry.cpu_seconds() - cpu)


def in_turns(running: Mapping[str, Registry], work: Work, rounds: int) -> dict[str, list[Figure]]:
    """The figures of each registry; each round begins with another one, so that none always comes first."""
    figures: dict[str, list[Figure]] = {name: [] for name in running}
    names = list(running)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            figures[name].append(measured(running[name], work))
    return figures


def told(title: str, figures: Mapping[str, list[Figure]]) -> str:
    """A line for each registry: the medians of its rate, and of the CPU milliseconds that one cost it.
    Behind the first's those of the others, and how many times theirs the first's are: medians of the
    rounds' ratios, since what else the machine does changes from round to round."""
    ours, *_ = figures
    lines = [title]
    for name, found in figures.items():
        rate, cpu = statistics.median(each.rate for each in found), statistics.median(map(_cost, found))
        line = f"    {name:10}{rate:12,.2f}{cpu:10.3f} ms CPU each"
        if name != ours:
            pairs = list(zip(figures[ours], found, strict=True))
            rates = statistics.median(first.rate / other.rate for first, other in pairs)
            line += f"   {ours}: {rates:5.2f} x its rate"
            if all(map(_cost, found)):  # else so little that the clock of CPU time did not tick
                costs = statistics.median(_cost(first) / _cost(other) for first, other in pairs)
                line += f", {costs:5.2f} x its CPU"
        lines.append(line)
    return "\n".join(lines)


def _cost(figure: Figure) -> float:
    """CPU milliseconds for one."""
    return 1e3 * figure.cpu / figure.amount

"""Takes the pictures of our pages that the documentation shows, in Debian's chromium.

    python -m tools.page_pictures [FOLDER]      # by default docs/pictures

The pages are real, and what they show is made up: `sample_run_page` and `sample_registry` have names, sizes
and failures as one meets them, always the same.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from blobflow.cli.commands.demo import fill_registry
from blobflow.cli.output.html_report import render_html_report
from blobflow.cli.output.timeline import SpanEnd, StepSpan
from blobflow.engine.results.report import (
    HostRecord,
    ImageRecord,
    Report,
    RunRecord,
    Status,
    TargetRecord,
    Totals,
)
from blobflow.oci import parse_digest
from blobflow.oci.sample_images import sample_set
from blobflow.server import Server, make_app
from blobflow.transports.store import Store
from tools.browser import Browser
from tools.checkout import TOP
from tools.png import with_palette

FOLDER = TOP / "docs" / "pictures"
# Bytes; more would make the documentation slow to load.
MOST_BYTES = 100_000
_SOURCE, _TARGET = "docker.io", "registry.example.com:5000"
_PLATFORMS = ("linux/amd64", "linux/arm64/v8", "linux/arm/v7")
_IMAGES = (
    *("library/nginx:1.27", "library/redis:7.4", "library/postgres:17.2", "library/alpine:3.21"),
    *("rancher/pause:3.10", "rancher/mirrored-coredns-coredns:1.12.0", "rancher/klipper-helm:v0.9.3"),
    *("grafana/grafana:11.4.0", "prom/prometheus:v3.1.0", "prom/node-exporter:v1.8.2"),
    *("velero/velero:v1.15.1", "bitnami/sealed-secrets-controller:0.28.0"),
)
_TEAMS = ("billing", "search", "identity", "platform", "mobile", "insights", "shipping")
_PARTS = ("api", "web", "worker", "migrations", "gateway", "scheduler", "notifications-consumer", "admin-ui")


class Picture(NamedTuple):
    page: str  # run or registry
    width: int
    height: int
    dark: bool = False


PICTURES = {
    "run.png": Picture("run", 1400, 900),
    "run-dark.png": Picture("run", 1400, 900, dark=True),
    "run-tablet.png": Picture("run", 800, 900),
    "run-phone.png": Picture("run", 360, 740),
    "registry.png": Picture("registry", 1400, 900),
    "registry-dark.png": Picture("registry", 1400, 900, dark=True),
    "registry-tablet.png": Picture("registry", 800, 900),
    "registry-phone.png": Picture("registry", 360, 740),
}


def sample_run_page() -> str:
    """The page of a run of twelve images, one of which failed, and one of which was skipped."""
    images = [_image(number, name) for number, name in enumerate(_IMAGES)]
    began = datetime(2026, 11, 28, 3, 0, tzinfo=UTC)
    counts = {status: sum(image.status == status for image in images) for status in ("done", "present")}
    hosts = (
        HostRecord(_SOURCE, ("source",), 96, 1_240_000_000, 0),
        HostRecord("production.cloudflare.docker.com", (), 61, 0, 0),
        HostRecord(_TARGET, ("target",), 412, 0, 1_260_000_000),
    )
    report = Report(
        Totals(len(images), 1, 58, 23, 14, 41, 1_240_000_000, 1_260_000_000, 569, 47.3, skipped=1),
        tuple(images),
        (TargetRecord(_TARGET, **counts, failed=1, skipped=1, blobs_copied=58, bytes_written=1_260_000_000),),
        run=RunRecord(
            began,
            began + timedelta(seconds=47.3),
            "0.1.0",
            ("blobflow", "sync", "mirror.yaml", "--source-creds", "***", "--report", "run.html"),
            hosts,
        ),
        notes=("2 tags of library/nginx were chosen by their rule",),
    )
    return render_html_report(report, list(_spans()))


def _image(number: int, name: str) -> ImageRecord:
    status: Status = ("done", "done", "present", "done")[number % 4]
    error = reason = ""
    digest = f"sha256:{number * 0x9E3779B97F4A7C15 % 2**64:016x}{'0123456789abcdef' * 3}"
    if name.startswith("bitnami"):
        status, error = (
            "failed",
            (
                f"source: {_SOURCE} has no manifest {name} (404 MANIFEST_UNKNOWN); look for its tags with "
                f"`blobflow tags {_SOURCE}/{name.partition(':')[0]}`"
            ),
        )
    elif name.startswith("velero"):
        status, reason = "skipped", "there is no linux/arm/v7 here; there is linux/amd64, linux/arm64/v8"
    digest = "" if status == "failed" else digest
    target = f"{_TARGET}/mirror/{name}"
    platforms = () if status in ("failed", "skipped") else _PLATFORMS
    return ImageRecord(f"{_SOURCE}/{name}", target, digest, digest, platforms, status, error, reason=reason)


def _spans() -> Iterator[StepSpan]:
    """Steps that look like those of a run with eight blobs at once."""
    free = [0.4] * 8
    for step in range(96):
        lane = min(range(8), key=free.__getitem__)
        began, seconds = free[lane] + 0.05, 0.3 + (step * 37 % 29) * (step * 17 % 23) / 55
        kind = "mount" if step % 4 == 3 else "put" if step % 9 == 8 else "copy"
        seconds = 0.25 if kind != "copy" else seconds
        name = _IMAGES[step % len(_IMAGES)].partition(":")[0]
        digest = f"sha256:{step * 0x2545F4914F6CDD1D % 2**48:012x}{'ab' * 26}"
        end: SpanEnd = "refused" if step == 43 else "done"
        free[lane] = began + seconds
        yield StepSpan(
            step,
            kind,
            digest,
            f"{_TARGET}/mirror/{name}",
            int(seconds * 31_000_000),
            max(began - 0.4 * (step % 5), 0.3),
            began,
            free[lane],
            end,
            waited_for=step - 8 if step % 4 == 3 else None,
        )


@asynccontextmanager
async def sample_registry(folder: Path) -> AsyncIterator[str]:
    """The URL of a registry with some 150 repositories, while inside."""
    sample = sample_set(1, images=8)
    names = list(sample.images.values())
    with closing(Store.open(folder / "registry")) as store:
        fill_registry(store, sample)

        def fill() -> None:
            for number, team in enumerate(_TEAMS):
                for at, part in enumerate(_PARTS * 3):
                    index = names[(number + at) % len(names)]
                    name = f"{team}/{part}" + (f"-{at // len(_PARTS) + 1}" if at >= len(_PARTS) else "")
                    digest = parse_digest(index.digest)
                    store.repositories.add(name, digest, index.media_type)
                    for tag in ("1.4.0", "1.5.2", "latest")[: 1 + at % 3]:
                        store.repositories.set_tag(name, tag, digest)

        await store.commit(fill)
        async with Server(make_app(store)) as server:
            yield server.url


async def take(folder: Path) -> None:
    """Take all pictures. Raises ValueError for one that is too large."""
    with tempfile.TemporaryDirectory(prefix="blobflow-pictures-") as own:
        page = Path(own, "run.html")
        page.write_text(sample_run_page())
        async with sample_registry(Path(own)) as url, Browser(Path(own)) as browser:
            for name, picture in PICTURES.items():
                address = page.as_uri() if picture.page == "run" else f"{url}/?find=b"
                width, height = picture.width, picture.height
                await browser.open(address, width=width, height=height, dark=picture.dark)
                content = with_palette(await browser.picture())
                if len(content) > MOST_BYTES:
                    raise ValueError(f"{name} has {len(content)} bytes, more than {MOST_BYTES}")
                (folder / name).write_bytes(content)
                print(f"{name}: {len(content)} bytes")


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    chosen.mkdir(parents=True, exist_ok=True)
    asyncio.run(take(chosen))

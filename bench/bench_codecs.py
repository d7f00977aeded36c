"""Micro benchmarks of how bare layers are compressed: seconds for 64 MiB, and what of them is left.

    python -m pytest bench/bench_codecs.py

The files are those of Python's standard library and of /usr/bin, by name: text and programs, as in layers.
What is left stands under `extra_info` in --benchmark-json.
"""

from __future__ import annotations

import io
import sysconfig
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from blobflow.transports.archive import CompressMode, codec
from blobflow.transports.compression.compressors import Compressor

MIB = 1024 * 1024
SIZE = 64 * MIB


@pytest.fixture(scope="module")
def blocks() -> list[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for file in _files():
            if out.tell() >= SIZE:
                break
            tar.add(file)
    content = out.getvalue()[:SIZE]
    return [content[at : at + MIB] for at in range(0, len(content), MIB)]


def _files() -> Iterator[Path]:
    for folder, pattern in ((sysconfig.get_path("stdlib"), "*.py"), ("/usr/bin", "*")):
        found = sorted(Path(folder).glob(pattern))
        yield from (file for file in found if file.is_file() and not file.is_symlink())


def _zlib_ng(level: int) -> Callable[[], Compressor]:
    from zlib_ng import zlib_ng

    return lambda: zlib_ng.compressobj(level, zlib_ng.DEFLATED, 31)


def _zlib(level: int) -> Callable[[], Compressor]:
    import zlib

    return lambda: zlib.compressobj(level, zlib.DEFLATED, 31)


def _measured(benchmark: BenchmarkFixture, blocks: list[bytes], begin: Callable[[], Compressor]) -> None:
    def compress() -> int:
        compressor = begin()
        return sum(len(compressor.compress(block)) for block in blocks) + len(compressor.flush())

    made: int = benchmark(compress)
    benchmark.extra_info["of_the_size"] = round(made / sum(map(len, blocks)), 3)


@pytest.mark.parametrize("mode", ["gzip", "gzip-portable", "zstd"])
def test_codec(benchmark: BenchmarkFixture, blocks: list[bytes], mode: CompressMode) -> None:
    _measured(benchmark, blocks, codec(mode).begin)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 6])
def test_zlib_ng(benchmark: BenchmarkFixture, blocks: list[bytes], level: int) -> None:
    """What gzip-portable could be."""
    _measured(benchmark, blocks, _zlib_ng(level))


@pytest.mark.parametrize("level", [1, 6])
def test_zlib(benchmark: BenchmarkFixture, blocks: list[bytes], level: int) -> None:
    """What it would be without another library: whatever the system's zlib is."""
    _measured(benchmark, blocks, _zlib(level))

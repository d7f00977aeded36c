"""What whole runs over places in memory begin with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blobflow.transports.store import Store
from tests.memory import tmp_path
from tests.scenarios.mirror import MirrorScenario

__all__ = ["tmp_path"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.open(tmp_path / "store")) as opened:
        yield opened


@pytest.fixture
def bench(store: Store) -> MirrorScenario:
    return MirrorScenario(store)

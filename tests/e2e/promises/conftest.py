"""The stage on which all of a module's commands run, and stores to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.promises.stepping import Stage
from tests.e2e.promises.world import make_template


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running


@pytest.fixture(scope="module")
def template(stage: Stage) -> Path:
    """A store in which everything was pushed hours ago, and nothing has a tag."""
    root = stage.folder / "template"
    make_template(stage, root)
    return root

"""Finds signatures, images and policies that others made, with what has to be answered about them.

They are not part of the project. They are looked for in the folder that $SIGNATURE_VECTORS names, else in
`shared/data/signatures` beside the checkout.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "data" / "signatures"


def signature_vectors(folder: str) -> Path:
    """One folder of them. Skips the test where they are not."""
    path = Path(os.environ.get("SIGNATURE_VECTORS") or _BESIDE) / folder
    if not path.is_dir():
        pytest.skip(f"the vectors of others are not here: no {path}; $SIGNATURE_VECTORS names their folder")
    return path

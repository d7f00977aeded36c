"""Measuring: how fast the user's own registries are, and which settings suit them.

trials   the trials, their measurements, and what these recommend: values, pure
blobs    generated blobs that no registry has
runner   the run: blobs are pushed, pulled, copied, and deleted again
"""

from blobflow.operations.measure.runner import measure, tell_nobody
from blobflow.operations.measure.trials import (
    Batch,
    LeftBehind,
    Measurements,
    Recommendation,
    Trial,
    TrialMatrix,
    recommend,
)

__all__ = [
    "measure",
    "tell_nobody",
    "TrialMatrix",
    "Batch",
    "Trial",
    "LeftBehind",
    "Recommendation",
    "Measurements",
    "recommend",
]

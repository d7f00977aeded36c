"""Measuring: how fast the user's own registries are, and which settings suit them.

trials   what is tried, what came of it, and what that recommends: values, pure
blobs    generated blobs that are like no others
runner   the run: blobs go up, come down, are copied, and are taken out again
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

"""Composition: how fast the user's own registries are, and which settings suit them.

course      what is tried, what came of it, and what that speaks for: values, pure
generated   blobs that are like no others
legs        the run: blobs go up, come down, are copied, and are taken out again
"""

from blobflow.benching.course import Choice, Course, Findings, Left, Leg, Lot, choose
from blobflow.benching.legs import bench, tell_nobody

__all__ = ["bench", "tell_nobody", "Course", "Lot", "Leg", "Left", "Choice", "Findings", "choose"]

"""Folders of unit tests are in memory: what is written there is looked at, and no disk is."""

from tests.memory import tmp_path

__all__ = ["tmp_path"]

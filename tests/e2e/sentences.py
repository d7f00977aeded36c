"""What a user sees when something goes wrong: an exit code and one sentence."""

from __future__ import annotations

from tools.processes import Run


def assert_one_sentence(run: Run, code: int, *words: str) -> None:
    """The run ended with `code` and, besides progress, one line about it, which has all the words."""
    assert (run.code, "Traceback" in run.err) == (code, False), run.err
    [line] = (line for line in run.err.splitlines() if not line.startswith("Progress: "))
    assert line.startswith("blobflow: ")
    assert [word for word in words if word not in line] == [], line

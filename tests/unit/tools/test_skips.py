"""In continuous integration nothing end to end is skipped in silence."""

from __future__ import annotations

import pytest

from tools.checkout import TOP

pytest_plugins = "pytester"

SKIPS = """
    import pytest

    @pytest.fixture
    def program():
        pytest.skip("needs a program")

    def test_one(program):
        pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with our conftest, and one skipped test in each of two folders."""
    ours = TOP / "tests" / "conftest.py"
    pytester.makeconftest(ours.read_text())
    pytester.makeini("[pytest]\nmarkers =\n    e2e: as ours")
    for folder in ("e2e", "unit"):
        pytester.makepyfile(**{f"{folder}/test_{folder}": SKIPS})
    return pytester


@pytest.mark.parametrize(("ci", "failed"), [("true", 1), ("", 0)])
def test_a_skipped_end_to_end_test_fails_in_ci_and_nowhere_else(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, failed: int
) -> None:
    monkeypatch.setenv("CI", ci)
    done = project.runpytest_subprocess("-rs")
    outcomes = done.parseoutcomes()
    assert outcomes.get("skipped", 0) + outcomes.get("errors", 0) + outcomes.get("failed", 0) == 2
    assert outcomes["skipped"] == 2 - failed
    assert ("may not be skipped in CI (Skipped: needs a program)" in done.stdout.str()) is bool(failed)

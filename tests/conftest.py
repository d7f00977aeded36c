"""Of all tests: where one lies says what it is.

    unit         one module or a few, in a folder of their package's name
    contract     what every Source, Sink and Cache promises, and every registry server
    integration  whole runs in this process, between places in memory or registries on loopback
    e2e          blobflow as a program, beside real registries, proxies and tools
    docs         README and docs/: every command, block, link and printed line
    scenarios    what whole runs begin with, for several tests; no test imports from another
    fakes        doubles of what blobflow talks to, for several tests

Soaks and most clients are only run by name (`pytest -m soak`, `-m clients`). Of what is end to end CI skips
only comparisons with programs that it has no package of (`where_present`). No test fails because it is slow.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Who is started in the background ignores these, and hands that on to all that it starts.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"
# Workers take files in this order: those that take minutes begin first, and the many short ones fill the end.
FOLDERS = ("e2e", "integration", "docs", "contract", "unit")
BY_NAME = ("soak", "clients")
IN_CI = os.environ.get("CI") == "true"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FOLDERS.index(item.path.relative_to(TESTS).parts[0]))
    for item in items:
        if E2E in item.path.parents:
            item.add_marker(pytest.mark.e2e)
    for name in BY_NAME:
        if name not in config.option.markexpr:
            unasked = [item for item in items if _only_by_name(item.get_closest_marker(name))]
            config.hook.pytest_deselected(items=unasked)
            items[:] = [item for item in items if item not in unasked]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are called by their length: gzip's have the time in them, and names are the same everywhere."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How much of the documentation was tried, where it was."""
    if any(_is_of_docs(report) for reports in terminalreporter.stats.values() for report in reports):
        from tools.documentation.counts import counts_text

        terminalreporter.write_line(counts_text())


def _is_of_docs(report: object) -> bool:
    return isinstance(report, pytest.TestReport) and report.nodeid.startswith("tests/docs/")


def _only_by_name(mark: pytest.Mark | None) -> bool:
    return mark is not None and not mark.kwargs.get("always")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    # Python 3.11 counts depth while it parses, for all of the interpreter: garbage that is collected in the
    # middle, and prints a traceback of its own, would break the report of this failure.
    gc.disable()
    try:
        report = yield
    finally:
        gc.enable()
    optional = item.get_closest_marker("where_present")
    if IN_CI and report.skipped and item.get_closest_marker("e2e") and not optional:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"an end-to-end test may not be skipped in CI ({reason})"
    return report

"""A run's report as JUnit XML, which CI systems show beside their tests. Pure.

A target is a test suite, an image a test case of it: a failure if it failed, an error if the run ended before
it was finished, skipped if it was. There is no standard; this is what Ant's schema (of which all others are
descendants) asks for, with nothing that Jenkins' refuses. XML 1.0 has no place for most control characters:
they are written as their escapes, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

import msgspec

from blobflow.cli.options.command_line import command_text
from blobflow.cli.output.units import one_line

if TYPE_CHECKING:
    from blobflow.engine.results.report import ImageRecord, Report, TagRecord

_PACKAGE = "blobflow"
# Where no run told when it was: Ant's schema wants a time.
_NO_TIME = "1970-01-01T00:00:00"


class _Case(msgspec.Struct, frozen=True):
    """A test case, and what it ended as: failure, error or skipped; "" if well."""

    xml: str
    kind: str = ""


def render_junit_report(report: Report) -> str:
    """The whole document. Times of single images are not measured; a suite has that of the run."""
    hosts = [target.target for target in report.targets]
    cases: dict[str, list[_Case]] = {host: [] for host in hosts}
    for image in report.images:
        host = _host(image.target, hosts)
        cases.setdefault(host, []).append(_image_case(host, image))
    for tag in report.tags:
        host = _host(tag.target, hosts)
        cases.setdefault(host, []).append(_tag_case(host, tag))
    suites = [_suite(number, host, report, found) for number, (host, found) in enumerate(cases.items())]
    return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>", *suites, "</testsuites>\n"])


def _host(target: str, hosts: Iterable[str]) -> str:
    """Which of the report's targets this is below: registries, layouts and archives have their own forms."""
    fitting = [host for host in hosts if target == host or target.startswith((f"{host}/", f"{host}:"))]
    return max(fitting, key=len, default=target.partition("/")[0])


def _suite(number: int, host: str, report: Report, cases: Sequence[_Case]) -> str:
    started = report.run.started
    counts = {
        "tests": len(cases),
        "failures": sum(case.kind == "failure" for case in cases),
        "errors": sum(case.kind == "error" for case in cases),
        "skipped": sum(case.kind == "skipped" for case in cases),
    }
    attributes = {
        "id": str(number),
        "package": _PACKAGE,
        "name": host,
        "hostname": "localhost",
        "timestamp": f"{started:%Y-%m-%dT%H:%M:%S}" if started else _NO_TIME,
        **{name: str(count) for name, count in counts.items()},
        "time": f"{report.totals.seconds:.3f}",
    }
    words = " ".join(f"{name}={_attribute(value)}" for name, value in attributes.items())
    body = "\n".join((f"<properties>{_properties(report)}</properties>", *(case.xml for case in cases)))
    ended = escape(one_line(report.run.error))
    return (
        f"<testsuite {words}>\n{body}\n<system-out></system-out><system-err>{ended}</system-err></testsuite>"
    )


def _properties(report: Report) -> str:
    run, totals = report.run, report.totals
    facts = {
        "blobflow.version": run.blobflow,
        "blobflow.command": command_text(run.command),
        "blobflow.ended": f"{run.ended:%Y-%m-%dT%H:%M:%SZ}" if run.ended else "",
        "blobflow.bytes_read": str(totals.bytes_read),
        "blobflow.bytes_written": str(totals.bytes_written),
        "blobflow.requests": str(totals.requests),
    }
    return "".join(
        f"<property name={_attribute(name)} value={_attribute(value)}/>"
        for name, value in facts.items()
        if value
    )


def _image_case(host: str, image: ImageRecord) -> _Case:
    name = f"{image.source} -> {image.target}"
    if image.status == "failed":
        return _case(host, name, "failure", image.error, _side(image.error))
    if image.status == "skipped":
        kind = "skipped" if image.reason else "error"
        return _case(host, name, kind, image.reason or image.error, "unfinished")
    return _case(host, name)


def _tag_case(host: str, tag: TagRecord) -> _Case:
    """The test case of a tag that was too many."""
    if tag.status == "failed":
        return _case(host, f"remove {tag.target}", "failure", tag.why, "target")
    return _case(host, f"{tag.status} {tag.target}")


def _case(host: str, name: str, kind: str = "", why: str = "", sort: str = "") -> _Case:
    start = f'<testcase classname={_attribute(host)} name={_attribute(name)} time="0"'
    if not kind:
        return _Case(f"{start}/>")
    if kind == "skipped":
        return _Case(f"{start}><skipped message={_attribute(why)}/></testcase>", kind)
    end = f"<{kind} type={_attribute(sort)} message={_attribute(why)}>{escape(one_line(why))}</{kind}>"
    return _Case(f"{start}>{end}</testcase>", kind)


def _side(error: str) -> str:
    """The side that an error names in front."""
    side = error.partition(":")[0]
    return side if side in ("source", "target") else "failed"


def _attribute(words: str) -> str:
    return quoteattr(one_line(words))

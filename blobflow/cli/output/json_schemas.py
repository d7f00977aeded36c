"""JSON schemas of what programs read: reports, trees of referrers, and events as lines. Made of the types
that are written, so that they can't say anything else. Readers should take fields that are not in them: later
versions have more.
"""

from __future__ import annotations

from typing import Any, Union

import msgspec

from blobflow.cli.output import json_events  # the kinds of its own are subclasses of Event by then
from blobflow.cli.output.referrers_document import ReferrersDocument
from blobflow.engine.results.report import Report
from blobflow.events import Event

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REF = "#/$defs/{name}"


def report_schema() -> dict[str, Any]:
    """The schema of a report, as `--report FILE.json` writes it."""
    words = "What a run did, as --report FILE.json writes it, however the run ended."
    return _document("A report of blobflow", words, msgspec.json.schema(Report, ref_template=_REF))


def referrers_schema() -> dict[str, Any]:
    """The schema of what `referrers --json` prints."""
    made = msgspec.json.schema(ReferrersDocument, ref_template=_REF)
    return _document("What hangs on an image", "The tree that blobflow referrers --json prints.", made)


def _document(title: str, words: str, made: dict[str, Any]) -> dict[str, Any]:
    for kind in made["$defs"].values():  # docstrings, with the line ends of their sources
        paragraphs = kind.get("description", "").split("\n\n")
        kind["description"] = "\n\n".join(" ".join(each.split()) for each in paragraphs)
    return {"$schema": _DIALECT, "title": title, "description": words, **made}


def event_kinds() -> tuple[type[Event], ...]:
    """All kinds of events, in the order in which they are defined."""
    return tuple(kind for kind in Event.__subclasses__() if kind.__module__.startswith("blobflow."))


def events_schema() -> dict[str, Any]:
    """The schema of a line that `--log-format json` writes."""
    assert issubclass(json_events.Summary, Event)
    union: Any = Union[event_kinds()]  # noqa: UP007  of a tuple
    made = msgspec.json.schema(union, ref_template=_REF)
    time = {
        "type": "string",
        "format": "date-time",
        "description": "When the line was written: UTC, RFC 3339.",
    }
    for kind in made["$defs"].values():
        if "event" in kind.get("properties", {}):
            kind["properties"] = {"time": time, **kind["properties"]}
            kind["required"] = ["time", *kind["required"]]
    words = "A line that --log-format json writes to stderr. Readers pass over kinds that they do not know."
    return _document("An event of blobflow", words, made)

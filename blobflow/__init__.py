"""blobflow moves sets of multi-architecture container images between registries.

The public names, in the order of the flow: words → what is wanted → client → plan → report. Each is imported
when it is first asked for (PEP 562), so that `import blobflow` costs nothing.

    from blobflow import Client, Pair, parse_reference

    pair = Pair(parse_reference("alpine:3"), parse_reference("127.0.0.1:5000/alpine:3"))
    async with Client() as client:
        report = await client.mirror([pair])

Logins, certificates, proxies and the store are then those of the command line on this machine; for others
pass `Settings`, and for hosts of your own `CustomTransports`. What is needed less often takes a client, too:
`blobflow.operations`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blobflow.client import Client as Client
    from blobflow.custom_transports import CustomTransports as CustomTransports
    from blobflow.engine.execution import Run as Run
    from blobflow.engine.pairs import Pair as Pair
    from blobflow.engine.plan.cost import Cost as Cost
    from blobflow.engine.plan.planned import Planned as Planned
    from blobflow.engine.plan.steps import Plan as Plan
    from blobflow.engine.policy import Policy as Policy
    from blobflow.engine.results.report import ImageRecord as ImageRecord
    from blobflow.engine.results.report import Report as Report
    from blobflow.engine.results.report import Totals as Totals
    from blobflow.engine.saved.plan import SavedPlan as SavedPlan
    from blobflow.environment import from_environment as from_environment
    from blobflow.errors import BlobflowError as BlobflowError
    from blobflow.events import Event as Event
    from blobflow.events import Meter as Meter
    from blobflow.events import Observer as Observer
    from blobflow.oci import Descriptor as Descriptor
    from blobflow.oci import Digest as Digest
    from blobflow.oci import Manifest as Manifest
    from blobflow.oci import Platform as Platform
    from blobflow.oci import Reference as Reference
    from blobflow.oci import parse_digest as parse_digest
    from blobflow.oci import parse_reference as parse_reference
    from blobflow.operations.inspection import Inspection as Inspection
    from blobflow.planfile import load_plan as load_plan
    from blobflow.planfile import save_plan as save_plan
    from blobflow.settings import Settings as Settings
    from blobflow.signatures.judge import load_judge as load_judge
    from blobflow.version import __version__ as __version__

# Where each name lives; the order is that of the flow.
_ROOMS = (
    ("blobflow.oci", ("Digest", "parse_digest", "Platform", "Descriptor", "Manifest")),
    ("blobflow.oci", ("Reference", "parse_reference")),
    ("blobflow.engine.pairs", ("Pair",)),
    ("blobflow.settings", ("Settings",)),
    ("blobflow.environment", ("from_environment",)),
    ("blobflow.custom_transports", ("CustomTransports",)),
    ("blobflow.engine.policy", ("Policy",)),
    ("blobflow.signatures.judge", ("load_judge",)),
    ("blobflow.events", ("Event", "Observer", "Meter")),
    ("blobflow.client", ("Client",)),
    ("blobflow.operations.inspection", ("Inspection",)),
    ("blobflow.engine.plan.planned", ("Planned",)),
    ("blobflow.engine.plan.steps", ("Plan",)),
    ("blobflow.engine.plan.cost", ("Cost",)),
    ("blobflow.planfile", ("save_plan", "load_plan")),
    ("blobflow.engine.saved.plan", ("SavedPlan",)),
    ("blobflow.engine.execution", ("Run",)),
    ("blobflow.engine.results.report", ("Report", "Totals", "ImageRecord")),
    ("blobflow.errors", ("BlobflowError",)),
    ("blobflow.version", ("__version__",)),
)
_HOME = {name: room for room, names in _ROOMS for name in names}

__all__ = [*_HOME]


if not TYPE_CHECKING:  # a type checker reads the imports above, and so finds a name that is not there

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'blobflow' has no attribute {name!r}")
        value: object = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)

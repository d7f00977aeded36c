"""What a library user sees: everything public explains itself, and values can be sent elsewhere."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
import subprocess
import sys
import typing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import msgspec
import pytest

import blobflow
from blobflow import events
from blobflow.custom_transports import CustomTransports
from blobflow.engine.execution import Run
from blobflow.engine.pairs import Pair
from blobflow.engine.policy import Policy
from blobflow.errors import BlobflowError, NotFound
from blobflow.oci import Reference
from blobflow.oci.platform_choice import PlatformChoice
from blobflow.oci.sample_images import sample_set
from blobflow.settings import Settings
from blobflow.transports.registry import ClientCertificate, Credentials, HostSettings, Proxies, TlsSettings
from tests.fakes.memory_registry import MemoryRegistry
from tests.library import mirror, plan
from tools.checkout import TOP


def modules() -> list[str]:
    """All modules but those of the command line, which nobody imports."""
    found = [module.name for module in walk_packages(blobflow.__path__, "blobflow.")]
    return [
        "blobflow",
        *(name for name in found if name.split(".")[1] != "cli" and not name.endswith("__main__")),
    ]


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Classes and functions of a module that are meant for others, with their public methods."""
    names = module.__all__ if hasattr(module, "__all__") else [n for n in vars(module) if n[0] != "_"]
    for name in names:
        value = getattr(module, name)
        own = hasattr(module, "__all__") or getattr(value, "__module__", None) == module.__name__
        if own and (inspect.isclass(value) or inspect.isfunction(value)):
            yield name, value
            yield from ((f"{name}.{part}", each) for part, each in _methods(value))


def _methods(value: Any) -> Iterator[tuple[str, Any]]:
    for name, found in vars(value).items() if inspect.isclass(value) else ():
        method = getattr(found, "__func__", None) or getattr(found, "fget", None) or found
        if inspect.isfunction(method) and (name[0] != "_" or name in ("__init__", "__call__")):
            yield name, inspect.unwrap(method)


@pytest.mark.parametrize("name", modules())
def test_everything_public_has_help_signature_and_types(name: str) -> None:
    module = import_module(name)
    for member, value in public(module):
        where = f"{name}.{member}"
        assert typing.get_type_hints(value, include_extras=True) is not None, where
        try:
            inspect.signature(value, eval_str=True)
        except ValueError as error:  # Exceptions and protocols that Python itself gives none
            assert "no signature found" in str(error), where
        assert pydoc.render_doc(value), where
    assert name in pydoc.plain(pydoc.render_doc(module))


@pytest.mark.parametrize("name", blobflow.__all__)
def test_what_the_package_exports_says_what_it_promises(name: str) -> None:
    value = getattr(blobflow, name)
    parts = {part: each for part, each in _methods(value) if not part.startswith("__")}
    assert not [part for part, each in {name: value, **parts}.items() if not each.__doc__]


def test_help_of_the_package_shows_its_names() -> None:
    shown = pydoc.plain(pydoc.render_doc(blobflow))
    for name in ("Settings", "from_environment", "CustomTransports", "Report"):
        assert name in shown
    assert "compress" in pydoc.plain(pydoc.render_doc(blobflow.Settings))
    assert "settings: blobflow.settings.Settings | None = None" in str(
        inspect.signature(mirror, eval_str=True)
    )


def test_every_name_is_there_and_is_where_it_says() -> None:
    assert len(set(blobflow.__all__)) == len(blobflow.__all__)
    for name in blobflow.__all__:
        assert getattr(blobflow, name) is not None, name


# How many modules of ours, and beyond Python's own of others, an import loads at most: as it was before.
@pytest.mark.parametrize(
    ("code", "ours", "others"),
    [("import blobflow", 0, 0), ("import blobflow.cli", 2, 14), ("import blobflow.errors", 1, 0)],
)
def test_starting_loads_no_more_than_it_did(code: str, ours: int, others: int) -> None:
    count = (
        f"import sys, typing, collections.abc, importlib; before = set(sys.modules); {code}; "
        "new = set(sys.modules) - before - set(sys.stdlib_module_names); "
        "print(*(n for n in new if n.split('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", count], cwd=TOP, capture_output=True, text=True, check=True)
    new = done.stdout.split()
    found = [name for name in new if name.startswith("blobflow.")]
    assert len(found) <= ours, found
    assert len(set(new) - set(found)) - 1 <= others, new


# values that travel


def event_examples() -> list[events.Event]:
    """One of each kind of event."""
    samples: dict[Any, Any] = {str: "words", int: 7, float: 1.5, bool: True}
    kinds = [
        kind for kind in vars(events).values() if inspect.isclass(kind) and issubclass(kind, events.Event)
    ]
    made = []
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        values = {}
        for field in msgspec.structs.fields(kind):
            hint = hints[field.name]
            options = typing.get_args(hint)
            values[field.name] = samples.get(hint, options[0] if options else None)
        made.append(kind(**values))
    assert len(made) > 8
    return made


SETTINGS = Settings(
    plain_http=frozenset({"a"}),
    cache_dir=Path("/c"),
    auth_files=(Path("/a"),),
    pairs=(ClientCertificate(Path("/c.pem"), Path("/c.key")),),
    proxies=Proxies(https="http://p:1"),
    hosts={"a": HostSettings(credentials=Credentials("joe", "x"), trust=TlsSettings(ca=(Path("/ca"),)))},
)
PAIR = Pair(Reference("a", "b", "1"), Reference("c", "d", "1"), PlatformChoice())
VALUES = [SETTINGS, PAIR, Policy(keep_going=False), Credentials("joe", "x"), *event_examples()]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_can_be_pickled_and_copied(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value


Sent = typing.TypeVar("Sent")


def returned(value: Sent) -> Sent:
    return value


async def test_plans_and_reports_can_be_sent_to_another_process() -> None:
    images = sample_set(2, images=2, architectures=("amd64",), layer_size=1024)
    source, target = MemoryRegistry("source"), MemoryRegistry("target")
    source.fill(images)
    transports = CustomTransports(sources={"source": source.at}, sinks={"target": target.at})
    pairs = [
        Pair(Reference("source", *name.rsplit(":", 1)), Reference("target", *name.rsplit(":", 1)))
        for name in [*images.images, "no/such:1"]
    ]
    planned = await plan(pairs, Settings(), transports=transports)
    runs: list[Run] = []
    report = await mirror(pairs, Settings(), on_start=runs.append, transports=transports)
    assert [image.status for image in report.images] == ["done", "done", "failed"]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        back, planned_back, errors = pool.submit(returned, (report, planned, runs[0].errors)).result()
    assert back == report
    assert planned_back.plan == planned.plan
    assert planned_back.cost == planned.cost
    assert planned_back.graph == planned.graph
    (failed,) = errors
    assert failed == pairs[-1]
    error = errors[failed]
    assert isinstance(error, NotFound)
    assert (error.side, error.status, str(error)) == ("source", 404, str(runs[0].errors[failed]))
    assert isinstance(planned_back.failures[failed], BlobflowError)

"""The house rules that no type checker sees: which room may import which, who may look outside, and names.

The tables below are the architecture. A module belongs to the room with the longest prefix of its name; every
module has to belong to one, so that a new room is a decision and not an accident.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TOP = Path(__file__).resolve().parents[2]

WORDS = ("errors", "events", "lazy_pattern", "oci", "printable", "waits")
SEAM = (*WORDS, "content", "permits", "retrying", "single_flight")
STORE = "transports.store"


class Room(NamedTuple):
    """What a room may import besides itself: other rooms, and packages beyond the standard library."""

    rooms: tuple[str, ...]
    packages: tuple[str, ...] = ()


# msgspec is everywhere, since every value is a Struct. "*" is any room.
ROOMS = {
    "": Room(("*",)),  # blobflow/__init__.py: lazy, the names of the flow
    "__main__": Room(("cli",)),
    "errors": Room(WORDS),
    "events": Room(WORDS, ("msgspec",)),
    "oci": Room(WORDS, ("msgspec", "re2")),
    "lazy_pattern": Room(()),
    "waits": Room((), ("msgspec",)),
    "printable": Room(("lazy_pattern",)),
    "bounded_cache": Room(()),
    "bounded_file": Room(("errors",)),
    "single_flight": Room(("errors",)),
    "content": Room(SEAM, ("msgspec",)),
    "contract": Room(SEAM),
    "permits": Room(()),
    "retrying": Room(WORDS, ("msgspec",)),
    "signatures": Room(
        (*WORDS, "bounded_file", "file_errors"),
        ("msgspec", "cryptography", "sigstore", "sigstore_models", "rfc3161_client", "pydantic"),
    ),
    "signatures.contract": Room(WORDS, ("msgspec",)),
    "signatures.finding": Room((*SEAM, "signatures.contract"), ("msgspec",)),
    "signatures.judging": Room(("signatures.contract",)),
    "engine": Room(
        (*SEAM, "version", "signatures.contract", "signatures.finding", "signatures.judging"), ("msgspec",)
    ),
    "transports": Room(SEAM),
    "transports.registry": Room((*SEAM, "bounded_cache"), ("msgspec", "yarl")),
    "transports.registry.origins": Room(SEAM, ("aiohttp", "yarl")),
    "transports.registry.auth": Room(
        (*SEAM, "bounded_cache", "bounded_file", "transports.registry.origins"), ("msgspec", "yarl")
    ),
    "transports.registry.capabilities": Room((*SEAM, "bounded_cache"), ("msgspec",)),
    # What inflates layers also undoes Content-Encoding.
    "transports.registry.http": Room(
        (
            *SEAM,
            "transports.compression",
            "transports.registry.auth",
            "transports.registry.capabilities",
            "transports.registry.origins",
            "transports.sendfile",
        ),
        ("msgspec", "aiohttp", "yarl", "multidict"),
    ),
    "transports.registry.uploads": Room(
        (
            *SEAM,
            "transports.registry.capabilities",
            "transports.registry.http",
            "transports.registry.origins",
        ),
        ("msgspec", "yarl"),
    ),
    "transports.registry.api": Room(
        (
            *SEAM,
            "transports.registry.capabilities",
            "transports.registry.http",
            "transports.registry.ranges",
            "transports.registry.uploads",
        ),
        ("msgspec", "aiohttp", "yarl"),
    ),
    "transports.registry.ranges": Room(
        (*SEAM, "transports.registry.capabilities", "transports.registry.http"),
        ("msgspec", "aiohttp", "yarl"),
    ),
    "transports.registry.probe": Room(
        (
            *SEAM,
            "transports.registry.api",
            "transports.registry.capabilities",
            "transports.registry.http",
            "transports.registry.uploads",
        ),
        ("msgspec", "yarl"),
    ),
    STORE: Room((*SEAM, "transports.files"), ("msgspec", "xxhash")),
    "transports.store.sink": Room((*SEAM, STORE, "transports.layout")),
    "transports.archive": Room(
        (
            *SEAM,
            STORE,
            "bounded_file",
            "transports.compression",
            "transports.files",
            "transports.layout",
        ),
        ("msgspec",),
    ),
    "transports.compression": Room(
        (*SEAM, "transports.files"), ("msgspec", "isal", "zlib_ng", "zstandard", "lz4")
    ),
    "transports.layout": Room((*SEAM, "transports.files"), ("msgspec",)),
    "transports.local": Room((*SEAM, STORE, "transports.archive", "transports.layout"), ("msgspec",)),
    "transports.rootfs": Room(
        (*SEAM, "transports.archive", "transports.compression", "transports.files"), ("msgspec",)
    ),
    "server": Room(
        (
            *SEAM,
            "bounded_cache",
            "file_errors",
            "page_style",
            "signatures.contract",
            "signatures.finding",
            "signatures.judging",
            "toml_lines",
            "validation_messages",
            STORE,
            "transports.sendfile",
        ),
        ("msgspec", "aiohttp", "yarl", "multidict", "bcrypt", "prometheus_client"),
    ),
    "validation_messages": Room(()),
    "file_errors": Room(("errors",)),
    "typed_values": Room(("validation_messages",), ("msgspec",)),
    "toml_lines": Room(("errors",)),
    "version": Room(()),
    "byte_size": Room(("lazy_pattern", "printable")),
    "variables": Room(("errors", "oci", "printable"), ("msgspec",)),
    "custom_transports": Room(("content",), ("msgspec",)),
    "settings": Room((*SEAM, "engine", "transports"), ("msgspec",)),
    "config_tables": Room(("engine.policy",), ("msgspec",)),
    "config_file": Room(
        (
            *SEAM,
            "transports",
            "bounded_file",
            "byte_size",
            "config_tables",
            "file_errors",
            "settings",
            "toml_lines",
            "typed_values",
            "validation_messages",
        ),
        ("msgspec",),
    ),
    "environment": Room(
        (*SEAM, "engine", "transports", "config_file", "settings", "variables"), ("msgspec",)
    ),
    "composition": Room(
        (*SEAM, "engine", "transports", "custom_transports", "settings", "version"), ("msgspec",)
    ),
    "client": Room(
        (
            *SEAM,
            "engine",
            "transports",
            "environment",
            "composition",
            "custom_transports",
            "settings",
            "operations",
            "cluster",
            "version",
        ),
        ("msgspec",),
    ),
    "deployment_files": Room((*WORDS, "bounded_file", "file_errors"), ("msgspec", "yaml")),
    "mirror_places": Room((*WORDS, "engine.pairs"), ("msgspec",)),
    "node_files": Room((*WORDS, "mirror_places"), ("msgspec", "yaml")),
    "cluster": Room(
        (*SEAM, "engine", "transports", "environment", "composition", "settings", "version"),
        ("msgspec", "dask", "distributed"),
    ),
    "planfile": Room((*SEAM, "engine"), ("msgspec",)),
    "reportfile": Room((*SEAM, "engine"), ("msgspec",)),
    "page_style": Room(("printable",)),
    "operations": Room(
        (*SEAM, "engine", "transports", "client", "settings", "signatures.contract"),
        ("msgspec",),
    ),
    "cli": Room(("*",), ("msgspec", "click", "rich", "yaml", "uvloop", "prometheus_client")),
}
# The folders of the command line: each imports only those before it, and the rest of it imports all four.
_LIBRARY = tuple(room for room in ROOMS if room not in ("", "__main__", "cli"))
_CLI = (*_LIBRARY, "cli.exit_codes")
ROOMS |= {
    "cli.options": Room(_CLI, ("msgspec", "click")),
    "cli.output": Room((*_CLI, "cli.options"), ("msgspec", "click", "rich")),
    "cli.runtime": Room(
        (*_CLI, "cli.options", "cli.output"), ("msgspec", "click", "uvloop", "prometheus_client")
    ),
    "cli.inputs": Room((*_CLI, "cli.options", "cli.output", "cli.runtime"), ("msgspec", "yaml")),
}

# Parts of the standard library that only some rooms may use.
KEPT = {"sqlite3": (STORE,), "argparse": (), "getpass": ("cli",)}

# How a program reads its arguments, its environment and the terminal: for the door alone, and of composition
# for what finds out the settings of a machine.
OUTSIDE = re.compile(
    r"os\.(environ|environb|getenv|getenvb|putenv|get_terminal_size|getlogin|isatty)"
    r"|sys\.(argv|stdin|stdout|stderr|exit|__std(in|out|err)__)"
    r"|shutil\.get_terminal_size|locale\.\w+|print|input|breakpoint"
    r"|(pathlib\.)?Path\.home|.*\.(expanduser|expandvars)"
)
DOOR = ("cli", "environment", "__main__")

VAGUE = re.compile(r"manager|handler|helper|util|utils|service|base|data")
HEAVY = (
    "aiohttp",
    "yarl",
    "rich",
    "yaml",
    "msgspec",
    "uvloop",
    "sqlite3",
    "xxhash",
    "bcrypt",
    "prometheus_client",
)


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its name without `blobflow.`; the package itself is ""."""
    files = sorted((TOP / "blobflow").rglob("*.py"))
    return {module_name(file.relative_to(TOP / "blobflow")): file for file in files}


def module_name(file: Path) -> str:
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def room_of(module: str) -> str:
    fitting = [room for room in ROOMS if room == module or (room and within(module, room))]
    assert fitting, f"blobflow.{module} belongs to no room: add it to ROOMS"
    return max(fitting, key=len)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What is imported anywhere, also inside a function or for types only, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                dots = "." * level
                yield from ((node.lineno, f"{dots}{module or ''}.{name.name}") for name in names)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]):
                if ast.unparse(function) in ("import_module", "importlib.import_module", "__import__"):
                    yield node.lineno, name


def wrong_imports(module: str, source: str) -> list[str]:
    room = room_of(module)
    return [
        f"blobflow/{module.replace('.', '/')}:{line} imports {name}, which {room or 'the package'} may not"
        for line, name in imports(ast.parse(source))
        if not allowed(room, name)
    ]


def allowed(room: str, name: str) -> bool:
    """Whether a module of `room` may import `name`. A relative import never: it hides the room."""
    package, _, inner = name.partition(".")
    if package == "blobflow":
        rooms = ROOMS[room].rooms
        return "*" in rooms or any(within(inner, other) for other in (room, *rooms) if other)
    if package in KEPT:
        return any(within(room, keeper) for keeper in KEPT[package])
    return package in sys.stdlib_module_names or package in ROOMS[room].packages


def looks_outside(source: str) -> list[str]:
    """Uses of arguments, environment or terminal, as `line: expression`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute() | ast.Name(ctx=ast.Load()):
                text = ast.unparse(node)
                if OUTSIDE.fullmatch(text):
                    found.append(f"{node.lineno}: {text}")
            case ast.ImportFrom(module=module, names=names):
                texts = (f"{module}.{name.name}" for name in names)
                found += [f"{node.lineno}: {text}" for text in texts if OUTSIDE.fullmatch(text)]
    return found


def vague_words(name: str) -> list[str]:
    """The words of an identifier or file name that say nothing. (`credential helper` is docker's, `data
    received` asyncio's, and `base layer` of all who build images.)"""
    said = re.sub("(?i)credential_?helper|data_received|base_?layer", "layer", name)
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", said)
    return [word for word in words if VAGUE.fullmatch(word.lower())]


@pytest.mark.parametrize("module", modules())
def test_a_room_imports_only_what_the_table_allows(module: str) -> None:
    assert not wrong_imports(module, modules()[module].read_text())


@pytest.mark.parametrize(
    "module", [name for name in modules() if not any(within(room_of(name), door) for door in DOOR)]
)
def test_only_the_door_reads_arguments_environment_and_terminal(module: str) -> None:
    assert not looks_outside(modules()[module].read_text())


def test_no_name_is_made_of_words_that_say_nothing() -> None:
    files = [file for room in ("blobflow", "tools", "tests", "bench") for file in (TOP / room).rglob("*.py")]
    named = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [(file, file.stem) for file in files]
    names += [
        (file, node.name)
        for file in files
        if (TOP / "blobflow") in file.parents
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, named)
    ]
    assert len(names) > 100
    assert [(str(file.relative_to(TOP)), name) for file, name in names if vague_words(name)] == []


@pytest.mark.parametrize("module", ["blobflow", "blobflow.cli", "blobflow.errors"])
def test_importing_a_door_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.plan", "from blobflow.transports.store import Store"),
        ("engine.plan", "def f():\n    import aiohttp"),
        ("engine.plan", "import sqlite3"),
        ("oci.digest", "from blobflow import content"),
        ("oci.digest", "from .. import content"),
        ("content", "import blobflow.engine.plan.steps"),
        ("content", "import importlib\nimportlib.import_module('aiohttp')"),
        ("transports.registry.auth", "from blobflow.transports.store import Store"),
        ("transports.store.blobs", "if TYPE_CHECKING:\n    from blobflow.engine import plan"),
        ("server.routes", "from blobflow.transports.registry import HostClient"),
        ("client", "import rich"),
    ],
)
def test_an_import_across_rooms_is_found(module: str, source: str) -> None:
    assert len(wrong_imports(module, source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['HOME']",
        "from os import environ",
        "import os\nos.getenv('HOME')",
        "import sys\nsys.stderr.write('')",
        "print()",
        "from pathlib import Path\nPath('~').expanduser()",
        "from pathlib import Path\nPath.home()",
    ],
)
def test_a_look_outside_is_found(source: str) -> None:
    assert len(looks_outside(source)) == 1


def test_a_module_without_a_room_is_found() -> None:
    with pytest.raises(AssertionError, match="belongs to no room"):
        room_of("attic")


def test_a_vague_word_is_found_in_any_spelling() -> None:
    names = ["SessionManager", "upload_helper", "HTTPService", "base", "data_of"]
    assert [bool(vague_words(name)) for name in names] == [True] * 5
    for name in ("database_of_metadata", "credential_helper_of", "CredentialHelperFailed", "SignedBaseLayer"):
        assert not vague_words(name)

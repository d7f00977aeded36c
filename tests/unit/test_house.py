"""The size and the shape of the house: no import circle, no long file, no long function.

A circle means that two modules can be understood only together; a long file or function, that several things
share one name. Both are lists here, which have to be empty: what is on one gets split by meaning.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.unit.test_layers import TOP, imports, modules

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60
SOURCES = ("blobflow", "tools", "bench")
# Packages whose docstring is a map: it names every module.
MAPPED = (
    "engine/transfer",
    "transports/archive/served",
    "transports/compression",
    "transports/registry",
    "transports/registry/auth",
    "transports/registry/capabilities",
    "transports/registry/http",
    "transports/registry/uploads",
    "transports/rootfs",
)
# A module, or something in one, as docstrings, comments and documents mention it.
MENTION = re.compile(r"`(?:blobflow\.)?((?:engine|oci|content|transports|server|operations|cli)(?:\.\w+)+)`")
# What a class of ours has, as docstrings mention it; and the errors that they say are raised.
MEMBER = re.compile(r"`([A-Z]\w+)\.(\w+)`")
RAISED = re.compile(r"\braises ((?:[A-Z]\w+(?:, and |, or |, | and | or )?)+)", re.IGNORECASE)
WORD = re.compile(r"[A-Z]\w+")
CLASS = re.compile(r"^\s*class (\w+)", re.MULTILINE)


def import_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, anywhere in it: inside functions and for types only, too.

    `sources`: each module's text, by its whole name.
    """
    graph: dict[str, set[str]] = {}
    for module, source in sources.items():
        graph[module] = set()
        for _, name in imports(ast.parse(source)):
            found = name if name in sources else name.rpartition(".")[0]
            if found in sources and found != module:
                graph[module].add(found)
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import each other, directly or over others, each group sorted."""
    reached = {module: _reachable(graph, module) for module in graph}
    groups = {
        tuple(sorted(other for other in reached[module] if module in reached[other]))
        for module in graph
        if module in reached[module]
    }
    return [list(group) for group in sorted(groups)]


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = list(graph[start])
    while todo:
        module = todo.pop()
        if module not in found:
            found.add(module)
            todo.extend(graph[module])
    return found


def long_functions(source: str) -> Iterator[tuple[str, int]]:
    """Each function that has too many lines, from `def` to its last line, with how many it has."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield node.name, lines


def lost_mentions(text: str, sources: Mapping[str, str]) -> list[str]:
    """What a text mentions as a module, or as something in one, and is not there.

    `sources`: each module's text, by its name without `blobflow.`.
    """
    return [found for found in MENTION.findall(text) if not _is_there(found, sources)]


def _is_there(name: str, sources: Mapping[str, str]) -> bool:
    module, inner = name, list[str]()
    while module and module not in sources:
        module, _, last = module.rpartition(".")
        inner.append(last)
    return bool(module) and all(re.search(rf"\b{word}\b", sources[module]) for word in inner[-1:])


def texts_of_classes(sources: Iterable[str]) -> dict[str, str]:
    """The modules in which each class stands, as one text, without what they mention of classes."""
    texts: dict[str, str] = {}
    for source in sources:
        code = MEMBER.sub("", source)
        for name in set(CLASS.findall(source)):
            texts[name] = texts.get(name, "") + code
    return texts


def lost_members(text: str, classes: Mapping[str, str]) -> list[str]:
    """What a text mentions as `Class.member` of one of the `classes`, and is not in its module."""
    return [
        f"{name}.{member}"
        for name, member in MEMBER.findall(text)
        if name in classes and not re.search(rf"\b{member}\b", classes[name])
    ]


def lost_errors(text: str, known: Collection[str]) -> list[str]:
    """The errors that a module's text says are raised, and that are no classes at all."""
    named = [name for names in RAISED.findall(" ".join(text.split())) for name in WORD.findall(names)]
    return [name for name in named if name not in known]


def unmapped(folder: Path) -> set[str]:
    """The modules and packages of a package that its docstring does not name."""
    names = {file.stem for file in folder.glob("*.py")} | {file.parent.name for file in folder.glob("*/*.py")}
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return names - {"__init__"} - set(re.findall(r"\w+", text))


def files() -> list[Path]:
    return [file for part in SOURCES for file in sorted((TOP / part).rglob("*.py"))]


def test_no_module_imports_itself_over_others() -> None:
    sources = {f"blobflow.{name}".rstrip("."): file.read_text() for name, file in modules().items()}
    assert circles(import_graph(sources)) == []


def test_no_file_has_more_than_400_lines() -> None:
    lines = {str(file.relative_to(TOP)): len(file.read_text().splitlines()) for file in files()}
    assert len(lines) > 100
    assert {name: count for name, count in lines.items() if count > MOST_LINES_OF_A_FILE} == {}


def test_no_function_has_more_than_60_lines() -> None:
    found = [
        (str(file.relative_to(TOP)), name, lines)
        for file in files()
        for name, lines in long_functions(file.read_text())
    ]
    assert found == []


def test_what_is_mentioned_is_there() -> None:
    sources = {name: file.read_text() for name, file in modules().items()}
    texts = [*files(), *TOP.glob("*.md"), *(TOP / "docs").rglob("*.md")]
    lost = {str(file.relative_to(TOP)): lost_mentions(file.read_text(), sources) for file in texts}
    assert {name: found for name, found in lost.items() if found} == {}


def test_what_docstrings_say_of_classes_is_there() -> None:
    sources = {name: file.read_text() for name, file in modules().items()}
    classes = texts_of_classes(sources.values())
    known = {*classes, *dir(builtins), *dir(asyncio)}
    lost = {
        name: [*lost_members(source, classes), *lost_errors(source, known)]
        for name, source in sources.items()
    }
    assert {name: found for name, found in lost.items() if found} == {}


def test_a_member_and_an_error_that_were_renamed_are_found() -> None:
    source = (
        'class Store:\n    def begin(self):\n        """See `Store.end`. Raises Full, OSError and Damaged."""'
    )
    assert lost_members(f"{source} `Store.begin`, `Other.end`", texts_of_classes([source])) == ["Store.end"]
    assert lost_errors(source, {"OSError"}) == ["Full", "Damaged"]


def test_the_map_of_contributing_is_in_the_order_of_imports() -> None:
    text = (TOP / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^    blobflow/(\w+)", text, re.MULTILINE)
    assert len(rows) > 15
    rank = {name: at for at, name in enumerate(rows)}
    sources = {f"blobflow.{name}".rstrip("."): file.read_text() for name, file in modules().items()}
    against = {
        (module, other)
        for module, found in import_graph(sources).items()
        for other in found
        if rank.get(_row(module), -1) < rank.get(_row(other), -1) and _row(module) in rank
    }
    # See the row of `operations`.
    own = {"blobflow.operations.inspection", "blobflow.operations.verification"}
    assert against == {("blobflow.client", other) for other in own}


def _row(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_table_of_contributing_names_files_that_there_are() -> None:
    table = [line for line in (TOP / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| ")]
    named = set(re.findall(r"`([\w./-]+(?:\.py|\.tsv|\.md|/))`", "\n".join(table)))
    there = {
        f"/{file.relative_to(TOP)}"
        for part in (*SOURCES, "tests", "docs")
        for file in (TOP / part).rglob("*")
    }
    there |= {f"{file}/" for file in there}
    assert len(named) > 50
    assert {name for name in named if not any(file.endswith(f"/{name}") for file in there)} == {
        "cli/commands/VERB.py"
    }


@pytest.mark.parametrize("package", MAPPED)
def test_a_map_names_every_module(package: str) -> None:
    assert unmapped(TOP / "blobflow" / package) == set()


@pytest.mark.parametrize(
    ("mention", "lost"),
    [("engine.plan", 0), ("blobflow.engine.plan.cost_of", 0), ("engine.road", 1), ("oci.digest", 1)],
)
def test_a_mention_of_what_has_moved_is_found(mention: str, lost: int) -> None:
    sources = {"engine": "", "engine.plan": "def cost_of(): ...", "oci": ""}
    assert len(lost_mentions(f"see `{mention}`", sources)) == lost


@pytest.mark.parametrize(
    "inner", ["from a import b", "def f():\n    import a.b", "if TYPE_CHECKING:\n    from a.b import c"]
)
def test_a_circle_is_found_wherever_the_import_stands(inner: str) -> None:
    sources = {"a": "", "a.b": "from a.c import x", "a.c": "import a.d", "a.d": inner, "a.e": "import a.b"}
    assert circles(import_graph(sources)) == [["a.b", "a.c", "a.d"]]


def test_a_long_function_is_found_inside_others() -> None:
    body = "\n".join("        pass" for _ in range(60))
    assert list(long_functions(f"class A:\n    async def f(self):\n{body}")) == [("f", 61)]
    assert list(long_functions(f"class A:\n    def f(self):\n{body[13:]}")) == []

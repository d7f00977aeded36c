"""Scripts in workflows and tasks: images that `docker run`, `podman pull` and the like name. Pure."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

from blobflow.deployment_files.dockerfile import is_dockerfile, read_dockerfile
from blobflow.deployment_files.findings import Findings, likely_text, reference_or_reason
from blobflow.deployment_files.interpolation import expand
from blobflow.deployment_files.shell_words import Heredoc, commands_of, split_heredocs, unquoted
from blobflow.deployment_files.source_text import Piece, SourceText

_ENGINES = frozenset(("docker", "podman", "nerdctl"))
_CLUSTERS = frozenset(("kubectl", "oc", "kind"))
_PULLS = frozenset(("run", "create", "pull"))
_BUILDS = frozenset(("build", "tag", "commit", "import"))
# Options that take no value: of the engine, and of `run`, `create` and `pull`.
_SWITCHES = frozenset(
    [
        "all-tags",
        "debug",
        "detach",
        "disable-content-trust",
        "help",
        "init",
        "interactive",
        "no-healthcheck",
        "oom-kill-disable",
        "privileged",
        "publish-all",
        "quiet",
        "read-only",
        "replace",
        "rm",
        "rmi",
        "tls",
        "tlsverify",
        "tty",
        "sig-proxy",
        "no-hosts",
        "no-resolve-image",
        "remote",
        "use-api-socket",
    ]
)
_SHORT_SWITCHES = frozenset("ditqPDr")
_WRAPPERS = frozenset(("eval", "-c", "-ec", "-lc", "-euxc", "-exc", "-euc"))
# `-P ubuntu-latest=IMAGE` of act, which runs workflows in containers.
_PLATFORM = re.compile(r"[\w.-]+=(\S+)\Z")
_DRIVER_IMAGE = re.compile(r"(?:\A|,)image=([^,]+)")
_FIELD = "script"
_DEPTH = 3


def read_script(
    findings: Findings, script: Piece, env: Mapping[str, str] | None = None, *, in_unit: bool = False
) -> None:
    """Every image that a script's commands name, and those of Dockerfiles that it writes. `env`: variables
    that the file gives to it, which is what they are likely. `in_unit`: it is a command of a unit of systemd,
    which has specifiers."""
    _Script(findings, env or {}, in_unit=in_unit).read(script.source.part(script.start, script.end), 0)


class _Script:
    def __init__(self, findings: Findings, env: Mapping[str, str], *, in_unit: bool) -> None:
        self._findings = findings
        self._in_unit = in_unit
        self._env = env
        self._built: set[str] = set()

    def read(self, source: SourceText, depth: int) -> None:
        commands, heredocs = split_heredocs(source)
        for part in commands:
            for words in commands_of(part):
                self._read_command(words, depth)
        for heredoc in heredocs:
            if _is_dockerfile(heredoc):
                read_dockerfile(self._findings, heredoc.body, f"{_FIELD} ")

    def _read_command(self, words: list[Piece], depth: int) -> None:
        for index, word in enumerate(words):
            name = word.text.rpartition("/")[2]
            if name in _ENGINES:
                self._read_engine(words[index + 1 :])
                return
            if name == "act":
                self._read_platforms(words[index + 1 :])
                return
            if name in _CLUSTERS:
                self._read_flags(words[index + 1 :])
                return
            if word.text in _WRAPPERS and depth < _DEPTH and index + 1 < len(words):
                quoted = words[index + 1]
                if len(quoted.text) > 1 and quoted.text[0] in "\"'" and quoted.text[0] == quoted.text[-1]:
                    inner = quoted.cut(1, len(quoted.text) - 1)
                    self.read(inner.source.part(inner.start, inner.end), depth + 1)
                    return

    def _read_engine(self, words: list[Piece]) -> None:
        rest, group = _positionals(words), ""
        while rest and words[rest[0]].text in ("container", "image", "service", "buildx", "builder"):
            group = words[rest[0]].text
            rest = [rest[0] + 1 + each for each in _positionals(words[rest[0] + 1 :])]
        if not rest:
            return
        verb, arguments = words[rest[0]].text, words[rest[0] + 1 :]
        if verb in _BUILDS:
            self._note_built(verb, arguments)
        elif group in ("buildx", "builder"):  # where `create` makes a builder
            self._read_driver(arguments)
        elif verb in _PULLS and (found := _positionals(arguments)):
            self._name(unquoted(arguments[found[0]]), f"{_FIELD} {verb}")

    def _read_driver(self, words: list[Piece]) -> None:
        """The image that a builder runs in: `--driver-opt image=NAME,network=host`."""
        for before, word in itertools.pairwise([words[0], *words] if words else []):
            option = unquoted(word)
            if word.text.startswith("--driver-opt="):
                option = unquoted(word.cut(len("--driver-opt=")))
            elif before.text != "--driver-opt":
                continue
            if found := _DRIVER_IMAGE.search(option.text):
                self._name(option.cut(*found.span(1)), f"{_FIELD} argument")

    def _note_built(self, verb: str, words: list[Piece]) -> None:
        """Names that a script gives to what it builds."""
        if verb == "build":
            for before, word in itertools.pairwise(words):
                if before.text in ("-t", "--tag"):
                    self._built.add(unquoted(word).text)
            self._built |= {word.text[6:].strip("\"'") for word in words if word.text.startswith("--tag=")}
        elif len(words) > 1:
            self._built.add(unquoted(words[-1]).text)

    def _read_platforms(self, words: list[Piece]) -> None:
        for before, word in itertools.pairwise(words):
            image = unquoted(word)
            if before.text in ("-P", "--platform") and (found := _PLATFORM.match(image.text)):
                self._name(image.cut(found.start(1)), f"{_FIELD} argument")

    def _read_flags(self, words: list[Piece]) -> None:
        """`--image=NAME`, as kubectl run and create have it."""
        for index, word in enumerate(words):
            if word.text.startswith("--image="):
                self._name(unquoted(word.cut(len("--image="))), f"{_FIELD} argument")
            elif word.text == "--image" and index + 1 < len(words):
                self._name(unquoted(words[index + 1]), f"{_FIELD} argument")

    def _name(self, piece: Piece, field: str) -> None:
        text = piece.text
        if text in self._built or _name_alone(text) in map(_name_alone, self._built):
            self._findings.leave(piece, field, "is built by the same script")
        elif "{{" in text:
            self._findings.name(piece, field)
        elif self._in_unit and "%" in text:
            self._findings.leave(piece, field, "has a specifier of systemd")
        elif "$" in text or "`" in text:
            made = expand(text, self._env.get).text
            found = likely_text(made) if made is not None else ""
            reason = "has a variable of the shell" + (", which the file gives this value" if found else "")
            self._findings.leave(piece, field, reason, found)
        elif text and not isinstance(reference_or_reason(text), str):
            self._findings.name(piece, field)


def _is_dockerfile(heredoc: Heredoc) -> bool:
    """Whether a here-document becomes a Dockerfile: by the name of the file, or the command that reads it."""
    opening = heredoc.opening.text.lower()
    if "dockerfile" in opening or "containerfile" in opening:
        return True
    return any(word in opening for word in ("docker", "podman", "build")) and is_dockerfile(heredoc.body.text)


def _name_alone(text: str) -> str:
    """A name without `:latest`, which is what it is without a tag."""
    return text.removesuffix(":latest")


def _positionals(words: list[Piece]) -> list[int]:
    """Which word is the first that is neither an option nor an option's value; none if there is none."""
    index = 0
    while index < len(words):
        text = words[index].text
        if text == "--":
            index += 1
            break
        if not text.startswith("-") or text == "-":
            if text.strip("\"'").startswith("${") and "[@]" in text:
                index += 1
                continue
            break
        index += 1 if _stands_alone(text) else 2
    return [index] if index < len(words) else []


def _stands_alone(option: str) -> bool:
    """Whether no value follows an option as the next word."""
    if option.startswith("--"):
        return "=" in option or option[2:] in _SWITCHES
    for at, letter in enumerate(option[1:], start=1):
        if letter not in _SHORT_SWITCHES:
            return at + 1 < len(option)
    return True

"""Access rules, from a TOML file: which logins may do what.

    [[allow]]
    who = "ci-*"
    repositories = ["team/**", "tools/*"]
    do = ["pull", "push"]

    [[allow]]
    who = ["ann", "bob"]
    repositories = "**"
    do = ["pull", "push", "delete"]

    [[allow]]
    who = "anonymous"
    repositories = "public/**"
    do = "pull"

Rules only allow, so their order means nothing; what no rule allows is denied. Each key takes one text or a
list of them, and all three are needed.

- `who`: names of logins, in which `*` stands for any characters: `*` alone is every login. `anonymous` is
  whoever comes without one, and what they may do, every login may do, too.
- `repositories`: names as they are here, also of what is pulled through. `*` stands for any characters of one
  component, `**` for any characters at all: `team/*` is `team/app` but not `team/app/test`, nor `team`.
- `do`: `pull` (what reads, and listing), `push` (what writes), `delete`. None comes with another: who pushes
  an image asks what is there already, and needs `pull` for that. A mount from another repository needs `pull`
  there.

A top-level `ask_for_login = true` has `GET /v2/` ask for a login even where those without may do something:
clients send theirs only to registries that ask there. podman and skopeo come without one all the same where
they know none; docker then does not come at all.

Without such a file every login may do everything, and whoever has none nothing, unless there are no logins.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import msgspec

from blobflow.errors import InvalidConfig
from blobflow.file_errors import FileErrors
from blobflow.server.auth.logins import CHALLENGE
from blobflow.server.errors import ApiError
from blobflow.toml_lines import TomlLines, parse_toml
from blobflow.validation_messages import closest, suggestion

Action = Literal["pull", "push", "delete"]
_ACTIONS: tuple[Action, ...] = get_args(Action)
ANONYMOUS = "anonymous"
_RULE_KEYS = ("who", "repositories", "do")
_ASK = "ask_for_login"
# What may be in the name of a repository (distribution-spec, "Pulling manifests").
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-/")
# Answers that are remembered of one login, each with a name that a client asked for; and logins of which some
# are remembered.
_REMEMBERED = 1024
_NUMBERS = itertools.count(1)
_Path = tuple[str | int, ...]


class Glob:
    """A pattern, matched in time linear in the name's length: repositories are named by strangers.

    With `components`, `*` stays within one component (what is between two `/`) and `**` does not; else `*` is
    any characters.
    """

    __slots__ = ("_crossing", "_end", "_literals", "_stars", "text")

    def __init__(self, text: str, *, components: bool) -> None:
        """Raises ValueError, with what is wrong."""
        self.text = text
        if not text:
            raise ValueError("is empty")
        if "***" in text or (not components and "**" in text):
            raise ValueError(f"has {'***' if components else '**'}")
        # Bit i of a set: we are before token i. Stars are tokens that may be left without a character.
        self._literals: dict[str, int] = {}
        self._stars = self._crossing = 0
        tokens = text.replace("**", "\0") if components else text.replace("*", "\0")
        for at, token in enumerate(tokens):
            if token in "*\0":
                self._stars |= 1 << at
                self._crossing |= (1 << at) if token == "\0" else 0
            else:
                self._literals[token] = self._literals.get(token, 0) | 1 << at
        self._end = 1 << len(tokens)

    @property
    def prefix(self) -> str:
        """What all that it matches begins with; the whole, if it has no star."""
        return self.text.partition("*")[0]

    @property
    def is_literal(self) -> bool:
        return not self._stars

    def matches(self, name: str) -> bool:
        """Whether the pattern is the whole name."""
        at = self._skipping(1)
        for character in name:
            stay = at & (self._crossing if character == "/" else self._stars)
            at = self._skipping((at & self._literals.get(character, 0)) << 1 | stay)
            if not at:
                return False
        return bool(at & self._end)

    def _skipping(self, at: int) -> int:
        """With the places behind the stars; no two stars are neighbours."""
        return at | (at & self._stars) << 1


class AccessRule(msgspec.Struct, frozen=True):
    """These may do that there. `who` is about logins only; `anonymous`: those without one, too."""

    who: tuple[Glob, ...]
    anonymous: bool
    repositories: tuple[Glob, ...]
    actions: frozenset[Action]

    def is_for(self, user: str) -> bool:
        """`user` "" is whoever has no login."""
        return self.anonymous or (bool(user) and any(each.matches(user) for each in self.who))


class Permissions:
    """What one login, or those without one, may do. `rules` None: everything."""

    __slots__ = ("_known", "_rules", "asks", "listing", "viewer")

    def __init__(self, rules: Sequence[AccessRule] | None, *, asks: bool = False) -> None:
        """`asks`: a denial asks for a login."""
        self._rules = rules
        self._known: dict[tuple[Action, str], bool] = {}
        self.asks = asks
        # What distinguishes these rights from all others that there were, "" for those to everything.
        self.viewer = "" if rules is None else str(next(_NUMBERS))
        # Held while all repositories are looked through: one at a time for each login.
        self.listing = asyncio.Lock()

    @property
    def unlimited(self) -> bool:
        """Whether everything is allowed everywhere, as it is without a rule file."""
        return self._rules is None

    def may(self, action: Action, repository: str) -> bool:
        if self._rules is None:
            return True
        key = (action, repository)
        found = self._known.get(key)
        if found is None:
            found = any(
                action in rule.actions and any(each.matches(repository) for each in rule.repositories)
                for rule in self._rules
            )
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found

    def everywhere(self, action: Action) -> bool:
        """Whether the action is allowed for every name."""
        return self._rules is None or any(
            action in rule.actions and any(each.text == "**" for each in rule.repositories)
            for rule in self._rules
        )

    def may_pull(self, repository: str) -> bool:
        return self.may("pull", repository)

    def may_somewhere(self, action: Action | None = None) -> bool:
        """Whether the action (None: any) is allowed for any name at all."""
        return self._rules is None or any(action in (None, *rule.actions) for rule in self._rules)

    def prefixes(self, action: Action) -> list[str]:
        """What the name of every repository begins with where the action is allowed: one of these, sorted,
        none of which begins with another."""
        rules = self._rules or ()
        all_ = sorted({g.prefix for rule in rules if action in rule.actions for g in rule.repositories})
        found: list[str] = []
        for each in [""] if self._rules is None else all_:
            if not found or not each.startswith(found[-1]):
                found.append(each)
        return found

    def denial(self) -> ApiError:
        """The one answer to all that is denied: it says nothing of what is here."""
        if self.asks:
            return ApiError("UNAUTHORIZED", "this registry wants a login", headers=CHALLENGE)
        return ApiError("DENIED", "the access rules of this registry do not allow this")


EVERYTHING = Permissions(None)
NOTHING = Permissions(())
_NOTHING_WITHOUT_LOGIN = Permissions((), asks=True)


class AccessRules:
    """The rules in force; `replace` them while serving. Used on one loop."""

    def __init__(self, parsed: ParsedRules | None = None) -> None:
        """None: as it is without a rule file."""
        self._rights: dict[tuple[str, bool], Permissions] = {}
        self._parsed = parsed

    @property
    def asks_for_login(self) -> bool:
        """Whether `/v2/` wants a login from everybody."""
        return self._parsed is not None and self._parsed.ask_for_login

    def replace(self, parsed: ParsedRules) -> None:
        self._parsed = parsed
        self._rights = {}

    def permissions(self, user: str, *, with_logins: bool) -> Permissions:
        """What a login may do; `user` "" is whoever has none. `with_logins`: the registry has logins."""
        if self._parsed is None:
            return _NOTHING_WITHOUT_LOGIN if with_logins and not user else EVERYTHING
        found = self._rights.get((user, with_logins))
        if found is None:
            if len(self._rights) >= _REMEMBERED:
                self._rights.clear()
            rules = tuple(rule for rule in self._parsed.rules if rule.is_for(user))
            found = Permissions(rules, asks=with_logins and not user)
            self._rights[user, with_logins] = found
        return found


class ParsedRules(msgspec.Struct, frozen=True):
    """What a file says."""

    rules: tuple[AccessRule, ...]
    ask_for_login: bool = False

    def strangers(self, users: Iterable[str]) -> list[str]:
        """Logins that rules name, without a star, and that nobody has."""
        named = {glob.text for rule in self.rules for glob in rule.who if glob.is_literal}
        return sorted(named.difference(users))


def parse_access(text: str, name: str) -> ParsedRules:
    """Read a rule file; `name` is what it is called in errors.

    Raises InvalidConfig with the line, the number of the rule, and what is wrong there; for several errors
    InvalidFile with all of them.
    """
    document = parse_toml(text, name, "a rule file")
    reader = _Reader(text, name)
    parsed = reader.rules(document)
    reader.errors.check()
    return parsed


class _Reader:
    """Reads one file; what is wrong goes to `errors`."""

    def __init__(self, text: str, name: str) -> None:
        self.errors = FileErrors()
        self._lines = TomlLines(text)
        self._name = name

    def rules(self, document: Mapping[str, Any]) -> ParsedRules:
        self._check_keys(document, ("allow", _ASK), ())
        ask, tables = document.get(_ASK, False), document.get("allow", [])
        if not isinstance(ask, bool):
            self._add((_ASK,), f"`{_ASK}` is true or false")
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._add(("allow",), "write each rule as a table `[[allow]]`")
        elif not (tables or self.errors):
            self.errors.add(InvalidConfig(f"{self._name} has no rule; begin one with [[allow]]"))
        else:
            rules = [self._rule(table, ("allow", number)) for number, table in enumerate(tables)]
            return ParsedRules(tuple(rule for rule in rules if rule is not None), ask is True)
        return ParsedRules(())

    def _rule(self, table: Mapping[str, Any], path: _Path) -> AccessRule | None:
        self._check_keys(table, _RULE_KEYS, path)
        misspelt = {closest(key, _RULE_KEYS) for key in table if key not in _RULE_KEYS}
        for key in _RULE_KEYS:
            if key not in table and key not in misspelt:
                self._add(path, f"it has no `{key}`")
        who, names, actions = (self._texts(table.get(key), (*path, key)) for key in _RULE_KEYS)
        for action in actions:
            if action not in _ACTIONS:
                known = ", ".join(_ACTIONS)
                self._add((*path, "do"), f"`do` knows {known}, not {action[:100]!r}")
        logins = [self._glob(each, (*path, "who")) for each in who if each != ANONYMOUS]
        globs = [self._glob(each, (*path, "repositories"), repository=True) for each in names]
        if self.errors:
            return None
        return AccessRule(
            who=tuple(glob for glob in logins if glob is not None),
            anonymous=ANONYMOUS in who,
            repositories=tuple(glob for glob in globs if glob is not None),
            actions=frozenset(action for action in _ACTIONS if action in actions),
        )

    def _glob(self, text: str, path: _Path, *, repository: bool = False) -> Glob | None:
        strange = sorted(set(text) - _NAME_CHARACTERS - {"*"}) if repository else [":"] if ":" in text else []
        if strange:
            kind = "repository" if repository else "login"
            wrong = f"`{path[-1]}`: {text[:100]!r} has {strange[0]!r}, which no name of a {kind} has"
            self._add(path, wrong)
            return None
        try:
            return Glob(text, components=repository)
        except ValueError as error:
            self._add(path, f"`{path[-1]}`: {text[:100]!r} {error}")
            return None

    def _texts(self, value: object, path: _Path) -> list[str]:
        texts = [value] if isinstance(value, str) else value
        if value is None:
            return []
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            self._add(path, f"`{path[-1]}` is a text or a list of texts")
            return []
        if not texts:
            self._add(path, f"`{path[-1]}` is empty")
        return texts

    def _check_keys(self, table: Mapping[str, object], known: Sequence[str], path: _Path) -> None:
        for key in table:
            if key not in known:
                told = f"unknown key {key[:100]!r}; {suggestion(key, known)}"
                self._add((*path, key), told, typo=True)

    def _add(self, path: _Path, problem: str, *, typo: bool = False) -> None:
        """Keep an error at a path, with its line, and the number of the rule, which a comment may name."""
        line = self._lines.line(path)
        rule = f" rule {int(path[1]) + 1}" if len(path) > 1 else ""
        sentence = f"{self._name}{f' line {line}' if line else ''}{rule}: {problem}"
        self.errors.add(InvalidConfig(sentence), line=line, typo=typo)

"""Access rules: what a file says, whom it lets do what, and what is wrong with it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobflow.errors import InvalidConfig, InvalidFile
from blobflow.server.application import ENDPOINTS
from blobflow.server.auth.access_rules import AccessRules, Action, Glob, Permissions, parse_access

RULES = """
[[allow]]
who = "ci-*"
repositories = ["team/**", "tools/*"]
do = ["pull", "push"]

[[allow]]
who = ["ann", "boss"]
repositories = "**"
do = ["pull", "push", "delete"]

[[allow]]
who = "*"
repositories = "shared/one"
do = "pull"

[[allow]]
who = "anonymous"
repositories = "public/**"
do = "pull"
"""


def rights_of(user: str, text: str = RULES) -> Permissions:
    return AccessRules(parse_access(text, "F")).permissions(user, with_logins=True)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("team/app", ["team/app"], ["team", "team/app/x", "team/apps", "xteam/app"]),
        ("team/*", ["team/app", "team/a.b_c-d"], ["team", "team/app/x", "teams/app"]),
        ("team/**", ["team/app", "team/app/x/y"], ["team", "teams/app"]),
        ("*", ["app"], ["team/app"]),
        ("**", ["app", "team/app/x"], []),
        ("*/app", ["team/app"], ["app", "a/team/app", "team/apps"]),
        ("**/app", ["team/app", "a/team/app"], ["app", "team/app/x"]),
        ("a*b", ["ab", "axxb", "abb"], ["a/b", "axxbc", "a"]),
        ("a**b*", ["ab", "a/x/bc"], ["a/b/c", "xab"]),
        ("t*m/**/v*", ["team/a/v1", "tm/a/b/v"], ["team/v1", "team/a/x"]),
    ],
)
def test_stars_stay_in_a_component_and_two_do_not(pattern: str, yes: list[str], no: list[str]) -> None:
    glob = Glob(pattern, components=True)
    assert [name for name in yes if not glob.matches(name)] == []
    assert [name for name in no if glob.matches(name)] == []


@given(
    st.lists(st.sampled_from(["a", "b", "/", "*", "**"]), min_size=1, max_size=8).map("".join),
    st.text("ab/", max_size=10),
)
def test_patterns_match_as_the_regular_expression_of_their_words(pattern: str, name: str) -> None:
    if "***" in pattern:
        with pytest.raises(ValueError, match=r"\*\*\*"):
            Glob(pattern, components=True)
        return
    expression = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    glob = Glob(pattern, components=True)
    assert glob.matches(name) == bool(re.fullmatch(expression, name))
    assert not glob.matches(name) or name.startswith(glob.prefix)


def test_a_name_made_to_be_slow_is_matched_in_linear_time() -> None:
    """With a backtracking matcher this would take longer than anybody waits."""
    glob = Glob("**a" * 20 + "b", components=True)
    assert not glob.matches("a" * 255)


# Who may do what


@pytest.mark.parametrize(
    ("user", "action", "repository", "allowed"),
    [
        ("ci-1", "push", "team/app", True),
        ("ci-1", "push", "team/a/b", True),
        ("ci-1", "pull", "tools/make", True),
        ("ci-1", "pull", "tools/make/x", False),
        ("ci-1", "delete", "team/app", False),
        ("xci-1", "push", "team/app", False),
        ("ann", "delete", "any/thing", True),
        ("boss", "push", "app", True),
        ("anna", "pull", "any/thing", False),
        ("anna", "pull", "shared/one", True),
        ("anna", "push", "shared/one", False),
        ("anna", "pull", "public/app", True),
        ("", "pull", "public/app", True),
        ("", "push", "public/app", False),
        ("", "pull", "shared/one", False),
        ("anonymous", "pull", "shared/one", True),
    ],
)
def test_what_a_rule_allows_is_allowed_and_nothing_else(
    user: str, action: Action, repository: str, allowed: bool
) -> None:
    for _ in range(2):  # asked anew, and as remembered
        assert rights_of(user).may(action, repository) is allowed


@given(st.permutations(RULES.strip().split("\n\n")))
def test_the_order_of_rules_means_nothing(rules: list[str]) -> None:
    text = "\n\n".join(rules)
    for user in ("ci-1", "ann", "x", ""):
        for repository in ("team/app", "tools/a", "shared/one", "public/a", "other"):
            for action in ("pull", "push", "delete"):
                asked: Action = action
                assert rights_of(user, text).may(asked, repository) == rights_of(user).may(asked, repository)


def test_without_a_file_every_login_may_do_everything_and_who_has_none_nothing() -> None:
    rules = AccessRules()
    assert rules.permissions("ann", with_logins=True).unlimited
    assert rules.permissions("", with_logins=False).unlimited
    nobody = rules.permissions("", with_logins=True)
    assert not nobody.may_somewhere()
    assert nobody.denial().status == 401


def test_new_rules_replace_all_that_was_remembered() -> None:
    rules = AccessRules(parse_access(RULES, "F"))
    assert rules.permissions("ci-1", with_logins=True).may("push", "team/app")
    rules.replace(parse_access('allow = [{who = "x", repositories = "y", do = "pull"}]', "F"))
    assert not rules.permissions("ci-1", with_logins=True).may("push", "team/app")


def test_who_is_denied_is_asked_for_a_login_only_where_one_may_help() -> None:
    rules = AccessRules(parse_access(RULES, "F"))
    assert rules.permissions("", with_logins=True).denial().code == "UNAUTHORIZED"
    assert rules.permissions("", with_logins=False).denial().code == "DENIED"
    assert rules.permissions("ann", with_logins=True).denial().code == "DENIED"


def test_prefixes_are_those_of_the_patterns_without_what_is_in_another() -> None:
    assert rights_of("ci-1").prefixes("pull") == ["public/", "shared/one", "team/", "tools/"]
    assert rights_of("ann").prefixes("pull") == [""]
    assert rights_of("x").prefixes("push") == []


def test_rules_for_logins_that_nobody_has_are_found() -> None:
    assert parse_access(RULES, "F").strangers({"ann", "ci-1"}) == ["boss"]


def test_what_is_remembered_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blobflow.server.auth.access_rules._REMEMBERED", 10)
    permissions = rights_of("ci-1")
    assert [permissions.may("pull", f"team/{number}") for number in range(100)] == [True] * 100
    assert len(permissions._known) <= 10


def test_every_endpoint_of_a_repository_needs_something() -> None:
    """Nobody adds an endpoint, or a method, and forgets who may use it."""
    free = {"root", "catalog", "page", "metrics", "health"}
    needing = {
        room: {method for method, endpoint in methods.items() if endpoint.action is not None}
        for room, methods in ENDPOINTS.items()
    }
    assert {room: methods for room, methods in needing.items() if methods} == {
        room: set(methods) for room, methods in ENDPOINTS.items() if room not in free
    }


# What is wrong with a file


def rule(who: str = '"a"', repositories: str = '"b"', do: str = '"pull"', more: str = "") -> str:
    return f"[[allow]]\nwho = {who}\nrepositories = {repositories}\ndo = {do}\n{more}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "F has no rule; begin one with [[allow]]"),
        ("allow = []", "F has no rule"),
        ("allow = 3", "F line 1: write each rule as a table `[[allow]]`"),
        ("[allow]\nwho = 'a'", "F line 1: write each rule as a table `[[allow]]`"),
        ("[[allow]\n", "F is not TOML: "),
        (rule() + "x = \n", "at line 6"),
        (rule() + "[[deny]]\n", "F line 6: unknown key 'deny'; known are allow, ask_for_login"),
        ("ask_for_login = 1\n" + rule(), "F line 1: `ask_for_login` is true or false"),
        (
            rule() + rule(more="users = 'x'"),
            "F line 10 rule 2: unknown key 'users'; known are who, repositories, do",
        ),
        (rule() + "[[allow]]\nwho = 'a'\ndo = 'pull'\n", "F line 6 rule 2: it has no `repositories`"),
        (rule(who="[]"), "F line 2 rule 1: `who` is empty"),
        (rule(who="[1]"), "F line 2 rule 1: `who` is a text or a list of texts"),
        (rule(who="''"), "F line 2 rule 1: `who`: '' is empty"),
        (rule(who="'a**'"), "F line 2 rule 1: `who`: 'a**' has **"),
        (rule(who="'a:b'"), "F line 2 rule 1: `who`: 'a:b' has ':', which no name of a login has"),
        (rule(repositories="'Team/*'"), "'Team/*' has 'T', which no name of a repository has"),
        (rule(repositories="'team/?'"), "'team/?' has '?', which no name of a repository has"),
        (rule(repositories="'team/***'"), "F line 3 rule 1: `repositories`: 'team/***' has ***"),
        (rule(do="['pull', 'write']"), "F line 4 rule 1: `do` knows pull, push, delete, not 'write'"),
        (rule(do="true"), "F line 4 rule 1: `do` is a text or a list of texts"),
        ("a = " + "9" * 5000, "F is not TOML"),
        ("a = " + "[" * 5000, "F is "),
    ],
)
def test_a_file_that_makes_no_sense_is_told_by_line_or_rule(text: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        parse_access(text, "F")
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_all_that_is_wrong_is_told_at_once_mistyped_keys_first() -> None:
    text = rule(who="[]", do="'write'") + "[[allow]]\nwho = 'a'\nrepositries = 'X'\ndo = 'pull'\n"
    with pytest.raises(InvalidFile) as caught:
        parse_access(text, "F")
    assert [each.partition(":")[0] for each in caught.value.errors] == [
        "F line 8 rule 2",
        "F line 2 rule 1",
        "F line 4 rule 1",
    ]
    assert "did you mean `repositories`?" in caught.value.errors[0]


@given(st.text())
def test_any_text_is_rules_or_told(text: str) -> None:
    with pytest.raises(InvalidConfig):
        parse_access(text, "F")


@given(st.integers(min_value=0, max_value=len(RULES)))
def test_a_file_that_is_cut_off_never_allows_more(length: int) -> None:
    try:
        cut = AccessRules(parse_access(RULES[:length], "F"))
    except InvalidConfig:
        return
    for user in ("ci-1", "ann", "x", ""):
        for repository in ("team/app", "tools/a", "shared/one", "public/a", "other"):
            for action in ("pull", "push", "delete"):
                asked: Action = action
                if cut.permissions(user, with_logins=True).may(asked, repository):
                    assert rights_of(user).may(asked, repository)

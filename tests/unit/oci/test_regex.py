"""Regular expressions as Go's tools have them: what they match, what is refused, how groups are filled in."""

from __future__ import annotations

import time

import pytest

from blobflow.errors import UsageError
from blobflow.oci.tag_selection.regex import compile_pattern, has_loose_choice
from tests.deadlines import HANGS_AFTER

# Expression, what it matches from end to end, what not
MATCHES = [
    ("[[:digit:]]+", "1 42", "a 1a"),
    ("[[:alpha:]][[:alnum:]]*", "a a1", "1 1a"),
    ("[^[:upper:]]", "a 1", "A"),
    (r"v\d+\.\d+", "v1.2", "1.2 v1x2"),
    (r"\pN+", "1 ٣", "a"),
    (r"\p{Greek}", "λ", "l"),
    (r"\Q1.2\E.*", "1.2 1.2-x", "1x2"),
    (r"1\z", "1", "11"),
    (r"(?i)RC", "rc Rc", "r"),
    (r"a(?i)b", "ab aB", "Ab"),
    (r"(?P<n>x)|(?<m>y)", "x y", "xy"),
    ("(?U)a+", "a aa", ""),
    ("(?:a|b){2}", "ab", "a"),
    ("x{,5}", "x{,5}", "xx"),
]


@pytest.mark.parametrize(("text", "these", "others"), MATCHES, ids=[row[0] for row in MATCHES])
def test_an_expression_means_what_it_means_to_go(text: str, these: str, others: str) -> None:
    pattern = compile_pattern(text)
    words = [*these.split(), *others.split()]
    assert [word for word in words if pattern.is_whole(word)] == these.split()


def test_digits_are_those_of_ascii_and_the_end_is_the_end() -> None:
    assert not compile_pattern(r"\d").is_whole("٣")
    assert not compile_pattern(r"^a$").is_in("a\n")
    assert compile_pattern("b").is_in("abc")


REFUSED = {
    "(": r"'\(' is no regular expression: missing \)",
    "[a": r"missing \]",
    "(?=a)b": "RE2, .* has no look-ahead",
    "(?!.*rc).*": "no look-ahead; leave out what is not wanted by an expression of its own",
    "(?<=v)1": "no look-behind",
    "(?<!v)1": "no look-behind; leave out",
    r"(a)\1": r"invalid escape sequence: \\1",
    r"a\Z": r"invalid escape sequence: \\Z",
    r"a\C": "half a character",
    "a**": "bad repetition",
    "a{1001}": "invalid repetition size",
    "((a{100}){100}){100}": "invalid repetition|too large",
    "\ud800": "no Unicode text",
    "a" * 4097: "at most 4096 characters",
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.items(), ids=[repr(text)[:20] for text in REFUSED])
def test_what_go_refuses_is_refused(text: str, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=sentence):
        compile_pattern(text)
    assert capfd.readouterr() == ("", ""), "RE2 would log by itself"


def test_an_escape_that_is_quoted_is_none() -> None:
    assert compile_pattern(r"\Q\C\E").is_whole(r"\C")
    assert compile_pattern(r"\\C").is_whole(r"\C")


@pytest.mark.parametrize("text", ["(a+)+$", "(a|a)*b", "(.*)*x", "(a?){50}a{50}"])
def test_no_expression_takes_time_without_end(text: str) -> None:
    """A bound of the machine's, not of speed: such an expression can take longer than the universe is old."""
    began = time.monotonic()
    for _ in range(100):
        compile_pattern(text).is_whole("a" * 127 + "!")
    assert time.monotonic() - began < HANGS_AFTER


TEMPLATES = [
    ("library/(.*)", "library/alpine", r"base/\1", "base/alpine"),
    ("(?P<first>[a-z]+)-(.)", "ab-c", r"\2-\g<first>-\g<2>", "c-ab-c"),
    ("a(b)?", "a", r"x\1y", "xy"),
    ("a", "a", "\\\\", "\\"),
    ("a", "a", "", ""),
    ("a", "ab", "x", None),
]


@pytest.mark.parametrize(("text", "name", "template", "new"), TEMPLATES)
def test_what_matches_is_replaced(text: str, name: str, template: str, new: str | None) -> None:
    pattern = compile_pattern(text)
    pattern.check_template(template)
    assert pattern.replaced(name, template) == new


@pytest.mark.parametrize("template", [r"\1", r"\g<2>", r"\g<x>", r"\n", "\\"])
def test_a_template_that_can_t_be_filled_in_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match="can't replace 'a'"):
        compile_pattern("a").check_template(template)


@pytest.mark.parametrize(
    ("text", "loose"),
    [
        ("a|b", True),
        ("(a|b)", False),
        ("(a)|b", True),
        ("[a|b]", False),
        (r"a\|b", False),
        (r"\Qa|b\E", False),
        ("[[:alpha:]|]+", False),
        (r"\(a|b\)", True),
        ("a", False),
    ],
)
def test_a_choice_outside_of_groups_is_seen(text: str, loose: bool) -> None:
    assert has_loose_choice(text) is loose

"""Ranges of versions as skopeo (Masterminds' semver) and regsync read them, where they differ from npm's."""

from __future__ import annotations

import pytest

from blobflow.errors import UsageError
from blobflow.oci.tag_selection.rules import Dialect
from blobflow.oci.tag_selection.version_ranges import range_of

# Range, what is in it, what is not
MASTERMINDS = [
    (">= 3.12.0", "3.12.0 v3.13 4", "3.11.9 3.13.0-rc1 4-alpine V4.0.0 4.0.0_b1 latest"),
    (">=3.12.0-0", "3.12.0-rc 3.13.0-rc1 4-alpine 4.0.0", "3.11.0 3.12.0-01"),
    (">=1.0.0-beta", "1.0.0-beta.2 1.5.0-alpha 1.0.0", "1.0.0-alpha"),
    (">=1.2, <1.5-0 || =2.1", "1.2.0 1.3.0-rc 2.1.3", "1.5.0 1.5.0-rc 2.1.0-rc"),
    ("=> 1.2 =< 2", "1.2.0 2.9.9", "1.1.0 3.0.0"),
    ("1.2 - 1.4.5", "1.2.0 1.4.5", "1.1.9 1.4.6 1.3.0-rc"),
    ("1.2 - 1.4.5 || 3 - 4", "1.2.0 3.0.0 4.9.9", "2.0.0 5.0.0"),
    ("1.0.0-a - 1.0.0", "1.0.0-b 1.0.0", "1.0.1"),
    ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0 1.9.0-rc"),
    ("^0.2.3", "0.2.9", "0.3.0 1.0.0"),
    ("^0.0.3", "0.0.3", "0.0.4"),
    ("^0.0", "0.0.9", "0.1.0"),
    ("^0", "0.9.0", "1.0.0"),
    ("~1.2.3", "1.2.9", "1.3.0"),
    ("~>1.2", "1.2.9", "1.3.0"),
    ("~1", "1.9.0", "2.0.0"),
    ("1.2.x", "1.2.9", "1.3.0"),
    ("1.*", "1.9.9", "2.0.0"),
    ("*", "0.0.1 9.0.0", "9.0.0-rc"),
    ("1.2", "1.2.0 1.2.9", "1.3.0"),
    ("=1.2.3", "1.2.3 v1.2.3 1.2.3", "1.2.4"),
    ("!=1.2.x, 1", "1.1.0", "1.2.5 2.0.0"),
    ("!=1.2.3 ^1", "1.2.4", "1.2.3"),
    (">1.2", "1.3.0", "1.2.9"),
    (">1", "2.0.0", "1.9.9"),
    ("<=1.2", "1.2.9 0.1.0", "1.3.0"),
    ("<=1", "1.9.9", "2.0.0"),
    ("<1.2", "1.1.9", "1.2.0 1.1.9-rc"),
]
REGSYNC = [
    (">=2.0.0", "2.0.0 2 v2.1 3-alpine 2.0.1-rc.1", "1.9.9 2.0.0-rc.1 latest"),
    (">=1.0.0 <2.0.0", "1.0.0 1.9.9 2.0.0-rc1", "0.9.9 2.0.0"),
    ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0"),
    ("^0.2.3", "0.2.9", "0.3.0"),
    ("^0.0.3", "0.0.3", "0.0.4"),
    ("~1.2.3", "1.2.9", "1.3.0"),
    ("~1", "1 1.0.9", "1.1.0"),
    ("=1.2", "1.2 1.2.0", "1.2.1"),
    ("1.2.3", "1.2.3 v1.2.3", "1.2.4"),
    (">=10.0.17763", "10.0.17763.2114 10.0.17763", "10.0.17762.9"),
    (">10.0.17763.5", "10.0.17763.20", "10.0.17763.5 10.0.17763"),
    (">=1.2.3-rc2", "1.2.3-rc11 1.2.3", "1.2.3-rc1"),
    (">=v1.0", "1.5.0", "0.1"),
]
ROWS = [(*row, "masterminds") for row in MASTERMINDS] + [(*row, "regsync") for row in REGSYNC]


@pytest.mark.parametrize(("text", "inside", "outside", "dialect"), ROWS)
def test_a_range_has_these_tags_and_not_those(text: str, inside: str, outside: str, dialect: Dialect) -> None:
    has = range_of(text, dialect)
    assert [tag for tag in (*inside.split(), *outside.split()) if has(tag)] == inside.split()


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        *(
            (text, "masterminds")
            for text in ("", "|| 1", "new", "1.2.3.4", "^^1", "1 2x", "1 | 2", "9" * 513)
        ),
        *((text, "masterminds") for text in ("1.2.3-01", "- 1", "1 ,, 2", ">=")),
        *((text, "regsync") for text in ("1 || 2", "1.x", ">=1,<2", ">= 1", "new", "!=1", "~>1", "9" * 513)),
    ],
)
def test_what_is_no_range_is_refused(text: str, dialect: Dialect) -> None:
    with pytest.raises(UsageError, match="range of versions"):
        range_of(text, dialect)


@pytest.mark.parametrize("dialect", ["npm", "masterminds", "regsync"])
@pytest.mark.parametrize(
    "text", ["1" + " " * 200 + "!", "1, " * 100 + "!", "1.1-" + "a." * 100 + " !", "v" * 500]
)
def test_what_is_nearly_a_range_takes_no_time(text: str, dialect: Dialect) -> None:
    with pytest.raises(UsageError):
        range_of(text, dialect)

"""The names in the store of what policies accepted."""

from __future__ import annotations

from blobflow.server.pullthrough.stored_names import StoredNames, after_all_of, is_policys, public_name
from blobflow.server.pullthrough.upstreams import Upstream, Upstreams

UPSTREAMS = Upstreams([Upstream("quay.io", "quay")])


def test_each_policy_has_names_of_its_own_that_no_client_can_ask_for() -> None:
    plain, one, other = (StoredNames(UPSTREAMS, each) for each in ("", "one policy", "another"))
    stored = one.of("quay/app")
    assert plain.of("quay/app") == "quay/app"
    assert len({"quay/app", stored, other.of("quay/app")}) == 3
    assert is_policys(stored) and public_name(stored) == "quay/app"
    assert stored == StoredNames(UPSTREAMS, "one policy").of("quay/app")


def test_only_what_counts_now_is_shown() -> None:
    plain, one = StoredNames(UPSTREAMS), StoredNames(UPSTREAMS, "one policy")
    pulled, ours, others = "quay/app", one.of("quay/app"), StoredNames(UPSTREAMS, "another").of("quay/app")
    assert [plain.is_shown(each) for each in (pulled, ours, others, "own/app")] == [True, False, False, True]
    assert [one.is_shown(each) for each in (pulled, ours, others, "own/app")] == [False, True, False, True]
    assert not one.is_shown(one.of("own/app"))  # pushed here since it is no longer pulled through


def test_names_stay_in_order_and_pages_begin_where_the_last_one_ended() -> None:
    names = ["a", "a-b", "a.b", "a/b", "a0", "aa", "b"]
    stored = sorted(name for each in names for name in (each, StoredNames(UPSTREAMS, "x").of(each)))
    assert list(dict.fromkeys(map(public_name, stored))) == names
    for number, last in enumerate(names):
        following = [name for name in stored if name > after_all_of(last)]
        assert list(dict.fromkeys(map(public_name, following))) == names[number + 1 :]
    assert after_all_of("") == ""

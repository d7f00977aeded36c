"""Limits of hosts, shared out to workers: what was set is kept, and nobody waits where nothing was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blobflow.cluster.shares import COORDINATORS_PART, LEAST, share_out
from blobflow.settings import Settings
from blobflow.transports.registry import HostSettings

NAMES = st.integers(1, 40).map(lambda number: [f"w{each}" for each in range(number)])


@given(NAMES, st.integers(1, 100))
def test_connections_that_were_set_are_those_of_all_workers_together(names: list[str], most: int) -> None:
    shares = share_out(Settings(hosts={"here": HostSettings(connections=most)}), names)
    given_out = [each.at("here").connections for each in shares.values()]
    assert sum(given_out) == most
    assert max(given_out) - min(given_out) <= 1
    assert all(each.at("here").far_connections == 0 for each in shares.values())


@given(NAMES, st.integers(1, 100))
def test_concurrency_holds_for_every_host(names: list[str], most: int) -> None:
    shares = share_out(Settings(concurrency=most), names)
    assert sum(each.at("anywhere").connections for each in shares.values()) == most


@given(NAMES)
def test_where_nothing_was_set_every_worker_has_some(names: list[str]) -> None:
    shares = share_out(Settings(), names)
    assert all(each.at("anywhere").connections >= LEAST for each in shares.values())
    assert all(each.at("anywhere").streams >= each.at("anywhere").connections for each in shares.values())


def test_one_worker_has_what_this_process_would_have() -> None:
    (share,) = share_out(Settings(), ["w"]).values()
    assert (share.at("anywhere").connections, share.at("anywhere").far_connections) == (8, 16)


@given(NAMES, st.floats(1, 1e9), st.integers(1, 50))
def test_rates_add_up_to_what_was_set(names: list[str], rate: float, connections: int) -> None:
    own = HostSettings(bytes_per_second=rate, requests_per_second=rate, connections=connections)
    shares = share_out(Settings(hosts={"here": own}, bytes_per_second=rate), names)
    having = [each.at("here") for each in shares.values() if each.at("here").connections]
    assert sum(each.bytes_per_second for each in having) <= rate * 1.000001
    for_workers = rate * (1 - COORDINATORS_PART)
    assert sum(each.requests_per_second for each in having) <= for_workers * 1.000001
    assert sum(each.bytes_per_second for each in shares.values()) <= rate * 1.000001


def test_who_has_a_connection_to_one_host_has_one_to_the_other() -> None:
    hosts = {"source": HostSettings(connections=2), "target": HostSettings(connections=3)}
    shares = share_out(Settings(hosts=hosts), ["a", "b", "c", "d"])
    having = {host: {name for name, each in shares.items() if each.at(host).connections} for host in hosts}
    assert having == {"source": {"a", "b"}, "target": {"a", "b", "c"}}

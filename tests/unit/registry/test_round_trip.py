"""What the times of a host's answers say about how many small requests are worth having in flight there."""

from __future__ import annotations

import math

import pytest

from blobflow.transports.registry.http.round_trip import FARTHEST, NEAR_SECONDS, RISEN, RoundTrip

NEAR = 16


def known(*seconds: float) -> RoundTrip:
    """The round trip after answers that took so long, and before them those that made connections."""
    trip = RoundTrip(NEAR)
    for _ in range(NEAR):
        trip.took(10.0)
    for each in seconds:
        trip.took(each)
    return trip


@pytest.mark.parametrize(
    ("seconds", "requests"),
    [(0.0, 16), (0.001, 16), (NEAR_SECONDS, 16), (0.01, 32), (0.02, 64), (0.04, 64), (1.0, 64)],
)
def test_twice_as_far_twice_as_many_between_near_and_far(seconds: float, requests: int) -> None:
    assert known(seconds).requests == requests


def test_before_anything_is_known_a_host_is_near() -> None:
    trip = RoundTrip(NEAR)
    assert (trip.requests, trip.shortest, trip.rising) == (NEAR, math.inf, False)


def test_the_first_answers_also_took_the_time_of_connecting_and_do_not_count() -> None:
    assert known().requests == NEAR
    assert known(0.01).requests == 2 * NEAR


def test_the_shortest_time_counts() -> None:
    assert known(0.02, 0.5, 0.001, 0.5).requests == NEAR


def test_a_host_for_few_connections_stays_one_for_few_requests() -> None:
    trip = RoundTrip(2)
    for _ in range(3):
        trip.took(0.2)
    assert trip.requests == 2 * FARTHEST


def test_one_late_answer_is_chance_and_late_answers_are_a_queue() -> None:
    trip = known(0.02, *[0.02] * 100, 0.2)
    assert not trip.rising
    for _ in range(30):
        trip.took(0.02 * (RISEN + 1))
    assert trip.rising
    for _ in range(30):
        trip.took(0.02)
    assert not trip.rising

"""Waits: they are there while they last, and who looks sees what they are for by then."""

from __future__ import annotations

import threading

from blobflow.events import HostMeter, Meter
from blobflow.waits import CURRENT_WAIT, HostWaits, Wait, Waits


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_is_there_from_its_beginning_to_its_end() -> None:
    clock = Clock()
    waits = Waits(clock)
    with waits.begin("answer", "r:1", "manifest a:1"):
        second = waits.begin("rest", "s:1", seconds=20.0, attempt=2, attempts=5)
        assert waits.now() == [
            Wait("answer", "r:1", "manifest a:1", 100.0),
            Wait("rest", "s:1", "", 100.0, 120.0, None, 2, 5),
        ]
    assert [wait.host for wait in waits.now()] == ["s:1"]
    second.end()
    second.end()
    assert waits.now() == []


def test_a_wait_ends_also_with_an_error() -> None:
    waits = Waits()
    try:
        with waits.begin("answer", "r:1"):
            raise ValueError
    except ValueError:
        assert waits.now() == []


def test_a_wait_that_becomes_another_begins_anew_and_one_that_stays_does_not() -> None:
    clock = Clock()
    waits = Waits(clock)
    wait = waits.begin("send", "r:1", "upload")
    clock.now = 130.0
    wait.become("send")
    assert waits.now() == [Wait("send", "r:1", "upload", 100.0)]
    wait.become("commit")
    assert waits.now() == [Wait("commit", "r:1", "upload", 130.0)]


def test_two_equal_waits_are_two() -> None:
    waits = Waits(Clock())
    first = waits.begin("permit", "r:1")
    waits.begin("permit", "r:1")
    first.end()
    assert len(waits.now()) == 1


def test_every_meter_of_a_host_has_the_waits_of_its_run() -> None:
    meter = Meter()
    meter.hosts["r:1"].waits.begin("connect")
    meter.hosts["r:1"].waits.begin("connect", host="elsewhere:1")
    assert [wait.host for wait in meter.waits.now()] == ["r:1", "elsewhere:1"]
    assert list(meter.hosts) == ["r:1"]


def test_what_nobody_watches_waits_as_well() -> None:
    HostMeter().waits.begin("answer").end()
    HostWaits().begin("answer").end()
    assert CURRENT_WAIT.get() is None


def test_waits_begin_and_end_in_any_thread_while_they_are_looked_at() -> None:
    waits = Waits()
    stop = threading.Event()

    def work() -> None:
        for _ in range(2000):
            with waits.begin("lock", "/store"):
                pass
        stop.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not stop.is_set():
        assert len(waits.now()) <= 1
    thread.join()
    assert waits.now() == []

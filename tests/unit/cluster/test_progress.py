"""Figures of workers become the run's: once, whatever is lost, late or comes twice."""

from __future__ import annotations

from blobflow.cluster.progress import HostFigures, MovedBytes, News, RunFigures, WorkerWait, pack_news
from blobflow.content import Site
from blobflow.events import Event, Meter, Retrying, Warned

TARGET = Site("to", "app")


class Taken:
    """A run's figures, with all that was told of them."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.events: list[Event] = []
        self.moved: list[tuple[str, MovedBytes]] = []
        self.arrived: list[tuple[str, bytes]] = []
        self.figures = RunFigures(
            "run",
            self.meter,
            self.events.append,
            lambda worker, news: self.moved.append((worker, news)),
            lambda key, packed: self.arrived.append((key, packed)),
        )

    def take(self, news: News) -> None:
        assert self.figures.take(pack_news(news)) == news


def news(requests: int, read: int, *, part: str = "p", resent: int = 0) -> News:
    return News("run", "one", part, {"from": HostFigures(requests, read, 0)}, resent)


def test_figures_count_what_was_added() -> None:
    taken = Taken()
    taken.take(news(1, 10))
    taken.take(news(3, 30, resent=5))
    taken.take(news(3, 30, resent=5))
    assert (taken.meter.requests, taken.meter.bytes_read, taken.meter.bytes_resent) == (3, 30, 5)


def test_a_message_that_was_lost_or_comes_late_changes_nothing() -> None:
    taken = Taken()
    taken.take(news(3, 30))
    taken.take(news(1, 10))
    assert (taken.meter.requests, taken.meter.bytes_read) == (3, 30)


def test_a_part_that_begins_anew_counts_from_nothing() -> None:
    taken = Taken()
    taken.take(news(3, 30))
    taken.take(news(2, 20, part="another"))
    assert (taken.meter.requests, taken.meter.bytes_read) == (5, 50)


def test_events_moves_and_arrivals_are_handed_on() -> None:
    taken = Taken()
    retry = Retrying("copy", "broke", 1, 0.5)
    moved = MovedBytes("key", TARGET, 7)
    taken.take(News("run", "one", "p", moved=(moved,), arrived=(("key", b"packed"),), events=(retry,)))
    assert taken.events == [retry]
    assert taken.moved == [("one", moved)]
    assert taken.arrived == [("key", b"packed")]


def test_a_warning_of_a_worker_names_it() -> None:
    taken = Taken()
    taken.take(News("run", "one", "p", events=(Warned("the store fails"),)))
    assert taken.events == [Warned("worker one: the store fails")]


def test_a_worker_waits_for_what_it_told_last() -> None:
    taken = Taken()
    rest, stall = WorkerWait("rest", "from", "a", 3.0, 7.0), WorkerWait("answer", "to", "b", 1.0)
    taken.take(News("run", "one", "p", waits=(rest, stall)))
    (first,) = [wait for wait in taken.meter.waits.now() if wait.kind == "rest"]
    assert first.what == "a (worker one)"
    assert first.until is not None
    taken.take(News("run", "one", "p", waits=(stall,)))
    assert [wait.kind for wait in taken.meter.waits.now()] == ["answer"]
    taken.figures.gone("one")
    assert not taken.meter.waits.now()


def test_a_wait_that_goes_on_ends_when_it_was_told_to_last() -> None:
    taken = Taken()
    for left in (1.0, 100.0):
        taken.take(News("run", "one", "p", waits=(WorkerWait("rate", "from", "", 3.0, left),)))
    (wait,) = taken.meter.waits.now()
    assert wait.until is not None and wait.until - wait.since > 100


def test_what_is_no_news_of_the_run_is_nothing() -> None:
    taken = Taken()
    for packed in (
        pack_news(News("other", "one", "p", {"from": HostFigures(1, 1, 1)})),
        "{}",
        "no json",
        7,
        None,
        '{"worker": 1}',
    ):
        assert taken.figures.take(packed) is None
    assert not taken.meter.requests
